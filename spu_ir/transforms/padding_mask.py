"""
Which input marks padding: proved from the structure of the mask that attention adds to its scores.

A value computed from one input `[batch, seq]` is a *column value* when its element depends on
nothing but the input's element of the same sample and position, found by following element-wise
ops, broadcasts, reshapes and transposes. What padding does to it is then known from running those
few ops on a batch that is all real and on one that is all padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import FunctionType, ModuleOp
from xdsl.ir import Block, BlockArgument, Operation, Region, SSAValue

from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.functions import argument_attributes, bounds, dim_params
from spu_ir.dialects.spu import AttentionOp, integers
from spu_ir.dialects.types import DYNAMIC, Array, element_of, numpy_dtype, shape_of
from spu_ir.dialects.vpu import (
    POINTWISE,
    ConcatOp,
    DequantiseOp,
    GatherOp,
    QuantiseOp,
    ReduceOp,
    ReshapeOp,
    SliceOp,
    TransposeOp,
)
from spu_ir.interpreters import interpret, signature_of
from spu_ir.transforms.emitter import Extent
from spu_ir.transforms.rewriting import dims_of

HIDDEN = 1e4
"""
A key whose score is lowered by at least this has a weight of exactly 0.

`exp` is 0 below -104, so this leaves scores that differ by 9,896 before the mask is added.
"""

SAMPLED_POSITIONS = 1024
"""Most positions on which a column value is evaluated, if the sequence's extent is not fixed."""


class Unproven(Exception):
    """Why a value is no column value, or does not hide padding."""


def extents_of(value: SSAValue) -> list[Extent]:
    """The shape of a tensor: numbers, and index values for its run-time extents."""
    dims = iter(dims_of(value))
    return [next(dims) if d == DYNAMIC else d for d in shape_of(value)]


@dataclass(frozen=True)
class Columns:
    """Where a column value's axes of samples and positions are; a batch of 1 needs none."""

    batch: int | None
    position: int

    def moved(self, to: dict[int, int]) -> Columns:
        """With axes as `to` maps them. Raises Unproven when one is lost."""
        wanted = [axis for axis in (self.batch, self.position) if axis is not None]
        if not all(axis in to for axis in wanted):
            raise Unproven("an op mixes positions or samples")
        return Columns(None if self.batch is None else to[self.batch], to[self.position])


@dataclass(frozen=True)
class Polarity:
    """What an input's elements are where a position is real, and where it is padding."""

    real: float
    padding: tuple[float, ...]
    """One number; or several that stand for all numbers up to the largest of them."""

    @property
    def below(self) -> bool:
        """Whether padding is every number up to the largest of `padding`."""
        return len(self.padding) > 1


def polarities(dtype: np.dtype[Any]) -> tuple[Polarity, ...]:
    """The candidates for a mask of a dtype: 1 and 0, 0 and 1, and, in float, 0 and -10000."""
    plain = (Polarity(1, (0,)), Polarity(0, (1,)))
    if dtype.kind != "f":
        return plain
    lowest = float(np.finfo(dtype).min)
    return (*plain, Polarity(0, (-HIDDEN, lowest, -np.inf)))


def inputs_of(value: SSAValue) -> set[BlockArgument]:
    """The arguments whose elements `value` depends on; their shapes alone do not count."""
    found: set[BlockArgument] = set()
    seen: set[SSAValue] = {value}
    waiting = [value]
    while waiting:
        current = waiting.pop()
        owner = current.owner
        if isinstance(current, BlockArgument):
            found.add(current)
        elif isinstance(owner, DestinationOp):
            fresh = [operand for operand in owner.inputs if operand not in seen]
            seen.update(fresh)
            waiting += fresh
    return found


def name_of(argument: BlockArgument) -> str:
    """The name of a model's input."""
    function = argument.block.parent_op()
    assert isinstance(function, func.FuncOp)
    return repr(signature_of(function).inputs[argument.index].name)


@dataclass
class MaskInput:
    """An input `[batch, seq]`, and what is known of the values that are computed from it."""

    argument: BlockArgument
    ctx: Context
    columns: dict[SSAValue, Columns | Unproven | None] = field(
        default_factory=dict[SSAValue, "Columns | Unproven | None"]
    )
    """What `columns_of` gives or raises."""
    evaluated: dict[tuple[SSAValue, float], Array] = field(
        default_factory=dict[tuple[SSAValue, float], Array]
    )

    def __post_init__(self) -> None:
        self.own = Columns(None if shape_of(self.argument)[0] == 1 else 0, 1)
        self.columns[self.argument] = self.own

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the input."""
        return numpy_dtype(element_of(self.argument))

    def columns_of(self, value: SSAValue) -> Columns | None:
        """
        The axes of a column value, or None for a value that depends on no input.

        Raises Unproven for any other value.
        """
        # Not by recursion, which would overflow in deep models.
        waiting = [value]
        while waiting:
            owner = waiting[-1].owner
            inputs = owner.inputs if isinstance(owner, DestinationOp) else ()
            missing = [operand for operand in inputs if operand not in self.columns]
            waiting += missing
            if not missing:
                current = waiting.pop()
                if current not in self.columns:
                    try:
                        self.columns[current] = self._columns_of(current)
                    except Unproven as reason:
                        self.columns[current] = reason
        found = self.columns[value]
        if isinstance(found, Unproven):
            raise Unproven(str(found))
        return found

    def _columns_of(self, value: SSAValue) -> Columns | None:
        """As `columns_of`, which has seen the operands of the op that makes `value`."""
        op = value.owner
        if isinstance(op, Block):
            assert isinstance(value, BlockArgument)
            raise Unproven(f"it also depends on the input {name_of(value)}")
        if not isinstance(op, DestinationOp):
            return None
        moved: set[Columns] = set()
        for operand in op.inputs:
            columns = self.columns[operand]
            if isinstance(columns, Unproven):
                raise columns
            if columns is not None:
                moved.add(columns.moved(axes_through(op, operand)))
        if len(moved) > 1:
            raise Unproven("an op mixes positions or samples")
        return moved.pop() if moved else None

    def values(self, value: SSAValue, element: float) -> Array:
        """A column value's elements for a small batch of which every element is `element`."""
        key = (value, element)
        if key not in self.evaluated:
            self.evaluated[key] = evaluate_slice(self.argument, value, element, self.ctx)
        return self.evaluated[key]

    def hides(self, mask: SSAValue, polarity: Polarity) -> bool:
        """Whether attention's `mask [.., .., .., keys]` takes every padded key away."""
        real = self.values(mask, polarity.real)
        finite = np.where(np.isfinite(real), real, np.inf).min(axis=-1, keepdims=True)
        if not (finite < np.inf).all():
            return False
        return all(
            (self.values(mask, element) <= finite - HIDDEN).all() for element in polarity.padding
        )

    def is_at_padding(self, value: SSAValue, number: float, polarity: Polarity) -> bool:
        """Whether a column value is `number` wherever there is padding."""
        try:
            columns = self.columns_of(value)
        except Unproven:
            return False
        if columns is None:
            return False
        return all((self.values(value, element) == number).all() for element in polarity.padding)


def axes_through(op: DestinationOp, operand: SSAValue) -> dict[int, int]:
    """For each axis of an operand that the op's result has too, which one it is there."""
    rank, out = len(shape_of(operand)), len(shape_of(op.inits[0]))
    before, after = extents_of(operand), extents_of(op.inits[0])
    if isinstance(op, POINTWISE):
        if isinstance(op, QuantiseOp | DequantiseOp) and operand is not op.x:
            raise Unproven("a scale depends on it")
        first = out - rank
        return {axis: first + axis for axis in range(rank) if before[axis] == after[first + axis]}
    if isinstance(op, TransposeOp):
        return {axis: place for place, axis in enumerate(integers(op.perm))}
    if isinstance(op, ReshapeOp):
        kept, place = ([a for a, e in enumerate(side) if e != 1] for side in (before, after))
        if [before[axis] for axis in kept] == [after[axis] for axis in place]:
            return dict(zip(kept, place, strict=True))
    if isinstance(op, SliceOp):
        starts, steps = integers(op.starts), integers(op.steps)
        whole = [
            axis
            for axis in range(rank)
            if (starts[axis], steps[axis]) == (0, 1) and before[axis] == after[axis]
        ]
        return {axis: axis for axis in whole}
    if isinstance(op, ConcatOp):
        return {axis: axis for axis in range(rank) if axis != op.axis.value.data}
    if isinstance(op, ReduceOp):
        kept = [axis for axis in range(rank) if axis not in integers(op.axes)]
        return {axis: axis if out == rank else place for place, axis in enumerate(kept)}
    if isinstance(op, GatherOp) and operand is op.x and operand is not op.indices:
        axis, more = op.axis.value.data, len(shape_of(op.indices)) - 1
        return {a: a if a < axis else a + more for a in range(rank) if a != axis}
    raise Unproven(f"{op.name} is no element-wise op, broadcast or reshape")


def evaluate_slice(argument: BlockArgument, value: SSAValue, element: float, ctx: Context) -> Array:
    """`value` when all of `argument` is `element`, run by the interpreter on small extents."""
    function = argument.block.parent_op()
    assert isinstance(function, func.FuncOp)
    arguments = list(function.body.block.args)
    body = Block(arg_types=[each.type for each in arguments])
    cloned: dict[SSAValue, SSAValue] = dict(zip(arguments, body.args, strict=True))
    needed = _needed(value)
    for op in function.body.block.ops:
        if op in needed:
            body.add_op(op.clone(cloned))
    body.add_op(func.ReturnOp(cloned[value]))
    kind = FunctionType.from_lists([each.type for each in arguments], [value.type])
    main = func.FuncOp("main", kind, Region(body))
    main.arg_attrs = function.arg_attrs
    feeds = {
        port.name: np.zeros(shape, numpy_dtype(element_of(port.type)))
        for port, shape in zip(
            signature_of(function).inputs, _small_shapes(function, argument), strict=True
        )
    }
    name = signature_of(function).inputs[argument.index].name
    feeds[name] = np.full_like(feeds[name], element)
    with np.errstate(all="ignore"):
        return interpret(ModuleOp([main]), ctx, feeds)["result0"]


def _needed(value: SSAValue) -> set[Operation]:
    """The ops that compute `value`."""
    needed: set[Operation] = set()
    waiting = [value]
    while waiting:
        owner = waiting.pop().owner
        if isinstance(owner, Operation) and owner not in needed:
            needed.add(owner)
            waiting += owner.operands
    return needed


def _small_shapes(function: func.FuncOp, argument: BlockArgument) -> list[list[int]]:
    """Shapes for all arguments: the least batch, some positions; alike where names are."""
    limits = bounds(function)
    attributes = argument_attributes(function)
    position = dim_params(attributes[argument.index]).get(1)
    shapes: list[list[int]] = []
    for value, attrs in zip(function.body.block.args, attributes, strict=True):
        names = dim_params(attrs)
        shape = list(shape_of(value))
        for axis, size in enumerate(shape):
            if size == DYNAMIC:
                name = names.get(axis)
                low, high = limits.get(name or "", (1, SAMPLED_POSITIONS))
                most = max(low, min(high, SAMPLED_POSITIONS))
                shape[axis] = most if name == position else max(low, 1)
        shapes.append(shape)
    return shapes


@dataclass
class PaddingMask:
    """The input that marks padding, and the attention ops whose mask is proved to follow it."""

    source: MaskInput
    polarity: Polarity
    attentions: set[AttentionOp]

    @property
    def extents(self) -> list[Extent]:
        """Batch and sequence."""
        return extents_of(self.source.argument)


def find_padding_mask(
    attentions: Sequence[AttentionOp], ctx: Context
) -> tuple[PaddingMask | None, dict[AttentionOp, str]]:
    """
    The input that hides padding in most of `attentions`, and why it does not in the others.

    Attention within one sequence only: as many queries as keys, as many as the input has
    positions.
    """
    sources: dict[BlockArgument, MaskInput] = {}
    found: dict[tuple[BlockArgument, Polarity], set[AttentionOp]] = {}
    reasons: dict[AttentionOp, str] = {}
    for op in attentions:
        try:
            argument, polarity = _proved(op, sources, ctx)
        except Unproven as reason:
            reasons[op] = str(reason)
            continue
        found.setdefault((argument, polarity), set()).add(op)
    if not found:
        return None, reasons
    (argument, polarity), proved = max(found.items(), key=lambda item: len(item[1]))
    for op in attentions:
        if op not in proved:
            reasons.setdefault(op, f"its mask is not the input {name_of(argument)}")
    return PaddingMask(sources[argument], polarity, proved), reasons


def _proved(
    op: AttentionOp, sources: dict[BlockArgument, MaskInput], ctx: Context
) -> tuple[BlockArgument, Polarity]:
    """The input that hides padding in one attention, and how. Raises Unproven."""
    if op.mask is None:
        raise Unproven("it has no mask")
    arguments = inputs_of(op.mask)
    if len(arguments) != 1:
        names = " and ".join(sorted(map(name_of, arguments))) or "no input"
        raise Unproven(f"its mask depends on {names}, not on one input")
    argument = arguments.pop()
    queries, keys = extents_of(op.q)[:2], extents_of(op.k)[:2]
    if len(shape_of(argument)) != 2 or not queries == keys == extents_of(argument):
        raise Unproven(
            f"its mask comes from the input {name_of(argument)}, which is not [batch, seq] of "
            "its queries and keys"
        )
    source = sources.setdefault(argument, MaskInput(argument, ctx))
    try:
        columns = source.columns_of(op.mask)
    except Unproven as reason:
        raise Unproven(
            f"its mask is not known to depend on one position of {name_of(argument)}: {reason}"
        ) from reason
    if columns != Columns(source.own.batch, 3):
        raise Unproven(f"its mask does not give every key the value that {name_of(argument)} has")
    if numpy_dtype(element_of(argument)).kind not in "biuf":
        raise Unproven(f"the input {name_of(argument)} is {element_of(argument)}")
    for polarity in polarities(source.dtype):
        if source.hides(op.mask, polarity):
            return argument, polarity
    raise Unproven(f"no value of the input {name_of(argument)} hides a key")
