"""BERT encoders from a HuggingFace configuration and weights with HuggingFace's key names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import sqrt
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from spu_ir.errors import SpuError

from .common import Array, GraphBuilder, Weights, check_weights

OUTPUTS = ("last_hidden_state", "pooler_output", "embedding")
"""
What `bert` can return: f32 `[batch, seq, hidden]`, `[batch, hidden]` (tanh of the first token),
and `[batch, hidden]` (mean over the mask, of length one: a sentence embedding).
"""

_ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")


@dataclass(frozen=True)
class BertConfig:
    """The fields of HuggingFace's `config.json` that shape the graph; defaults: BERT-base."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise SpuError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}"
            )
        if self.hidden_act not in _ACTIVATIONS:
            raise SpuError(
                f"hidden_act {self.hidden_act!r} is not known",
                remedy=f"use one of {', '.join(_ACTIVATIONS)}",
            )

    @staticmethod
    def from_dict(config: Mapping[str, Any]) -> BertConfig:
        """From the mapping in a `config.json`; fields that do not shape the graph are ignored."""
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise SpuError(
                f"position_embedding_type {config['position_embedding_type']!r} is not supported",
                remedy="use a model with absolute positions",
            )
        known = {field.name for field in fields(BertConfig)}
        return BertConfig(**{key: value for key, value in config.items() if key in known})

    @staticmethod
    def from_json(text: str | bytes) -> BertConfig:
        """From the text of a `config.json`."""
        return BertConfig.from_dict(json.loads(text))


def weight_shapes(config: BertConfig, *, pooler: bool = False) -> dict[str, tuple[int, ...]]:
    """The HuggingFace key of every weight and its shape; a linear layer's is `[out, in]`."""
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocab_size, hidden),
        "embeddings.position_embeddings.weight": (config.max_position_embeddings, hidden),
        "embeddings.token_type_embeddings.weight": (config.type_vocab_size, hidden),
    }

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (hidden,)

    def linear(name: str, out: int, into: int) -> None:
        shapes[f"{name}.weight"] = (out, into)
        shapes[f"{name}.bias"] = (out,)

    norm("embeddings.LayerNorm")
    for index in range(config.num_hidden_layers):
        layer = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{part}", hidden, hidden)
        linear(f"{layer}.attention.output.dense", hidden, hidden)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", inner, hidden)
        linear(f"{layer}.output.dense", hidden, inner)
        norm(f"{layer}.output.LayerNorm")
    if pooler:
        linear("pooler.dense", hidden, hidden)
    return shapes


def random_weights(config: BertConfig, seed: int, *, pooler: bool = False) -> dict[str, Array]:
    """Weights as HuggingFace initialises them, with biases and gains that are not trivial."""
    random = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    for name, shape in weight_shapes(config, pooler=pooler).items():
        value = random.standard_normal(shape, np.float32) * np.float32(config.initializer_range)
        weights[name] = value + np.float32(1) if name.endswith("LayerNorm.weight") else value
    return weights


def bert(
    config: BertConfig,
    weights: Weights | None = None,
    *,
    seed: int = 0,
    outputs: Sequence[str] = ("last_hidden_state",),
) -> onnx.ModelProto:
    """
    A BERT encoder.

    Inputs: `input_ids`, `attention_mask`, `token_type_ids`, int64 `[batch, seq]` with both
    extents dynamic. `weights` may carry the prefix `bert.` of a model with a head; None means
    random ones from `seed`. `outputs` picks from `OUTPUTS`. Attention is written in single
    operators (Reshape, Transpose, MatMul, Softmax), as exporters do.

    Raises SpuError for a weight that is missing or misshapen, or an unknown output.
    """
    unknown = [name for name in outputs if name not in OUTPUTS]
    if unknown or not outputs:
        raise SpuError(
            f"unknown output {unknown[0]!r}" if unknown else "no output is asked for",
            remedy=f"use one or more of {', '.join(OUTPUTS)}",
        )
    pooler = "pooler_output" in outputs
    if weights is None:
        weights = random_weights(config, seed, pooler=pooler)
    elif any(name.startswith("bert.") for name in weights):
        weights = {name.removeprefix("bert."): value for name, value in weights.items()}
    encoder = _Bert(config, check_weights(weights, weight_shapes(config, pooler=pooler)))
    return encoder.build(outputs)


class _Bert:
    """Writes one encoder; every method returns the name of the value that it made."""

    def __init__(self, config: BertConfig, weights: dict[str, Array]):
        self.config = config
        self.weights = weights
        self.graph = GraphBuilder("bert")

    def build(self, outputs: Sequence[str]) -> onnx.ModelProto:
        graph, config = self.graph, self.config
        ids, mask, types = (
            graph.input(name, TensorProto.INT64, ["batch", "seq"])
            for name in ("input_ids", "attention_mask", "token_type_ids")
        )
        value = self.embeddings(ids, types)
        bias = self.mask_bias(mask)
        last = config.num_hidden_layers - 1
        for index in range(config.num_hidden_layers):
            named = "last_hidden_state" if index == last else None
            value = self.layer(f"encoder.layer.{index}", value, bias, named)
        hidden = config.hidden_size
        for output in outputs:
            if output == "last_hidden_state":
                graph.output(value, TensorProto.FLOAT, ["batch", "seq", hidden])
                continue
            if output == "pooler_output":
                self.pooler(value)
            else:
                self.embedding(value, mask)
            graph.output(output, TensorProto.FLOAT, ["batch", hidden])
        return graph.model()

    def constant(self, name: str) -> str:
        return self.graph.constant(name, self.weights[name])

    def linear(self, name: str, value: str) -> str:
        """`value @ weight.T + bias`; the initialiser is the weight transposed, `[in, out]`."""
        graph = self.graph
        weight = graph.constant(f"{name}.weight", self.weights[f"{name}.weight"].T)
        product = graph.add("MatMul", value, weight, name=f"/{name}/MatMul")
        return graph.add("Add", product, self.constant(f"{name}.bias"), name=f"/{name}/Add")

    def norm(self, name: str, value: str, output: str | None = None) -> str:
        return self.graph.add(
            "LayerNormalization",
            value,
            self.constant(f"{name}.weight"),
            self.constant(f"{name}.bias"),
            name=f"/{name}/LayerNormalization",
            output=output,
            axis=-1,
            epsilon=self.config.layer_norm_eps,
        )

    def embeddings(self, ids: str, types: str) -> str:
        graph = self.graph
        words = graph.add(
            "Gather",
            self.constant("embeddings.word_embeddings.weight"),
            ids,
            name="/embeddings/word_embeddings/Gather",
        )
        kinds = graph.add(
            "Gather",
            self.constant("embeddings.token_type_embeddings.weight"),
            types,
            name="/embeddings/token_type_embeddings/Gather",
        )
        seq = graph.add("Shape", ids, name="/embeddings/Shape", start=1, end=2)
        positions = graph.add(
            "Slice",
            self.constant("embeddings.position_embeddings.weight"),
            graph.integers(0),
            seq,
            graph.integers(0),
            name="/embeddings/position_embeddings/Slice",
        )
        total = graph.add("Add", words, kinds, name="/embeddings/Add")
        total = graph.add("Add", total, positions, name="/embeddings/Add_1")
        return self.norm("embeddings.LayerNorm", total)

    def mask_bias(self, mask: str) -> str:
        """f32 `[batch, 1, 1, seq]`: 0 for a real token, the lowest number for padding."""
        graph = self.graph
        wide = graph.add("Unsqueeze", mask, graph.integers(1, 2), name="/mask/Unsqueeze")
        real = graph.add("Cast", wide, name="/mask/Cast", to=TensorProto.FLOAT)
        padding = graph.add("Sub", graph.number(1.0), real, name="/mask/Sub")
        lowest = float(np.finfo(np.float32).min)
        return graph.add("Mul", padding, graph.number(lowest), name="/mask/Mul")

    def heads(self, name: str, value: str, order: Sequence[int]) -> str:
        """`[batch, seq, hidden]` cut into heads and transposed by `order`."""
        graph, config = self.graph, self.config
        depth = config.hidden_size // config.num_attention_heads
        shape = graph.integers(0, 0, config.num_attention_heads, depth)
        cut = graph.add("Reshape", value, shape, name=f"/{name}/Reshape")
        return graph.add("Transpose", cut, name=f"/{name}/Transpose", perm=list(order))

    def attention(self, layer: str, value: str, bias: str) -> str:
        graph, config = self.graph, self.config
        part = f"{layer}.attention.self"
        query = self.heads(f"{part}.query", self.linear(f"{part}.query", value), (0, 2, 1, 3))
        key = self.heads(f"{part}.key", self.linear(f"{part}.key", value), (0, 2, 3, 1))
        content = self.heads(f"{part}.value", self.linear(f"{part}.value", value), (0, 2, 1, 3))
        depth = config.hidden_size // config.num_attention_heads
        scores = graph.add("MatMul", query, key, name=f"/{part}/MatMul")
        scores = graph.add("Div", scores, graph.number(sqrt(depth)), name=f"/{part}/Div")
        scores = graph.add("Add", scores, bias, name=f"/{part}/Add")
        share = graph.add("Softmax", scores, name=f"/{part}/Softmax", axis=-1)
        mixed = graph.add("MatMul", share, content, name=f"/{part}/MatMul_1")
        mixed = graph.add("Transpose", mixed, name=f"/{part}/Transpose", perm=[0, 2, 1, 3])
        shape = graph.integers(0, 0, config.hidden_size)
        return graph.add("Reshape", mixed, shape, name=f"/{part}/Reshape")

    def layer(self, layer: str, value: str, bias: str, output: str | None) -> str:
        graph = self.graph
        mixed = self.linear(f"{layer}.attention.output.dense", self.attention(layer, value, bias))
        mixed = graph.add("Add", mixed, value, name=f"/{layer}/attention/output/Add")
        value = self.norm(f"{layer}.attention.output.LayerNorm", mixed)
        inner = self.linear(f"{layer}.intermediate.dense", value)
        inner = self.activation(f"/{layer}.intermediate/act", inner)
        outer = self.linear(f"{layer}.output.dense", inner)
        outer = graph.add("Add", outer, value, name=f"/{layer}/output/Add")
        return self.norm(f"{layer}.output.LayerNorm", outer, output)

    def activation(self, name: str, value: str) -> str:
        if self.config.hidden_act == "relu":
            return self.graph.add("Relu", value, name=name)
        approximate = "none" if self.config.hidden_act == "gelu" else "tanh"
        return self.graph.add("Gelu", value, name=name, approximate=approximate)

    def pooler(self, value: str) -> None:
        graph = self.graph
        zero = graph.constant("/pooler/first", np.array(0, np.int64))
        first = graph.add("Gather", value, zero, name="/pooler/Gather", axis=1)
        dense = self.linear("pooler.dense", first)
        graph.add("Tanh", dense, name="/pooler/Tanh", output="pooler_output")

    def embedding(self, value: str, mask: str) -> None:
        """Mean over the real tokens, then divided by its length, as sentence-transformers does."""
        graph = self.graph
        real = graph.add("Cast", mask, name="/embedding/Cast", to=TensorProto.FLOAT)
        axis = graph.integers(1)
        column = graph.add("Unsqueeze", real, graph.integers(-1), name="/embedding/Unsqueeze")
        kept = graph.add("Mul", value, column, name="/embedding/Mul")
        total = graph.add("ReduceSum", kept, axis, name="/embedding/ReduceSum", keepdims=0)
        count = graph.add("ReduceSum", real, axis, name="/embedding/ReduceSum_1", keepdims=1)
        count = graph.add("Clip", count, graph.number(1e-9), name="/embedding/Clip")
        mean = graph.add("Div", total, count, name="/embedding/Div")
        length = graph.add("ReduceL2", mean, axis, name="/embedding/ReduceL2", keepdims=1)
        length = graph.add("Clip", length, graph.number(1e-12), name="/embedding/Clip_1")
        graph.add("Div", mean, length, name="/embedding/Div_1", output="embedding")
