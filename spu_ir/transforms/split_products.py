"""Compute the parts of a product that are used apart as products of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr, TensorType
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, PatternRewriteWalker, RewritePattern

from spu_ir.dialects.onnx import NODE_NAME, OnnxOp
from spu_ir.dialects.types import DYNAMIC, Array, element_of, shape_of
from spu_ir.dialects.weights import WeightStore, store_of

from .axis_atoms import MOVEMENT, movement, set_dims, size_of_axis, trace
from .onnx_patterns import constant, erase_dead, ints, make_constant, only_use, producer, rank_of
from .symbolic_shapes import Dim, symbolic_dims


@dataclass(frozen=True)
class SplitProductsPass(ModulePass):
    """
    Parts of `x W + b` that are cut out of its outputs -> `x W_i + b_i`, with the weight cut.

    The parts are those of a `Split` along the outputs, as of a gated linear unit, or `Gather`s of
    one index from a reshape of the outputs, as of the packed Q, K and V of
    `nn.MultiheadAttention`. So nothing is copied, and each part may have an epilogue of its own.
    The product is a MatMul, with an Add of a vector or without, a Gemm or an ungrouped Conv; its
    weights are constants and nothing else uses its result. Matches the newest versions.
    """

    name = "split-products"
    preserves: ClassVar[str] = "tolerance(1e-5)"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        PatternRewriteWalker(_SplitProducts(store_of(ctx))).rewrite_module(op)
        erase_dead(op)


@dataclass(frozen=True)
class Product:
    """A product with constant weights, and the addition of its bias where that is an op."""

    op: OnnxOp
    weight: Array
    bias: Array | None
    add: OnnxOp | None

    @property
    def outputs(self) -> int:
        """The axis of the weight along which outputs are."""
        if self.op.schema_name == "Gemm":
            return 0 if self.op.int_value("transB") else 1
        return 0 if self.op.schema_name == "Conv" else 1

    @property
    def result_axis(self) -> int:
        """The axis of the result along which outputs are."""
        last = len(shape_of(self.op.results[0])) - 1
        return 1 if self.op.schema_name == "Conv" else last


@dataclass(frozen=True)
class _SplitProducts(RewritePattern):
    store: WeightStore

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        if not isinstance(op, OnnxOp) or not op.is_newest:
            return
        if op.schema_name == "Split":
            self.split(op, rewriter)
        elif op.schema_name == "Gather":
            self.gather(op, rewriter)

    def split(self, op: OnnxOp, rewriter: PatternRewriter) -> None:
        value = op.operands[0]
        product = self.product(value)
        rank = rank_of(value)
        if product is None or rank is None or not value.has_one_use():
            return
        if op.int_value("axis") % rank != product.result_axis:
            return
        sizes = [shape_of(result)[product.result_axis] for result in op.results]
        if DYNAMIC in sizes:
            return
        stops = list(accumulate(sizes))
        parts = [
            self.part(product, stop - size, stop) for stop, size in zip(stops, sizes, strict=True)
        ]
        rewriter.replace(
            op,
            [each for part in parts for each in part],
            [part[-1].results[0] for part in parts],
        )

    def gather(self, op: OnnxOp, rewriter: PatternRewriter) -> None:
        picked = ints(op.operands[1], self.store)
        if picked is None or rank_of(op.operands[1]) != 0:
            return
        found = trace(op.operands[0])
        product = None if found is None else self.product(found.source)
        if found is None or product is None or product.result_axis != len(found.source_axes) - 1:
            return
        axis = op.int_value("axis") % len(found.axes)
        chosen, last = found.axes[axis], found.source_axes[-1]
        if len(chosen) != 1 or len(last) < 2 or chosen[0] is not last[0]:
            return
        if not self.is_gathered(found.source):
            return
        parts, each = size_of_axis(chosen), size_of_axis(last[1:])
        if not isinstance(parts, int) or not isinstance(each, int):
            return
        dims = [size_of_axis(atoms) for atoms in found.source_axes[:-1]]
        after = [atoms for index, atoms in enumerate(found.axes) if index != axis]
        move = movement([*dims, each], [*found.source_axes[:-1], last[1:]], after)
        if move is None:
            return
        start = picked[0] % parts * each
        new = self.part(product, start, start + each)
        rewriter.replace(op, [*new, *move.ops(new[-1].results[0], op, self.store)])

    def is_gathered(self, value: SSAValue) -> bool:
        """Whether `value` is used for its shape and gathers of one index only, perhaps moved."""
        waiting = list(value.uses)
        while waiting:
            user = waiting.pop().operation
            if not isinstance(user, OnnxOp):
                return False
            if user.schema_name in MOVEMENT:
                waiting += user.results[0].uses
            elif user.schema_name == "Gather" and rank_of(user.operands[1]) == 0:
                continue
            elif user.schema_name != "Shape":
                return False
        return True

    def product(self, value: SSAValue) -> Product | None:
        """The product that makes `value`."""
        op = producer(value, "MatMul", "Gemm", "Conv", "Add")
        if op is None:
            return None
        if op.schema_name == "Add":
            for inner, vector in (tuple(op.operands), tuple(reversed(list(op.operands)))):
                product = only_use(inner, "MatMul")
                weight = None if product is None else self.weight(product)
                bias = constant(vector, self.store)
                if product is not None and weight is not None and bias is not None:
                    return (
                        Product(product, weight, bias, op)
                        if bias.shape == weight.shape[1:]
                        else None
                    )
            return None
        weight, third = self.weight(op), op.input(2)
        bias = constant(third, self.store)
        if weight is None or (third is not None and bias is None):
            return None
        product = Product(op, weight, bias, None)
        whole_vector = bias is None or bias.shape == (weight.shape[product.outputs],)
        return product if whole_vector else None

    def weight(self, op: OnnxOp) -> Array | None:
        if op.schema_name == "Conv" and op.int_value("group") != 1:
            return None
        weight = constant(op.operands[1], self.store)
        if weight is None or (op.schema_name == "MatMul" and weight.ndim != 2):
            return None
        return weight

    def part(self, product: Product, start: int, stop: int) -> list[Operation]:
        """Ops that compute the outputs from `start` to `stop`; the last one makes them."""
        op, axis = product.op, product.outputs
        taken = np.ascontiguousarray(product.weight.take(range(start, stop), axis))
        ops: list[Operation] = [self.constant(taken, op.operands[1], start, stop)]
        operands: list[SSAValue | Operation] = [op.operands[0], ops[0]]
        if product.bias is not None:
            old = op.input(2) if product.add is None else None
            ops.append(self.constant(product.bias[start:stop], old, start, stop))
        if product.bias is not None and product.add is None:
            operands.append(ops[-1])
        new = _like(op, operands, product.result_axis, start, stop)
        ops.append(new)
        if product.add is not None:
            ops.append(_like(product.add, [new, ops[1]], product.result_axis, start, stop))
        return ops

    def constant(self, array: Array, old: SSAValue | None, start: int, stop: int) -> OnnxOp:
        name = old.owner.node_name if old is not None and isinstance(old.owner, OnnxOp) else None
        part = None if name is None else f"{name}[{start}:{stop}]"
        return make_constant(self.store, np.ascontiguousarray(array), part)


def _like(
    op: OnnxOp, operands: Sequence[SSAValue | Operation], axis: int, start: int, stop: int
) -> OnnxOp:
    """`op` with other operands and `stop - start` outputs along `axis`."""
    result = op.results[0]
    shape = list(shape_of(result))
    shape[axis] = stop - start
    new = type(op).make(operands, [TensorType(element_of(result), shape)])
    kept: dict[str, Attribute] = {
        name: value for name, value in op.attributes.items() if name != "onnx.dim_params"
    }
    new.attributes.update(kept)
    if op.node_name is not None:
        new.attributes[NODE_NAME] = StringAttr(f"{op.node_name}[{start}:{stop}]")
    dims: list[Dim] = list(symbolic_dims(result) or ())
    dims[axis] = stop - start
    set_dims(new, dims)
    return new
