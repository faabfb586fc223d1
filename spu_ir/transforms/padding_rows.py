"""Ops that compute every row `[batch, seq]` of a result from the same row of their operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from xdsl.dialects.builtin import IntegerAttr, i64
from xdsl.ir import Attribute, Operation, SSAValue

from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.spu import BatchMatmulOp, MatmulOp, integers
from spu_ir.dialects.types import shape_of
from spu_ir.dialects.vpu import (
    BinaryOp,
    CastOp,
    ConcatOp,
    ExpandOp,
    GatherOp,
    LayerNormOp,
    QuantiseRowsOp,
    ReduceOp,
    ReshapeOp,
    ScaledOp,
    SelectOp,
    SliceOp,
    SoftmaxOp,
    TableOp,
    TransposeOp,
    UnaryOp,
    array_attr,
)

IsRows: TypeAlias = Callable[[SSAValue], bool]
"""Whether a value is `[batch, seq, ...]`."""


@dataclass(frozen=True)
class RowRule:
    """How an op runs on packed rows `[rows, ...]` instead of `[batch, seq, ...]`."""

    rows: Sequence[SSAValue]
    """The operands that are taken row by row; the others stay as they are."""
    properties: Mapping[str, Attribute] = field(default_factory=dict[str, Attribute])
    """The properties that name axes, for packed rows."""


def row_rule(op: Operation, is_rows: IsRows) -> RowRule | None:
    """The rule of an op whose results are `[batch, seq, ...]`; None if it looks across rows."""
    if not isinstance(op, DestinationOp) or not all(is_rows(result) for result in op.results):
        return None
    if isinstance(op, UnaryOp | BinaryOp | SelectOp | CastOp | ExpandOp):
        rank = len(shape_of(op.init))
        return RowRule([value for value in op.inputs if follows_rows(value, rank)])
    if isinstance(op, MatmulOp):
        if not is_rows(op.x) or len(shape_of(op.x)) < 3:
            return None
        given = (op.x, op.row_scale, op.residual)
        return RowRule([value for value in given if value is not None])
    if isinstance(op, ScaledOp):
        return _scaled(op)
    for kind, rule in _RULES.items():
        if isinstance(op, kind):
            return rule(op, is_rows)
    return None


def follows_rows(value: SSAValue, rank: int) -> bool:
    """Whether an operand that broadcasts to a result of `rank` axes differs between its rows."""
    shape = shape_of(value)
    if len(shape) == rank:
        return shape[:2] != (1, 1)
    return len(shape) == rank - 1 and shape[0] != 1


def _scaled(op: ScaledOp) -> RowRule | None:
    """Quantise and dequantise, with scales for the tensor, an axis of a row, or each row."""
    axis, rank = op.axis.value.data, len(shape_of(op.x))
    if axis in (0, 1) or rank < 2:
        return None
    if axis > 1:
        return RowRule([op.x], {"axis": IntegerAttr(axis - 1, i64)})
    scales = [value for value in (op.scale, op.zero) if value is not None and shape_of(value)]
    if scales and rank < 3:
        return None
    return RowRule([op.x, *scales])


def _last_axis(op: DestinationOp, is_rows: IsRows) -> RowRule | None:
    x = op.inputs[0]
    return RowRule([x]) if len(shape_of(x)) >= 3 else None


def _table(op: DestinationOp, is_rows: IsRows) -> RowRule | None:
    return RowRule([op.inputs[0]])


def _reshape(op: DestinationOp, is_rows: IsRows) -> RowRule | None:
    return RowRule([op.inputs[0]]) if is_rows(op.inputs[0]) else None


def _transpose(op: DestinationOp, is_rows: IsRows) -> RowRule | None:
    assert isinstance(op, TransposeOp)
    perm = integers(op.perm)
    if perm[:2] != (0, 1):
        return None
    return RowRule([op.x], {"perm": array_attr([0, *(axis - 1 for axis in perm[2:])])})


def _slice(op: DestinationOp, is_rows: IsRows) -> RowRule | None:
    assert isinstance(op, SliceOp)
    starts, steps = integers(op.starts), integers(op.steps)
    if not is_rows(op.x) or starts[:2] != (0, 0) or steps[:2] != (1, 1):
        return None
    return RowRule([op.x], {"starts": array_attr(starts[1:]), "steps": array_attr(steps[1:])})


def _concat(op: DestinationOp, is_rows: IsRows) -> RowRule | None:
    assert isinstance(op, ConcatOp)
    axis = op.axis.value.data
    if axis < 2 or not all(is_rows(value) for value in op.xs):
        return None
    return RowRule(list(op.xs), {"axis": IntegerAttr(axis - 1, i64)})


def _reduce(op: DestinationOp, is_rows: IsRows) -> RowRule | None:
    assert isinstance(op, ReduceOp)
    axes = integers(op.axes)
    if not is_rows(op.x) or min(axes) < 2:
        return None
    return RowRule([op.x], {"axes": array_attr([axis - 1 for axis in axes])})


def _gather(op: DestinationOp, is_rows: IsRows) -> RowRule | None:
    """An embedding's table taken by the ids of rows, or the same elements taken of each row."""
    assert isinstance(op, GatherOp)
    axis = op.axis.value.data
    if axis == 0 and is_rows(op.indices):
        return RowRule([op.indices])
    if axis >= 2 and is_rows(op.x):
        return RowRule([op.x], {"axis": IntegerAttr(axis - 1, i64)})
    return None


def _batch_matmul(op: DestinationOp, is_rows: IsRows) -> RowRule | None:
    assert isinstance(op, BatchMatmulOp)
    if not is_rows(op.a) or (len(shape_of(op.a)), len(shape_of(op.b))) != (3, 2):
        return None
    return RowRule([op.a])


_RULES: dict[type[DestinationOp], Callable[[DestinationOp, IsRows], RowRule | None]] = {
    LayerNormOp: _last_axis,
    SoftmaxOp: _last_axis,
    QuantiseRowsOp: _last_axis,
    TableOp: _table,
    ReshapeOp: _reshape,
    TransposeOp: _transpose,
    SliceOp: _slice,
    ConcatOp: _concat,
    ReduceOp: _reduce,
    GatherOp: _gather,
    BatchMatmulOp: _batch_matmul,
}


def first_positions(op: Operation, is_rows: IsRows) -> bool:
    """Whether an op takes the first position of `[batch, seq, ...]`, and nothing else off it."""
    if not isinstance(op, SliceOp) or not is_rows(op.x):
        return False
    before, after = shape_of(op.x), shape_of(op.init)
    return (
        not any(integers(op.starts))
        and set(integers(op.steps)) == {1}
        and after[1] == 1
        and before[0] == after[0]
        and before[2:] == after[2:]
    )
