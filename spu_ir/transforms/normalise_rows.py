"""Normalise rows and quantise them in one op."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from spu_ir.dialects.types import shape_of
from spu_ir.dialects.vpu import NORM_ROW, LayerNormOp, LayerNormRowsOp, QuantiseRowsOp
from spu_ir.transforms.rewriting import erase_for, readers_of


@dataclass(frozen=True)
class NormaliseRowsPass(ModulePass):
    """
    Make one `vpu.layer_norm_rows` of a layer normalisation and the quantisation of its rows.

    Rows that nothing else reads go from one to the other through the first cache, and there is one
    parallel region less. That is so of normalisations before a product, as in a Conformer; behind
    a residual sum, as in BERT, the next sum reads them too. Rows are of NORM_ROW elements at most,
    which is known at compilation.
    """

    name = "normalise-rows"
    preserves: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for rows in [each for each in op.walk() if isinstance(each, QuantiseRowsOp)]:
            norm = rows.x.owner
            if isinstance(norm, LayerNormOp) and is_alone(norm, rows):
                fuse(norm, rows)


def is_alone(norm: LayerNormOp, rows: QuantiseRowsOp) -> bool:
    """Whether `rows` alone reads `norm`, and both are of the kind that the fused op does."""
    if not norm.on_tensors or norm.beta is None or not norm.centre.value.data:
        return False
    if rows.columns is not None or rows.zero.value.data != 128:
        return False
    return readers_of(norm.results[0]) == [rows] and 0 <= shape_of(norm.x)[-1] <= NORM_ROW


def fuse(norm: LayerNormOp, rows: QuantiseRowsOp) -> None:
    """Replace both by one op; extents of what was between are those of its input."""
    assert norm.beta is not None
    fused = LayerNormRowsOp(
        norm.x,
        norm.gamma,
        norm.beta,
        rows.init,
        rows.scale_init,
        epsilon=norm.epsilon.value.data,
    )
    fused.attributes.update(rows.attributes)
    Rewriter.insert_op(fused, InsertPoint.before(rows))
    rows.results[0].replace_all_uses_with(fused.results[0])
    rows.results[1].replace_all_uses_with(fused.results[1])
    Rewriter.erase_op(rows)
    erase_for(norm, norm.x)
