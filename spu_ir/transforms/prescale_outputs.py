"""Fold the factor of a product's quantisation into its scale, bias and residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from xdsl.context import Context
from xdsl.dialects.builtin import FloatAttr, ModuleOp, UnitAttr, f32
from xdsl.ir import Attribute
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import (
    PatternRewriter,
    PatternRewriteWalker,
    RewritePattern,
    op_type_rewrite_pattern,
)
from xdsl.rewriter import InsertPoint

from spu_ir.dialects.spu import PRESCALED_ACTIVATIONS, EpilogueOp
from spu_ir.dialects.types import Array
from spu_ir.dialects.weights import WeightStore, store_of
from spu_ir.transforms.rewriting import constant_of, constant_op, rebuilt


@dataclass(frozen=True)
class PrescaleOutputsPass(ModulePass):
    """
    A product that stores bytes computes in their steps: `(acc * s + b + r) / out_scale` becomes
    `acc * (s / out_scale) + b / out_scale + r / out_scale`, one multiplication an output less.

    The product says so with `prescaled`, and keeps `out_scale` for who reads its bytes. Needs a
    constant scale and bias, a residual of bytes if there is one, and an activation that a positive
    factor passes through: none, or relu. A factor that would overflow or lose digits is not folded.
    """

    name = "prescale-outputs"
    preserves: ClassVar[str] = "tolerance(0.02)"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        walker = PatternRewriteWalker(Prescale(store_of(ctx)), apply_recursively=False)
        walker.rewrite_module(op)


@dataclass
class Prescale(RewritePattern):
    """One product at a time."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: EpilogueOp, rewriter: PatternRewriter) -> None:
        if op.out_scale is None or op.scale is None or op.prescaled is not None:
            return
        if op.activation.data not in PRESCALED_ACTIVATIONS:
            return
        if op.residual is not None and op.residual_scale is None:
            return
        inverse = np.float32(1.0) / np.float32(op.out_scale.value.data)
        properties: dict[str, Attribute] = {"prescaled": UnitAttr()}
        if op.residual_scale is not None:
            scale = times(np.array(op.residual_scale.value.data, np.float32), inverse)
            if scale is None:
                return
            properties["residual_scale"] = FloatAttr(float(scale), f32)
        vectors = {"scale": op.scale} if op.bias is None else {"scale": op.scale, "bias": op.bias}
        arrays = {name: times(constant_of(v, self.store), inverse) for name, v in vectors.items()}
        constants = {
            name: constant_op(self.store, array)
            for name, array in arrays.items()
            if array is not None
        }
        if len(constants) < len(vectors):
            return
        rewriter.insert(list(constants.values()), InsertPoint.before(op))
        operands = {name: constant.result for name, constant in constants.items()}
        rewriter.replace(op, rebuilt(op, properties, **operands))


def times(values: Array | None, factor: np.float32) -> NDArray[np.float32] | None:
    """`values * factor` in f32; None without values, or if one is not a normal number or zero."""
    if values is None:
        return None
    with np.errstate(all="ignore"):
        product = values.astype(np.float32) * factor
    size = np.abs(product[values != 0])
    normal = np.isfinite(size) & (size >= np.finfo(np.float32).tiny)
    return product if normal.all() else None
