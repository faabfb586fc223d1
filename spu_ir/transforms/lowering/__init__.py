"""One table of lowerings, from an operator's name to the function that lowers it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xdsl.ir import SSAValue

from spu_ir.dialects.onnx import OnnxOp

from . import (
    indexing,
    movement,
    pointwise,
    positions,
    products,
    quantisation,
    reductions,
    resize,
    shapes,
)
from .context import Constant, Lowering

LowerFn = Callable[[Lowering, OnnxOp], SSAValue | Constant | Sequence[SSAValue]]

FAMILIES: dict[str, dict[str, LowerFn]] = {
    "Products": {**products.LOWERINGS},
    "Element by element": {**pointwise.LOWERINGS},
    "Reductions, normalisation, pooling": {**reductions.LOWERINGS},
    "Data movement": {**movement.LOWERINGS, **indexing.LOWERINGS, **resize.LOWERINGS},
    "Quantisation": {**quantisation.LOWERINGS},
}
"""The operators by family, as the support table lists them."""

LOWERINGS: dict[str, LowerFn] = {
    name: function for family in FAMILIES.values() for name, function in family.items()
}

AT_COMPILE_TIME = shapes.OPERATORS - LOWERINGS.keys()
"""Operators that exist at compile time only: their results never depend on data."""

__all__ = ["AT_COMPILE_TIME", "FAMILIES", "LOWERINGS", "Lowering", "LowerFn", "positions", "shapes"]
