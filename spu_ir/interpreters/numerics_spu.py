"""
The SPU's products and epilogue in numpy, with the device's bits (runtime/device/spu.h).

They take logical weights `[N, K]`, so they are written apart from the packing that they test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .numerics import ACTIVATIONS, F32, I32, LANES, Bytes, quantise, to_bf16
from .sfu import TABLES

Index: TypeAlias = NDArray[np.int64]

_LEAST = 2.0**-126 - 2.0**-151
"""Smaller sums are denormal even after rounding to 24 bits."""


def matmul_i8(x: Bytes, weight: NDArray[np.int8], x_zero: int) -> I32:
    """Exact int32 sums of (x - x_zero) * weight: `[M, K]` by `[N, K]` to `[M, N]`."""
    # Doubles hold every partial sum exactly, and BLAS is faster than integer loops.
    centred = x.astype(np.float64) - x_zero
    return (centred @ weight.astype(np.float64).T).astype(np.int32)


def matmul_f32(x: F32, weight: F32) -> F32:
    """Products added one after the other over k, from 0: `[M, K]` by `[N, K]` to `[M, N]`."""
    acc = np.zeros((x.shape[0], weight.shape[0]), dtype=np.float32)
    with np.errstate(all="ignore"):
        for k in range(x.shape[1]):
            acc = acc + x[:, k, None] * weight[None, :, k]
    return acc


def _flush(x: F32) -> F32:
    return np.where(np.abs(x) < np.float32(2.0**-126), np.copysign(np.float32(0), x), x)


def bf16_step(acc: F32, x: F32, w: F32) -> F32:
    """acc + x * w of bfloat16 values, rounded once, with denormals flushed to a signed zero."""
    with np.errstate(all="ignore"):
        # The product is exact in a double; docs/numerics.md says why rounding twice is harmless.
        total = _flush(acc).astype(np.float64) + _flush(x).astype(np.float64) * _flush(w)
        rounded = total.astype(np.float32)
        return np.where(np.abs(total) < _LEAST, np.copysign(np.float32(0), rounded), rounded)


def matmul_bf16(
    x: F32,
    weight: F32,
    lengths: Sequence[int],
    encoding: tuple[int, int, int] | None = None,
) -> F32:
    """
    Sums of bfloat16 products in the device's order: `[M, K]` by `[N, K]` to `[M, N]`.

    `x` and `weight` hold bfloat16 values as float32, `lengths` are the elements of each segment
    of K, and `encoding` is (bank, slots, share) or None for dense. Each step adds the product of
    its odd slot, then that of its even one.
    """
    count = weight.shape[0]
    if encoding is None and 1 in lengths:
        encoding = (32, 0, 1)
    acc = np.zeros((x.shape[0], count), dtype=np.float32)
    if encoding is None:
        for even, odd, paired in _dense_pairs(lengths):
            acc = bf16_step(acc, x[:, odd, None], weight[None, :, odd])
            first = weight[None, :, even] if paired else np.zeros_like(weight[None, :, even])
            acc = bf16_step(acc, x[:, even, None], first)
        return acc
    share = encoding[2]
    for start in range(0, count, LANES * share):
        block = weight[start : start + LANES * share]
        full = np.zeros((share * LANES, weight.shape[1]), dtype=np.float32)
        full[: block.shape[0]] = block
        full = full.reshape(share, LANES, -1)
        sums = np.zeros((share, x.shape[0], LANES), dtype=np.float32)
        for source, live in _banked_pairs((full != 0).any(axis=0), lengths, encoding):
            for slot in (1, 0):
                k = source[:, slot]
                w = np.where(live[:, slot], full[:, np.arange(LANES), k], np.float32(0))
                sums = bf16_step(sums, x[:, k], w[:, None, :])
        rows = sums.transpose(1, 0, 2).reshape(x.shape[0], -1)
        acc[:, start : start + block.shape[0]] = rows[:, : block.shape[0]]
    return acc


def _dense_pairs(lengths: Sequence[int]) -> list[tuple[int, int, bool]]:
    """(even, odd, whether the even slot has a weight) of every step of a dense weight."""
    pairs: list[tuple[int, int, bool]] = []
    start = 0
    for length in lengths:
        pairs.extend((k, k + 1, True) for k in range(start, start + length - 1, 2))
        start += length
        if length % 2:
            pairs.append((start - 2, start - 1, False))
    return pairs


def _banked_pairs(
    used: NDArray[np.bool_], lengths: Sequence[int], encoding: tuple[int, int, int]
) -> list[tuple[Index, NDArray[np.bool_]]]:
    """
    (k read, whether the slot is in use), each `[16, 2]`, of every quad of a block.

    `used[16, K]` says which elements a lane of the block has.
    """
    bank, slots, _ = encoding
    windows: list[range] = []
    start = 0
    for length in lengths:
        end = start + length
        windows.extend(range(at, min(at + bank, end)) for at in range(start, end, bank))
        start = end
    step = 2 if 0 < slots < 2 else 1
    pairs: list[tuple[Index, NDArray[np.bool_]]] = []
    for at in range(0, len(windows), step):
        reach = [k for window in windows[at : at + step] for k in window]
        kept = [[k for k in reach if used[lane, k]] for lane in range(LANES)]
        for quad in range(0, max(map(len, kept)), 2):
            source = np.full((LANES, 2), windows[at].start, dtype=np.int64)
            live = np.zeros((LANES, 2), dtype=np.bool_)
            for lane, ks in enumerate(kept):
                for slot, k in enumerate(ks[quad : quad + 2]):
                    source[lane, slot] = k
                    live[lane, slot] = True
            pairs.append((source, live))
    return pairs


def epilogue(
    acc: I32 | F32,
    *,
    scale: F32 | None = None,
    row_scale: F32 | None = None,
    bias: F32 | None = None,
    residual: F32 | None = None,
    activation: str | None = None,
) -> F32:
    """
    Accumulators `[..., M, N]` to float32 outputs, in the device's order, before the store.

    scale and bias `[N]`, row_scale `[M]`, residual `[..., M, N]` already as float32 (bfloat16
    values, or `dequantise` of bytes), activation a key of `ACTIVATIONS` or `TABLES`.
    """
    v = acc.astype(np.float32)
    with np.errstate(all="ignore"):
        if scale is not None:
            v = v * scale
        if row_scale is not None:
            v = v * row_scale[:, None]
        if bias is not None:
            v = v + bias
        if residual is not None:
            v = v + residual
        if activation is not None:
            v = {**ACTIVATIONS, **TABLES}[activation](v)
    return v


def store(v: F32, dtype: str, out_scale: float = 1.0, out_zero: int = 0) -> NDArray[Any]:
    """
    What the device stores: `float32` as is, `bfloat16` bits as uint16, `uint8`, `int8`.

    The device multiplies by 1.0f / out_scale.
    """
    if dtype == "float32":
        return v
    if dtype == "bfloat16":
        return to_bf16(v)
    inverse = np.float32(1.0) / np.float32(out_scale)
    return quantise(v, inverse, out_zero, dtype)
