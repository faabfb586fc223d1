"""
Writes a model of the zoo as an ONNX file.

    python -m spu_ir.zoo minilm -o minilm.onnx
    python -m spu_ir.zoo resnet50 --ratio 16 -o resnet50.onnx
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx

from spu_ir.errors import SpuError
from spu_ir.sparsify import RATIOS, magnitude
from spu_ir.zoo import BertConfig, bert, linear, minilm, resnet50, save

MODELS: dict[str, Callable[[int], onnx.ModelProto]] = {
    "linear": lambda ratio: magnitude(linear(), ratio),
    "minilm": lambda ratio: magnitude(minilm(), ratio),
    "bert-base": lambda ratio: magnitude(bert(BertConfig()), ratio),
    "resnet50": lambda ratio: magnitude(resnet50(ratio=ratio), ratio),
}
"""Name -> the model pruned at a ratio; minilm has its real weights, the others random ones."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `python -m spu_ir.zoo`; the exit code is 0, or 1 after one `error:` line."""
    parser = argparse.ArgumentParser(
        prog="python -m spu_ir.zoo", description="Write a model of the zoo as an ONNX file."
    )
    parser.add_argument("model", choices=MODELS, help="minilm has real weights, others random ones")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.onnx")
    parser.add_argument(
        "--ratio", type=int, choices=RATIOS, default=1, help="prune to one weight in so many"
    )
    options = parser.parse_args(arguments)
    try:
        save(MODELS[options.model](options.ratio), options.output)
    except SpuError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: cannot write {str(options.output)!r}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
