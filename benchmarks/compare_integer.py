"""Matrix products of an ONNX model as MatMulInteger, the form in which SparseML exports them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .fidelity_cases import Array, Feeds
from .fidelity_ort import outputs_of, tapped


def ranges_of(
    model: onnx.ModelProto, names: Sequence[str], calibration: Sequence[Feeds]
) -> dict[str, tuple[float, float]]:
    """The least and the largest element of f32 values over all feeds, zero included."""
    copy = tapped(model, names)
    found: dict[str, tuple[float, float]] = {}
    for feeds in calibration:
        for name, value in outputs_of(copy, feeds, names).items():
            low, high = found.get(name, (0.0, 0.0))
            found[name] = (min(low, float(value.min())), max(high, float(value.max())))
    return found


def products(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The matrix products with a constant weight `[in, out]`."""
    constants = {each.name: len(each.dims) for each in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type == "MatMul" and constants.get(node.input[1]) == 2
    ]


def between_activations(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The matrix products of attention, without a constant."""
    constants = {each.name for each in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type == "MatMul" and not constants & set(node.input)
    ]


def with_integer_products(
    model: onnx.ModelProto, calibration: Sequence[Feeds], *, attention: bool
) -> onnx.ModelProto:
    """
    A copy of `model` whose products with constants, and those of `attention`, are in INT8.

    Every activation gets one scale and zero point from `calibration` (u8), every weight one scale
    (i8, symmetric); a bias that is added to the product is added to the sums of integers.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    chosen = products(copy)
    inputs = [node.input[0] for node in chosen]
    if attention:
        between = between_activations(copy)
        inputs += [name for node in between for name in node.input]
        chosen = [*chosen, *between]
    ranges = ranges_of(model, list(dict.fromkeys(inputs)), calibration)
    return _Rewriter(copy, ranges).run(chosen)


class _Rewriter:
    def __init__(self, model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]]):
        self.model = model
        self.ranges = ranges
        self.weights = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
        self.quantised: dict[str, float] = {}
        """The scale of every activation that has been quantised."""
        self.nodes: list[onnx.NodeProto] = []

    def run(self, chosen: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
        graph = self.model.graph
        wanted = {id(node) for node in chosen}
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        done: set[int] = set()
        for node in graph.node:
            if id(node) in done:
                continue
            if id(node) not in wanted:
                self.nodes.append(node)
                continue
            if node.input[1] not in self.weights:
                self.attention(node)
                continue
            after = readers.get(node.output[0], [])
            bias = after[0] if len(after) == 1 and self.is_bias(after[0], node) else None
            self.product(node, bias)
            if bias is not None:
                done.add(id(bias))
        nodes = list(self.nodes)
        kept = {name for node in nodes for name in node.input}
        constants = [each for each in graph.initializer if each.name in kept]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        tensors = [onnx.TensorProto.FromString(each.SerializeToString()) for each in constants]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(copies)
        graph.initializer.extend(tensors)
        return self.model

    def is_bias(self, node: onnx.NodeProto, product: onnx.NodeProto) -> bool:
        """Whether `node` adds a constant vector to `product`."""
        if node.op_type != "Add":
            return False
        other = next(name for name in node.input if name != product.output[0])
        return other in self.weights and self.weights[other].ndim == 1

    def constant(self, name: str, array: Array) -> str:
        if name not in self.weights:
            self.weights[name] = array
            self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], f"{output}/{op}", **attributes))
        return output

    def activation(self, name: str) -> float:
        """Quantise a value once; its scale."""
        if name not in self.quantised:
            low, high = self.ranges[name]
            scale = max(high - low, 1e-8) / 255
            zero = int(np.clip(np.rint(-low / scale), 0, 255))
            inputs = [
                name,
                self.constant(f"{name}_scale", np.array(scale, np.float32)),
                self.constant(f"{name}_zero_point", np.array(zero, np.uint8)),
            ]
            self.node("QuantizeLinear", inputs, f"{name}_quantized")
            self.quantised[name] = float(np.float32(scale))
        return self.quantised[name]

    def attention(self, node: onnx.NodeProto) -> None:
        x, y = node.input
        scale = self.activation(x) * self.activation(y)
        output = node.output[0]
        inputs = [f"{x}_quantized", f"{y}_quantized", f"{x}_zero_point", f"{y}_zero_point"]
        self.rescale(self.node("MatMulInteger", inputs, f"{output}_integer"), scale, output)

    def rescale(self, value: str, scale: float, output: str) -> None:
        value = self.node("Cast", [value], f"{output}_cast", to=TensorProto.FLOAT)
        factor = self.constant(f"{output}_scale", np.array(scale, np.float32))
        self.node("Mul", [value, factor], output)

    def product(self, node: onnx.NodeProto, bias: onnx.NodeProto | None) -> None:
        x, w = node.input
        scale_x = self.activation(x)
        weight = self.weights[w]
        scale_w = max(float(np.abs(weight).max()), 1e-8) / 127
        integer: Array = np.clip(np.rint(weight / scale_w), -127, 127).astype(np.int8)
        scale = scale_x * scale_w
        output = node.output[0]
        inputs = [
            f"{x}_quantized",
            self.constant(f"{w}_quantized", integer),
            f"{x}_zero_point",
            self.constant(f"{w}_zero_point", np.array(0, np.int8)),
        ]
        value = self.node("MatMulInteger", inputs, f"{output}_integer")
        if bias is not None:
            name = next(each for each in bias.input if each != output)
            sums: Array = np.rint(self.weights[name] / scale).astype(np.int32)
            added = self.constant(f"{name}_{output}_quantized", sums)
            value = self.node("Add", [value, added], f"{output}_biased")
            output = bias.output[0]
        self.rescale(value, scale, output)
