"""ONNX Runtime beside us: its FP32 answers, and its INT8 with its best settings."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import onnx

from .fidelity_cases import Array, Feeds, Form


def _module(name: str) -> Any:
    # onnxruntime has no type information; quantisation is loaded only when it is asked for.
    return import_module(name)


@dataclass(frozen=True)
class Setting:
    """One way to call a quantiser of ONNX Runtime."""

    name: str
    arguments: Mapping[str, Any]


def dynamic_settings() -> list[Setting]:
    """
    The ways to quantise matrix products at run time.

    By default `quantize_dynamic` also takes embeddings and weights per tensor; per channel and
    "products only" are more accurate. `reduce_range` is for processors without VNNI.
    """
    kinds = _module("onnxruntime.quantization").QuantType
    products = ["MatMul", "Gemm", "Conv"]

    def setting(name: str, **arguments: Any) -> Setting:
        return Setting(name, {"weight_type": kinds.QInt8, **arguments})

    return [
        setting("default"),
        setting("reduce_range", reduce_range=True),
        setting("per_channel", per_channel=True),
        setting("per_channel, reduce_range", per_channel=True, reduce_range=True),
        setting("per_channel, products only", per_channel=True, op_types_to_quantize=products),
        setting(
            "per_channel, u8 weights, products only",
            per_channel=True,
            op_types_to_quantize=products,
            weight_type=kinds.QUInt8,
        ),
    ]


def static_settings() -> list[Setting]:
    """The ways to choose ranges on calibration data; weights per channel, activations u8."""
    quantization = _module("onnxruntime.quantization")
    common = {
        "quant_format": quantization.QuantFormat.QDQ,
        "per_channel": True,
        "activation_type": quantization.QuantType.QUInt8,
        "weight_type": quantization.QuantType.QInt8,
    }
    methods = quantization.CalibrationMethod
    return [
        Setting("QDQ, min-max", {**common, "calibrate_method": methods.MinMax}),
        Setting("QDQ, entropy", {**common, "calibrate_method": methods.Entropy}),
    ]


def settings_of(form: Form) -> list[Setting]:
    """Every setting that is tried for a model; the best one counts."""
    return static_settings() if form == "static" else dynamic_settings()


def session(model: onnx.ModelProto) -> Any:
    """A session on one thread of the CPU."""
    runtime = _module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def outputs_of(model: onnx.ModelProto, feeds: Feeds, names: Sequence[str] = ()) -> dict[str, Array]:
    """The outputs (default: all) of `model` by their names."""
    chosen = list(names) or [value.name for value in model.graph.output]
    found: list[Array] = session(model).run(chosen, feeds)
    return dict(zip(chosen, found, strict=True))


def tapped(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """A copy of `model` that also returns the f32 values called `names`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    present = {value.name for value in copy.graph.output}
    for name in names:
        if name not in present:
            copy.graph.output.append(
                onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            )
    return copy


class _Reader:
    """Calibration feeds, as the static quantiser reads them."""

    def __init__(self, feeds: Sequence[Feeds]):
        self.feeds: Iterator[Feeds] = iter(feeds)

    def get_next(self) -> Feeds | None:
        return next(self.feeds, None)


@contextmanager
def _quietly() -> Generator[None]:
    """The quantiser logs advice and prints its progress: neither belongs in a report."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logging.disable(before)


def prepared(model: onnx.ModelProto, form: Form) -> onnx.ModelProto:
    """The model as the quantiser is advised to get it: for QDQ with its batch norms folded."""
    if form == "dynamic":
        return model
    preprocess = _module("onnxruntime.quantization.shape_inference").quant_pre_process
    with tempfile.TemporaryDirectory(prefix="spu-ir-fidelity-") as folder, _quietly():
        source, ready = Path(folder) / "model.onnx", Path(folder) / "ready.onnx"
        source.write_bytes(model.SerializeToString())
        preprocess(str(source), str(ready))
        return onnx.ModelProto.FromString(ready.read_bytes())


def quantised(
    ready: onnx.ModelProto, form: Form, setting: Setting, calibration: Sequence[Feeds]
) -> onnx.ModelProto:
    """ONNX Runtime's INT8 model of what `prepared` gave."""
    quantization = _module("onnxruntime.quantization")
    with tempfile.TemporaryDirectory(prefix="spu-ir-fidelity-") as folder, _quietly():
        source, target = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(ready.SerializeToString())
        if form == "dynamic":
            quantization.quantize_dynamic(source, target, **setting.arguments)
        else:
            quantization.quantize_static(source, target, _Reader(calibration), **setting.arguments)
        return onnx.ModelProto.FromString(target.read_bytes())
