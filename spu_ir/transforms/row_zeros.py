"""The zero point around which rows are quantised at run time, from what computes them."""

from __future__ import annotations

from xdsl.ir import SSAValue

from spu_ir.dialects.spu import Activation, EpilogueOp
from spu_ir.dialects.vpu import ReshapeOp, SoftmaxOp, TransposeOp, UnaryFn, UnaryOp

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
    """The u8 zero point for the rows of `value`, f32 `[..., K]`: 0, 40 or 128."""
    op = value.owner
    while isinstance(op, ReshapeOp | TransposeOp):
        op = op.x.owner
    if isinstance(op, EpilogueOp):
        return _ACTIVATION_ZERO.get(op.activation.data, SYMMETRIC)
    if isinstance(op, SoftmaxOp):
        return POSITIVE
    if isinstance(op, UnaryOp) and op.fn.data in _NEVER_NEGATIVE:
        return POSITIVE
    if isinstance(op, UnaryOp) and op.fn.data in _HARDLY_NEGATIVE:
        return MOSTLY_POSITIVE
    return SYMMETRIC
