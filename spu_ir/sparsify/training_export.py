"""A PyTorch model as an ONNX file, with PyTorch's own exporter."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import Any, cast

import torch
from torch import Tensor, nn

from spu_ir.errors import SpuError


def export_onnx(
    model: nn.Module,
    path: str | PathLike[str],
    sample: Tensor | tuple[Any, ...] | Mapping[str, Any],
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    output_names: Sequence[str] | None = None,
) -> None:
    """
    Write `model`, which is put in evaluation mode, with its weights inside the file.

    See `BankPruner.export` for `sample` and `dynamic`. Raises SpuError for a name in `dynamic`
    that no input has, and an extent of the sample that cannot be a run-time value.
    """
    model.eval()
    arguments: tuple[Any, ...] = ()
    named: dict[str, Any] = {}
    if isinstance(sample, Mapping):
        named = dict(sample)
    else:
        arguments = sample if isinstance(sample, tuple) else (sample,)
    parameters = list(inspect.signature(model.forward).parameters)
    inputs = dict(zip(parameters, arguments, strict=False)) | named
    shapes = {name: dict((dynamic or {}).get(name, {})) for name in inputs}
    _check(dynamic or {}, inputs)
    program = cast("Any", torch.onnx).export(
        model,
        arguments,
        kwargs=named or None,
        dynamo=True,
        dynamic_shapes=shapes if dynamic else None,
        output_names=output_names,
        verbose=False,
    )
    # Where in which file of this machine every node was written is nobody else's business, and
    # without it the same model gives the same file everywhere.
    for node in program.model.graph.all_nodes():
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
    program.save(fspath(path), external_data=False)


def _check(dynamic: Mapping[str, Mapping[int, str]], inputs: Mapping[str, Any]) -> None:
    for name, axes in dynamic.items():
        if name not in inputs:
            raise SpuError(
                f"the sample has no input {name!r}",
                remedy=f"the names are those of forward's arguments: {', '.join(inputs)}",
            )
        value = inputs[name]
        for axis in axes:
            if not isinstance(value, Tensor) or not -value.ndim <= axis < value.ndim:
                raise SpuError(f"the input {name!r} has no axis {axis}", remedy="see its shape")
            if value.shape[axis] < 2:
                raise SpuError(
                    f"the sample's input {name!r} has an extent of {value.shape[axis]} on axis "
                    f"{axis}, which PyTorch takes as fixed",
                    remedy="use a sample in which it is 2 or more",
                )
