"""
`Gather` and its like: `result[j] = x[index_0(j), index_1(j), ...]`, one index for each axis of x.

An index is a grid, which is known at compile time, or a tensor. Where the indices follow different
axes of the result, each axis of x is taken by itself: a grid makes it a slice, a repetition or a
reshape, and only a tensor needs a gather. Indices that share an axis of the result are added up to
places in a flat x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

import numpy as np
from xdsl.dialects.builtin import i64
from xdsl.ir import SSAValue

from spu_ir.dialects.onnx import OnnxOp
from spu_ir.dialects.types import element_of, numpy_dtype
from spu_ir.dialects.vpu import BinaryFn

from .context import Constant, Lowering, Quantised
from .dims import Dim, add, multiply, product
from .grids import Grid, counts, filled, make, span, within

LowerFn = Callable[[Lowering, OnnxOp], SSAValue | Constant]


@dataclass(frozen=True)
class Look:
    """An index that a tensor holds: its axis k follows the result's axis `axes[k]`."""

    tensor: SSAValue
    axes: tuple[int, ...]


Index: TypeAlias = Grid | Look
"""The places along one axis of x; a grid has the result's dims."""


def pick(ctx: Lowering, x: SSAValue, indices: Sequence[Index], dims: Sequence[Dim]) -> SSAValue:
    """The elements of x at `indices`, in the result's `dims`."""
    x, indices = _unexpanded(ctx, x, indices, dims)
    checked = [_checked(ctx, i, d) for i, d in zip(indices, ctx.dims(x), strict=True)]
    followed = [axis for index in checked for axis in _axes(ctx, index)]
    if len(followed) == len(set(followed)):
        return _by_axis(ctx, x, checked, dims)
    return _flat(ctx, x, checked, dims)


def _unexpanded(
    ctx: Lowering, x: SSAValue, indices: Sequence[Index], dims: Sequence[Dim]
) -> tuple[SSAValue, Sequence[Index]]:
    """Without the axes along which x only repeats: what is the same everywhere needs no index."""
    source = ctx.unexpanded(x)
    if source is x:
        return x, indices
    own, wide = ctx.dims(source), ctx.dims(x)
    added = len(wide) - len(own)
    return source, [
        filled(dims, 0) if dim != wide[added + axis] else indices[added + axis]
        for axis, dim in enumerate(own)
    ]


def _checked(ctx: Lowering, index: Index, extent: Dim) -> Index:
    """A grid that certainly lies within `extent`; what may not is checked at run time."""
    if isinstance(index, Look):
        return index
    ends = span(ctx.extents, index)
    # Only a gather counts back from an end that is known at run time.
    if ends is not None and isinstance(extent, int) and ctx.extents.at_most(add(ends[1], 1), 0):
        index = make(index.dims, add(index.offset, extent), index.steps)
    if within(ctx.extents, index, extent):
        return index
    return _look(ctx, index)


def _look(ctx: Lowering, grid: Grid) -> Look:
    """A grid as a tensor, over the axes that it follows."""
    axes = grid.axes
    small = make([grid.dims[a] for a in axes], grid.offset, [grid.steps[a] for a in axes])
    return Look(ctx.grid_tensor(small, i64), tuple(axes))


def _axes(ctx: Lowering, index: Index) -> list[int]:
    if isinstance(index, Grid):
        return index.axes
    dims = ctx.dims(index.tensor)
    return [axis for axis, dim in zip(index.axes, dims, strict=True) if dim != 1]


def _by_axis(ctx: Lowering, x: SSAValue, indices: Sequence[Index], dims: Sequence[Dim]) -> SSAValue:
    """Axis after axis, the last one first; then the result's axes are put in order."""
    order: list[int] = []
    for axis in reversed(range(len(indices))):
        x, taken = _take_axis(ctx, x, axis, indices[axis])
        order = [*taken, *order]
    x = ctx.transpose(x, np.argsort(order).tolist())
    places = [dims[axis] if axis in order else 1 for axis in range(len(dims))]
    return ctx.expand(ctx.reshape(x, places), dims)


def _take_axis(ctx: Lowering, x: SSAValue, axis: int, index: Index) -> tuple[SSAValue, list[int]]:
    """x with the elements that `index` names in place of `axis`, and the result's axes there."""
    dims = list(ctx.dims(x))
    if isinstance(index, Grid):
        axes = index.axes
        wide = [index.dims[a] for a in axes]
        if counts(make(wide, index.offset, [index.steps[a] for a in axes]), dims[axis]):
            return ctx.reshape(x, [*dims[:axis], *wide, *dims[axis + 1 :]]), axes
        sliced = _slice(ctx, x, axis, index)
        if sliced is not None:
            return sliced, axes
        index = _look(ctx, index)
    narrow = [dim for dim in ctx.dims(index.tensor) if dim != 1]
    return ctx.gather(x, ctx.reshape(index.tensor, narrow), axis), _axes(ctx, index)


def _slice(ctx: Lowering, x: SSAValue, axis: int, grid: Grid) -> SSAValue | None:
    """The slice that a grid over one axis of the result, or none, takes; None where it is none."""
    axes, dims = grid.axes, list(ctx.dims(x))
    step = grid.steps[axes[0]] if len(axes) == 1 else 1
    if len(axes) > 1 or not isinstance(grid.offset, int) or not isinstance(step, int):
        return None
    starts, steps = [0] * len(dims), [1] * len(dims)
    starts[axis], steps[axis] = grid.offset, step
    dims[axis] = grid.dims[axes[0]] if axes else 1
    taken = ctx.slice(x, starts, steps, dims)
    return taken if axes else ctx.reshape(taken, [*dims[:axis], *dims[axis + 1 :]])


def _flat(ctx: Lowering, x: SSAValue, indices: Sequence[Index], dims: Sequence[Dim]) -> SSAValue:
    """By places in x as one axis; what any index says outside its axis fails the run."""
    own = ctx.dims(x)
    strides = [product(own[axis + 1 :]) for axis in range(len(own))]
    known = filled(dims, 0)
    places: list[SSAValue] = []
    outside: list[SSAValue] = []
    for index, extent, stride in zip(indices, own, strides, strict=True):
        if isinstance(index, Grid):
            steps = [
                add(a, multiply(b, stride)) for a, b in zip(known.steps, index.steps, strict=True)
            ]
            known = make(dims, add(known.offset, multiply(index.offset, stride)), steps)
            continue
        look = _spread(ctx, index, len(dims))
        below = ctx.binary(BinaryFn.LESS, look, _number(ctx, 0))
        raised = ctx.binary(BinaryFn.ADD, look, _number(ctx, extent))
        at = ctx.select(below, raised, look)
        outside.append(ctx.binary(BinaryFn.LESS, at, _number(ctx, 0)))
        outside.append(ctx.binary(BinaryFn.GREATER_OR_EQUAL, at, _number(ctx, extent)))
        places.append(ctx.binary(BinaryFn.MUL, at, _number(ctx, stride)))
    if known.uniform != 0:
        places.append(ctx.grid_tensor(known, i64))
    total = reduce(lambda a, b: ctx.binary(BinaryFn.ADD, a, b), places)
    if outside:
        wrong = reduce(lambda a, b: ctx.binary(BinaryFn.OR, a, b), outside)
        total = ctx.select(wrong, _number(ctx, product(own)), total)
    flat = ctx.reshape(x, [product(own)])
    return ctx.gather(flat, ctx.expand(total, dims), 0)


def _number(ctx: Lowering, number: Dim) -> SSAValue:
    return ctx.grid_tensor(filled((), number), i64)


def _spread(ctx: Lowering, look: Look, rank: int) -> SSAValue:
    """A tensor of `rank` axes, its own at the result's."""
    dims: list[Dim] = [1] * rank
    for axis, dim in zip(look.axes, ctx.dims(look.tensor), strict=True):
        dims[axis] = dim
    return ctx.cast(ctx.reshape(look.tensor, dims), i64)


# Operators


def _count(dims: Sequence[Dim], axis: int) -> Grid:
    """0, 1, ... along `axis`."""
    return make(dims, 0, [1 if k == axis else 0 for k in range(len(dims))])


def _index(
    ctx: Lowering, value: SSAValue | None, dims: Sequence[Dim], axes: Sequence[int]
) -> Index:
    """What an operand says, its axis k along the result's axis `axes[k]`."""
    grid = ctx.grid(value)
    return Look(ctx.tensor(value), tuple(axes)) if grid is None else grid.placed(dims, axes)


def _gather(ctx: Lowering, op: OnnxOp) -> SSAValue:
    own, taken = ctx.operand_dims(op.input(0)), ctx.operand_dims(op.input(1))
    axis, count = ctx.axis(op.int_value("axis"), len(own)), len(taken)
    dims = [*own[:axis], *taken, *own[axis + 1 :]]
    indices: list[Index] = [_count(dims, k if k < axis else k + count - 1) for k in range(len(own))]
    indices[axis] = _index(ctx, op.input(1), dims, range(axis, axis + count))
    constant = ctx.raw(op.input(0))
    if isinstance(constant, Quantised) and not constant.scale.ndim:
        # Integers are gathered, so that the table stays as small as the model has it.
        rows = pick(ctx, ctx.constant(constant.values), indices, dims)
        scale = ctx.constant(np.asarray(constant.scale, np.float32))
        zero = ctx.constant(constant.zero.astype(constant.values.dtype))
        return ctx.dequantise(rows, scale, zero, -1)
    return pick(ctx, ctx.tensor(op.input(0)), indices, dims)


def _gather_elements(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x, dims = ctx.tensor(op.input(0)), ctx.operand_dims(op.input(1))
    axis = ctx.axis(op.int_value("axis"), len(dims))
    indices: list[Index] = [_count(dims, k) for k in range(len(dims))]
    indices[axis] = _index(ctx, op.input(1), dims, range(len(dims)))
    return pick(ctx, x, indices, dims)


def _gather_nd(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x, (*outer, depth) = ctx.tensor(op.input(0)), ctx.operand_dims(op.input(1))
    own, batch = ctx.dims(x), op.int_value("batch_dims")
    if not isinstance(depth, int):
        raise ctx.error("the last extent of its indices must be known at compile time")
    dims = [*outer, *own[batch + depth :]]
    rest = range(len(outer), len(dims))
    indices: list[Index] = [_count(dims, axis) for axis in (*range(batch), *rest)]
    indices[batch:batch] = [_column(ctx, op.input(1), number, dims) for number in range(depth)]
    return pick(ctx, x, indices, dims)


def _column(ctx: Lowering, value: SSAValue | None, number: int, dims: Sequence[Dim]) -> Index:
    """The element `number` of the last axis of `value`."""
    whole = ctx.operand_dims(value)
    last = len(whole) - 1
    grid = ctx.grid(value)
    part = None if value is None else _part(ctx, value, number)
    if grid is None and part is not None:
        value, number, grid = part, 0, ctx.grid(part)
    if grid is not None:
        return grid.fixed(last, number).placed(dims, range(last))
    starts = [0] * last + [number]
    column = ctx.slice(ctx.tensor(value), starts, [1] * len(whole), [*whole[:last], 1])
    return Look(ctx.reshape(column, whole[:last]), tuple(range(last)))


def _part(ctx: Lowering, value: SSAValue, number: int) -> SSAValue | None:
    """Operand `number` of the Concat along the last axis, one element each, that makes `value`."""
    op = value.owner
    if not isinstance(op, OnnxOp) or op.schema_name != "Concat":
        return None
    rank = len(ctx.operand_dims(value))
    single = all(ctx.operand_dims(operand)[-1] == 1 for operand in op.operands)
    along = ctx.axis(op.int_value("axis"), rank) == rank - 1
    return op.operands[number] if single and along else None


def _trilu(ctx: Lowering, op: OnnxOp) -> SSAValue:
    """The elements at or above (below) a diagonal; the others are 0."""
    x = ctx.tensor(op.input(0))
    rows, columns = ctx.dims(x)[-2:]
    diagonal = 0 if op.input(1) is None else ctx.integers_from(op.input(1), "k")[0]
    sign = 1 if op.int_value("upper") else -1
    # column - row - k is at least 0 above the diagonal, at most 0 below it.
    inside = make((rows, columns), -sign * diagonal, (-sign, sign))
    ends = span(ctx.extents, inside)
    if ends is not None and ctx.extents.at_most(0, ends[0]):
        return x
    kept = ctx.binary(BinaryFn.GREATER_OR_EQUAL, ctx.grid_tensor(inside, i64), _number(ctx, 0))
    zero = ctx.constant(np.zeros((), numpy_dtype(element_of(x))))
    return ctx.select(kept, x, zero)


LOWERINGS: dict[str, LowerFn] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Trilu": _trilu,
}
