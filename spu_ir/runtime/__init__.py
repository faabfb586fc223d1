"""Everything after code generation: build a program, store it, load it, run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spu_ir.runtime.model import CompiledModel, load

__all__ = ["CompiledModel", "load"]


def __getattr__(name: str) -> Any:
    # On first use: code generation imports runtime.program, and needs none of the rest.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from spu_ir.runtime import model

    return getattr(model, name)
