"""
Pictures and films in, answers out: decoding, batches, and the pipeline around a compiled model.

Decoding needs the extra `[media]`; `ImageInput` and what it does with arrays needs numpy only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spu_ir.media.image_input import ImageInput

_LAZY = {"ImageInput": "spu_ir.media.image_input"}

__all__ = ["ImageInput"]


def __getattr__(name: str) -> Any:
    # On first use: what needs one of them must not load all.
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
