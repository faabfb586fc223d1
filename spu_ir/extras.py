"""Libraries that an extra of the package brings, imported where they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from spu_ir.errors import SpuError


def extra_module(name: str, what: str, extra: str) -> Any:
    """
    The module `name`, which the extra `extra` brings and `what` needs: "decoding of JPEGs".

    Raises SpuError, naming the extra, where it is missing or broken.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise SpuError(
            f"{what} needs {name}, which cannot be loaded: {error}",
            remedy=f"pip install 'spu-ir[{extra}]'",
        ) from error
