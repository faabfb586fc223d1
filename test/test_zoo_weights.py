"""Weights of the zoo's models: arrays, tensors, files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from support.published import CONFIGS, small

from spu_ir import zoo
from spu_ir.errors import SpuError
from spu_ir.zoo import bert_model
from spu_ir.zoo.__main__ import main as zoo_command
from spu_ir.zoo.weights import FILE, INDEX

Array = NDArray[Any]
CONFIG = CONFIGS["bert"]


class Tensor:
    """What the builders use of a tensor of PyTorch; numpy has no bfloat16 that it knows."""

    def __init__(self, value: Array, steps: tuple[str, ...] = ()):
        self.value = value
        self.steps = steps

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def detach(self) -> Tensor:
        return Tensor(self.value, (*self.steps, "detach"))

    def cpu(self) -> Tensor:
        return Tensor(self.value, (*self.steps, "cpu"))

    def float(self) -> Tensor:
        return Tensor(self.value.astype(np.float32), (*self.steps, "float"))

    def numpy(self) -> Array:
        assert set(self.steps) == {"detach", "cpu", "float"}
        return self.value


@pytest.fixture(scope="module")
def weights() -> dict[str, Array]:
    """HuggingFace's keys of a model with a head."""
    plain = bert_model.random_weights(CONFIG, 5, head=True)
    return {(k if k.startswith("qa_") else f"bert.{k}"): v for k, v in plain.items()}


@pytest.fixture(scope="module")
def expected(weights: dict[str, Array]) -> onnx.ModelProto:
    return small("bert").build(weights)


def test_keys_with_and_without_prefix(weights: dict[str, Array], expected: onnx.ModelProto) -> None:
    bare = {key.removeprefix("bert."): value for key, value in weights.items()}
    assert small("bert").build(bare) == expected
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for key, value in weights.items()
    }
    assert small("bert").build(old) == expected


def test_tensors_of_pytorch(weights: dict[str, Array], expected: onnx.ModelProto) -> None:
    assert small("bert").build({k: Tensor(v) for k, v in weights.items()}) == expected
    half = {k: Tensor(v.astype(ml_dtypes.bfloat16)) for k, v in weights.items()}
    rounded = {k: v.astype(ml_dtypes.bfloat16).astype(np.float32) for k, v in weights.items()}
    assert small("bert").build(half) == small("bert").build(rounded)


def test_safetensors(tmp_path: Path, weights: dict[str, Array], expected: onnx.ModelProto) -> None:
    save_file(weights, tmp_path / FILE)
    for path in (tmp_path / FILE, str(tmp_path / FILE), tmp_path):
        assert small("bert").build(path) == expected


def test_safetensors_in_bfloat16(tmp_path: Path, weights: dict[str, Array]) -> None:
    half = {k: v.astype(ml_dtypes.bfloat16) for k, v in weights.items()}
    save_file(half, tmp_path / FILE)
    read = zoo.read_weights(tmp_path / FILE)
    assert {str(v.dtype) for v in read.values()} == {"bfloat16"}
    assert small("bert").build(tmp_path / FILE) == small("bert").build(half)


def test_safetensors_in_several_files(
    tmp_path: Path, weights: dict[str, Array], expected: onnx.ModelProto
) -> None:
    parts = {"model-1-of-2.safetensors": list(weights)[:9], "b.safetensors": list(weights)[9:]}
    for name, keys in parts.items():
        save_file({key: weights[key] for key in keys}, tmp_path / name)
    index = {"weight_map": {key: name for name, keys in parts.items() for key in keys}}
    (tmp_path / INDEX).write_text(json.dumps(index))
    for path in (tmp_path / INDEX, tmp_path):
        assert small("bert").build(path) == expected


@pytest.mark.parametrize("name", ["pytorch_model.bin", "bert.pt", "last.ckpt"])
def test_pickles_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(SpuError, match=r"is a pickle.*safetensors\.torch\.save_file"):
        small("bert").build(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.safetensors", None, "there is no file"),
        ("cut.safetensors", b"\x10\x00", "damaged, or no safetensors file"),
        ("model.npz", b"", r"no file of weights that can be read; name a \.safetensors"),
        ("x.index.json", b"[]", "no index of safetensors files"),
        ("y.index.json", b"{", "no index of safetensors files"),
        ("y.index.json", b'{"weight_map": {"a": 3}}', "no index of safetensors files"),
        ("y.index.json", b'{"weight_map": {"a": [3]}}', "no index of safetensors files"),
        ("z.index.json", b'{"weight_map": {"a": "../b.safetensors"}}', "outside its folder"),
        ("z.index.json", b'{"weight_map": {"a": "b.safetensors"}}', "there is no file"),
        ("none.index.json", None, "cannot read"),
    ],
)
def test_files_that_are_wrong(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SpuError, match=message):
        zoo.read_weights(tmp_path / name)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(SpuError, match=r"holds neither model\.safetensors nor"):
        zoo.read_weights(tmp_path)


def test_weights_that_are_no_numbers(weights: dict[str, Array]) -> None:
    wrong = weights | {"qa_outputs.bias": np.array(["a", "b"])}
    with pytest.raises(SpuError, match=r"'qa_outputs\.bias' has the type ndarray of <U1"):
        small("bert").build(wrong)
    with pytest.raises(SpuError, match=r"'qa_outputs\.bias' has shape \[\], .* needs \[2\]"):
        small("bert").build(weights | {"qa_outputs.bias": 3})


def test_the_command_takes_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = zoo.albert(zoo.AlbertConfig())
    save_file(zoo.albert_model.random_weights(zoo.AlbertConfig(), 4), tmp_path / FILE)
    path = tmp_path / "albert.onnx"
    assert zoo_command(["albert", "--weights", str(tmp_path / FILE), "-o", str(path)]) == 0
    made = onnx.load(path)
    assert made.graph.node == model.graph.node
    assert made == zoo.albert(zoo.AlbertConfig(), seed=4)
    assert zoo_command(["linear", "--weights", str(path), "-o", str(path)]) == 1
    assert "linear brings its own weights; leave --weights out" in capsys.readouterr().err
