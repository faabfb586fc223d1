"""Packed rows in numpy: where they lie, packing and unpacking (dialects/vpu_packed.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spu_ir.dialects.types import Array, bfloat16


def row_offsets(real: NDArray[np.bool_]) -> NDArray[np.int64]:
    """`[batch + 1]` offsets of the rows of `real [batch, seq]`: up to each last real position."""
    batch, seq = real.shape
    behind = (real * np.arange(1, seq + 1, dtype=np.int64)).max(axis=1, initial=0)
    return np.concatenate([[0], np.cumsum(behind)]).astype(np.int64).reshape(batch + 1)


def _lengths(offsets: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Sample, first row and number of rows."""
    ends = [int(offset) for offset in offsets]
    return [(b, ends[b], ends[b + 1] - ends[b]) for b in range(len(ends) - 1)]


def pack_rows(x: Array, offsets: NDArray[np.int64], rows: int) -> Array:
    """`[rows, ...]` of `x [batch or 1, seq or 1, ...]`. Raises IndexError if `rows` are fewer."""
    if rows != int(offsets[-1]):
        raise IndexError(f"{rows} rows for offsets that end at {int(offsets[-1])}")
    result = np.empty((rows, *x.shape[2:]), x.dtype)
    for b, first, count in _lengths(offsets):
        sample = x[b if x.shape[0] > 1 else 0]
        result[first : first + count] = sample[:count] if len(sample) > 1 else sample
    return result


def unpack_rows(x: Array, offsets: NDArray[np.int64], positions: int, fill: Any) -> Array:
    """`[batch, positions, ...]` of `x [rows, ...]`, `fill` where a sample has no row."""
    result = np.full((len(offsets) - 1, positions, *x.shape[1:]), fill, x.dtype)
    for b, first, count in _lengths(offsets):
        count = min(count, positions)
        result[b, :count] = x[first : first + count]
    return result


def lowest(dtype: np.dtype[Any]) -> Any:
    """The lowest finite value of a dtype."""
    if dtype == np.bool_:
        return False
    if dtype.kind in "iu":
        return np.iinfo(dtype).min
    if dtype == bfloat16:  # numpy does not know it
        return np.array(0xFF7F, np.uint16).view(bfloat16)[()]
    return np.finfo(dtype).min
