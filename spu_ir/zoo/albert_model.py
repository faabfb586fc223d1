"""ALBERT from a HuggingFace configuration and weights with HuggingFace's key names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import onnx

from spu_ir.errors import SpuError

from .transformer import (
    TASK_OUTPUTS,
    TransformerConfig,
    TransformerGraph,
    check_outputs,
    embedding_shapes,
    input_names,
    random_network,
    strip_prefix,
)
from .weights import Array, WeightSource, check_weights

OUTPUTS = ("last_hidden_state", "embedding", *TASK_OUTPUTS)
"""What `albert` can return; shapes as of `bert_model.OUTPUTS`."""

SHARED = "encoder.albert_layer_groups.0.albert_layers.0"
"""Where the weights of every layer are."""


@dataclass(frozen=True)
class AlbertConfig(TransformerConfig):
    """The fields of HuggingFace's `config.json` that shape the graph; defaults: ALBERT-base-v2."""

    vocab_size: int = 30000
    hidden_act: str = "gelu_new"
    embedding_size: int = 128

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        for name in ("num_hidden_groups", "inner_group_num"):
            if config.get(name, 1) != 1:
                raise SpuError(
                    f"{name} {config[name]} is not supported",
                    remedy="use a model whose layers all share one set of weights",
                )
        return super().from_dict(config)


def weight_shapes(config: AlbertConfig, *, head: bool = True) -> dict[str, tuple[int, ...]]:
    """The HuggingFace key of every weight and its shape; a linear layer's is `[out, in]`."""
    hidden, inner, width = config.hidden_size, config.intermediate_size, config.embedding_size
    shapes = embedding_shapes(config, width)
    shapes.linear("encoder.embedding_hidden_mapping_in", hidden, width)
    shapes.norm(f"{SHARED}.full_layer_layer_norm", hidden)
    for part in ("query", "key", "value", "dense"):
        shapes.linear(f"{SHARED}.attention.{part}", hidden, hidden)
    shapes.norm(f"{SHARED}.attention.LayerNorm", hidden)
    shapes.linear(f"{SHARED}.ffn", inner, hidden)
    shapes.linear(f"{SHARED}.ffn_output", hidden, inner)
    if head:
        shapes.linear("qa_outputs", 2, hidden)
    return shapes


def random_weights(config: AlbertConfig, seed: int, *, head: bool = True) -> dict[str, Array]:
    """Well-conditioned weights of every key: see `spu_ir.zoo.transformer.random_network`."""
    return random_network(weight_shapes(config, head=head), seed)


def albert(
    config: AlbertConfig,
    weights: WeightSource | None = None,
    *,
    seed: int = 0,
    outputs: Sequence[str] = TASK_OUTPUTS,
    inputs: Sequence[str] | None = None,
) -> onnx.ModelProto:
    """
    An ALBERT encoder, and the heads that `outputs` asks for: one or more of `OUTPUTS`.

    All layers read the same initialisers, so the model holds one copy of their weights. Inputs,
    their names, weights (prefix `albert.`) and errors are those of `bert`.
    """
    check_outputs(outputs, OUTPUTS)
    head = bool(set(outputs) & set(TASK_OUTPUTS))
    if weights is None:
        chosen = random_weights(config, seed, head=head)
    else:
        chosen = check_weights(strip_prefix(weights, "albert."), weight_shapes(config, head=head))
    return _AlbertGraph("albert", config, chosen).build(input_names(inputs, outputs), outputs)


class _AlbertGraph(TransformerGraph):
    def build(self, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
        ids, mask, types = self.open(inputs)
        value = self.embeddings(ids, types)
        value = self.linear("encoder.embedding_hidden_mapping_in", value)
        bias = self.mask_bias(mask)
        last = self.config.num_hidden_layers - 1
        for index in range(self.config.num_hidden_layers):
            named = "last_hidden_state" if index == last else None
            value = self.layer(f"encoder.layer.{index}", value, bias, named)
        return self.finish(value, mask, outputs)

    def layer(self, layer: str, value: str, bias: str, output: str | None) -> str:
        """One application of the shared layer; `layer` names its nodes."""
        graph = self.graph
        mixed = self.attention(f"{SHARED}.attention", value, bias, f"{layer}.attention")
        mixed = self.linear(f"{SHARED}.attention.dense", mixed, f"{layer}.attention.dense")
        mixed = graph.add("Add", value, mixed, name=f"/{layer}/attention/Add")
        norm = "attention.LayerNorm"
        value = self.norm(f"{SHARED}.{norm}", mixed, f"{layer}.{norm}")
        inner = self.linear(f"{SHARED}.ffn", value, f"{layer}.ffn")
        inner = self.activation(f"/{layer}/activation", inner)
        outer = self.linear(f"{SHARED}.ffn_output", inner, f"{layer}.ffn_output")
        outer = graph.add("Add", outer, value, name=f"/{layer}/Add")
        norm = "full_layer_layer_norm"
        return self.norm(f"{SHARED}.{norm}", outer, f"{layer}.{norm}", output)
