"""Multiply and quantise in one op."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from spu_ir.dialects.types import shape_of
from spu_ir.dialects.vpu import BinaryFn, BinaryOp, QuantiseOp, QuantiseProductOp
from spu_ir.transforms.rewriting import erase_for, readers_of


@dataclass(frozen=True)
class QuantiseProductsPass(ModulePass):
    """
    Make one `vpu.quantise_product` of a multiplication and the quantisation of what it gives.

    So a gate and what it gates, as in a Conformer's convolutions, become bytes in one pass. The
    factors have one shape, the quantisation has one scale and zero point, and nothing else reads
    the product.
    """

    name = "quantise-products"
    preserves: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for quantise in [each for each in op.walk() if isinstance(each, QuantiseOp)]:
            product = quantise.x.owner
            if isinstance(product, BinaryOp) and is_alone(product, quantise):
                fuse(product, quantise)


def is_alone(product: BinaryOp, quantise: QuantiseOp) -> bool:
    """Whether `quantise` alone reads `product`, and both are of the kind that the fused op does."""
    if not product.on_tensors or product.fn.data is not BinaryFn.MUL or quantise.zero is None:
        return False
    shape = shape_of(product.init)
    if not shape or any(shape_of(value) != shape for value in (product.a, product.b)):
        return False
    if shape_of(quantise.scale) or quantise.axis.value.data >= 0:
        return False
    return readers_of(product.results[0]) == [quantise]


def fuse(product: BinaryOp, quantise: QuantiseOp) -> None:
    """Replace both by one op; extents of what was between are those of its first factor."""
    assert quantise.zero is not None
    fused = QuantiseProductOp(product.a, product.b, quantise.scale, quantise.zero, quantise.init)
    fused.attributes.update(quantise.attributes)
    if "layer" not in fused.attributes and "layer" in product.attributes:
        fused.attributes["layer"] = product.attributes["layer"]
    Rewriter.insert_op(fused, InsertPoint.before(quantise))
    quantise.results[0].replace_all_uses_with(fused.results[0])
    Rewriter.erase_op(quantise)
    erase_for(product, product.a)
