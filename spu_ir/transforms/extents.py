"""The value of index arithmetic, given the run-time extents."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from xdsl.dialects import arith, func, memref, tensor
from xdsl.dialects.builtin import IntegerAttr
from xdsl.ir import Operation, SSAValue

from spu_ir.dialects.functions import extent_name

_ARITHMETIC: dict[type[Operation], Callable[[int, int], int]] = {
    arith.AddiOp: lambda a, b: a + b,
    arith.SubiOp: lambda a, b: a - b,
    arith.MuliOp: lambda a, b: a * b,
    arith.DivUIOp: lambda a, b: a // b,
    arith.DivSIOp: lambda a, b: a // b,
    arith.FloorDivSIOp: lambda a, b: a // b,
    arith.RemUIOp: lambda a, b: a % b,
    arith.CeilDivUIOp: lambda a, b: -(-a // b),
    arith.CeilDivSIOp: lambda a, b: -(-a // b),
    arith.MinSIOp: min,
    arith.MaxSIOp: max,
    arith.MinUIOp: min,
    arith.MaxUIOp: max,
}

_EXPRESSIONS = (*_ARITHMETIC, arith.IndexCastOp)


def constant_index(value: SSAValue) -> int | None:
    """The number that an index value is, where an `arith.constant` says it."""
    if isinstance(value.owner, arith.ConstantOp) and isinstance(value.owner.value, IntegerAttr):
        return value.owner.value.value.data
    return None


def evaluate(function: func.FuncOp, value: SSAValue | int, extents: Mapping[str, int]) -> int:
    """An index value, given every named extent. Raises ValueError for anything else."""
    if isinstance(value, int):
        return value
    # Each value once, and not by recursion: a model may nest and share as many as it likes.
    found: dict[SSAValue, int] = {}
    waiting = [value]
    while waiting:
        owner = waiting[-1].owner
        made = isinstance(owner, Operation) and type(owner) in _ARITHMETIC
        operands = owner.operands if isinstance(owner, Operation) and made else ()
        missing = [operand for operand in operands if operand not in found]
        waiting += missing
        if missing:
            continue
        current = waiting.pop()
        if isinstance(owner, Operation) and made:
            found[current] = _ARITHMETIC[type(owner)](*(found[operand] for operand in operands))
        else:
            found[current] = _known(function, current, extents)
    return found[value]


def _known(function: func.FuncOp, value: SSAValue, extents: Mapping[str, int]) -> int:
    """A constant or a named extent. Raises ValueError for anything else."""
    constant = constant_index(value)
    if constant is not None:
        return constant
    owner = value.owner
    if isinstance(owner, memref.DimOp | tensor.DimOp):
        axis = constant_index(owner.index)
        name = None if axis is None else extent_name(function, owner.source, axis)
        if name is not None and name in extents:
            return extents[name]
    raise ValueError(f"not an expression in the extents: {value}")


def depends_on_data(value: SSAValue | int) -> bool:
    """Whether an index value is computed from the elements of a tensor or memref."""
    seen: set[SSAValue] = set()
    waiting = [] if isinstance(value, int) else [value]
    while waiting:
        current = waiting.pop()
        owner = current.owner
        if isinstance(owner, tensor.ExtractOp | memref.LoadOp):
            return True
        if current not in seen and isinstance(owner, Operation) and type(owner) in _EXPRESSIONS:
            waiting += owner.operands
        seen.add(current)
    return False


def bound_of(value: SSAValue | int) -> SSAValue | int:
    """
    An upper bound of an extent that does not depend on data; the extent itself where it does not.

    A run-time number of rows is bounded where it is made, as `arith.minsi %rows, %bound`. Raises
    ValueError for one that is not.
    """
    if not depends_on_data(value):
        return value
    assert isinstance(value, SSAValue)
    if isinstance(value.owner, arith.MinSIOp):
        for operand in value.owner.operands:
            if not depends_on_data(operand):
                return operand
    raise ValueError(f"an extent that depends on data has no bound: {value}")
