"""Prune the weights of products to the banked sparse format, by magnitude."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr, f32
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from spu_ir.dialects.spu import ConvOp, EpilogueOp
from spu_ir.dialects.types import element_of, shape_of
from spu_ir.dialects.weights import BANK_BYTES, WeightStore, store_of
from spu_ir.errors import SpuError
from spu_ir.packing import prune
from spu_ir.packing.prune import RATIOS
from spu_ir.packing.segments import groups_of, segments_of
from spu_ir.transforms.rewriting import after, array_of, constant_op, is_constant

BANK_ELEMENTS = {"int8": BANK_BYTES, "bf16": BANK_BYTES // 2}
SHARES = (1, 2)


def why_dense(op: EpilogueOp) -> str | None:
    """Why pruning `op` would hurt more than it helps, or None."""
    weight = shape_of(op.weight)
    channels = weight[3] if isinstance(op, ConvOp) else None
    return prune.why_dense(prod(weight[1:]), channels, groups_of(op))


@dataclass
class Pruner:
    """Prunes constants; one that several products use alike is pruned once."""

    store: WeightStore
    bank: int
    slots: int
    share: int

    def __post_init__(self) -> None:
        self.done: dict[tuple[SSAValue, tuple[int, ...], int], SSAValue] = {}

    def prune(self, op: EpilogueOp) -> None:
        """Replace `op`'s weight by its largest elements of every row and bank."""
        source, segments, groups = op.weight, segments_of(op), groups_of(op)
        key = (source, tuple(length for _, length in segments), groups)
        if key not in self.done:
            weight = array_of(source, self.store)
            rows = weight.reshape(len(weight), -1)
            pruned = prune.prune_banked(rows, segments, self.bank, self.slots, self.share, groups)
            constant = constant_op(self.store, pruned.reshape(weight.shape))
            self.done[key] = Builder(after([source])).insert(constant).result
        op.operands[1] = self.done[key]


@dataclass(frozen=True)
class SparsifyPass(ModulePass):
    """
    Keep the `64 / ratio` largest of every row's 64 weights (bank of INT8; 32 in bf16).

    `share` prunes so many lane groups of 16 rows alike, which then use one index vector. A layer
    that is left as it is says why in `dense_reason`.
    """

    name = "sparsify"
    preserves: ClassVar[str] = "lossy"

    ratio: int = 16
    precision: str = "int8"
    share: int = 1

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for what, value, allowed in (
            ("ratio", self.ratio, RATIOS),
            ("precision", self.precision, tuple(BANK_ELEMENTS)),
            ("share", self.share, SHARES),
        ):
            if value not in allowed:
                raise SpuError(
                    f"sparsify has no {what} {value!r}",
                    remedy=f"it is one of {', '.join(map(str, allowed))}",
                )
        if self.ratio == 1:
            return
        bank = BANK_ELEMENTS[self.precision]
        pruner = Pruner(store_of(ctx), bank, bank // self.ratio, self.share)
        for each in op.walk():
            if not isinstance(each, EpilogueOp) or element_of(each.x) != f32:
                continue
            reason = why_dense(each) if is_constant(each.weight) else "its weight is not a constant"
            if reason is None:
                pruner.prune(each)
            else:
                each.attributes["dense_reason"] = StringAttr(reason)

    def reference(self, ctx: Context, module: ModuleOp) -> ModuleOp:
        """`module` with its weights masked."""
        from spu_ir.transforms.references import f32_products, mask, set_weight, weight_of

        store, bank = store_of(ctx), BANK_ELEMENTS[self.precision]
        for op in f32_products(module) if self.ratio > 1 else ():
            if why_dense(op) is None:
                weight = weight_of(op, store)
                rows = weight.reshape(len(weight), -1)
                lengths = [length for _, length in segments_of(op)]
                slots = bank // self.ratio
                kept = mask(rows, lengths, bank, slots, self.share, groups_of(op))
                set_weight(op, (rows * kept).reshape(weight.shape), store)
        return module
