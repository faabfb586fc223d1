"""Quantised models: QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import Attribute, SSAValue

from spu_ir.dialects.onnx import OnnxOp
from spu_ir.dialects.types import element_of, ui8
from spu_ir.dialects.vpu import BinaryFn, ReduceFn, UnaryFn

from .context import Constant, Lowering, Quantised

LowerFn = Callable[[Lowering, OnnxOp], SSAValue | Constant | Sequence[SSAValue]]


def _parameters(
    ctx: Lowering, op: OnnxOp, rank: int, integers: Attribute
) -> tuple[SSAValue, SSAValue | None, int]:
    """Scale, zero point and axis (-1 for one scale) as the `vpu` ops want them."""
    if op.int_value("block_size"):
        raise ctx.error("scales for blocks have no lowering", "quantise per tensor or per axis")
    scale = ctx.tensor(op.input(1))
    zero = None if op.input(2) is None else ctx.tensor(op.input(2))
    if zero is not None and element_of(zero) != integers:
        raise ctx.error(f"the zero point must be {integers} as the integers are")
    if element_of(scale) != f32:
        raise ctx.error(f"scales of the type {element_of(scale)} have no lowering")
    if ctx.dims(scale) in ((), (1,)):
        return ctx.reshape(scale, ()), zero and ctx.reshape(zero, ()), -1
    return scale, zero, ctx.axis(op.int_value("axis"), rank)


def _quantize_linear(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = ctx.tensor(op.input(0))
    element = ctx.element(op.results[0])
    scale, zero, axis = _parameters(ctx, op, len(ctx.dims(x)), element)
    return ctx.quantise(x, scale, zero, axis, element)


def _dequantize_linear(ctx: Lowering, op: OnnxOp) -> SSAValue | Constant:
    values, scale = ctx.known(op.input(0)), ctx.known(op.input(1))
    zero = ctx.known(op.input(2))
    if values is not None and scale is not None and not op.int_value("block_size"):
        shape = () if scale.size == 1 else scale.shape
        axis = ctx.axis(op.int_value("axis"), values.ndim) if shape else 0
        offset = np.zeros(shape, np.int32) if zero is None else zero.astype(np.int32)
        return Quantised(values, scale.reshape(shape), offset.reshape(shape), axis)
    x = ctx.tensor(op.input(0))
    return ctx.dequantise(x, *_parameters(ctx, op, len(ctx.dims(x)), element_of(x)))


def _dynamic_quantize_linear(ctx: Lowering, op: OnnxOp) -> Sequence[SSAValue]:
    """Scale and zero point of the whole tensor at run time, as ONNX computes them."""
    x = ctx.tensor(op.input(0))
    axes = range(len(ctx.dims(x)))
    nought = ctx.scalar(0.0)
    low, high = (
        ctx.binary(clamp, ctx.reduce(fn, x, axes, keep=False), nought)
        for fn, clamp in ((ReduceFn.MIN, BinaryFn.MIN), (ReduceFn.MAX, BinaryFn.MAX))
    )
    spread = ctx.binary(BinaryFn.DIV, ctx.binary(BinaryFn.SUB, high, low), ctx.scalar(255.0))
    # A tensor of zeros alone has no scale; ONNX Runtime takes 1.
    flat = ctx.binary(BinaryFn.EQUAL, spread, nought)
    scale = ctx.select(flat, ctx.scalar(1.0), spread)
    zero = ctx.binary(BinaryFn.DIV, ctx.unary(UnaryFn.NEG, low), scale)
    zero = ctx.binary(BinaryFn.MIN, ctx.unary(UnaryFn.ROUND, zero), ctx.scalar(255.0))
    zero = ctx.cast(zero, ui8)
    return ctx.quantise(x, scale, zero, -1, ui8), scale, zero


LOWERINGS: dict[str, LowerFn] = {
    "DequantizeLinear": _dequantize_linear,
    "DynamicQuantizeLinear": _dynamic_quantize_linear,
    "QuantizeLinear": _quantize_linear,
}
