"""The step of every row of a weight's grid: the one with the least squared error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spu_ir.dialects.types import Array

LEVELS = 127
"""The largest magnitude of a weight's byte: the grid is symmetric."""

SEARCHED = 384
"""
Rows with more non-zeros than this take `max|row| / 127`.

The squared error of a row is a sum of so many rounding errors; steps a little larger than needed
draw other ones. Of few errors the best draw is much smaller (27 numbers, a first convolution:
20 %; 48, a pruned row: 15 %), of many it is not worth the time.
"""

_CANDIDATES = (127.0, 127.4, *(half / 2 for half in range(253, 217, -1)))
"""
How many steps the largest magnitude is: the first, which is usual, wins when equal. With whole
numbers weights that are on a grid already, of at least 109 steps, stay on it.
"""


def row_scales(rows: Array) -> NDArray[np.float32]:
    """
    f32 scales [N] for f32 `rows [N, K]`, all above 0; 1 for a row of zeros.

    Of 38 steps from just below `max|row| / 127` to 16 % above, the one with the least squared
    error, the sum of `(w - round(w / s) * s) ** 2`.
    """
    magnitude = np.abs(rows)
    peak = magnitude.max(axis=1, initial=0)
    scale = np.where(peak > 0, peak / np.float32(LEVELS), np.float32(1)).astype(np.float32)
    # A row of denormals could have a scale of zero.
    scale = np.where(scale > 0, scale, np.float32(1))
    regular = peak > np.float32(1e-30)
    counts = np.count_nonzero(magnitude, axis=1)
    most = int(counts.max(initial=0))
    if not 0 < most <= SEARCHED:
        return scale
    if most < rows.shape[1]:
        # Zeros have no error: only what is left of sparse rows, flush left.
        left = np.zeros((len(rows), most), magnitude.dtype)
        left[np.arange(most) < counts[:, None]] = magnitude[magnitude != 0]
        magnitude = left
    best, least = scale, np.full(len(rows), np.inf)
    for count in _CANDIDATES:
        step = np.where(regular, peak / np.float32(count), scale)
        levels = np.minimum(np.rint(magnitude / step[:, None]), LEVELS)
        error = np.square(magnitude - levels * step[:, None], dtype=np.float64).sum(axis=1)
        best = np.where(error < least, step, best)
        least = np.minimum(error, least)
    return best
