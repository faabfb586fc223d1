"""Resize of images: nearest by gathers, linear by two gathers a axis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from xdsl.ir import SSAValue

from spu_ir.dialects.onnx import OnnxOp
from spu_ir.dialects.types import Array
from spu_ir.dialects.vpu import BinaryFn

from .context import Lowering

LowerFn = Callable[[Lowering, OnnxOp], SSAValue]


def _positions(ctx: Lowering, op: OnnxOp, before: int, after: int, scale: float) -> Array:
    """Where in the input every position of the output lies, float64 [after]."""
    out = np.arange(after, dtype=np.float64)
    # A scale may give a part of a position more than there are.
    length = before * scale
    match op.str_value("coordinate_transformation_mode"):
        case "half_pixel":
            return (out + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            return (out + 0.5) / scale - 0.5 if length > 1 else out * 0
        case "align_corners":
            return out * ((before - 1) / (length - 1)) if length > 1 else out * 0
        case "asymmetric":
            return out / scale
        case mode:
            raise ctx.error(f"the coordinate mode {mode!r} has no lowering")


def _nearest(ctx: Lowering, op: OnnxOp, positions: Array) -> Array:
    rounding: dict[str, Callable[[Array], Array]] = {
        "round_prefer_floor": lambda x: np.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: np.floor(x + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    mode = op.str_value("nearest_mode")
    if mode not in rounding:
        raise ctx.error(f"nearest_mode {mode!r} does not exist")
    return rounding[mode](positions)


def _resize(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x, mode = ctx.tensor(op.input(0)), op.str_value("mode")
    if mode not in ("nearest", "linear"):
        raise ctx.error(f"the mode {mode!r} has no lowering", "use nearest or linear")
    if op.int_value("antialias") or op.str_value("keep_aspect_ratio_policy") != "stretch":
        raise ctx.error("antialias and keep_aspect_ratio_policy have no lowering")
    dims = ctx.dims(x)
    given = op.ints_value("axes") or tuple(range(len(dims)))
    axes = [ctx.axis(axis, len(dims)) for axis in given]
    scales: list[float] | None = None
    if op.input(3) is not None:
        sizes = ctx.dims_from(op.input(3), "sizes")
    else:
        array = ctx.must_know(op.input(2), "scales")
        scales = [float(s) for s in array.reshape(-1)]
        sizes = [
            dims[axis] if scale == 1.0 else _scaled(ctx, dims[axis], scale)
            for axis, scale in zip(axes, scales, strict=True)
        ]
    for index, (axis, after) in enumerate(zip(axes, sizes, strict=True)):
        before = dims[axis]
        if before == after:
            continue
        if not isinstance(before, int) or not isinstance(after, int):
            raise ctx.error("extents that are resized must be known at compile time")
        scale = after / before if scales is None else scales[index]
        positions = _positions(ctx, op, before, after, scale)
        if mode == "nearest":
            taken = _clipped(_nearest(ctx, op, positions), before)
            x = ctx.gather(x, ctx.constant(taken), axis)
        else:
            x = _linear(ctx, x, axis, positions, before)
    return x


def _scaled(ctx: Lowering, extent: object, scale: float) -> int:
    if not isinstance(extent, int):
        raise ctx.error("extents that are resized must be known at compile time")
    return int(extent * scale)


def _clipped(positions: Array, extent: int) -> Array:
    return np.clip(positions, 0, extent - 1).astype(np.int64)


def _linear(ctx: Lowering, x: SSAValue, axis: int, positions: Array, extent: int) -> SSAValue:
    """`a + (b - a) * t` of the neighbours a and b."""
    low = np.floor(positions)
    shape = [1] * len(ctx.dims(x))
    shape[axis] = len(positions)
    part = ctx.constant((positions - low).astype(np.float32).reshape(shape))
    a, b = (ctx.gather(x, ctx.constant(_clipped(p, extent)), axis) for p in (low, low + 1))
    step = ctx.binary(BinaryFn.MUL, ctx.binary(BinaryFn.SUB, b, a), part)
    return ctx.binary(BinaryFn.ADD, a, step)


LOWERINGS: dict[str, LowerFn] = {"Resize": _resize}
