"""Loops over tiles, and the views of a tile: what tiling of every op is built from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from xdsl.dialects import scf
from xdsl.dialects.builtin import IndexType, IntAttr
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint

from spu_ir.dialects.antoum import CORES, CoresAttr
from spu_ir.transforms.emitter import Emitter, Extent
from spu_ir.transforms.tiling_rules import Map


@dataclass(frozen=True)
class Place:
    """Where a tile lies along an axis."""

    offset: Extent
    size: Extent


def with_operands(op: Operation, operands: Sequence[SSAValue]) -> Operation:
    """The same op on other operands of the same kinds, not inserted."""
    return type(op).create(
        operands=operands, properties=dict(op.properties), attributes=dict(op.attributes)
    )


def view_of(emit: Emitter, value: SSAValue, axes: Map, places: Mapping[int, Place]) -> SSAValue:
    """The part of an operand that a tile reads or writes."""
    if not any(axis in places for axis in axes if axis is not None):
        return value
    extents = emit.extents(value)
    chosen = [places.get(axis) if axis is not None else None for axis in axes]
    offsets = [place.offset if place else 0 for place in chosen]
    sizes = [place.size if place else e for place, e in zip(chosen, extents, strict=True)]
    return emit.subview(value, offsets, sizes)


def cut_size(emit: Emitter, offset: SSAValue, extent: Extent, step: int) -> Extent:
    """The size of the tile at `offset`: `step`, or what is left."""
    if step == 1 or (isinstance(extent, int) and extent % step == 0):
        return step
    return emit.minimum(emit.subtract(extent, offset), step)


def parallel_loops(
    emit: Emitter,
    loops: Sequence[tuple[int, Extent, int]],
    body: Callable[[Emitter, Mapping[int, Place]], None],
) -> None:
    """`scf.parallel` over (axis, extent, step); an axis of one tile needs no loop."""
    fixed = {
        axis: Place(0, extent)
        for axis, extent, step in loops
        if isinstance(extent, int) and extent <= step
    }
    loops = [loop for loop in loops if loop[0] not in fixed]
    if not loops:
        body(emit, fixed)
        return
    block = Block(arg_types=[IndexType()] * len(loops))
    inner = Emitter(InsertPoint.at_end(block))
    places = dict(fixed)
    for argument, (axis, extent, step) in zip(block.args, loops, strict=True):
        places[axis] = Place(argument, cut_size(inner, argument, extent, step))
    body(inner, places)
    inner.insert(scf.ReduceOp())
    loop = scf.ParallelOp(
        [emit.index(0)] * len(loops),
        [emit.index(extent) for _, extent, _ in loops],
        [emit.index(step) for _, _, step in loops],
        Region(block),
    )
    loop.attributes["cores"] = CoresAttr(IntAttr(CORES))
    emit.insert(loop)


def sequential_loops(
    emit: Emitter,
    order: Sequence[tuple[int, int]],
    places: Mapping[int, Place],
    body: Callable[[Emitter, Mapping[int, Place]], None],
) -> None:
    """Nested `scf.for` that cut `places` further by (axis, step), outermost first."""
    if not order:
        body(emit, places)
        return
    (axis, step), *rest = order
    offset, extent = places[axis].offset, places[axis].size
    if isinstance(extent, int) and extent <= step:
        sequential_loops(emit, rest, places, body)
        return
    block = Block(arg_types=[IndexType()])
    inner = Emitter(InsertPoint.at_end(block))
    size = cut_size(inner, block.args[0], extent, step)
    place = Place(inner.add(offset, block.args[0]), size)
    sequential_loops(inner, rest, {**places, axis: place}, body)
    inner.insert(scf.YieldOp())
    emit.insert(scf.ForOp(emit.index(0), emit.index(extent), emit.index(step), [], Region(block)))
