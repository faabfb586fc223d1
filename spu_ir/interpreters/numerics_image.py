"""Resizing of images in integers, bit by bit as Pillow does it (`src/libImaging/Resample.c`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from spu_ir.dialects.vpu import ResizeFilter
from spu_ir.errors import SpuError

F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]

BITS = 22
"""Binary places of a weight: a sum of 255 times weights that add up to 1, or to 1.25, fits i32."""

TAPS_MISFIT = "an image's geometry is impossible, or takes too many pixels for one"
CANVAS_MISFIT = "an image's geometry reaches outside the pixels that are stored"


def _bilinear(x: F64) -> F64:
    x = np.abs(x)
    return np.where(x < 1.0, 1.0 - x, 0.0)


def _bicubic(x: F64) -> F64:
    x = np.abs(x)
    near = ((1.5 * x) - 2.5) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


FILTERS: dict[ResizeFilter, tuple[float, Callable[[F64], F64]]] = {
    ResizeFilter.BILINEAR: (1.0, _bilinear),
    ResizeFilter.BICUBIC: (2.0, _bicubic),
}
"""How far each reaches in an enlargement, and its weight at a distance."""


def resize_taps(
    geometry: I32, count: int, most: int, filter: ResizeFilter, *, antialias: bool
) -> tuple[I32, I32]:
    """
    Of `count` positions of one axis of N images: (first pixel, number) `[N, count, 2]`, weights
    `[N, count, most]`.

    geometry i32 `[N, 4]` is an axis' of `vpu.resize_taps`. All arithmetic is in double precision,
    weights are added in order. Raises SpuError for positions outside the resized image, an extent
    below 1 or more than `most` taps.
    """
    extent, stored, resized, first = (geometry[:, [i]].astype(np.int64) for i in range(4))
    impossible = (extent < 1) | (resized < 1) | (stored < 0) | (stored > extent)
    if (impossible | (first < 0) | (first + count > resized)).any():
        raise SpuError(TAPS_MISFIT, op="vpu.resize_taps")
    reach, weigh = FILTERS[filter]
    scale = extent / resized
    grown = np.maximum(scale, 1.0) if antialias else np.ones_like(scale)
    support = reach * grown
    centre = ((first + np.arange(count)) + 0.5) * scale
    low = np.maximum(np.trunc(centre - support + 0.5), 0).astype(np.int64)
    high = np.minimum(np.trunc(centre + support + 0.5).astype(np.int64), extent)
    taps = np.maximum(high - low, 0)
    if (taps > most).any():
        raise SpuError(TAPS_MISFIT, op="vpu.resize_taps")
    weights = np.zeros((*taps.shape, most))
    total = np.zeros(taps.shape)
    inverse = 1.0 / grown
    for k in range(int(taps.max(initial=0))):
        weight = weigh(((k + low) - centre + 0.5) * inverse)
        weights[..., k] = np.where(k < taps, weight, 0.0)
        total = total + weights[..., k]
    parts = weights / np.where(total == 0.0, 1.0, total)[..., None]
    fixed = np.trunc(np.where(parts < 0, -0.5, 0.5) + parts * float(1 << BITS))
    fixed[np.arange(most) >= taps[..., None]] = 0
    return np.stack([low - stored, taps], -1).astype(np.int32), fixed.astype(np.int32)


def _pass(x: U8, taps: I32, weights: I32) -> U8:
    """Resize axis 0 of one image `[H, ...]` to the `[S, 2]` taps."""
    out = np.empty((len(taps), *x.shape[1:]), np.uint8)
    for number, (first, count) in enumerate(taps.tolist()):
        pixels = x[first : first + count].astype(np.int64)
        total = np.tensordot(weights[number, :count].astype(np.int64), pixels, 1)
        out[number] = np.clip((total + (1 << BITS - 1)) >> BITS, 0, 255)
    return out


def resize(x: U8, rows: tuple[I32, I32], columns: tuple[I32, I32]) -> U8:
    """
    Images u8 `[N, H, W, C]` resized with taps and weights of their rows and columns.

    Columns first, and only of the rows that are read. Raises SpuError where taps lie outside x.
    """
    for (taps, weights), extent in ((rows, x.shape[1]), (columns, x.shape[2])):
        first, count = taps[..., 0].astype(np.int64), taps[..., 1]
        wrong = (first < 0) | (count < 0) | (count > weights.shape[-1]) | (first + count > extent)
        if wrong.any():
            raise SpuError(CANVAS_MISFIT, op="vpu.resize")
    images: list[U8] = []
    for image, *taps in zip(x, *rows, *columns, strict=True):
        row_taps, row_weights, column_taps, column_weights = taps
        start = int(row_taps[:, 0].min())
        read = image[start : int((row_taps[:, 0] + row_taps[:, 1]).max())]
        narrow = _pass(read.swapaxes(0, 1), column_taps, column_weights).swapaxes(0, 1)
        shifted = row_taps - np.array([start, 0], np.int32)
        images.append(_pass(narrow, shifted, row_weights))
    shape = (0, rows[0].shape[1], columns[0].shape[1], x.shape[3])
    return np.stack(images) if images else np.empty(shape, np.uint8)
