"""Magnitude pruning to the banked format: the largest elements of every row and bank stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..dialects.types import Array
from .windows import Segments, blocks_of, check_weight

RATIOS = (1, 2, 4, 8, 16, 32)
"""One of so many weights stays; 1 is dense."""

MIN_DEPTH = 64
"""A reduction shorter than one bank of INT8 is left dense."""

MIN_CHANNELS = 16
"""A convolution with fewer input channels is a first layer: small, and the most sensitive."""


def why_dense(depth: int, channels: int | None = None, groups: int = 1) -> str | None:
    """
    Why pruning rows of `depth` numbers would hurt more than it helps, or None.

    `channels` are those that one output of a convolution of `groups` reads; None for a product.
    """
    if channels == 1 and groups > 1:
        return "a depthwise convolution is not pruned"
    if channels is not None and channels < MIN_CHANNELS:
        return f"a convolution of {channels} input channels is not pruned"
    if depth < MIN_DEPTH:
        return f"a reduction of {depth}, less than a bank of {MIN_DEPTH}, is not pruned"
    return None


def banks_of(lengths: Sequence[int], bank: int) -> Iterator[tuple[int, int]]:
    """(first, end) of every bank of at most `bank` elements, cut inside runs of these lengths."""
    start = 0
    for length in lengths:
        for first in range(start, start + length, bank):
            yield first, min(first + bank, start + length)
        start += length


def largest_per_bank(
    score: NDArray[np.floating], lengths: Sequence[int], bank: int, slots: int
) -> NDArray[np.bool_]:
    """
    The `slots` largest of every bank of `score` `[..., K]`, of equal ones those that come first.

    K is a list of runs of `lengths` elements, in which banks of `bank` are cut. The result has
    the shape of `score`.
    """
    keep = np.zeros(score.shape, dtype=np.bool_)
    for first, last in banks_of(lengths, bank):
        order = np.argsort(-score[..., first:last], axis=-1, kind="stable")
        np.put_along_axis(keep[..., first:last], order[..., :slots], True, axis=-1)
    return keep


def keep_in_banks(
    score: NDArray[np.floating],
    lengths: Sequence[int],
    bank: int,
    slots: int,
    share: int = 1,
    groups: int = 1,
) -> NDArray[np.bool_]:
    """
    Which elements of rows `[N, K]` stay: `slots` of every row and bank, of the largest `score`.

    With `share`, rows l, l + 16, ... of a block of `share` lane groups keep the same ones, by the
    sum of their scores: those of one of the `groups` of a convolution, the last block of which may
    lack rows. `lengths` are those of the runs in K in which banks of `bank` are cut.
    """
    rows, depth = score.shape
    blocks = blocks_of(score, share, groups)
    keep = largest_per_bank(blocks.sum(axis=1), lengths, bank, slots)
    every = np.broadcast_to(keep[:, None], blocks.shape).reshape(groups, -1, depth)
    return np.ascontiguousarray(every[:, : rows // groups]).reshape(rows, depth)


def prune_banked(
    weight: Array,
    segments: Segments,
    bank: int,
    slots: int,
    share: int = 1,
    groups: int = 1,
) -> Array:
    """
    A copy of `weight` `[N, K]` (any real dtype) that keeps `slots` elements of each row and bank.

    Banks of `bank` elements are cut inside each segment (only the lengths matter here, so that
    float32 weights can be pruned for INT8). Those with the largest magnitude stay; of equal ones
    those with the lower index. `share` and `groups` are those of `keep_in_banks`.
    """
    lengths = [length for _, length in segments]
    check_weight(weight, [(0, length) for length in lengths], groups)
    score = np.abs(weight.astype(np.float64))
    keep = keep_in_banks(score, lengths, bank, slots, share, groups)
    return np.where(keep, weight, np.zeros((), dtype=weight.dtype))
