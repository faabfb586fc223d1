"""Mark the products that INT8 would hurt most, which are then computed in bf16."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.passes import ModulePass

from spu_ir.dialects.spu import EpilogueOp
from spu_ir.dialects.types import Array
from spu_ir.errors import SpuError
from spu_ir.transforms.calibrate import read_feeds
from spu_ir.transforms.rewriting import PRECISION, PRECISION_REASON
from spu_ir.transforms.sensitivity import FEEDS, LayerSensitivity, measure

BUDGET = 0.1
"""The share of all multiply-accumulates that may leave INT8 unless told otherwise."""


def chosen(
    layers: Mapping[EpilogueOp, LayerSensitivity], budget: float, tolerance: float
) -> list[EpilogueOp]:
    """
    The products to be kept out of INT8, those that gain most for their work first.

    The square of the outputs' error is taken as the sum of the squares of each product's own. So
    products are taken by `error^2 / macs` in descending order, passing over those that do not fit
    in what is left of `budget`, a share of all multiply-accumulates, and until what the others
    add up to is at most `tolerance`.
    """
    left = budget * sum(layer.macs for layer in layers.values())
    remaining = sum(layer.error**2 for layer in layers.values())
    found: list[EpilogueOp] = []
    by_gain = sorted(layers, key=lambda op: -(layers[op].error ** 2) / max(layers[op].macs, 1))
    for op in by_gain:
        # What is left of a sum that was mostly taken away is not exactly the rest.
        if remaining <= tolerance**2 or layers[op].error == 0:
            break
        if layers[op].macs <= left:
            left -= layers[op].macs
            remaining -= layers[op].error ** 2
            found.append(op)
    return found


def check_limits(budget: float, tolerance: float) -> None:
    """Raises SpuError for a budget that is no share, and for a negative tolerance."""
    if not 0 <= budget <= 1:
        raise SpuError(
            f"a budget of {budget:g} is not a share of the multiply-accumulates",
            remedy="use a number from 0 to 1, such as 0.1",
        )
    if not tolerance >= 0:
        raise SpuError(
            f"a tolerance of {tolerance:g} is not an error",
            remedy="use a relative error of the outputs, such as 0.01, or 0 for none",
        )


def choose_precision(
    module: ModuleOp,
    ctx: Context,
    feeds: Sequence[Mapping[str, Array]],
    *,
    budget: float = BUDGET,
    tolerance: float = 0.0,
    mode: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> float:
    """
    Give the products of `chosen` `precision = "bf16"` and the reason, and the others theirs.

    `feeds` (the first 4 are used) measure sensitivity, with activations quantised in `mode`; see
    transforms/sensitivity.py, also for `progress`. The result is the estimate of the relative L2
    error of the outputs that the INT8 products cause. Raises SpuError as `check_limits` and
    `measure` do.
    """
    check_limits(budget, tolerance)
    layers = measure(module, ctx, feeds[:FEEDS], mode, progress)
    for op in chosen(layers, budget, tolerance):
        layer = layers.pop(op)
        op.attributes[PRECISION] = StringAttr("bf16")
        op.attributes[PRECISION_REASON] = StringAttr(
            f"INT8 here would cost {layer.error:.2g} at the outputs, "
            f"for {layer.share:.2%} of the multiply-accumulates"
        )
    return sqrt(sum(layer.error**2 for layer in layers.values()))


@dataclass(frozen=True)
class ChoosePrecisionPass(ModulePass):
    """
    Mark with `precision = "bf16"` the products that lose most in INT8.

    Their sensitivity is measured on the inputs in an `.npz` file (as for `calibrate`, which runs
    before where activations are quantised statically). Those that gain most for their
    multiply-accumulates are taken, up to `budget`, a share of those of all products, and until
    the estimated relative error of the outputs is below `tolerance`. `quantise` in the same
    `mode` leaves them, and `convert-bf16{marked=true}` takes them.
    """

    name = "choose-precision"
    preserves: ClassVar[str] = "exact"

    feeds: str
    budget: float = BUDGET
    tolerance: float = 0.0
    mode: str = "auto"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        choose_precision(
            op,
            ctx,
            read_feeds(self.feeds),
            budget=self.budget,
            tolerance=self.tolerance,
            mode=self.mode,
        )
