"""
`spu-smi`, also installed as `mf-smi`: the cards of this machine and what runs on them.

    spu-smi
    spu-smi -l 1
    spu-smi -i 0 --memory-used
    spu-smi --query=index,power.draw,utilisation.spu --format=json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from spu_ir.errors import SpuError
from spu_ir.tools.command import exit_code
from spu_ir.tools.smi_fields import FIELDS, csv_text, everything, json_text, parse_fields
from spu_ir.tools.smi_state import Reading, State, read, state

WINDOW = 0.2
"""Seconds between the two readings of a single look."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `spu-smi`; the exit code is 0, or 1 after one `error:` line for what was given."""
    options = _parser().parse_args(arguments)
    try:
        return exit_code(lambda: _run(options))
    except KeyboardInterrupt:
        return 0  # the way to end -l
    except BrokenPipeError:
        # Whoever read the output has enough. Nothing may be flushed to it at exit.
        sys.stdout = None
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spu-smi",
        description="Show the cards of this machine and the models that processes run on them. The "
        "cards are those that SPU_IR_DEVICES lists (default: one s4), and they are simulated: "
        "so are temperature, power and utilisation (docs/devices.md).",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-L", "--list", action="store_true", help="list the cards")
    what.add_argument("-q", "--all", action="store_true", help="everything about them, in lines")
    what.add_argument("--json", action="store_true", help="everything about them, as JSON")
    what.add_argument(
        "--memory-used", action="store_true", help="bytes that models take, as one number"
    )
    what.add_argument("--query", metavar="FIELD,...", help="these fields, a line a card")
    what.add_argument("--help-query", action="store_true", help="list the fields of --query")
    parser.add_argument(
        "--format", choices=("csv", "json"), help="of --query: csv (default) or json"
    )
    parser.add_argument("-i", "--index", metavar="N", help="only the card of this device index")
    parser.add_argument("-l", "--loop", metavar="SECONDS", help="again and again, until Ctrl-C")
    parser.add_argument(
        "--window",
        metavar="SECONDS",
        default=str(WINDOW),
        help=f"the time that rates are over ({WINDOW}); with -l its own from the second on",
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    if options.help_query:
        for name, field in FIELDS.items():
            print(f"{name:<19} {field.about}")
        return
    if options.format is not None and options.query is None:
        raise SpuError("--format is of --query", remedy="add --query=FIELD,...")
    every = None if options.loop is None else _seconds("--loop", options.loop)
    window = _seconds("--window", options.window)
    index = None if options.index is None else _index(options.index)
    show, rates = _shown(options)

    def look(before: Reading | None, now: Reading) -> None:
        found = state(before, now)
        show(found if index is None else found.only(index))
        sys.stdout.flush()

    before, now = None, read()
    # What is wrong with the cards or the index is said at once.
    checked = state(None, now)
    if index is not None:
        checked.only(index)
    if rates:
        time.sleep(window)
        before, now = now, read()
    look(before, now)
    while every is not None:
        time.sleep(every)
        before, now = now, read()
        look(before, now)


def _shown(options: argparse.Namespace) -> tuple[Callable[[State], None], bool]:
    """How a state is printed, and whether that needs rates."""
    loop = options.loop is not None
    # In a loop, JSON is a document a line, so that readers know where one ends.
    indent = None if loop else 2
    if options.list:
        return _list, False
    if options.memory_used:
        return lambda found: print(sum(card.memory_used for card in found.cards)), False
    if options.json:
        return lambda found: print(json.dumps(everything(found), indent=indent)), True
    if options.query is not None:
        names = parse_fields(options.query)
        rates = any(FIELDS[name].rate for name in names)
        if options.format == "json":
            return lambda found: print(json_text(found, names, indent), end=""), rates
        header = [True]

        def lines(found: State) -> None:
            print(csv_text(found, names, header=header.pop() if header else False), end="")

        return lines, rates
    # Late, so that machines' formats need not wait for rich.
    from spu_ir.tools.smi_table import print_everything, print_tables

    printer = print_everything if options.all else print_tables

    def stamped(found: State) -> None:
        print(datetime.now().astimezone().isoformat(" ", "seconds"))
        printer(found)

    return stamped if loop else printer, True


def _list(found: State) -> None:
    for card in found.cards:
        device = card.device
        chips = "1 chip" if device.chips == 1 else f"{device.chips} chips"
        memory = f"{card.memory_total / 1e9:g} GB"
        print(f"Card {device.index}: {device.name} ({chips}, {memory}, {card.power_cap:g} W)")


def _seconds(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1e6:
        raise SpuError(f"{option} {text!r} is no time", remedy="give seconds above 0")
    return value


def _index(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise SpuError(f"{text!r} is no device index", remedy="spu-smi -L lists them")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
