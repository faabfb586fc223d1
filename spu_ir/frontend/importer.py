"""
ONNX file -> `onnx` dialect.

The module has one function, `@main`. Its arguments and results carry `onnx.name`, and
`onnx.dim_params` ("0:batch,1:seq") where dims are run-time extents; the function's `spu.extents`
gives every extent its bound: `{batch = [1, 64]}`. The module's `onnx.opset` is the opset that the
file declares. Initializers become `onnx.Constant`, their bytes go to the context's weight store,
and they stand before the first node that uses them. Local functions are inlined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto
from xdsl.context import Context
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    IntegerAttr,
    ModuleOp,
    StringAttr,
    i64,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.utils.exceptions import VerifyException

from spu_ir.dialects.functions import set_bounds
from spu_ir.dialects.onnx import NoValue, OnnxOp, Yield, graph_attributes, newest, op_at
from spu_ir.dialects.onnx_schema import Kind, attribute_of
from spu_ir.dialects.types import Array
from spu_ir.dialects.weights import WeightStore, constant_attr, constant_type, store_of
from spu_ir.errors import SpuError

from .checks import check_functions, check_graph, check_names, first_line, node_label, subgraphs
from .extents import Dims, Extents, Shapes, clean_name
from .external import tensor_array
from .inference import NONE, Inferred, light_model, run_inference, value_type
from .limits import check_versions

WEIGHT_OPS = frozenset(
    {"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "GRU", "LayerNormalization", "LSTM"}
    | {"MatMul", "RNN"}
)
"""Operators whose constants must be finite; elsewhere -inf is a usual mask."""


def import_model(
    model: ModelProto | bytes | PathLike[str] | str,
    ctx: Context,
    *,
    shapes: Shapes | None = None,
) -> ModuleOp:
    """
    Import a model, given as a proto, as the bytes of a file or as a path.

    `shapes` fixes or bounds run-time extents, see `extents`. Constants go to the weight store of
    `ctx`. Raises SpuError for anything that is wrong with the file or with `shapes`.
    """
    folder: Path | None = None
    if not isinstance(model, ModelProto | bytes):
        path = Path(model)
        folder = path.parent
        try:
            model = path.read_bytes()
        except OSError as error:
            raise SpuError(
                f"cannot read the model {str(path)!r}: {error.strerror}",
                remedy="give the path of an .onnx file that can be read",
            ) from None
    if isinstance(model, bytes):
        model = _parse(model)
    opset = check_versions(model)
    if model.functions:
        model = _inline(model)
    check_names(model.graph)
    check_graph(model.graph, opset)
    return _Importer(model, opset, folder, store_of(ctx), Extents(shapes)).module()


def import_fragment(
    model: ModelProto, inputs: Mapping[str, SSAValue], ctx: Context
) -> tuple[list[Operation], list[SSAValue]]:
    """
    Import the nodes of a small model as detached ops whose inputs are existing values.

    `inputs` gives a value for each input of the graph. Returns the ops in order, and the values
    of the graph's outputs. Raises SpuError as `import_model` does.
    """
    opset = check_versions(model)
    importer = _Importer(model, opset, None, store_of(ctx), Extents(None))
    scope = _Scope(Block(), run_inference(light_model(model, {}), strict=False))
    scope.values.update(inputs)
    # Constants among the inputs may be given with their values too, for the converter's sake.
    scope.pending = {t.name: t for t in model.graph.initializer if t.name not in inputs}
    results = importer.graph(model.graph, scope)
    ops = list(scope.block.ops)
    for op in ops:
        op.detach()
    return ops, results


def _parse(data: bytes) -> ModelProto:
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise SpuError(
            "the file is no ONNX model, or it is truncated", remedy="download or export it again"
        ) from None
    if not model.HasField("graph"):
        raise SpuError("the model has no graph", remedy="the file is empty or no ONNX model")
    return model


def _inline(model: ModelProto) -> ModelProto:
    """The model without local functions; initializers do not pass through the inliner."""
    check_functions(model.functions)
    bare = ModelProto()
    bare.CopyFrom(model)
    del bare.graph.initializer[:]
    for tensor in model.graph.initializer:
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        if tensor.name not in {value.name for value in bare.graph.input}:
            bare.graph.input.append(info)
    try:
        inlined = onnx.inliner.inline_local_functions(bare, convert_version=True)
    except (RuntimeError, ValueError) as error:
        raise SpuError(
            f"the model's local functions cannot be inlined: {first_line(error)}"
        ) from None
    del inlined.graph.input[len(model.graph.input) :]
    inlined.graph.initializer.extend(model.graph.initializer)
    return inlined


class _Scope:
    """The values of one graph, over those of the graphs around it."""

    def __init__(self, block: Block, inferred: Inferred, outer: _Scope | None = None):
        self.block = block
        self.inferred = inferred
        self.values: dict[str, SSAValue] = dict(outer.values) if outer else {}
        self.pending: dict[str, TensorProto] = {}
        """Initializers that no node has used yet."""


class _Importer:
    def __init__(
        self,
        model: ModelProto,
        opset: int,
        folder: Path | None,
        store: WeightStore,
        extents: Extents,
    ):
        self.model = model
        self.opset = opset
        self.folder = folder
        self.store = store
        self.extents = extents
        self.light: ModelProto | None = None
        """The model as inference sees it, once it does."""

    def module(self) -> ModuleOp:
        graph = self.model.graph
        initializers = {tensor.name for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in initializers]
        infos = {value.name: self._input_info(value) for value in inputs}
        self.extents.check_used([value.name for value in inputs])
        self.light = light_model(self.model, infos)
        inferred = run_inference(self.light, strict=False)

        types = [self._type(infos[v.name].type, f"input {v.name!r}") for v in inputs]
        block = Block(arg_types=[kind for kind, _ in types])
        scope = _Scope(block, inferred)
        for value, argument in zip(inputs, block.args, strict=True):
            argument.name_hint = clean_name(value.name)
            scope.values[value.name] = argument
        scope.pending = {tensor.name: tensor for tensor in graph.initializer}
        results = self.graph(graph, scope)
        block.add_op(ReturnOp(*results))

        result_params = [
            self._type(inferred.types[v.name], f"output {v.name!r}")[1] for v in graph.output
        ]
        function = FuncOp(
            "main",
            ([kind for kind, _ in types], [value.type for value in results]),
            Region(block),
            arg_attrs=_port_attributes(inputs, [params for _, params in types]),
            res_attrs=_port_attributes(list(graph.output), result_params),
        )
        set_bounds(function, self.extents.bounds)
        return ModuleOp([function], {"onnx.opset": IntegerAttr(self.opset, i64)})

    def _input_info(self, value: ValueInfoProto) -> ValueInfoProto:
        """An input with its dims as `shapes` says, extents by their clean names."""
        info = ValueInfoProto(name=value.name)
        info.type.CopyFrom(value.type)
        if value.type.WhichOneof("value") != "tensor_type":
            return info
        dims: Dims = self.extents.resolve(value)
        shape = info.type.tensor_type.shape
        del shape.dim[:]
        for dim in dims:
            shape.dim.add(**({"dim_value": dim} if isinstance(dim, int) else {"dim_param": dim}))
        return info

    def _type(
        self, proto: onnx.TypeProto, what: str, node: NodeProto | None = None
    ) -> tuple[Attribute, str]:
        known = self.extents.bounds
        place = {"node": node_label(node), "op": node.op_type} if node else {}
        return value_type(proto, what, lambda name: name if name in known else "", **place)

    def graph(self, graph: GraphProto, scope: _Scope) -> list[SSAValue]:
        """Import all nodes of a graph into the scope's block and return its outputs."""
        for node in graph.node:
            self._constants_for(node, scope)
            if node.op_type == "Constant":
                tensor = self._constant_array(node)
                value = self._constant(tensor, node.name or node.output[0], scope)
                scope.values[node.output[0]] = value
                _check_finite(tensor, node.output[0], graph)
            else:
                self._node(node, scope)
        for output in graph.output:
            self._materialise(output.name, scope)
        return [scope.values[output.name] for output in graph.output]

    def _constants_for(self, node: NodeProto, scope: _Scope) -> None:
        """Make the initializers that a node uses, in its subgraphs too: they may not shadow."""
        for name in node.input:
            self._materialise(name, scope)
        for _, inner in subgraphs(node):
            for inner_node in inner.node:
                self._constants_for(inner_node, scope)
            for output in inner.output:
                self._materialise(output.name, scope)

    def _materialise(self, name: str, scope: _Scope) -> None:
        tensor = scope.pending.pop(name, None)
        if tensor is not None:
            array = tensor_array(tensor, f"initializer {name!r}", self.folder)
            _check_finite(array, name, self.model.graph)
            scope.values[name] = self._constant(array, name, scope)

    def _constant(self, array: Array, name: str, scope: _Scope) -> SSAValue:
        attribute = constant_attr(self.store, array)
        op = newest("Constant").make(
            [], [constant_type(attribute)], {"value": attribute}, node_name=name
        )
        scope.block.add_op(op)
        op.results[0].name_hint = clean_name(name)
        return op.results[0]

    def _constant_array(self, node: NodeProto) -> Array:
        place = {"node": node_label(node), "op": node.op_type}
        if len(node.attribute) != 1 or len(node.output) != 1:
            raise SpuError("a constant has one attribute, its value", **place)
        attribute = node.attribute[0]
        match attribute.name:
            case "value":
                return tensor_array(attribute.t, f"constant {node_label(node)!r}", self.folder)
            case "value_int":
                return np.array(attribute.i, np.int64)
            case "value_ints":
                return np.array(attribute.ints, np.int64)
            case "value_float":
                return np.array(attribute.f, np.float32)
            case "value_floats":
                return np.array(attribute.floats, np.float32)
            case name:
                raise SpuError(
                    f"a constant of the kind {name!r} is not supported",
                    remedy="use a tensor of numbers",
                    **place,
                )

    def _no_value(self, block: Block) -> SSAValue:
        op = NoValue()
        block.add_op(op)
        return op.result

    def _node(self, node: NodeProto, scope: _Scope) -> None:
        place = {"node": node_label(node), "op": node.op_type}
        op_class = op_at(node.op_type, self.opset)
        assert op_class is not None, "check_graph has seen the operator"
        inputs = list(node.input)
        while inputs and not inputs[-1]:
            inputs.pop()
        outputs = list(node.output)
        while outputs and not outputs[-1]:
            outputs.pop()
        operands = [scope.values[name] if name else self._no_value(scope.block) for name in inputs]
        regions = [
            self._region(node, name, scope)
            for name in graph_attributes(op_class)
            if any(name == attribute for attribute, _ in subgraphs(node))
        ]
        types: list[Attribute] = []
        params: list[str] = []
        for name in outputs:
            kind, param = NONE, ""
            if name:
                proto = scope.inferred.types.get(name, onnx.TypeProto())
                if proto.WhichOneof("value") is None and self.light is not None:
                    # What is lenient elsewhere must now say what it could not infer.
                    run_inference(self.light, strict=True)
                kind, param = self._type(proto, f"result {name!r}", node)
            types.append(kind)
            params.append(param)
        op = op_class.make(
            operands,
            types,
            self._attributes(node, op_class),
            regions=regions,
            node_name=node.name or None,
        )
        if any(params):
            op.attributes["onnx.dim_params"] = ArrayAttr([StringAttr(param) for param in params])
        scope.block.add_op(op)
        try:
            op.verify_()
        except VerifyException as error:
            cause = str(error).partition(": ")[2]
            raise SpuError(cause, **place) from None
        for name, result in zip(outputs, op.results, strict=True):
            if name:
                scope.values[name] = result

    def _region(self, node: NodeProto, name: str, scope: _Scope) -> Region:
        graph = next(inner for attribute, inner in subgraphs(node) if attribute == name)
        first = next((output for output in node.output if output), "")
        inferred = scope.inferred.subgraphs.get((first, name), Inferred())
        types = [
            self._type(
                inferred.types.get(value.name, value.type), f"input {value.name!r} of {name}", node
            )[0]
            for value in graph.input
        ]
        block = Block(arg_types=types)
        inner = _Scope(block, inferred, scope)
        inner.values.update(zip([value.name for value in graph.input], block.args, strict=True))
        inner.pending = {tensor.name: tensor for tensor in graph.initializer}
        block.add_op(Yield(self.graph(graph, inner)))
        return Region(block)

    def _attributes(self, node: NodeProto, op: type[OnnxOp]) -> dict[str, Attribute]:
        place = {"node": node_label(node), "op": node.op_type}
        result: dict[str, Attribute] = {}
        for attribute in node.attribute:
            definition = op.schema.attributes.get(attribute.name)
            if definition is None:
                known = ", ".join(op.schema.attributes) or "none"
                raise SpuError(
                    f"unknown attribute {attribute.name!r}, the operator has: {known}", **place
                )
            if definition.type != Kind.GRAPH:
                result[attribute.name] = self._attribute(attribute, definition.type, place)
        return result

    def _attribute(
        self, attribute: AttributeProto, kind: Kind, place: Mapping[str, str]
    ) -> Attribute:
        what = f"attribute {attribute.name!r}"
        values: dict[Kind, Callable[[], Any]] = {
            Kind.INT: lambda: attribute.i,
            Kind.FLOAT: lambda: attribute.f,
            Kind.STRING: attribute.s.decode,
            Kind.INTS: lambda: list(attribute.ints),
            Kind.FLOATS: lambda: list(attribute.floats),
            Kind.STRINGS: lambda: [item.decode() for item in attribute.strings],
        }
        if kind == Kind.TENSOR:
            return constant_attr(self.store, tensor_array(attribute.t, what, self.folder))
        if kind == Kind.TYPE_PROTO:
            return value_type(attribute.tp, what, str, **place)[0]
        if kind not in values:
            raise SpuError(f"{what} is of a kind that is not supported", **place)
        try:
            return attribute_of(kind, values[kind]())
        except UnicodeDecodeError:
            raise SpuError(f"{what} is no UTF-8 text", **place) from None


def _port_attributes(
    values: Sequence[ValueInfoProto], params: Sequence[str]
) -> ArrayAttr[DictionaryAttr]:
    """The attributes of the function's arguments or results: their names and named dims."""
    return ArrayAttr(
        [
            DictionaryAttr(
                {"onnx.name": StringAttr(value.name)}
                | ({"onnx.dim_params": StringAttr(param)} if param else {})
            )
            for value, param in zip(values, params, strict=True)
        ]
    )


def _check_finite(array: Array, name: str, graph: GraphProto) -> None:
    """Raise SpuError for a constant with NaN, or with an infinity where it is a weight."""
    if array.dtype.kind not in "fV":
        return
    finite = np.isfinite(array)
    if finite.all():
        return
    index = tuple(int(i) for i in np.argwhere(~finite)[0])
    user = next((n for n in graph.node if name in n.input and n.op_type in WEIGHT_OPS), None)
    if user is None and not np.isnan(array).any():
        return
    raise SpuError(
        f"weight {name!r} is not finite: {float(array[index])} at {list(index)}",
        node=node_label(user) if user else None,
        op=user.op_type if user else None,
        remedy="the training diverged or the file is damaged",
    )
