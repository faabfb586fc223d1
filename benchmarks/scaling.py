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

from .compare_cases import Subject, subject
from .compare_measure import Plan
from .compare_process import check_realtime
from .options import add_cache, add_models, add_timing, command_line, names, recorded
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


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = command_line("scaling", __doc__)
    add_models(found, MODELS)
    add_timing(found, rounds=7, seconds=0.2)
    add_cache(found)
    found.add_argument("--sweeps", type=names, default=list(SWEEPS), metavar="A,B")
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
    earlier = [json.loads(path.read_text(encoding="utf-8")) for path in options.earlier]
    rows = results(subjects, options.sweeps, plan, Builder(place, _tell))
    report = {**header(given, plan, quick=options.quick), "results": rows}
    for each in reversed(earlier):
        report = merged(report, each)
    return report


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
