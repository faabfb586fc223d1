"""The weight of a depthwise convolution to the arrays of runtime/device/spu_depthwise.h."""

from __future__ import annotations

import numpy as np

from ..dialects.types import Array
from .banked import Kind, PackedWeight, check_accumulator
from .windows import LANES, Segments


def pack_depthwise(weight: Array, segments: Segments, x_zero: int = 0) -> PackedWeight:
    """
    Pack `weight` `[C, K]` (int8, bfloat16 or float32), one a channel and tap.

    `segments` has one element for every tap. The value of a tap is 16 lanes of four bytes: an
    int32, a bfloat16 below two zero bytes, or a float32; taps follow one another, then lane
    groups. Raises ValueError when shapes disagree or a sum could leave int32.
    """
    channels, taps = weight.shape
    if [length for _, length in segments] != [1] * taps:
        raise ValueError(f"a depthwise weight of {taps} taps needs as many segments of one element")
    groups = -(-channels // LANES)
    full = np.zeros((groups * LANES, taps), weight.dtype)
    full[:channels] = weight
    correction = None
    kind: Kind = "bf16"
    if weight.dtype == np.int8:
        kind = "i8"
        check_accumulator(weight, x_zero)
        wide = full.astype(np.int32)
        correction = -np.int32(x_zero) * wide.sum(axis=1, dtype=np.int32)
    elif weight.dtype == np.float32:
        kind = "f32"
        wide = full
    else:
        wide = full.view(np.uint16).astype(np.uint32)
    value = np.ascontiguousarray(wide.reshape(groups, LANES, taps).swapaxes(1, 2))
    return PackedWeight(
        kind=kind,
        format="depthwise",
        share=1,
        index=None,
        value=value.reshape(groups * taps, LANES),
        offset=np.array([offset for offset, _ in segments], np.int32),
        begin=np.array([0, taps], np.int32),
        correction=correction,
        slots_run=64.0,
        lane_groups=groups,
    )
