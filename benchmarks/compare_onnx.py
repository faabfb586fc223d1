"""A model in the operators of ONNX opset 13, which engines that are no longer developed read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import pi, sqrt
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from spu_ir.errors import SpuError

OPSET, IR_VERSION = 13, 8


class _Writer:
    """Writes the nodes that stand for one node; names are the node's with a number."""

    def __init__(self, node: onnx.NodeProto, initialisers: Mapping[str, onnx.TensorProto]):
        self.node = node
        self.initialisers = initialisers
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def number(self, value: float) -> str:
        name = f"{self.node.output[0]}_const_{len(self.constants)}"
        array: Any = np.array(value, np.float32)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def integers(self, *values: int) -> str:
        name = f"{self.node.output[0]}_const_{len(self.constants)}"
        array: Any = np.array(values, np.int64)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op: str, *inputs: str, last: bool = False, **attributes: Any) -> str:
        name = self.node.output[0] if last else f"{self.node.output[0]}_step_{len(self.nodes)}"
        label = f"{self.node.name}/{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], label, **attributes))
        return name


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _layer_norm(write: _Writer) -> None:
    """As PyTorch's exporter wrote it before opset 17."""
    inputs, attributes = list(write.node.input), _attributes(write.node)
    if attributes.get("axis", -1) != -1 or len(write.node.output) != 1:
        raise SpuError("only the last axis can be normalised", op="LayerNormalization")
    mean = write.add("ReduceMean", inputs[0], axes=[-1], keepdims=1)
    centred = write.add("Sub", inputs[0], mean)
    square = write.add("Pow", centred, write.number(2.0))
    variance = write.add("ReduceMean", square, axes=[-1], keepdims=1)
    biased = write.add("Add", variance, write.number(attributes.get("epsilon", 1e-5)))
    normed = write.add("Div", centred, write.add("Sqrt", biased))
    scaled = write.add("Mul", normed, inputs[1], last=len(inputs) < 3)
    if len(inputs) > 2:
        write.add("Add", scaled, inputs[2], last=True)


def _gelu(write: _Writer) -> None:
    """As PyTorch's exporter wrote it before opset 20."""
    x, attributes = write.node.input[0], _attributes(write.node)
    if attributes.get("approximate", b"none") == b"tanh":
        cube = write.add("Pow", x, write.number(3.0))
        inner = write.add("Add", x, write.add("Mul", cube, write.number(0.044715)))
        inner = write.add("Tanh", write.add("Mul", inner, write.number(sqrt(2 / pi))))
    else:
        inner = write.add("Erf", write.add("Div", x, write.number(sqrt(2))))
    gate = write.add("Add", inner, write.number(1.0))
    write.add("Mul", write.add("Mul", x, gate), write.number(0.5), last=True)


def _shape(write: _Writer) -> None:
    """Some of a shape is the whole one, sliced."""
    attributes = _attributes(write.node)
    start, end = attributes.get("start", 0), attributes.get("end", np.iinfo(np.int64).max)
    shape = write.add("Shape", write.node.input[0])
    write.add("Slice", shape, write.integers(start), write.integers(int(end)), last=True)


def _split(write: _Writer) -> None:
    """DeepSparse fails on the halves of a Split in a Conformer, and not on slices."""
    x, axis = write.node.input[0], int(_attributes(write.node).get("axis", 0))
    if len(write.node.input) < 2 or write.node.input[1] not in write.initialisers:
        raise SpuError("only parts of constant sizes can be sliced", op="Split")
    sizes = numpy_helper.to_array(write.initialisers[write.node.input[1]])
    ends: list[int] = [int(end) for end in np.cumsum(sizes)]
    for output, size, end in zip(write.node.output, sizes, ends, strict=True):
        bounds = (write.integers(end - int(size)), write.integers(end), write.integers(axis))
        write.nodes.append(helper.make_node("Slice", [x, *bounds], [output], f"{output}/Slice"))


EXPANDED: dict[str, Callable[[_Writer], None]] = {
    "LayerNormalization": _layer_norm,
    "Gelu": _gelu,
    "Shape": _shape,
    "Split": _split,
}
"""Operators that are younger than opset 13, or not read well, by what writes them in others."""

CHANGED = ("ReduceMean", "ReduceSum", "Pad", "Resize", "GridSample")
"""Operators whose form differs in opset 13, which no model here has."""


def at_opset_13(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model of the zoo in operators of opset 13. Raises SpuError where it cannot."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    initialisers = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type in CHANGED:
            raise SpuError("this operator cannot be written at opset 13", op=node.op_type)
        write = EXPANDED.get(node.op_type)
        if write is None:
            nodes.append(node)
            continue
        writer = _Writer(node, initialisers)
        write(writer)
        nodes += writer.nodes
        copy.graph.initializer.extend(writer.constants)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    del copy.opset_import[:]
    copy.opset_import.append(helper.make_opsetid("", OPSET))
    copy.ir_version = IR_VERSION
    return copy


def at_extents(model: onnx.ModelProto, extents: dict[str, int]) -> onnx.ModelProto:
    """A copy of a model whose named dimensions are fixed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in (*copy.graph.input, *copy.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in extents:
                dim.dim_value = extents[dim.dim_param]
    return copy


def with_used_domains(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that imports the operator sets it uses, which ONNX Runtime's quantiser adds to."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    used = {node.domain for node in copy.graph.node} | {""}
    kept = [each for each in model.opset_import if each.domain in used]
    del copy.opset_import[:]
    copy.opset_import.extend(kept)
    return copy
