"""Move transposes down past element-wise ops until two of them cancel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias, TypeVar, cast

import numpy as np
from xdsl.context import Context
from xdsl.dialects import tensor
from xdsl.dialects.builtin import DenseArrayBase, IntegerAttr, ModuleOp, TensorType, i64
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import (
    GreedyRewritePatternApplier,
    PatternRewriter,
    PatternRewriteWalker,
    RewritePattern,
    op_type_rewrite_pattern,
)

from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.spu import MatmulOp, integers
from spu_ir.dialects.types import DYNAMIC, element_of, shape_of
from spu_ir.dialects.vpu import (
    BinaryOp,
    CastOp,
    ConcatOp,
    LayerNormOp,
    PadOp,
    ReduceOp,
    ReshapeOp,
    ScaledOp,
    SelectOp,
    SliceOp,
    SoftmaxOp,
    TransposeOp,
    UnaryOp,
    array_attr,
)
from spu_ir.dialects.weights import WeightStore, store_of
from spu_ir.transforms.rewriting import constant_of, constant_op, dims_of, is_constant

Dim: TypeAlias = int | SSAValue
Perm: TypeAlias = tuple[int, ...]
_T = TypeVar("_T")

PER_AXIS = ("low", "starts", "steps")
"""Properties with one number for each axis."""


@dataclass(frozen=True)
class SinkTransposesPass(ModulePass):
    """
    Cancel transposes, and move those that stay towards the results.

    A convolution reads and writes channels last, so it comes between two transposes. One moves
    down past an op whose other operands are transposed alike or constant; where it meets its
    inverse, both go. So do those that keep the last axis, past products and normalisations of
    rows. One that moves extents of 1 alone is a reshape, a reshape of a reshape is
    one reshape, and a transposed constant is transposed now.
    """

    name = "sink-transposes"
    preserves: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        store = store_of(ctx)
        patterns: list[RewritePattern] = [
            SimplifyTranspose(store),
            SimplifyReshape(),
            SinkThroughElementwise(store),
            SinkThroughReduce(),
            SinkThroughRows(),
            SinkReshape(),
        ]
        PatternRewriteWalker(GreedyRewritePatternApplier(patterns)).rewrite_module(op)


def dims(value: SSAValue) -> list[Dim]:
    """The extents of a tensor: a number or the index value."""
    dynamic = iter(dims_of(value))
    return [next(dynamic) if extent == DYNAMIC else extent for extent in shape_of(value)]


def _empty(rewriter: PatternRewriter, extents: Sequence[Dim], element: Attribute) -> SSAValue:
    shape = [extent if isinstance(extent, int) else DYNAMIC for extent in extents]
    sizes = [extent for extent in extents if isinstance(extent, SSAValue)]
    return rewriter.insert(tensor.EmptyOp(sizes, TensorType(element, shape))).tensor


def _layer(op: Operation) -> dict[str, Attribute]:
    return {name: attr for name, attr in op.attributes.items() if name == "layer"}


def _transpose(rewriter: PatternRewriter, x: SSAValue, perm: Perm, of: Operation) -> TransposeOp:
    extents = dims(x)
    init = _empty(rewriter, [extents[axis] for axis in perm], element_of(x))
    return TransposeOp(x, init, {"perm": array_attr(perm)}, _layer(of))


def _reshape(
    rewriter: PatternRewriter, x: SSAValue, extents: Sequence[Dim], of: Operation
) -> ReshapeOp:
    return ReshapeOp(x, _empty(rewriter, extents, element_of(x)), None, _layer(of))


def _moves_units(shape: Sequence[int], perm: Perm) -> bool:
    """Whether only extents of 1 change places, so that the elements' order stays."""
    kept = [axis for axis in perm if shape[axis] != 1]
    return kept == sorted(kept)


def _permutation(value: SSAValue) -> Perm | None:
    return integers(value.owner.perm) if isinstance(value.owner, TransposeOp) else None


@dataclass
class SimplifyTranspose(RewritePattern):
    """Two transposes are one; one that moves nothing is its operand, or a reshape."""

    store: WeightStore

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: TransposeOp, rewriter: PatternRewriter) -> None:
        perm, x = integers(op.perm), op.x
        array = constant_of(x, self.store)
        if array is not None:
            turned = np.ascontiguousarray(array.transpose(perm))
            rewriter.replace(op, constant_op(self.store, turned))
        elif list(perm) == sorted(perm):
            rewriter.replace(op, [], [x])
        elif isinstance(x.owner, TransposeOp):
            inner = integers(x.owner.perm)
            combined = tuple(inner[axis] for axis in perm)
            rewriter.replace(op, _transpose(rewriter, x.owner.x, combined, op))
        elif _moves_units(shape_of(x), perm):
            rewriter.replace(op, _reshape(rewriter, x, dims(op.init), op))


class SimplifyReshape(RewritePattern):
    """A reshape of a reshape is one; one to the same shape is its operand."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: ReshapeOp, rewriter: PatternRewriter) -> None:
        if dims(op.x) == dims(op.init):
            rewriter.replace(op, [], [op.x])
        elif isinstance(op.x.owner, ReshapeOp):
            new = ReshapeOp(op.x.owner.x, op.init, None, dict(op.attributes))
            rewriter.replace(op, new)


def _clone(
    op: DestinationOp, inputs: Sequence[SSAValue], init: SSAValue, changed: dict[str, Attribute]
) -> DestinationOp:
    return type(op).create(
        operands=[*inputs, init],
        result_types=[init.type],
        properties=dict(op.properties) | changed,
        attributes=dict(op.attributes),
    )


@dataclass
class SinkThroughElementwise(RewritePattern):
    """`f(transpose(x), ...)` is `transpose(f(x, ...))` where f treats every axis alike."""

    store: WeightStore

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        if not isinstance(
            op,
            UnaryOp | CastOp | BinaryOp | SelectOp | PadOp | SliceOp | ConcatOp | ScaledOp,
        ):
            return
        result = op.results[0]
        rank = len(shape_of(result))
        scaled = isinstance(op, ScaledOp)
        count = 1 if scaled else len(op.inputs)
        perms = {_permutation(x) for x in op.inputs[:count]} - {None}
        if len(perms) != 1 or (scaled and op.axis.value.data < 0 and shape_of(op.scale)):
            return
        (perm,) = perms
        if perm is None or len(perm) != rank:
            return
        if not all(self._fits(x, perm) for x in op.inputs[:count]):
            return
        inputs = [self._turned(x, perm, op, rewriter) for x in op.inputs[:count]]
        inverse = _inverse(perm)
        extents = dims(op.inits[0])
        init = _empty(rewriter, [extents[axis] for axis in inverse], element_of(result))
        new = _clone(op, [*inputs, *op.inputs[count:]], init, _permuted(op, perm))
        rewriter.insert(new)
        rewriter.replace(op, _transpose(rewriter, new.results[0], perm, op))

    def _fits(self, x: SSAValue, perm: Perm) -> bool:
        """Whether an operand can be had in the order before `perm` without moving elements."""
        own = _permutation(x)
        if own is not None:
            return own == perm
        return is_constant(x) or _moves_units(_padded(shape_of(x), perm), _inverse(perm))

    def _turned(
        self, x: SSAValue, perm: Perm, op: Operation, rewriter: PatternRewriter
    ) -> SSAValue:
        """The operand in the order before `perm`."""
        if isinstance(x.owner, TransposeOp):
            return x.owner.x
        if not shape_of(x):
            return x
        array = constant_of(x, self.store)
        if array is not None:
            turned = array.reshape(_padded(array.shape, perm)).transpose(_inverse(perm))
            return rewriter.insert(constant_op(self.store, np.ascontiguousarray(turned))).result
        extents = _padded(dims(x), perm)
        reshape = _reshape(rewriter, x, [extents[axis] for axis in _inverse(perm)], op)
        rewriter.insert(reshape)
        assert reshape.result is not None
        return reshape.result


def _padded(extents: Sequence[_T], perm: Perm) -> list[_T | int]:
    """A shape with leading extents of 1 up to as many axes as `perm` has."""
    return [*[1] * (len(perm) - len(extents)), *extents]


def _inverse(perm: Perm) -> Perm:
    return tuple(perm.index(axis) for axis in range(len(perm)))


def _permuted(op: DestinationOp, perm: Perm) -> dict[str, Attribute]:
    """The properties of `op` that speak of axes, in the order before `perm`."""
    changed: dict[str, Attribute] = {}
    for name in PER_AXIS:
        values = op.properties.get(name)
        if isinstance(values, DenseArrayBase):
            numbers = integers(cast("DenseArrayBase", values))
            changed[name] = array_attr([numbers[axis] for axis in _inverse(perm)])
    if isinstance(op, ConcatOp | ScaledOp) and op.axis.value.data >= 0:
        changed["axis"] = IntegerAttr(perm[op.axis.value.data], i64)
    return changed


class SinkThroughReduce(RewritePattern):
    """A reduction of a transpose reduces the same axes of its operand."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: ReduceOp, rewriter: PatternRewriter) -> None:
        perm = _permutation(op.x)
        if perm is None or not isinstance(op.x.owner, TransposeOp):
            return
        axes, extents = integers(op.axes), dims(op.init)
        if len(extents) == len(perm):
            after = perm
        else:
            kept = [axis for index, axis in enumerate(perm) if index not in axes]
            after = tuple(sorted(kept).index(axis) for axis in kept)
        init = _empty(rewriter, [extents[axis] for axis in _inverse(after)], element_of(op.init))
        changed: dict[str, Attribute] = {"axes": array_attr(sorted(perm[axis] for axis in axes))}
        new = _clone(op, [op.x.owner.x], init, changed)
        rewriter.insert(new)
        rewriter.replace(op, _transpose(rewriter, new.results[0], after, op))


class SinkThroughRows(RewritePattern):
    """A function of rows, as a product is, of a transpose that keeps the last axis."""

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        if not isinstance(op, MatmulOp | LayerNormOp | SoftmaxOp):
            return
        perm, extents = _permutation(op.x), dims(op.init)
        if perm is None or not isinstance(op.x.owner, TransposeOp):
            return
        if perm[-1] != len(perm) - 1 or len(perm) != len(extents):
            return
        if isinstance(op, MatmulOp) and (op.residual is not None or op.row_scale is not None):
            return
        init = _empty(rewriter, [extents[axis] for axis in _inverse(perm)], element_of(op.init))
        new = _clone(op, [op.x.owner.x, *op.inputs[1:]], init, {})
        rewriter.insert(new)
        rewriter.replace(op, _transpose(rewriter, new.results[0], perm, op))


class SinkReshape(RewritePattern):
    """A function is applied before its operands are reshaped, where a product may take it up."""

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        if not isinstance(op, UnaryOp | CastOp | BinaryOp | ScaledOp):
            return
        sources = [x.owner.x for x in op.inputs if isinstance(x.owner, ReshapeOp)]
        others = [x for x in op.inputs if not isinstance(x.owner, ReshapeOp)]
        if not sources or not all(shape_of(x) == () for x in others):
            return
        extents = dims(sources[0])
        if any(dims(source) != extents for source in sources):
            return
        if any(dims(x) != dims(op.inits[0]) for x in op.inputs if x not in others):
            return
        init = _empty(rewriter, extents, element_of(op.results[0]))
        inputs = [x.owner.x if isinstance(x.owner, ReshapeOp) else x for x in op.inputs]
        new = _clone(op, inputs, init, {})
        rewriter.insert(new)
        rewriter.replace(op, _reshape(rewriter, new.results[0], dims(op.inits[0]), op))
