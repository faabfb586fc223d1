"""
What this project adds to xDSL: dialects, passes and targets, each a name and a lazy loader.

The `xdsl.universe` entry point names `SPU_UNIVERSE`, so that stock `xdsl-opt` has all of them. A
new pass is a file `transforms/<name with underscores>.py` and one line in `PASSES`; a new dialect
or target is one line in its table.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TypeVar

from xdsl.ir import Dialect
from xdsl.passes import ModulePass
from xdsl.universe import Universe
from xdsl.utils.target import Target

DIALECTS = {
    "onnx": "spu_ir.dialects.onnx:Onnx",
    "spu": "spu_ir.dialects.spu:Spu",
    "vpu": "spu_ir.dialects.vpu:Vpu",
    "antoum": "spu_ir.dialects.antoum:Antoum",
}
"""Name of a dialect -> `module:object` of its `Dialect`."""

PASSES = (
    # onnx -> onnx
    "upgrade-opset",
    "infer-shapes",
    "expand-quantised",
    "fold-constants",
    "unflatten-products",
    "split-products",
    "collapse-movement",
    "fuse-layer-norm",
    "fuse-gelu",
    "fuse-attention",
    "fold-batch-norm",
    "lower-onnx",
    # spu and vpu on tensors
    "preprocess-images",
    "sink-transposes",
    "fuse-epilogue",
    "skip-padding",
    "sparsify",
    "smooth-activations",
    "scale-columns",
    "group-inputs",
    "calibrate",
    "choose-precision",
    "round-weights",
    "correct-bias",
    "quantise",
    "quantise-attention",
    "convert-bf16",
    "fold-qdq",
    "prescale-outputs",
    "approximate-activations",
    "encode",
    "run-samples-apart",
    "normalise-rows",
    "quantise-products",
    # memrefs
    "bufferise",
    "plan-memory",
    "tile",
)
"""Passes in the order in which a pipeline would run them; the file has the same name."""

PIPELINES = ("graph", "lower", "quantise-int8", "quantise-bf16", "quantise-fp32", "memory")
"""The names in `transforms/pipelines.py`, which is loaded only when one is asked for."""

TARGETS = {"c": "spu_ir.codegen.target:CTarget"}
"""Name of a target (`spu-opt -t name`) -> `module:class` of its `Target`."""

_T = TypeVar("_T")


def _load(path: str, kind: type[_T]) -> _T:
    module, _, name = path.partition(":")
    found = getattr(import_module(module), name)
    if not isinstance(found, kind):
        raise TypeError(f"{path} is not a {kind.__name__}")
    return found


def _load_target(path: str) -> type[Target]:
    found = _load(path, type)
    if not issubclass(found, Target):
        raise TypeError(f"{path} is not a Target")
    return found


def load_pass(name: str) -> type[ModulePass]:
    """The pass called `name`; KeyError when the file of that name does not define it."""
    module = import_module("spu_ir.transforms." + name.replace("-", "_"))
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and issubclass(value, ModulePass)
            and value.__module__ == module.__name__
            and value.name == name
        ):
            return value
    raise KeyError(name)


def _table(loader: Callable[[str], _T], names: dict[str, str]) -> dict[str, Callable[[], _T]]:
    return {name: partial(loader, path) for name, path in names.items()}


SPU_UNIVERSE = Universe(
    all_dialects=_table(lambda path: _load(path, Dialect), DIALECTS),
    all_passes=_table(load_pass, {name: name for name in PASSES}),
    all_targets=_table(_load_target, TARGETS),
)
