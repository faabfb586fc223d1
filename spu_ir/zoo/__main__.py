"""
Writes a model of the zoo as an ONNX file.

    python -m spu_ir.zoo minilm -o minilm.onnx
    python -m spu_ir.zoo resnet50 --ratio 16 -o resnet50.onnx
    python -m spu_ir.zoo bert --weights model.safetensors -o bert.onnx
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx

from spu_ir.errors import SpuError
from spu_ir.sparsify import RATIOS, magnitude
from spu_ir.zoo import MODELS, linear, minilm, save

WITHOUT_WEIGHTS: dict[str, Callable[[], onnx.ModelProto]] = {"minilm": minilm, "linear": linear}
"""Models that bring their own weights."""


def build(name: str, ratio: int, weights: Path | None) -> onnx.ModelProto:
    """A model of the zoo, pruned at `ratio`."""
    if name in WITHOUT_WEIGHTS:
        if weights is not None:
            raise SpuError(f"{name} brings its own weights", remedy="leave --weights out")
        return magnitude(WITHOUT_WEIGHTS[name](), ratio)
    return MODELS[name].build(weights, ratio=ratio)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `python -m spu_ir.zoo`; the exit code is 0, or 1 after one `error:` line."""
    parser = argparse.ArgumentParser(
        prog="python -m spu_ir.zoo", description="Write a model of the zoo as an ONNX file."
    )
    parser.add_argument(
        "model",
        choices=(*MODELS, *WITHOUT_WEIGHTS),
        help="minilm has real weights, the others random ones unless --weights is given",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.onnx")
    parser.add_argument(
        "--ratio", type=int, choices=RATIOS, default=1, help="prune to one weight in so many"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE.safetensors",
        help="a checkpoint of the published architecture, or the index or folder of one",
    )
    options = parser.parse_args(arguments)
    try:
        save(build(options.model, options.ratio, options.weights), options.output)
    except SpuError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: cannot write {str(options.output)!r}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
