"""Fold dequantise and quantise ops around products into integer products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from xdsl.context import Context
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, ModuleOp, StringAttr, f32, i32
from xdsl.ir import Attribute, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import (
    GreedyRewritePatternApplier,
    PatternRewriter,
    PatternRewriteWalker,
    RewritePattern,
    op_type_rewrite_pattern,
)
from xdsl.rewriter import InsertPoint

from spu_ir.dialects.spu import EpilogueOp, MatmulOp
from spu_ir.dialects.types import Array, element_of, shape_of, ui8
from spu_ir.dialects.vpu import DequantiseOp, QuantiseOp, TableOp
from spu_ir.dialects.weights import WeightStore, store_of
from spu_ir.interpreters.numerics_vpu import quantise_by
from spu_ir.transforms.affine import affine_of, shared_affine, uniform
from spu_ir.transforms.integer_weights import (
    REASON,
    CannotFold,
    check_sums,
    dequantised_constant,
    integer_weight,
    times_own_scale,
)
from spu_ir.transforms.qdq_movement import movement_patterns
from spu_ir.transforms.qdq_runtime import DropIntegerCast, FoldRuntimeProduct
from spu_ir.transforms.rewriting import (
    constant_of,
    constant_op,
    dims_of,
    empty_of,
    is_constant,
    rebuilt,
)


@dataclass
class FoldProduct(RewritePattern):
    """`product(dequantise(x), dequantise(weight))` is an int8 product with scales."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: EpilogueOp, rewriter: PatternRewriter) -> None:
        x, weight = op.x.owner, op.weight.owner
        if not (isinstance(x, DequantiseOp) and isinstance(weight, DequantiseOp)):
            return
        if REASON in op.attributes or (isinstance(op, MatmulOp) and self.at_run_time(x)):
            return
        try:
            values, scales, row_scale, zero = self.integers(op, x, weight)
        except CannotFold as reason:
            op.attributes[REASON] = StringAttr(str(reason))
            rewriter.notify_op_modified(op)
            return
        point = InsertPoint.before(op)
        new = rebuilt(
            op,
            {"x_zero": IntegerAttr(zero, i32)},
            x=x.x,
            weight=rewriter.insert(constant_op(self.store, values), point).result,
            scale=rewriter.insert(constant_op(self.store, scales), point).result,
            row_scale=row_scale,
        )
        rewriter.replace(op, new)

    def at_run_time(self, x: DequantiseOp) -> bool:
        """Whether x has one scale and one zero point of which one is computed at run time."""
        return not shape_of(x.scale) and not (
            is_constant(x.scale) and (x.zero is None or is_constant(x.zero))
        )

    def integers(
        self, op: EpilogueOp, x: DequantiseOp, weight: DequantiseOp
    ) -> tuple[Array, NDArray[np.float32], SSAValue | None, int]:
        """The i8 weight, its scales [N], the scales of x's rows if it has some, and x's zero."""
        values, scales = integer_weight(weight, self.store)
        if element_of(x.x) != ui8:
            raise CannotFold(f"activations of {element_of(x.x)} do not come from a quantise op")
        affine = affine_of(x, self.store)
        row_scale: SSAValue | None = None
        if affine is not None:
            zero = affine.zero
            scales = np.float32(affine.scale) * scales
        else:
            own: Any = np.uint8(0) if x.zero is None else uniform(x.zero, self.store)
            if own is None:
                raise CannotFold("the zero point of the activations is computed at run time")
            if not isinstance(op, MatmulOp) or x.axis.value.data >= 0:
                raise CannotFold("the activations have scales along an axis that is summed over")
            if shape_of(x.scale) != shape_of(op.x)[:-1]:
                raise CannotFold("the scale of the activations is computed at run time")
            zero, row_scale = int(own), x.scale
        check_sums(values, zero)
        return values, times_own_scale(op, scales, self.store), row_scale, zero


@dataclass
class FoldOutput(RewritePattern):
    """`quantise(product)`, when nothing else uses the product: it stores bytes itself."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: QuantiseOp, rewriter: PatternRewriter) -> None:
        product = op.x.owner
        if not isinstance(product, EpilogueOp):
            return
        affine = shared_affine(op.x, self.store)
        if affine is None:
            return
        point = InsertPoint.before(product)
        empty = rewriter.insert(empty_of(op.x, affine.element, dims_of(op.x)), point)
        properties: dict[str, Attribute] = {
            "out_scale": FloatAttr(affine.scale, f32),
            "out_zero": IntegerAttr(affine.zero, i32),
        }
        new = rewriter.insert(rebuilt(product, properties, init=empty.tensor), point)
        for use in list(op.x.uses):
            rewriter.replace(use.operation, [], [new.results[0]])
        rewriter.erase(product)


@dataclass
class FoldTable(RewritePattern):
    """`quantise` of a look-up of f32 numbers is a look-up of bytes."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: QuantiseOp, rewriter: PatternRewriter) -> None:
        look_up = op.x.owner
        if not isinstance(look_up, TableOp):
            return
        affine = shared_affine(op.x, self.store)
        numbers = constant_of(look_up.table, self.store)
        if affine is None or numbers is None:
            return
        dtype = np.dtype(np.uint8 if affine.element == ui8 else np.int8)
        scale, zero = np.array(affine.scale, np.float32), np.array(affine.zero, dtype)
        entries = quantise_by(numbers, scale, zero, dtype.name)
        point = InsertPoint.before(look_up)
        table = rewriter.insert(constant_op(self.store, entries), point).result
        empty = rewriter.insert(empty_of(op.x, affine.element, dims_of(op.x)), point)
        new = rewriter.insert(TableOp(look_up.x, table, empty.tensor), point)
        kept = {name: attr for name, attr in look_up.attributes.items() if name != "range"}
        new.attributes.update(kept)
        for use in list(op.x.uses):
            rewriter.replace(use.operation, [], [new.results[0]])
        rewriter.erase(look_up)


@dataclass
class FoldResidual(RewritePattern):
    """A residual that is dequantised from bytes is read as bytes."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: EpilogueOp, rewriter: PatternRewriter) -> None:
        if op.residual is None:
            return
        source = op.residual.owner
        affine = affine_of(source, self.store)
        if affine is None or not isinstance(source, DequantiseOp):
            return
        properties: dict[str, Attribute] = {
            "residual_scale": FloatAttr(affine.scale, f32),
            "residual_zero": IntegerAttr(affine.zero, i32),
        }
        rewriter.replace(op, rebuilt(op, properties, residual=source.x))


@dataclass
class MaterialiseWeight(RewritePattern):
    """The weight of a product that stays f32 becomes an f32 constant."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: EpilogueOp, rewriter: PatternRewriter) -> None:
        source = op.weight.owner
        if not isinstance(source, DequantiseOp) or not is_constant(source.x):
            return
        array = dequantised_constant(source, self.store)
        if array is None:
            return
        if REASON not in op.attributes:
            op.attributes[REASON] = StringAttr("its activations are not quantised")
        constant = rewriter.insert(constant_op(self.store, array), InsertPoint.before(op))
        op.operands[1] = constant.result
        rewriter.notify_op_modified(op)


@dataclass
class FoldBias(RewritePattern):
    """A dequantised constant of i32, as quantised models have their biases, is an f32 constant."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: DequantiseOp, rewriter: PatternRewriter) -> None:
        if element_of(op.x) != i32:
            return
        array = dequantised_constant(op, self.store)
        if array is not None:
            rewriter.replace(op, constant_op(self.store, array))


@dataclass(frozen=True)
class FoldQdqPass(ModulePass):
    """
    Turn QDQ form, this compiler's or an imported model's, into products of integers.

    Data movement between dequantise and quantise moves to the bytes. A product that cannot be
    folded stays f32, with its weight as an f32 constant, and says why in `fallback_reason`.
    """

    name = "fold-qdq"
    preserves: ClassVar[str] = "tolerance(0.02)"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        store = store_of(ctx)
        folding: list[RewritePattern] = [
            *movement_patterns(store),
            FoldBias(store),
            FoldProduct(store),
            FoldRuntimeProduct(store),
            DropIntegerCast(store),
            FoldResidual(store),
            FoldOutput(store),
            FoldTable(store),
        ]
        rest: list[RewritePattern] = [MaterialiseWeight(store)]
        for patterns in (folding, rest):
            PatternRewriteWalker(GreedyRewritePatternApplier(patterns)).rewrite_module(op)
