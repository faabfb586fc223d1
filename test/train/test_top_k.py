"""Sparse activations: what stays, how gradients pass, where they are put, and their export."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

import spu_ir
from spu_ir.errors import SpuError
from spu_ir.sparsify.training import BankPruner, BankTopK

nets: Any = importlib.import_module("train.nets")

SHAPES = {
    "rows": ((5, 128), None, -1),
    "tokens": ((2, 3, 64), None, -1),
    "images": ((2, 128, 3, 3), None, 1),
    "signals": ((2, 128, 7), 1, 1),
    "a short bank": ((3, 100), None, -1),
    "less than a bank": ((3, 40), None, -1),
}


@pytest.mark.parametrize("case", SHAPES.values(), ids=SHAPES)
def test_the_largest_of_every_bank_stay(case: tuple[tuple[int, ...], int | None, int]) -> None:
    shape, given, axis = case
    x = torch.randn(shape)
    y = BankTopK(8, given)(x)
    assert y.shape == x.shape
    for values, kept in zip(
        x.movedim(axis, -1).split(64, -1), y.movedim(axis, -1).split(64, -1), strict=True
    ):
        rows, stay = values.reshape(-1, values.shape[-1]), kept.reshape(-1, values.shape[-1])
        least = rows.abs().sort(-1, descending=True).values[:, 7:8]
        assert torch.equal(stay, torch.where(rows.abs() >= least, rows, 0.0))
        assert (stay != 0).sum(-1).eq(8).all()


def test_it_is_idempotent_and_leaves_sparse_ones_alone() -> None:
    x = torch.randn(4, 128).relu()
    layer = BankTopK(8)
    assert torch.equal(layer(layer(x)), layer(x))
    assert torch.equal(BankTopK(64)(x), x)
    few = torch.zeros(4, 64)
    few[:, 5:9] = 1.0
    assert torch.equal(layer(few), few)


def test_the_gradient_passes_straight_through() -> None:
    x = torch.randn(3, 64, requires_grad=True)
    upstream = torch.randn(3, 64)
    (BankTopK(4)(x) * upstream).sum().backward()
    assert torch.equal(x.grad, upstream)


def test_it_is_put_after_activations_and_taken_out_again() -> None:
    model = nets.SmallCNN()
    keys = set(model.state_dict())
    pruner = BankPruner(model, 16, top_k=8)
    seen: list[torch.Tensor] = []
    model.hidden.register_forward_hook(lambda m, i, o: seen.append(i[0]))
    model(torch.randn(2, 3, 8, 8))
    image = seen[0].reshape(2, 80, 2, 2)
    assert (image[:, :64] != 0).sum(1).max() == 8
    assert (image[:, 64:] != 0).sum(1).max() <= 8
    pruner.finalise()
    assert len(keys) == len(model.state_dict())
    by_name = nets.mlp()
    BankPruner(by_name, 16, top_k={"1": 4})
    assert [type(each).__name__ for each in by_name[1]] == ["ReLU", "BankTopK"]
    assert isinstance(by_name[3], nn.ReLU)


def test_no_place_is_an_error() -> None:
    with pytest.raises(SpuError, match="the model has no activation modules"):
        BankPruner(nn.Sequential(nn.Linear(64, 64)), 16, top_k=8)
    with pytest.raises(SpuError, match="'x' is the name of no module"):
        BankPruner(nets.mlp(), 16, top_k={"x": 8})
    with pytest.raises(SpuError, match="of a bank of 64 channels 65 cannot stay"):
        BankTopK(65)


@pytest.mark.parametrize("kept", ["keep", "drop"])
def test_exported_it_computes_the_same(tmp_path: Path, kept: Any) -> None:
    model = nets.mlp().eval()
    pruner = BankPruner(model, 16, keep=["4"], top_k=3)
    path = tmp_path / "model.onnx"
    x = torch.randn(4, 64)
    pruner.export(path, x, dynamic={"input": {0: "batch"}}, output_names=["y"], top_k=kept)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = torch.randn(9, 64)
    with torch.no_grad():
        expected = model(x).numpy()
        dense = model[4](model[3][0](model[2](model[1][0](model[0](x))))).numpy()
    if kept == "drop":
        assert not np.allclose(expected, dense, atol=1e-3)
        expected = dense
    (got,) = session.run(["y"], {"input": x.numpy()})
    np.testing.assert_allclose(got, expected, atol=1e-5)
    compiled = spu_ir.compile(path, precision="fp32", shapes={"batch": (1, 16)}, threads=1)
    ours = compiled.run({"input": x.numpy()})["y"]
    np.testing.assert_allclose(ours, expected, atol=1e-4)
