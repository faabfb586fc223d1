"""One reshape and one transpose for a chain of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, PatternRewriteWalker, RewritePattern

from spu_ir.dialects.onnx import OnnxOp
from spu_ir.dialects.weights import WeightStore, store_of

from .axis_atoms import MOVEMENT, movement, trace
from .onnx_patterns import erase_dead
from .symbolic_shapes import symbolic_dims


@dataclass(frozen=True)
class CollapseMovementPass(ModulePass):
    """
    A chain of `Reshape`, `Transpose`, `Squeeze` and `Unsqueeze` -> one `Reshape`, one `Transpose`.

    Exporters merge batch and heads for a product and take them apart again; what comes out is the
    source with its axes cut and put in another order. Chains whose result merges axes of the
    source stay, and so do those with an extent that cannot be followed.
    """

    name = "collapse-movement"
    preserves: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        PatternRewriteWalker(_Collapse(store_of(ctx))).rewrite_module(op)
        erase_dead(op)


@dataclass(frozen=True)
class _Collapse(RewritePattern):
    store: WeightStore

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        if not isinstance(op, OnnxOp) or not op.is_newest or op.schema_name not in MOVEMENT:
            return
        found = trace(op.results[0])
        if found is None or len(found.ops) < 2:
            return
        dims = symbolic_dims(found.source)
        assert dims is not None, "trace has looked at them"
        move = movement(dims, found.source_axes, found.axes)
        if move is None or move.count >= len(found.ops):
            return
        if move.count == 0:
            rewriter.replace(op, [], [found.source])
            return
        new = move.ops(found.source, op, self.store)
        last = new[-1]
        params = op.attributes.get("onnx.dim_params")
        if params is not None:
            last.attributes["onnx.dim_params"] = params
        rewriter.replace(op, new)
