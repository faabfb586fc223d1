"""
`onnx` dialect -> ONNX model.

The opset is the module's `onnx.opset` where every op's version allows it, else the nearest one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import ModelProto, helper
from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, IntegerAttr, ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, BlockArgument, SSAValue

from spu_ir.dialects.onnx import NoValue, OnnxOp, Yield
from spu_ir.dialects.onnx_proto import MixedVersions, ProtoWriter, opset_of, type_proto
from spu_ir.dialects.weights import WeightStore, store_of
from spu_ir.errors import SpuError


@dataclass
class Exported:
    """A model and the names that it gives to the module's values."""

    model: ModelProto
    names: dict[SSAValue, str]


def main_function(module: ModuleOp) -> FuncOp:
    """The function `@main`. Raises SpuError when the module has none with a body."""
    for op in module.ops:
        if isinstance(op, FuncOp) and op.sym_name.data == "main" and not op.is_declaration:
            return op
    raise SpuError("the module has no function @main with a body")


def export_model(module: ModuleOp, ctx: Context) -> ModelProto:
    """
    The module's `@main` as an ONNX model, its constants as initializers.

    Raises SpuError when `@main` has ops of other dialects, or versions that no opset has.
    """
    return export_function(main_function(module), store_of(ctx), _opset(module)).model


def export_light(module: ModuleOp, ctx: Context) -> Exported:
    """As `export_model`, with large constants declared as inputs and without their values."""
    return export_function(main_function(module), store_of(ctx), _opset(module), light=True)


def _opset(module: ModuleOp) -> int:
    opset = module.attributes.get("onnx.opset")
    return opset.value.data if isinstance(opset, IntegerAttr) else 0


def export_function(
    function: FuncOp, store: WeightStore, opset: int, *, light: bool = False
) -> Exported:
    """One function as a model of an opset near `opset`. Raises SpuError as `export_model`."""
    ops: list[OnnxOp] = []
    return_op = function.get_return_op()
    for op in function.body.walk():
        if isinstance(op, OnnxOp):
            ops.append(op)
        elif op is not return_op and not isinstance(op, NoValue | Yield):
            raise SpuError(
                f"{op.name} is not of the onnx dialect",
                remedy="only a module that has not been lowered can be exported to ONNX",
            )
    try:
        opset = opset_of(ops, opset)
    except MixedVersions as error:
        raise SpuError(
            f"no opset has all operators: {error}", remedy="run upgrade-opset first"
        ) from None
    writer = ProtoWriter(store, light=light)
    opsets = [helper.make_opsetid("", opset)]
    model = ModelProto(ir_version=helper.find_min_ir_version_for(opsets), opset_import=opsets)
    model.producer_name = "spu-ir"
    model.graph.name = function.sym_name.data
    _write_graph(function, writer, model.graph)
    return Exported(model, writer.names)


def _write_graph(function: FuncOp, writer: ProtoWriter, graph: onnx.GraphProto) -> None:
    arguments = _ports(function.arg_attrs, len(function.args), "input")
    for argument, (name, params) in zip(function.args, arguments, strict=True):
        writer.assign(argument, name)
        graph.input.add(name=name, type=type_proto(argument.type, params))
    return_op = function.get_return_op()
    returned = return_op.operands if return_op else ()
    results = _ports(function.res_attrs, len(returned), "output")
    copies: list[tuple[SSAValue, str]] = []
    for value, (name, _) in zip(returned, results, strict=True):
        if value in writer.names or isinstance(value, BlockArgument):
            copies.append((value, name))
        else:
            writer.assign(value, name)
    writer.block(function.body.block, graph)
    for value, name in copies:
        graph.node.append(helper.make_node("Identity", [writer.name(value)], [name]))
    for value, (name, params) in zip(returned, results, strict=True):
        graph.output.add(name=name, type=type_proto(value.type, params))
    for value in writer.hoisted:
        graph.input.add(name=writer.name(value), type=type_proto(value.type))


def _ports(
    attributes: ArrayAttr[DictionaryAttr] | None, count: int, default: str
) -> list[tuple[str, str]]:
    """Names and named dims of a function's arguments or results."""
    none: Mapping[str, Attribute] = {}
    found = [entry.data for entry in attributes] if attributes else [none] * count
    ports: list[tuple[str, str]] = []
    for index, entry in enumerate(found):
        name, params = entry.get("onnx.name"), entry.get("onnx.dim_params")
        ports.append(
            (
                name.data if isinstance(name, StringAttr) else f"{default}_{index}",
                params.data if isinstance(params, StringAttr) else "",
            )
        )
    return ports
