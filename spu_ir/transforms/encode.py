"""Choose a weight's format from the zeros that it has: banked, ragged or dense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import FloatAttr, ModuleOp, StringAttr, TensorType, bf16, f32, i8
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from spu_ir.dialects.antoum import ConstantOp
from spu_ir.dialects.spu import ConvOp, EpilogueOp
from spu_ir.dialects.types import Array, element_of, shape_of
from spu_ir.dialects.weights import BANK_BYTES, BankedAttr, WeightStore, store_of
from spu_ir.errors import SpuError
from spu_ir.packing.segments import groups_of, segments_of
from spu_ir.packing.windows import LANES, Segments, counts_of
from spu_ir.transforms.rewriting import after, constant_of

BANKED_COST = 1 / 0.6
"""How much longer a sparse slot takes than a dense one: it is permuted before it is multiplied."""

RAGGED_GAIN = 0.8
"""Ragged lists are chosen over balanced ones when they run less than this part of the slots."""


FORMATS = ("auto", "dense")


class Choice(NamedTuple):
    """A weight's format, and what the report says about it."""

    encoding: BankedAttr | None
    format: str
    dense_reason: str | None = None


def choose(weight: Array, segments: Segments, groups: int) -> Choice:
    """
    The format of an int8 or bf16 weight `[N, K]` that runs the fewest slots, dense if in doubt.

    Slots are counted per row: a dense row runs all of K, four bytes at a time.
    """
    quad = 4 // weight.itemsize
    bank = BANK_BYTES // weight.itemsize
    dense = sum(-(-length // quad) * quad for _, length in segments)
    counts = counts_of(weight, segments, 1, groups)
    banks, most = counts.shape[-1], int(counts.max(initial=0))
    slots = max(quad // 2, 1 << max(0, most - 1).bit_length())
    per_bank = -(-counts.max(axis=1, initial=0) // quad) * quad
    ragged = float(per_bank.sum(axis=-1).mean())
    # A quad over two banks halves their slots only when both have few.
    balanced = float(slots * banks if slots >= quad else -(-banks // 2) * quad)
    if slots > bank // 2:
        balanced = np.inf
    share = _share(weight, segments, groups, slots)
    if balanced * BANKED_COST <= dense and balanced * RAGGED_GAIN <= ragged:
        return Choice(BankedAttr.get(bank, slots, share), f"banked {slots}/{bank}")
    if ragged * BANKED_COST <= dense:
        mean = ragged * bank / dense
        return Choice(BankedAttr.get(bank, 0), f"ragged {mean:.1f}/{bank}")
    run = min(ragged, balanced) * bank / dense
    return Choice(None, "dense", f"it would run {run:.1f} of {bank} slots a bank")


def _share(weight: Array, segments: Segments, groups: int, slots: int) -> int:
    """2 when pairs of lane groups fit the same slots together, else 1."""
    if (len(weight) // groups) % (2 * LANES):
        return 1
    return 2 if int(counts_of(weight, segments, 2, groups).max(initial=0)) <= slots else 1


@dataclass(frozen=True)
class EncodePass(ModulePass):
    """
    Give the constant weights of int8 and bf16 products the encoding that suits their zeros.

    Every product gets `density` and `format` for the report, and `dense_reason` where sparsity
    was not used. Only the types of constants change. With `format = "dense"` every weight is
    dense, to compare with.
    """

    name = "encode"
    # Banked bf16 products are summed in the order of their slots; int8 is exact in any order.
    preserves: ClassVar[str] = "tolerance(1e-5)"

    format: str = "auto"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.format not in FORMATS:
            raise SpuError(
                f"encode has no format {self.format!r}",
                remedy=f"it is one of {', '.join(FORMATS)}",
            )
        encoded: dict[tuple[SSAValue, BankedAttr], SSAValue] = {}
        store = store_of(ctx)
        for each in op.walk():
            if isinstance(each, EpilogueOp):
                encode(each, store, encoded, dense=self.format == "dense")


def encode(
    op: EpilogueOp,
    store: WeightStore,
    encoded: dict[tuple[SSAValue, BankedAttr], SSAValue],
    *,
    dense: bool,
) -> None:
    """Choose the format of one product's weight; `encoded` has the constants made so far."""
    source = op.weight
    weight = constant_of(source, store)
    if weight is None:
        return
    op.attributes["density"] = FloatAttr(np.count_nonzero(weight) / max(1, weight.size), f32)
    if isinstance(op, ConvOp) and op.depthwise:
        choice = Choice(None, "dense", "a depthwise convolution has no sum over channels to skip")
    elif element_of(source) not in (i8, bf16):
        choice = Choice(None, "dense", "f32 weights are always dense")
    elif dense:
        choice = Choice(None, "dense", "dense was asked for")
    else:
        choice = choose(weight.reshape(len(weight), -1), segments_of(op), groups_of(op))
    op.attributes["format"] = StringAttr(choice.format)
    if choice.encoding is None:
        # What sparsify or quantise said comes first: it is the cause.
        if "dense_reason" not in op.attributes and choice.dense_reason is not None:
            op.attributes["dense_reason"] = StringAttr(choice.dense_reason)
        return
    op.attributes.pop("dense_reason", None)
    key = (source, choice.encoding)
    if key not in encoded:
        assert isinstance(source.owner, ConstantOp)
        kind = TensorType(element_of(source), shape_of(source), choice.encoding)
        constant = ConstantOp(source.owner.value, kind)
        encoded[key] = Builder(after([source])).insert(constant).result
    op.operands[1] = encoded[key]
