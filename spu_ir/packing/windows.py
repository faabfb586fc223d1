"""
Segments, windows and blocks: how a logical weight lies over the activation's bytes.

The reduction axis of a weight `[N, K]` is a list of *segments*, contiguous runs of activation
elements (a matmul has one; a convolution one per kernel row or tap). Each is cut into *windows*
of at most 64 bytes, the banks. Rows are taken in *blocks* of `share` lane groups of 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..dialects.types import Array
from ..dialects.weights import BANK_BYTES

Segments: TypeAlias = Sequence[tuple[int, int]]
"""(byte offset from the activation's row or pixel, length in elements) of every segment."""

LANES = 16
"""Rows of a lane group."""

I64: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """The windows of a list of segments; every array is int64."""

    offset: I64
    """[windows] byte offset of each window from the activation's row."""
    of: I64
    """[K] the window that holds logical element k."""
    place: I64
    """[K] the byte of element k in its window."""

    @property
    def count(self) -> int:
        return int(self.offset.size)


def windows_of(segments: Segments, itemsize: int) -> Windows:
    """Cut `segments` of elements of `itemsize` bytes into windows of at most 64 bytes."""
    offset: list[int] = []
    of: list[I64] = []
    place: list[I64] = []
    for start, length in segments:
        byte = np.arange(length, dtype=np.int64) * itemsize
        of.append(byte // BANK_BYTES + len(offset))
        place.append(byte % BANK_BYTES)
        offset.extend(range(start, start + length * itemsize, BANK_BYTES))
    none = np.zeros(0, dtype=np.int64)
    return Windows(
        np.array(offset, dtype=np.int64),
        np.concatenate([none, *of]),
        np.concatenate([none, *place]),
    )


def check_weight(weight: Array, segments: Segments, groups: int) -> None:
    """
    Raise ValueError unless `weight` is `[N, K]`, the segments have K elements together at offsets
    that fit int32, and `groups` divides N.
    """
    if weight.ndim != 2:
        raise ValueError(f"a weight to pack must be [N, K], got shape {list(weight.shape)}")
    total = sum(length for _, length in segments)
    if total != weight.shape[1]:
        raise ValueError(f"segments hold {total} elements, but the weight has {weight.shape[1]}")
    for offset, length in segments:
        if length < 1 or offset < 0 or offset + length * weight.itemsize >= 2**31:
            raise ValueError(f"segment of {length} elements at byte {offset} is out of range")
    if groups < 1 or weight.shape[0] % groups:
        raise ValueError(f"{weight.shape[0]} rows cannot be split into {groups} groups")


def blocks_of(weight: Array, share: int, groups: int) -> NDArray[Any]:
    """
    `[N, K]` as `[blocks, share, 16, K]`: every convolution group padded with rows of zeros.

    Block b of a group has its rows `16 * share * b` onwards, lane group by lane group.
    """
    rows, depth = weight.shape
    per_group = rows // groups
    padded = -(-per_group // (LANES * share)) * LANES * share
    if padded != per_group:
        full = np.zeros((groups, padded, depth), dtype=weight.dtype)
        full[:, :per_group] = weight.reshape(groups, per_group, depth)
        weight = full
    return weight.reshape(groups * padded // (LANES * share), share, LANES, depth)


def counts_of(weight: Array, segments: Segments, share: int = 1, groups: int = 1) -> I64:
    """
    The non-zero elements of every lane in every window, `[blocks, 16, windows]`.

    With `share`, an element counts where any of the lane's rows has a non-zero.
    """
    check_weight(weight, segments, groups)
    windows = windows_of(segments, weight.itemsize)
    used = (blocks_of(weight, share, groups) != 0).any(axis=1)
    starts = np.searchsorted(windows.of, np.arange(windows.count))
    return np.add.reduceat(used, starts, axis=-1, dtype=np.int64)
