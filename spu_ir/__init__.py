"""
An open compiler for a sparse processing unit: ONNX in, one C program out, run on the host.

    model = spu_ir.compile("model.onnx", precision="int8", shapes={"batch": (1, 64)})
    outputs = model.run({"input": array})
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spu_ir._version import __version__
from spu_ir.errors import SpuError

if TYPE_CHECKING:
    from spu_ir.api import compile, sensitivity
    from spu_ir.media.image_input import ImageInput
    from spu_ir.runtime.cards import devices
    from spu_ir.runtime.model import CompiledModel, load
    from spu_ir.targets import Target
    from spu_ir.transforms.sensitivity import SensitivityReport
    from spu_ir.transforms.tile_sizes import Tiling

_LAZY = {
    "compile": "spu_ir.api",
    "CompiledModel": "spu_ir.runtime.model",
    "ImageInput": "spu_ir.media.image_input",
    "devices": "spu_ir.runtime.cards",
    "load": "spu_ir.runtime.model",
    "SensitivityReport": "spu_ir.transforms.sensitivity",
    "sensitivity": "spu_ir.api",
    "Target": "spu_ir.targets",
    "Tiling": "spu_ir.transforms.tile_sizes",
}

__all__ = [
    "CompiledModel",
    "ImageInput",
    "SensitivityReport",
    "SpuError",
    "Target",
    "Tiling",
    "__version__",
    "compile",
    "devices",
    "load",
    "sensitivity",
]


def __getattr__(name: str) -> Any:
    # On first use: the tools' --help must not wait for onnx and numpy.
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
