"""
How time grows: with batch, with multiply-accumulates of non-zero weights, with real lengths.

    python -m benchmarks.scaling [--models bert,resnet50,conformer] [--sweeps batch,ratio,padding]
        [--rounds 7] [--seconds 0.2] [--realtime] [--quick] [--json] [--write docs/scaling.md]

INT8 packages of the fidelity benchmark's models, on one thread of the first processor that this
process may use (`taskset` chooses it). All points of a sweep take turns, in rounds, each in a
process of its own. `--from docs/scaling.json` keeps what is not measured anew. docs/scaling.md
explains more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from spu_ir import __version__
from spu_ir.errors import SpuError
from spu_ir.runtime.cpu import processor_name, select_level

from .compare import check_realtime, recorded
from .compare_cases import Subject, subject
from .compare_measure import Plan
from .scaling_cases import MODELS, SWEEPS, Sweep, points
from .scaling_measure import Builder, Row, measure
from .scaling_page import show, write_page

Report = dict[str, Any]


def results(
    subjects: Sequence[Subject], sweeps: Sequence[Sweep], plan: Plan, builder: Builder
) -> list[Row]:
    """The rows of every sweep and model, but those of padding where a model has no mask."""
    rows: list[Row] = []
    for sweep in sweeps:
        for each in subjects:
            chosen = points(sweep, each)
            if chosen:
                rows += measure(sweep, each, chosen, plan, builder)
    return rows


def header(arguments: Sequence[str], plan: Plan, *, quick: bool) -> Report:
    """Machine, date and command of a measurement."""
    return {
        "machine": processor_name(),
        "processors": os.cpu_count(),
        "processor": plan.processors[0],
        "level": select_level(),
        "date": date.today().isoformat(),
        "command": recorded(arguments, "scaling"),
        "version": __version__,
        "quick": quick,
        "rounds": plan.rounds,
        "round_seconds": plan.seconds,
        "policy": plan.policy,
    }


def _tell(step: str) -> None:
    print(step, file=sys.stderr, flush=True)


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    found.formatter_class = argparse.RawDescriptionHelpFormatter
    add = found.add_argument
    add("--models", type=_names, default=list(MODELS), metavar="A,B")
    add("--sweeps", type=_names, default=list(SWEEPS), metavar="batch,ratio,padding")
    add("--rounds", type=int, default=7, help="turns of every point (default 7)")
    add("--seconds", type=float, default=0.2, help="of one turn (default 0.2)")
    add("--realtime", action="store_true", help="let nothing interrupt what is timed (as root)")
    add("--quick", action="store_true", help="two layers of every model, short inputs")
    add("--json", action="store_true", help="print JSON for machines")
    add("--write", type=Path, metavar="PAGE.md", help="write the page, its JSON and its drawing")
    add("--cache", type=Path, metavar="DIR", help="keep the packages, and use them again")
    add("--from", dest="earlier", type=Path, metavar="FILE", help="the sweeps not measured now")
    return found


def _run(options: argparse.Namespace, given: Sequence[str], place: Path) -> Report:
    plan = Plan(options.rounds, options.seconds, "realtime" if options.realtime else "normal")
    if plan.rounds < 1:
        raise SpuError("there is no round to measure", remedy="ask for 1 or more --rounds")
    for sweep in options.sweeps:
        if sweep not in SWEEPS:
            raise SpuError(f"sweep {sweep!r} is unknown", remedy=f"use one of {', '.join(SWEEPS)}")
    if options.realtime:
        check_realtime()
    subjects = [subject(name, quick=options.quick) for name in options.models]
    earlier: Report | None = None
    if options.earlier is not None:
        earlier = json.loads(options.earlier.read_text(encoding="utf-8"))
    rows = results(subjects, options.sweeps, plan, Builder(place, _tell))
    report = {**header(given, plan, quick=options.quick), "results": rows}
    return report if earlier is None else merged(report, earlier)


def merged(report: Report, earlier: Report) -> Report:
    """A report with the rows of an earlier one that it lacks, and the commands of both."""
    rows = {(row["sweep"], row["model"]): row for row in earlier["results"]}
    rows |= {(row["sweep"], row["model"]): row for row in report["results"]}
    command = f"{earlier['command']} && {report['command']}"
    return {**report, "command": command, "results": list(rows.values())}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 after an error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    try:
        with tempfile.TemporaryDirectory(prefix="spu-ir-scaling-") as folder:
            place = options.cache or Path(folder)
            place.mkdir(parents=True, exist_ok=True)
            report = _run(options, given, place)
    except SpuError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        show(report)
    if options.write is not None:
        write_page(options.write, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
