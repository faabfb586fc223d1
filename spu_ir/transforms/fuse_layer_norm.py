"""Find LayerNormalization in the primitive operators that exporters spell it with."""

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

from spu_ir.dialects.onnx import OnnxOp, newest
from spu_ir.dialects.types import DYNAMIC, element_of, numpy_dtype
from spu_ir.dialects.weights import WeightStore, constant_type, store_of

from .onnx_patterns import (
    constant,
    dims_of,
    erase_dead,
    ints,
    make_constant,
    only_use,
    producer,
    scalar,
    with_scalar,
)


@dataclass(frozen=True)
class FuseLayerNormPass(ModulePass):
    """
    `(x - mean) / sqrt(mean((x - mean)^2) + eps) * scale + bias` -> `onnx.LayerNormalization`.

    The means are over the last axes, the square is a `Pow` or a `Mul`, the quotient a `Div` or a
    product with a `Reciprocal`, scale and bias are constants of the normalised shape and may be
    missing. Intermediate values that something else uses are left alone. Matches the newest
    versions of the operators, so `upgrade-opset` comes first.
    """

    name = "fuse-layer-norm"
    preserves: ClassVar[str] = "tolerance(1e-5)"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        PatternRewriteWalker(_FuseLayerNorm(store_of(ctx))).rewrite_module(op)
        erase_dead(op)


@dataclass(frozen=True)
class _FuseLayerNorm(RewritePattern):
    store: WeightStore

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        if not isinstance(op, OnnxOp) or op.schema_name not in ("Div", "Mul"):
            return
        if not op.is_newest or not op.results[0].uses:
            return
        found = self.quotient(op)
        if found is None:
            return
        centred, deviation = found
        matched = self.normalised(op, centred, deviation)
        if matched is None:
            return
        x, axis, epsilon = matched
        dims = dims_of(x)
        assert dims is not None, "normalised has looked at them"
        shape = dims[axis:]
        last, scale = self.affine(op, "Mul", shape)
        last, bias = self.affine(last, "Add", shape)
        operands: list[SSAValue | Operation] = [x]
        if scale is None:
            ones = make_constant(self.store, np.ones(shape, numpy_dtype(element_of(x))))
            rewriter.insert(ones, InsertPoint.before(last))
            operands.append(ones)
        else:
            operands.append(self.flat(scale, shape, last, rewriter))
        if bias is not None:
            operands.append(self.flat(bias, shape, last, rewriter))
        new = newest("LayerNormalization").make(
            operands,
            [last.results[0].type],
            {"axis": axis - len(dims), "epsilon": epsilon},
            node_name=last.node_name,
        )
        rewriter.replace(last, new)

    def quotient(self, op: OnnxOp) -> tuple[SSAValue, SSAValue] | None:
        """Numerator and denominator of a `Div`, or of a `Mul` with a `Reciprocal`."""
        if op.schema_name == "Div":
            return op.operands[0], op.operands[1]
        a, b = op.operands
        for numerator, inverse in ((a, b), (b, a)):
            reciprocal = only_use(inverse, "Reciprocal")
            if reciprocal is not None:
                return numerator, reciprocal.operands[0]
        return None

    def normalised(
        self, op: OnnxOp, centred: SSAValue, deviation: SSAValue
    ) -> tuple[SSAValue, int, float] | None:
        """What is normalised, its first axis and epsilon, for `centred / deviation`."""
        root = only_use(deviation, "Sqrt")
        total = only_use(root.operands[0], "Add") if root else None
        split = with_scalar(total, self.store) if total else None
        if split is None or split[1] <= 0:
            return None
        variance, epsilon = split
        mean_square = only_use(variance, "ReduceMean")
        square = only_use(mean_square.operands[0], "Pow", "Mul") if mean_square else None
        difference = producer(centred, "Sub")
        if mean_square is None or square is None or difference is None:
            return None
        if not self.is_square(square, centred):
            return None
        x, mean_value = difference.operands
        mean = producer(mean_value, "ReduceMean")
        if mean is None or mean.operands[0] is not x:
            return None
        axis = self.last_axes(mean, x)
        if axis is None or self.last_axes(mean_square, x) != axis:
            return None
        if {use.operation for use in mean_value.uses} - {difference}:
            return None
        if {use.operation for use in centred.uses} - {op, square}:
            return None
        return x, axis, epsilon

    def is_square(self, square: OnnxOp, value: SSAValue) -> bool:
        a, b = square.operands
        if square.schema_name == "Mul":
            return a is value and b is value
        return a is value and scalar(b, self.store) == 2

    def last_axes(self, mean: OnnxOp, x: SSAValue) -> int | None:
        """The first of the axes of a mean that keeps them, when they are static and the last."""
        dims = dims_of(x)
        axes = ints(mean.input(1), self.store)
        if not dims or not axes or mean.int_value("keepdims") != 1:
            return None
        rank = len(dims)
        positive = sorted(axis % rank for axis in axes)
        last = list(range(positive[0], rank)) == positive
        return positive[0] if last and DYNAMIC not in dims[positive[0] :] else None

    def affine(
        self, op: OnnxOp, name: str, shape: tuple[int, ...]
    ) -> tuple[OnnxOp, SSAValue | None]:
        """The product (sum) with a constant of the normalised shape that uses `op` alone."""
        user = op.results[0].get_user_of_unique_use()
        if not isinstance(user, OnnxOp) or producer(user.results[0], name) is None:
            return op, None
        a, b = user.operands
        other = b if a is op.results[0] else a
        source = producer(other, "Constant")
        if source is None:
            return op, None
        dims = constant_type(source.attributes["value"]).get_shape()
        spare = len(dims) - len(shape)
        if spare < 0 or any(dim != 1 for dim in dims[:spare]) or dims[spare:] != shape:
            return op, None
        if user.results[0].type != op.results[0].type:
            return op, None
        return user, other

    def flat(
        self, value: SSAValue, shape: tuple[int, ...], before: OnnxOp, rewriter: PatternRewriter
    ) -> SSAValue:
        """A constant in exactly the normalised shape."""
        if dims_of(value) == shape:
            return value
        array = constant(value, self.store)
        assert array is not None, "affine has seen the constant"
        new = make_constant(self.store, array.reshape(shape))
        rewriter.insert(new, InsertPoint.before(before))
        return new.results[0]
