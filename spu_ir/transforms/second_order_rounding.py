"""Rounding the weights of a product one after the other, each making up for those before it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spu_ir.dialects.types import Array
from spu_ir.transforms.weight_scales import LEVELS, row_scales

Doubles = NDArray[np.float64]

DAMPING = 0.1
"""
Added to the diagonal of a Hessian, as a part of its mean.

More than GPTQ's 0.01: with two rows for each input, that fits weights to these rows. In MiniLM's
feed-forward layers, outputs of rows that were not seen err 5 % less so, and 15 % more with 1.
"""

BLOCK = 128
"""Columns that are rounded before what they miss is spread over all that follow."""


def rounded(weight: Array, hessian: Doubles) -> Array:
    """
    f32 `[N, K]` on the grid of each row, answering nearly as f32 `weight` for inputs of `hessian`.

    This is GPTQ (Frantar et al. 2023, "GPTQ: accurate post-training quantization for generative
    pre-trained transformers"): columns in the order of their inputs' sizes, what each one misses
    is spread over those that follow by the inverse of `hessian [K, K]`, the sum of `x x^T`. Scales
    are those of `row_scales`. The element that decided a row's scale stays where it is, so that
    `quantise` finds the same grid again; zeros stay zeros. A row that plain rounding answers
    better with is rounded so.
    """
    scale = row_scales(weight)
    steps = weight / scale[:, None]
    nearest = np.clip(np.rint(steps), -LEVELS, LEVELS)
    depth = weight.shape[1]
    damped = hessian.copy()
    mean = float(np.diag(hessian).mean())
    damped[np.diag_indices(depth)] += DAMPING * mean if mean > 0 else 1.0
    order = np.argsort(-np.diag(damped), kind="stable")
    inverse = np.linalg.inv(damped[np.ix_(order, order)])
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T.astype(np.float32)
    left = steps[:, order].astype(np.float32)
    plain = nearest[:, order].astype(np.float32)
    # Nothing changes for zeros, and for the largest, which decides the grid.
    fixed = np.full_like(plain, np.inf)
    fixed[(weight == 0)[:, order]] = 0
    peak = np.abs(weight).argmax(axis=1)
    column = np.empty(depth, np.intp)
    column[order] = np.arange(depth)
    rows = np.arange(len(weight))
    fixed[rows, column[peak]] = nearest[rows, peak]
    levels = np.empty_like(left)
    for first in range(0, depth, BLOCK):
        last = min(first + BLOCK, depth)
        part, missed = left[:, first:last], np.empty((len(left), last - first), np.float32)
        factor = upper[first:last, first:last]
        for k in range(last - first):
            near = np.clip(np.rint(part[:, k]), -LEVELS, LEVELS)
            held = fixed[:, first + k]
            chosen = np.where(np.isfinite(held), held, near)
            levels[:, first + k] = chosen
            missed[:, k] = (part[:, k] - chosen) / factor[k, k]
            part[:, k:] -= missed[:, k, None] * factor[k, k:]
        left[:, last:] -= missed @ upper[first:last, last:]
    found = np.empty_like(levels)
    found[:, order] = levels
    worse = _missed(weight, found * scale[:, None], hessian) >= _missed(
        weight, nearest * scale[:, None], hessian
    )
    result = np.where(worse[:, None], nearest, found) * scale[:, None]
    return result.astype(np.float32)


def _missed(weight: Array, other: Array, hessian: Doubles) -> Doubles:
    """The squared error of each row's outputs."""
    difference = weight.astype(np.float64) - other
    return ((difference @ hessian) * difference).sum(axis=1)
