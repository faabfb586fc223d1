"""INT8 attention in numpy: the same bits as runtime/device/attention_int8.h (docs/numerics.md)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .numerics import F32, exp, log, max_lanes, maximum, symmetric_rows
from .numerics_vpu import quiet, reciprocal

KEY_BLOCK = 64
"""Keys of one block of bytes."""

KEY_BLOCKS = 8
"""Blocks that are scored before any is summed."""

STEP = np.float32(2.0**-23)
"""Scores count in this part of an octave, as a float's bits do."""

STEPS_E = np.float32(1.44269504088896341) / STEP
LN_STEP = np.float32(0.693147180559945309) * STEP

_MIDDLES = (np.arange(32) + 0.5) / 32
_EXP2 = (255 * 2.0**-_MIDDLES + 128 * _MIDDLES).astype(np.float32)
_EXP2[0] = 255

Bytes = NDArray[np.uint8] | NDArray[np.int8]


def blocks_of(keys: int) -> int:
    """How many blocks hold so many keys."""
    return -(-keys // KEY_BLOCK)


def _padded(x: NDArray[Any], axis: int, length: int, fill: float) -> NDArray[Any]:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, length - x.shape[axis])
    return np.pad(x, widths, constant_values=fill)


def pack_keys(k: F32) -> tuple[NDArray[np.uint8], F32]:
    """
    Keys f32 `[..., T, D]` as u8 `[..., blocks, quads of D, 64, 4]`, and their scales `[..., 64
    blocks]`.

    Every key has its own scale; its zero point is 128. Behind the last key the scale is 0.
    """
    values, scale, _ = symmetric_rows(k)
    keys, depth = k.shape[-2:]
    blocks, quads = blocks_of(keys), -(-depth // 4)
    whole = _padded(_padded(values, -1, 4 * quads, 0), -2, blocks * KEY_BLOCK, 0)
    cut = (whole + 128).astype(np.uint8).reshape(*k.shape[:-2], blocks, KEY_BLOCK, quads, 4)
    return np.swapaxes(cut, -3, -2).copy(), _padded(scale, -1, blocks * KEY_BLOCK, 0)


@quiet
def pack_values(v: F32) -> tuple[NDArray[np.int8], F32]:
    """
    Values f32 `[..., T, D]` as i8 `[..., blocks, 16, channels, 4]`, and `[..., 2, 64 blocks]`.

    The channels are padded to a multiple of 16. Every row has its own scale, of which there are
    the inverse and the binary logarithm in steps; behind the last row they are 0 and -infinity.
    """
    values, scale, inverse = symmetric_rows(v)
    keys, depth = v.shape[-2:]
    blocks, wide = blocks_of(keys), -(-depth // 16) * 16
    whole = _padded(_padded(values, -1, wide, 0), -2, blocks * KEY_BLOCK, 0).astype(np.int8)
    cut = whole.reshape(*v.shape[:-2], blocks, KEY_BLOCK // 4, 4, wide)
    inverse = np.where(inverse == 0, np.float32(1), inverse)
    level = log(scale) * STEPS_E
    both = [_padded(inverse, -1, blocks * KEY_BLOCK, 0), _padded(level, -1, blocks * 64, -np.inf)]
    return np.swapaxes(cut, -2, -1).copy(), np.stack(both, axis=-2)


@quiet
def exp2_bytes(below: F32) -> F32:
    """
    255 * 2^-below, of `below` in steps: a number for each 32nd of an octave, less the steps in the
    bits of a float.

    120 octaves where it is more, negative or NaN.
    """
    far = 120 << 23
    near = (below >= np.float32(-0.5)) & (below <= np.float32(far))
    steps = np.rint(np.where(near, below, np.float32(far))).astype(np.uint32)
    return (_EXP2[(steps >> 18) & 31].view(np.uint32) - steps).view(np.float32)


def _addend(
    mask: F32 | None, level: F32, rows: int, keys: int, causal_first: int | None
) -> NDArray[np.float32]:
    """What is added to the scores, `[..., rows or 1, whole blocks of keys]`."""
    add = level[..., None, :]
    width = level.shape[-1]
    if mask is not None:
        scaled = maximum(mask * STEPS_E, np.float32(-3.0e38))
        scaled = np.where(mask == -np.inf, np.float32(-np.inf), scaled)
        add = _padded(scaled, -1, width, 0) + add
        add[..., keys:] = -np.inf
    if causal_first is not None:
        positions = causal_first + np.arange(rows, dtype=np.int64)[:, None]
        hidden = np.arange(width, dtype=np.int64) > positions
        add = np.where(hidden, np.float32(-np.inf), add)
    return add


@quiet
def attention_int8(
    q: F32,
    k: NDArray[np.uint8],
    k_scale: F32,
    v: NDArray[np.int8],
    v_scales: F32,
    mask: F32 | None = None,
    *,
    keys: int,
    depth: int,
    scale: float,
    causal_first: int | None = None,
) -> F32:
    """
    softmax(q . k^T * scale + mask) . v of packed keys and values, `[..., S, depth]`.

    q f32 `[..., S, D]`; k, k_scale, v and v_scales as `pack_keys` and `pack_values` give them,
    with the same leading axes, of `keys` keys and `depth` channels of values. mask is f32,
    broadcastable to `[..., S, keys]`, or None. With `causal_first`, the position of the first
    query row, row r sees keys 0 to causal_first + r. No key at all gives 0.
    """
    lead, rows = q.shape[:-2], q.shape[-2]
    query, query_scale, _ = symmetric_rows(q)
    query_scale = (query_scale * np.float32(scale)) * STEPS_E
    blocks, quads = k.shape[-4:-2]
    whole_keys = np.swapaxes(k, -3, -2).reshape(*lead, blocks * KEY_BLOCK, 4 * quads)
    query = _padded(query, -1, 4 * quads, 0)
    exact = query.astype(np.float64) @ np.swapaxes(whole_keys.astype(np.float64) - 128, -1, -2)
    score = (exact.astype(np.float32) * query_scale[..., None]) * k_scale[..., None, :]
    inverse, level = v_scales[..., 0, :], v_scales[..., 1, :]
    if mask is not None:
        mask = np.broadcast_to(mask, np.broadcast_shapes(mask.shape, (*lead, 1, keys)))
    score = score + _addend(mask, level, rows, keys, causal_first)
    score = score.reshape(*lead, rows, blocks, KEY_BLOCK)
    values = np.swapaxes(v, -2, -1).reshape(*lead, blocks, KEY_BLOCK, v.shape[-2])
    values = values.astype(np.float64)
    out = np.zeros((*lead, rows, v.shape[-2]), np.float32)
    total = np.zeros((*lead, rows, 16), np.float32)
    top = np.full((*lead, rows), -np.inf, np.float32)
    for first in range(0, blocks, KEY_BLOCKS):
        part = score[..., first : first + KEY_BLOCKS, :]
        most = max_lanes(part)
        before = top
        for block in range(most.shape[-1]):
            top = np.where(most[..., block] > top, most[..., block], top)
        base = np.where(top == -np.inf, np.float32(0), top)
        factor = exp((before - base) * LN_STEP)
        weight = exp((most - base[..., None]) * LN_STEP)
        shift = np.where(most == -np.inf, np.float32(0), most)
        y = exp2_bytes(shift[..., None] - part)
        share = np.rint(y)
        total = total * factor[..., None]
        out = out * factor[..., None] if first else out
        for block in range(most.shape[-1]):
            at = first + block
            by = inverse[..., None, at * KEY_BLOCK : (at + 1) * KEY_BLOCK]
            scaled = (y[..., block, :] * by).reshape(*lead, rows, 4, 16)
            some = np.zeros((*lead, rows, 16), np.float32)
            for group in range(4):
                some = some + scaled[..., group, :]
            total = total + some * weight[..., block, None]
            mixed = share[..., block, :].astype(np.float64) @ values[..., at, :, :].astype(
                np.float64
            )
            out = out + mixed.astype(np.float32) * weight[..., block, None]
    half = 8
    while half:
        total = total[..., :half] + total[..., half : 2 * half]
        half //= 2
    divisor = total[..., 0]
    empty = divisor == 0
    by = np.where(empty, np.float32(0), reciprocal(np.where(empty, np.float32(1), divisor)))
    return (out * by[..., None])[..., :depth]
