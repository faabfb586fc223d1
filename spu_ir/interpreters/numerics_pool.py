"""Pooling in numpy: the same bits as runtime/device/vpu_pool.h. Images are `[N, H, W, C]`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .numerics import F32, maximum
from .numerics_vpu import quiet

Axis = tuple[slice, slice]
"""The output positions for which one tap lies inside the image, and where it lies."""


def _tap(tap: int, stride: int, pad: int, dilation: int, extent: int, outputs: int) -> Axis | None:
    at = tap * dilation - pad
    first = max(0, -(at // stride))
    last = min(outputs - 1, (extent - 1 - at) // stride)
    if last < first:
        return None
    start = at + first * stride
    return slice(first, last + 1), slice(start, start + (last - first) * stride + 1, stride)


def _taps(
    shape: Sequence[int],
    out: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> Iterator[tuple[Axis, Axis]]:
    """Every tap, kernel row by kernel row, that lies inside the image for some output."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = _tap(i, strides[0], pads[0], dilations[0], shape[1], out[0])
            columns = _tap(j, strides[1], pads[1], dilations[1], shape[2], out[1])
            if rows and columns:
                yield rows, columns


def max_pool(
    x: NDArray[Any],
    out: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0),
    dilations: Sequence[int] = (1, 1),
) -> NDArray[Any]:
    """
    The maximum of each window, for `out` = (rows, columns): f32, u8 or i8 `[N, OH, OW, C]`.

    NaN is passed over; a window with nothing inside gives the type's lowest value.
    """
    floating = x.dtype == np.float32
    lowest = -np.inf if floating else np.iinfo(x.dtype).min
    acc = np.full((x.shape[0], *out, x.shape[3]), lowest, x.dtype)
    for (to_h, at_h), (to_w, at_w) in _taps(x.shape, out, kernel, strides, pads, dilations):
        part = acc[:, to_h, to_w]
        part[...] = maximum(x[:, at_h, at_w], part)
    return acc


@quiet
def average_pool(
    x: NDArray[Any],
    out: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0),
    dilations: Sequence[int] = (1, 1),
    *,
    include_pad: bool = False,
    scale: float | None = None,
    zero: int = 0,
) -> F32:
    """
    The sum of each window over the number of its positions inside x (over all of the kernel's
    with `include_pad`), f32 `[N, OH, OW, C]`.

    f32: summed in order from 0. u8 and i8 (with `scale`): ((float)(sum of x - zero) / count) *
    scale, the sum exact. A window with nothing inside gives 0.
    """
    quantised = scale is not None
    acc = np.zeros((x.shape[0], *out, x.shape[3]), np.int32 if quantised else np.float32)
    count = np.zeros(tuple(out), np.int64)
    for (to_h, at_h), (to_w, at_w) in _taps(x.shape, out, kernel, strides, pads, dilations):
        part = x[:, at_h, at_w]
        acc[:, to_h, to_w] += part.astype(np.int32) - np.int32(zero) if quantised else part
        count[to_h, to_w] += 1
    if include_pad:
        count[...] = kernel[0] * kernel[1]
    area = np.maximum(count, 1).astype(np.float32)[..., None]
    mean: F32 = np.divide(acc.astype(np.float32), area)
    return mean if scale is None else mean * np.float32(scale)


def global_average(x: NDArray[Any], *, scale: float | None = None, zero: int = 0) -> F32:
    """The average over height and width, `[N, H, W, C]` to f32 `[N, 1, 1, C]`."""
    return average_pool(x, (1, 1), x.shape[1:3], scale=scale, zero=zero)
