"""ResNet-50: FP32 and INT8, dense and pruned, against ONNX Runtime; limits of a compilation."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

import spu_ir
from spu_ir import zoo
from spu_ir.sparsify import magnitude

pytestmark = pytest.mark.slow

Array = NDArray[Any]
LIGHT = Path(str(files("onnx"))) / "backend" / "test" / "data" / "light" / "light_resnet50.onnx"


@cache
def model(sparsity: int | None) -> onnx.ModelProto:
    dense = zoo.resnet50()
    return dense if sparsity is None else magnitude(dense, sparsity)


def images(seed: int, count: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)
    shape = (1, 3, 224, 224)
    return [{"input": rng.normal(size=shape).astype(np.float32)} for _ in range(count)]


def run_onnx(path_or_bytes: Any, feeds: dict[str, Array]) -> Array:
    session = onnxruntime.InferenceSession(path_or_bytes, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


def error(got: Array, want: Array) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


class Reader(quantization.CalibrationDataReader):
    """The calibration images, as ONNX Runtime's quantiser reads them."""

    def __init__(self, feeds: list[dict[str, Array]]):
        self.feeds = iter(feeds)

    def get_next(self) -> dict[str, Array] | None:
        return next(self.feeds, None)


@pytest.mark.parametrize("sparsity", [None, 16])
def test_fp32_and_int8(sparsity: int | None, tmp_path: Path) -> None:
    calibration, (feeds,) = images(0, 3), images(9, 1)
    proto = model(sparsity)
    want = run_onnx(proto.SerializeToString(), feeds)
    exact = spu_ir.compile(proto, precision="fp32", shapes={"batch": (1, 2)})
    assert error(exact.run(feeds)["logits"], want) <= 1e-3
    quantised = spu_ir.compile(
        proto, precision="int8", shapes={"batch": (1, 2)}, calibration=calibration
    )
    products = [row for row in quantised.report() if str(row["op"]).startswith("spu.")]
    assert {row["precision"] for row in products} == {"int8"}
    if sparsity:
        banked = [row for row in products if row["format"] == "banked 4/64"]
        assert len(banked) == len(products) - 1  # all but the first layer
    # Between convolutions everything is bytes, channels last: one transpose, at the input.
    text = quantised.ir("quantised")
    assert text.count("vpu.transpose") == 1
    assert text.count("vpu.dequantise") == 0

    onnx.save(proto, tmp_path / "model.onnx")
    quant_pre_process(str(tmp_path / "model.onnx"), str(tmp_path / "ready.onnx"))
    cast("Any", quantization).quantize_static(
        tmp_path / "ready.onnx",
        tmp_path / "qdq.onnx",
        Reader(calibration),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    theirs = error(run_onnx(str(tmp_path / "qdq.onnx"), feeds), want)
    ours = error(quantised.run(feeds)["logits"], want)
    assert ours <= 1.1 * theirs, f"ours {ours:.4f}, ONNX Runtime's {theirs:.4f}"


def test_light_resnet_of_onnx() -> None:
    proto = onnx.load(LIGHT)
    (name,) = {i.name for i in proto.graph.input} - {i.name for i in proto.graph.initializer}
    feeds = {name: images(1, 1)[0]["input"]}
    want = run_onnx(proto.SerializeToString(), feeds)
    got = next(iter(spu_ir.compile(LIGHT, precision="fp32").run(feeds).values()))
    assert error(got, want) <= 1e-3
    got = next(
        iter(spu_ir.compile(LIGHT, precision="int8", calibration=[feeds]).run(feeds).values())
    )
    assert got.shape == want.shape
    assert np.isfinite(got).all()


def test_a_batch_is_its_images() -> None:
    feeds = images(2, 2)
    both = spu_ir.compile(model(16), precision="int8", shapes={"batch": (1, 2)}, calibration=feeds)
    joined = both.run({"input": np.concatenate([f["input"] for f in feeds])})["logits"]
    for number, feed in enumerate(feeds):
        assert both.run(feed)["logits"][0].tobytes() == joined[number].tobytes()


_COMPILE = """
from pathlib import Path
from spu_ir import zoo
from spu_ir.api import lower
from spu_ir.runtime.build import build
program, _ = lower(zoo.resnet50(), precision="fp32", shapes={"batch": (1, 8)})
build(program.source)
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(status["VmHWM"].split()[0])  # ru_maxrss would count the process that started this one
"""


def test_compiling_takes_little_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE], capture_output=True, text=True, check=True, timeout=300
    )
    assert int(done.stdout) <= 2 << 20  # KiB: 2 GB
