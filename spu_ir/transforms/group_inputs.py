"""Cut the inputs of products into groups, each of which gets scales of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import DenseArrayBase, IntegerAttr, ModuleOp, TensorType, f32, i32, i64
from xdsl.dialects.tensor import EmptyOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from spu_ir.dialects.spu import Activation, ActivationAttr, MatmulOp
from spu_ir.dialects.types import shape_of
from spu_ir.dialects.vpu import BinaryFn, BinaryOp, SliceOp
from spu_ir.dialects.weights import BANK_BYTES, WeightStore, store_of
from spu_ir.errors import SpuError
from spu_ir.transforms.quantise import is_quantisable, label
from spu_ir.transforms.rewriting import after, array_of, constant_op, dims_of, empty_of, rebuilt
from spu_ir.transforms.row_zeros import ROW_ZERO, row_zero, scaled_columns


@dataclass
class Cutter:
    """Cuts values along their last axis; what several products read is cut once."""

    store: WeightStore
    parts: dict[tuple[SSAValue, int, int], SSAValue] = field(
        default_factory=dict[tuple[SSAValue, int, int], SSAValue]
    )

    def part(self, value: SSAValue, first: int, last: int, user: MatmulOp) -> SSAValue:
        """Columns `first` to `last` of `value`; factors of its columns stay the last thing done."""
        if (value, first, last) not in self.parts:
            scaled = scaled_columns(value)
            self.parts[value, first, last] = (
                self.slice(value, first, last, user)
                if scaled is None
                else self.scale(*scaled, first, last, user, row_zero(value))
            )
        return self.parts[value, first, last]

    def slice(self, value: SSAValue, first: int, last: int, user: MatmulOp) -> SSAValue:
        rank, dims = len(shape_of(value)), dims_of(value)
        builder = Builder(after([value, *dims]))
        empty = builder.insert(
            EmptyOp(dims, TensorType(f32, [*shape_of(value)[:-1], last - first]))
        )
        properties = {
            "starts": DenseArrayBase.from_list(i64, [0] * (rank - 1) + [first]),
            "steps": DenseArrayBase.from_list(i64, [1] * rank),
        }
        op = builder.insert(SliceOp(value, empty.tensor, properties))
        label(user, op)
        return op.results[0]

    def scale(
        self, x: SSAValue, columns: SSAValue, first: int, last: int, user: MatmulOp, zero: int
    ) -> SSAValue:
        some = self.part(x, first, last, user)
        factors = np.ascontiguousarray(array_of(columns, self.store)[first:last])
        dims = dims_of(some)
        builder = Builder(after([some, *dims]))
        factor = builder.insert(constant_op(self.store, factors)).result
        empty = builder.insert(empty_of(some, f32, dims)).tensor
        op = builder.insert(BinaryOp(BinaryFn.MUL, some, factor, empty))
        op.attributes[ROW_ZERO] = IntegerAttr(zero, i32)
        label(user, op)
        return op.results[0]

    def cut(self, op: MatmulOp, width: int) -> None:
        """`op` as a chain of products, each of which adds to the one before."""
        weight, dims = array_of(op.weight, self.store), dims_of(op.results[0])
        depth, sum_so_far = weight.shape[1], op.residual
        for first in range(0, depth, width):
            last = min(first + width, depth)
            x = self.part(op.x, first, last, op)
            builder = Builder(InsertPoint.before(op))
            some = np.ascontiguousarray(weight[:, first:last])
            ends = last == depth
            new = rebuilt(
                op,
                None if ends else {"activation": ActivationAttr(Activation.NONE)},
                x=x,
                weight=builder.insert(constant_op(self.store, some)).result,
                bias=op.bias if first == 0 else None,
                residual=sum_so_far,
                init=op.init if ends else builder.insert(empty_of(op.results[0], f32, dims)).tensor,
            )
            if ends:
                Rewriter.replace_op(op, new)
            else:
                sum_so_far = builder.insert(new).results[0]


def group_inputs(module: ModuleOp, ctx: Context, width: int) -> int:
    """
    Cut products of constant f32 weights that have more than `width` inputs; how many were.

    Raises SpuError unless `width` is a positive multiple of a bank's 64 bytes: groups of sparse
    weights are whole banks.
    """
    if width < BANK_BYTES or width % BANK_BYTES:
        raise SpuError(
            f"groups of {width} inputs", remedy=f"a multiple of {BANK_BYTES}, a bank: 384"
        )
    cutter = Cutter(store_of(ctx))
    products = [
        op
        for op in module.walk()
        if isinstance(op, MatmulOp) and is_quantisable(op) and shape_of(op.weight)[1] > width
    ]
    for op in products:
        cutter.cut(op, width)
    return len(products)


@dataclass(frozen=True)
class GroupInputsPass(ModulePass):
    """
    Products of more than `width` inputs -> chains of products of `width` inputs at most.

    `quantise` then gives each group of a row, and each group of a weight's row, a scale of its
    own, so that the largest number in a group decides the steps of fewer others. The
    multiply-accumulates stay the same; each product adds to the one before in its epilogue.
    """

    name = "group-inputs"
    preserves: ClassVar[str] = "tolerance(1e-5)"

    width: int = 384

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        group_inputs(op, ctx, self.width)
