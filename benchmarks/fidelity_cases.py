"""What the fidelity benchmark measures: models, inputs, bounds and the error of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx

from spu_ir.zoo import MODELS, ConformerConfig, Published, ResNetConfig, published
from spu_ir.zoo.transformer import TransformerConfig

from . import ratios
from .ratios import Ratio

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Feeds: TypeAlias = dict[str, Array]
Form: TypeAlias = Literal["dynamic", "static"]
Precision: TypeAlias = Literal["fp32", "bf16", "int8"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")

SPEECH_NAME = "conformer-speech"
SPEECH = {"channels": 1, "height": 80, "width": 1000}
"""The Conformer over 10 s of speech: 1000 frames of 80 bands, 250 steps behind its strides."""
NAMES = ("resnet50", "bert", "albert", "roberta", "conformer", SPEECH_NAME)
"""The published models, and one of them at another size."""
RATIOS: tuple[Ratio, ...] = (1, 8, 16, 32, "95%")
CALIBRATION_FEEDS = 4
MEASURED_SEED, CALIBRATION_SEED = 100, 200
"""Seeds of inputs: what is measured is never what ranges were chosen on."""


@dataclass(frozen=True)
class Case:
    """One model with the inputs on which it is measured."""

    model: Published
    batch: int = 2
    seq: int = 128
    size: str = "full"
    """`full`, or what was left of the network."""

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def form(self) -> Form:
        """How ONNX Runtime quantises it: its own advice for CNNs is static, else dynamic."""
        return "static" if isinstance(self.model.config, ResNetConfig) else "dynamic"

    @property
    def convolves(self) -> bool:
        """Whether it has convolutions, whose ranges have to be calibrated."""
        return isinstance(self.model.config, ResNetConfig | ConformerConfig)

    def build(self, ratio: Ratio) -> onnx.ModelProto:
        """The FP32 model with seeded weights, pruned at `ratio`."""
        return ratios.build(self.model, ratio)

    def feeds(self) -> Feeds:
        """The inputs that are measured."""
        return self.model.feeds(self.batch, self.seq, seed=MEASURED_SEED)

    def calibration(self) -> list[Feeds]:
        """The inputs that both quantisers see first; none where ranges are found at run time."""
        if not self.convolves:
            return []
        return [
            self.model.feeds(1, self.seq, seed=CALIBRATION_SEED + number)
            for number in range(CALIBRATION_FEEDS)
        ]

    def options(self, precision: Precision) -> dict[str, Any]:
        """
        The keyword arguments of `spu_ir.compile`.

        A speed benchmark that compiles `build(ratio)` with these gets the very package whose
        digest the report has.
        """
        found: dict[str, Any] = {"precision": precision, "shapes": dict(self.model.bounds)}
        if precision == "int8" and self.convolves:
            found["calibration"] = self.calibration()
        return found

    def real(self, feeds: Mapping[str, Array]) -> Array | None:
        """bool `[batch, seq]`: which positions are not padding; None where there is no mask."""
        for name, array in feeds.items():
            if name.startswith("attention_mask"):
                return array.astype(np.bool_)
            if name == "src_pad_mask":
                return ~array
        return None

    def error(self, got: Mapping[str, Array], want: Mapping[str, Array], feeds: Feeds) -> float:
        """The relative L2 error of all outputs together, over real positions only."""
        real = self.real(feeds)

        def flat(outputs: Mapping[str, Array]) -> Array:
            parts = [outputs[name] if real is None else outputs[name][real] for name in want]
            return np.concatenate([part.reshape(-1).astype(np.float64) for part in parts])

        return relative(flat(got), flat(want))


def relative(got: Array, want: Array) -> float:
    """`|got - want| / |want|`, in double precision; infinite for anything that is not finite."""
    a, b = got.astype(np.float64).reshape(-1), want.astype(np.float64).reshape(-1)
    size = float(np.linalg.norm(b))
    error = float(np.linalg.norm(a - b))
    if not (np.isfinite(error) and np.isfinite(size)):
        return float("inf")
    return error / size if size else float(error > 0)


def case(name: str, *, quick: bool = False) -> Case:
    """
    A model of `NAMES` as it is measured: batch 2, sequences of 128.

    `quick` keeps the widths and takes 2 layers (ResNet: one block a stage, images of 64).
    Raises SpuError for an unknown name.
    """
    speech = name == SPEECH_NAME
    model = published("conformer" if speech else name)
    config: Any = model.config
    if speech:
        config = replace(config, **SPEECH)
        model = replace(model, name=name, config=config)
    if not quick:
        return Case(model)
    if isinstance(config, TransformerConfig):
        config = replace(config, num_hidden_layers=2, vocab_size=2000)
    elif isinstance(config, ConformerConfig):
        config = replace(config, layers=2)
    else:
        config = replace(config, blocks=(1, 1, 1, 1), image=64)
    size = "4 blocks" if isinstance(config, ResNetConfig) else "2 layers"
    return Case(replace(model, config=config), seq=64, size=size)


assert set(NAMES) == {*MODELS, SPEECH_NAME}
