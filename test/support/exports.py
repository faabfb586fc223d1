"""The ways of BERT, ALBERT and RoBERTa from transformers to ONNX; PyTorch is loaded when asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from spu_ir.zoo.transformer import TASK_INPUTS

SHAPES = {"batch": (1, 8), "seq": (2, 128)}
"""The run-time extents and their bounds."""


@dataclass(frozen=True)
class Export:
    """One model by one way to ONNX."""

    model: str
    """`Bert`, `Albert` or `Roberta`."""
    dynamo: bool
    """`torch.onnx.export(dynamo=True)`, else TorchScript."""
    attention: str
    """transformers' attention implementation, `sdpa` or `eager`."""
    opset: int | None = None
    """None for the exporter's default."""
    masked: bool = True
    """With inputs for the attention mask and the token types."""

    def __str__(self) -> str:
        parts = [self.model, "dynamo" if self.dynamo else "torchscript", self.attention]
        parts += [] if self.opset is None else [f"opset{self.opset}"]
        return "-".join([*parts, *([] if self.masked else ["unmasked"])])

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs, those of the published interface."""
        return TASK_INPUTS if self.masked else TASK_INPUTS[:1]

    def feeds(self, batch: int, seq: int, seed: int = 0, vocab: int = 300) -> dict[str, Any]:
        """Right-padded samples, the first one of full length, each of one token at least."""
        random = np.random.default_rng(seed)
        lengths = random.integers(1, seq + 1, batch)
        lengths[0] = seq
        real = np.arange(seq) < lengths[:, None]
        pad = 1 if self.model == "Roberta" else 0
        arrays = (
            np.where(real, random.integers(2, vocab, (batch, seq)), pad),
            real.astype(np.int64),
            random.integers(0, 2, (batch, seq)),
        )
        return dict(zip(self.inputs, arrays, strict=False))
