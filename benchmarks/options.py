"""What the command lines of several benchmarks have in common."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def names(text: str) -> list[str]:
    """Names with commas between them."""
    return [name for name in text.split(",") if name]


def command_line(module: str, description: str | None) -> argparse.ArgumentParser:
    """The command line of `python -m benchmarks.MODULE`, which prints and writes a report."""
    found = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = found.add_argument
    add("--json", action="store_true", help="print JSON for machines")
    add("--write", type=Path, metavar="PAGE.md", help="write the page, and its JSON beside it")
    return found


def add_models(found: argparse.ArgumentParser, models: Sequence[str]) -> None:
    """Which models are measured, how much of them, and results that are there already."""
    add = found.add_argument
    add("--models", type=names, default=list(models), metavar="A,B")
    add("--quick", action="store_true", help="two layers of every model, short inputs")
    add("--from", dest="earlier", type=Path, action="append", default=[], metavar="FILE")


def add_timing(found: argparse.ArgumentParser, rounds: int, seconds: float) -> None:
    """How long is measured, what takes turns in rounds."""
    add = found.add_argument
    add("--rounds", type=int, default=rounds, help=f"turns of everything (default {rounds})")
    add("--seconds", type=float, default=seconds, help=f"of one turn (default {seconds:g})")
    add("--realtime", action="store_true", help="let nothing interrupt what is timed (as root)")


def add_cache(found: argparse.ArgumentParser) -> None:
    """Where compiled models stay."""
    text = "keep what compilers made, and use it again"
    found.add_argument("--cache", type=Path, metavar="DIR", help=text)


def add_pythons(found: argparse.ArgumentParser, engines: Sequence[str]) -> None:
    """The Pythons that engines run in, where it is not the one they have by default."""

    def python(text: str) -> tuple[str, Path]:
        engine, equals, path = text.partition("=")
        if engine not in engines or not equals:
            raise argparse.ArgumentTypeError(f"{text!r} is not ENGINE=PATH")
        return engine, Path(path)

    found.add_argument("--python", type=python, action="append", default=[], metavar="ENGINE=PATH")


def recorded(arguments: Sequence[str], module: str) -> str:
    """The command as a report has it, without what names places of this machine."""
    kept: list[str] = []
    places = ("--cache", "--python", "--from", "--write")
    skip = False
    for argument in arguments:
        if not skip and not argument.startswith(tuple(f"{place}=" for place in places)):
            skip = argument in places
            if not skip:
                kept.append(argument)
        else:
            skip = False
    return " ".join([f"python -m benchmarks.{module}", *kept])
