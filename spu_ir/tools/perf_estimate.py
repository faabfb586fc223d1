"""
`spu-perf estimate`: what a model would take on a card, by the device model.

    spu-perf estimate model.onnx --target s30 --sparsity 16 --batch 64
    spu-perf estimate model.spu --sweep ddr.bandwidth=41e9,82e9,164e9
    spu-perf estimate model.onnx --trace trace.json --html page.html

Nothing is built or run in C. A package's table of work is read without any compiler at all.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spu_ir.errors import SpuError
from spu_ir.tools.command import exit_code, progress_bar

if TYPE_CHECKING:
    from spu_ir.quantisation import Feeds
    from spu_ir.runtime.program import Extent, Json, Port
    from spu_ir.schedule.estimate import Estimate
    from spu_ir.schedule.work import WorkTable
    from spu_ir.targets import Target

TARGET = "s30"
"""Of an ONNX file, where none is given; a package has its own."""

ONNX_ONLY = (
    "precision",
    "sparsity",
    "shapes",
    "padding",
    "activations",
    "attention",
    "calibration",
)
"""Options that say how a model is compiled, which a package is already."""

LAYERS = 12

EVENTS = 2_000_000
"""Of a timeline that is written: half a gigabyte."""


@dataclass(frozen=True)
class Source:
    """The program to estimate, and how it came about."""

    work: WorkTable
    inputs: Sequence[Port]
    extents: Sequence[Extent]
    target: Target
    how: dict[str, Json]
    """For the report: precision, sparsity, and what scales were taken from."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `spu-perf estimate`; 0, or 1 after one `error:` line for what was given."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spu-perf estimate",
        description="What a model would take on a card: modelled, not measured.",
    )
    parser.add_argument("model", type=Path, help="an .onnx file, or a package")
    parser.add_argument(
        "--target",
        metavar="CARD",
        help="s4, s10, s30 or a TOML file (default: a package's own, else s30)",
    )
    parser.add_argument(
        "--batch", type=int, default=64, metavar="N", help="samples on the card (default 64)"
    )
    parser.add_argument(
        "--extents",
        default="",
        metavar="NAME=N,..",
        help="those beside the batch (default: the largest that the model takes)",
    )
    parser.add_argument(
        "--sweep", metavar="FIGURE=A,B,..", help="other values too: ddr.bandwidth=41e9,82e9,164e9"
    )
    _add_layout(parser)
    group = parser.add_argument_group("how an ONNX file is compiled (as spu-compile)")
    group.add_argument("--precision", metavar="P", help="int8 (default), mixed, bf16 or fp32")
    group.add_argument("--sparsity", type=int, metavar="N", help="prune to one weight in N")
    group.add_argument("--shapes", metavar="NAME=N,..", help="extents, as batch=1:64,seq=384")
    group.add_argument("--padding", metavar="P", help="compute (default) or skip")
    group.add_argument("--activations", metavar="A", help="auto (default), dynamic or static")
    group.add_argument("--attention", metavar="A", help="auto (default), int8 or fp32")
    group.add_argument(
        "--calibration",
        metavar="FILE.npz",
        help="inputs to take scales from (default: random ones, where they are needed; times "
        "depend on shapes, not on scales)",
    )
    group = parser.add_argument_group("output")
    group.add_argument(
        "--layers",
        type=_count,
        default=LAYERS,
        metavar="N",
        help=f"groups of like steps to list (default {LAYERS}), or all: every step, in order",
    )
    group.add_argument("--json", action="store_true", help="print JSON instead of tables")
    group.add_argument(
        "--trace", type=Path, metavar="FILE", help="write the timeline for chrome://tracing"
    )
    group.add_argument("--html", type=Path, metavar="FILE", help="write a page with pictures")
    return parser


def _add_layout(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how the work is laid out (docs/device-model.md)")
    group.add_argument(
        "--cores", default="batch", metavar="MODE", help="batch (default), split or broadcast"
    )
    group.add_argument(
        "--core-batch", type=int, metavar="N", help="samples of a pass (default: what L2 holds)"
    )
    group.add_argument(
        "--zeros",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="dual sparsity: activations that are zero and skipped (default 0)",
    )
    group.add_argument(
        "--real", type=float, metavar="SHARE", help="with --padding skip: rows that are real"
    )
    group.add_argument(
        "--wire", metavar="TYPE", help="floats cross the host link as int8, bf16 or fp32"
    )
    group.add_argument(
        "--no-host", action="store_true", help="inputs and outputs stay in the card's memory"
    )


def _count(text: str) -> int | None:
    if text == "all":
        return None
    if not re.fullmatch("[1-9][0-9]{0,8}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor all")
    return int(text)


def _run(options: argparse.Namespace) -> None:
    from spu_ir.schedule.page import page_of
    from spu_ir.schedule.trace import trace_of
    from spu_ir.targets import Target
    from spu_ir.tools.estimate_table import estimate_json, print_estimate

    asked = None if options.target is None else Target.load(options.target)
    if options.sweep is not None:  # What cannot be read is said before minutes of compilation.
        (asked or Target.load(TARGET)).sweep(options.sweep)
    extents = _extents(options.extents)
    if options.model.is_dir():
        source = _of_package(options, asked)
    else:
        source = _of_onnx(options, asked or Target.load(TARGET))
    found = _estimate(source, source.target, options, extents)
    if found.events > EVENTS and (options.trace or options.html):
        raise SpuError(
            f"the timeline of batch {options.batch} has {found.events:,} events, too many to write",
            remedy="use a smaller --batch for --trace and --html",
        )
    sweep = [
        (value, _estimate(source, target, options, extents))
        for value, target in (source.target.sweep(options.sweep) if options.sweep else ())
    ]
    name = str(options.model)
    if options.trace is not None:
        _write(options.trace, json.dumps(trace_of(found), separators=(",", ":")))
    if options.html is not None:
        _write(options.html, page_of(found, options.model.stem))
    swept = options.sweep.partition("=")[0].strip() if options.sweep else ""
    if options.json:
        print(json.dumps(estimate_json(name, source.how, found, swept, sweep), indent=2))
    else:
        print_estimate(name, source.how, found, swept, sweep, options.layers)
        for what, path in (("trace", options.trace), ("page", options.html)):
            if path is not None:
                print(f"{what}: {path}")


def _estimate(
    source: Source, target: Target, options: argparse.Namespace, extents: dict[str, int]
) -> Estimate:
    from spu_ir.schedule.of_model import estimate_model

    return estimate_model(
        source.work,
        target,
        options.batch,
        extents,
        bounds={each.name: (each.minimum, each.maximum) for each in source.extents},
        inputs=source.inputs,
        cores=options.cores,
        core_batch=options.core_batch,
        zeros=options.zeros,
        real=options.real,
        wire=options.wire,
        host=not options.no_host,
    )


def _extents(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (part.strip() for part in item.rpartition("="))
        if not equals or not name or not re.fullmatch("[0-9]{1,9}", value, re.ASCII):
            raise SpuError(f"--extents {item!r} is not name=number", remedy="as in seq=128")
        found[name] = int(value)
    return found


def _of_package(options: argparse.Namespace, asked: Target | None) -> Source:
    from spu_ir.runtime.package import read_package
    from spu_ir.schedule.work import WorkTable
    from spu_ir.targets import Target

    for name in ONNX_ONLY:
        if getattr(options, name) is not None:
            raise SpuError(
                f"--{name} is for ONNX files, and {str(options.model)!r} is compiled already",
                remedy="leave it out, or give the .onnx file",
            )
    package = read_package(options.model)
    if package.work is None:
        raise SpuError(
            f"the package {str(options.model)!r} has no table of work", remedy="compile it again"
        )
    kept = package.options
    return Source(
        work=WorkTable.from_json(package.work),
        inputs=package.inputs,
        extents=package.extents,
        target=asked or Target.of_option(kept.get("target")),
        how={
            "precision": kept.get("precision"),
            "sparsity": kept.get("sparsity"),
            "calibration": None,
        },
    )


def _of_onnx(options: argparse.Namespace, target: Target) -> Source:
    from spu_ir.api import PADDINGS, lower
    from spu_ir.frontend import parse_shapes
    from spu_ir.quantisation import PRECISIONS, Quantisation, check
    from spu_ir.schedule.work import WorkTable

    precision = options.precision or "int8"
    check("precision", precision, PRECISIONS)
    check("padding", options.padding or "compute", PADDINGS)
    shapes = parse_shapes(options.shapes or "")
    quantisation = Quantisation(
        precision,
        activations=options.activations or "auto",
        attention=options.attention or "auto",
    )
    calibration, scales = _calibration(options, precision, shapes)
    with progress_bar(quiet=options.json) as progress:
        program, _ = lower(
            options.model,
            quantisation=quantisation,
            sparsity=options.sparsity,
            calibration=calibration,
            shapes=shapes,
            target=target,
            padding=options.padding or "compute",
            progress=progress,
        )
    return Source(
        work=WorkTable.from_json(program.work),
        inputs=program.inputs,
        extents=program.extents,
        target=target,
        how={
            "precision": precision,
            "sparsity": options.sparsity,
            "calibration": scales,
        },
    )


def _calibration(
    options: argparse.Namespace, precision: str, shapes: Mapping[str, Any]
) -> tuple[Sequence[Feeds] | None, str | None]:
    """Feeds to take scales from, and where they are from, for the report."""
    from spu_ir.tools.random_feeds import random_feed
    from spu_ir.transforms.calibrate import read_feeds

    if options.calibration is not None:
        return read_feeds(options.calibration), options.calibration
    if precision not in ("int8", "mixed"):
        return None, None
    static = precision == "mixed" or options.activations == "static"
    feed = random_feed(options.model, shapes, static=static)
    return (None, None) if feed is None else ([feed], "random")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise SpuError(f"{str(path)!r} cannot be written: {error.strerror}") from error
