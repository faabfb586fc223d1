"""Multiply tensors of many axes as they are, not flattened to matrices and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, PatternRewriteWalker, RewritePattern

from spu_ir.dialects.onnx import OnnxOp, newest
from spu_ir.dialects.types import DYNAMIC, Array, element_of, shape_of
from spu_ir.dialects.weights import WeightStore, store_of

from .axis_atoms import Atom, axes_of, reshaped_axes, set_dims, whole
from .onnx_patterns import constant, erase_dead, make_constant, only_use, producer, rank_of
from .symbolic_shapes import Dim, symbolic_dims


@dataclass(frozen=True)
class UnflattenProductsPass(ModulePass):
    """
    `Reshape(Gemm(Reshape(x), W, b))` -> `MatMul(x, W) + b`, with the leading axes of `x`.

    Exporters flatten for `Gemm`, which takes matrices only. The leading axes must come back as
    they were and nothing else may use the product; its weight and bias are constants.
    """

    name = "unflatten-products"
    preserves: ClassVar[str] = "tolerance(1e-5)"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        PatternRewriteWalker(_Unflatten(store_of(ctx))).rewrite_module(op)
        erase_dead(op)


@dataclass(frozen=True)
class _Unflatten(RewritePattern):
    store: WeightStore

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        if not isinstance(op, OnnxOp) or op.schema_name != "Reshape" or not op.is_newest:
            return
        product = only_use(op.operands[0], "Gemm", "MatMul", "Add")
        bias: SSAValue | None = None
        name = None if product is None else product.node_name
        if product is not None and product.schema_name == "Add":
            a, b = product.operands
            bias, summed = (a, b) if rank_of(a) == 1 else (b, a)
            product = only_use(summed, "MatMul")
        elif product is not None:
            bias = product.input(2)
        if product is None or (bias is not None and constant(bias, self.store) is None):
            return
        flat = producer(product.operands[0], "Reshape")
        weight = self.weight(product)
        leading = (
            None if flat is None or weight is None else self.leading(op, flat, weight.shape[1])
        )
        if flat is None or weight is None or leading is None:
            return
        if bias is not None and shape_of(bias) != (weight.shape[1],):
            return
        new: list[Operation] = []
        x = flat.operands[0]
        if len(shape_of(x)) != len(leading) + 1:
            # The axes after the leading ones, heads and depth say, are one axis of the sum.
            inputs = weight.shape[0]
            shape = make_constant(self.store, np.array([*[0] * len(leading), inputs], np.int64))
            kind = _type(x, (*leading, inputs))
            joined = newest("Reshape").make([x, shape], [kind], node_name=flat.node_name)
            set_dims(joined, (*leading, inputs))
            new += [shape, joined]
            x = joined.results[0]
        dims = (*leading, weight.shape[1])
        kind = _type(op.results[0], dims)
        kept = product.operands[1]
        if product.schema_name == "Gemm" and product.int_value("transB"):
            old = kept.owner
            label = old.node_name if isinstance(old, OnnxOp) else None
            new.append(make_constant(self.store, np.ascontiguousarray(weight), label))
            kept = new[-1].results[0]
        matmul = newest("MatMul").make([x, kept], [kind], node_name=product.node_name)
        set_dims(matmul, dims)
        new.append(matmul)
        if bias is not None:
            total = newest("Add").make([matmul, bias], [kind], node_name=name)
            set_dims(total, dims)
            new.append(total)
        rewriter.replace(op, new)

    def weight(self, product: OnnxOp) -> Array | None:
        """The weight as [inputs, outputs]."""
        weight = constant(product.operands[1], self.store)
        if weight is None or weight.ndim != 2:
            return None
        if product.schema_name == "MatMul":
            return weight
        plain = product.float_value("alpha") == 1 and product.float_value("beta") == 1
        if not plain or product.int_value("transA"):
            return None
        return weight.T if product.int_value("transB") else weight

    def leading(self, outer: OnnxOp, inner: OnnxOp, outputs: int) -> tuple[Dim, ...] | None:
        """The leading axes of what `inner` takes, where `outer` gives them back."""
        dims, flat = symbolic_dims(inner.operands[0]), symbolic_dims(inner.results[0])
        result = symbolic_dims(outer.results[0])
        if dims is None or flat is None or result is None or len(flat) != 2:
            return None
        kept = len(result) - 1
        start = axes_of(dims)
        between = None if start is None else reshaped_axes(start, flat)
        if start is None or between is None or not 0 < kept < len(dims):
            return None
        made = [Atom(outputs)] if outputs != 1 else []
        after = reshaped_axes([*between[:-1], made], result)
        if after is None or whole(after) != whole([*start[:kept], made]):
            return None
        summed = [atom for axis in whole(start)[kept:] for atom in axis]
        return dims[:kept] if whole(between)[-1] == summed else None


def _type(like: SSAValue, dims: Sequence[Dim]) -> TensorType[Attribute]:
    shape = [dim if isinstance(dim, int) else DYNAMIC for dim in dims]
    return TensorType(element_of(like), shape)
