"""Data movement: reshapes, transposes, slices, gathers, padding, tiling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, cast

import numpy as np
from xdsl.ir import SSAValue

from spu_ir.dialects.onnx import OnnxOp
from spu_ir.dialects.weights import INLINE_ELEMENTS

from .context import Constant, Lowering, Quantised
from .dims import Dim, add, exact_quotient, multiply, product, subtract

MAX_FILLED = 1 << 27
"""A filled tensor of up to this many elements may be the weight of a product."""

LowerFn = Callable[[Lowering, OnnxOp], SSAValue | Constant | Sequence[SSAValue]]


def _reshaped(ctx: Lowering, op: OnnxOp, dims: Sequence[Dim]) -> SSAValue | Constant:
    """Input 0 in another shape; a constant stays one."""
    constant = ctx.raw(op.input(0))
    if isinstance(constant, np.ndarray) and all(isinstance(d, int) for d in dims):
        return constant.reshape(cast("tuple[int, ...]", tuple(dims)))
    x = ctx.tensor(op.input(0))
    old, new = product(ctx.dims(x)), product(dims)
    if old != new:
        ctx.same(old, new, "the numbers of elements before and after a reshape")
    return ctx.reshape(x, dims)


def reshape_target(ctx: Lowering, op: OnnxOp) -> list[Dim]:
    """The dims of a Reshape's result."""
    old = ctx.operand_dims(op.input(0))
    target = ctx.dims_from(op.input(1), "the target shape")
    keep_zero = bool(op.int_value("allowzero"))
    dims: list[Dim] = []
    for axis, dim in enumerate(target):
        if dim == 0 and not keep_zero:
            if axis >= len(old):
                raise ctx.error(f"the target shape copies axis {axis}, which does not exist")
            dim = old[axis]
        dims.append(dim)
    if -1 in dims:
        axis = dims.index(-1)
        rest = product(dims[:axis] + dims[axis + 1 :])
        found = exact_quotient(product(old), rest)
        if found is None:
            raise ctx.error(
                f"the elements cannot be divided evenly over the target shape: "
                f"{ctx.show(product(old))} by {ctx.show(rest)}",
                "give extents that must be equal one name, or a number in shapes",
            )
        dims[axis] = found
    return dims


def flattened(ctx: Lowering, op: OnnxOp) -> list[Dim]:
    """The dims of a Flatten's result."""
    dims, axis = ctx.operand_dims(op.input(0)), op.int_value("axis")
    axis = axis + len(dims) if axis < 0 else axis
    return [product(dims[:axis]), product(dims[axis:])]


def squeezed(ctx: Lowering, op: OnnxOp) -> list[Dim]:
    """The dims of a Squeeze's result."""
    dims = ctx.operand_dims(op.input(0))
    if op.input(1) is None:
        axes = [axis for axis, dim in enumerate(dims) if dim == 1]
    else:
        given = ctx.integers_from(op.input(1), "axes")
        axes = [ctx.axis(axis, len(dims)) for axis in given]
    for axis in axes:
        ctx.same(dims[axis], 1, f"the extent of the squeezed axis {axis} and 1")
    return [dim for axis, dim in enumerate(dims) if axis not in axes]


def unsqueezed(ctx: Lowering, op: OnnxOp) -> list[Dim]:
    """The dims of an Unsqueeze's result."""
    dims = list(ctx.operand_dims(op.input(0)))
    given = ctx.integers_from(op.input(1), "axes")
    for axis in sorted(ctx.axis(axis, len(dims) + len(given)) for axis in given):
        dims.insert(axis, 1)
    return dims


def _to(
    dims: Callable[[Lowering, OnnxOp], Sequence[Dim]], ctx: Lowering, op: OnnxOp
) -> SSAValue | Constant:
    return _reshaped(ctx, op, dims(ctx, op))


def _transpose(ctx: Lowering, op: OnnxOp) -> SSAValue | Constant:
    rank = len(ctx.operand_dims(op.input(0)))
    perm = op.ints_value("perm") or tuple(reversed(range(rank)))
    constant = ctx.raw(op.input(0))
    if isinstance(constant, Quantised):
        return constant.transposed(perm)
    if constant is not None:
        return constant.transpose(perm)
    return ctx.transpose(ctx.tensor(op.input(0)), perm)


def _concat(ctx: Lowering, op: OnnxOp) -> SSAValue:
    xs = [ctx.tensor(x) for x in op.operands]
    dims = list(ctx.dims(xs[0]))
    axis = ctx.axis(op.int_value("axis"), len(dims))
    for x in xs[1:]:
        other = list(ctx.dims(x))
        dims[axis] = add(dims[axis], other[axis])
        other[axis] = dims[axis]
        ctx.same_all(other, dims, "the dims of concatenated tensors")
    return ctx.concat(xs, dims, axis)


def _split(ctx: Lowering, op: OnnxOp) -> Sequence[SSAValue]:
    x = ctx.tensor(op.input(0))
    dims = list(ctx.dims(x))
    axis, count = ctx.axis(op.int_value("axis"), len(dims)), len(op.results)
    if op.input(1) is not None:
        sizes: list[int] = ctx.integers_from(op.input(1), "split")
    else:
        extent = dims[axis]
        if not isinstance(extent, int):
            raise ctx.error("an extent that is split evenly must be known at compile time")
        chunk = -(-extent // count)
        sizes = [min(chunk, extent - i * chunk) for i in range(count)]
    parts: list[SSAValue] = []
    start = 0
    for size in sizes:
        starts = [start if i == axis else 0 for i in range(len(dims))]
        part = [size if i == axis else dim for i, dim in enumerate(dims)]
        parts.append(ctx.slice(x, starts, [1] * len(dims), part))
        start += size
    return parts


def _slice(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = ctx.tensor(op.input(0))
    rank = len(ctx.dims(x))
    starts, ends = (ctx.dims_from(op.input(i), what) for i, what in ((1, "starts"), (2, "ends")))
    axes, steps = op.input(3), op.input(4)
    where = list(range(len(starts))) if axes is None else ctx.integers_from(axes, "axes")
    by = [1] * len(starts) if steps is None else ctx.integers_from(steps, "steps")
    for start, end, axis, step in zip(starts, ends, where, by, strict=True):
        x = _slice_axis(ctx, x, ctx.axis(axis, rank), start, end, step)
    return x


def _slice_axis(ctx: Lowering, x: SSAValue, axis: int, start: Dim, end: Dim, step: int) -> SSAValue:
    extent = ctx.dims(x)[axis]
    if isinstance(extent, int) and isinstance(start, int) and isinstance(end, int):
        taken = range(extent)[start:end:step]
        return _take(ctx, x, axis, taken.start, len(taken), step)
    if step < 1:
        raise ctx.error("a backward slice of a run-time extent has no lowering")
    first, last = (_position(ctx, p, extent) for p in (start, end))
    length = subtract(last, first)
    if step > 1:
        length = ctx.extents.divide(add(length, step - 1), step)
    if isinstance(first, int):
        return _take(ctx, x, axis, first, length, step)
    from_end = subtract(first, extent)
    if isinstance(from_end, int) and isinstance(length, int):
        # Only a gather counts from the end, with negative indices.
        indices = np.arange(length, dtype=np.int64) * step + from_end
        return ctx.gather(x, ctx.constant(indices), axis)
    raise ctx.error("a slice that starts at a run-time position has no lowering")


def _position(ctx: Lowering, position: Dim, extent: Dim) -> Dim:
    """A start or end within an axis: negative ones count from the end, larger ones are cut."""
    if isinstance(position, int) and position < 0:
        position = add(extent, position)
        if ctx.extents.bound(position)[0] >= 0:
            return position
    smaller = ctx.extents.minimum(position, extent)
    if smaller is None or ctx.extents.bound(smaller)[0] < 0:
        raise ctx.error(
            f"whether a slice reaches past its operand depends on a run-time extent "
            f"({ctx.show(extent)})",
            "narrow the bound of the extent in shapes, as in shapes={'name': (1, 128)}",
        )
    return smaller


def _take(ctx: Lowering, x: SSAValue, axis: int, start: int, length: Dim, step: int) -> SSAValue:
    dims = list(ctx.dims(x))
    dims[axis] = length
    if length == 0:
        raise ctx.error("an empty slice has no lowering")
    starts, steps = [0] * len(dims), [1] * len(dims)
    starts[axis], steps[axis] = start, step
    return ctx.slice(x, starts, steps, dims)


def expanded(ctx: Lowering, op: OnnxOp) -> tuple[Dim, ...]:
    """The dims of an Expand's result."""
    target = tuple(ctx.dims_from(op.input(1), "the target shape"))
    return ctx.broadcast(ctx.operand_dims(op.input(0)), target)


def _expand(ctx: Lowering, op: OnnxOp) -> SSAValue:
    return ctx.expand(ctx.tensor(op.input(0)), expanded(ctx, op))


def _tile(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = ctx.tensor(op.input(0))
    dims, repeats = ctx.dims(x), ctx.dims_from(op.input(1), "repeats")
    if len(dims) != len(repeats):
        raise ctx.error(f"repeats must have {len(dims)} numbers, they have {len(repeats)}")
    if all(count == 1 for count in repeats):
        return x
    apart: list[Dim] = []
    full: list[Dim] = []
    for dim, count in zip(dims, repeats, strict=True):
        apart += [1, dim]
        full += [count, dim]
    spread = ctx.expand(ctx.reshape(x, apart), full)
    return ctx.reshape(spread, list(map(multiply, dims, repeats)))


def _pad(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = ctx.tensor(op.input(0))
    dims = ctx.dims(x)
    pads = ctx.integers_from(op.input(1), "pads")
    count = len(pads) // 2
    axes = list(range(len(dims)))
    if op.input(3) is not None:
        axes = [ctx.axis(axis, len(dims)) for axis in ctx.integers_from(op.input(3), "axes")]
    if len(pads) != 2 * len(axes):
        raise ctx.error(f"pads must have {2 * len(axes)} numbers, they have {len(pads)}")
    low, high = [0] * len(dims), [0] * len(dims)
    for axis, before, after in zip(axes, pads[:count], pads[count:], strict=True):
        low[axis], high[axis] = before, after
    mode = op.str_value("mode")
    if mode != "constant":
        return _pad_by_gather(ctx, x, low, high, mode)
    value = ctx.number(op.input(2), "constant_value", 0.0)
    x = _cut(ctx, x, [max(-p, 0) for p in low], [max(-p, 0) for p in high])
    low, high = [max(p, 0) for p in low], [max(p, 0) for p in high]
    out = [add(d, p + q) for d, p, q in zip(ctx.dims(x), low, high, strict=True)]
    return ctx.pad(x, low, out, value)


def _cut(ctx: Lowering, x: SSAValue, low: list[int], high: list[int]) -> SSAValue:
    """x without its first `low` and last `high` elements: negative pads."""
    dims = [subtract(d, p + q) for d, p, q in zip(ctx.dims(x), low, high, strict=True)]
    return ctx.slice(x, low, [1] * len(dims), dims)


_PAD_MODES: dict[str, Literal["edge", "reflect", "wrap"]] = {
    "edge": "edge",
    "reflect": "reflect",
    "wrap": "wrap",
}


def _pad_by_gather(
    ctx: Lowering, x: SSAValue, low: list[int], high: list[int], mode: str
) -> SSAValue:
    if mode not in _PAD_MODES:
        raise ctx.error(f"the mode {mode!r} does not exist")
    if min(*low, *high) < 0:
        raise ctx.error(f"negative pads have no lowering with the mode {mode!r}")
    for axis, (before, after) in enumerate(zip(low, high, strict=True)):
        extent = ctx.dims(x)[axis]
        if not before and not after:
            continue
        if not isinstance(extent, int):
            raise ctx.error(f"the mode {mode!r} needs an extent known at compile time")
        indices = np.pad(np.arange(extent), (before, after), _PAD_MODES[mode])
        x = ctx.gather(x, ctx.constant(indices), axis)
    return x


def _constant_of_shape(ctx: Lowering, op: OnnxOp) -> SSAValue | Constant:
    dims = ctx.dims_from(op.input(0), "the shape")
    value = op.attributes.get("value")
    array = np.zeros(1, np.float32) if value is None else ctx.attribute_array(value)
    array = array.reshape(())
    count = product(dims)
    if isinstance(count, int) and 0 <= count <= MAX_FILLED:
        # A view of one element; it takes memory only where it is a weight.
        filled = np.broadcast_to(array, cast("list[int]", dims))
        if count <= INLINE_ELEMENTS:
            return filled
        ctx.bind_constant(op.results[0], filled)
    return ctx.expand(ctx.constant(array), dims)


def _range(ctx: Lowering, op: OnnxOp) -> SSAValue:
    """Every range that compiles is a grid (see `positions`): say why this one is not."""
    for value, what in zip(op.operands, ("start", "limit"), strict=False):
        ctx.dims_from(value, what)
    if not any(ctx.integers_from(op.input(2), "delta")):
        raise ctx.error("delta must not be 0")
    raise ctx.error(
        "whether its limit lies before its start depends on a run-time extent",
        "narrow the bounds of the extents in shapes, as in shapes={'name': (1, 128)}",
    )


def _depth_to_space(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x, block = ctx.tensor(op.input(0)), op.int_value("blocksize")
    batch, channels, height, width = ctx.dims(x)
    inner = exact_quotient(channels, block * block)
    if inner is None:
        raise ctx.error(f"its channels must be a multiple of {block * block}")
    if op.str_value("mode") == "CRD":
        split, perm = (batch, inner, block, block, height, width), (0, 1, 4, 2, 5, 3)
    else:
        split, perm = (batch, block, block, inner, height, width), (0, 3, 4, 1, 5, 2)
    moved = ctx.transpose(ctx.reshape(x, split), perm)
    return ctx.reshape(moved, (batch, inner, multiply(height, block), multiply(width, block)))


def _space_to_depth(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x, block = ctx.tensor(op.input(0)), op.int_value("blocksize")
    batch, channels, height, width = ctx.dims(x)
    tall, wide = (exact_quotient(d, block) for d in (height, width))
    if tall is None or wide is None:
        raise ctx.error(f"height and width must be multiples of {block}")
    split = ctx.reshape(x, (batch, channels, tall, block, wide, block))
    perm = (0, 1, 3, 5, 2, 4) if op.str_value("mode") == "CRD" else (0, 3, 5, 1, 2, 4)
    moved = ctx.transpose(split, perm)
    return ctx.reshape(moved, (batch, multiply(channels, block * block), tall, wide))


LOWERINGS: dict[str, LowerFn] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": partial(_to, flattened),
    "Pad": _pad,
    "Range": _range,
    "Reshape": partial(_to, reshape_target),
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": partial(_to, squeezed),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": partial(_to, unsqueezed),
}
