"""Magnitude pruning to the banked format: the largest elements of every row and bank stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..dialects.types import Array
from .windows import LANES, Segments, blocks_of, check_weight

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
    those with the lower index. With `share`, rows l, l + 16, ... of a block of `share` lane
    groups are pruned alike, by the sum of their magnitudes.
    """
    lengths = [length for _, length in segments]
    check_weight(weight, [(0, length) for length in lengths], groups)
    blocks = blocks_of(weight, share, groups)
    score = np.abs(blocks.astype(np.float64)).sum(axis=1)
    keep = largest_per_bank(score, lengths, bank, slots)
    pruned = np.where(keep[:, None], blocks, np.zeros((), dtype=blocks.dtype))
    per_group = weight.shape[0] // groups
    padded = -(-per_group // (LANES * share)) * LANES * share
    rows = pruned.reshape(groups, padded, weight.shape[1])[:, :per_group]
    return np.ascontiguousarray(rows.reshape(weight.shape))
