"""The forms in which engines get a model, and how each is made."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import onnx

import spu_ir
from spu_ir.errors import SpuError
from spu_ir.zoo.common import save

from .compare_cases import Subject
from .compare_engines import REMEDIES
from .compare_integer import with_integer_products
from .compare_onnx import at_extents, at_opset_13, with_used_domains
from .compare_process import EngineError, one_line
from .fidelity_cases import Feeds, Form
from .fidelity_ort import Setting, prepared, quantised
from .ratios import Ratio

Format = Literal["int8", "fp32"]

NNCF = Path(__file__).with_name("compare_nncf.py")


@dataclass(frozen=True)
class Variant:
    """One form of a model for one engine."""

    engine: str
    form: str
    format: Format
    make: Callable[[Maker], str | dict[int, str]]
    """Writes it; one path, or one a batch size."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


def recipes() -> bytes:
    """The text of all that decides what quantisers make of a model."""
    names = ("compare_recipes", "compare_integer", "compare_nncf", "compare_onnx", "fidelity_ort")
    return b"".join(NNCF.with_name(f"{name}.py").read_bytes() for name in names)


class Maker:
    """
    One model at one ratio, as the variants' recipes see it.

    Its files are in a folder in `place` that is named after its weights and the recipes, so that a
    later run finds what quantisers made of the same ones.
    """

    def __init__(
        self,
        subject: Subject,
        ratio: Ratio,
        place: Path,
        batches: Sequence[int],
        pythons: Mapping[str, Path],
    ):
        self.subject, self.ratio = subject, ratio
        self.batches, self.pythons = tuple(batches), pythons
        self.proto = subject.build(ratio)
        content = self.proto.SerializeToString(deterministic=True)
        inputs = repr(sorted(subject.extents(1).items())).encode()
        digest = hashlib.sha256(content + inputs + recipes()).hexdigest()[:16]
        self.folder = place / f"{subject.name}-{ratio}-{digest}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.package: dict[str, Any] = {}
        """Path, seconds, digest, padding and layers of the spu package, once it is compiled."""

    @property
    def calibration(self) -> list[Feeds]:
        return self.subject.calibration()

    def path(self, name: str) -> Path:
        return self.folder / name

    def write(self, name: str, model: onnx.ModelProto) -> Path:
        return save(model, self.path(name))

    def source(self) -> Path:
        """The FP32 model as a file, written once."""
        path = self.path("fp32.onnx")
        return path if path.exists() else save(self.proto, path)

    def feeds(self, batch: int) -> Path:
        """The measured inputs as a file, written once."""
        path = self.path(f"feeds-{batch}.npz")
        if not path.exists():
            np.savez(path, allow_pickle=False, **self.subject.feeds(batch))
        return path


def compiler() -> str:
    """A digest of the compiler's sources and of the device's headers."""
    root = Path(spu_ir.__file__).parent
    files = sorted(path for path in root.rglob("*") if path.suffix in (".py", ".h", ".c"))
    content = b"".join(str(path.relative_to(root)).encode() + path.read_bytes() for path in files)
    return hashlib.sha256(content).hexdigest()[:16]


@contextmanager
def cache_in(folder: str) -> Generator[None]:
    """With the cache in an empty folder: what is compiled meanwhile takes its whole time."""
    before = os.environ.get("SPU_IR_CACHE")
    os.environ["SPU_IR_CACHE"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["SPU_IR_CACHE"]
        else:
            os.environ["SPU_IR_CACHE"] = before


def _spu(maker: Maker) -> str:
    if not maker.package:
        path = maker.path(f"{compiler()}.spu")
        took = path.with_suffix(".seconds.json")
        if not path.exists():
            with TemporaryDirectory() as folder:
                with cache_in(folder):
                    start = time.monotonic()
                    model = spu_ir.compile(maker.proto, threads=1, **maker.subject.options())
                    seconds = time.monotonic() - start
                # The usual cache remembers that the package was verified.
                model.save(path, levels=[model.level])
            took.write_text(json.dumps(seconds), encoding="ascii")
        manifest = json.loads((path / "manifest.json").read_text(encoding="ascii"))
        maker.package = {
            "path": str(path),
            "seconds": json.loads(took.read_text(encoding="ascii")),
            "digest": manifest["digest"],
            "padding": manifest["options"]["padding"],
            "layers": manifest["report"],
        }
    return str(maker.package["path"])


def _source(maker: Maker) -> str:
    return str(maker.source())


def _ort(form: Form) -> Callable[[Maker], str]:
    def make(maker: Maker) -> str:
        path = maker.path(f"ort-{form}.onnx")
        if not path.exists():
            kinds: Any = __import__("onnxruntime.quantization", fromlist=["QuantType"])
            arguments = _ORT[form](kinds)
            if maker.subject.transformer:
                arguments["op_types_to_quantize"] = _PRODUCTS
            setting = Setting(form, arguments)
            # Its preparation cannot infer the shapes of a sequence of any length.
            ready = maker.proto if maker.subject.transformer else prepared(maker.proto, form)
            save(quantised(ready, form, setting, maker.calibration), path)
        return str(path)

    return make


_PRODUCTS = ["MatMul", "Gemm", "Conv"]
_ORT: dict[Form, Callable[[Any], dict[str, Any]]] = {
    "dynamic": lambda q: {
        "weight_type": q.QuantType.QInt8,
        "per_channel": True,
    },
    "static": lambda q: {
        "quant_format": q.QuantFormat.QDQ,
        "per_channel": True,
        "activation_type": q.QuantType.QUInt8,
        "weight_type": q.QuantType.QInt8,
        "calibrate_method": q.CalibrationMethod.MinMax,
    },
}


def _openvino(maker: Maker) -> str:
    """NNCF's post-training quantisation, in OpenVINO's environment."""
    path = maker.path("openvino.xml")
    if path.exists():
        return str(path)
    archives: list[str] = []
    for number, feeds in enumerate(maker.calibration):
        archive = maker.path(f"calibration-{number}.npz")
        np.savez(archive, allow_pickle=False, **feeds)
        archives.append(str(archive))
    kind = "transformer" if maker.subject.transformer else "other"
    command = [str(maker.pythons["openvino"]), str(NNCF), str(maker.source()), str(path), kind]
    done = subprocess.run([*command, *archives], capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(f"NNCF: {one_line(done.stderr)}")
    return str(path)


def _fixed(name: str, maker: Maker, make: Callable[[], onnx.ModelProto]) -> dict[int, str]:
    """A model for DeepSparse at every batch size: it wants operators of old, and fixed sizes."""
    paths = {batch: maker.path(f"{name}-{batch}.onnx") for batch in maker.batches}
    if not all(path.exists() for path in paths.values()):
        model = with_used_domains(make())
        for batch, path in paths.items():
            save(at_extents(model, maker.subject.extents(batch)), path)
    return {batch: str(path) for batch, path in paths.items()}


def _old_fp32(maker: Maker) -> dict[int, str]:
    return _fixed("deepsparse-fp32", maker, lambda: at_opset_13(maker.proto))


def _integer(attention: bool) -> Callable[[Maker], dict[int, str]]:
    def make(maker: Maker) -> dict[int, str]:
        return _fixed(
            f"deepsparse-integer-{attention}",
            maker,
            lambda: with_integer_products(
                at_opset_13(maker.proto), maker.calibration, attention=attention
            ),
        )

    return make


def _qlinear(maker: Maker) -> dict[int, str]:
    """QLinearConv with weights per tensor, which DeepSparse's own models have."""

    def build() -> onnx.ModelProto:
        kinds: Any = __import__("onnxruntime.quantization", fromlist=["QuantType"])
        arguments = {
            "quant_format": kinds.QuantFormat.QOperator,
            "activation_type": kinds.QuantType.QUInt8,
            "weight_type": kinds.QuantType.QInt8,
            "op_types_to_quantize": ["Conv", "MaxPool", "Add"],
        }
        ready = prepared(at_opset_13(maker.proto), "static")
        model = quantised(ready, "static", Setting("qlinear", arguments), maker.calibration)
        model.ir_version = min(model.ir_version, 8)
        return model

    return _fixed("deepsparse-qlinear", maker, build)


def variants(engine: str, subject: Subject) -> list[Variant]:
    """The forms in which an engine gets a model, INT8 first."""
    if engine == "spu":
        return [Variant(engine, "int8", "int8", _spu)]
    if engine == "openvino":
        f32 = {"INFERENCE_PRECISION_HINT": "f32"}
        return [
            Variant(engine, "NNCF, the rest as it prefers", "int8", _openvino),
            Variant(engine, "NNCF, the rest f32", "int8", _openvino, f32),
        ]
    if engine == "onnxruntime":
        found = [Variant(engine, "static QDQ", "int8", _ort("static"))]
        if subject.transformer:
            found.append(Variant(engine, "dynamic", "int8", _ort("dynamic")))
        return [*found, Variant(engine, "FP32", "fp32", _source)]
    if engine == "deepsparse":
        fp32 = Variant(engine, "FP32", "fp32", _old_fp32)
        if not subject.transformer:
            return [Variant(engine, "QLinearConv per tensor", "int8", _qlinear), fp32]
        return [
            Variant(engine, "MatMulInteger", "int8", _integer(False)),
            Variant(engine, "MatMulInteger, attention too", "int8", _integer(True)),
            fp32,
        ]
    raise SpuError(f"engine {engine!r} is unknown", remedy=f"use one of {', '.join(REMEDIES)}")
