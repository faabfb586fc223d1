"""The zero point around which rows are quantised at run time, from what computes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from xdsl.dialects.builtin import IntegerAttr, i32
from xdsl.ir import Operation, SSAValue

from spu_ir.dialects.spu import Activation, EpilogueOp
from spu_ir.dialects.types import Array
from spu_ir.dialects.vpu import (
    BinaryFn,
    BinaryOp,
    ReshapeOp,
    SliceOp,
    SoftmaxOp,
    TransposeOp,
    UnaryFn,
    UnaryOp,
)

SYMMETRIC = 128
"""For rows of which nothing is known."""

POSITIVE = 0
"""For rows without negative numbers: all 255 steps are above zero."""

MOSTLY_POSITIVE = 40
"""
For functions that reach a little below zero.

GELU's least value is -0.17, SiLU's -0.28. The scale is the larger of `max / 215` and
`least / 40`, where a symmetric grid has `max / 127`: 1.7 times finer as soon as a row's largest
number is 0.9 (GELU) or 1.5 (SiLU), and no coarser down to 0.55 and 0.9. A bias that a layer adds
after the function is not among these: its rows are not bounded.
"""

ROW_ZERO = "row_zero"
"""The attribute of an op whose rows were looked at: the zero point that suits them best."""

CANDIDATES = (40, 32, 24, 20, 16, 12, 10, 8, 6, 4)
"""What may replace MOSTLY_POSITIVE; the first wins when equal."""

_NEVER_NEGATIVE = {UnaryFn.RELU, UnaryFn.SIGMOID, UnaryFn.EXP, UnaryFn.ABS, UnaryFn.SOFTPLUS}
_HARDLY_NEGATIVE = {UnaryFn.GELU, UnaryFn.GELU_TANH, UnaryFn.SILU}
_ACTIVATION_ZERO = {
    Activation.RELU: POSITIVE,
    Activation.SIGMOID: POSITIVE,
    Activation.GELU: MOSTLY_POSITIVE,
    Activation.GELU_TANH: MOSTLY_POSITIVE,
    Activation.SILU: MOSTLY_POSITIVE,
}


def row_zero(value: SSAValue) -> int:
    """
    The u8 zero point for the rows of `value`, f32 `[..., K]`: 0, 40 or 128.

    Where `choose_row_zero` or `scale-columns` saw rows it is what was chosen instead of 40.
    """
    chosen = value.owner.attributes.get(ROW_ZERO) if isinstance(value.owner, Operation) else None
    op = producer_of(value)
    if chosen is None and isinstance(op, Operation):
        chosen = op.attributes.get(ROW_ZERO)
    if isinstance(chosen, IntegerAttr):
        return chosen.value.data
    if isinstance(op, EpilogueOp):
        return _ACTIVATION_ZERO.get(op.activation.data, SYMMETRIC)
    if isinstance(op, SoftmaxOp):
        return POSITIVE
    if isinstance(op, UnaryOp) and op.fn.data in _NEVER_NEGATIVE:
        return POSITIVE
    if isinstance(op, UnaryOp) and op.fn.data in _HARDLY_NEGATIVE:
        return MOSTLY_POSITIVE
    return SYMMETRIC


def producer_of(value: SSAValue) -> object:
    """What computes the numbers of `value`: an op, or the block of an argument."""
    op = value.owner
    while isinstance(op, ReshapeOp | TransposeOp | SliceOp):
        op = op.x.owner
    return op


def scaled_columns(value: SSAValue) -> tuple[SSAValue, SSAValue] | None:
    """The activation and its factors `[K]`, if `value` is what `scale-columns` made of it."""
    op = value.owner
    if isinstance(op, BinaryOp) and op.fn.data is BinaryFn.MUL and ROW_ZERO in op.attributes:
        return op.a, op.b
    return None


def best_zero(rows: Iterable[Array], candidates: Sequence[int] = CANDIDATES) -> int:
    """
    Of `candidates` the zero point with the least mean square of the scales of rows f32 `[..., K]`.

    The squared rounding error of a row is `scale^2 / 12` for each element. Rows that reach far up
    want a low zero point, those that stay near zero a high one: it is for all of them.
    """
    total = np.zeros(len(candidates))
    zeros = np.array(candidates, np.float64)
    for some in rows:
        high = np.maximum(some.max(axis=-1, initial=0), 0).reshape(-1, 1).astype(np.float64)
        low = np.maximum(-some.min(axis=-1, initial=0), 0).reshape(-1, 1).astype(np.float64)
        total += (np.maximum(high / (255 - zeros), low / zeros) ** 2).sum(axis=0)
    return candidates[int(total.argmin())]


def choose_row_zero(value: SSAValue, rows: Iterable[Array]) -> None:
    """Let `row_zero(value)` be what is best for `rows`, if it is MOSTLY_POSITIVE so far."""
    op = value.owner if isinstance(value.owner, SliceOp) else producer_of(value)
    if isinstance(op, Operation) and row_zero(value) == MOSTLY_POSITIVE:
        op.attributes[ROW_ZERO] = IntegerAttr(best_zero(rows), i32)
