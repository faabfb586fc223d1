"""
How ops of the `onnx` dialect are spelled in ONNX's own protos.

The exporter writes whole functions with it, the interpreter single ops.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import cast

from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper
from xdsl.dialects.builtin import NoneType, TensorType, UnrankedTensorType
from xdsl.ir import Attribute, Block, SSAValue

from .onnx import NODE_NAME, VERSIONS, NoValue, OnnxOp, Yield, graph_attributes
from .onnx_schema import ELEMENT_NAMES, Kind, OptType, SeqType, Value, python_value
from .types import DYNAMIC, ElementType
from .weights import WeightStore, constant_array, constant_type

LIGHT_ELEMENTS = 1024
"""Constants of up to this many elements keep their values in a light model."""


class MixedVersions(Exception):
    """Ops of one graph that no single opset has."""


def opset_of(ops: Iterable[OnnxOp], preferred: int = 0) -> int:
    """
    The opset that has every op's version; as near to `preferred` as can be.

    Raises MixedVersions when there is none.
    """
    low, low_op, high, high_op = 1, "", 1 << 31, ""
    for kind in {type(op) for op in ops if op.schema_name != "Constant"}:
        later = [since for since in VERSIONS[kind.schema_name] if since > kind.since_version]
        if kind.since_version > low:
            low, low_op = kind.since_version, kind.name
        if later and later[0] - 1 < high:
            high, high_op = later[0] - 1, kind.name
    if low > high:
        raise MixedVersions(
            f"{low_op} needs opset {low} or later, {high_op} opset {high} or earlier"
        )
    return min(max(preferred, low), high)


def type_proto(kind: Attribute, dim_params: str = "") -> TypeProto:
    """
    A value's type in ONNX; `dim_params` ("0:batch,1:seq") names dynamic dims.

    Raises KeyError for a type that ONNX does not have.
    """
    if isinstance(kind, SeqType):
        return helper.make_sequence_type_proto(type_proto(kind.type))
    if isinstance(kind, OptType):
        return helper.make_optional_type_proto(type_proto(kind.type))
    tensor = cast("TensorType[ElementType] | UnrankedTensorType[ElementType]", kind)
    data_type = data_type_of(tensor.get_element_type())
    if isinstance(tensor, UnrankedTensorType):
        return helper.make_tensor_type_proto(data_type, None)
    names = dict(item.split(":", 1) for item in dim_params.split(",") if item)
    dims = [
        names.get(str(axis)) if dim == DYNAMIC else dim
        for axis, dim in enumerate(tensor.get_shape())
    ]
    return helper.make_tensor_type_proto(data_type, dims)


def data_type_of(element: Attribute) -> int:
    """ONNX's number of an element type. Raises KeyError for a type that ONNX does not have."""
    name = ELEMENT_NAMES[cast("ElementType", element)]
    return TensorProto.DataType.Value(name.upper())


class ProtoWriter:
    """
    Writes ops as nodes and constants as initializers; every value gets a name of its own.

    A `light` writer gives the values of small constants only: the larger ones become inputs of
    the outermost graph, which is enough for shape inference and copies nothing.
    """

    def __init__(self, store: WeightStore, *, light: bool = False):
        self.store = store
        self.light = light
        self.names: dict[SSAValue, str] = {}
        self.hoisted: list[SSAValue] = []
        """Large constants of a light writer, to be declared as inputs of the outermost graph."""
        self._taken: set[str] = set()
        self._count = 0

    def assign(self, value: SSAValue, name: str) -> None:
        """Give a value the name that it must have."""
        self.names[value] = name
        self._taken.add(name)

    def name(self, value: SSAValue) -> str:
        """The name of a value, made at first use; empty for an absent one."""
        if isinstance(value.type, NoneType):
            return ""
        if value not in self.names:
            while (name := f"v{self._count}") in self._taken:
                self._count += 1
            self._count += 1
            self.assign(value, name)
        return self.names[value]

    def block(self, block: Block, graph: GraphProto) -> Sequence[SSAValue]:
        """Write the ops of a block and return the operands of its terminator."""
        for op in block.ops:
            if isinstance(op, NoValue):
                continue
            if not isinstance(op, OnnxOp):
                return op.operands
            if op.schema_name == "Constant":
                self._constant(op, graph)
            else:
                graph.node.append(self.node(op))
        return ()

    def _constant(self, op: OnnxOp, graph: GraphProto) -> None:
        value = op.results[0]
        shape = constant_type(op.attributes["value"]).get_shape()
        if self.light and prod(shape) > LIGHT_ELEMENTS:
            self.hoisted.append(value)
            self.name(value)
        else:
            graph.initializer.append(self.tensor(op.attributes["value"], self.name(value)))

    def tensor(self, attribute: Attribute, name: str = "") -> TensorProto:
        """A constant's attribute as a tensor proto with its bytes."""
        return numpy_helper.from_array(constant_array(self.store, attribute), name)

    def node(self, op: OnnxOp) -> NodeProto:
        """One op as a node with its attributes and subgraphs."""
        node = NodeProto(op_type=op.schema_name, name=op.node_name or "")
        node.input.extend(self.name(operand) for operand in op.operands)
        node.output.extend(self.name(result) for result in op.results)
        for name, attribute in op.attributes.items():
            if name != NODE_NAME and "." not in name:
                node.attribute.append(self._attribute(op, name, attribute))
        for name, region in zip(graph_attributes(type(op)), op.regions, strict=True):
            node.attribute.append(helper.make_attribute(name, self._graph(region.block, name)))
        return node

    def _graph(self, block: Block, name: str) -> GraphProto:
        graph = GraphProto(name=name)
        for argument in block.args:
            graph.input.add(name=self.name(argument), type=type_proto(argument.type))
        terminator = block.last_op
        assert isinstance(terminator, Yield), "the op has been verified"
        outputs = self.block(block, graph)
        made = {output for node in graph.node for output in node.output}
        seen: set[str] = set()
        for value in outputs:
            source = self.name(value)
            if source not in made or source in seen:
                # A subgraph's output must be made by a node of its own.
                copy = f"{name}_{self._count}"
                self._count += 1
                graph.node.append(helper.make_node("Identity", [source], [copy]))
                source = copy
            seen.add(source)
            graph.output.add(name=source, type=type_proto(value.type))
        return graph

    def _attribute(self, op: OnnxOp, name: str, attribute: Attribute) -> AttributeProto:
        proto = AttributeProto(name=name)
        value = cast("Value", python_value(attribute))
        match op.schema.attributes[name].type:
            case Kind.INT:
                proto.type, proto.i = AttributeProto.INT, cast("int", value)
            case Kind.FLOAT:
                proto.type, proto.f = AttributeProto.FLOAT, cast("float", value)
            case Kind.STRING:
                proto.type, proto.s = AttributeProto.STRING, cast("str", value).encode()
            case Kind.INTS:
                proto.type = AttributeProto.INTS
                proto.ints.extend(cast("tuple[int, ...]", value))
            case Kind.FLOATS:
                proto.type = AttributeProto.FLOATS
                proto.floats.extend(cast("tuple[float, ...]", value))
            case Kind.STRINGS:
                proto.type = AttributeProto.STRINGS
                proto.strings.extend(item.encode() for item in cast("tuple[str, ...]", value))
            case Kind.TENSOR:
                proto.type = AttributeProto.TENSOR
                proto.t.CopyFrom(self.tensor(attribute))
            case _:
                proto.type = AttributeProto.TYPE_PROTO
                proto.tp.CopyFrom(type_proto(attribute))
        return proto
