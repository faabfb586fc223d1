"""Find scaled dot-product attention in the matrix products and transposes that spell it."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, PatternRewriteWalker, RewritePattern

from spu_ir.dialects.onnx import OnnxOp, newest
from spu_ir.dialects.types import DYNAMIC, Array, element_of
from spu_ir.dialects.weights import WeightStore, store_of

from .axis_atoms import set_dims
from .onnx_patterns import (
    constant,
    erase_dead,
    make_constant,
    only_use,
    producer,
    rank_of,
    scalar,
    with_scalar,
)
from .symbolic_shapes import Dim, symbolic_dims, symbolic_ints

HEADS_FIRST = (0, 2, 1, 3)
"""[batch, sequence, heads, depth] <-> [batch, heads, sequence, depth]."""

DEPTH_FIRST = (0, 2, 3, 1)
"""[batch, sequence, heads, depth] -> [batch, heads, depth, sequence]."""

LAST_TWO = (0, 1, 3, 2)

SEQUENCE_LAST = (2, 0, 1, 3)
"""[batch, heads, sequence, depth] -> [sequence, batch, heads, depth]."""


@dataclass(frozen=True)
class FuseAttentionPass(ModulePass):
    """
    `softmax(scale * Q K^T + mask) V` with its splitting into heads -> `onnx.Attention`.

    Q, K and V are [batch, sequence, heads * depth], each cut by a `Reshape` and a `Transpose`; the
    result is put together again the same way, in any shape of the same order. They may also be
    [sequence, batch, heads * depth]; then the attention is between transposes. The scale is a
    `Mul` or `Div` by a constant, after the first product or before it on Q, K or both. The mask is
    an f32 tensor that is added, of two to four axes: also one that the model computes, as scores
    of relative positions. A constant for each head and place, added to Q, K or V when they are
    cut, is added before. The guard of PyTorch against rows without any
    key (`Where(IsNaN(p), 0, p)`) is dropped: such a row is what `onnx.Attention` makes of it.
    Values that something else uses are left alone, and so is a reshape whose batch and sequence
    cannot be proved to stay. Matches the newest versions of the operators.
    """

    name = "fuse-attention"
    preserves: ClassVar[str] = "tolerance(1e-5)"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        PatternRewriteWalker(_FuseAttention(store_of(ctx))).rewrite_module(op)
        erase_dead(op)


@dataclass(frozen=True)
class Heads:
    """
    A [batch, sequence, heads * depth] value that is cut into heads.

    With `sequence_first` the value is [sequence, batch, heads * depth]. `bias` [heads * depth] is
    added to it, or None.
    """

    value: SSAValue
    heads: int
    depth: int
    sequence_first: bool
    bias: Array | None = None

    def dims(self) -> tuple[Dim, ...]:
        """Batch and sequence."""
        dims = symbolic_dims(self.value)
        assert dims is not None, "split has looked at them"
        return (dims[1], dims[0]) if self.sequence_first else dims[:2]


@dataclass(frozen=True)
class _FuseAttention(RewritePattern):
    store: WeightStore

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        if not isinstance(op, OnnxOp) or op.schema_name != "Reshape" or not op.is_newest:
            return
        mixed = self.joined(op)
        values = self.split(mixed.operands[1], HEADS_FIRST) if mixed is not None else None
        if mixed is None or values is None:
            return
        softmax = self.softmax(mixed.operands[0])
        if softmax is None:
            return
        scores, scale, mask = self.scores(softmax)
        if scores is None:
            return
        query, key = scores.operands
        query, by_query = self.scaled(query)
        key, by_key = self.scaled(key)
        queries, keys = self.split(query, HEADS_FIRST), self.keys(key)
        if queries is None or keys is None or queries.depth != keys.depth:
            return
        if keys.heads != values.heads or queries.heads != keys.heads:
            return
        dims, width = queries.dims(), _width(values)
        turned = only_use(op.operands[0], "Transpose")
        last = turned is not None and turned.ints_value("perm") == SEQUENCE_LAST
        joined = (dims[1], dims[0], width) if last else (*dims, width)
        same = self.rejoins(op, joined)
        if not same and not self.keeps_order(op):
            return
        scale *= by_query * by_key
        new_ops: list[Operation] = []
        operands: list[SSAValue | Operation] = [
            self.batch_first(each, new_ops) for each in (queries, keys, values)
        ]
        if mask is not None:
            operands.append(mask)
        attributes: dict[str, int | float] = {
            "q_num_heads": queries.heads,
            "kv_num_heads": keys.heads,
        }
        if abs(scale * sqrt(queries.depth) - 1) > 1e-6:
            attributes["scale"] = scale
        kind = TensorType(element_of(op.results[0]), [*_shape(dims), width])
        name = scores.node_name or op.node_name
        new = newest("Attention").make(operands, [kind], attributes, node_name=name)
        set_dims(new, (*dims, width))
        if same and not last and "onnx.dim_params" in op.attributes:
            new.attributes["onnx.dim_params"] = op.attributes["onnx.dim_params"]
        new_ops.append(new)
        if last:
            new_ops.append(swapped(new.results[0]))
        if not same:
            operands = [new_ops[-1].results[0], op.operands[1]]
            new_ops.append(type(op).make(operands, [op.results[0].type]))
            new_ops[-1].attributes.update(op.attributes)
        rewriter.replace(op, new_ops)

    def batch_first(self, heads: Heads, new_ops: list[Operation]) -> SSAValue:
        """Q, K or V as [batch, sequence, heads * depth]."""
        value = heads.value
        if heads.bias is not None:
            vector = make_constant(self.store, heads.bias)
            total = newest("Add").make([value, vector], [value.type])
            set_dims(total, symbolic_dims(value) or ())
            new_ops += [vector, total]
            value = total.results[0]
        if heads.sequence_first:
            new_ops.append(swapped(value))
            value = new_ops[-1].results[0]
        return value

    def joined(self, reshape: OnnxOp) -> OnnxOp | None:
        """The product whose heads a transpose and this reshape put together."""
        transpose = only_use(reshape.operands[0], "Transpose")
        orders = (HEADS_FIRST, SEQUENCE_LAST)
        if transpose is None or transpose.ints_value("perm") not in orders:
            return None
        mixed = self.through_same_shape(transpose.operands[0])
        product = producer(mixed, "MatMul")
        if product is None or mixed is None:
            return None
        # Exporters take the shape of a product for the reshape that is fused away with it.
        users = [use.operation for use in mixed.uses]
        others = [user for user in users if not (isinstance(user, OnnxOp) and is_shape(user))]
        return product if len(others) == 1 else None

    def through_same_shape(self, value: SSAValue) -> SSAValue | None:
        """Past a reshape of four axes to the same four, which exporters put after products."""
        reshape = only_use(value, "Reshape")
        if reshape is None:
            return value
        before, after = symbolic_dims(reshape.operands[0]), symbolic_dims(value)
        same = before is not None and before == after and None not in before
        return reshape.operands[0] if same else None

    def keeps_order(self, reshape: OnnxOp) -> bool:
        """Whether the last reshape means the same after [batch, sequence, heads * depth]."""
        # A zero in its shape copies an axis, and the first two only are the same ones.
        sizes = symbolic_ints(reshape.operands[1], self.store)
        rank = rank_of(reshape.results[0])
        if rank is None:
            return False
        if rank <= 2 or reshape.int_value("allowzero"):
            return True
        return sizes is not None and 0 not in sizes[2:]

    def rejoins(self, reshape: OnnxOp, joined: tuple[Dim, ...]) -> bool:
        """Whether the last reshape gives the dims `joined`: two, and heads * depth."""
        width = joined[2]
        result = symbolic_dims(reshape.results[0])
        if result is not None and _equal_dims(result, joined):
            return True
        sizes = symbolic_ints(reshape.operands[1], self.store)
        if sizes is None or len(sizes) != 3 or reshape.int_value("allowzero"):
            return False
        # After the transpose there are two axes, heads and depth: zeros copy the first two.
        return sizes[:2] == [0, 0] and sizes[2] in (-1, width)

    def softmax(self, value: SSAValue) -> OnnxOp | None:
        """The softmax over the keys that makes `value`, past PyTorch's guard against NaN."""
        guard = only_use(value, "Where")
        if guard is not None:
            test = only_use(guard.operands[0], "IsNaN")
            if test is None or scalar(guard.operands[1], self.store) != 0:
                return None
            softmax = producer(guard.operands[2], "Softmax")
            users = {use.operation for use in guard.operands[2].uses}
            if softmax is None or test.operands[0] is not guard.operands[2]:
                return None
            if users != {guard, test}:
                return None
        else:
            softmax = only_use(value, "Softmax")
        if softmax is None or softmax.int_value("axis") not in (-1, 3):
            return None
        return softmax

    def scores(self, softmax: OnnxOp) -> tuple[OnnxOp | None, float, SSAValue | None]:
        """The first product below a softmax, its scale and the mask that is added to it."""
        value, mask = softmax.operands[0], None
        total = only_use(value, "Add")
        if total is not None:
            for value, mask in (tuple(total.operands), tuple(reversed(list(total.operands)))):
                product, scale = self.scaled_product(value)
                if product is not None and self.is_mask(mask):
                    return product, scale, mask
            return None, 1.0, None
        product, scale = self.scaled_product(value)
        return product, scale, None

    def scaled_product(self, value: SSAValue) -> tuple[OnnxOp | None, float]:
        value, scale = self.scaled(value)
        product = only_use(value, "MatMul")
        return (product, scale) if product is not None and rank_of(value) == 4 else (None, 1.0)

    def scaled(self, value: SSAValue) -> tuple[SSAValue, float]:
        """A value without the constant that multiplies it, and that constant."""
        op = only_use(value, "Mul", "Div")
        if op is None or rank_of(op.operands[0]) not in (rank_of(value), 0, 1):
            return value, 1.0
        if op.schema_name == "Div":
            number = scalar(op.operands[1], self.store)
            return (op.operands[0], 1 / number) if number else (value, 1.0)
        return with_scalar(op, self.store) or (value, 1.0)

    def is_mask(self, mask: SSAValue) -> bool:
        return rank_of(mask) in (2, 3, 4)

    def keys(self, value: SSAValue) -> Heads | None:
        """K, which reaches the product as [batch, heads, depth, sequence]."""
        found = self.split(value, DEPTH_FIRST)
        if found is not None:
            return found
        swapped = self.last_two_swapped(value)
        if swapped is None:
            return None
        inner, factor = self.scaled(swapped)
        return self.split(inner, HEADS_FIRST) if factor == 1.0 else None

    def last_two_swapped(self, value: SSAValue) -> SSAValue | None:
        """What a transpose of the last two axes was applied to, with reshapes to three axes."""
        transpose = only_use(value, "Transpose")
        if transpose is not None:
            swapped = transpose.ints_value("perm") == LAST_TWO
            return transpose.operands[0] if swapped else None
        outer = only_use(value, "Reshape")
        transpose = only_use(outer.operands[0], "Transpose") if outer is not None else None
        inner = only_use(transpose.operands[0], "Reshape") if transpose is not None else None
        if transpose is None or inner is None or transpose.ints_value("perm") != (0, 2, 1):
            return None
        before, flat = symbolic_dims(inner.operands[0]), symbolic_dims(transpose.operands[0])
        after = symbolic_dims(value)
        if before is None or flat is None or after is None or len(before) != 4 or None in before:
            return None
        # [b, h, s, d] -> [b * h, s, d] -> [b * h, d, s] -> [b, h, d, s].
        right = flat[1:] == before[2:] and after == (*before[:2], before[3], before[2])
        return inner.operands[0] if right else None

    def split(self, value: SSAValue, order: tuple[int, ...]) -> Heads | None:
        """What a reshape cut into heads and a transpose brought into `order`."""
        value, after = self.without_constant(value)
        transpose = producer(value, "Transpose")
        perm = None if transpose is None else transpose.ints_value("perm")
        if transpose is None or perm not in (order, _sequence_first(order)):
            return None
        inner, before = self.without_constant(transpose.operands[0])
        reshape = producer(inner, "Reshape")
        if reshape is None or (before is not None and after is not None):
            return None
        source = reshape.operands[0]
        dims, cut = symbolic_dims(source), symbolic_dims(reshape.results[0])
        if dims is None or cut is None or len(dims) != 3 or len(cut) != 4:
            return None
        heads, depth, width = cut[2], cut[3], dims[2]
        if not isinstance(width, int) or not isinstance(depth, int) or depth == 0:
            return None
        if heads is None and width % depth == 0:
            heads = width // depth
        if not isinstance(heads, int) or heads * depth != width:
            return None
        if not _equal_dims(dims[:2], cut[:2]) and not self.keeps_leading(reshape):
            return None
        bias = before
        if after is not None:
            if after.ndim != 4:
                return None
            bias = after.transpose([perm.index(axis) for axis in range(4)])
        if bias is not None:
            if bias.shape[-2:] != (heads, depth) or bias.size != width:
                return None
            bias = np.ascontiguousarray(bias.reshape(-1))
        return Heads(source, heads, depth, sequence_first=perm != order, bias=bias)

    def without_constant(self, value: SSAValue) -> tuple[SSAValue, Array | None]:
        """A value before a constant was added to it, and the constant."""
        add = producer(value, "Add")
        if add is None:
            return value, None
        for inner, other in ((0, 1), (1, 0)):
            found = constant(add.operands[other], self.store)
            if found is not None and found.dtype == np.float32:
                return add.operands[inner], found
        return value, None

    def keeps_leading(self, reshape: OnnxOp) -> bool:
        """Whether a reshape copies batch and sequence, by zeros in its shape."""
        sizes = symbolic_ints(reshape.operands[1], self.store)
        return sizes is not None and sizes[:2] == [0, 0] and not reshape.int_value("allowzero")


def is_shape(op: OnnxOp) -> bool:
    """Whether an op looks at the shape of its operand only."""
    return op.schema_name == "Shape"


def _equal_dims(a: tuple[Dim, ...], b: tuple[Dim, ...]) -> bool:
    return len(a) == len(b) and None not in a and a == b


def _shape(dims: tuple[Dim, ...]) -> list[int]:
    return [dim if isinstance(dim, int) else DYNAMIC for dim in dims]


def _sequence_first(order: tuple[int, ...]) -> tuple[int, ...]:
    """An order of [batch, sequence, heads, depth] for [sequence, batch, heads, depth]."""
    return tuple({0: 1, 1: 0}.get(axis, axis) for axis in order)


def swapped(value: SSAValue) -> OnnxOp:
    """A transpose of the first two of three axes."""
    first, second, last = symbolic_dims(value) or (None, None, None)
    dims = (second, first, last)
    kind = TensorType(element_of(value), _shape(dims))
    op = newest("Transpose").make([value], [kind], {"perm": (1, 0, 2)})
    set_dims(op, dims)
    return op


def _width(heads: Heads) -> int:
    return heads.heads * heads.depth
