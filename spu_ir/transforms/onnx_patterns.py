"""What the onnx -> onnx passes share: looking at producers, users and constants."""

from __future__ import annotations

from math import prod

from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import Operation, SSAValue
from xdsl.rewriter import Rewriter

from spu_ir.dialects.onnx import Onnx, OnnxOp, newest
from spu_ir.dialects.types import Array, shape_of, static_size
from spu_ir.dialects.weights import WeightStore, constant_array, constant_attr, constant_type


def producer(value: SSAValue | None, *names: str) -> OnnxOp | None:
    """The op that makes `value` when it is the newest version of one of the operators `names`."""
    if value is None:
        return None
    op = value.owner
    if isinstance(op, OnnxOp) and op.is_newest and op.schema_name in names:
        return op
    return None


def only_use(value: SSAValue | None, *names: str) -> OnnxOp | None:
    """As `producer`, when nothing else uses `value`."""
    op = producer(value, *names)
    return op if op is not None and value is not None and value.has_one_use() else None


def is_constant(value: SSAValue | None) -> bool:
    """Whether `value` is an `onnx.Constant`; unlike `constant` it reads no bytes."""
    return producer(value, "Constant") is not None


def constant(value: SSAValue | None, store: WeightStore) -> Array | None:
    """The array of an `onnx.Constant`, or None for any other value."""
    op = producer(value, "Constant")
    return None if op is None else constant_array(store, op.attributes["value"])


def scalar(value: SSAValue | None, store: WeightStore) -> float | None:
    """The number of a constant with one element, or None for any other value."""
    op = producer(value, "Constant")
    if op is None or prod(constant_type(op.attributes["value"]).get_shape()) != 1:
        return None
    return float(constant_array(store, op.attributes["value"]).reshape(()))


def ints(value: SSAValue | None, store: WeightStore) -> tuple[int, ...] | None:
    """The integers of a small constant, flattened; None for any other value."""
    op = producer(value, "Constant")
    if op is None or prod(constant_type(op.attributes["value"]).get_shape()) > 64:
        return None
    array = constant_array(store, op.attributes["value"])
    return tuple(int(item) for item in array.reshape(-1)) if array.dtype.kind in "iu" else None


def with_scalar(op: OnnxOp, store: WeightStore) -> tuple[SSAValue, float] | None:
    """The other operand and the number of a commutative op with one scalar constant operand."""
    a, b = op.operands
    for value, number in ((a, scalar(b, store)), (b, scalar(a, store))):
        if number is not None:
            return value, number
    return None


def make_constant(store: WeightStore, array: Array, name: str | None = None) -> OnnxOp:
    """A new `onnx.Constant` of `array`, its bytes in `store` unless they are few."""
    attribute = constant_attr(store, array)
    return newest("Constant").make(
        [], [constant_type(attribute)], {"value": attribute}, node_name=name
    )


def rank_of(value: SSAValue) -> int | None:
    """The number of axes of a tensor, None where it is not known."""
    return len(shape_of(value)) if isinstance(value.type, TensorType) else None


def dims_of(value: SSAValue) -> tuple[int, ...] | None:
    """The dims of a tensor of known rank (`DYNAMIC` where an extent is not), else None."""
    return shape_of(value) if isinstance(value.type, TensorType) else None


def size_of(value: SSAValue) -> int | None:
    """The number of elements of a tensor, None where it is not known."""
    return static_size(shape_of(value)) if isinstance(value.type, TensorType) else None


def erase_dead(module: ModuleOp) -> None:
    """Erase ops of the onnx dialect whose results nothing uses, last ones first."""
    for op in list(module.walk(reverse=True, region_first=True)):
        if _in_dialect(op) and op.results and not any(result.uses for result in op.results):
            Rewriter.erase_op(op)


def _in_dialect(op: Operation) -> bool:
    return op.name.startswith(Onnx.name + ".")
