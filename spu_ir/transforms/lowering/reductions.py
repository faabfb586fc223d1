"""Reductions, softmax, normalisation and pooling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from xdsl.dialects.builtin import f32, i32, i64
from xdsl.ir import SSAValue

from spu_ir.dialects.onnx import OnnxOp
from spu_ir.dialects.types import element_of
from spu_ir.dialects.vpu import BinaryFn, PoolFn, ReduceFn, UnaryFn

from .context import Lowering
from .dims import Dim, product
from .windows import image_size, read_window, to_channels_first, to_channels_last

LowerFn = Callable[[Lowering, OnnxOp], SSAValue | Sequence[SSAValue]]


def _floats(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = ctx.tensor(op.input(0))
    if element_of(x) != f32:
        raise ctx.error(f"reductions of {element_of(x)} have no lowering", "cast to f32 first")
    return x


def _axes(ctx: Lowering, op: OnnxOp, rank: int) -> list[int]:
    operand = op.input(1)
    given = [] if operand is None else ctx.integers_from(operand, "axes")
    if not given and not op.int_value("noop_with_empty_axes"):
        return list(range(rank))
    return sorted({ctx.axis(axis, rank) for axis in given})


def _reduce(
    fn: ReduceFn,
    before: Callable[[Lowering, SSAValue], SSAValue] | None,
    after: UnaryFn | None,
    ctx: Lowering,
    op: OnnxOp,
) -> SSAValue:
    x = _floats(ctx, op)
    axes = _axes(ctx, op, len(ctx.dims(x)))
    if before is not None:
        x = before(ctx, x)
    result = ctx.reduce(fn, x, axes, keep=bool(op.int_value("keepdims")))
    return result if after is None else ctx.unary(after, result)


def _square(ctx: Lowering, x: SSAValue) -> SSAValue:
    return ctx.binary(BinaryFn.MUL, x, x)


def _absolute(ctx: Lowering, x: SSAValue) -> SSAValue:
    return ctx.unary(UnaryFn.ABS, x)


def _log_sum_exp(ctx: Lowering, op: OnnxOp) -> SSAValue:
    """Relative to the maximum, so that exp stays finite."""
    x = _floats(ctx, op)
    axes = _axes(ctx, op, len(ctx.dims(x)))
    top = ctx.reduce(ReduceFn.MAX, x, axes)
    powers = ctx.unary(UnaryFn.EXP, ctx.binary(BinaryFn.SUB, x, top))
    total = ctx.unary(UnaryFn.LOG, ctx.reduce(ReduceFn.SUM, powers, axes))
    result = ctx.binary(BinaryFn.ADD, total, top)
    if op.int_value("keepdims"):
        return result
    return ctx.reshape(result, [d for i, d in enumerate(ctx.dims(x)) if i not in axes])


def _softmax(log: bool, ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = _floats(ctx, op)
    rank = len(ctx.dims(x))
    axis = ctx.axis(op.int_value("axis"), rank)
    # Swapping two axes is its own inverse.
    perm = list(range(rank))
    perm[axis], perm[-1] = perm[-1], perm[axis]
    return ctx.transpose(ctx.softmax(ctx.transpose(x, perm), log), perm)


def _cumsum(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = ctx.tensor(op.input(0))
    if element_of(x) not in (f32, i32, i64):
        raise ctx.error(f"running sums of {element_of(x)} have no lowering", "cast to i64 first")
    rank = len(ctx.dims(x))
    axis = ctx.axis(int(ctx.number(op.input(1), "axis", 0)), rank)
    if not rank:
        raise ctx.error("a running sum needs an operand of at least one axis")
    perm = list(range(rank))
    perm[axis], perm[-1] = perm[-1], perm[axis]
    exclusive, reverse = bool(op.int_value("exclusive")), bool(op.int_value("reverse"))
    return ctx.transpose(ctx.cumsum(ctx.transpose(x, perm), exclusive, reverse), perm)


def _parameter(
    ctx: Lowering, value: SSAValue | None, trailing: Sequence[Dim], width: Dim, what: str
) -> SSAValue | None:
    """Scale or bias of a normalisation over the `trailing` axes, as one axis of `width`."""
    if value is None:
        return None
    array = ctx.known(value)
    if array is not None and all(isinstance(d, int) for d in trailing):
        try:
            full = np.broadcast_to(array, tuple(d for d in trailing if isinstance(d, int)))
        except ValueError:
            raise ctx.error(f"{what} must broadcast to the normalised axes") from None
        return ctx.constant(np.ascontiguousarray(full.reshape(-1), np.float32))
    return ctx.reshape(ctx.expand(ctx.tensor(value), trailing), (width,))


def _normalise(centre: bool, ctx: Lowering, op: OnnxOp) -> Sequence[SSAValue]:
    """LayerNormalization and RMSNormalization: all axes from `axis` on, as one."""
    x = _floats(ctx, op)
    dims = ctx.dims(x)
    axis = ctx.axis(op.int_value("axis"), len(dims))
    width = product(dims[axis:])
    gamma = _parameter(ctx, op.input(1), dims[axis:], width, "Scale")
    beta = _parameter(ctx, op.input(2), dims[axis:], width, "B") if centre else None
    if gamma is None:
        raise ctx.error("its input Scale is missing")
    flat = ctx.reshape(x, (*dims[:axis], width))
    epsilon = op.float_value("epsilon")
    result = ctx.reshape(ctx.layer_norm(flat, gamma, beta, epsilon, centre), dims)
    if not any(other.uses for other in op.results[1:]):
        return [result]
    mean = ctx.reduce(ReduceFn.MEAN, x, range(axis, len(dims)))
    apart = ctx.binary(BinaryFn.SUB, x, mean)
    variance = ctx.reduce(ReduceFn.MEAN, _square(ctx, apart), range(axis, len(dims)))
    deviation = ctx.unary(UnaryFn.SQRT, ctx.binary(BinaryFn.ADD, variance, ctx.scalar(epsilon)))
    return [result, mean, ctx.unary(UnaryFn.RECIPROCAL, deviation)]


def _group_norm(ctx: Lowering, x: SSAValue, groups: int, op: OnnxOp) -> SSAValue:
    """Normalise every group of channels of x [N, C, ...], then scale and shift by channel."""
    dims = ctx.dims(x)
    channels = dims[1]
    if not isinstance(channels, int) or groups < 1 or channels % groups:
        raise ctx.error(f"its channels cannot be divided into {groups} groups")
    inner = product([channels // groups, *dims[2:]])
    if not isinstance(inner, int):
        raise ctx.error("the image's size must be known at compile time")
    ones = ctx.constant(np.ones(inner, np.float32))
    flat = ctx.reshape(x, (dims[0], groups, inner))
    flat = ctx.layer_norm(flat, ones, None, op.float_value("epsilon"))
    result = ctx.reshape(flat, dims)
    per_channel = (channels, *[1] * (len(dims) - 2))
    for fn, index in ((BinaryFn.MUL, 1), (BinaryFn.ADD, 2)):
        result = ctx.binary(fn, result, ctx.reshape(ctx.tensor(op.input(index)), per_channel))
    return result


def _group_normalization(ctx: Lowering, op: OnnxOp) -> SSAValue:
    return _group_norm(ctx, _floats(ctx, op), op.int_value("num_groups"), op)


def _instance_normalization(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = _floats(ctx, op)
    channels = ctx.dims(x)[1]
    return _group_norm(ctx, x, channels if isinstance(channels, int) else 0, op)


def _lp_normalization(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = _floats(ctx, op)
    axis = ctx.axis(op.int_value("axis"), len(ctx.dims(x)))
    if op.int_value("p") == 2:
        norm = ctx.reduce(ReduceFn.L2, x, [axis])
    else:
        norm = ctx.reduce(ReduceFn.SUM, _absolute(ctx, x), [axis])
    # Nothing but zeros stays so.
    nothing = ctx.binary(BinaryFn.EQUAL, norm, ctx.scalar(0.0))
    return ctx.binary(BinaryFn.DIV, x, ctx.select(nothing, ctx.scalar(1.0), norm))


def _ceil_out(size: int, low: int, high: int, reach: int, stride: int) -> int:
    """Windows with `ceil_mode`; a window that would start in the upper pads is left out."""
    out = -(-(size + low + high - reach) // stride) + 1
    return out - 1 if (out - 1) * stride >= size + low else out


def _pool(fn: PoolFn, ctx: Lowering, op: OnnxOp) -> SSAValue:
    ctx.unused(op, 1, "Indices")
    source = ctx.tensor(op.input(0))
    kernel = op.ints_value("kernel_shape")
    rank = len(ctx.dims(source))
    if kernel is None or len(kernel) != rank - 2:
        raise ctx.error(f"kernel_shape must have {rank - 2} numbers")
    x = to_channels_last(ctx, source)
    size = image_size(ctx, x)
    window = read_window(ctx, op, kernel, size)
    out: list[int] = []
    for axis in (0, 1):
        low, high, stride = window.pads[axis], window.pads[axis + 2], window.strides[axis]
        reach = window.reach[axis]
        if op.int_value("ceil_mode"):
            out.append(_ceil_out(size[axis], low, high, reach, stride))
        else:
            out.append((size[axis] + low + high - reach) // stride + 1)
    if min(out) < 1:
        raise ctx.error("the kernel is larger than the padded image")
    if fn is PoolFn.AVG and op.int_value("count_include_pad") and any(window.pads):
        fn = PoolFn.AVG_PADDED
        hangs = [
            (out[i] - 1) * window.strides[i] + window.reach[i]
            > size[i] + window.pads[i] + window.pads[i + 2]
            for i in (0, 1)
        ]
        if any(hangs):
            raise ctx.error("ceil_mode with count_include_pad past the pads has no lowering")
    pooled = ctx.pool(fn, x, out, window.kernel, window.strides, window.pads[:2], window.dilations)
    return to_channels_first(ctx, pooled, rank)


def _global_pool(fn: ReduceFn, ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = _floats(ctx, op)
    return ctx.reduce(fn, x, range(2, len(ctx.dims(x))))


def _lrn(ctx: Lowering, op: OnnxOp) -> SSAValue:
    """The mean square of neighbouring channels is an average pool along them."""
    x = _floats(ctx, op)
    size, dims = op.int_value("size"), ctx.dims(x)
    channels = dims[1]
    if not isinstance(channels, int) or len(dims) < 2:
        raise ctx.error("the number of channels must be known at compile time")
    perm = [0, *range(2, len(dims)), 1]
    squares = ctx.transpose(_square(ctx, x), perm)
    rows = ctx.reshape(squares, (product([dims[0], *dims[2:]]), 1, channels, 1))
    low = (size - 1) // 2
    mean = ctx.pool(PoolFn.AVG_PADDED, rows, (1, channels), (1, size), (1, 1), (0, low), (1, 1))
    mean = ctx.reshape(mean, ctx.dims(squares))
    mean = ctx.transpose(mean, [0, len(dims) - 1, *range(1, len(dims) - 1)])
    below = ctx.binary(BinaryFn.MUL, mean, ctx.scalar(op.float_value("alpha")))
    below = ctx.binary(BinaryFn.ADD, below, ctx.scalar(op.float_value("bias")))
    below = ctx.binary(BinaryFn.POW, below, ctx.scalar(op.float_value("beta")))
    return ctx.binary(BinaryFn.DIV, x, below)


LOWERINGS: dict[str, LowerFn] = {
    "AveragePool": partial(_pool, PoolFn.AVG),
    "CumSum": _cumsum,
    "GlobalAveragePool": partial(_global_pool, ReduceFn.MEAN),
    "GlobalMaxPool": partial(_global_pool, ReduceFn.MAX),
    "GroupNormalization": _group_normalization,
    "InstanceNormalization": _instance_normalization,
    "LRN": _lrn,
    "LayerNormalization": partial(_normalise, True),
    "LogSoftmax": partial(_softmax, True),
    "LpNormalization": _lp_normalization,
    "MaxPool": partial(_pool, PoolFn.MAX),
    "RMSNormalization": partial(_normalise, False),
    "ReduceL1": partial(_reduce, ReduceFn.SUM, _absolute, None),
    "ReduceL2": partial(_reduce, ReduceFn.L2, None, None),
    "ReduceLogSum": partial(_reduce, ReduceFn.SUM, None, UnaryFn.LOG),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": partial(_reduce, ReduceFn.MAX, None, None),
    "ReduceMean": partial(_reduce, ReduceFn.MEAN, None, None),
    "ReduceMin": partial(_reduce, ReduceFn.MIN, None, None),
    "ReduceProd": partial(_reduce, ReduceFn.PROD, None, None),
    "ReduceSum": partial(_reduce, ReduceFn.SUM, None, None),
    "ReduceSumSquare": partial(_reduce, ReduceFn.SUM, _square, None),
    "Softmax": partial(_softmax, False),
}
