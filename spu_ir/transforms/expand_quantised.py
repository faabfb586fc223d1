"""Write ONNX's integer operators as float operators between DequantizeLinear and QuantizeLinear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from onnx import TensorProto
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType, f32
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

from spu_ir.dialects.onnx import OnnxOp, newest
from spu_ir.dialects.types import DYNAMIC
from spu_ir.dialects.weights import WeightStore, store_of
from spu_ir.transforms.onnx_patterns import dims_of, make_constant

PRODUCTS = {
    "ConvInteger": "Conv",
    "MatMulInteger": "MatMul",
    "QLinearConv": "Conv",
    "QLinearMatMul": "MatMul",
}
"""Integer operator -> the float operator that it computes."""


@dataclass
class Expander:
    """Inserts the ops that stand for one integer op, before it."""

    op: OnnxOp
    rewriter: PatternRewriter
    store: WeightStore

    def insert(
        self, name: str, operands: list[SSAValue], kind: Attribute, **attributes: int | str
    ) -> SSAValue:
        new = newest(name).make(operands, [kind], attributes, node_name=self.op.node_name)
        return self.rewriter.insert(new, InsertPoint.before(self.op)).results[0]

    def ones(self, zero: SSAValue | None) -> SSAValue:
        """A scale of 1, or as many as there are zero points."""
        shape = (dims_of(zero) if zero is not None else None) or ()
        if DYNAMIC in shape:
            shape = ()
        op = make_constant(self.store, np.ones(shape, np.float32))
        return self.rewriter.insert(op, InsertPoint.before(self.op)).results[0]

    def real(
        self, value: SSAValue, scale: SSAValue | None, zero: SSAValue | None, axis: int
    ) -> SSAValue:
        """`value` dequantised; without a scale it is `value - zero`."""
        scale = self.ones(zero) if scale is None else scale
        operands = [value, scale] if zero is None else [value, scale, zero]
        dims = dims_of(value) or ()
        one = all(extent == 1 for extent in dims_of(scale) or ())
        attributes = {} if one else {"axis": axis % max(1, len(dims))}
        return self.insert("DequantizeLinear", operands, TensorType(f32, dims), **attributes)


@dataclass
class ExpandProduct(RewritePattern):
    """A product of integers is a float product of dequantised operands."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: OnnxOp, rewriter: PatternRewriter) -> None:
        if op.schema_name not in PRODUCTS or not all(
            isinstance(value.type, TensorType) for value in (op.operands[0], op.results[0])
        ):
            return
        expander = Expander(op, rewriter, self.store)
        name = PRODUCTS[op.schema_name]
        linear = op.schema_name.startswith("QLinear")
        # Channels are the first axis of a convolution's weight, the last of a matrix.
        axis = 0 if name == "Conv" else -1
        places = ((0, 1, 2), (3, 4, 5)) if linear else ((0, None, 2), (1, None, 3))
        (x, x_scale, x_zero), (w, w_scale, w_zero) = (
            tuple(None if index is None else op.input(index) for index in place) for place in places
        )
        assert x is not None
        assert w is not None
        operands = [
            expander.real(x, x_scale, x_zero, 1 if name == "Conv" else -2),
            expander.real(w, w_scale, w_zero, axis),
        ]
        bias = op.input(8) if op.schema_name == "QLinearConv" else None
        if bias is not None and x_scale is not None and w_scale is not None:
            scale = expander.insert("Mul", [x_scale, w_scale], w_scale.type)
            operands.append(expander.real(bias, scale, None, 0))
        result = op.results[0]
        kind = TensorType(f32, dims_of(result) or ())
        kept = {
            key: attr
            for key, attr in op.attributes.items()
            if key in newest(name).schema.attributes
        }
        product = _product(name, operands, kind, kept, op.node_name)
        rewriter.insert(product, InsertPoint.before(op))
        if linear:
            y_scale, y_zero = op.input(6), op.input(7)
            assert y_scale is not None
            last = [product.results[0], y_scale, *([] if y_zero is None else [y_zero])]
            done = expander.insert("QuantizeLinear", last, result.type)
        else:
            done = expander.insert("Cast", [product.results[0]], result.type, to=TensorProto.INT32)
        rewriter.replace(op, [], [done])


def _product(
    name: str,
    operands: list[SSAValue],
    kind: Attribute,
    attributes: Mapping[str, Attribute],
    node_name: str | None,
) -> OnnxOp:
    return newest(name).make(operands, [kind], attributes, node_name=node_name)


@dataclass(frozen=True)
class ExpandQuantisedPass(ModulePass):
    """
    Replace QLinearConv, QLinearMatMul, ConvInteger and MatMulInteger by their QDQ form.

    `fold-qdq` makes integers of it again. Until then sums are in f32, which holds integers up to
    2^24 exactly.
    """

    name = "expand-quantised"
    preserves: ClassVar[str] = "tolerance(0.02)"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        patterns: list[RewritePattern] = [ExpandProduct(store_of(ctx))]
        applier = GreedyRewritePatternApplier(patterns, dce_enabled=False)
        PatternRewriteWalker(applier).rewrite_module(op)
