"""
`spu-compile`: compile an ONNX model to a package that `spu-run` and `spu_ir.load` run.

    spu-compile model.onnx -o model.spu --shapes batch=1:64,seq=1:512
    spu-compile resnet50.onnx -o resnet50.spu --sparsity 16 --calibration feeds.npz
    spu-compile resnet50.onnx -o resnet50.spu --images --calibration photos
    spu-compile model.onnx --precision fp32 --export-c c_program
    spu-compile model.onnx -o m.spu --precision mixed --calibration feeds.npz --bias-correction
    spu-compile model.onnx --sensitivity --calibration feeds.npz
    spu-compile model.onnx -o model.spu --tune --tune-extents batch=1,seq=128
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spu_ir.errors import SpuError
from spu_ir.tools.command import exit_code, progress_bar
from spu_ir.tools.image_options import SETTINGS

if TYPE_CHECKING:
    from spu_ir.media.image_input import ImageInput
    from spu_ir.quantisation import Feeds
    from spu_ir.runtime import CompiledModel
    from spu_ir.runtime.program import Json
    from spu_ir.transforms.sensitivity import SensitivityReport

COLUMNS = (
    "layer",
    "op",
    "shape",
    "precision",
    "density",
    "format",
    "bytes",
    "padding",
    "reason",
)
"""Of the report, in the order of `CompiledModel.report`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `spu-compile`; the exit code is 0, or 1 after one `error:` line for what was given."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spu-compile",
        description="Compile an ONNX model to a package for spu-run and spu_ir.load.",
    )
    parser.add_argument("model", type=Path, help="the .onnx file")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="the package to write")
    parser.add_argument("--export-c", type=Path, metavar="DIR", help="write the program as C")
    parser.add_argument(
        "--target", default="s4", metavar="CARD", help="s4 (default), s10, s30 or a TOML file"
    )
    parser.add_argument(
        "--precision",
        default="int8",
        metavar="P",
        help="int8 (default), bf16, fp32, or mixed: int8 but for the layers it would hurt most",
    )
    parser.add_argument(
        "--sparsity",
        type=int,
        metavar="N",
        help="prune to one weight in N of every bank: 2, 4, 8, 16 or 32 (default: as they are)",
    )
    parser.add_argument(
        "--shapes",
        default="",
        help="extents as name=4 or name=1:64 (any value in the range at run time), inputs as "
        "name=[1,3,224,224]; separated by commas",
    )
    parser.add_argument(
        "--padding",
        default="compute",
        metavar="P",
        help="compute (default) or skip: the rows behind a sample's end, as the mask marks it",
    )
    parser.add_argument(
        "--images",
        nargs="?",
        const="",
        metavar="SETTINGS",
        help="take decoded images of any size and resize and normalise them in the program "
        f"(docs/media.md): {SETTINGS}; separated by commas",
    )
    _add_quantisation(parser)
    _add_tiling(parser)
    parser.add_argument(
        "--levels",
        metavar="A,B",
        help="ISA levels of the package, separated by commas (default: all of this architecture)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _add_tiling(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sizes of tiles (docs/tuning.md)")
    group.add_argument(
        "--tiling",
        metavar="SIZES",
        help="sizes as lanes_a_block=192,elements=4096 (default: what suits this host's caches)",
    )
    group.add_argument(
        "--tune",
        action="store_true",
        help="measure some sizes on this host, at its best level, and take the fastest",
    )
    group.add_argument(
        "--tune-extents",
        default="",
        metavar="EXTENTS",
        help="measure at batch=1,seq=128 (default: at the largest)",
    )


def _add_quantisation(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("INT8 (docs/quantisation.md)")
    group.add_argument(
        "--calibration",
        metavar="FILE.npz",
        help="inputs to calibrate with: arrays called as the inputs, or 0/input, 1/input; with "
        "--images also JPEGs, as a folder or a pattern",
    )
    group.add_argument(
        "--activations",
        default="auto",
        metavar="A",
        help="scales of activations: dynamic, static, or auto (default), what suits the network",
    )
    group.add_argument(
        "--attention",
        default="auto",
        metavar="A",
        help="attention in INT8: int8, fp32, or auto (default), int8 unless quantised before",
    )
    group.add_argument(
        "--observer",
        default="minmax",
        metavar="O",
        help="how static ranges are chosen: minmax (default), percentile, percentile:99.9, "
        "entropy or mse",
    )
    group.add_argument(
        "--bias-correction",
        action="store_true",
        help="take the mean error that quantisation adds off the biases",
    )
    group.add_argument(
        "--smoothing",
        action="store_true",
        help="move outlier columns of normalised activations into the weights (transformers)",
    )
    group.add_argument(
        "--rounding",
        choices=("nearest", "second-order"),
        default="nearest",
        help="of weights: each to the nearest, or for what its layer answers on the calibration",
    )
    group.add_argument(
        "--group-size",
        type=int,
        metavar="INPUTS",
        help="how many inputs of a matrix product share their scales, a multiple of 64 (all)",
    )
    group.add_argument(
        "--budget",
        type=float,
        metavar="SHARE",
        help="of the multiply-accumulates that --precision mixed may compute in bf16 (0.1)",
    )
    group.add_argument(
        "--tolerance",
        type=float,
        metavar="ERROR",
        help="take no more layers out of int8 once the outputs' estimated error is below this",
    )
    group.add_argument(
        "--sensitivity",
        action="store_true",
        help="print what int8 would cost at each layer, instead of compiling",
    )


def _run(options: argparse.Namespace) -> None:
    from spu_ir.api import compile
    from spu_ir.frontend import parse_shapes
    from spu_ir.transforms.tile_sizes import Tiling

    if options.sensitivity:
        if options.images is not None:
            raise SpuError(
                "--sensitivity is measured on arrays", remedy="leave --images out, give an .npz"
            )
        _print_sensitivity(options)
        return
    if options.output is None and options.export_c is None:
        raise SpuError("nothing would be written", remedy="give --output or --export-c")
    levels = options.levels.split(",") if options.levels else None
    images = _images(options)
    start = time.perf_counter()
    with progress_bar(quiet=options.json) as progress:
        model = compile(
            options.model,
            target=options.target,
            precision=options.precision,
            sparsity=options.sparsity,
            shapes=parse_shapes(options.shapes),
            padding=options.padding,
            calibration=_calibration(options, images),
            preprocess=images,
            activations=options.activations,
            observer=options.observer,
            bias_correction=options.bias_correction,
            smoothing=options.smoothing,
            rounding=options.rounding,
            group_size=options.group_size,
            budget=options.budget,
            tolerance=options.tolerance,
            attention=options.attention,
            progress=progress,
            device="none",
            tiling=None if options.tiling is None else Tiling.parse(options.tiling),
            tune=options.tune,
            tune_extents=_tune_extents(options.tune_extents),
        )
        progress("write", 0, 1)
        if options.output is not None:
            model.save(options.output, levels=levels)
        if options.export_c is not None:
            model.export_c(options.export_c)
    seconds = time.perf_counter() - start
    if options.json:
        result = {"model": str(options.model), "seconds": seconds, "layers": model.report()}
        print(json.dumps(result, indent=2))
        return
    print_report(model)
    estimate = model.options["estimated_error"]
    if isinstance(estimate, float):
        print(f"estimated error of the outputs: {estimate:.2g}{_beyond(estimate, options)}")
    if options.tune:
        print(f"tiling: {_tiling(model)}")
    for what, folder in (("package", options.output), ("C program", options.export_c)):
        if folder is not None:
            print(f"{what}: {folder}")
    print(f"compiled in {seconds:.1f} s")


def _images(options: argparse.Namespace) -> ImageInput | None:
    from spu_ir.tools.image_options import parse_images, with_input

    if options.images is None:
        return None
    return with_input(parse_images(options.images), options.model)


def _tiling(model: CompiledModel) -> str:
    from spu_ir.transforms.tile_sizes import Tiling

    sizes = model.options.get("tiling")
    return str(Tiling.from_json(sizes)) if isinstance(sizes, dict) else "the default"


def _tune_extents(text: str) -> dict[str, int]:
    from spu_ir.frontend import parse_shapes

    sizes: dict[str, int] = {}
    for name, size in parse_shapes(text).items():
        if not isinstance(size, int):
            raise SpuError(f"--tune-extents: {name} is no number", remedy="as in batch=1,seq=128")
        sizes[name] = size
    return sizes


def _calibration(options: argparse.Namespace, images: ImageInput | None) -> Iterable[Feeds] | None:
    from spu_ir.tools.image_options import jpeg_feeds
    from spu_ir.transforms.calibrate import read_feeds

    given: str | None = options.calibration
    if given is None:
        return None
    if images is not None and not given.endswith(".npz"):
        return jpeg_feeds(images, given)
    return read_feeds(given)


def _beyond(estimate: float, options: argparse.Namespace) -> str:
    from spu_ir.transforms.choose_precision import BUDGET

    if options.tolerance is None or estimate <= options.tolerance:
        return ""
    budget = BUDGET if options.budget is None else options.budget
    return f", more than the tolerance: a budget of {budget:g} allows no less"


def _print_sensitivity(options: argparse.Namespace) -> None:
    from spu_ir.api import sensitivity
    from spu_ir.frontend import parse_shapes
    from spu_ir.transforms.calibrate import read_feeds

    if options.output is not None or options.export_c is not None:
        raise SpuError("--sensitivity compiles nothing", remedy="leave out --output and --export-c")
    if options.calibration is None:
        raise SpuError(
            "sensitivity is measured on inputs", remedy="give some with --calibration feeds.npz"
        )
    with progress_bar(quiet=options.json) as progress:
        report = sensitivity(
            options.model,
            sparsity=options.sparsity,
            shapes=parse_shapes(options.shapes),
            calibration=read_feeds(options.calibration),
            activations=options.activations,
            observer=options.observer,
            smoothing=options.smoothing,
            padding=options.padding,
            progress=progress,
        )
    if options.json:
        print(json.dumps({"model": str(options.model), **report.json()}, indent=2))
    else:
        print_sensitivity(report)


def print_report(model: CompiledModel) -> None:
    """Print what became of every product: its shape, precision, density, format and bytes."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for name in COLUMNS:
        right = name in ("density", "bytes")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    others = 0
    for row in model.report():
        if not str(row["op"]).startswith("spu."):
            others += 1
            continue
        table.add_row(*(escape(_cell(name, row[name])) for name in row))
    console = Console()
    console.print(table)
    console.print(f"and {others} ops on the VPU", highlight=False)


def print_sensitivity(report: SensitivityReport) -> None:
    """Print what INT8 costs at every layer, the most sensitive first."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for name in ("layer", "op", "weight", "MACs", "share", "error", "own error"):
        right = name not in ("layer", "op", "weight")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in report.layers:
        table.add_row(
            escape(_cell("layer", row.layer)),
            row.op,
            escape(row.shape),
            f"{row.macs:,}",
            f"{row.share:.1%}",
            f"{row.error:.2e}",
            f"{row.own_error:.2e}",
        )
    console = Console()
    console.print(table)
    console.print(
        f"all in int8: error {report.error:.2e} of the outputs, over {report.feeds} feeds",
        highlight=False,
    )


def _cell(name: str, value: Json) -> str:
    if name == "density":
        return f"{value:.1%}" if isinstance(value, float) else "-"
    if name == "bytes":
        return f"{value:,}" if isinstance(value, int) and value else "-"
    # repr() would quote; names come from the model, so control characters are escaped.
    return str(value).encode("unicode_escape").decode() if value else "-"


if __name__ == "__main__":
    sys.exit(main())
