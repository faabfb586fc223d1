"""The smallest model that shows every stage: one linear layer and its activation."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from .common import GraphBuilder


def linear(into: int = 128, out: int = 32, *, seed: int = 0) -> onnx.ModelProto:
    """Input `x`, f32 `[batch, into]`; output `y`, f32 `[batch, out]`: gelu(x @ weight + bias)."""
    random = np.random.default_rng(seed)
    graph = GraphBuilder("linear")
    value = graph.input("x", TensorProto.FLOAT, ["batch", into])
    weight = random.standard_normal((into, out), np.float32) * np.float32(into**-0.5)
    bias = random.standard_normal(out, np.float32)
    value = graph.add("MatMul", value, graph.constant("weight", weight), name="linear/MatMul")
    value = graph.add("Add", value, graph.constant("bias", bias), name="linear/Add")
    graph.add("Gelu", value, name="gelu/Gelu", output="y")
    return graph.output("y", TensorProto.FLOAT, ["batch", out]).model()
