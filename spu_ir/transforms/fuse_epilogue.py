"""Fuse what follows a product into its epilogue: scale, bias, residual and activation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, f32
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import (
    GreedyRewritePatternApplier,
    PatternRewriter,
    PatternRewriteWalker,
    RewritePattern,
    op_type_rewrite_pattern,
)
from xdsl.rewriter import InsertPoint

from spu_ir.dialects.spu import Activation, ActivationAttr, EpilogueOp
from spu_ir.dialects.types import element_of, shape_of
from spu_ir.dialects.vpu import BinaryFn, BinaryOp, UnaryFn, UnaryFnAttr, UnaryOp
from spu_ir.dialects.weights import WeightStore, store_of
from spu_ir.transforms.rewriting import (
    constant_of,
    constant_op,
    dims_of,
    rebuilt,
    user_of,
    users_of,
)

ACTIVATIONS = {
    UnaryFn.RELU: Activation.RELU,
    UnaryFn.GELU: Activation.GELU,
    UnaryFn.GELU_TANH: Activation.GELU_TANH,
    UnaryFn.TANH: Activation.TANH,
    UnaryFn.SIGMOID: Activation.SIGMOID,
    UnaryFn.SILU: Activation.SILU,
}


def open_product(value: SSAValue, user: Operation) -> EpilogueOp | None:
    """The f32 product that yields `value`, if `user` alone uses it and it has no activation."""
    op = value.owner
    if not isinstance(op, EpilogueOp) or user_of(value) is not user:
        return None
    if op.activation.data is not Activation.NONE or element_of(op.init) != f32:
        return None
    return op


def same_extents(a: SSAValue, b: SSAValue) -> bool:
    """Whether two shapes are equal for certain: also in their run-time extents."""
    return shape_of(a) == shape_of(b) and dims_of(a) == dims_of(b)


def replace_by(rewriter: PatternRewriter, op: Operation, old: EpilogueOp, new: EpilogueOp) -> None:
    """Put `new` where `op` was, so that all of its operands are defined, and erase `old`."""
    if "range" in op.attributes:
        new.attributes["range"] = op.attributes["range"]
    rewriter.replace(op, new)
    rewriter.erase(old)


@dataclass
class FuseVector(RewritePattern):
    """`product + bias[N]` and, before any bias, `product * scale[N]`; scalars become vectors."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: BinaryOp, rewriter: PatternRewriter) -> None:
        what = {BinaryFn.ADD: "bias", BinaryFn.MUL: "scale"}.get(op.fn.data)
        if what is None:
            return
        for value, other in ((op.a, op.b), (op.b, op.a)):
            product = open_product(value, op)
            if product is None or not same_extents(value, op.init):
                continue
            later = ("scale", "row_scale", "bias", "residual")[0 if what == "scale" else 2 :]
            if any(getattr(product, name) is not None for name in later):
                continue
            vector = self.vector(other, shape_of(value)[-1], op, rewriter)
            if vector is not None:
                replace_by(rewriter, op, product, rebuilt(product, None, **{what: vector}))
                return

    def vector(
        self, value: SSAValue, channels: int, op: Operation, rewriter: PatternRewriter
    ) -> SSAValue | None:
        """`value` as f32 [channels]; None if it differs along other axes than the last."""
        if shape_of(value) == (channels,):
            return value
        array = constant_of(value, self.store)
        if array is None or (array.size != 1 and array.size != array.shape[-1]):
            return None
        if array.size not in (1, channels):
            return None
        spread = np.broadcast_to(array.reshape(-1), (channels,)).copy()
        return rewriter.insert(constant_op(self.store, spread), InsertPoint.before(op)).result


@dataclass
class FusePowerOfTwo(RewritePattern):
    """`(product + bias) * 2^n` is a product with scale and bias: such a factor rounds nothing."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: BinaryOp, rewriter: PatternRewriter) -> None:
        if op.fn.data is not BinaryFn.MUL:
            return
        for value, other in ((op.a, op.b), (op.b, op.a)):
            product, factor = open_product(value, op), constant_of(other, self.store)
            if product is None or not same_extents(value, op.init) or factor is None:
                continue
            bias, scale = (constant_of(x, self.store) for x in (product.bias, product.scale))
            if bias is None or factor.size != 1 or product.residual is not None:
                continue
            if scale is None and product.scale is not None:
                continue
            number = np.float32(factor.reshape(()))
            if not number or abs(np.frexp(number)[0]) != 0.5:
                continue
            scale = np.ones_like(bias) if scale is None else scale
            vectors = [constant_op(self.store, each * number) for each in (scale, bias)]
            rewriter.insert(vectors, InsertPoint.before(op))
            new = rebuilt(product, None, scale=vectors[0].result, bias=vectors[1].result)
            replace_by(rewriter, op, product, new)
            return


@dataclass
class FuseResidual(RewritePattern):
    """`product + other` of one shape: of two candidate products the later one takes the other."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: BinaryOp, rewriter: PatternRewriter) -> None:
        if op.fn.data is not BinaryFn.ADD or not same_extents(op.a, op.b):
            return
        found: list[tuple[EpilogueOp, SSAValue]] = []
        for value, other in ((op.a, op.b), (op.b, op.a)):
            product = open_product(value, op)
            if product is not None and product.residual is None:
                found.append((product, other))
        if not found:
            return
        product, other = found[0]
        if len(found) == 2 and product.is_before_in_block(found[1][0]):
            product, other = found[1]
        replace_by(rewriter, op, product, rebuilt(product, residual=other))


@dataclass
class FuseActivation(RewritePattern):
    """`activation(product)`."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: UnaryOp, rewriter: PatternRewriter) -> None:
        activation = ACTIVATIONS.get(op.fn.data)
        product = open_product(op.x, op)
        if activation is None or product is None:
            return
        new = rebuilt(product, {"activation": ActivationAttr(activation)})
        replace_by(rewriter, op, product, new)


@dataclass
class FuseSilu(RewritePattern):
    """`x * sigmoid(x)` is `silu(x)`."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: BinaryOp, rewriter: PatternRewriter) -> None:
        if op.fn.data is not BinaryFn.MUL:
            return
        for x, value in ((op.a, op.b), (op.b, op.a)):
            sigmoid = value.owner
            if (
                isinstance(sigmoid, UnaryOp)
                and sigmoid.fn.data is UnaryFn.SIGMOID
                and sigmoid.x is x
                and users_of(value) == [op]
            ):
                silu = UnaryOp(x, op.init, {"fn": UnaryFnAttr(UnaryFn.SILU)}, dict(op.attributes))
                rewriter.replace(op, silu)
                return


@dataclass(frozen=True)
class FuseEpiloguePass(ModulePass):
    """
    Fuse element-wise ops that follow a product into its epilogue.

    The epilogue computes scale, bias, residual and activation in this order, so ops are taken in
    this order only; a power of two may come after the bias. The value of every operation stays
    the same.
    """

    name = "fuse-epilogue"
    preserves: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        patterns: list[RewritePattern] = [
            FuseSilu(),
            FuseVector(store_of(ctx)),
            FusePowerOfTwo(store_of(ctx)),
            FuseResidual(),
            FuseActivation(),
        ]
        PatternRewriteWalker(GreedyRewritePatternApplier(patterns)).rewrite_module(op)
