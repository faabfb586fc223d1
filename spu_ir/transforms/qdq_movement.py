"""Quantise and dequantise ops past data movement, so that it moves bytes; part of `fold-qdq`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import i8
from xdsl.ir import Operation, SSAValue
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern
from xdsl.rewriter import InsertPoint

from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.spu import integers
from spu_ir.dialects.types import element_of, ui8
from spu_ir.dialects.vpu import (
    ConcatOp,
    DequantiseOp,
    PoolFn,
    PoolOp,
    QuantiseOp,
    ReshapeOp,
    SliceOp,
    TransposeOp,
)
from spu_ir.dialects.weights import WeightStore
from spu_ir.transforms.affine import (
    Affine,
    affine_of,
    dequantised,
    quantised,
    shared_affine,
)
from spu_ir.transforms.rewriting import constant_of, constant_op, dims_of, empty_of, users_of


def moves(op: object, affine: Affine) -> bool:
    """Whether `op` only moves or selects elements, so that it may as well run on their bytes."""
    if isinstance(op, PoolOp):
        return op.fn.data is PoolFn.MAX and affine.element == ui8
    return isinstance(op, ReshapeOp | TransposeOp | SliceOp | ConcatOp)


def moved(op: DestinationOp, inputs: list[SSAValue], init: SSAValue) -> Operation:
    """`op` with other inputs and another init, not inserted."""
    return type(op).create(
        operands=[*inputs, init],
        result_types=[init.type],
        properties=dict(op.properties),
        attributes={name: attr for name, attr in op.attributes.items() if name != "range"},
    )


@dataclass
class ShiftSigned(RewritePattern):
    """i8 activations become u8: the same steps of the same grid, zero point + 128."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: QuantiseOp, rewriter: PatternRewriter) -> None:
        affine = affine_of(op, self.store)
        if affine is None or affine.element != i8:
            return
        users = users_of(op.results[0])
        found = [(user, affine_of(user, self.store)) for user in users]
        if not all(isinstance(user, DequantiseOp) and its is not None for user, its in found):
            return
        shifted = Affine(ui8, affine.scale, affine.zero + 128)
        new = quantised(op.x, shifted, self.store, rewriter, op)
        for user, its in found:
            assert isinstance(user, DequantiseOp)
            assert its is not None
            rewriter.insertion_point = InsertPoint.before(user)
            own = Affine(ui8, its.scale, its.zero + 128)
            rewriter.replace(user, dequantised(new, own, self.store, rewriter, user.init))
        rewriter.erase(op)


@dataclass
class Cancel(RewritePattern):
    """`quantise(dequantise(q))` with equal parameters is q."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: QuantiseOp, rewriter: PatternRewriter) -> None:
        source = op.x.owner
        affine = affine_of(source, self.store)
        if not isinstance(source, DequantiseOp) or affine is None:
            return
        if affine == affine_of(op, self.store):
            rewriter.replace(op, [], [source.x])


@dataclass
class RaiseQuantise(RewritePattern):
    """`quantise(move(x))` is `move(quantise(x))`."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: QuantiseOp, rewriter: PatternRewriter) -> None:
        source = op.x.owner
        affine = shared_affine(op.x, self.store)
        if affine is None or not isinstance(source, DestinationOp) or not moves(source, affine):
            return
        inputs = [quantised(value, affine, self.store, rewriter, source) for value in source.inputs]
        point = InsertPoint.before(source)
        empty = rewriter.insert(empty_of(op.x, affine.element, dims_of(op.x)), point)
        new = rewriter.insert(moved(source, inputs, empty.tensor), point)
        for use in list(op.x.uses):
            rewriter.replace(use.operation, [], [new.results[0]])
        rewriter.erase(source)


@dataclass
class LowerDequantise(RewritePattern):
    """`move(dequantise(q))` is `dequantise(move(q))`."""

    store: WeightStore

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        if not isinstance(op, ReshapeOp | TransposeOp | SliceOp | ConcatOp | PoolOp):
            return
        inputs = op.inputs
        sources = [value.owner for value in inputs]
        found = {affine_of(source, self.store) for source in sources}
        affine = found.pop()
        if affine is None or found or not moves(op, affine):
            return
        bytes_ = [source.x for source in sources if isinstance(source, DequantiseOp)]
        if len(bytes_) != len(inputs):
            return
        result = op.results[0]
        empty = rewriter.insert(empty_of(result, affine.element, dims_of(result)))
        new = rewriter.insert(moved(op, bytes_, empty.tensor))
        rewriter.replace(op, dequantised(new.results[0], affine, self.store, rewriter, op.init))


@dataclass
class TransposeConstant(RewritePattern):
    """The transpose of a constant weight, also of a dequantised one, happens now."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: TransposeOp, rewriter: PatternRewriter) -> None:
        perm = integers(op.perm)
        array = constant_of(op.x, self.store)
        if array is not None:
            rewriter.replace(
                op, constant_op(self.store, np.ascontiguousarray(array.transpose(perm)))
            )
            return
        source = op.x.owner
        if not isinstance(source, DequantiseOp) or source.axis.value.data < 0:
            return
        array = constant_of(source.x, self.store)
        if array is None:
            return
        turned = constant_op(self.store, np.ascontiguousarray(array.transpose(perm)))
        new = DequantiseOp(
            rewriter.insert(turned).result,
            source.scale,
            source.zero,
            op.init,
            axis=perm.index(source.axis.value.data),
        )
        rewriter.replace(op, new)


@dataclass
class QuantiseConstant(RewritePattern):
    """A constant weight that the model quantises at run time is quantised now."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: QuantiseOp, rewriter: PatternRewriter) -> None:
        array, scale = constant_of(op.x, self.store), constant_of(op.scale, self.store)
        element = element_of(op.init)
        low, high = (0, 255) if element == ui8 else (-128, 127)
        dtype = np.uint8 if element == ui8 else np.int8
        zero = np.zeros((), dtype) if op.zero is None else constant_of(op.zero, self.store)
        axis = op.axis.value.data
        if array is None or scale is None or zero is None or (scale.shape and axis < 0):
            return
        if not (np.isfinite(array).all() and np.isfinite(scale).all() and (scale > 0).all()):
            return
        column = (-1,) + (1,) * (array.ndim - 1 - axis) if scale.shape else ()
        inverse = (np.float32(1) / scale).reshape(column)
        offset = zero.astype(np.float32).reshape(column if zero.shape else ())
        steps = np.rint(np.clip(array * inverse, low - offset, high - offset)) + offset
        rewriter.replace(op, constant_op(self.store, steps.astype(dtype)))


def movement_patterns(store: WeightStore) -> list[RewritePattern]:
    """The patterns of this file, in the order in which they are tried."""
    return [
        TransposeConstant(store),
        QuantiseConstant(store),
        ShiftSigned(store),
        Cancel(store),
        RaiseQuantise(store),
        LowerDequantise(store),
    ]
