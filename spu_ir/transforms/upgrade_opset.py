"""Raise every op to the newest version of its operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar, cast

import numpy as np
from onnx import ModelProto, helper, version_converter
from onnx.defs import onnx_opset_version
from xdsl.context import Context
from xdsl.dialects.builtin import (
    IntegerAttr,
    ModuleOp,
    NoneType,
    TensorType,
    UnrankedTensorType,
    i64,
)
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from spu_ir.dialects.onnx import NODE_NAME, NoValue, OnnxOp, newest
from spu_ir.dialects.onnx_proto import ProtoWriter, opset_of, type_proto
from spu_ir.dialects.onnx_schema import type_string
from spu_ir.dialects.types import DYNAMIC, element_of, shape_of
from spu_ir.dialects.weights import constant_attr, constant_type, store_of
from spu_ir.errors import SpuError
from spu_ir.frontend import import_fragment

from .ranks import ranks

COERCED = frozenset({"Hardmax", "LogSoftmax", "Softmax"})
"""Operators that before opset 13 flattened their operand to two axes at `axis`."""

RESIZES = frozenset({"onnx.UpsampleV7", "onnx.UpsampleV9", "onnx.ResizeV10"})
"""Versions of resizing that the converter raises without their coordinate mode."""

SMALL = 1024
"""Constants of up to this many elements are shown to the converter, which may need them."""


@dataclass(frozen=True)
class UpgradeOpsetPass(ModulePass):
    """
    Replace every op by the newest version of its operator: `onnx.ReduceSumV11` -> `onnx.ReduceSum`.

    Each op goes through `onnx.version_converter` alone, so names and weights stay as they are.
    Softmax and its like and the first resizing operators, which the converter gets wrong, are
    rewritten here. Operators that opset 6 and earlier spelled differently may have no way up,
    which is an error.
    """

    name = "upgrade-opset"
    preserves: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        pending = [inner for inner in op.walk() if isinstance(inner, OnnxOp)]
        upgrader = _Upgrader(ctx, set(), ranks(pending))
        while pending:
            old = pending.pop()
            if not old.is_newest and old.schema_name != "Constant":
                # A converted op may itself have a newer version still.
                new = upgrader.upgrade(old)
                pending.extend(inner for inner in new if isinstance(inner, OnnxOp))
        op.attributes["onnx.opset"] = IntegerAttr(onnx_opset_version(), i64)


@dataclass(frozen=True)
class _Upgrader:
    ctx: Context
    compatible: set[object]
    """Ops that the converter left as they were; it takes milliseconds to say so again."""
    ranks: dict[SSAValue, int]
    """The number of axes of the values of the model as it was."""

    def upgrade(self, op: OnnxOp) -> list[Operation]:
        """Replace one op and return what stands in its place."""
        if op.regions:
            return [_upgrade_control_flow(op)]
        if op.schema_name in COERCED and op.since_version < 13:
            return _upgrade_softmax(op, self.ranks.get(op.operands[0]))
        if op.name in RESIZES:
            return _upgrade_resize(op, self.ctx)
        if _shape_of_op(op) in self.compatible:
            return [_rename(op)]
        return self.convert(op)

    def convert(self, op: OnnxOp) -> list[Operation]:
        """Replace an op by what ONNX's version converter makes of it."""
        target = newest(op.schema_name).since_version
        writer = ProtoWriter(store_of(self.ctx))
        opsets = [helper.make_opsetid("", opset_of([op], target))]
        model = ModelProto(ir_version=10, opset_import=opsets)
        graph = model.graph
        graph.name = "op"
        graph.node.append(writer.node(op))
        inputs: dict[str, SSAValue] = {}
        for value in dict.fromkeys(op.operands):
            if isinstance(value.type, NoneType):
                continue
            name = writer.name(value)
            inputs[name] = value
            if not _add_constant(value, name, writer, model):
                graph.input.add(name=name, type=type_proto(value.type))
        for result in op.results:
            if not isinstance(result.type, NoneType):
                graph.output.add(name=writer.name(result), type=type_proto(result.type))
        try:
            converted = version_converter.convert_version(model, target)
        except (RuntimeError, ValueError) as error:
            raise SpuError(
                f"cannot be raised from opset {op.since_version} to {target}, "
                f"ONNX says: {str(error).rpartition('failed: ')[2].strip()}",
                node=op.node_name,
                op=op.schema_name,
                remedy="export the model with a newer opset",
            ) from None
        nodes, before = converted.graph.node, graph.node[0]
        if (
            len(nodes) == 1
            and nodes[0].op_type == before.op_type
            and list(nodes[0].input) == list(before.input)
            and {a.name: a for a in nodes[0].attribute} == {a.name: a for a in before.attribute}
        ):
            self.compatible.add(_shape_of_op(op))
            return [_rename(op)]
        return _replace(op, converted, inputs, self.ctx)


def _shape_of_op(op: OnnxOp) -> object:
    """What the converter's decision can depend on: attributes, ranks and absent values."""
    attributes = frozenset(
        (name, attribute)
        for name, attribute in op.attributes.items()
        if name != NODE_NAME and "." not in name
    )
    ranks = tuple(
        len(shape_of(value)) if isinstance(value.type, TensorType) else str(value.type)
        for value in (*op.operands, *op.results)
    )
    return type(op), attributes, ranks


def _rename(op: OnnxOp) -> OnnxOp:
    """The newest version of an op whose operands and attributes mean there what they did."""
    new = newest(op.schema_name).create(
        operands=op.operands,
        result_types=op.result_types,
        attributes=op.attributes,
        regions=[op.detach_region(region) for region in op.regions],
    )
    Rewriter.replace_op(op, new)
    return new


def _upgrade_control_flow(op: OnnxOp) -> OnnxOp:
    """An op with subgraphs: only the types that it accepts have changed since opset 9."""
    if op.schema_name == "Scan" and op.since_version < 9:
        raise SpuError(
            "opset 8 scans a batch, which later ones do not",
            node=op.node_name,
            op=op.schema_name,
            remedy="export the model with opset 9 or later",
        )
    return _rename(op)


def _upgrade_softmax(op: OnnxOp, rank: int | None) -> list[Operation]:
    """`softmax(flatten(x, axis))` of old, over one axis where the others have size 1."""
    operand = op.operands[0]
    axis = op.int_value("axis")
    if rank is None:
        raise SpuError(
            f"an operand of unknown rank cannot be flattened at axis {axis}",
            node=op.node_name,
            op=op.schema_name,
            remedy="export the model with opset 13 or later",
        )
    kind = operand.type
    if isinstance(kind, UnrankedTensorType):
        element = cast("UnrankedTensorType[Attribute]", kind).element_type
        shape: Sequence[int] = [DYNAMIC] * rank
    else:
        element, shape = element_of(operand), shape_of(operand)
    axis += len(shape) if axis < 0 else 0
    wide = [index for index in range(axis, len(shape)) if shape[index] != 1]
    softmax = newest(op.schema_name)
    if len(wide) <= 1:
        attributes = {"axis": wide[0] if wide else axis}
        new = softmax.make([operand], op.result_types, attributes, node_name=op.node_name)
        Rewriter.replace_op(op, new)
        return [new]
    flat = TensorType(element, [_product(shape[:axis]), _product(shape[axis:])])
    dims = newest("Shape").make([operand], [TensorType(i64, [len(shape)])])
    flatten = newest("Flatten").make([operand], [flat], {"axis": axis})
    rows = softmax.make([flatten], [flat], {"axis": 1}, node_name=op.node_name)
    reshape = newest("Reshape").make([rows, dims], op.result_types)
    ops: list[Operation] = [dims, flatten, rows, reshape]
    Rewriter.replace_op(op, ops)
    return ops


def _product(dims: Sequence[int]) -> int:
    return DYNAMIC if DYNAMIC in dims else prod(dims)


def _upgrade_resize(op: OnnxOp, ctx: Context) -> list[Operation]:
    """`Upsample` and the first `Resize`: coordinates `x * scale`, rounded down for `nearest`."""
    ops: list[Operation] = []
    if len(op.operands) == 1:
        scales = np.array(op.value("scales"), np.float32)
        attribute = constant_attr(store_of(ctx), scales)
        ops.append(newest("Constant").make([], [constant_type(attribute)], {"value": attribute}))
    absent = NoValue()
    new = newest("Resize").make(
        [op.operands[0], absent, ops[0] if ops else op.operands[1]],
        op.result_types,
        {
            "mode": op.str_value("mode"),
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        },
        node_name=op.node_name,
    )
    ops += [absent, new]
    Rewriter.replace_op(op, ops)
    return ops


def _add_constant(value: SSAValue, name: str, writer: ProtoWriter, model: ModelProto) -> bool:
    """Give a small constant operand to the converter as an initializer."""
    owner = value.owner
    if not isinstance(owner, OnnxOp) or owner.schema_name != "Constant":
        return False
    attribute = owner.attributes["value"]
    if prod(constant_type(attribute).get_shape()) > SMALL:
        return False
    model.graph.initializer.append(writer.tensor(attribute, name))
    return True


def _replace(
    op: OnnxOp, converted: ModelProto, inputs: dict[str, SSAValue], ctx: Context
) -> list[Operation]:
    """Put the nodes of a converted model in the place of `op`."""
    ops, values = import_fragment(converted, inputs, ctx)
    present = iter(values)
    results = [
        None if isinstance(result.type, NoneType) else next(present) for result in op.results
    ]
    main = next(
        (new for new in ops if isinstance(new, OnnxOp) and new.schema_name == op.schema_name),
        ops[-1],
    )
    for name, attribute in op.attributes.items():
        if name == NODE_NAME or "." in name:
            main.attributes[name] = attribute
    block = op.parent_block()
    assert block is not None
    block.insert_ops_before(ops, op)
    for old, new in zip(op.results, results, strict=True):
        if new is not None:
            known = old.type
            if type_string(known) == type_string(new.type):
                # The importer inferred the type from this node alone and may know less.
                new = Rewriter.replace_value_with_new_type(new, known)
            old.replace_all_uses_with(new)
    Rewriter.erase_op(op)
    return ops
