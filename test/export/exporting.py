"""What the tests of exported models share: export, compile, compare with ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp

from spu_ir import api
from spu_ir.dialects.types import DYNAMIC
from spu_ir.frontend import import_model
from spu_ir.runtime.model import CompiledModel
from spu_ir.transforms import pipelines

Array = NDArray[Any]
Feeds = dict[str, Array]

EXPORTERS = ("torchscript", "dynamo")
"""`torch.onnx.export` with dynamo=False, and with dynamo=True."""


def settle(module: Any, seed: int = 0) -> Any:
    """The module in evaluation mode, its batch norms with statistics as training leaves them."""
    import torch

    random = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.uniform_(-0.3, 0.3, generator=random)
            layer.running_var.uniform_(0.5, 2.0, generator=random)
            layer.weight.data.uniform_(0.5, 1.5, generator=random)
            layer.bias.data.uniform_(-0.2, 0.2, generator=random)
    return module.eval()


def export(
    module: Any,
    inputs: Mapping[str, Any],
    output: str,
    exporter: str,
    folder: Path,
    axes: Mapping[int, str] | None = None,
) -> Path:
    """
    A file with the module as ONNX; `axes` names the extents that vary, 0 being "batch" otherwise.

    The names of `inputs` are those of the module's parameters.
    """
    import torch

    path = folder / f"{exporter}.onnx"
    names = {0: "batch"} if axes is None else dict(axes)
    if exporter == "dynamo":
        dims = {axis: torch.export.Dim(name) for axis, name in names.items()}
        varying: dict[str, Any] = {"dynamic_shapes": dict.fromkeys(inputs, dims)}
    else:
        varying = {"dynamic_axes": dict.fromkeys([*inputs, output], names)}
    # Not under no_grad: nn.MultiheadAttention would take a fused path, which has no ONNX form.
    torch.onnx.export(
        module,
        tuple(inputs.values()),
        path,
        input_names=list(inputs),
        output_names=[output],
        dynamo=exporter == "dynamo",
        verbose=False,
        **varying,
    )
    return path


def tensors(path: Path, shapes: Mapping[str, Any]) -> ModuleOp:
    """The model as `spu` and `vpu` ops on tensors, fused, before it is quantised."""
    ctx = api.new_context()
    module = import_model(path, ctx, shapes=shapes)
    for one in (*pipelines.GRAPH, *pipelines.LOWER):
        one.apply(ctx, module)
    module.verify()
    return module


def kinds(module: ModuleOp) -> Counter[str]:
    """How often every op of the dialects of this project occurs."""
    dialects = ("onnx.", "spu.", "vpu.")
    return Counter(op.name for op in module.walk() if op.name.startswith(dialects))


class Reference:
    """ONNX Runtime's answers, on one thread."""

    def __init__(self, path: Path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options)

    def error(self, model: CompiledModel, feeds: Feeds) -> float:
        """The relative L2 distance of a compiled model's answers."""
        names = [output.name for output in self.session.get_outputs()]
        expected: Sequence[Array] = self.session.run(names, feeds)
        got = model.run(feeds)
        distances: list[float] = []
        for name, want in zip(names, expected, strict=True):
            assert got[name].shape == want.shape
            assert DYNAMIC not in want.shape
            distances.append(float(np.linalg.norm(got[name] - want) / np.linalg.norm(want)))
        return max(distances)
