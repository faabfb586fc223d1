"""A Conformer encoder behind an image front end, with torchaudio's key names for its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from spu_ir.errors import SpuError

from .common import GraphBuilder
from .weights import Array, WeightSource, check_weights, read_weights
from .weights import random_weights as random_network

EPSILON = 1e-5
"""Of the normalisations, as PyTorch has it."""

STRIDES = 4
"""The front end takes every second row and column, twice."""


@dataclass(frozen=True)
class ConformerConfig:
    """
    The sizes of the network: `layers` of `d_model` channels with `heads`, feed-forward layers of
    `ffn` and depthwise convolutions over `kernel` frames, on images `[channels, height, width]`.
    """

    d_model: int = 256
    heads: int = 4
    ffn: int = 1024
    layers: int = 12
    kernel: int = 31
    channels: int = 3
    height: int = 64
    width: int = 512

    def __post_init__(self) -> None:
        if self.d_model % self.heads:
            raise SpuError(f"d_model {self.d_model} is not a multiple of heads {self.heads}")
        if self.kernel % 2 == 0:
            raise SpuError(f"kernel {self.kernel} is even", remedy="use an odd number of frames")
        if self.height % STRIDES or self.width % STRIDES:
            raise SpuError(
                f"the image of {self.height} x {self.width} cannot be divided by {STRIDES}"
            )

    @property
    def time(self) -> int:
        """Frames of the encoder: columns of the image after the front end."""
        return self.width // STRIDES


FILTERS = 64
"""Channels of the two convolutions of the front end."""


def weight_shapes(config: ConformerConfig) -> dict[str, tuple[int, ...]]:
    """The key of every weight and its shape; the layers' keys are torchaudio's."""
    shapes: dict[str, tuple[int, ...]] = {}
    model, inner = config.d_model, config.ffn

    def layer(name: str, *shape: int, parts: tuple[str, ...] = ("bias",)) -> None:
        shapes[f"{name}.weight"] = shape
        for part in parts:
            shapes[f"{name}.{part}"] = shape[:1]

    layer("subsample.conv1", FILTERS, config.channels, 3, 3)
    layer("subsample.conv2", FILTERS, FILTERS, 3, 3)
    layer("subsample.out", model, FILTERS * (config.height // STRIDES))
    for index in range(config.layers):
        name = f"conformer_layers.{index}"
        for ffn in ("ffn1", "ffn2"):
            layer(f"{name}.{ffn}.sequential.0", model)
            layer(f"{name}.{ffn}.sequential.1", inner, model)
            layer(f"{name}.{ffn}.sequential.4", model, inner)
        layer(f"{name}.self_attn_layer_norm", model)
        shapes[f"{name}.self_attn.in_proj_weight"] = (3 * model, model)
        shapes[f"{name}.self_attn.in_proj_bias"] = (3 * model,)
        layer(f"{name}.self_attn.out_proj", model, model)
        convs = f"{name}.conv_module"
        layer(f"{convs}.layer_norm", model)
        layer(f"{convs}.sequential.0", 2 * model, model, 1)
        layer(f"{convs}.sequential.2", model, 1, config.kernel)
        layer(f"{convs}.sequential.3", model, parts=("bias", "running_mean", "running_var"))
        layer(f"{convs}.sequential.5", model, model, 1)
        layer(f"{name}.final_layer_norm", model)
    return shapes


def _behind_activation(name: str) -> bool:
    ends = ("conv2.weight", "subsample.out.weight", "sequential.4.weight", "sequential.5.weight")
    return name.endswith(ends)


def _gain(name: str) -> float:
    if "subsample.conv" in name:
        return sqrt(2)
    return 0.3 if name.endswith("out_proj.weight") else 1.0


def random_weights(config: ConformerConfig, seed: int) -> dict[str, Array]:
    """
    Well-conditioned weights of every key: see `spu_ir.zoo.weights.random_weights` for the rule.

    The front end's kernels are twice as large in variance, for ReLU. Queries and keys are larger,
    so that attention picks some frames rather than all alike, and what it adds is smaller, so
    that frames stay apart. The variance that a batch normalisation expects is that of a gated
    linear unit of normal inputs, 0.3.
    """
    weights = random_network(weight_shapes(config), seed, _gain, _behind_activation)
    random = np.random.default_rng(seed + 1)
    for name, value in weights.items():
        if name.endswith("in_proj_weight"):
            value[: 2 * config.d_model] *= np.float32(1.3)
        elif name.endswith("running_var"):
            value[:] = random.uniform(0.25, 0.35, value.shape)
    return weights


def conformer(
    config: ConformerConfig | None = None, weights: WeightSource | None = None, *, seed: int = 0
) -> onnx.ModelProto:
    """
    A Conformer encoder.

    Inputs: `src`, f32 `[batch, channels, height, width]`; `src_pad_mask`, bool `[batch, time]`,
    true where a frame is padding. Output: `memory`, f32 `[batch, time, d_model]`. Masked keys
    score minus infinity, as in PyTorch's MultiheadAttention; what a row without any key gives
    differs between runtimes. Padded frames take part in convolutions, as in torchaudio.

    `config` is that of the published interface by default. `weights` (see `WeightSource`) have
    the keys of `weight_shapes`; None means random ones from `seed`. Raises SpuError for a weight
    that is missing or misshapen.
    """
    config = ConformerConfig() if config is None else config
    if weights is None:
        chosen = random_weights(config, seed)
    else:
        chosen = check_weights(read_weights(weights), weight_shapes(config))
    return _Conformer(config, chosen).build()


class _Conformer:
    """Writes one encoder; every method returns the name of the value that it made."""

    def __init__(self, config: ConformerConfig, weights: Mapping[str, Array]):
        self.config = config
        self.weights = weights
        self.graph = GraphBuilder("conformer")

    def build(self) -> onnx.ModelProto:
        graph, config = self.graph, self.config
        image = [config.channels, config.height, config.width]
        value = graph.input("src", TensorProto.FLOAT, ["batch", *image])
        mask = graph.input("src_pad_mask", TensorProto.BOOL, ["batch", config.time])
        value = self.subsample(value)
        bias = self.mask_bias(mask)
        for index in range(config.layers):
            output = "memory" if index == config.layers - 1 else None
            value = self.layer(f"conformer_layers.{index}", value, bias, output)
        graph.output(value, TensorProto.FLOAT, ["batch", config.time, config.d_model])
        return graph.model()

    def constant(self, name: str) -> str:
        return self.graph.constant(name, self.weights[name])

    def subsample(self, value: str) -> str:
        """Two strided convolutions, then one frame a column: `[batch, time, d_model]`."""
        graph = self.graph
        for name in ("subsample.conv1", "subsample.conv2"):
            value = graph.add(
                "Conv",
                value,
                self.constant(f"{name}.weight"),
                self.constant(f"{name}.bias"),
                name=f"/{name}/Conv",
                kernel_shape=[3, 3],
                strides=[2, 2],
                pads=[1, 1, 1, 1],
            )
            value = graph.add("Relu", value, name=f"/{name}/Relu")
        value = graph.add("Transpose", value, name="/subsample/Transpose", perm=[0, 3, 1, 2])
        shape = graph.integers(0, 0, FILTERS * (self.config.height // STRIDES))
        value = graph.add("Reshape", value, shape, name="/subsample/Reshape")
        return self.linear("subsample.out", value)

    def mask_bias(self, mask: str) -> str:
        """f32 `[batch, 1, 1, time]`: minus infinity for padding, else 0."""
        graph = self.graph
        wide = graph.add("Unsqueeze", mask, graph.integers(1, 2), name="/mask/Unsqueeze")
        low, zero = graph.number(-np.inf), graph.number(0.0)
        return graph.add("Where", wide, low, zero, name="/mask/Where")

    def product(self, name: str, value: str, weight: Array, bias: Array) -> str:
        """`value @ weight.T + bias`; the initialiser is the weight transposed, `[in, out]`."""
        graph = self.graph
        turned = graph.constant(f"{name}.weight", weight.T)
        product = graph.add("MatMul", value, turned, name=f"/{name}/MatMul")
        return graph.add("Add", product, graph.constant(f"{name}.bias", bias), name=f"/{name}/Add")

    def linear(self, name: str, value: str) -> str:
        return self.product(
            name, value, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        )

    def norm(self, name: str, value: str, output: str | None = None) -> str:
        return self.graph.add(
            "LayerNormalization",
            value,
            self.constant(f"{name}.weight"),
            self.constant(f"{name}.bias"),
            name=f"/{name}/LayerNormalization",
            output=output,
            axis=-1,
            epsilon=EPSILON,
        )

    def silu(self, name: str, value: str) -> str:
        gate = self.graph.add("Sigmoid", value, name=f"/{name}/Sigmoid")
        return self.graph.add("Mul", value, gate, name=f"/{name}/Mul")

    def layer(self, layer: str, value: str, bias: str, output: str | None) -> str:
        graph = self.graph
        value = self.feed_forward(f"{layer}.ffn1", value)
        mixed = self.attention(layer, value, bias)
        value = graph.add("Add", mixed, value, name=f"/{layer}/self_attn/Add_1")
        convolved = self.conv_module(f"{layer}.conv_module", value)
        value = graph.add("Add", convolved, value, name=f"/{layer}/conv_module/Add")
        value = self.feed_forward(f"{layer}.ffn2", value)
        return self.norm(f"{layer}.final_layer_norm", value, output)

    def feed_forward(self, name: str, value: str) -> str:
        graph, part = self.graph, f"{name}.sequential"
        inner = self.linear(f"{part}.1", self.norm(f"{part}.0", value))
        outer = self.linear(f"{part}.4", self.silu(f"{part}.2", inner))
        half = graph.add("Mul", outer, graph.number(0.5), name=f"/{name}/Mul")
        return graph.add("Add", half, value, name=f"/{name}/Add")

    def attention(self, layer: str, value: str, bias: str) -> str:
        graph, config, name = self.graph, self.config, f"{layer}.self_attn"
        depth = config.d_model // config.heads
        normed = self.norm(f"{name}_layer_norm", value)
        weights = np.split(self.weights[f"{name}.in_proj_weight"], 3)
        biases = np.split(self.weights[f"{name}.in_proj_bias"], 3)

        def heads(index: int, part: str, order: list[int]) -> str:
            split = self.product(f"{name}.{part}", normed, weights[index], biases[index])
            shape = graph.integers(0, 0, config.heads, depth)
            cut = graph.add("Reshape", split, shape, name=f"/{name}.{part}/Reshape")
            return graph.add("Transpose", cut, name=f"/{name}.{part}/Transpose", perm=order)

        query = heads(0, "query", [0, 2, 1, 3])
        key = heads(1, "key", [0, 2, 3, 1])
        content = heads(2, "value", [0, 2, 1, 3])
        scores = graph.add("MatMul", query, key, name=f"/{name}/MatMul")
        scores = graph.add("Div", scores, graph.number(sqrt(depth)), name=f"/{name}/Div")
        scores = graph.add("Add", scores, bias, name=f"/{name}/Add")
        share = graph.add("Softmax", scores, name=f"/{name}/Softmax", axis=-1)
        mixed = graph.add("MatMul", share, content, name=f"/{name}/MatMul_1")
        mixed = graph.add("Transpose", mixed, name=f"/{name}/Transpose", perm=[0, 2, 1, 3])
        shape = graph.integers(0, 0, config.d_model)
        mixed = graph.add("Reshape", mixed, shape, name=f"/{name}/Reshape")
        return self.linear(f"{name}.out_proj", mixed)

    def conv_module(self, name: str, value: str) -> str:
        graph, part, model = self.graph, f"{name}.sequential", self.config.d_model

        def conv(index: int, value: str, **attributes: Any) -> str:
            key = f"{part}.{index}"
            weight, bias = self.constant(f"{key}.weight"), self.constant(f"{key}.bias")
            return graph.add("Conv", value, weight, bias, name=f"/{key}/Conv", **attributes)

        value = self.norm(f"{name}.layer_norm", value)
        value = graph.add("Transpose", value, name=f"/{name}/Transpose", perm=[0, 2, 1])
        value = conv(0, value, kernel_shape=[1])
        value, gate = graph.split(value, (model, model), name=f"/{part}.1/Split", axis=1)
        gate = graph.add("Sigmoid", gate, name=f"/{part}.1/Sigmoid")
        value = graph.add("Mul", value, gate, name=f"/{part}.1/Mul")
        kernel = self.config.kernel
        value = conv(2, value, kernel_shape=[kernel], pads=[kernel // 2] * 2, group=model)
        value = graph.add(
            "BatchNormalization",
            value,
            *(
                self.constant(f"{part}.3.{key}")
                for key in ("weight", "bias", "running_mean", "running_var")
            ),
            name=f"/{part}.3/BatchNormalization",
            epsilon=EPSILON,
        )
        value = conv(5, self.silu(f"{part}.4", value), kernel_shape=[1])
        return graph.add("Transpose", value, name=f"/{name}/Transpose_1", perm=[0, 2, 1])
