"""What the tensor-level passes share: constants, run-time extents, and products with changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xdsl.dialects import arith, func, tensor
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    IndexType,
    IntegerAttr,
    StringAttr,
    TensorType,
)
from xdsl.ir import Attribute, Block, BlockArgument, Operation, OpResult, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from spu_ir.dialects.antoum import ConstantOp
from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.functions import argument_attributes, dim_params
from spu_ir.dialects.spu import EpilogueOp
from spu_ir.dialects.types import DYNAMIC, Array, shape_of
from spu_ir.dialects.weights import WeightStore, constant_array, constant_attr

EPILOGUE_OPERANDS = ("x", "weight", "scale", "row_scale", "bias", "residual", "init")

PRECISION = "precision"
"""The attribute of a product that is not quantised with the others: `precision = "bf16"`."""

PRECISION_REASON = "precision_reason"
"""Why it is not, for the report."""


def constant_of(value: SSAValue | None, store: WeightStore) -> Array | None:
    """The array of an `antoum.constant`, or None for any other value."""
    if value is None or not isinstance(value.owner, ConstantOp):
        return None
    return constant_array(store, value.owner.value)


def array_of(value: SSAValue, store: WeightStore) -> Array:
    """The array of a value that is known to be an `antoum.constant`."""
    array = constant_of(value, store)
    assert array is not None
    return array


def is_constant(value: SSAValue | None) -> bool:
    """Whether `value` is an `antoum.constant`; unlike `constant_of` it reads no bytes."""
    return value is not None and isinstance(value.owner, ConstantOp)


def constant_op(store: WeightStore, array: Array) -> ConstantOp:
    """A new constant of `array`, its bytes in `store` unless they are few."""
    return ConstantOp(constant_attr(store, array))


def layer_of(op: Operation) -> str | None:
    """The name of the ONNX node that `op` comes from, for reports and errors."""
    layer = op.attributes.get("layer")
    return layer.data if isinstance(layer, StringAttr) else None


def is_kept_bf16(op: Operation) -> bool:
    """Whether `choose-precision` decided that the product `op` computes in bf16."""
    return op.attributes.get(PRECISION) == StringAttr("bf16")


def user_of(value: SSAValue) -> Operation | None:
    """The one op that uses `value`, and uses it once; None when there is not exactly one use."""
    return value.get_user_of_unique_use()


def users_of(value: SSAValue) -> list[Operation]:
    """The ops that use `value`, one entry a use."""
    return [use.operation for use in value.uses]


def readers_of(value: SSAValue) -> list[Operation]:
    """The users of `value` that read its elements, not only its extents."""
    return [user for user in users_of(value) if not isinstance(user, tensor.DimOp)]


def erase_for(op: Operation, source: SSAValue) -> None:
    """Erase an op that nothing reads; who needs the extents of its result asks `source` instead."""
    for use in list(op.results[0].uses):
        use.operation.operands[use.index] = source
    Rewriter.erase_op(op)


def rebuilt(
    op: EpilogueOp,
    properties: Mapping[str, Attribute] | None = None,
    **operands: SSAValue | None,
) -> EpilogueOp:
    """
    A product like `op`, not inserted yet, with some `operands` and `properties` exchanged.

    The names are those of the operands of `EpilogueOp`; discardable attributes are kept.
    """
    chosen: dict[str, Any] = {name: getattr(op, name) for name in EPILOGUE_OPERANDS}
    chosen.update(operands)
    kept = {name: attr for name, attr in op.properties.items() if name != "operandSegmentSizes"}
    return type(op)(
        **chosen, properties=kept | dict(properties or {}), attributes=dict(op.attributes)
    )


def empty_of(value: SSAValue, element: Attribute, dims: Sequence[SSAValue]) -> tensor.EmptyOp:
    """A new tensor of `value`'s shape, whose run-time extents are `dims`, and of `element`."""
    return tensor.EmptyOp(dims, TensorType(element, shape_of(value)))


def dims_of(value: SSAValue) -> list[SSAValue]:
    """
    The run-time extents of a tensor, one index value for each `?` of its type, in order.

    They are those of the op's init, which exist before the op. For a function's argument they are
    the `tensor.dim`s that the function has; a missing one is added at its top.
    """
    if DYNAMIC not in shape_of(value):
        return []
    owner = value.owner
    if isinstance(owner, tensor.EmptyOp):
        return list(owner.dynamic_sizes)
    if isinstance(owner, DestinationOp) and isinstance(value, OpResult):
        return dims_of(owner.inits[value.index])
    axes = [axis for axis, extent in enumerate(shape_of(value)) if extent == DYNAMIC]
    return [_dim(*_namesake(value, axis)) for axis in axes]


def _namesake(value: SSAValue, axis: int) -> tuple[SSAValue, int]:
    """The first argument and axis with the extent's name, so that one name is one value."""
    if not isinstance(value, BlockArgument):
        return value, axis
    name = _dim_params(value).get(axis)
    for argument in value.block.args if name is not None else ():
        for other, its_name in _dim_params(argument).items():
            if its_name == name:
                return argument, other
    return value, axis


def _dim_params(argument: BlockArgument) -> dict[int, str]:
    """Axis -> extent name of a function's argument."""
    function = argument.block.parent_op()
    if not isinstance(function, func.FuncOp):
        return {}
    return dim_params(argument_attributes(function)[argument.index])


def _dim(value: SSAValue, axis: int) -> SSAValue:
    """The `tensor.dim` of `value` along `axis`: the one in its block, or a new one."""
    block = value.owner if isinstance(value.owner, Block) else value.owner.parent
    assert block is not None
    for use in value.uses:
        op = use.operation
        if isinstance(op, tensor.DimOp) and op.parent is block and _index_of(op.index) == axis:
            return op.result
    index = arith.ConstantOp(IntegerAttr(axis, IndexType()))
    dim = tensor.DimOp(value, index)
    first = block.first_op
    if isinstance(value.owner, Block) and first is not None:
        block.insert_ops_before([index, dim], first)
    elif isinstance(value.owner, Operation):
        block.insert_ops_after([index, dim], value.owner)
    return dim.result


def _index_of(value: SSAValue) -> int | None:
    if not isinstance(value.owner, arith.ConstantOp):
        return None
    attr = value.owner.value
    return attr.value.data if isinstance(attr, IntegerAttr) else None


def after(values: Sequence[SSAValue]) -> InsertPoint:
    """The first point where all of `values`, of one block, are defined."""
    owners = [value.owner for value in values]
    ops = [owner for owner in owners if isinstance(owner, Operation)]
    if not ops:
        assert isinstance(owners[0], Block)
        return InsertPoint.at_start(owners[0])
    latest = ops[0]
    for op in ops[1:]:
        if latest.is_before_in_block(op):
            latest = op
    return InsertPoint.after(latest)


def argument_attr(argument: BlockArgument, name: str) -> Attribute | None:
    """The attribute `name` of a function's argument."""
    function = argument.block.parent_op()
    if not isinstance(function, func.FuncOp) or function.arg_attrs is None:
        return None
    return function.arg_attrs.data[argument.index].data.get(name)


def set_argument_attr(argument: BlockArgument, name: str, attr: Attribute) -> None:
    """Give a function's argument the attribute `name`."""
    function = argument.block.parent_op()
    assert isinstance(function, func.FuncOp)
    if function.arg_attrs is None:
        known: list[DictionaryAttr] = [DictionaryAttr({}) for _ in argument.block.args]
    else:
        known = list(function.arg_attrs)
    known[argument.index] = DictionaryAttr(dict(known[argument.index].data) | {name: attr})
    function.properties["arg_attrs"] = ArrayAttr(known)
