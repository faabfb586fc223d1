"""BERT, ALBERT and RoBERTa for question answering from transformers, exported to ONNX."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from support.exports import SHAPES, Export

from spu_ir.zoo.transformer import TASK_OUTPUTS

SMALL: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 130,
    "initializer_range": 0.1,
}
OWN: dict[str, dict[str, Any]] = {
    "Bert": {},
    "Albert": {"embedding_size": 32},
    "Roberta": {"type_vocab_size": 2, "pad_token_id": 1},
}
"""What the configurations add to `SMALL`."""


class Network(torch.nn.Module):
    """A model for question answering with tensors in and out."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        result = self.network(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        )
        return result.start_logits, result.end_logits


def build(way: Export, config: dict[str, Any]) -> Network:
    """The model with random weights, seeded, none equal to another."""
    torch.manual_seed(0)
    made = getattr(transformers, f"{way.model}Config")(**OWN[way.model], **config)
    network = getattr(transformers, f"{way.model}ForQuestionAnswering")(made)
    network.set_attn_implementation(way.attention)
    with torch.no_grad():
        # Exporters store equal weights once, which would hide one that is taken for another.
        for weight in network.parameters():
            if weight.dim() == 1:
                weight.add_(torch.randn_like(weight), alpha=0.1)
    return Network(network).eval()


def write(way: Export, path: Path, config: dict[str, Any] | None = None) -> Network:
    """Export to `path`, batch and sequence free, and return the model."""
    network = build(way, SMALL if config is None else config)
    feeds = way.feeds(2, 9, vocab=16)
    free: dict[str, Any]
    if way.dynamo:
        axes: dict[int, Any] = {
            axis: torch.export.Dim(name, min=low, max=high)
            for axis, (name, (low, high)) in enumerate(SHAPES.items())
        }
        names = ("input_ids", "attention_mask", "token_type_ids")[: len(feeds)]
        free = {"dynamic_shapes": dict.fromkeys(names, axes), "external_data": False}
    else:
        axes = dict(enumerate(SHAPES))
        free = {"dynamic_axes": dict.fromkeys((*way.inputs, *TASK_OUTPUTS), axes)}
    with warnings.catch_warnings():
        # Of PyTorch and transformers about themselves.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            tuple(torch.from_numpy(array) for array in feeds.values()),
            str(path),
            input_names=list(way.inputs),
            output_names=list(TASK_OUTPUTS),
            opset_version=way.opset,
            dynamo=way.dynamo,
            verbose=False,
            **free,
        )
    return network
