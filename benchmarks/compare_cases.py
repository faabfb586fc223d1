"""What the speed comparison runs: the cases of the fidelity benchmark, at their published sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from spu_ir.errors import SpuError
from spu_ir.zoo import ConformerConfig
from spu_ir.zoo.conformer_model import STRIDES
from spu_ir.zoo.resnet import ResNetConfig

from .fidelity_cases import (
    CALIBRATION_FEEDS,
    CALIBRATION_SEED,
    MEASURED_SEED,
    NAMES,
    Case,
    Feeds,
    case,
)
from .ratios import Ratio

LINES = {"fp32": 1e-2, "int8": 0.3}
"""
Above this relative L2 error an engine's answers are wrong, rather than rounded.

Not a line of quality: that is what docs/fidelity.md is about. FP32 is this lenient since engines
may compute FP32 models in BF16.
"""


@dataclass(frozen=True)
class Subject:
    """One model as it is compared."""

    name: str
    case: Case
    seq: int | None
    """Tokens of a text, all of them real; None for models whose inputs have one size."""

    @property
    def transformer(self) -> bool:
        """Whether it consists of attention and products, as quantisers want to be told."""
        return self.name != "resnet50"

    def build(self, ratio: Ratio) -> onnx.ModelProto:
        """The FP32 model, pruned at `ratio`: what every engine starts from."""
        return self.case.build(ratio)

    def options(self) -> dict[str, Any]:
        """The arguments of `spu_ir.compile`, those of the fidelity benchmark."""
        return self.case.options("int8")

    def extents(self, batch: int) -> dict[str, int]:
        """The run-time extents by name."""
        return {"batch": batch} | ({"seq": self.seq} if self.seq else {})

    def feeds(self, batch: int) -> Feeds:
        """Inputs without padding: nothing is there that an engine could leave out."""
        return unpadded(self.case.model.feeds(batch, self.seq, seed=MEASURED_SEED))

    def calibration(self) -> list[Feeds]:
        """The inputs on which every quantiser that calibrates chooses its ranges."""
        return [
            self.case.model.feeds(1, self.seq, seed=CALIBRATION_SEED + number)
            for number in range(CALIBRATION_FEEDS)
        ]

    @property
    def size(self) -> str:
        """The size of one input, for eyes."""
        config = self.case.model.config
        if isinstance(config, ConformerConfig):
            steps = config.width // STRIDES
            return f"{config.channels} x {config.height} x {config.width}, {steps} steps"
        if isinstance(config, ResNetConfig):
            return f"3 x {config.image} x {config.image}"
        return f"{self.seq} tokens"


def unpadded(feeds: Feeds) -> Feeds:
    """The same inputs, every position real; what was padding gets the tokens of a real place."""
    found = dict(feeds)
    for name, array in feeds.items():
        if name.startswith("attention_mask"):
            real = array.astype(np.bool_)
            found[name] = np.ones_like(array)
            ids = next(key for key in feeds if key.startswith("input_ids"))
            filler = feeds[ids][:, :1]  # The first token is always real.
            found[ids] = np.where(real, feeds[ids], filler)
        elif name == "src_pad_mask":
            found[name] = np.zeros_like(array)
    return found


def subject(name: str, *, quick: bool = False) -> Subject:
    """
    The subject of a name of `NAMES`.

    `quick` gives 2 layers at the same widths, short sequences and small images. Raises SpuError
    for an unknown name.
    """
    if name not in NAMES:
        raise SpuError(f"model {name!r} is not compared", remedy=f"use one of {', '.join(NAMES)}")
    found = case(name, quick=quick)
    longest = found.model.seq
    seq = None if longest is None else (64 if quick else longest)
    return Subject(name, found, seq)
