"""Small ONNX models that together use every kind of instruction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

Array = NDArray[Any]

KINDS = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "bool": TensorProto.BOOL,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
}


class Graph:
    """Collects nodes and weights; values are names."""

    def __init__(self, seed: int = 0, opset: int = 20):
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: list[TensorProto] = []
        self.inputs: list[Any] = []
        self.opset = opset

    def input(self, name: str, shape: Sequence[int | str], dtype: str = "float32") -> str:
        """A model input."""
        self.inputs.append(helper.make_tensor_value_info(name, KINDS[dtype], shape))
        return name

    def weight(self, value: Any) -> str:
        """A constant; a tuple is the shape of seeded normal weights of a sane size."""
        if isinstance(value, tuple):
            fan = int(np.prod(value[1:])) if len(value) > 2 else value[0]
            value = (self.rng.normal(size=value) / np.sqrt(fan)).astype(np.float32)
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output, which is returned."""
        name = f"n{len(self.nodes)}"
        node = helper.make_node(kind, inputs, [name], name=f"{kind}_{name}", **attributes)
        self.nodes.append(node)
        return name

    def model(self, **outputs: tuple[str, Sequence[int | str]]) -> ModelProto:
        """The model whose outputs are the given values, by name: (value, shape)."""
        for name, (value, _) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [value], [name], name=f"out_{name}"))
        infos = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, (_, shape) in outputs.items()
        ]
        graph = helper.make_graph(self.nodes, "test", self.inputs, infos, self.weights)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10
        )
        checker.check_model(model)
        return model


def perceptron() -> ModelProto:
    """Two products with bias and activations; batch and sequence are run-time extents."""
    g = Graph()
    x = g.input("x", ["batch", "seq", 96])
    hidden = g.op("Add", g.op("MatMul", x, g.weight((96, 130))), g.weight((130,)))
    y = g.op("MatMul", g.op("Gelu", hidden), g.weight((130, 72)))
    return g.model(y=(y, ["batch", "seq", 72]))


def block() -> ModelProto:
    """One transformer layer: attention with a mask, residuals, LayerNorm, GELU."""
    g = Graph(1)
    x = g.input("x", ["batch", "seq", 64])
    mask = g.input("mask", ["batch", "seq"], "int64")
    flags = g.op("Cast", g.op("Unsqueeze", mask, g.weight(np.array([1, 2]))), to=TensorProto.FLOAT)
    one, low = g.weight(np.float32(1.0)), g.weight(np.float32(-10000.0))
    added = g.op("Mul", g.op("Sub", one, flags), low)

    def heads(value: str, perm: Sequence[int]) -> str:
        split = g.op("Reshape", value, g.weight(np.array([0, 0, 4, 16])))
        return g.op("Transpose", split, perm=perm)

    def dense(value: str, rows: int, columns: int) -> str:
        return g.op("Add", g.op("MatMul", value, g.weight((rows, columns))), g.weight((columns,)))

    def norm(value: str) -> str:
        one, zero = np.ones(64, np.float32), np.zeros(64, np.float32)
        return g.op("LayerNormalization", value, g.weight(one), g.weight(zero), axis=-1)

    q, k, v = (dense(x, 64, 64) for _ in range(3))
    scores = g.op("MatMul", heads(q, [0, 2, 1, 3]), heads(k, [0, 2, 3, 1]))
    scaled = g.op("Add", g.op("Div", scores, g.weight(np.float32(4.0))), added)
    mixed = g.op("MatMul", g.op("Softmax", scaled, axis=-1), heads(v, [0, 2, 1, 3]))
    joined = g.op("Transpose", mixed, perm=[0, 2, 1, 3])
    flat = g.op("Reshape", joined, g.weight(np.array([0, 0, 64])))
    first = norm(g.op("Add", dense(flat, 64, 64), x))
    y = norm(g.op("Add", dense(g.op("Gelu", dense(first, 64, 128)), 128, 64), first))
    return g.model(y=(y, ["batch", "seq", 64]))


def convolutions() -> ModelProto:
    """Padding, stride, dilation, groups, pooling, a residual, a classifier."""
    g = Graph(2)
    x = g.input("x", ["batch", 3, 19, 17])

    def conv(value: str, shape: tuple[int, int, int, int], **attributes: Any) -> str:
        return g.op("Conv", value, g.weight(shape), g.weight((shape[0],)), **attributes)

    stem = g.op("Relu", conv(x, (24, 3, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2]))
    pooled = g.op("MaxPool", stem, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    wide = g.op("Relu", conv(pooled, (40, 24, 3, 3), pads=[2, 2, 2, 2], dilations=[2, 2]))
    groups = conv(wide, (40, 10, 3, 3), pads=[1, 1, 1, 1], group=4)
    added = g.op("Relu", g.op("Add", groups, wide))
    last = g.op("Relu", conv(added, (20, 40, 1, 1)))
    flat = g.op("Flatten", g.op("GlobalAveragePool", last))
    y = g.op("Gemm", flat, g.weight((10, 20)), g.weight((10,)), transB=1)
    return g.model(y=(y, ["batch", 10]))


def depthwise() -> ModelProto:
    """Convolutions of one channel a group, over images and over a line, with all that is fused."""
    g = Graph(5)
    x = g.input("x", ["batch", 20, 15, 13])

    def conv(value: str, channels: int, kernel: list[int], **attributes: Any) -> str:
        weight = g.weight((channels, 1, *kernel))
        return g.op("Conv", value, weight, g.weight((channels,)), group=channels, **attributes)

    first = g.op("Relu", conv(x, 20, [3, 3], pads=[1, 1, 1, 1], strides=[2, 1]))
    added = g.op("Add", conv(first, 20, [3, 2], pads=[1, 1, 1, 0]), first)
    wide = g.op("Conv", added, g.weight((40, 20, 1, 1)), g.weight((40,)))
    last = conv(wide, 40, [3, 3], pads=[2, 2, 2, 2], dilations=[2, 2])
    line = g.op("Reshape", last, g.weight(np.array([0, 40, 104])))
    gate = g.op("Sigmoid", conv(line, 40, [31], pads=[15, 15]))
    flat = g.op("GlobalAveragePool", g.op("Mul", line, gate))
    y = g.op("Gemm", g.op("Flatten", flat), g.weight((10, 40)), g.weight((10,)), transB=1)
    return g.model(y=(y, ["batch", 10]))


def mixture() -> ModelProto:
    """What the others lack: reductions, selection, slices, gathers, integers, broadcasting."""
    g = Graph(3)
    x = g.input("x", ["batch", 6, 20])
    ids = g.input("ids", ["batch"], "int64")
    table = g.op("Gather", g.weight((9, 20)), ids)
    spread = g.op("Unsqueeze", table, g.weight(np.array([1])))
    mixed = g.op("Tanh", g.op("Mul", x, spread))
    positive = g.op("Greater", mixed, g.weight(np.float32(0.1)))
    chosen = g.op("Where", positive, g.op("Exp", mixed), g.op("Sigmoid", x))
    total = g.op("ReduceMean", chosen, g.weight(np.array([1])), keepdims=1)
    peak = g.op("ReduceMax", chosen, g.weight(np.array([2])), keepdims=1)
    left = g.op("Slice", chosen, *(g.weight(np.array([v])) for v in (1, 20, 2, 3)))
    both = g.op("Concat", g.op("Div", chosen, g.op("Add", peak, total)), left, axis=2)
    turned = g.op("Transpose", both, perm=[0, 2, 1])
    soft = g.op("Softmax", turned, axis=1)
    product = g.op("MatMul", both, soft)
    y = g.op("Sqrt", g.op("Abs", g.op("Pow", product, g.weight(np.float32(3.0)))))
    return g.model(y=(y, ["batch", 6, 6]))


def indices() -> ModelProto:
    """Gathers by data along shared axes, a triangle, an extent as data."""
    g = Graph(4)
    x = g.input("x", ["batch", 6, 20])
    ids = g.input("ids", ["batch", 6], "int64")
    column = g.op("Unsqueeze", ids, g.weight(np.array([2])))
    single = g.op("GatherElements", x, column, axis=1)
    rows = g.op("Trilu", g.op("GatherND", x, column, batch_dims=1), g.weight(np.array(1)), upper=0)
    count = g.op("Cast", g.op("Shape", x, end=1), to=TensorProto.FLOAT)
    y = g.op("MatMul", g.op("Div", g.op("Add", rows, single), count), g.weight((20, 24)))
    return g.model(y=(y, ["batch", 6, 24]))


MODELS = {
    "perceptron": perceptron,
    "block": block,
    "convolutions": convolutions,
    "depthwise": depthwise,
    "mixture": mixture,
    "indices": indices,
}

SHAPES: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "perceptron": {"batch": (1, 4), "seq": (1, 48)},
    "block": {"batch": (1, 4), "seq": (1, 80)},
    "convolutions": {"batch": (1, 3)},
    "depthwise": {"batch": (1, 3)},
    "mixture": {"batch": (1, 5)},
    "indices": {"batch": (1, 5)},
}


def feeds(name: str, seed: int, batch: int, seq: int) -> dict[str, Array]:
    """Inputs of a model, seeded."""
    rng = np.random.default_rng(seed)
    if name == "convolutions":
        return {"x": rng.normal(size=(batch, 3, 19, 17)).astype(np.float32)}
    if name == "depthwise":
        return {"x": rng.normal(size=(batch, 20, 15, 13)).astype(np.float32)}
    if name == "mixture":
        return {
            "x": rng.normal(size=(batch, 6, 20)).astype(np.float32),
            "ids": rng.integers(-9, 9, batch),
        }
    if name == "indices":
        return {
            "x": rng.normal(size=(batch, 6, 20)).astype(np.float32),
            "ids": rng.integers(-6, 6, (batch, 6)),
        }
    wide = {"perceptron": 96, "block": 64}[name]
    arrays: dict[str, Array] = {"x": rng.normal(size=(batch, seq, wide)).astype(np.float32)}
    if name == "block":
        lengths = rng.integers(1, seq + 1, batch)
        arrays["mask"] = (np.arange(seq) < lengths[:, None]).astype(np.int64)
    return arrays
