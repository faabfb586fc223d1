"""Integer products of activations whose scale or zero point is known at run time only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.dialects import tensor
from xdsl.dialects.builtin import StringAttr, TensorType, f32, i32
from xdsl.ir import Attribute, SSAValue
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from spu_ir.dialects.spu import EpilogueOp, MatmulOp
from spu_ir.dialects.types import element_of, shape_of, ui8
from spu_ir.dialects.vpu import BinaryFn, BinaryOp, CastOp, DequantiseOp, ExpandOp
from spu_ir.dialects.weights import WeightStore
from spu_ir.transforms.integer_weights import (
    REASON,
    CannotFold,
    check_sums,
    integer_weight,
    times_own_scale,
)
from spu_ir.transforms.rewriting import constant_of, constant_op, dims_of, rebuilt


@dataclass
class FoldRuntimeProduct(RewritePattern):
    """
    `product(dequantise(x), dequantise(weight))` where x has one scale and zero point at run time.

    The zero point's share of a sum, `zero * sum(weight)`, is the same for every row, so it becomes
    a bias that the program computes; a scale becomes the scale of every row.
    """

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MatmulOp, rewriter: PatternRewriter) -> None:
        x, weight = op.x.owner, op.weight.owner
        if not (isinstance(x, DequantiseOp) and isinstance(weight, DequantiseOp)):
            return
        if shape_of(x.scale) or element_of(x.x) != ui8 or REASON in op.attributes:
            return
        try:
            values, scales = integer_weight(weight, self.store)
            scales = times_own_scale(op, scales, self.store)
            check_sums(values, 0)
        except CannotFold as reason:
            op.attributes[REASON] = StringAttr(str(reason))
            rewriter.notify_op_modified(op)
            return
        fixed = constant_of(x.scale, self.store)
        row_scale: SSAValue | None = None
        if fixed is not None:
            scales = scales * np.float32(fixed)
        else:
            row_scale = self.spread(x.scale, op, rewriter)
        bias = op.bias
        if x.zero is not None:
            share = -values.astype(np.int64).sum(axis=1).astype(np.float32) * scales
            zero = self.emit(rewriter, CastOp(x.zero, _empty(rewriter, ())))
            if row_scale is not None:
                zero = self.binary(rewriter, BinaryFn.MUL, zero, x.scale)
            vector = rewriter.insert(constant_op(self.store, share)).result
            vector = self.binary(rewriter, BinaryFn.MUL, vector, zero)
            bias = vector if bias is None else self.binary(rewriter, BinaryFn.ADD, vector, bias)
        new = rebuilt(
            op,
            x=x.x,
            weight=rewriter.insert(constant_op(self.store, values)).result,
            scale=rewriter.insert(constant_op(self.store, scales)).result,
            row_scale=row_scale,
            bias=bias,
        )
        rewriter.replace(op, new)

    def spread(self, scale: SSAValue, op: MatmulOp, rewriter: PatternRewriter) -> SSAValue:
        """One number as the scale of every row of `op`."""
        kind = TensorType(f32, shape_of(op.x)[:-1])
        init = rewriter.insert(tensor.EmptyOp(dims_of(op.x), kind)).tensor
        return self.emit(rewriter, ExpandOp(scale, init))

    def emit(self, rewriter: PatternRewriter, op: CastOp | ExpandOp | BinaryOp) -> SSAValue:
        return rewriter.insert(op).results[0]

    def binary(self, rewriter: PatternRewriter, fn: BinaryFn, a: SSAValue, b: SSAValue) -> SSAValue:
        """`fn` of f32 vectors or numbers, in a's shape."""
        return self.emit(rewriter, BinaryOp(fn, a, b, _empty(rewriter, shape_of(a))))


def _empty(rewriter: PatternRewriter, shape: tuple[int, ...], element: Attribute = f32) -> SSAValue:
    return rewriter.insert(tensor.EmptyOp((), TensorType(element, shape))).tensor


@dataclass
class DropIntegerCast(RewritePattern):
    """A sum of integers is one already: the i32 between it and f32 is dropped."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: CastOp, rewriter: PatternRewriter) -> None:
        inner = op.x.owner
        if element_of(op.init) != f32 or not isinstance(inner, CastOp):
            return
        product = inner.x.owner
        if element_of(inner.init) != i32 or not isinstance(product, EpilogueOp):
            return
        scale = constant_of(product.scale, self.store)
        if element_of(product.x) != ui8 or scale is None or (scale != 1).any():
            return
        if product.row_scale is None and product.residual is None:
            rewriter.replace(op, [], [inner.x])
