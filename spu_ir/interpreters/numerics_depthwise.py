"""
Depthwise convolution in numpy, with the device's bits (runtime/device/spu_depthwise.h).

One weight a channel and tap; x is `[M, K, C]`, the K taps of M pixels, the weight `[C, K]` and the
sums `[M, C]`. Taps are added in order, from 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .numerics import F32, I32, Bytes
from .numerics_spu import bf16_step


def depthwise_i8(x: Bytes, weight: NDArray[np.int8], x_zero: int) -> I32:
    """Exact int32 sums of (x - x_zero) * weight."""
    acc = np.zeros((x.shape[0], x.shape[2]), dtype=np.int32)
    for k in range(x.shape[1]):
        acc += (x[:, k].astype(np.int32) - np.int32(x_zero)) * weight[:, k].astype(np.int32)
    return acc


def depthwise_f32(x: F32, weight: F32) -> F32:
    """Each product rounded, then each sum."""
    acc = np.zeros((x.shape[0], x.shape[2]), dtype=np.float32)
    with np.errstate(all="ignore"):
        for k in range(x.shape[1]):
            acc = acc + x[:, k] * weight[:, k]
    return acc


def depthwise_bf16(x: F32, weight: F32) -> F32:
    """bfloat16 values as f32: a step a tap, whose odd slot is 0 * 0."""
    acc = np.zeros((x.shape[0], x.shape[2]), dtype=np.float32)
    nothing = np.zeros_like(acc)
    for k in range(x.shape[1]):
        acc = bf16_step(acc, nothing, nothing)
        acc = bf16_step(acc, x[:, k], weight[None, :, k])
    return acc
