"""How much of a model is pruned, and how: `16` as reports and command lines have it, or `95%`."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from typing import TypeAlias

import onnx

from spu_ir.sparsify import RATIOS
from spu_ir.zoo import Published

Ratio: TypeAlias = int | str
"""16: one weight in 16 of every bank stays. "95%": that part of each weight is zero, anywhere."""


def parse(text: str) -> Ratio:
    """`16`, `16x` or `95%`. Raises ArgumentTypeError for anything else."""
    match = re.fullmatch(r"(\d{1,2})([x%]?)", text)
    if match is not None and match.group(2) == "%":
        return f"{int(match.group(1))}%"
    if match is None or int(match.group(1)) not in RATIOS:
        ratios = ", ".join(map(str, RATIOS))
        raise ArgumentTypeError(f"{text!r} is none of {ratios}, nor zeros from 0% to 99%")
    return int(match.group(1))


def parse_all(text: str) -> list[Ratio]:
    """Ratios with commas between them."""
    return [parse(one) for one in text.split(",") if one]


def title(ratio: Ratio) -> str:
    """For eyes: `16x`, or `95%`."""
    return ratio if isinstance(ratio, str) else f"{ratio}x"


def order(ratio: Ratio) -> tuple[bool, int]:
    """The place in a list: first those in banks, from the least pruned on."""
    if isinstance(ratio, str):
        return True, int(ratio.removesuffix("%"))
    return False, ratio


def build(model: Published, ratio: Ratio) -> onnx.ModelProto:
    """The FP32 model with seeded weights, pruned by magnitude."""
    if isinstance(ratio, str):
        left = 100 - int(ratio.removesuffix("%"))
        return model.build(ratio=100 / left, structure="unstructured")
    return model.build(ratio=ratio)
