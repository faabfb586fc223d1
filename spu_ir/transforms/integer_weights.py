"""Constant weights in QDQ form as integers, for `fold-qdq`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spu_ir.dialects.spu import EpilogueOp
from spu_ir.dialects.types import Array
from spu_ir.dialects.vpu import DequantiseOp
from spu_ir.dialects.weights import WeightStore
from spu_ir.packing.banked import check_accumulator
from spu_ir.transforms.rewriting import constant_of

REASON = "fallback_reason"
"""The attribute of a product that says why it is not one of integers."""


class CannotFold(Exception):
    """Why a product in QDQ form stays one of f32."""


def integer_weight(op: DequantiseOp, store: WeightStore) -> tuple[Array, NDArray[np.float32]]:
    """
    The i8 values and the f32 scales [N] of a dequantised constant weight of N rows.

    Values are relative to their zero points. Raises CannotFold when they do not fit i8, or when
    scales differ along another axis than the first.
    """
    weight, scale = constant_of(op.x, store), constant_of(op.scale, store)
    zero = np.zeros((), np.int8) if op.zero is None else constant_of(op.zero, store)
    if weight is None or scale is None or zero is None:
        raise CannotFold("the weight or its scale or zero point is computed at run time")
    axis = op.axis.value.data
    if scale.size > 1 and axis != 0:
        raise CannotFold(f"the weight has scales along axis {axis}, not for each output channel")
    if not (np.isfinite(scale).all() and (scale >= 0).all()):
        raise CannotFold("a scale of the weight is negative or not finite")
    column = (-1,) + (1,) * (weight.ndim - 1)
    wide = weight.astype(np.int64) - zero.astype(np.int64).reshape(-1).reshape(column)
    if wide.size and (wide.min() < -128 or wide.max() > 127):
        raise CannotFold(
            f"weights minus their zero point reach {wide.min()}..{wide.max()}, beyond int8"
        )
    scales = np.broadcast_to(scale.reshape(-1), (len(weight),)).astype(np.float32)
    return wide.astype(np.int8), scales


def times_own_scale(
    op: EpilogueOp, scales: NDArray[np.float32], store: WeightStore
) -> NDArray[np.float32]:
    """`scales` [N] times the scale that `op` has by itself. Raises CannotFold at run time."""
    if op.scale is None:
        return scales
    own = constant_of(op.scale, store)
    if own is None:
        raise CannotFold("the product has a scale that is computed at run time")
    return scales * own


def check_sums(weight: Array, x_zero: int) -> None:
    """Raise CannotFold when a sum of this weight and u8 activations could leave int32."""
    try:
        check_accumulator(weight.reshape(len(weight), -1), x_zero)
    except ValueError as error:
        raise CannotFold(str(error)) from error


def dequantised_constant(op: DequantiseOp, store: WeightStore) -> NDArray[np.float32] | None:
    """The f32 array of a dequantise op with constant operands, None if one is not constant."""
    x, scale = constant_of(op.x, store), constant_of(op.scale, store)
    zero = np.zeros((), np.int32) if op.zero is None else constant_of(op.zero, store)
    if x is None or scale is None or zero is None:
        return None
    axis = op.axis.value.data
    column = (-1,) + (1,) * (x.ndim - 1 - axis) if axis >= 0 else (*scale.shape, 1)
    if not scale.shape:
        column = ()
    offset = zero.astype(np.int64).reshape(column if zero.shape else ())
    centred = (x.astype(np.int64) - offset).astype(np.float32)
    return centred * scale.reshape(column)
