"""A TorchScript model as ONNX at the interface that the engine's model description gives it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from spu_ir.errors import SpuError
from spu_ir.frontend.checks import first_line
from spu_ir.perf.workloads import ELEMENTS

BATCH = 2
"""Samples of the example that the export traces: not 1, which would be taken for a constant."""


def export_torchscript(
    source: Path,
    target: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    shapes: Mapping[str, Sequence[int]],
    types: Sequence[str],
) -> None:
    """
    Write the TorchScript file `source` to `target` as ONNX; the first axis stays a run-time extent.

    `inputs` are in the order of the module's arguments; `shapes` (of one sample each, the batch
    first) and `types` (as the engine calls them: FLOAT32, LONG, ...) say what they are. A module
    may return a tensor, a tuple, or a mapping with the names of `outputs`; of a longer tuple, the
    first ones are meant. Raises SpuError without PyTorch, and for a file that it cannot read,
    export, or that does not fit.
    """
    try:
        import torch
    except ImportError as error:
        raise SpuError(
            f"a TorchScript model needs PyTorch to become ONNX: {error}",
            remedy="pip install 'spu-ir[export]'",
        ) from error
    # PyTorch leaves these without types.
    jit, onnx_exporter = cast("Any", torch.jit), cast("Any", torch.onnx)
    for kind in types:
        if kind not in ELEMENTS:
            raise SpuError(f"the input type {kind!r} is not known", remedy=f"use {list(ELEMENTS)}")
    try:
        script: Any = _quietly(lambda: jit.load(str(source), map_location="cpu").eval())
    except (RuntimeError, ValueError) as error:
        raise SpuError(
            f"{source} is no TorchScript file: {first_line(error)}",
            remedy="write it with torch.jit.save",
        ) from error

    class Flat(torch.nn.Module):
        """The outputs as a tuple, in the declared order: ONNX has no mappings."""

        def __init__(self) -> None:
            super().__init__()
            self.script = script

        def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return _chosen(self.script(*tensors), outputs)

    example = tuple(
        _example(torch, name, [BATCH, *shapes[name][1:]], getattr(torch, ELEMENTS[kind]))
        for name, kind in zip(inputs, types, strict=True)
    )
    try:
        # The exporter does not trace into TorchScript itself; a trace around it, it takes.
        traced: Any = _quietly(lambda: jit.trace(Flat(), example, check_trace=False))
        _quietly(
            lambda: onnx_exporter.export(
                traced,
                example,
                str(target),
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes={name: {0: "batch"} for name in (*inputs, *outputs)},
                dynamo=False,
            )
        )
    except (RuntimeError, ValueError) as error:
        raise SpuError(
            f"PyTorch cannot export {source}: {first_line(error)}",
            remedy="export it to ONNX by hand, and describe it as framework Onnx",
        ) from error


def _quietly(run: Callable[[], Any]) -> Any:
    """
    `run()` without what PyTorch warns of here: that TorchScript and its exporter are of yesterday
    (the engine's models are TorchScript, which the newer exporter does not take), and that a trace
    sees one example.
    """
    from torch.jit._trace import TracerWarning

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=TracerWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module="torch.onnx")
        return run()


def _example(torch: Any, name: str, shape: list[int], dtype: Any) -> Any:
    """One batch to trace: masks of ones, other whole numbers 0, floats noise."""
    if dtype.is_floating_point:
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return (torch.ones if "mask" in name and dtype != torch.bool else torch.zeros)(
        shape, dtype=dtype
    )


def _chosen(result: object, outputs: Sequence[str]) -> tuple[Any, ...]:
    if isinstance(result, Mapping):
        named = cast("Mapping[str, Any]", result)
        missing = [name for name in outputs if name not in named]
        if missing:
            raise ValueError(f"it returns {', '.join(named)}, and no {missing[0]}")
        return tuple(named[name] for name in outputs)
    several = isinstance(result, tuple | list)
    values = tuple(cast("Sequence[Any]", result)) if several else (result,)
    if len(values) < len(outputs):
        raise ValueError(f"it returns {len(values)} tensors, and {len(outputs)} are declared")
    return values[: len(outputs)]
