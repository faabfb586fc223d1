"""How each op's operands follow the axes of its output: what tiling needs to know of an op."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from typing import TypeAlias

from xdsl.ir import Operation, SSAValue

from spu_ir.dialects.antoum import DmaOp, FillOp
from spu_ir.dialects.spu import BatchMatmulOp, integers
from spu_ir.dialects.types import element_of, numpy_dtype, shape_of
from spu_ir.dialects.vpu import (
    BinaryOp,
    CastOp,
    CumsumOp,
    DequantiseOp,
    ExpandOp,
    GatherOp,
    LayerNormOp,
    LayerNormRowsOp,
    PoolOp,
    QuantiseOp,
    QuantiseProductOp,
    QuantiseRowsOp,
    ReduceOp,
    ResizeOp,
    ResizeTapsOp,
    ScaledOp,
    SelectOp,
    SoftmaxOp,
    TableOp,
    TransposeOp,
    UnaryOp,
)

Map: TypeAlias = Sequence[int | None]
"""For each axis of an operand, the axis of the output that it follows; None: always whole."""


@dataclass(frozen=True)
class Rule:
    """A tile of the output is the same op on these tiles of the operands."""

    output: SSAValue
    axes: Sequence[int]
    """The output's axes that may be cut, outermost first."""
    maps: Sequence[Map]
    """One for each operand, in order."""
    grain: Mapping[int, int] = field(default_factory=dict[int, int])
    """The least step along an axis, 1 where it is not given."""


def broadcast(value: SSAValue, output: SSAValue) -> Map:
    """The map of an operand that broadcasts to the output, as numpy aligns them."""
    shape, rank = shape_of(value), len(shape_of(output))
    first = rank - len(shape)
    return [None if size == 1 else first + axis for axis, size in enumerate(shape)]


def whole(value: SSAValue) -> Map:
    """The map of an operand that every tile needs in full."""
    return [None] * len(shape_of(value))


def leading(value: SSAValue, count: int) -> Map:
    """The map of an operand whose first `count` axes are the output's and the rest whole."""
    return [axis if axis < count else None for axis in range(len(shape_of(value)))]


@singledispatch
def rule_of(op: Operation) -> Rule | None:
    """The rule of a VPU op, copy or batched product on memrefs; None for other ops."""
    return None


def _pointwise(op: UnaryOp | BinaryOp | SelectOp | CastOp | ExpandOp) -> Rule:
    rank = len(shape_of(op.init))
    return Rule(op.init, range(rank), [broadcast(value, op.init) for value in op.operands])


for _kind in (UnaryOp, BinaryOp, SelectOp, CastOp, ExpandOp):
    rule_of.register(_kind, _pointwise)


@rule_of.register
def _quantise_product(op: QuantiseProductOp) -> Rule:
    same = range(len(shape_of(op.init)))
    return Rule(op.init, same, [same, same, [], [], same])


def _scaled(op: ScaledOp) -> Rule:
    rank, axis = len(shape_of(op.init)), op.axis.value.data
    same = list(range(rank))
    count = len(shape_of(op.scale))
    scale = [axis] if axis >= 0 else same[:count]
    maps = [same, scale, *([scale] if op.zero is not None else []), same]
    return Rule(op.init, same, maps)


rule_of.register(QuantiseOp, _scaled)
rule_of.register(DequantiseOp, _scaled)


@rule_of.register
def _table(op: TableOp) -> Rule:
    same = range(len(shape_of(op.init)))
    # A table for each channel is one of pixels, whose channels stay together.
    cut = same[:-1] if len(shape_of(op.table)) == 2 else same
    return Rule(op.init, cut, [same, whole(op.table), same])


@rule_of.register
def _resize_taps(op: ResizeTapsOp) -> Rule:
    return Rule(op.init, [0], [[0, None, None]] * 3)


@rule_of.register
def _resize(op: ResizeOp) -> Rule:
    image: Map = [0, None, None, None]
    rows: Map = [0, 1, None]
    columns: Map = [0, None, None]
    # Neighbouring tiles narrow the rows that they share once each.
    maps = [image, rows, rows, columns, columns, [0, 1, None, None]]
    return Rule(op.init, [0, 1], maps, {1: 16})


@rule_of.register
def _dma(op: DmaOp) -> Rule:
    same = range(len(shape_of(op.target)))
    return Rule(op.target, same, [same, same])


@rule_of.register
def _fill(op: FillOp) -> Rule:
    same = range(len(shape_of(op.target)))
    return Rule(op.target, same, [same])


@rule_of.register
def _transpose(op: TransposeOp) -> Rule:
    perm = integers(op.perm)
    return Rule(
        op.init, range(len(perm)), [[perm.index(a) for a in range(len(perm))], range(len(perm))]
    )


@rule_of.register(SoftmaxOp)
@rule_of.register(CumsumOp)
def _last_axis(op: SoftmaxOp | CumsumOp) -> Rule:
    rows = len(shape_of(op.init)) - 1
    return Rule(op.init, range(rows), [leading(op.x, rows), leading(op.init, rows)])


@rule_of.register
def _layer_norm(op: LayerNormOp) -> Rule:
    rows = len(shape_of(op.init)) - 1
    parameters = [whole(value) for value in op.inputs[1:]]
    return Rule(op.init, range(rows), [leading(op.x, rows), *parameters, leading(op.init, rows)])


@rule_of.register
def _quantise_rows(op: QuantiseRowsOp) -> Rule:
    rows = len(shape_of(op.x)) - 1
    same = leading(op.x, rows)
    columns = [] if op.columns is None else [whole(op.columns)]
    return Rule(op.init, range(rows), [same, *columns, same, range(rows)])


@rule_of.register
def _layer_norm_rows(op: LayerNormRowsOp) -> Rule:
    rows = len(shape_of(op.x)) - 1
    same = leading(op.x, rows)
    parameters = [whole(op.gamma), whole(op.beta)]
    return Rule(op.init, range(rows), [same, *parameters, same, range(rows)])


@rule_of.register
def _reduce(op: ReduceOp) -> Rule:
    axes = integers(op.axes)
    rank, kept = len(shape_of(op.x)), len(shape_of(op.init))
    if kept == rank:
        free = [axis for axis in range(rank) if axis not in axes]
        x: Map = [None if axis in axes else axis for axis in range(rank)]
    else:
        free = list(range(kept))
        order = iter(free)
        x = [None if axis in axes else next(order) for axis in range(rank)]
    out: Map = [axis if axis in free else None for axis in range(kept)]
    return Rule(op.init, free, [x, out])


@rule_of.register
def _pool(op: PoolOp) -> Rule:
    # A window's clipping depends on its place, so height and width stay whole. Channels are cut
    # into cache lines: narrower tiles would read every line again.
    same: Map = [0, None, None, 3]
    line = 64 // numpy_dtype(element_of(op.x)).itemsize
    return Rule(op.init, [0, 3], [same, same], {3: line})


@rule_of.register
def _gather(op: GatherOp) -> Rule:
    axis = op.axis.value.data
    taken = len(shape_of(op.indices))
    rank = len(shape_of(op.x))
    x: Map = [a if a < axis else None if a == axis else a + taken - 1 for a in range(rank)]
    out = range(rank + taken - 1)
    # The axes behind the taken one stay whole: they are copied as one run of bytes.
    cut = range(axis + taken)
    x = [a if a is not None and a in cut else None for a in x]
    return Rule(
        op.init,
        cut,
        [x, [axis + i for i in range(taken)], [a if a in cut else None for a in out]],
    )


@rule_of.register
def _batch_matmul(op: BatchMatmulOp) -> Rule:
    rank = len(shape_of(op.init))
    maps: list[Map] = []
    for value, rows in ((op.a, True), (op.b, False)):
        batch = list(broadcast(value, op.init))[:-2]
        maps.append([*batch, rank - 2 if rows else None, None])
    return Rule(op.init, range(rank - 1), [*maps, leading(op.init, rank - 1)])
