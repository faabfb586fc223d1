"""The numbers of axes that ONNX's shape inference leaves open: what `Expand` makes, and on."""

from __future__ import annotations

from collections.abc import Iterable

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Operation, SSAValue

from spu_ir.dialects.onnx import OnnxOp
from spu_ir.dialects.types import DYNAMIC, shape_of

BROADCAST = frozenset({
    "Add", "And", "Div", "Equal", "Expand", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
    "MatMul", "Max", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
})  # fmt: skip
"""Operators whose result has as many axes as the operand with the most."""

SAME = frozenset({
    "Abs", "BatchNormalization", "Cast", "Clip", "Concat", "Dropout", "Elu", "Erf", "Exp", "Gelu",
    "Hardmax", "Identity", "IsNaN", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "Neg",
    "Not", "Reciprocal", "Relu", "Sigmoid", "Slice", "Softmax", "Softplus", "Split", "Sqrt",
    "Tanh", "Transpose",
})  # fmt: skip
"""Operators whose results have as many axes as their first operand."""


def ranks(ops: Iterable[Operation]) -> dict[SSAValue, int]:
    """The number of axes of every operand and result where it follows; `ops` in their order."""
    found: dict[SSAValue, int] = {}
    for op in ops:
        for value in (*op.operands, *op.results):
            if isinstance(value.type, TensorType):
                found[value] = len(shape_of(value))
        if isinstance(op, OnnxOp) and op.results and op.results[0] not in found:
            rank = _rank(op, found)
            if rank is not None:
                found.update(dict.fromkeys(op.results, rank))
    return found


def _rank(op: OnnxOp, found: dict[SSAValue, int]) -> int | None:
    """The number of axes of an op's results."""
    if op.schema_name == "Reshape":
        return _length(op.operands[1]) if len(op.operands) == 2 else None
    if op.schema_name in SAME:
        return found.get(op.operands[0])
    if op.schema_name not in BROADCAST:
        return None
    operands = [found.get(value) for value in op.operands]
    if op.schema_name == "Expand":
        operands[1] = _length(op.operands[1])
    known = [rank for rank in operands if rank is not None]
    return max(known) if len(known) == len(operands) else None


def _length(value: SSAValue) -> int | None:
    """The number of elements of a vector where its type says it."""
    if not isinstance(value.type, TensorType) or len(shape_of(value)) != 1:
        return None
    (length,) = shape_of(value)
    return None if length == DYNAMIC else length
