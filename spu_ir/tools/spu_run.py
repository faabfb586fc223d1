"""
`spu-run`: run a compiled model on arrays from files, and show what comes out.

    spu-run model.spu --input ids=ids.npy --input mask=mask.npy --output results
    spu-run model.spu --random --extent batch=8 --repeat 20 --json
    spu-run model.spu --random --extent batch=8 --profile s30
    spu-run resnet50.spu --jpeg 'photos/*.jpg' --labels classes.txt
    spu-run resnet50.spu --video clip.mp4 --every 10
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from spu_ir.errors import SpuError
from spu_ir.tools import run_media
from spu_ir.tools.command import exit_code
from spu_ir.tools.profile_table import print_profile
from spu_ir.tools.tables import clean

if TYPE_CHECKING:
    from spu_ir.runtime import CompiledModel
    from spu_ir.runtime.program import Array, Json, Port


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `spu-run`; the exit code is 0, or 1 after one `error:` line for what the user gave."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spu-run",
        description="Run a compiled model and show its outputs and the time of a run. A package "
        "contains native code: run only packages that you trust.",
    )
    parser.add_argument("model", type=Path, help="the folder that spu-compile or save wrote")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=FILE.npy",
        help="an input's array as numpy.save writes it; bfloat16 inputs are read from float32",
    )
    parser.add_argument(
        "--random",
        action="store_true",
        help="fill inputs without a file: normal numbers for floats, 0 and 1 for integers; the "
        "same at every run",
    )
    parser.add_argument(
        "--extent",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="a run-time extent of random inputs (default: what files say, else the smallest)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write each output to DIR/NUMBER-NAME.npy; bfloat16 as float32",
    )
    parser.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="time N runs (default 1)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="most threads of a run")
    parser.add_argument(
        "--device",
        type=int,
        metavar="N",
        help="device index of the card to run on (docs/devices.md)",
    )
    parser.add_argument(
        "--profile",
        nargs="?",
        const="",
        metavar="TARGET",
        help="count and time every layer too, beside its modelled time on TARGET (default: the "
        "card that the model was compiled for); needs a C compiler (docs/counters.md)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    run_media.add_arguments(parser)
    return parser


def _run(options: argparse.Namespace) -> None:
    from spu_ir.runtime import load

    if options.jpeg or options.video:
        run_media.run(options)
        return

    repeat: int = options.repeat
    if repeat < 1:
        raise SpuError(f"--repeat {repeat} runs nothing", remedy="use 1 or more")
    model = load(options.model, threads=options.threads, device=options.device)
    feeds = _read_inputs(model, _pairs("--input", options.input))
    if options.random:
        feeds |= _random_inputs(model, feeds, _pairs("--extent", options.extent))
    elif options.extent:
        raise SpuError("--extent shapes random inputs only", remedy="add --random")
    outputs: dict[str, Array] = {}
    seconds: list[float] = []
    # The first of several runs touches memory for the first time, so it is not counted.
    for _ in range(repeat + (repeat > 1)):
        start = time.perf_counter()
        outputs = model.run(feeds)
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[repeat > 1 :]) * 1e3
    if options.output is not None:
        _write_outputs(options.output, outputs)
    rows = [_summary(name, array) for name, array in outputs.items()]
    profile = None
    if options.profile is not None:
        profile = model.profile(feeds, target=options.profile or None, runs=repeat)
    if options.json:
        result: dict[str, Json] = {
            "model": str(options.model),
            "level": model.level,
            "threads": model.threads,
            "runs": repeat,
            "median_ms": median,
            "outputs": [*rows],
        }
        if profile is not None:
            result["profile"] = profile.to_json()
        print(json.dumps(result, indent=2))
    else:
        _print_table(rows)
        print(f"median of {repeat}: {median:.3f} ms, {model.level}, {model.threads} threads")
        if profile is not None:
            print_profile(profile)


def _pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE arguments; a name may contain `=` where the value does not."""
    pairs: dict[str, str] = {}
    for text in given:
        name, equals, value = text.rpartition("=")
        if not equals or not name or not value:
            raise SpuError(f"{option} {text!r} is not NAME=VALUE")
        if name in pairs:
            raise SpuError(f"{option} gives {name!r} twice")
        pairs[name] = value
    return pairs


def _read_inputs(model: CompiledModel, files: Mapping[str, str]) -> dict[str, Array]:
    """The arrays of the inputs that have a file; `run` checks the rest of them."""
    import numpy as np

    ports = {port.name: port for port in model.inputs}
    feeds: dict[str, Array] = {}
    for name, file in files.items():
        try:
            # Opened here, because numpy leaves what is no archive open.
            with Path(file).open("rb") as opened:
                loaded: object = np.load(opened, allow_pickle=False)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise SpuError(
                f"cannot read {file!r} for the input {name!r}: {error}",
                remedy="give a file that numpy.save wrote",
            ) from error
        if not isinstance(loaded, np.ndarray):
            raise SpuError(f"{file!r} has several arrays", remedy="give a .npy file, not an .npz")
        array: Array = np.asarray(cast(object, loaded))
        port = ports.get(name)
        if port is not None and port.dtype == "bfloat16" and array.dtype == np.float32:
            array = array.astype(port.numpy_dtype)
        feeds[name] = array
    return feeds


def _random_inputs(
    model: CompiledModel, feeds: Mapping[str, Array], given: Mapping[str, str]
) -> dict[str, Array]:
    """Arrays for the inputs that `feeds` lacks."""
    import numpy as np

    sizes = {extent.name: max(extent.minimum, 1) for extent in model.extents}
    for port in model.inputs:
        if port.name in feeds:
            for d, size in zip(port.shape, feeds[port.name].shape, strict=False):
                if isinstance(d, str):
                    sizes[d] = size
    for extent in model.extents:
        if extent.name in given:
            text = given[extent.name]
            number = int(text) if text.isascii() and text.isdigit() else -1
            if not extent.minimum <= number <= extent.maximum:
                raise SpuError(
                    f"--extent {extent.name}={text} is out of bounds",
                    remedy=f"use {extent.minimum} to {extent.maximum}",
                )
            sizes[extent.name] = number
    for name in given.keys() - sizes.keys():
        raise SpuError(
            f"the model has no extent {name!r}", remedy=f"it has {', '.join(sizes) or 'none'}"
        )
    generator = np.random.default_rng(0)

    def fill(port: Port) -> Array:
        shape = [sizes[d] if isinstance(d, str) else d for d in port.shape]
        if "float" in port.dtype:
            return generator.standard_normal(shape, np.float32).astype(port.numpy_dtype)
        # 0 and 1 are valid as masks and as indices of any axis that has two entries.
        return generator.integers(0, 2, shape).astype(port.numpy_dtype)

    return {port.name: fill(port) for port in model.inputs if port.name not in feeds}


def _write_outputs(folder: Path, outputs: Mapping[str, Array]) -> None:
    """Write every output to a file of its own, each complete or not at all."""
    import numpy as np

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".spu-run.", dir=folder) as scratch:
            for number, (name, array) in enumerate(outputs.items()):
                if array.dtype.name == "bfloat16":
                    array = array.astype(np.float32)
                # Names come from the model: the number keeps them apart where letters go.
                file = f"{number}-{re.sub(r'[^A-Za-z0-9_-]', '_', name)[:100]}.npy"
                np.save(Path(scratch) / file, array, allow_pickle=False)
            for path in sorted(Path(scratch).iterdir()):
                os.replace(path, folder / path.name)
    except OSError as error:
        raise SpuError(
            f"cannot write outputs to {str(folder)!r}: {error}",
            remedy="choose a folder that can be written and has space",
        ) from error


def _summary(name: str, array: Array) -> dict[str, Json]:
    """An output in a row; what is not finite, or of no elements, is null as JSON has it."""
    import numpy as np

    row: dict[str, Json] = {
        "name": name,
        "dtype": array.dtype.name,
        "shape": [int(d) for d in array.shape],
    }
    numbers = array.astype(np.float64)
    with np.errstate(all="ignore"):
        low, high = numbers.min(initial=math.inf), numbers.max(initial=-math.inf)
        mean = numbers.sum() / numbers.size if numbers.size else math.nan
    for key, value in (("min", low), ("mean", mean), ("max", high)):
        row[key] = float(value) if math.isfinite(value) else None
    return row


def _print_table(rows: Sequence[Mapping[str, Json]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("output", "dtype", "shape"):
        table.add_column(heading)
    for heading in ("min", "mean", "max"):
        table.add_column(heading, justify="right")
    for row in rows:
        # Text, so that a name is never read as markup.
        texts = [Text(clean(str(row["name"]))), Text(str(row["dtype"])), Text(str(row["shape"]))]
        values = [row[key] for key in ("min", "mean", "max")]
        numbers = [f"{value:.6g}" if isinstance(value, float) else "-" for value in values]
        table.add_row(*texts, *numbers)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
