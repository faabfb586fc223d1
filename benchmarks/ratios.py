"""How much of a model is pruned, and how: `16`, `16x share 2` or `95%` as reports have it."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from typing import TypeAlias

import onnx

from spu_ir.sparsify import RATIOS
from spu_ir.zoo import Published

Ratio: TypeAlias = int | str
"""
16: one weight in 16 of every bank stays. "16x share 2": the same one for two lane groups together.
"95%": that part of each weight is zero, anywhere.
"""
SHARED = "x share 2"
"""What follows the ratio where two lane groups share their slots."""


def parse(text: str) -> Ratio:
    """`16`, `16x`, `16/2` (share 2) or `95%`. Raises ArgumentTypeError for anything else."""
    match = re.fullmatch(r"(\d{1,2})(%|x?(?:/2)?)", text)
    if match is not None and match.group(2) == "%":
        return f"{int(match.group(1))}%"
    if match is None or int(match.group(1)) not in RATIOS:
        ratios = ", ".join(map(str, RATIOS))
        raise ArgumentTypeError(
            f"{text!r} is none of {ratios}, none such as 16/2, nor zeros from 0% to 99%"
        )
    ratio = int(match.group(1))
    return f"{ratio}{SHARED}" if match.group(2).endswith("/2") else ratio


def parse_all(text: str) -> list[Ratio]:
    """Ratios with commas between them."""
    return [parse(one) for one in text.split(",") if one]


def title(ratio: Ratio) -> str:
    """For eyes: `16x`, `16x share 2` or `95%`."""
    return ratio if isinstance(ratio, str) else f"{ratio}x"


def order(ratio: Ratio) -> tuple[bool, int, bool]:
    """The place in a list: first those in banks, from the least pruned on."""
    if not isinstance(ratio, str):
        return False, ratio, False
    shared = ratio.endswith(SHARED)
    return not shared, int(ratio.removesuffix(SHARED).removesuffix("%")), shared


def build(model: Published, ratio: Ratio) -> onnx.ModelProto:
    """The FP32 model with seeded weights, pruned by magnitude."""
    if not isinstance(ratio, str):
        return model.build(ratio=ratio)
    if ratio.endswith(SHARED):
        return model.build(ratio=int(ratio.removesuffix(SHARED)), structure="paired")
    left = 100 - int(ratio.removesuffix("%"))
    return model.build(ratio=100 / left, structure="unstructured")
