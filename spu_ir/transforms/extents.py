"""Run-time extents: their names, their bounds, and what index arithmetic makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from xdsl.dialects import arith, func, memref, tensor
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, IntegerAttr, StringAttr
from xdsl.ir import Attribute, BlockArgument, Operation, SSAValue

EXTENTS = "spu.extents"
"""The function attribute that bounds each named extent: `{batch = [1, 64]}`."""

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


def bounds(function: func.FuncOp) -> dict[str, tuple[int, int]]:
    """The least and the greatest value of every named extent, in order."""
    found = function.attributes.get(EXTENTS)
    if not isinstance(found, DictionaryAttr):
        return {}
    result: dict[str, tuple[int, int]] = {}
    for name, pair in found.data.items():
        low, high = cast("ArrayAttr[IntegerAttr]", pair).data
        result[name] = (low.value.data, high.value.data)
    return result


def dim_params(attributes: Mapping[str, Attribute]) -> dict[int, str]:
    """Axis -> extent name, from an argument's `onnx.dim_params = "0:batch,1:seq"`."""
    found = attributes.get("onnx.dim_params")
    if not isinstance(found, StringAttr) or not found.data:
        return {}
    pairs = (part.partition(":") for part in found.data.split(","))
    return {int(axis): name for axis, _, name in pairs}


def argument_attributes(function: func.FuncOp) -> Sequence[Mapping[str, Attribute]]:
    """The attribute dictionaries of a function's arguments, empty where it has none."""
    if function.arg_attrs is None:
        return [{} for _ in function.body.block.args]
    return [attributes.data for attributes in function.arg_attrs]


def extent_name(function: func.FuncOp, value: SSAValue, axis: int) -> str | None:
    """The name of a function argument's run-time extent."""
    if not isinstance(value, BlockArgument):
        return None
    return dim_params(argument_attributes(function)[value.index]).get(axis)


def constant_index(value: SSAValue) -> int | None:
    """The number that an index value is, where an `arith.constant` says it."""
    if isinstance(value.owner, arith.ConstantOp) and isinstance(value.owner.value, IntegerAttr):
        return value.owner.value.value.data
    return None


def evaluate(function: func.FuncOp, value: SSAValue | int, extents: Mapping[str, int]) -> int:
    """An index value, given every named extent. Raises ValueError for anything else."""
    if isinstance(value, int):
        return value
    owner = value.owner
    constant = constant_index(value)
    if constant is not None:
        return constant
    if isinstance(owner, memref.DimOp | tensor.DimOp):
        axis = constant_index(owner.index)
        name = None if axis is None else extent_name(function, owner.source, axis)
        if name is not None and name in extents:
            return extents[name]
    elif isinstance(owner, Operation) and type(owner) in _ARITHMETIC:
        a, b = (evaluate(function, operand, extents) for operand in owner.operands)
        return _ARITHMETIC[type(owner)](a, b)
    raise ValueError(f"not an expression in the extents: {value}")


