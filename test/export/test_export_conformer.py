"""Conformers exported by PyTorch: this project's, in both layouts, and those of transformers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export.exporting import EXPORTERS, Feeds, Reference, export, kinds, settle, tensors

import spu_ir
from spu_ir import zoo
from spu_ir.dialects.spu import Activation, AttentionOp, ConvOp, MatmulOp

pytestmark = pytest.mark.export

SMALL = {"d_model": 64, "ffn": 128, "layers": 2, "height": 16, "width": 64}


def conformer(
    folder: Path, exporter: str, *, batch_first: bool = True, **config: int
) -> tuple[Path, Any]:
    """The exported file and the module; a config of nothing is the published one."""
    import torch
    from export.conformer_torch import Conformer, ConformerShape

    torch.manual_seed(0)
    shape = ConformerShape(**config)
    module = settle(Conformer(shape, batch_first=batch_first))
    feeds = frames(2, shape.height, shape.width, 0)
    inputs = {name: torch.from_numpy(value) for name, value in feeds.items()}
    return export(module, inputs, "memory", exporter, folder), module


def frames(batch: int, height: int, width: int, seed: int) -> Feeds:
    """Images, and masks that hide the ends of all of them but the first."""
    random = np.random.default_rng(seed)
    lengths = [width // 4 * (2 * batch - i) // (2 * batch) for i in range(batch)]
    return {
        "src": random.standard_normal((batch, 3, height, width)).astype(np.float32),
        "src_pad_mask": np.arange(width // 4) >= np.array(lengths)[:, None],
    }


def expected_ops(layers: int) -> Counter[str]:
    """
    Of a layer: 4 products feed forward, Q, K, V and the output's, 3 of the convolution module
    (the gated linear unit's two are apart), each with its bias, activation or residual; the
    depthwise convolution; 5 normalisations; the gate's product. The front end moves its image to
    channels last and its features to rows. Reshapes are views.
    """
    return Counter(
        {
            "vpu.transpose": 2,
            "spu.conv": 2 + layers,
            "spu.matmul": 1 + 11 * layers,
            "spu.attention": layers,
            "vpu.layer_norm": 5 * layers,
            "vpu.binary": layers,
            "vpu.select": 1,
            "vpu.reshape": 2 + 2 * layers,
        }
    )


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("config", [SMALL, {}])
def test_every_layer_is_fused(
    config: dict[str, int], exporter: str, batch_first: bool, tmp_path: Path
) -> None:
    """Also where PyTorch computes with the sequence first, as torchaudio does."""
    path, _ = conformer(tmp_path, exporter, batch_first=batch_first, **config)
    module = tensors(path, {"batch": (1, 64)})
    layers = config.get("layers", 12)
    assert kinds(module) == expected_ops(layers)
    ops = list(module.walk())
    residuals = [op for op in ops if isinstance(op, MatmulOp) and op.residual is not None]
    assert len(residuals) == 4 * layers
    depthwise = [op for op in ops if isinstance(op, ConvOp) and op.depthwise]
    assert len(depthwise) == layers
    assert {op.activation.data for op in depthwise} == {Activation.SILU}
    assert all(op.bias is not None for op in depthwise)
    assert all(op.mask is not None for op in ops if isinstance(op, AttentionOp))


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-4), ("bf16", 2e-2), ("int8", 5e-2)])
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_small_one_at_every_batch(
    exporter: str, precision: Any, limit: float, tmp_path: Path
) -> None:
    path, _ = conformer(tmp_path, exporter, **SMALL)
    model = spu_ir.compile(
        path,
        precision=precision,
        shapes={"batch": (1, 5)},
        calibration=[frames(3, 16, 64, seed) for seed in (8, 9)],
    )
    reference = Reference(path)
    for batch in (1, 2, 5):
        assert reference.error(model, frames(batch, 16, 64, batch)) <= limit


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-4), ("int8", 5e-2)])
def test_the_published_size(precision: Any, limit: float, tmp_path: Path) -> None:
    path, _ = conformer(tmp_path, "dynamo")
    model = spu_ir.compile(
        path,
        precision=precision,
        shapes={"batch": (1, 2)},
        calibration=[frames(2, 64, 512, 9)],
    )
    reference = Reference(path)
    for batch in (1, 2):
        assert reference.error(model, frames(batch, 64, 512, batch)) <= limit


def test_the_zoo_builds_the_same_network(tmp_path: Path) -> None:
    """From the module's own weights, by their names."""
    path, module = conformer(tmp_path, "dynamo", **SMALL)
    model = zoo.conformer(zoo.ConformerConfig(**SMALL), weights=module.state_dict())
    compiled = spu_ir.compile(model, precision="fp32", shapes={"batch": (1, 3)})
    assert Reference(path).error(compiled, frames(3, 16, 64, 5)) <= 1e-4


def wav2vec(folder: Path, exporter: str, positions: str) -> Path:
    """The encoder of transformers' Wav2Vec2-Conformer, on features of 24 frames."""
    import torch
    from transformers import Wav2Vec2ConformerConfig
    from transformers.models.wav2vec2_conformer import modeling_wav2vec2_conformer as model

    torch.manual_seed(0)
    config = Wav2Vec2ConformerConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        conv_depthwise_kernel_size=31,
        position_embeddings_type=positions,
        return_dict=False,
    )
    module = settle(model.Wav2Vec2ConformerEncoder(config))
    for name, value in module.named_parameters():
        if "pos_bias" in name:
            value.data.normal_()
    return export(module, {"hidden_states": torch.randn(2, 24, 64)}, "hidden", exporter, folder)


@pytest.mark.parametrize("positions", ["relative", "rotary"])
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_relative_and_rotary_positions(exporter: str, positions: str, tmp_path: Path) -> None:
    """Relative positions are a second product, whose scores attention takes as its mask."""
    path = wav2vec(tmp_path, exporter, positions)
    found = kinds(tensors(path, {"batch": (1, 4)}))
    assert found["spu.attention"] == 2
    assert found["vpu.softmax"] == 0
    assert found["spu.batch_matmul"] == (2 if positions == "relative" else 0)
    model = spu_ir.compile(path, precision="fp32", shapes={"batch": (1, 4)})
    reference = Reference(path)
    random = np.random.default_rng(1)
    for batch in (1, 3):
        hidden = random.standard_normal((batch, 24, 64)).astype(np.float32)
        assert reference.error(model, {"hidden_states": hidden}) <= 1e-4
