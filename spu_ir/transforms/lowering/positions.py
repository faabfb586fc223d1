"""
Index arithmetic at compile time: nodes whose results are grids.

Beside `shapes`, which knows small integer tensors element by element, this follows tensors of any
size, with run-time extents, whose elements follow from their places (see `grids`). A comparison
whose answer the extents' bounds prove is a uniform grid of a truth value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from xdsl.dialects.builtin import IntegerType, i1, i32, i64

from spu_ir.dialects.onnx import OnnxOp

from .context import Lowering, onnx_element
from .dims import Dim, add, multiply, subtract
from .grids import Grid, combined, filled, make, reshaped, scaled, span
from .movement import expanded, flattened, reshape_target, squeezed, unsqueezed

GridFn = Callable[[Lowering, OnnxOp], Grid | None]


def _both(ctx: Lowering, op: OnnxOp) -> tuple[Grid, Grid] | None:
    a, b = ctx.grid(op.input(0)), ctx.grid(op.input(1))
    return None if a is None or b is None else (a, b)


def _is_truth(*grids: Grid) -> bool:
    return any(isinstance(grid.offset, bool) for grid in grids)


def _sum(sign: int, ctx: Lowering, op: OnnxOp) -> Grid | None:
    pair = _both(ctx, op)
    if pair is None or _is_truth(*pair):
        return None
    a, b = pair
    return combined(a, b, ctx.broadcast(a.dims, b.dims), sign)


def _product(ctx: Lowering, op: OnnxOp) -> Grid | None:
    pair = _both(ctx, op)
    if pair is None or _is_truth(*pair):
        return None
    a, b = pair
    dims = ctx.broadcast(a.dims, b.dims)
    for grid, factor in ((a, b.uniform), (b, a.uniform)):
        if factor is not None:
            return scaled(grid, factor).broadcast(dims)
    return None


def _negative(ctx: Lowering, op: OnnxOp) -> Grid | None:
    grid = ctx.grid(op.input(0))
    return None if grid is None or _is_truth(grid) else scaled(grid, -1)


def _difference(ctx: Lowering, op: OnnxOp) -> tuple[Grid, Dim, Dim] | None:
    """The grid a - b, its least and its greatest element."""
    difference = _sum(-1, ctx, op)
    ends = None if difference is None else span(ctx.extents, difference)
    return None if difference is None or ends is None else (difference, *ends)


def _at_least(least: int, sign: int, ctx: Lowering, op: OnnxOp) -> Grid | None:
    """Whether `sign * (a - b)` is `least` or more, where that holds everywhere or nowhere."""
    found = _difference(ctx, op)
    if found is None:
        return None
    difference, low, high = found
    if sign < 0:
        low, high = multiply(high, -1), multiply(low, -1)
    if ctx.extents.at_most(least, low):
        return filled(difference.dims, True)
    return filled(difference.dims, False) if ctx.extents.at_most(add(high, 1), least) else None


def _equal(ctx: Lowering, op: OnnxOp) -> Grid | None:
    pair = _both(ctx, op)
    if pair is None:
        return None
    a, b = pair
    dims = ctx.broadcast(a.dims, b.dims)
    if isinstance(a.offset, bool) and isinstance(b.offset, bool):
        return filled(dims, a.offset == b.offset)
    found = _difference(ctx, op)
    if found is None:
        return None
    difference, low, high = found
    if difference.uniform == 0:
        return filled(dims, True)
    apart = ctx.extents.at_most(1, low) or ctx.extents.at_most(high, -1)
    return filled(dims, False) if apart else None


def _extreme(largest: bool, ctx: Lowering, op: OnnxOp) -> Grid | None:
    if len(op.operands) != 2:
        return None
    pair, found = _both(ctx, op), _difference(ctx, op)
    if pair is None or found is None:
        return None
    difference, low, high = found
    a, b = (grid.broadcast(difference.dims) for grid in pair)
    if ctx.extents.at_most(0, low):
        return a if largest else b
    return (b if largest else a) if ctx.extents.at_most(high, 0) else None


def _junction(decides: bool, ctx: Lowering, op: OnnxOp) -> Grid | None:
    """And (which False decides) and Or (which True does)."""
    grids = [ctx.grid(value) for value in op.operands]
    dims = ctx.broadcast(*(ctx.operand_dims(value) for value in op.operands))
    values = [None if grid is None else grid.uniform for grid in grids]
    if decides in values:
        return filled(dims, decides)
    return None if None in values else filled(dims, not decides)


def _exclusive(ctx: Lowering, op: OnnxOp) -> Grid | None:
    same = _equal(ctx, op)
    return None if same is None else filled(same.dims, not same.offset)


def _not(ctx: Lowering, op: OnnxOp) -> Grid | None:
    grid = ctx.grid(op.input(0))
    return None if grid is None else filled(grid.dims, not grid.offset)


def _cast(ctx: Lowering, op: OnnxOp) -> Grid | None:
    grid = ctx.grid(op.input(0))
    element = onnx_element(op.results[0])
    if grid is None or element not in (i1, i32, i64):
        return None
    if element != i1:
        offset = int(grid.offset) if isinstance(grid.offset, bool) else grid.offset
        return make(grid.dims, offset, grid.steps)
    if isinstance(grid.offset, bool):
        return grid
    ends = span(ctx.extents, grid)
    if ends is None:
        return None
    if grid.uniform == 0:
        return filled(grid.dims, False)
    apart = ctx.extents.at_most(1, ends[0]) or ctx.extents.at_most(ends[1], -1)
    return filled(grid.dims, True) if apart else None


def _identity(ctx: Lowering, op: OnnxOp) -> Grid | None:
    return ctx.grid(op.input(0))


def _where(ctx: Lowering, op: OnnxOp) -> Grid | None:
    condition = ctx.grid(op.input(0))
    if condition is None or not isinstance(condition.uniform, bool):
        return None
    chosen = ctx.grid(op.input(1 if condition.uniform else 2))
    dims = ctx.broadcast(*(ctx.operand_dims(value) for value in op.operands))
    return None if chosen is None else chosen.broadcast(dims)


# Shapes


def _to(
    dims: Callable[[Lowering, OnnxOp], Sequence[Dim]], ctx: Lowering, op: OnnxOp
) -> Grid | None:
    grid = ctx.grid(op.input(0))
    return None if grid is None else reshaped(grid, dims(ctx, op))


def _expand(ctx: Lowering, op: OnnxOp) -> Grid | None:
    grid = ctx.grid(op.input(0))
    return None if grid is None else grid.broadcast(expanded(ctx, op))


def _transpose(ctx: Lowering, op: OnnxOp) -> Grid | None:
    grid = ctx.grid(op.input(0))
    if grid is None:
        return None
    perm = op.ints_value("perm") or tuple(reversed(range(len(grid.dims))))
    return make([grid.dims[k] for k in perm], grid.offset, [grid.steps[k] for k in perm])


def _slice(ctx: Lowering, op: OnnxOp) -> Grid | None:
    """Slices whose ends are certain; the others are left to the lowering, which says why."""
    grid = ctx.grid(op.input(0))
    if grid is None:
        return None
    starts, ends, axes, steps = (
        None if op.input(k) is None else ctx.symbols(op.input(k)) for k in (1, 2, 3, 4)
    )
    if starts is None or ends is None:
        return None
    count = len(starts)
    where = range(count) if axes is None else axes
    by = [1] * count if steps is None else steps
    for start, end, axis, step in zip(starts, ends, where, by, strict=True):
        sliced = _slice_axis(ctx, grid, ctx.axis(axis, len(grid.dims)), start, end, step)
        if sliced is None:
            return None
        grid = sliced
    return grid


def _slice_axis(
    ctx: Lowering, grid: Grid, axis: int, start: Dim, end: Dim, step: Dim
) -> Grid | None:
    extent = grid.dims[axis]
    first: Dim
    length: Dim
    if (
        isinstance(extent, int)
        and isinstance(start, int)
        and isinstance(end, int)
        and isinstance(step, int)
    ):
        taken = range(extent)[start:end:step]
        first, length = taken.start, len(taken)
    elif isinstance(start, int) and start >= 0 and step == 1:
        stop = ctx.extents.minimum(end, extent)
        if stop is None or not ctx.extents.at_most(start, stop):
            return None
        first, length = start, subtract(stop, start)
    else:
        return None
    dims, steps, offset = list(grid.dims), list(grid.steps), grid.offset
    if steps[axis] != 0:
        offset = add(offset, multiply(steps[axis], first))
        steps[axis] = multiply(steps[axis], step)
    dims[axis] = length
    return make(dims, offset, steps)


def _constant_of_shape(ctx: Lowering, op: OnnxOp) -> Grid | None:
    value, shape = op.attributes.get("value"), ctx.symbols(op.input(0))
    if value is None or shape is None:
        return None
    item = ctx.attribute_array(value).reshape(()).item()
    return filled([cast("Dim", dim) for dim in shape.reshape(-1)], item)


def _range(ctx: Lowering, op: OnnxOp) -> Grid | None:
    ends = [ctx.grid(value) for value in op.operands]
    start, limit, step = (None if grid is None else grid.offset for grid in ends)
    if start is None or limit is None or not isinstance(step, int) or step == 0:
        return None
    length = multiply(subtract(limit, start), 1 if step > 0 else -1)
    if not ctx.extents.at_most(0, length):
        return None
    if abs(step) > 1:
        length = ctx.extents.divide(add(length, abs(step) - 1), abs(step))
    return make([length], start, [step])


# Indexing


def _gathered(ctx: Lowering, op: OnnxOp, dims: Sequence[Dim]) -> Grid | None:
    """What is the same everywhere is so wherever it is taken from."""
    grid = ctx.grid(op.input(0))
    same = None if grid is None else grid.uniform
    return None if same is None else filled(dims, same)


def _gather(ctx: Lowering, op: OnnxOp) -> Grid | None:
    dims = ctx.operand_dims(op.input(0))
    axis = ctx.axis(op.int_value("axis"), len(dims))
    return _gathered(ctx, op, [*dims[:axis], *ctx.operand_dims(op.input(1)), *dims[axis + 1 :]])


def _gather_elements(ctx: Lowering, op: OnnxOp) -> Grid | None:
    return _gathered(ctx, op, ctx.operand_dims(op.input(1)))


def _gather_nd(ctx: Lowering, op: OnnxOp) -> Grid | None:
    dims, index = ctx.operand_dims(op.input(0)), ctx.operand_dims(op.input(1))
    depth = index[-1]
    if not isinstance(depth, int):
        return None
    return _gathered(ctx, op, [*index[:-1], *dims[op.int_value("batch_dims") + depth :]])


_FUNCTIONS: dict[str, GridFn] = {
    "Add": partial(_sum, 1),
    "And": partial(_junction, False),
    "Cast": _cast,
    "CastLike": _cast,
    "ConstantOfShape": _constant_of_shape,
    "Equal": _equal,
    "Expand": _expand,
    "Flatten": partial(_to, flattened),
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Greater": partial(_at_least, 1, 1),
    "GreaterOrEqual": partial(_at_least, 0, 1),
    "Identity": _identity,
    "Less": partial(_at_least, 1, -1),
    "LessOrEqual": partial(_at_least, 0, -1),
    "Max": partial(_extreme, True),
    "Min": partial(_extreme, False),
    "Mul": _product,
    "Neg": _negative,
    "Not": _not,
    "Or": partial(_junction, True),
    "Range": _range,
    "Reshape": partial(_to, reshape_target),
    "Slice": _slice,
    "Squeeze": partial(_to, squeezed),
    "Sub": partial(_sum, -1),
    "Transpose": _transpose,
    "Unsqueeze": partial(_to, unsqueezed),
    "Where": _where,
    "Xor": _exclusive,
}


def evaluate(ctx: Lowering, op: OnnxOp) -> Grid | None:
    """The result of a node on integers or truth values where it is a grid, else None."""
    function = _FUNCTIONS.get(op.schema_name)
    if function is None or not isinstance(onnx_element(op.results[0]), IntegerType):
        return None
    return function(ctx, op)
