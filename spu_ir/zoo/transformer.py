"""What BERT, ALBERT and RoBERTa have in common: their configuration and the parts of the graph."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import sqrt
from typing import Any, Self

import numpy as np
import onnx
from onnx import TensorProto

from spu_ir.errors import SpuError

from .common import GraphBuilder
from .weights import Array, Weights, WeightSource, random_weights, read_weights

TASK_OUTPUTS = ("start_logits", "end_logits")
"""
The outputs of the question-answering head, both f32 `[batch, seq]`: a score for every token to
be the first and the last of the answer.
"""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""HuggingFace's names of the inputs, the default of models without the head."""

TASK_INPUTS = ("input_ids.1", "attention_mask.1", "token_type_ids.1")
"""The names at the published interface, the default of models with the head."""

_ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")


@dataclass(frozen=True)
class TransformerConfig:
    """The fields of HuggingFace's `config.json` that shape the graph."""

    vocab_size: int
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12

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

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """From the mapping in a `config.json`; fields that do not shape the graph are ignored."""
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise SpuError(
                f"position_embedding_type {config['position_embedding_type']!r} is not supported",
                remedy="use a model with absolute positions",
            )
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in config.items() if key in known})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """From the text of a `config.json`."""
        return cls.from_dict(json.loads(text))

    @property
    def depth(self) -> int:
        """Channels of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def max_tokens(self) -> int:
        """The longest sequence that has positions."""
        return self.max_position_embeddings


class Shapes(dict[str, tuple[int, ...]]):
    """The key of every weight and its shape, collected layer by layer."""

    def norm(self, name: str, channels: int) -> None:
        """A LayerNorm over `channels`."""
        self[f"{name}.weight"] = self[f"{name}.bias"] = (channels,)

    def linear(self, name: str, out: int, into: int) -> None:
        """A linear layer; its weight is `[out, into]`."""
        self[f"{name}.weight"] = (out, into)
        self[f"{name}.bias"] = (out,)


def embedding_shapes(config: TransformerConfig, width: int) -> Shapes:
    """The weights of the embeddings, `width` channels wide, in HuggingFace's order."""
    shapes = Shapes()
    shapes["embeddings.word_embeddings.weight"] = (config.vocab_size, width)
    shapes["embeddings.position_embeddings.weight"] = (config.max_position_embeddings, width)
    shapes["embeddings.token_type_embeddings.weight"] = (config.type_vocab_size, width)
    shapes.norm("embeddings.LayerNorm", width)
    return shapes


def random_network(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Array]:
    """
    Well-conditioned weights of an encoder: see `spu_ir.zoo.weights.random_weights` for the rule.

    Queries and keys are larger, so that attention picks some tokens rather than all alike. What
    is added to the residual is smaller, and words outweigh positions and types, so that tokens
    stay apart from each other through all layers, also where these share their weights.
    """
    return random_weights(shapes, seed, _gain, _behind_activation)


def _behind_activation(name: str) -> bool:
    if name.endswith("ffn_output.weight"):
        return True
    return name.endswith("output.dense.weight") and "attention" not in name


def _gain(name: str) -> float:
    if "token_type_embeddings" in name:
        return 0.2
    if "position_embeddings" in name:
        return 0.5
    if ".query." in name or ".key." in name:
        return 1.3
    if name.endswith(("attention.output.dense.weight", "attention.dense.weight")):
        return 0.3
    return 0.5 if _behind_activation(name) else 1.0


def strip_prefix(source: WeightSource, prefix: str) -> Weights:
    """
    Weights by their keys in the bare encoder, and `qa_outputs`.

    Models with a head write `prefix` before the encoder's keys; checkpoints that were converted
    from TensorFlow call a LayerNorm's weight and bias `gamma` and `beta`.
    """
    weights: dict[str, Any] = {}
    for name, value in read_weights(source).items():
        stem, dot, last = name.removeprefix(prefix).rpartition(".")
        if stem.endswith("LayerNorm"):
            last = {"gamma": "weight", "beta": "bias"}.get(last, last)
        weights[f"{stem}{dot}{last}"] = value
    return weights


def check_outputs(outputs: Sequence[str], known: Sequence[str]) -> None:
    """Raise SpuError unless one or more known outputs are asked for."""
    unknown = [name for name in outputs if name not in known]
    if unknown or not outputs:
        raise SpuError(
            f"unknown output {unknown[0]!r}" if unknown else "no output is asked for",
            remedy=f"use one or more of {', '.join(known)}",
        )


def input_names(inputs: Sequence[str] | None, outputs: Sequence[str]) -> tuple[str, str, str]:
    """The names of token ids, mask and token types; SpuError unless they are three."""
    if inputs is None:
        inputs = TASK_INPUTS if set(outputs) & set(TASK_OUTPUTS) else INPUTS
    if len(inputs) != 3 or len(set(inputs)) != 3:
        raise SpuError(
            f"inputs {list(inputs)} are not three names",
            remedy="name the token ids, the attention mask and the token types",
        )
    return inputs[0], inputs[1], inputs[2]


class TransformerGraph:
    """
    Writes the parts of one encoder; methods return the name of the value that they made.

    Weights are named by their keys and nodes by where they are, so that layers can share weights.
    Attention is written in single operators (Reshape, Transpose, MatMul, Softmax), as exporters
    do.
    """

    def __init__(self, name: str, config: TransformerConfig, weights: Mapping[str, Array]):
        self.graph = GraphBuilder(name)
        self.config = config
        self.weights = weights

    def open(self, inputs: Sequence[str]) -> tuple[str, str, str]:
        """Declare the inputs: token ids, mask and token types, int64 `[batch, seq]`."""
        ids, mask, types = (
            self.graph.input(name, TensorProto.INT64, ["batch", "seq"]) for name in inputs
        )
        return ids, mask, types

    def constant(self, name: str) -> str:
        return self.graph.constant(name, self.weights[name])

    def linear(self, name: str, value: str, node: str | None = None) -> str:
        """`value @ weight.T + bias`; the initialiser is the weight transposed, `[in, out]`."""
        graph, node = self.graph, node or name
        weight = graph.constant(f"{name}.weight", self.weights[f"{name}.weight"].T)
        product = graph.add("MatMul", value, weight, name=f"/{node}/MatMul")
        return graph.add("Add", product, self.constant(f"{name}.bias"), name=f"/{node}/Add")

    def norm(
        self, name: str, value: str, node: str | None = None, output: str | None = None
    ) -> str:
        return self.graph.add(
            "LayerNormalization",
            value,
            self.constant(f"{name}.weight"),
            self.constant(f"{name}.bias"),
            name=f"/{node or name}/LayerNormalization",
            output=output,
            axis=-1,
            epsilon=self.config.layer_norm_eps,
        )

    def embeddings(self, ids: str, types: str) -> str:
        """Words, token types and positions, added and normalised."""
        graph = self.graph
        words, kinds = (
            graph.add(
                "Gather",
                self.constant(f"embeddings.{part}_embeddings.weight"),
                indices,
                name=f"/embeddings/{part}_embeddings/Gather",
            )
            for part, indices in (("word", ids), ("token_type", types))
        )
        positions = self.positions(ids)
        total = graph.add("Add", words, kinds, name="/embeddings/Add")
        total = graph.add("Add", total, positions, name="/embeddings/Add_1")
        return self.norm("embeddings.LayerNorm", total)

    def positions(self, ids: str) -> str:
        """The embeddings of positions 0, 1, ..., f32 `[seq, width]`."""
        graph = self.graph
        seq = graph.add("Shape", ids, name="/embeddings/Shape", start=1, end=2)
        return graph.add(
            "Slice",
            self.constant("embeddings.position_embeddings.weight"),
            graph.integers(0),
            seq,
            graph.integers(0),
            name="/embeddings/position_embeddings/Slice",
        )

    def mask_bias(self, mask: str) -> str:
        """f32 `[batch, 1, 1, seq]`: 0 for a real token, the lowest number for padding."""
        graph = self.graph
        wide = graph.add("Unsqueeze", mask, graph.integers(1, 2), name="/mask/Unsqueeze")
        real = graph.add("Cast", wide, name="/mask/Cast", to=TensorProto.FLOAT)
        padding = graph.add("Sub", graph.number(1.0), real, name="/mask/Sub")
        lowest = float(np.finfo(np.float32).min)
        return graph.add("Mul", padding, graph.number(lowest), name="/mask/Mul")

    def attention(self, name: str, value: str, bias: str, node: str | None = None) -> str:
        """Self-attention up to the heads put together again; weights `{name}.query` and so on."""
        graph, config, node = self.graph, self.config, node or name

        def heads(part: str, order: Sequence[int]) -> str:
            split = self.linear(f"{name}.{part}", value, f"{node}.{part}")
            shape = graph.integers(0, 0, config.num_attention_heads, config.depth)
            cut = graph.add("Reshape", split, shape, name=f"/{node}.{part}/Reshape")
            return graph.add("Transpose", cut, name=f"/{node}.{part}/Transpose", perm=list(order))

        query = heads("query", (0, 2, 1, 3))
        key = heads("key", (0, 2, 3, 1))
        content = heads("value", (0, 2, 1, 3))
        scores = graph.add("MatMul", query, key, name=f"/{node}/MatMul")
        scores = graph.add("Div", scores, graph.number(sqrt(config.depth)), name=f"/{node}/Div")
        scores = graph.add("Add", scores, bias, name=f"/{node}/Add")
        share = graph.add("Softmax", scores, name=f"/{node}/Softmax", axis=-1)
        mixed = graph.add("MatMul", share, content, name=f"/{node}/MatMul_1")
        mixed = graph.add("Transpose", mixed, name=f"/{node}/Transpose", perm=[0, 2, 1, 3])
        shape = graph.integers(0, 0, config.hidden_size)
        return graph.add("Reshape", mixed, shape, name=f"/{node}/Reshape")

    def activation(self, name: str, value: str) -> str:
        if self.config.hidden_act == "relu":
            return self.graph.add("Relu", value, name=name)
        approximate = "none" if self.config.hidden_act == "gelu" else "tanh"
        return self.graph.add("Gelu", value, name=name, approximate=approximate)

    def pooler(self, value: str) -> None:
        """Output `pooler_output`: a linear layer and tanh of the first token."""
        graph = self.graph
        zero = graph.constant("/pooler/first", np.array(0, np.int64))
        first = graph.add("Gather", value, zero, name="/pooler/Gather", axis=1)
        dense = self.linear("pooler.dense", first)
        graph.add("Tanh", dense, name="/pooler/Tanh", output="pooler_output")

    def embedding(self, value: str, mask: str) -> None:
        """Output `embedding`: the mean over the real tokens, divided by its length."""
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

    def answer(self, value: str) -> None:
        """Outputs `start_logits` and `end_logits`: the two channels of a linear layer."""
        graph = self.graph
        logits = self.linear("qa_outputs", value)
        for part, output in zip(
            graph.split(logits, (1, 1), name="/qa_outputs/Split", axis=-1),
            TASK_OUTPUTS,
            strict=True,
        ):
            axis = graph.integers(-1)
            graph.add("Squeeze", part, axis, name=f"/{output}/Squeeze", output=output)

    def finish(self, value: str, mask: str, outputs: Sequence[str]) -> onnx.ModelProto:
        """The model with `outputs`, made from the last hidden state `value`."""
        graph, hidden = self.graph, self.config.hidden_size
        if set(outputs) & set(TASK_OUTPUTS):
            self.answer(value)
        for output in outputs:
            if output in TASK_OUTPUTS:
                graph.output(output, TensorProto.FLOAT, ["batch", "seq"])
            elif output == "last_hidden_state":
                graph.output(value, TensorProto.FLOAT, ["batch", "seq", hidden])
            elif output == "pooler_output":
                self.pooler(value)
                graph.output(output, TensorProto.FLOAT, ["batch", hidden])
            else:
                self.embedding(value, mask)
                graph.output(output, TensorProto.FLOAT, ["batch", hidden])
        return graph.model()
