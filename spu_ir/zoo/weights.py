"""Weights of a model, from arrays, tensors of PyTorch or safetensors files, as f32 arrays."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

# Once it is imported, numpy knows the name bfloat16, by which safetensors asks for it.
import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from spu_ir.errors import SpuError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Weights: TypeAlias = Mapping[str, Any]
"""Key -> array, or tensor of PyTorch (a `state_dict()`)."""

WeightSource: TypeAlias = Weights | str | os.PathLike[str]
"""Weights, or the path of a `.safetensors` file, of its index, or of a folder with one of them."""

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
"""The names that HuggingFace gives to one file of weights, and to the index of several."""

PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
"""PyTorch's own formats: pickles, which can run any code when they are read."""


def read_weights(source: WeightSource) -> Weights:
    """
    The weights behind `source`: a mapping is returned as it is, a path is read.

    A path may be a `.safetensors` file, the `*.safetensors.index.json` of a checkpoint in
    several files, or the folder that holds either under HuggingFace's names. Raises SpuError
    for a pickle of PyTorch and for files that are missing or damaged.
    """
    if isinstance(source, Mapping):
        return source
    path = Path(source)
    if path.is_dir():
        path = next((path / name for name in (FILE, INDEX) if (path / name).is_file()), path)
    if path.is_dir():
        raise SpuError(
            f"{str(path)!r} holds neither {FILE} nor {INDEX}", remedy="name a .safetensors file"
        )
    if path.suffix in PICKLES:
        raise SpuError(
            f"{path.name!r} is a pickle, which can run any code when it is read",
            remedy="in PyTorch, call safetensors.torch.save_file(model.state_dict(), "
            "'model.safetensors') and give that file, or give model.state_dict() itself",
        )
    if path.name.endswith(".index.json"):
        return _read_index(path)
    if path.suffix != ".safetensors":
        raise SpuError(
            f"{path.name!r} is no file of weights that can be read",
            remedy="name a .safetensors file, or the .index.json of several",
        )
    return _read_file(path)


def _read_file(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise SpuError(f"there is no file {str(path)!r}")
    weights: dict[str, Array] = {}
    try:
        with cast("Any", safe_open)(path, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (it is no mapping)
                weights[name] = tensors.get_tensor(name)
    except SafetensorError as error:
        raise SpuError(f"{path.name!r} is damaged, or no safetensors file: {error}") from None
    return weights


def _read_index(path: Path) -> dict[str, Array]:
    """All files that an index lists; they are in its own folder."""
    try:
        index: object = json.loads(path.read_bytes())
    except OSError as error:
        raise SpuError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except ValueError:
        index = None
    listed = cast("dict[str, object]", index).get("weight_map") if _is_map(index) else None
    files = list(cast("dict[str, Any]", listed).values()) if _is_map(listed) else [None]
    if not all(isinstance(name, str) for name in files):
        raise SpuError(f"{path.name!r} is no index of safetensors files")
    weights: dict[str, Array] = {}
    for name in sorted(set(cast("list[str]", files))):
        if Path(name).name != name:
            raise SpuError(f"{path.name!r} lists {name!r}, which is outside its folder")
        weights |= _read_file(path.parent / name)
    return weights


def _is_map(value: object) -> bool:
    return isinstance(value, dict)


def _as_array(name: str, value: Any) -> Array:
    """An array, or a tensor of PyTorch on any device, as f32."""
    if hasattr(value, "detach"):
        # `float` first: numpy has no bfloat16 that PyTorch knows.
        value = value.detach().cpu().float().numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" and array.dtype != ml_dtypes.bfloat16:
        raise SpuError(
            f"weight {name!r} has the type {type(value).__name__} of {array.dtype}",
            remedy="give arrays of numbers or tensors of PyTorch",
        )
    return array.astype(np.float32, copy=False)


def check_weights(weights: Weights, shapes: Mapping[str, Sequence[int]]) -> dict[str, Array]:
    """
    The weights that a model needs, as f32, in the order of `shapes`.

    Raises SpuError for one that is missing or has another shape. Others are left alone: a
    checkpoint also holds heads and counters that the model does not use.
    """
    chosen: dict[str, Array] = {}
    for name, shape in shapes.items():
        if name not in weights:
            raise SpuError(f"weight {name!r} is missing", remedy="take the model's own checkpoint")
        value = _as_array(name, weights[name])
        if value.shape != tuple(shape):
            raise SpuError(
                f"weight {name!r} has shape {list(value.shape)}, the configuration needs "
                f"{list(shape)}"
            )
        chosen[name] = value
    return chosen


def random_weights(
    shapes: Mapping[str, Sequence[int]],
    seed: int,
    gain: Callable[[str], float],
    centred: Callable[[str], bool],
) -> dict[str, Array]:
    """
    Weights of a network of linear layers and normalisations that is well-conditioned.

    - A matrix or kernel `[out, in, ...]` is normal with deviation `gain(key) / sqrt(in ...)`, so
      that inputs of unit variance become outputs of deviation `gain(key)`. Where `centred(key)`,
      as for those behind an activation whose mean is not zero, the weights of every output sum
      to zero: otherwise that mean becomes a vector that all tokens share.
    - The gain of a normalisation (a `.weight` of one axis) is normal around 1 with deviation 0.1.
    - A bias is normal with deviation 0.02: it too is shared by all tokens.

    What all tokens share grows from layer to layer of attention, until they are all alike and
    the outputs say nothing about the inputs; real weights are trained out of this.
    """
    random = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    for name, shape in shapes.items():
        value = random.standard_normal(tuple(shape), np.float32)
        if len(shape) > 1:
            fan_in = int(np.prod(shape[1:]))
            if centred(name):
                value -= value.mean(axis=tuple(range(1, value.ndim)), keepdims=True)
            value *= np.float32(gain(name) / fan_in**0.5)
        elif name.endswith(".weight"):
            value = np.float32(1) + np.float32(0.1) * value
        else:
            value *= np.float32(0.02)
        weights[name] = value
    return weights
