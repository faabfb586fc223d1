"""RoBERTa from a HuggingFace configuration and weights with HuggingFace's key names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from .bert_model import OUTPUTS, BertGraph, choose_weights
from .transformer import TASK_OUTPUTS, TransformerConfig, check_outputs, input_names
from .weights import Array, WeightSource


@dataclass(frozen=True)
class RobertaConfig(TransformerConfig):
    """
    The fields of HuggingFace's `config.json` that shape the graph; defaults: RoBERTa-base.

    Positions are counted from `pad_token_id + 1`, so of `max_position_embeddings` that many are
    never those of a token.
    """

    vocab_size: int = 50265
    max_position_embeddings: int = 514
    type_vocab_size: int = 1
    layer_norm_eps: float = 1e-5
    pad_token_id: int = 1

    @property
    def max_tokens(self) -> int:
        return self.max_position_embeddings - self.pad_token_id - 1


def roberta(
    config: RobertaConfig,
    weights: WeightSource | None = None,
    *,
    seed: int = 0,
    outputs: Sequence[str] = TASK_OUTPUTS,
    inputs: Sequence[str] | None = None,
) -> onnx.ModelProto:
    """
    A RoBERTa encoder, and the heads that `outputs` asks for: one or more of `bert_model.OUTPUTS`.

    The same graph as `bert` but for its positions: the n-th token that is not `pad_token_id` has
    the position `pad_token_id + n`, padding has `pad_token_id`, whatever the attention mask says.
    Inputs, their names, weights (prefix `roberta.`) and errors are those of `bert`.
    """
    check_outputs(outputs, OUTPUTS)
    chosen = choose_weights(config, weights, seed, outputs, "roberta.")
    graph = _RobertaGraph(config, chosen)
    return graph.build(input_names(inputs, outputs), outputs)


class _RobertaGraph(BertGraph):
    def __init__(self, config: RobertaConfig, weights: Mapping[str, Array]):
        super().__init__("roberta", config, weights)
        self.padding = config.pad_token_id

    def positions(self, ids: str) -> str:
        """As HuggingFace's `create_position_ids_from_input_ids`: f32 `[batch, seq, hidden]`."""
        graph, part = self.graph, "/embeddings/position_ids"
        padding = graph.constant(f"{part}/padding", np.array(self.padding, np.int64))
        axis = graph.constant(f"{part}/axis", np.array(1, np.int64))
        empty = graph.add("Equal", ids, padding, name=f"{part}/Equal")
        real = graph.add("Not", empty, name=f"{part}/Not")
        real = graph.add("Cast", real, name=f"{part}/Cast", to=TensorProto.INT64)
        count = graph.add("CumSum", real, axis, name=f"{part}/CumSum")
        count = graph.add("Mul", count, real, name=f"{part}/Mul")
        number = graph.add("Add", count, padding, name=f"{part}/Add")
        return graph.add(
            "Gather",
            self.constant("embeddings.position_embeddings.weight"),
            number,
            name="/embeddings/position_embeddings/Gather",
        )
