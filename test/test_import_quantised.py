"""Models that ONNX Runtime quantised run as they are: integer products, its own answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnxruntime import quantization
from support.models import MODELS, SHAPES, feeds

import spu_ir

Array = NDArray[Any]
QUANTISER = cast("Any", quantization)


class Reader(quantization.CalibrationDataReader):
    """A model's calibration inputs, as ONNX Runtime's quantiser reads them."""

    def __init__(self, name: str):
        self.feeds = iter([feeds(name, seed, 2, 9) for seed in range(3)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self.feeds, None)


def quantised(name: str, form: str, folder: Path) -> Path:
    """The model as ONNX Runtime quantises it: `qdq` static, `dynamic` with MatMulInteger."""
    source, target = folder / "model.onnx", folder / f"{form}.onnx"
    onnx.save(MODELS[name](), source)
    if form == "dynamic":
        QUANTISER.quantize_dynamic(source, target)
        return target
    QUANTISER.quantize_static(
        source,
        target,
        Reader(name),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    return target


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("perceptron", "qdq"),
        ("perceptron", "dynamic"),
        ("block", "qdq"),
        ("block", "dynamic"),
        ("convolutions", "qdq"),
    ],
)
def test_imported_as_it_is(name: str, form: str, tmp_path: Path) -> None:
    path = quantised(name, form, tmp_path)
    inputs = feeds(name, 7, 2, 9)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = np.asarray(session.run(["y"], inputs)[0])
    model = spu_ir.compile(path, shapes=SHAPES[name])
    got = model.run(inputs)["y"]
    # Its own quantisation errors are 1 % and more; a code that rounds the other way is 0.1 %.
    assert np.linalg.norm(got - expected) <= 2e-3 * np.linalg.norm(expected)
    products = [row for row in model.report() if row["op"] in ("spu.matmul", "spu.conv")]
    assert products
    assert {row["precision"] for row in products} == {"int8"}
    attention = [row for row in model.report() if row["op"] == "spu.attention"]
    assert all("quantised without its attention" in str(row["reason"]) for row in attention)
    assert bool(attention) == (name == "block" and form == "dynamic")
