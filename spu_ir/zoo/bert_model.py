"""BERT from a HuggingFace configuration and weights with HuggingFace's key names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

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

OUTPUTS = ("last_hidden_state", "pooler_output", "embedding", *TASK_OUTPUTS)
"""
What `bert` can return: f32 `[batch, seq, hidden]`, `[batch, hidden]` (tanh of the first token),
`[batch, hidden]` (mean over the mask, of length one: a sentence embedding), and the two of the
question-answering head, `[batch, seq]`.
"""


@dataclass(frozen=True)
class BertConfig(TransformerConfig):
    """The fields of HuggingFace's `config.json` that shape the graph; defaults: BERT-base."""

    vocab_size: int = 30522


def weight_shapes(
    config: TransformerConfig, *, pooler: bool = False, head: bool = False
) -> dict[str, tuple[int, ...]]:
    """The HuggingFace key of every weight and its shape; a linear layer's is `[out, in]`."""
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes = embedding_shapes(config, hidden)
    for index in range(config.num_hidden_layers):
        layer = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            shapes.linear(f"{layer}.attention.self.{part}", hidden, hidden)
        shapes.linear(f"{layer}.attention.output.dense", hidden, hidden)
        shapes.norm(f"{layer}.attention.output.LayerNorm", hidden)
        shapes.linear(f"{layer}.intermediate.dense", inner, hidden)
        shapes.linear(f"{layer}.output.dense", hidden, inner)
        shapes.norm(f"{layer}.output.LayerNorm", hidden)
    if pooler:
        shapes.linear("pooler.dense", hidden, hidden)
    if head:
        shapes.linear("qa_outputs", 2, hidden)
    return shapes


def random_weights(
    config: TransformerConfig, seed: int, *, pooler: bool = False, head: bool = False
) -> dict[str, Array]:
    """Well-conditioned weights of every key: see `spu_ir.zoo.transformer.random_network`."""
    return random_network(weight_shapes(config, pooler=pooler, head=head), seed)


def bert(
    config: BertConfig,
    weights: WeightSource | None = None,
    *,
    seed: int = 0,
    outputs: Sequence[str] = ("last_hidden_state",),
    inputs: Sequence[str] | None = None,
) -> onnx.ModelProto:
    """
    A BERT encoder, and the heads that `outputs` asks for: one or more of `OUTPUTS`.

    Inputs: token ids, attention mask (1 for a real token) and token types, int64 `[batch, seq]`
    with both extents dynamic. `inputs` names them; by default `input_ids`, `attention_mask` and
    `token_type_ids`, with the published `.1` at the end if `start_logits` or `end_logits` is
    asked for. `weights` (see `WeightSource`) have HuggingFace's keys, with or without the prefix
    `bert.`; None means random ones from `seed`.

    Raises SpuError for a weight that is missing or misshapen, or an unknown output.
    """
    check_outputs(outputs, OUTPUTS)
    chosen = choose_weights(config, weights, seed, outputs, "bert.")
    return BertGraph("bert", config, chosen).build(input_names(inputs, outputs), outputs)


def choose_weights(
    config: TransformerConfig,
    source: WeightSource | None,
    seed: int,
    outputs: Sequence[str],
    prefix: str,
) -> dict[str, Array]:
    """The weights that `outputs` need, from `source` or random."""
    pooler, head = "pooler_output" in outputs, bool(set(outputs) & set(TASK_OUTPUTS))
    if source is None:
        return random_weights(config, seed, pooler=pooler, head=head)
    shapes = weight_shapes(config, pooler=pooler, head=head)
    return check_weights(strip_prefix(source, prefix), shapes)


class BertGraph(TransformerGraph):
    """Writes BERT; a subclass may number positions in its own way."""

    def build(self, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
        ids, mask, types = self.open(inputs)
        value = self.embeddings(ids, types)
        bias = self.mask_bias(mask)
        last = self.config.num_hidden_layers - 1
        for index in range(self.config.num_hidden_layers):
            named = "last_hidden_state" if index == last else None
            value = self.layer(f"encoder.layer.{index}", value, bias, named)
        return self.finish(value, mask, outputs)

    def layer(self, layer: str, value: str, bias: str, output: str | None) -> str:
        graph = self.graph
        mixed = self.attention(f"{layer}.attention.self", value, bias)
        mixed = self.linear(f"{layer}.attention.output.dense", mixed)
        mixed = graph.add("Add", mixed, value, name=f"/{layer}/attention/output/Add")
        value = self.norm(f"{layer}.attention.output.LayerNorm", mixed)
        inner = self.linear(f"{layer}.intermediate.dense", value)
        inner = self.activation(f"/{layer}.intermediate/act", inner)
        outer = self.linear(f"{layer}.output.dense", inner)
        outer = graph.add("Add", outer, value, name=f"/{layer}/output/Add")
        return self.norm(f"{layer}.output.LayerNorm", outer, output=output)
