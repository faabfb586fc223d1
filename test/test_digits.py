"""INT8 accuracy of real weights, trained with pruned banks: no PyTorch is needed to check it."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnxruntime import quantization

import spu_ir
from spu_ir.runtime.model import CompiledModel

DATA = Path(__file__).parent / "data"
F32 = NDArray[np.float32]

DENSE_FP32 = 99.30
"""Percent that the same network had right when it was trained as long, and dense, in FP32."""


@pytest.fixture(scope="module")
def model() -> bytes:
    return gzip.decompress((DATA / "digits_cnn_16x.onnx.gz").read_bytes())


@pytest.fixture(scope="module")
def digits() -> dict[str, Any]:
    """Images f32 [N, 1, 8, 8] to test and to calibrate with, and the labels of the former."""
    with np.load(DATA / "digits.npz") as file:
        images, calibration = (
            (file[name] / np.float32(16)).reshape(-1, 1, 8, 8) for name in ("images", "calibration")
        )
        return {"images": images, "calibration": calibration, "labels": file["labels"]}


@pytest.fixture(scope="module")
def compiled(model: bytes, digits: dict[str, Any]) -> CompiledModel:
    feeds = [{"x": digits["calibration"]}]
    return spu_ir.compile(model, calibration=feeds, shapes={"batch": (1, 64)}, threads=1)


@pytest.fixture(scope="module")
def logits(compiled: CompiledModel, digits: dict[str, Any]) -> F32:
    images = digits["images"]
    batches = [images[first : first + 64] for first in range(0, len(images), 64)]
    return np.concatenate([compiled.run({"x": batch})["logits"] for batch in batches])


def ort_logits(model: bytes, images: F32) -> F32:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"x": images})[0])


def relative(got: F32, expected: F32) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def test_nine_in_ten_weights_run_at_16x(compiled: CompiledModel) -> None:
    rows = [r for r in compiled.report() if r["op"] in ("spu.conv", "spu.matmul")]
    sizes = [np.prod([int(n) for n in r["shape"][1:].split("]")[0].split(",")]) for r in rows]
    assert [row["format"] for row in rows] == [
        "dense",
        "banked 4/64",
        "banked 4/64",
        "banked 4/64",
        "dense",
    ]
    banked = sum(s for s, r in zip(sizes, rows, strict=True) if r["format"] == "banked 4/64")
    assert banked > 0.9 * sum(sizes)
    assert all(row["density"] <= 1 / 16 for row in rows if row["format"] != "dense")


def test_int8_at_16x_loses_at_most_a_point(logits: F32, digits: dict[str, Any]) -> None:
    right = 100 * float((logits.argmax(1) == digits["labels"]).mean())
    assert right >= DENSE_FP32 - 1.0


def test_the_error_is_no_larger_than_that_of_onnxruntime(
    model: bytes, logits: F32, digits: dict[str, Any], tmp_path: Path
) -> None:
    class Calibration(quantization.CalibrationDataReader):
        feeds = iter([{"x": digits["calibration"]}])

        def get_next(self) -> Any:
            return next(self.feeds, None)

    quantised = tmp_path / "int8.onnx"
    quantization.quantize_static(
        onnx.load_from_string(model), quantised, Calibration(), per_channel=True
    )
    reference = ort_logits(model, digits["images"])
    theirs = ort_logits(quantised.read_bytes(), digits["images"])
    assert relative(logits, reference) <= relative(theirs, reference)
