"""What a function's attributes say of its arguments: names, extents and their bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from xdsl.dialects import func
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, IntegerAttr, StringAttr, i64
from xdsl.ir import Attribute, BlockArgument, SSAValue

EXTENTS = "spu.extents"
"""The function attribute that bounds each named extent: `{batch = [1, 64]}`."""

OUTPUT = "spu.output"
"""Marks the arguments of a bufferised function that are its outputs."""


SAMPLES = "spu.samples"
"""
The function attribute of what `run-samples-apart` found, as in `{batch = 64}`.

The named extent counts samples: each is a slice along axis 0 of every input and output, and needs
nothing of the others. They run one by one where the product of the other extents has that value.
"""


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


def set_bounds(function: func.FuncOp, limits: Mapping[str, tuple[int, int]]) -> None:
    """Make `limits` what `bounds` says."""
    function.attributes[EXTENTS] = DictionaryAttr(
        {
            name: ArrayAttr([IntegerAttr(low, i64), IntegerAttr(high, i64)])
            for name, (low, high) in limits.items()
        }
    )


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
