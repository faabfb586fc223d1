"""
f32 matrix products of two activations, and attention, in numpy: the same bits as
runtime/device/matmul_f32.h and attention.h.
"""

from __future__ import annotations

import numpy as np

from .numerics import F32, exp, max_lanes, maximum, sum_lanes
from .numerics_vpu import quiet, reciprocal

KEYS = 64
"""Keys of one block."""


def _accumulate(acc: F32, a: F32, b: F32) -> F32:
    """acc + a . b for `a [..., M, K]`, `b [..., K, N]`: over k in order, multiply, then add."""
    for k in range(a.shape[-1]):
        acc = np.add(acc, np.multiply(a[..., :, k, None], b[..., None, k, :]))
    return acc


def _product_shape(a: F32, b: F32) -> tuple[int, ...]:
    return (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])


@quiet
def batch_matmul(a: F32, b: F32, alpha: float = 1.0) -> F32:
    """(sum over k of `a[..., m, k] * b[..., k, n]`) * alpha, leading axes broadcast."""
    return _accumulate(np.zeros(_product_shape(a, b), np.float32), a, b) * np.float32(alpha)


@quiet
def attention(
    q: F32,
    k: F32,
    v: F32,
    mask: F32 | None = None,
    *,
    scale: float,
    causal_first: int | None = None,
) -> F32:
    """
    softmax(q . k^T * scale + mask) . v by blocks of 64 keys, with a running maximum and sum.

    q `[..., S, D]`, k `[..., T, D]`, v `[..., T, DV]`, mask broadcastable to `[..., S, T]`;
    leading axes broadcast. With `causal_first`, the position of the first query row, row r sees
    keys 0 to causal_first + r. No key at all gives 0.
    """
    queries, keys = q.shape[-2], k.shape[-2]
    out = np.zeros(_product_shape(q, np.swapaxes(k, -1, -2))[:-1] + v.shape[-1:], np.float32)
    top = np.full(out.shape[:-1], -np.inf, np.float32)
    total = np.zeros(out.shape[:-1], np.float32)
    if mask is not None:
        mask = np.broadcast_to(mask, (*out.shape[:-1], keys))
    for first in range(0, keys, KEYS):
        last = min(first + KEYS, keys)
        # Rows that see none of this block's keys are left as they are.
        start = 0 if causal_first is None else max(0, first - causal_first)
        if start >= queries:
            break
        kt = np.swapaxes(k[..., first:last, :], -1, -2)
        part = q[..., start:, :]
        score = _accumulate(np.zeros(_product_shape(part, kt), np.float32), part, kt)
        score = score * np.float32(scale)
        if mask is not None:
            score = score + mask[..., start:, first:last]
        if causal_first is not None:
            positions = [[causal_first + row] for row in range(start, queries)]
            seen = np.array(range(first, last)) <= np.array(positions)
            score = np.where(seen, score, np.float32(-np.inf))
        before = top[..., start:].copy()
        now = maximum(before, max_lanes(score))
        # A row with nothing but -infinity so far: exp(-infinity - 0) is 0.
        shift = np.where(now == -np.inf, np.float32(0.0), now)
        p = exp(score - shift[..., None])
        factor = exp(before - shift)
        total[..., start:] = total[..., start:] * factor + sum_lanes(p)
        top[..., start:] = now
        out[..., start:, :] = _accumulate(
            out[..., start:, :] * factor[..., None], p, v[..., first:last, :]
        )
    # A row whose every key is masked by -infinity is 0, as ONNX's Attention has it.
    empty = total == 0
    inverse = np.where(empty, np.float32(0), reciprocal(np.where(empty, np.float32(1), total)))
    return out * inverse[..., None] if keys else out
