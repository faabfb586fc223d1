"""Fold BatchNormalization into the weights of the product before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, PatternRewriteWalker, RewritePattern
from xdsl.rewriter import InsertPoint

from spu_ir.dialects.onnx import NODE_NAME, OnnxOp, newest
from spu_ir.dialects.types import Array
from spu_ir.dialects.weights import WeightStore, store_of

from .onnx_patterns import constant, erase_dead, make_constant, only_use, rank_of


@dataclass(frozen=True)
class FoldBatchNormPass(ModulePass):
    """
    `BatchNormalization(Conv(x, w, b))` -> `Conv(x, w', b')`; also ConvTranspose, Gemm and MatMul.

    With `f = scale / sqrt(variance + epsilon)` per channel, `w' = w * f` and
    `b' = (b - mean) * f + bias`, computed in float64 and rounded once. Weights and statistics
    must be constants and the product's result must have no other use; quantised weights are left
    alone. Matches the newest versions of the operators.
    """

    name = "fold-batch-norm"
    preserves: ClassVar[str] = "tolerance(1e-5)"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        PatternRewriteWalker(_FoldBatchNorm(store_of(ctx))).rewrite_module(op)
        erase_dead(op)


@dataclass(frozen=True)
class _FoldBatchNorm(RewritePattern):
    store: WeightStore

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        if not isinstance(op, OnnxOp) or op.schema_name != "BatchNormalization":
            return
        if not op.is_newest or op.int_value("training_mode") or len(op.results) != 1:
            return
        product = only_use(op.operands[0], "Conv", "ConvTranspose", "Gemm", "MatMul")
        if product is None:
            return
        name = product.schema_name
        if name == "MatMul" and rank_of(product.results[0]) != 2:
            return
        statistics = [constant(value, self.store) for value in op.operands[1:]]
        weight = constant(product.operands[1], self.store)
        old_bias = product.input(2)
        bias = constant(old_bias, self.store)
        if weight is None or (old_bias is not None and bias is None):
            return
        wide = [array.astype(np.float64) for array in statistics if array is not None]
        if len(wide) != 4:
            return
        scale, shift, mean, variance = wide
        factor = scale / np.sqrt(variance + op.float_value("epsilon"))
        start = np.zeros(1) if bias is None else bias.astype(np.float64)
        attributes = dict(product.attributes)
        if name == "Gemm":
            start = start * product.float_value("beta")
            attributes.pop("beta", None)
            if start.size not in (1, factor.size):
                # A whole matrix is added: the normalisation cannot go into a vector.
                return
            start = start.reshape(-1)
        new_weight = scaled_weight(product, weight, factor).astype(weight.dtype)
        new_bias = ((start - mean) * factor + shift).astype(weight.dtype)
        constants = [make_constant(self.store, array) for array in (new_weight, new_bias)]
        for new, old in zip(constants, (product.operands[1], old_bias), strict=True):
            _keep_name(new, old)
        rewriter.insert(constants, InsertPoint.before(op))
        operands: list[SSAValue | Operation] = [product.operands[0], constants[0]]
        if name != "MatMul":
            operands.append(constants[1])
        folded = type(product).make(operands, [op.results[0].type])
        folded.attributes.update(attributes)
        if name == "MatMul":
            rewriter.insert(folded, InsertPoint.before(op))
            folded = newest("Add").make([folded, constants[1]], [op.results[0].type])
        rewriter.replace(op, folded)


def scaled_weight(product: OnnxOp, weight: Array, factor: Array) -> Array:
    """The weight with every output channel times its factor, in float64."""
    wide = weight.astype(np.float64)
    spatial = (1,) * (weight.ndim - 2)
    match product.schema_name:
        case "Conv":
            return wide * factor.reshape(-1, 1, *spatial)
        case "ConvTranspose":
            # Weights are [inputs, outputs of a group, ...]: the inputs of one group are together.
            groups = product.int_value("group")
            grouped = wide.reshape(groups, -1, *weight.shape[1:])
            return (grouped * factor.reshape(groups, 1, -1, *spatial)).reshape(weight.shape)
        case "Gemm" if product.int_value("transB"):
            return wide * factor.reshape(-1, 1)
        case _:
            return wide * factor


def _keep_name(new: OnnxOp, old: SSAValue | None) -> None:
    if old is not None and isinstance(old.owner, OnnxOp) and old.owner.node_name:
        new.attributes[NODE_NAME] = old.owner.attributes[NODE_NAME]
