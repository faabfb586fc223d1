"""
spu-ir beside other engines: latency, throughput, load time, memory, and how near the roofline.

    python -m benchmarks.compare [--models resnet50,bert,...] [--ratios 1,16,95%] [--threads 1,2]
        [--engines spu,openvino,onnxruntime,deepsparse] [--batch 1,8] [--rounds 5] [--quick]
        [--json] [--write docs/performance.md] [--from EARLIER.json] [--python ENGINE=PATH]

Every engine gets the same pruned FP32 model, quantised in the way that its makers advise, and runs
in a process of its own, pinned to as many processors as it may use threads. All take turns, in
rounds. The first batch and number of threads is measured in all forms that an engine reads; the
fastest INT8 form with right answers stands for it from then on. docs/performance.md explains more.
A ratio 16/2 has pairs of lane groups that keep the same places, stored once for both.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from spu_ir import __version__
from spu_ir.errors import SpuError
from spu_ir.runtime.cpu import processor_name, select_level

from .compare_cases import LINES, subject
from .compare_engines import REMEDIES, missing, python_of
from .compare_measure import (
    Group,
    Plan,
    Progress,
    Row,
    accepted,
    best_variants,
    reference,
    roofline,
)
from .compare_page import show, write_page
from .compare_process import check_realtime
from .compare_recipes import Maker, variants
from .compare_roofline import Ceilings
from .fidelity_cases import NAMES
from .options import (
    add_cache,
    add_models,
    add_pythons,
    add_timing,
    command_line,
    names,
    recorded,
)
from .ratios import order, parse_all
from .ratios import title as written

Report = dict[str, Any]
FIDELITY = Path(__file__).parent.parent / "docs" / "fidelity.json"


def measure(
    maker: Maker,
    engines: Sequence[str],
    threads: Sequence[int],
    plan: Plan,
    ceilings: Ceilings,
    progress: Progress,
    *,
    references: bool,
) -> list[Row]:
    """All rows of one model at one ratio. `references`: also in FP32, for the first group."""
    subject = maker.subject
    chosen = [variant for engine in engines for variant in variants(engine, subject)]
    if not references:
        chosen = [variant for variant in chosen if variant.format == "int8"]
    rows: list[Row] = []
    for batch in maker.batches:
        progress(f"{subject.name} {written(maker.ratio)}: FP32 answers for batch {batch}")
        want = reference(maker, batch)
        for count in threads:
            title = f"{subject.name} {written(maker.ratio)} batch {batch} threads {count}"
            group = Group(
                maker, batch, count, plan, lambda step, title=title: progress(f"{title}: {step}")
            )
            found = group.measure(chosen, want)
            for row in found:
                if row["engine"] == "spu" and "seconds" in row:
                    _complete(row, maker, batch, ceilings, plan)
            if not rows:
                chosen = best_variants(found, chosen)
            rows += found
    return rows


def _complete(row: Row, maker: Maker, batch: int, ceilings: Ceilings, plan: Plan) -> None:
    """What only our own engine can tell."""
    package = maker.package
    digest = str(package["digest"])
    row["package"] = digest
    row["padding"] = package["padding"]
    row["compile_seconds"] = package["seconds"]
    row["roofline"] = roofline(maker, batch, row, ceilings, plan.processors[0])


def header(arguments: Sequence[str], plan: Plan, ceilings: Ceilings, *, quick: bool) -> Report:
    """Machine, date and command of a measurement, and the ceilings."""
    return {
        "machine": processor_name(),
        "processors": len(plan.processors),
        "level": ceilings.level,
        "date": date.today().isoformat(),
        "command": recorded(arguments, "compare"),
        "version": __version__,
        "quick": quick,
        "rounds": plan.rounds,
        "round_seconds": plan.seconds,
        "policy": plan.policy,
        "padding": "inputs without padding",
        "lines": LINES,
        "ceilings": {"dot": ceilings.dot, "pair": ceilings.pair},
        "loadavg": os.getloadavg()[0],
    }


def _numbers(text: str) -> list[int]:
    return [int(name) for name in names(text)]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = command_line("compare", __doc__)
    add_models(found, NAMES)
    add_timing(found, rounds=5, seconds=0.5)
    add_cache(found)
    add_pythons(found, list(REMEDIES))
    add = found.add_argument
    add("--engines", type=names, default=list(REMEDIES), metavar="A,B")
    add("--threads", type=_numbers, default=[1], metavar="1,2")
    add("--ratios", type=parse_all, default=[1, 16, "95%"], metavar="1,16,95%")
    add("--batch", type=_numbers, default=[1, 8], metavar="1,8")
    return found


def available(engines: Sequence[str], pythons: Mapping[str, Path]) -> dict[str, str | None]:
    """Every engine that was asked for, and why it cannot be measured, if so."""
    return {engine: missing(engine, pythons[engine]) for engine in engines}


def with_earlier(
    reasons: Mapping[str, str | None], earlier: Sequence[Report]
) -> dict[str, dict[str, Any]]:
    """Every engine of this report and of earlier ones: it is available if it was in any."""
    found: dict[str, dict[str, Any]] = {
        engine: {"available": reason is None, "reason": reason}
        for engine, reason in reasons.items()
    }
    for report in earlier:
        for engine, state in report["engines"].items():
            if engine not in found or state["available"]:
                found[engine] = state
    return found


def merged(rows: Sequence[Row], earlier: Sequence[Row]) -> list[Row]:
    """
    Rows by model, ratio, batch and threads; an earlier one only where there is no newer. Whether
    fidelity accepts a package is looked up anew.
    """

    def key(row: Row) -> tuple[Any, ...]:
        return NAMES.index(row["model"]), order(row["ratio"]), row["batch"], row["threads"]

    newer = {key(row) for row in rows}
    found = [*rows, *(row for row in earlier if key(row) not in newer)]
    for row in found:
        if "package" in row:
            row["accepted"] = accepted(row["package"], row["model"], row["ratio"], FIDELITY)
    return sorted(found, key=key)


def _run(options: argparse.Namespace, given: Sequence[str], folder: Path) -> Report:
    plan = Plan(options.rounds, options.seconds, "realtime" if options.realtime else "normal")
    if options.realtime:
        check_realtime()
    for count in options.threads:
        plan.affinity(count)
    subjects = [subject(name, quick=options.quick) for name in options.models]
    given_pythons: dict[str, Path] = dict(options.python)
    pythons = {engine: python_of(engine, given_pythons) for engine in options.engines}
    for engine in options.engines:
        variants(engine, subjects[0])
    reasons = available(options.engines, pythons)
    engines = [engine for engine, reason in reasons.items() if reason is None]
    earlier = [json.loads(path.read_text(encoding="utf-8")) for path in options.earlier]
    old: list[Row] = [row for report in earlier for row in report["results"]]
    level = select_level()
    ceilings = Ceilings(level, folder)
    rows: list[Row] = []
    report: Report = {}
    for each in subjects:
        for ratio in options.ratios:
            maker = Maker(each, ratio, options.cache or folder, options.batch, pythons)
            rows += measure(
                maker,
                engines,
                options.threads,
                plan,
                ceilings,
                lambda step: print(step, file=sys.stderr, flush=True),
                references=ratio == options.ratios[0],
            )
            report = {
                **header(given, plan, ceilings, quick=options.quick),
                "processors": max(
                    [len(plan.processors), *(report["processors"] for report in earlier)]
                ),
                "engines": with_earlier(reasons, earlier),
                "earlier": [
                    command
                    for report in earlier
                    for command in (*report["earlier"], report["command"])
                ],
                "results": merged(rows, old),
            }
            if options.write is not None:
                # After every model: what has been measured is not lost when a later one fails.
                write_page(options.write, report)
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 after an error, 2 when an engine's answers are wrong."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    try:
        with tempfile.TemporaryDirectory(prefix="spu-ir-compare-") as folder:
            report = _run(options, given, Path(folder))
    except SpuError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        show(report)
    return 2 if any(row.get("wrong") for row in report["results"]) else 0


if __name__ == "__main__":
    sys.exit(main())
