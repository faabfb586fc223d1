"""
Prunes an ONNX model in the banks of the sparse format.

    python -m spu_ir.sparsify model.onnx --ratio 8 -o pruned.onnx
    python -m spu_ir.sparsify model.onnx --ratio 8 --method second-order \\
        --calibration feeds.npz -o pruned.onnx
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from spu_ir.errors import SpuError
from spu_ir.packing.prune import RATIOS
from spu_ir.sparsify import LayerReport, Ratio, magnitude, report_table, second_order
from spu_ir.sparsify.files import read_model, write_model
from spu_ir.tools.command import exit_code, progress_bar

METHODS = ("magnitude", "second-order", "unstructured")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `python -m spu_ir.sparsify`; the exit code is 0, or 1 after one `error:` line."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m spu_ir.sparsify",
        description="Prune an ONNX model in the banks of the sparse format.",
    )
    parser.add_argument("model", type=Path, help="the .onnx file")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.onnx")
    parser.add_argument(
        "--ratio",
        action="append",
        required=True,
        metavar="N | GLOB=N",
        help=f"keep one weight in N: {', '.join(map(str, RATIOS))} (unstructured: any from 1); "
        "with GLOB=N (may be repeated) only of layers of such names, the first that matches",
    )
    parser.add_argument("--method", choices=METHODS, default="magnitude")
    parser.add_argument(
        "--calibration",
        metavar="FILE.npz",
        help="inputs for second-order: arrays called as the inputs, or 0/input, 1/input",
    )
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="GLOB",
        help="leave layers of such names dense (may be repeated)",
    )
    parser.add_argument(
        "--bank", type=int, default=64, help="64 (default), or 32 for models in bfloat16"
    )
    parser.add_argument(
        "--inputs",
        choices=("pruned", "dense"),
        default="pruned",
        help="second-order: the model in which layers see their inputs (default: pruned)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _run(options: argparse.Namespace) -> None:
    from spu_ir.transforms.calibrate import read_feeds

    ratio = _ratio(options.ratio)
    if (options.method == "second-order") != (options.calibration is not None):
        raise SpuError(
            "second-order, and no other method, takes calibration feeds",
            remedy="give both --method second-order and --calibration, or neither",
        )
    model = read_model(options.model)
    rows: list[LayerReport] = []
    if options.method == "second-order":
        feeds = read_feeds(options.calibration)
        with progress_bar(quiet=options.json, counted=True) as progress:
            pruned = second_order(
                model,
                ratio,
                feeds,
                bank=options.bank,
                keep=options.keep,
                inputs=options.inputs,
                progress=progress,
                report=rows.append,
            )
    else:
        pruned = magnitude(
            model,
            ratio,
            bank=options.bank,
            structure="unstructured" if options.method == "unstructured" else "banked",
            keep=options.keep,
            report=rows.append,
        )
    write_model(pruned, options.output)
    if options.json:
        result = {
            "model": str(options.model),
            "output": str(options.output),
            "method": options.method,
            "layers": [row.json() for row in rows],
        }
        print(json.dumps(result, indent=2))
        return
    from rich.console import Console

    # A pipe has no width of its own, and the table needs more than the usual 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(report_table(rows))
    print(f"model: {options.output}")


def _ratio(given: Sequence[str]) -> Ratio:
    """`8` for all layers, or `name=8` as often as needed."""
    by_name: dict[str, float] = {}
    for text in given:
        name, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if not 1 <= value < float("inf") or (equals and not name):
            raise SpuError(
                f"--ratio {text!r} is neither N nor GLOB=N", remedy="give 8, or 'encoder.*=8'"
            )
        if not equals:
            if len(given) > 1:
                raise SpuError(
                    f"--ratio {text!r} is for all layers, but there are others",
                    remedy="give one number, or GLOB=N for each; '*=8' is the rest",
                )
            return int(value) if value.is_integer() else value
        by_name.setdefault(name, int(value) if value.is_integer() else value)
    return by_name


if __name__ == "__main__":
    sys.exit(main())
