"""The model of a task: from a user's file, or of the zoo with weights from a seed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from onnx import ModelProto

from spu_ir.errors import SpuError
from spu_ir.quantisation import Precision, Progress
from spu_ir.sparsify import RATIOS, magnitude
from spu_ir.sparsify.files import read_model
from spu_ir.sparsify.layers import layers_of
from spu_ir.zoo import MODELS, published

from .datasets import Feeds
from .workloads import ModelInfo

if TYPE_CHECKING:
    from spu_ir.runtime.model import CompiledModel

REPORTED: dict[Precision, str] = {
    "int8": "INT8",
    "mixed": "MixInt8bf16",
    "bf16": "BF16",
    "fp32": "FP32",
}
"""Precisions as ByteMLPerf's reports name them. They become file names, so none has a `/`."""


@dataclass(frozen=True)
class Network:
    """A model as it is compiled, in all precisions the same."""

    model: ModelProto
    about: str
    """Where its weights are from, and what was pruned."""
    weight_sparsity: float
    """Zeros among the weights of its products and convolutions, 0 to 1."""


def build_network(info: ModelInfo, file: Path | None, sparsity: int | None) -> Network:
    """
    The model of `info`.

    `file` is an ONNX model, TorchScript (which PyTorch exports), or safetensors with the weights
    of a published one; without, it is the file that `info` names, or else a published model with
    random weights. `sparsity` is the ratio to prune at, by magnitude; None keeps a file's weights
    as they are, and prunes random ones as published. Raises SpuError for a file that cannot be
    read or is no such model.
    """
    path = file
    if path is None and info.path.exists():
        path = info.path
    published_model = next((one for one in MODELS.values() if one.task == info.name), None)
    if path is None:
        if published_model is None:
            raise SpuError(
                f"the model {info.name!r} has no file {str(info.path)!r}",
                remedy="give --model FILE",
            )
        ratio = sparsity or published_model.sparsity
        model = published_model.build(ratio=ratio)
        about = "random weights from a seed: accuracy and differences are not those of a trained "
        return _network(model, f"{about}model; pruned to {ratio}x by magnitude")
    if path.suffix == ".onnx":
        model, about = read_model(path), f"the weights of {path.name!r}"
    elif path.suffix in (".pt", ".pth"):
        model, about = _from_torchscript(path, info), f"the weights of {path.name!r}"
    elif path.suffix in (".safetensors", ".json") or path.is_dir():
        model = published(info.name).build(path)
        about = f"the published architecture with the weights of {path.name!r}"
    else:
        raise SpuError(
            f"{str(path)!r} is neither ONNX, TorchScript nor safetensors",
            remedy="export it with torch.onnx.export, or save its state_dict() as safetensors",
        )
    if sparsity is None:
        return _network(model, f"{about}, as they are")
    return _network(magnitude(model, sparsity), f"{about}, pruned to {sparsity}x by magnitude")


def _from_torchscript(path: Path, info: ModelInfo) -> ModelProto:
    from spu_ir.contrib.byte_mlperf.from_torch import export_torchscript

    if not path.is_file():
        raise SpuError(f"there is no file {str(path)!r}")
    with tempfile.TemporaryDirectory(prefix="spu-perf.") as folder:
        target = Path(folder) / "model.onnx"
        export_torchscript(
            path,
            target,
            inputs=info.inputs,
            outputs=info.outputs,
            shapes=info.shapes,
            types=[info.elements[name].upper() for name in info.inputs],
        )
        return read_model(target)


def check_sparsity(ratio: int | None) -> None:
    """Raise SpuError for a ratio that weights cannot be pruned at."""
    if ratio is not None and ratio not in RATIOS:
        raise SpuError(
            f"sparsity {ratio} is not known", remedy=f"use one of {', '.join(map(str, RATIOS))}"
        )


def compile_network(
    network: Network,
    info: ModelInfo,
    precision: Precision,
    *,
    calibration: Callable[[], list[Feeds]],
    max_batch: int,
    target: str,
    threads: int | None,
    on_card: bool,
    progress: Progress,
) -> CompiledModel:
    """
    Compile for any batch up to `max_batch`; the other extents are those of `info`.

    `calibration` is called where it is needed: INT8 convolutions, and "mixed", which takes one
    sample because the interpreter runs it layer by layer. `on_card` shows the model in `spu-smi`.
    """
    from spu_ir.api import compile

    samples: list[Feeds] | None = None
    if needs_calibration(network.model, precision):
        samples = calibration()[: 1 if precision == "mixed" else None]
    return compile(
        network.model,
        precision=precision,
        calibration=samples,
        shapes=any_batch(info.shapes, max_batch),
        target=target,
        threads=threads,
        device=None if on_card else "none",
        progress=progress,
    )


def needs_calibration(model: ModelProto, precision: Precision) -> bool:
    """Whether samples are needed to compile it: for "mixed", and for INT8 convolutions."""
    nodes = cast("Any", model.graph.node)
    return precision == "mixed" or (
        precision == "int8" and any(node.op_type in ("Conv", "ConvTranspose") for node in nodes)
    )


def any_batch(shapes: Mapping[str, Sequence[int]], most: int) -> dict[str, Any]:
    """`shapes`, of one sample each, as `spu_ir.compile` takes them for 1 to `most` samples."""
    inputs = {name: ["batch", *shape[1:]] for name, shape in shapes.items()}
    return {**inputs, "batch": (1, most)}


def _network(model: ModelProto, about: str) -> Network:
    zeros, total = 0, 0
    for layer in layers_of(model.graph):
        zeros += layer.weight.size - int(np.count_nonzero(layer.weight))
        total += layer.weight.size
    return Network(model, about, zeros / total if total else 0.0)
