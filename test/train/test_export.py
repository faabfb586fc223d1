"""What is exported the compiler sees as banked, without being told, and computes the same."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import spu_ir
from spu_ir.errors import SpuError
from spu_ir.sparsify.training import BankPruner, Distiller, at_once

nets: Any = importlib.import_module("train.nets")


def relative(got: Any, expected: Any) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("ratio", [16, 32])
def test_a_cnn_is_banked(tmp_path: Path, ratio: int) -> None:
    model = nets.SmallCNN()
    pruner = BankPruner(model, ratio, at_once(1), keep=["head"])
    model(torch.randn(32, 3, 8, 8))  # the statistics of the batch normalisation
    pruner.step()
    images = torch.randn(6, 3, 8, 8)
    path = tmp_path / "cnn.onnx"
    pruner.export(path, images, dynamic={"x": {0: "batch"}}, output_names=["y"])
    assert model.training, "the model in training is left alone"
    assert b".py" not in path.read_bytes(), "no paths of this machine"
    compiled = spu_ir.compile(
        path, calibration=[{"x": images.numpy()}], shapes={"batch": (1, 8)}, threads=1
    )
    products = [r for r in compiled.report() if r["op"] in ("spu.conv", "spu.matmul")]
    formats = {row["shape"].split(" ->")[0]: row["format"] for row in products}
    kept = f"banked {64 // ratio}/64"
    assert formats["[80, 3, 3, 64]"] == kept
    assert formats["[64, 320]"] == kept
    assert formats["[64, 3, 3, 3]"] == formats["[10, 64]"] == "dense"
    with torch.no_grad():
        expected = pruner.finalise().eval()(images).numpy()
    assert relative(compiled.run({"x": images.numpy()})["y"], expected) < 0.05


def test_bfloat16_has_banks_of_32(tmp_path: Path) -> None:
    model = nets.mlp()
    pruner = BankPruner(model, 16, keep=["4"], bank=32)
    x = torch.randn(4, 64)
    pruner.export(tmp_path / "m.onnx", (x,), dynamic={"input": {0: "batch"}})
    compiled = spu_ir.compile(
        tmp_path / "m.onnx", precision="bf16", shapes={"batch": (1, 8)}, threads=1
    )
    formats = [r["format"] for r in compiled.report() if r["op"] == "spu.matmul"]
    assert formats == ["banked 2/32", "banked 2/32", "dense"]


def test_attention_is_banked(tmp_path: Path) -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(64, 2, batch_first=True)
            self.up = nn.Linear(64, 128)
            self.down = nn.Linear(128, 64)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            y = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
            return y + self.down(torch.relu(self.up(y)))

    model = Encoder().eval()
    # A distiller's hooks must not get in the way of an export.
    distiller = Distiller(model, Encoder(), features={"up": "up"})
    pruner = BankPruner(model, 16)
    tokens = torch.randn(2, 8, 64)
    pruner.export(
        tmp_path / "m.onnx",
        {"tokens": tokens},
        dynamic={"tokens": {0: "batch"}},
        output_names=["y"],
    )
    distiller.close()
    compiled = spu_ir.compile(tmp_path / "m.onnx", shapes={"batch": (1, 4)}, threads=1)
    products = [r for r in compiled.report() if r["op"] == "spu.matmul" and r["density"]]
    assert {row["format"] for row in products} == {"banked 4/64"}
    assert sum(row["density"] * np.prod(eval_shape(row["shape"])) for row in products) == (
        sum(int((each.weight != 0).sum()) for each in (model.up, model.down))
        + int((model.attention.in_proj_weight != 0).sum())
        + int((model.attention.out_proj.weight != 0).sum())
    )
    with torch.no_grad():
        expected = model(tokens).numpy()
    assert relative(compiled.run({"tokens": tokens.numpy()})["y"], expected) < 0.05


def eval_shape(text: str) -> list[int]:
    """The numbers of a weight's shape in a report."""
    return [int(part) for part in text.split("]", maxsplit=1)[0].strip("[").split(",")]


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    model = nets.mlp()
    pruner = BankPruner(model, 16, at_once(2))
    path = tmp_path / "m.onnx"
    with pytest.raises(SpuError, match="exported after 0 of 2 steps"):
        pruner.export(path, torch.zeros(1, 64))
    pruner.step()
    pruner.step()
    with pytest.raises(SpuError, match=r"the sample has no input 'y'.*: input"):
        pruner.export(path, torch.zeros(1, 64), dynamic={"y": {0: "batch"}})
    with pytest.raises(SpuError, match="an extent of 1 on axis 0, which PyTorch takes as fixed"):
        pruner.export(path, torch.zeros(1, 64), dynamic={"input": {0: "batch"}})
    with pytest.raises(SpuError, match="'input' has no axis 3"):
        pruner.export(path, torch.zeros(2, 64), dynamic={"input": {3: "batch"}})
    assert not path.exists()
