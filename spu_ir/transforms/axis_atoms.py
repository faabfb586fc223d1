"""
Where the axes of a tensor come from, through reshapes and transposes.

Every axis of a source is an *atom*. A reshape cuts atoms and puts neighbours together, a transpose
moves them; so the axes of whatever is made from the source are lists of atoms. Extents of 1 have
no atom.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from xdsl.dialects.builtin import ArrayAttr, StringAttr, TensorType
from xdsl.ir import Operation, SSAValue

from spu_ir.dialects.onnx import OnnxOp, newest
from spu_ir.dialects.types import DYNAMIC, element_of, shape_of
from spu_ir.dialects.weights import WeightStore

from .onnx_patterns import make_constant, producer, rank_of
from .symbolic_shapes import Dim, symbolic_dims

MOVEMENT = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity")
"""Operators whose result has the elements of their first operand."""


@dataclass(eq=False)
class Atom:
    """A part of a source's axis; `size` is a number or the name of an extent."""

    size: int | str
    parts: tuple[Atom, ...] = field(default=())

    def leaves(self) -> Iterator[Atom]:
        """The atoms that this one has been cut into, itself if it is whole."""
        if not self.parts:
            yield self
        for part in self.parts:
            yield from part.leaves()


Axes = list[list[Atom]]
"""The atoms of every axis, the slowest first."""


@dataclass(frozen=True)
class Trace:
    """A value as a movement of `source`: the atoms of both, and the ops between, last first."""

    source: SSAValue
    source_axes: Axes
    axes: Axes
    ops: tuple[OnnxOp, ...]


def axes_of(dims: Sequence[Dim]) -> Axes | None:
    """New atoms for a source of these extents; None where one is unknown, or 0."""
    axes: Axes = []
    for dim in dims:
        # Nothing divides by 0, and a Reshape takes it for an axis that stays.
        if dim is None or dim == 0:
            return None
        axes.append([] if dim == 1 else [Atom(dim)])
    return axes


def whole(axes: Axes) -> Axes:
    """`axes` in terms of the atoms that are not cut any further."""
    return [[leaf for atom in axis for leaf in atom.leaves()] for axis in axes]


def size_of_axis(axis: Sequence[Atom]) -> Dim:
    """The extent of an axis; None where it is a product that has no name."""
    sizes = [atom.size for atom in axis]
    numbers = [size for size in sizes if isinstance(size, int)]
    if len(numbers) == len(sizes):
        return prod(numbers)
    return sizes[0] if len(sizes) == 1 else None


def trace(value: SSAValue) -> Trace | None:
    """Follow `value` back through movement as far as it goes; None where an extent is unknown."""
    ops: list[OnnxOp] = []
    while (op := producer(value, *MOVEMENT)) is not None:
        ops.append(op)
        value = op.operands[0]
    start = axes_of(symbolic_dims(value) or (None,))
    if start is None:
        return None
    axes: Axes | None = [list(axis) for axis in start]
    for op in reversed(ops):
        axes = _moved(axes, op)
        if axes is None:
            return None
    return Trace(value, whole(start), whole(axes), tuple(ops))


def followed_dims(value: SSAValue) -> tuple[Dim, ...] | None:
    """
    The dims of a value that is moved from one with known extents, also past products by a matrix.

    So the extents that a flattening for `Gemm` hides have names again after it.
    """
    ops: list[OnnxOp] = []
    axes: Axes | None = None
    while axes is None:
        op = producer(value, *MOVEMENT, "Gemm", "MatMul", "Add")
        rows = None if op is None else _rows(op)
        if op is None or rows is None:
            return None
        ops.append(op)
        value = rows
        axes = axes_of(symbolic_dims(value) or (None,))
    for op in reversed(ops):
        if op.schema_name in MOVEMENT:
            axes = None if axes is None else _moved(axes, op)
        elif op.schema_name != "Add" and axes is not None:
            outputs = shape_of(op.results[0])[-1]
            last = axes_of((outputs if outputs != DYNAMIC else None,))
            axes = None if last is None else [*axes[:-1], *last]
    return None if axes is None else tuple(size_of_axis(axis) for axis in whole(axes))


def _rows(op: OnnxOp) -> SSAValue | None:
    """The operand whose leading axes the result has."""
    match op.schema_name:
        case "Gemm":
            return None if op.int_value("transA") else op.operands[0]
        case "MatMul":
            return op.operands[0] if rank_of(op.operands[1]) == 2 else None
        case "Add":
            a, b = op.operands
            return a if rank_of(b) == 1 else b if rank_of(a) == 1 else None
        case _:
            return op.operands[0]


def _moved(axes: Axes, op: OnnxOp) -> Axes | None:
    """The axes after one op."""
    if op.schema_name == "Transpose":
        perm = op.ints_value("perm") or tuple(reversed(range(len(axes))))
        return [axes[axis] for axis in perm]
    dims = symbolic_dims(op.results[0])
    return None if dims is None else reshaped_axes(axes, dims)


def reshaped_axes(axes: Axes, dims: Sequence[Dim]) -> Axes | None:
    """The atoms dealt out to `dims`, of which one may be unknown; cuts atoms where it must."""
    atoms = [atom for axis in whole(axes) for atom in axis]
    if sum(dim is None for dim in dims) > 1:
        return None
    middle = dims.index(None) if None in dims else len(dims)
    left: Axes = []
    for dim in dims[:middle]:
        assert dim is not None
        taken = _take(atoms, dim, 0)
        if taken is None:
            return None
        left.append(taken)
    right: Axes = []
    for dim in reversed(dims[middle + 1 :]):
        assert dim is not None
        taken = _take(atoms, dim, -1)
        if taken is None:
            return None
        right.append(taken[::-1])
    if middle == len(dims):
        return None if atoms else left
    return [*left, atoms, *reversed(right)]


def _take(atoms: list[Atom], dim: int | str, end: int) -> list[Atom] | None:
    """Take atoms of `dim` elements from an end (0 or -1) of the list, cutting the last one."""
    taken: list[Atom] = []
    while dim != 1:
        if not atoms:
            return None
        atom = atoms.pop(end)
        if atom.size == dim:
            return [*taken, atom]
        if not isinstance(atom.size, int) or not isinstance(dim, int) or dim == 0:
            return None
        if dim % atom.size == 0:
            taken.append(atom)
            dim //= atom.size
        elif atom.size % dim == 0:
            first, rest = Atom(dim), Atom(atom.size // dim)
            atom.parts = (first, rest) if end == 0 else (rest, first)
            atoms.insert(0 if end == 0 else len(atoms), rest)
            return [*taken, first]
        else:
            return None
    return taken


@dataclass(frozen=True)
class Movement:
    """A reshape to `cut`, unless it is the shape already, and a transpose, unless it is none."""

    cut: tuple[Dim, ...]
    told: tuple[int, ...] | None
    """What the Reshape is given: zeros for axes that stay, one -1, numbers."""
    perm: tuple[int, ...] | None

    @property
    def count(self) -> int:
        """How many ops there are, besides constants."""
        return (self.told is not None) + (self.perm is not None)

    def ops(self, source: SSAValue, like: OnnxOp, store: WeightStore) -> list[Operation]:
        """The ops on `source`, named as `like`; the last one makes the value."""
        made: list[Operation] = []
        value = source
        if self.told is not None:
            constant = make_constant(store, np.array(self.told, np.int64))
            made += [constant, _make("Reshape", [value, constant], value, self.cut, {}, like)]
            value = made[-1].results[0]
        if self.perm is not None:
            dims = [self.cut[axis] for axis in self.perm]
            made.append(_make("Transpose", [value], value, dims, {"perm": self.perm}, like))
        return made


def movement(dims: Sequence[Dim], before: Axes, after: Axes) -> Movement | None:
    """
    From a value of extents `dims` and axes `before` to the axes `after`.

    Every axis of `after` is one atom or an extent of 1. None where the atoms differ, or where the
    shape needs more than zeros, one -1 and numbers.
    """
    if before == after:
        return Movement(tuple(dims), None, None)
    flat = [atom for axis in before for atom in axis]
    wanted = [atom for axis in after for atom in axis]
    if any(len(axis) > 1 for axis in after) or sorted(map(id, flat)) != sorted(map(id, wanted)):
        return None
    # Extents of 1 come first in the cut shape, for the transpose to put them where they belong.
    units = sum(not axis for axis in after)
    cut: tuple[Dim, ...] = (*[1] * units, *(atom.size for atom in flat))
    seat = iter(range(units))
    perm = tuple(units + flat.index(axis[0]) if axis else next(seat) for axis in after)
    told = None
    if cut != tuple(dims):
        told = _shape_operand(before, cut, units)
        if told is None:
            return None
    return Movement(cut, told, None if list(perm) == sorted(perm) else perm)


def _shape_operand(before: Axes, cut: Sequence[Dim], units: int) -> tuple[int, ...] | None:
    """The numbers that a Reshape to `cut` is told: 0 for an axis that stays, one -1."""
    told: list[int] = []
    for index, dim in enumerate(cut):
        if isinstance(dim, int):
            told.append(dim)
        elif units == 0 and all(len(axis) == 1 for axis in before[: index + 1]):
            told.append(0)
        else:
            told.append(-1)
    return tuple(told) if told.count(-1) <= 1 else None


def _make(
    name: str,
    operands: Sequence[SSAValue | Operation],
    source: SSAValue,
    dims: Sequence[Dim],
    attributes: dict[str, tuple[int, ...]],
    like: OnnxOp,
) -> OnnxOp:
    """An op of movement, with the type and the named extents of its result."""
    shape = [dim if isinstance(dim, int) else DYNAMIC for dim in dims]
    kind = TensorType(element_of(source), shape)
    op = newest(name).make(operands, [kind], attributes, node_name=like.node_name)
    set_dims(op, dims)
    return op


def set_dims(op: OnnxOp, dims: Sequence[Dim]) -> None:
    """Record the names of the extents of an op's only result."""
    assert len(shape_of(op.results[0])) == len(dims)
    names = [f"{axis}:{dim}" for axis, dim in enumerate(dims) if isinstance(dim, str)]
    if names:
        op.attributes["onnx.dim_params"] = ArrayAttr([StringAttr(",".join(names))])
