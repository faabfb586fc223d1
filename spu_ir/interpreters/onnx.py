"""
The `onnx` dialect executed by ONNX's own reference implementation, one op at a time.

Values are numpy arrays (bfloat16 as `ml_dtypes.bfloat16`), sequences are lists and an absent
input is None. Subgraphs run inside the reference evaluator, with the values that they use from
the graph around them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any, TypeAlias, cast

import numpy as np
from onnx import helper
from onnx.reference import ReferenceEvaluator
from xdsl.dialects.builtin import NoneType, TensorType, UnrankedTensorType
from xdsl.interpreter import (
    Interpreter,
    InterpreterFunctions,
    OpImpl,
    OpImplResult,
    PythonValues,
    impl,
    register_impls,
)
from xdsl.ir import Attribute, Operation, SSAValue

from spu_ir.dialects.onnx import NODE_NAME, OPS, NoValue, OnnxOp, newest
from spu_ir.dialects.onnx_proto import ProtoWriter, opset_of, type_proto
from spu_ir.dialects.onnx_schema import Kind, attribute_of
from spu_ir.dialects.types import Array, numpy_dtype
from spu_ir.dialects.weights import WeightStore, constant_array
from spu_ir.errors import SpuError

RuntimeValue: TypeAlias = "Array | list[Any] | None"

COERCED = frozenset({"Hardmax", "LogSoftmax", "Softmax"})
"""Operators that before opset 13 flattened their operand to two axes at `axis`."""


class OpEvaluator:
    """Runs single ops; the reference evaluators of equal ops are made once."""

    def __init__(self, store: WeightStore):
        self.store = store
        self._cache: dict[object, tuple[ReferenceEvaluator, tuple[int, ...]]] = {}

    def run(
        self,
        op: OnnxOp,
        operands: Sequence[RuntimeValue],
        captured: Mapping[SSAValue, RuntimeValue] | None = None,
    ) -> tuple[RuntimeValue, ...]:
        """
        The results of `op`; `captured` are the values that its subgraphs use from outside.

        Raises SpuError naming the node when the reference implementation fails.
        """
        if op.schema_name == "Constant":
            return (constant_array(self.store, op.attributes["value"]),)
        if op.schema_name in COERCED and op.since_version < 13:
            return (self._run_coerced(op, operands),)
        if op.schema_name == "GatherElements":
            return (_gather_elements(op, operands),)
        return self._run(op, operands, captured or {})

    def _run_coerced(self, op: OnnxOp, operands: Sequence[RuntimeValue]) -> RuntimeValue:
        """`f(flatten(x, axis))` of old, which the reference takes for `f` along one axis."""
        x = operands[0]
        assert isinstance(x, np.ndarray)
        axis = op.int_value("axis") % max(x.ndim, 1)
        flat = x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))
        rows = newest(op.schema_name).create(
            operands=op.operands,
            result_types=op.result_types,
            attributes={"axis": attribute_of(Kind.INT, 1)},
        )
        (result,) = self._run(rows, [flat], {})
        # The op is gone again, and with it its use of the operand.
        rows.drop_all_references()
        assert isinstance(result, np.ndarray)
        return result.reshape(x.shape)

    def _run(
        self,
        op: OnnxOp,
        operands: Sequence[RuntimeValue],
        captured: Mapping[SSAValue, RuntimeValue],
    ) -> tuple[RuntimeValue, ...]:
        key = None if op.regions else _key(op)
        found = self._cache.get(key) if key is not None else None
        if found is None:
            found = self._build(op, list(captured))
            if key is not None:
                self._cache[key] = found
        evaluator, indices = found
        values = [*operands, *captured.values()]
        names = cast("list[str]", evaluator.input_names)
        feeds = {name: values[index] for name, index in zip(names, indices, strict=True)}
        try:
            # Infinities and NaN are results like others, not warnings.
            with np.errstate(all="ignore"):
                outputs: list[Any] = cast("Any", evaluator).run(None, feeds)
        except Exception as error:
            raise SpuError(
                f"ONNX's reference implementation failed: {error}",
                node=op.node_name,
                op=op.schema_name,
            ) from error
        present = iter(outputs)
        return tuple(
            None if isinstance(result.type, NoneType) else _as(next(present), result.type)
            for result in op.results
        )

    def _build(
        self, op: OnnxOp, captured: Sequence[SSAValue]
    ) -> tuple[ReferenceEvaluator, tuple[int, ...]]:
        """An evaluator of the op, and which operand (then captured value) each input is."""
        writer = ProtoWriter(self.store)
        inputs: dict[str, tuple[int, Attribute]] = {}
        for index, value in enumerate([*op.operands, *captured]):
            if not isinstance(value.type, NoneType):
                inputs.setdefault(writer.name(value), (index, value.type))
        node = writer.node(op)
        ops = [inner for inner in op.walk() if isinstance(inner, OnnxOp)]
        graph = helper.make_graph(
            [node],
            "op",
            [
                helper.make_value_info(name, type_proto(_unranked(kind)))
                for name, (_, kind) in inputs.items()
            ],
            [
                helper.make_value_info(writer.name(result), type_proto(_unranked(result.type)))
                for result in op.results
                if not isinstance(result.type, NoneType)
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset_of(ops))])
        return ReferenceEvaluator(model), tuple(index for index, _ in inputs.values())


def _gather_elements(op: OnnxOp, operands: Sequence[RuntimeValue]) -> Array:
    """Which the reference gets wrong for more than 32 elements along the axis."""
    x, index = operands
    assert isinstance(x, np.ndarray)
    assert isinstance(index, np.ndarray)
    axis = op.int_value("axis") % x.ndim
    along = [slice(None) if k == axis else slice(size) for k, size in enumerate(index.shape)]
    try:
        return np.take_along_axis(x[tuple(along)], index, axis)
    except IndexError as error:
        raise SpuError(str(error), node=op.node_name, op=op.schema_name) from None


def _key(op: OnnxOp) -> object:
    """Equal for ops that one evaluator can run: class, attributes, and which operands are one."""
    first: dict[SSAValue, int] = {}
    operands = tuple(
        None if isinstance(value.type, NoneType) else first.setdefault(value, len(first))
        for value in op.operands
    )
    attributes = frozenset(
        (name, attribute)
        for name, attribute in op.attributes.items()
        if name != NODE_NAME and "." not in name
    )
    absent = tuple(isinstance(result.type, NoneType) for result in op.results)
    return type(op), operands, attributes, absent


def _unranked(kind: Attribute) -> Attribute:
    """A type for any shape: an evaluator is shared by ops of several shapes."""
    if isinstance(kind, TensorType):
        return UnrankedTensorType(cast("TensorType[Attribute]", kind).get_element_type())
    return kind


def _as(value: Any, kind: Attribute) -> RuntimeValue:
    """A result as an array of exactly its element type; sequences pass unchanged."""
    if not isinstance(kind, TensorType | UnrankedTensorType):
        return value
    element = cast("TensorType[Attribute]", kind).get_element_type()
    return np.asarray(value).astype(numpy_dtype(element), copy=False)


def captured_values(op: Operation) -> list[SSAValue]:
    """The values that an op's subgraphs use from the graph around them, without duplicates."""
    inside: set[SSAValue] = set()
    used: dict[SSAValue, None] = {}
    for region in op.regions:
        for inner in region.walk():
            used.update(dict.fromkeys(inner.operands))
            inside.update(inner.results)
            for inner_region in inner.regions:
                inside.update(inner_region.block.args)
        inside.update(region.block.args)
    return [value for value in used if value not in inside]


def _run(
    functions: InterpreterFunctions, interpreter: Interpreter, op: Operation, values: PythonValues
) -> OpImplResult:
    assert isinstance(functions, OnnxFunctions)
    assert isinstance(op, OnnxOp)
    outer = captured_values(op) if op.regions else []
    captured = dict(zip(outer, interpreter.get_values(outer), strict=True))
    return OpImplResult(functions.evaluator.run(op, values, captured), None)


@register_impls
class OnnxFunctions(InterpreterFunctions):
    """Implementations of every op of the `onnx` dialect."""

    def __init__(self, store: WeightStore):
        self.evaluator = OpEvaluator(store)

    @impl(NoValue)
    def run_no_value(
        self, interpreter: Interpreter, op: NoValue, args: PythonValues
    ) -> PythonValues:
        return (None,)

    @classmethod
    def _impls(
        cls,
    ) -> Iterable[tuple[type[Operation], OpImpl[InterpreterFunctions, Operation]]]:
        # One function runs every operator, so they are not written out as methods.
        return [*super()._impls(), *((op, _run) for op in OPS.values())]


def register_onnx(interpreter: Interpreter, store: WeightStore) -> None:
    """Give `interpreter` the `onnx` dialect, with constants from `store`."""
    interpreter.register_implementations(OnnxFunctions(store))
