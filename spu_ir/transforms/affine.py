"""Static quantisation parameters, as the QDQ passes compare and move them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from xdsl.dialects.builtin import i8
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.pattern_rewriter import PatternRewriter
from xdsl.rewriter import InsertPoint

from spu_ir.dialects.types import Array, element_of, ui8
from spu_ir.dialects.vpu import DequantiseOp, ExpandOp, QuantiseOp
from spu_ir.dialects.weights import WeightStore
from spu_ir.transforms.rewriting import constant_of, constant_op, dims_of, empty_of, users_of


class Affine(NamedTuple):
    """`real = (integer - zero) * scale` for a whole tensor of u8 or i8."""

    element: Attribute
    scale: float
    """An f32 number, positive and finite."""
    zero: int


def uniform(value: SSAValue, store: WeightStore) -> Array | None:
    """The one number, without an axis, that every element of a constant has; None otherwise."""
    if isinstance(value.owner, ExpandOp):
        value = value.owner.x
    array = constant_of(value, store)
    if array is None or array.size == 0 or (array != array.flat[0]).any():
        return None
    return array.reshape(-1)[0]


def affine_of(op: Operation | object, store: WeightStore) -> Affine | None:
    """
    The static per-tensor parameters of a quantise or dequantise of bytes.

    None for another op, for parameters that are computed at run time or differ along an axis, and
    for a scale that is not a positive finite number.
    """
    if not isinstance(op, QuantiseOp | DequantiseOp):
        return None
    element = element_of(op.init if isinstance(op, QuantiseOp) else op.x)
    scale = uniform(op.scale, store)
    zero = np.zeros((), np.uint8) if op.zero is None else uniform(op.zero, store)
    if element not in (ui8, i8) or scale is None or zero is None:
        return None
    if not (np.isfinite(scale) and scale > 0):
        return None
    return Affine(element, float(scale), int(zero))


def shared_affine(value: SSAValue, store: WeightStore) -> Affine | None:
    """The parameters of the quantise ops that are all of `value`'s users, if they are equal."""
    users = users_of(value)
    if not users or not all(isinstance(user, QuantiseOp) for user in users):
        return None
    found = {affine_of(user, store) for user in users}
    return found.pop() if len(found) == 1 else None


def parameters(
    affine: Affine, store: WeightStore, rewriter: PatternRewriter, point: InsertPoint
) -> tuple[SSAValue, SSAValue]:
    """Constants of `affine`'s scale and zero point at `point`."""
    dtype = np.uint8 if affine.element == ui8 else np.int8
    arrays = np.array(affine.scale, np.float32), np.array(affine.zero, dtype)
    scale, zero = (rewriter.insert(constant_op(store, array), point).result for array in arrays)
    return scale, zero


def quantised(
    value: SSAValue, affine: Affine, store: WeightStore, rewriter: PatternRewriter, at: Operation
) -> SSAValue:
    """`value` quantised with `affine`, just before `at`."""
    point = InsertPoint.before(at)
    scale, zero = parameters(affine, store, rewriter, point)
    empty = rewriter.insert(empty_of(value, affine.element, dims_of(value)), point)
    return rewriter.insert(QuantiseOp(value, scale, zero, empty.tensor), point).results[0]


def dequantised(
    value: SSAValue, affine: Affine, store: WeightStore, rewriter: PatternRewriter, init: SSAValue
) -> DequantiseOp:
    """The dequantise op of `value` into `init`, not inserted; its parameters are, before it."""
    scale, zero = parameters(affine, store, rewriter, rewriter.insertion_point)
    return DequantiseOp(value, scale, zero, init)
