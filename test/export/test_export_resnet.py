"""ResNet as transformers has it, exported by PyTorch: one product after the other, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export.exporting import EXPORTERS, Feeds, Reference, export, kinds, settle, tensors
from xdsl.dialects.builtin import ModuleOp

import spu_ir
from spu_ir.dialects.spu import ConvOp

pytestmark = pytest.mark.export

SMALL = {"depths": [2, 1], "hidden_sizes": [64, 128], "embedding_size": 16, "num_labels": 10}
RESNET_50 = {
    "depths": [3, 4, 6, 3],
    "hidden_sizes": [256, 512, 1024, 2048],
    "embedding_size": 64,
    "num_labels": 1000,
}


def resnet(folder: Path, exporter: str, size: int, config: dict[str, Any]) -> Path:
    """A ResNet with strides in the 3x3 convolutions (v1.5), for images of `size` pixels."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    chosen = ResNetConfig(layer_type="bottleneck", downsample_in_bottleneck=False, **config)
    module = settle(ResNetForImageClassification(chosen))
    inputs = {"pixel_values": torch.randn(2, 3, size, size)}
    return export(module, inputs, "logits", exporter, folder)


def images(batch: int, size: int, seed: int) -> Feeds:
    values = np.random.default_rng(seed).standard_normal((batch, 3, size, size))
    return {"pixel_values": values.astype(np.float32)}


@pytest.fixture(scope="module", params=EXPORTERS)
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return resnet(tmp_path_factory.mktemp("real"), request.param, 224, RESNET_50)


@pytest.fixture(scope="module", params=EXPORTERS)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return resnet(tmp_path_factory.mktemp("small"), request.param, 64, SMALL)


def check_structure(module: ModuleOp, convolutions: int, blocks: int) -> None:
    """
    The image is brought to channels last and nothing moves after it; batch norms are in the
    weights, residual sums and activations in the epilogues.
    """
    found = kinds(module)
    assert found == {
        "vpu.transpose": 1,
        "spu.conv": convolutions,
        "vpu.pool": 1,
        "vpu.reduce": 1,
        "vpu.reshape": 1,
        "spu.matmul": 1,
    }
    first = next(op for op in module.walk() if op.name == "vpu.transpose")
    assert first.operands[0].name_hint == "pixel_values"
    products = [op for op in module.walk() if isinstance(op, ConvOp)]
    assert sum(op.residual is not None for op in products) == blocks
    assert all(op.bias is not None for op in products)


def test_resnet_50_is_convolutions_only(real: Path) -> None:
    check_structure(tensors(real, {"batch": (1, 64)}), 53, 16)


def test_a_small_resnet_is_convolutions_only(small: Path) -> None:
    check_structure(tensors(small, {"batch": (1, 64)}), 1 + 3 * 3 + 2, 3)


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-4), ("bf16", 3e-2), ("int8", 0.1)])
def test_a_small_resnet_at_every_batch(small: Path, precision: Any, limit: float) -> None:
    calibration = [images(4, 64, seed) for seed in (8, 9)]
    model = spu_ir.compile(
        small, precision=precision, shapes={"batch": (1, 5)}, calibration=calibration
    )
    reference = Reference(small)
    for batch in (1, 2, 5):
        assert reference.error(model, images(batch, 64, batch)) <= limit


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-4), ("int8", 0.1)])
def test_resnet_50_runs(
    precision: Any, limit: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = resnet(tmp_path_factory.mktemp("run"), "dynamo", 224, RESNET_50)
    calibration = [images(2, 224, 9)]
    model = spu_ir.compile(
        path, precision=precision, shapes={"batch": (1, 2)}, calibration=calibration
    )
    reference = Reference(path)
    for batch in (1, 2):
        assert reference.error(model, images(batch, 224, batch)) <= limit
