"""Pruning by magnitude, which needs no data: the largest weights stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import onnx

from spu_ir.errors import SpuError

from .banks import BANK, Array, BankedRows, Mask, bank_mask
from .files import Model, read_model
from .layers import Ratio, Replacer, layers_of, ratios_of, why_not
from .report import Report, layer_report

Structure = Literal["banked", "paired", "unstructured"]
STRUCTURES: tuple[Structure, ...] = get_args(Structure)


def magnitude(
    model: Model,
    ratio: Ratio,
    *,
    bank: int = BANK,
    structure: Structure = "banked",
    keep: Sequence[str] = (),
    report: Report | None = None,
) -> onnx.ModelProto:
    """
    A copy of `model`, a proto or a path, whose weights keep `bank / ratio` numbers a row and bank.

    Weights are the constant right operands of MatMul and Gemm and the filters of Conv and
    ConvTranspose. A row is one output channel; its reduction is ordered as the compiler orders it
    (of a convolution: kernel row, kernel column, channel) and cut in banks inside each contiguous
    run. The largest magnitudes stay, the first of equals: what `compile(sparsity=ratio)` keeps.
    Layers shorter than a bank and first convolutions stay dense.

    `ratio` is 1, 2, 4, 8, 16 or 32; a mapping of globs of layer (or weight) names to ratios, in
    which the first match counts and other layers stay dense; or a function of the layer. Layers
    that match a glob of `keep` stay dense. `bank` is 64, or 32 for models that are to run in
    bfloat16 (they suit INT8 too). With `structure="paired"` output channels l and l + 16 of every
    32 keep the same places of their banks, by the sum of their magnitudes: the format stores these
    once for both, and runs them faster. With `structure="unstructured"` the largest of the whole
    weight stay, and any ratio from 1 is possible: 10 leaves 10 %, 20 leaves 5 %. `report` is called
    with a `LayerReport` for every layer.

    The result is the FP32 reference of a compilation at that ratio: both have the same weights.
    Raises SpuError for a ratio that the format does not have, or a pattern without a layer.
    """
    check_bank(bank)
    if structure not in STRUCTURES:
        known = ", ".join(STRUCTURES)
        raise SpuError(f"structure {structure!r} is not known", remedy=f"use one of {known}")
    pruned = read_model(model)
    layers = layers_of(pruned.graph)
    ratios = ratios_of(layers, ratio, keep, any_ratio=structure == "unstructured")
    replacer = Replacer(pruned)
    for layer, one in zip(layers, ratios, strict=True):
        reason = why_not(layer, one)
        weight = layer.weight
        if reason is None:
            weight = pruned_weight(weight, layer.rows, one, bank=bank, structure=structure)
            replacer.replace(layer, weight, one)
        if report is not None:
            report(layer_report(layer, weight, one if reason is None else 1, reason))
    replacer.finish()
    return pruned


def check_bank(bank: int) -> None:
    """Raise SpuError for a size that no bank has."""
    if bank not in (BANK, BANK // 2):
        raise SpuError(f"there is no bank of {bank}", remedy="use 64, or 32 for bfloat16")


def pruned_weight(
    weight: Array,
    rows: BankedRows,
    ratio: float,
    *,
    bank: int = BANK,
    structure: Structure = "banked",
) -> Array:
    """
    A copy of `weight`, laid out as `rows` says, of which the largest magnitudes stay.

    `[n, k]`, filters and so on, of any float type; see `magnitude` for the rest. A weight that
    the compiler leaves dense keeps everything.
    """
    if rows.why_dense is not None:
        return weight.copy()
    if structure == "unstructured":
        keep = _largest(weight, ratio)
    else:
        share = 2 if structure == "paired" else 1
        keep = bank_mask(weight, rows, int(ratio), bank=bank, share=share)
    pruned: Array = np.where(keep, weight, np.zeros((), weight.dtype))
    return pruned


def _largest(weight: Array, ratio: float) -> Mask:
    """The largest of all of a weight, one in `ratio`; of equals the first."""
    flat: Array = np.abs(weight.astype(np.float64)).reshape(-1)
    count = round(flat.size / ratio)
    keep: Mask = np.zeros(flat.size, np.bool_)
    keep[np.argsort(-flat, kind="stable")[:count]] = True
    return keep.reshape(weight.shape)
