"""
Accuracy of INT8 models that were trained with pruned weights, on scikit-learn's digits.

    python -m benchmarks.digits [--json] [--seeds N] [--distil] [--fixture FOLDER]

A small CNN and a small transformer are trained dense, then pruned to 16x and 32x while they are
trained on (`spu_ir.sparsify.training`), exported, compiled to INT8 and tested. The dense model
to compare with is trained on for as long. The errors are those of the INT8 logits against FP32
of the same weights, ||int8 - fp32|| / ||fp32|| over the test images: this compiler's beside ONNX
Runtime's of the same file (the CNN: static QDQ by the same calibration images, weights by
channel; the transformer: dynamic, weights by channel). Needs PyTorch: pip install spu-ir[train].
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import nn

import spu_ir
from spu_ir.sparsify.training import BankPruner, Distiller

from .digits_models import MODELS
from .digits_training import Digits, load, prune_of, steps_of, train

EPOCHS = {"cnn": (20, 30), "transformer": (25, 35)}
"""Epochs dense, and then pruned (or dense again, to compare with)."""

RATIOS = (16, 32)
CALIBRATION = 128
"""Training images on which the ranges of activations are measured."""

F32 = NDArray[np.float32]

# ONNX Runtime has no types to check.
ort: Any = import_module("onnxruntime")
quantization: Any = import_module("onnxruntime.quantization")


@dataclass(frozen=True)
class LayerResult:
    """A layer with weights as the compiler sees it."""

    layer: str
    shape: str
    format: str
    density: float
    effective_ratio: float
    """What runs of it: 64 / slots of a bank, 1 when dense."""


@dataclass(frozen=True)
class Result:
    """One trained model; accuracies in percent of the test images, errors relative."""

    model: str
    seed: int
    ratio: int
    prunable: float
    """Of all parameters, those in layers that are pruned (at ratio 1: would be)."""
    fp32: float
    """The accuracy of the trained model in PyTorch."""
    int8: float
    """The accuracy of the compiled one."""
    ort_int8: float
    int8_error: float
    ort_int8_error: float
    seconds: float
    """What its training took."""
    layers: list[LayerResult]


def run_model(
    name: str, seed: int, folder: Path, distil: bool, epochs: tuple[int, int]
) -> Iterator[Result]:
    """Train one of MODELS dense and pruned; a result for each."""
    train_set, test_set = load()
    cast("Any", torch).manual_seed(seed)
    dense = MODELS[name]()
    train(dense, train_set, epochs[0], seed)
    for ratio in (1, *RATIOS):
        start = time.perf_counter()
        model = copy.deepcopy(dense)
        pruner = prune_of(model, ratio, steps_of(train_set, epochs[1]))
        prunable = _prunable(model, prune_of(copy.deepcopy(dense), 16, 1))
        teacher = Distiller(model, copy.deepcopy(dense)) if distil and ratio > 1 else None
        train(model, train_set, epochs[1], seed + 1, pruner, teacher)
        if teacher is not None:
            teacher.close()
        pruner.finalise()
        seconds = time.perf_counter() - start
        path = folder / f"{name}_{ratio}x_{seed}.onnx"
        sample = train_set.images[:2]
        pruner.export(path, sample, dynamic={"x": {0: "batch"}}, output_names=["logits"])
        yield _measure(name, seed, ratio, prunable, model, path, train_set, test_set, seconds)


def _prunable(model: nn.Module, pruner: BankPruner) -> float:
    """The part of a model's parameters that a pruner prunes."""
    pruned = sum(np.prod(row.shape) for row in pruner.report() if row.reason is None)
    return float(pruned / sum(each.numel() for each in model.parameters()))


def _measure(
    name: str,
    seed: int,
    ratio: int,
    prunable: float,
    model: nn.Module,
    path: Path,
    train_set: Digits,
    test_set: Digits,
    seconds: float,
) -> Result:
    images, labels = test_set.images.numpy(), test_set.labels.numpy()
    calibration = train_set.images[:CALIBRATION].numpy()
    with torch.no_grad():
        logits = model(test_set.images).numpy()
    reference = _ort_run(path, images)
    feeds = [{"x": calibration}] if name == "cnn" else None
    compiled = spu_ir.compile(
        path, precision="int8", calibration=feeds, shapes={"batch": (1, 64)}, threads=1
    )
    ours = np.concatenate(
        [compiled.run({"x": images[i : i + 64]})["logits"] for i in range(0, len(images), 64)]
    )
    theirs = _ort_run(_ort_int8(name, path, calibration), images)

    def accuracy(outputs: F32) -> float:
        return 100 * float((outputs.argmax(1) == labels).mean())

    return Result(
        model=name,
        seed=seed,
        ratio=ratio,
        prunable=prunable,
        fp32=accuracy(logits),
        int8=accuracy(ours),
        ort_int8=accuracy(theirs),
        int8_error=_relative(ours, reference),
        ort_int8_error=_relative(theirs, reference),
        seconds=seconds,
        layers=list(_layers(compiled.report())),
    )


def _layers(report: Sequence[Any]) -> Iterator[LayerResult]:
    for row in report:
        if row["op"] not in ("spu.conv", "spu.matmul") or row["density"] is None:
            continue
        slots, _, bank = row["format"].removeprefix("banked ").partition("/")
        effective = int(bank) / int(slots) if bank else 1.0
        yield LayerResult(row["layer"], row["shape"], row["format"], row["density"], effective)


def _relative(outputs: F32, reference: F32) -> float:
    return float(np.linalg.norm(outputs - reference) / np.linalg.norm(reference))


def _ort_run(path: Path, images: F32) -> F32:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"x": images})[0], np.float32)


class _Calibration(quantization.CalibrationDataReader):
    """One batch of images for ONNX Runtime."""

    def __init__(self, images: F32):
        self._feeds = iter([{"x": images}])

    def get_next(self) -> dict[str, F32] | None:
        return next(self._feeds, None)


def _ort_int8(name: str, path: Path, calibration: F32) -> Path:
    """ONNX Runtime's INT8 of a file, with the settings that suit its network best."""
    target = path.with_suffix(".int8.onnx")
    if name == "cnn":
        quantization.quantize_static(path, target, _Calibration(calibration), per_channel=True)
    else:
        quantization.quantize_dynamic(path, target, per_channel=True)
    return target


def run(
    seeds: int, distil: bool, folder: Path, progress: Callable[[Result], None] | None = None
) -> dict[str, Any]:
    """Everything; the dictionary that `--json` prints."""
    torch.set_num_threads(1)
    # ONNX Runtime advises to fold batch normalisations first, which the exporter has done.
    logging.getLogger().setLevel(logging.ERROR)
    start = time.perf_counter()
    results: list[Result] = []
    for name, epochs in EPOCHS.items():
        for seed in range(seeds):
            for result in run_model(name, seed, folder, distil, epochs):
                results.append(result)
                if progress is not None:
                    progress(result)
    return {
        "seconds": time.perf_counter() - start,
        "results": [asdict(result) for result in results],
        "loss": {
            f"{name} {ratio}x": _loss(results, name, ratio) for name in EPOCHS for ratio in RATIOS
        },
    }


def _loss(results: Sequence[Result], name: str, ratio: int) -> float:
    """Points of accuracy that INT8 at `ratio` loses against dense FP32, the mean over seeds."""
    dense = [r.fp32 for r in results if (r.model, r.ratio) == (name, 1)]
    pruned = [r.int8 for r in results if (r.model, r.ratio) == (name, ratio)]
    return float(np.mean(dense) - np.mean(pruned))


def show(report: dict[str, Any]) -> None:
    """Print a report as tables."""
    console = Console()
    table = Table(title="Accuracy and INT8 error on 719 digits", box=SIMPLE_HEAD, pad_edge=False)
    for column in (
        "model",
        "seed",
        "ratio",
        "fp32 %",
        "int8 %",
        "ort int8 %",
        "error",
        "ort error",
    ):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in report["results"]:
        table.add_row(
            row["model"],
            str(row["seed"]),
            f"{row['ratio']}x",
            *(f"{row[key]:.2f}" for key in ("fp32", "int8", "ort_int8")),
            *(f"{row[key]:.4f}" for key in ("int8_error", "ort_int8_error")),
        )
    console.print(table)
    title = "Layers with weights, of the first seed"
    layers = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    for column in ("model", "ratio", "layers", "shape", "format", "effective"):
        right = column in ("ratio", "layers", "effective")
        layers.add_column(column, justify="right" if right else "left", no_wrap=True)
    for row in report["results"]:
        if row["seed"] == 0 and row["ratio"] > 1:
            alike = Counter(
                (layer["shape"], layer["format"], layer["effective_ratio"])
                for layer in row["layers"]
            )
            for (shape, kept, effective), count in alike.items():
                layers.add_row(
                    row["model"], f"{row['ratio']}x", str(count), shape, kept, f"{effective:g}x"
                )
    console.print(layers)
    for what, loss in report["loss"].items():
        console.print(f"{what}: INT8 loses {loss:.2f} points against dense FP32")
    console.print(f"{report['seconds']:.0f} seconds")


def write_fixture(source: Path, folder: Path) -> None:
    """What the tests use without PyTorch: a trained model, and the test images with labels."""
    folder.mkdir(parents=True, exist_ok=True)
    packed = gzip.compress(source.read_bytes(), 9, mtime=0)
    (folder / "digits_cnn_16x.onnx.gz").write_bytes(packed)
    train_set, test_set = load()
    np.savez_compressed(
        folder / "digits.npz",
        calibration=_bytes(train_set.images[:CALIBRATION]),
        images=_bytes(test_set.images),
        labels=test_set.labels.numpy().astype(np.uint8),
    )


def _bytes(images: torch.Tensor) -> NDArray[np.uint8]:
    return (images * 16).round().numpy().astype(np.uint8)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.digits", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parser.add_argument("--seeds", type=int, default=1, help="runs of everything (default 1)")
    parser.add_argument("--distil", action="store_true", help="let pruned models learn from dense")
    parser.add_argument("--fixture", type=Path, help="also write what the tests use to a folder")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="spu-ir-digits-") as name:
        report = run(options.seeds, options.distil, Path(name))
        if options.fixture is not None:
            write_fixture(Path(name) / "cnn_16x_0.onnx", options.fixture)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)


if __name__ == "__main__":
    main()
