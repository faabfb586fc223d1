"""The five published models: how each is built, fed and bounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx

from spu_ir.errors import SpuError
from spu_ir.sparsify import magnitude
from spu_ir.sparsify.magnitude import Structure

from .albert_model import AlbertConfig, albert
from .bert_model import BertConfig, bert
from .conformer_model import ConformerConfig, conformer
from .resnet import ResNetConfig, noise_images, resnet50
from .roberta_model import RobertaConfig, roberta
from .transformer import TASK_INPUTS, TASK_OUTPUTS, TransformerConfig
from .weights import Array, WeightSource

Source: TypeAlias = WeightSource | None
Feeds: TypeAlias = dict[str, Array]
Config: TypeAlias = TransformerConfig | ConformerConfig | ResNetConfig
Builder: TypeAlias = Callable[[Any, Source, int, float, Structure], onnx.ModelProto]
"""Of configuration, weights, seed, and the ratio and structure that random weights have to suit."""

Sampler: TypeAlias = Callable[[Any, int, int, np.random.Generator], Feeds]

MAX_BATCH = 64
SEQ = 384
"""Tokens of a question and its passage at the published interface."""


@dataclass(frozen=True)
class Published:
    """
    One model at its published interface.

    `dataclasses.replace(model, config=...)` gives the same network in other sizes, for tests.
    """

    name: str
    """As `python -m spu_ir.zoo` and `published` know it."""
    task: str
    """The ByteMLPerf task that it is the model of."""
    config: Config
    bounds: Mapping[str, tuple[int, int]]
    """The run-time extents and their bounds, as `spu_ir.compile(shapes=...)` takes them."""
    outputs: tuple[str, ...]
    sparsity: int
    """The ratio that its published figures are for."""
    precision: str
    """The arithmetic that its published figures are for, as they state it."""
    builder: Builder
    sampler: Sampler

    def build(
        self,
        weights: WeightSource | None = None,
        *,
        seed: int = 0,
        ratio: float = 1,
        structure: Structure = "banked",
    ) -> onnx.ModelProto:
        """
        The model with `weights`, or random ones from `seed`, pruned by magnitude.

        `ratio` and `structure` are those of `spu_ir.sparsify.magnitude`. Raises SpuError for a
        weight that is missing or misshapen.
        """
        model = self.builder(self.config, weights, seed, ratio, structure)
        return magnitude(model, ratio, structure=structure)

    @property
    def seq(self) -> int | None:
        """The longest, and published, sequence; None for a model whose inputs have one size."""
        return self.bounds["seq"][1] if "seq" in self.bounds else None

    def feeds(self, batch: int = 1, seq: int | None = None, *, seed: int = 0) -> Feeds:
        """
        Inputs that look like real ones, from `seed`.

        Texts have from a quarter of `seq` tokens (default: all that the bounds allow) to all of
        them, padded on the right with the padding token under a mask of zeros; token types are 1
        for the second half of a text where the model has two. The Conformer's images are noise,
        with the last frames masked in up to half of their width. ResNet's are noise at several
        scales, of unit variance.
        """
        return self.sampler(self.config, batch, seq or self.seq or 1, np.random.default_rng(seed))


def _text(config: TransformerConfig, batch: int, seq: int, random: np.random.Generator) -> Feeds:
    padding = config.pad_token_id if isinstance(config, RobertaConfig) else 0
    lengths = random.integers(-(-seq // 4), seq + 1, (batch, 1))
    place = np.arange(seq)
    real = place < lengths
    ids = random.integers(padding + 1, config.vocab_size, (batch, seq))
    types = real & (place >= lengths // 2) if config.type_vocab_size > 1 else np.zeros_like(real)
    values = (np.where(real, ids, padding), real, types)
    return {name: value.astype(np.int64) for name, value in zip(TASK_INPUTS, values, strict=True)}


def _frames(config: ConformerConfig, batch: int, _: int, random: np.random.Generator) -> Feeds:
    image = (batch, config.channels, config.height, config.width)
    lengths = random.integers(-(-config.time // 2), config.time + 1, (batch, 1))
    return {
        "src": random.standard_normal(image, np.float32),
        "src_pad_mask": np.arange(config.time) >= lengths,
    }


def _images(config: ResNetConfig, batch: int, _: int, random: np.random.Generator) -> Feeds:
    images = noise_images(random, batch, config.image)
    return {"input_1.1": np.ascontiguousarray(images.transpose(0, 3, 1, 2))}


def _bert(config: BertConfig, weights: Source, seed: int, *_: Any) -> onnx.ModelProto:
    return bert(config, weights, seed=seed, outputs=TASK_OUTPUTS)


def _albert(config: AlbertConfig, weights: Source, seed: int, *_: Any) -> onnx.ModelProto:
    return albert(config, weights, seed=seed)


def _roberta(config: RobertaConfig, weights: Source, seed: int, *_: Any) -> onnx.ModelProto:
    return roberta(config, weights, seed=seed)


def _resnet(
    config: ResNetConfig, weights: Source, seed: int, ratio: float, structure: Structure
) -> onnx.ModelProto:
    return resnet50(
        weights,
        seed=seed,
        ratio=ratio,
        structure=structure,
        input_name="input_1.1",
        output_name="softmax_tensor:0",
        config=config,
    )


def _conformer(config: ConformerConfig, weights: Source, seed: int, *_: Any) -> onnx.ModelProto:
    return conformer(config, weights, seed=seed)


def _question_answering(name: str, config: TransformerConfig, builder: Builder) -> Published:
    return Published(
        name=name,
        task=f"{name}-torch-fp32",
        config=config,
        bounds={"batch": (1, MAX_BATCH), "seq": (1, SEQ)},
        outputs=TASK_OUTPUTS,
        sparsity=16,
        precision="INT8/BF16",
        builder=builder,
        sampler=_text,
    )


MODELS: dict[str, Published] = {
    model.name: model
    for model in (
        _question_answering("bert", BertConfig(), _bert),
        _question_answering("albert", AlbertConfig(), _albert),
        _question_answering("roberta", RobertaConfig(), _roberta),
        Published(
            name="resnet50",
            task="resnet50-torch-fp32",
            config=ResNetConfig(),
            bounds={"batch": (1, MAX_BATCH)},
            outputs=("softmax_tensor:0",),
            sparsity=16,
            precision="INT8",
            builder=_resnet,
            sampler=_images,
        ),
        Published(
            name="conformer",
            task="conformer-encoder-onnx-fp32",
            config=ConformerConfig(),
            bounds={"batch": (1, MAX_BATCH)},
            outputs=("memory",),
            sparsity=8,
            precision="INT8/BF16",
            builder=_conformer,
            sampler=_frames,
        ),
    )
}
"""The published models by their names."""


def published(name: str) -> Published:
    """The model of a name or of a ByteMLPerf task. Raises SpuError for any other."""
    for model in MODELS.values():
        if name in (model.name, model.task):
            return model
    raise SpuError(f"model {name!r} is not known", remedy=f"use one of {', '.join(MODELS)}")
