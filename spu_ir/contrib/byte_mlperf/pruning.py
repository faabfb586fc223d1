"""A dense model pruned at the ratio that its task is published for, and a record of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from spu_ir.quantisation import Precision
from spu_ir.sparsify import BANK, magnitude
from spu_ir.sparsify.layers import layers_of

DENSE = 0.5
"""A model that keeps more of its weights than this counts as dense."""


@dataclass(frozen=True)
class Pruned:
    """A model, and what was done about its weights."""

    model: onnx.ModelProto
    sparsity: float
    """Zeros among the weights that can be pruned, 0 to 1."""
    note: str


def pruned_at(model: onnx.ModelProto, ratio: int, precision: Precision) -> Pruned:
    """
    `model` with one in `ratio` of its weights left, by magnitude, if it comes dense.

    A model that comes pruned keeps its weights, whatever its ratio: pruning it again would undo
    what it was trained for. Banks are those of BF16 where layers may be computed in it; they suit
    INT8 too.
    """
    density = density_of(model)
    came = f"came with {1 - density:.1%} of its weights zero"
    if ratio == 1:
        return Pruned(model, 1 - density, f"none: the model {came}, and the settings ask for none")
    if density <= DENSE:
        return Pruned(model, 1 - density, f"none: the model {came}")
    bank = BANK // 2 if precision in ("bf16", "mixed") else BANK
    result = magnitude(model, ratio, bank=bank)
    note = f"by magnitude to 1 in {ratio}, without training: the model {came}"
    return Pruned(result, 1 - density_of(result), note)


def density_of(model: onnx.ModelProto) -> float:
    """The part of the weights that is not zero, of the layers that can be pruned; 1 without any."""
    kept = total = 0
    seen: set[str] = set()
    for layer in layers_of(model.graph):
        if layer.rows.why_dense is None and layer.weight_name not in seen:
            seen.add(layer.weight_name)
            kept += int(np.count_nonzero(layer.weight))
            total += layer.weight.size
    return kept / total if total else 1.0
