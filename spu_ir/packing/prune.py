"""Magnitude pruning to the banked format: the largest elements of every row and bank stay."""

from __future__ import annotations

import numpy as np

from ..dialects.types import Array
from .windows import LANES, Segments, blocks_of, check_weight


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
    check_weight(weight, [(0, length) for _, length in segments], groups)
    blocks = blocks_of(weight, share, groups)
    score = np.abs(blocks.astype(np.float64)).sum(axis=1)
    keep = np.zeros(score.shape, dtype=np.bool_)
    start = 0
    for _, length in segments:
        for first in range(start, start + length, bank):
            last = min(first + bank, start + length)
            order = np.argsort(-score[..., first:last], axis=-1, kind="stable")
            np.put_along_axis(keep[..., first:last], order[..., :slots], True, axis=-1)
        start += length
    pruned = np.where(keep[:, None], blocks, np.zeros((), dtype=blocks.dtype))
    per_group = weight.shape[0] // groups
    padded = -(-per_group // (LANES * share)) * LANES * share
    rows = pruned.reshape(groups, padded, weight.shape[1])[:, :per_group]
    return np.ascontiguousarray(rows.reshape(weight.shape))
