"""The published models in sizes that a test can afford."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from spu_ir import zoo

Array = NDArray[Any]

_TEXT: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
SEQ = 48
"""The longest text of the small models."""

CONFIGS = {
    "bert": zoo.BertConfig(**_TEXT, max_position_embeddings=SEQ),
    "albert": zoo.AlbertConfig(**_TEXT, max_position_embeddings=SEQ, embedding_size=32),
    "roberta": zoo.RobertaConfig(**_TEXT, max_position_embeddings=SEQ + 2),
    "resnet50": zoo.ResNetConfig(blocks=(1, 1), width=16, image=32, classes=10),
    "conformer": zoo.ConformerConfig(
        d_model=64, heads=4, ffn=128, layers=2, kernel=7, height=16, width=64
    ),
}


def small(name: str, max_batch: int = 8) -> zoo.Published:
    """A published model in a small size, with its own interface."""
    model = zoo.published(name)
    bounds = {"batch": (1, max_batch)} | ({} if model.seq is None else {"seq": (1, SEQ)})
    return replace(model, config=CONFIGS[name], bounds=bounds)


def run_onnx(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """What ONNX Runtime makes of a model on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    results = [np.asarray(result) for result in session.run(names, dict(feeds))]
    return dict(zip(names, results, strict=True))


def wave_weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, Array]:
    """Weights by a formula that any framework can repeat: sines of the place of each number."""
    weights: dict[str, Array] = {}
    for index, (name, shape) in enumerate(shapes.items()):
        place = np.arange(int(np.prod(shape)), dtype=np.float64)
        wave = np.sin(place * 1.7 + index).reshape(tuple(shape))
        if len(shape) > 1:
            wave *= 1.5 / np.sqrt(np.prod(shape[1:]))
        else:
            wave = wave * 0.1 + float(name.endswith((".weight", "running_var")))
        weights[name] = wave.astype(np.float32)
    return weights
