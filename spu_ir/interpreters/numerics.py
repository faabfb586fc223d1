"""
The arithmetic contract in numpy: the same bits as runtime/device/numerics.h and polynomials.h.

Every function takes and returns float32 arrays of any shape unless it says otherwise; each line
is one single-precision operation of the header. docs/numerics.md is the contract.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

F32: TypeAlias = NDArray[Any]
"""An array of float32. numpy's stubs widen float32 arithmetic to float64, hence Any."""

I32: TypeAlias = NDArray[np.int32]
U16: TypeAlias = NDArray[np.uint16]
Bytes: TypeAlias = NDArray[np.uint8] | NDArray[np.int8]

LANES = 16
"""Lanes of the device's vectors: rows of a lane group, and partial sums of a reduction."""


def _f(x: float) -> np.float32:
    return np.float32(x)


def _bits(x: F32) -> NDArray[np.uint32]:
    return np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)


def maximum(a: F32, b: F32 | np.float32) -> F32:
    """`a > b ? a : b`: b when either is NaN or both are zeros."""
    return np.where(a > b, a, b)


def minimum(a: F32, b: F32 | np.float32) -> F32:
    """`a < b ? a : b`: b when either is NaN or both are zeros."""
    return np.where(a < b, a, b)


# ---- bfloat16


def to_bf16(x: F32) -> U16:
    """The bits of x as bfloat16, rounded to nearest even; NaN becomes a quiet NaN."""
    b = _bits(x)
    rounded = (b + np.uint32(0x7FFF) + ((b >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    quiet = (b >> np.uint32(16)) | np.uint32(0x40)
    return np.where(np.isnan(x), quiet, rounded).astype(np.uint16)


def from_bf16(h: U16) -> F32:
    """The float32 of bfloat16 bits; exact."""
    return (np.ascontiguousarray(h).astype(np.uint32) << np.uint32(16)).view(np.float32)


# ---- polynomials


def _horner(x: F32, coefficients: Sequence[float]) -> F32:
    y = np.full_like(x, _f(coefficients[0]))
    for c in coefficients[1:]:
        y = y * x + _f(c)
    return y


def _pow2(n: I32) -> F32:
    return ((n.astype(np.int64) + 127) << 23).astype(np.uint32).view(np.float32)


def exp(x: F32) -> F32:
    """e to the x: overflows to infinity, underflows through the denormals to 0, keeps NaN."""
    with np.errstate(all="ignore"):
        x = np.asarray(x, dtype=np.float32)
        x = minimum(np.full_like(x, 89.0), maximum(np.full_like(x, -104.0), x))
        n = np.rint(x * _f(1.44269504088896341))
        r = x - n * _f(0.693359375)
        r = r - n * _f(-2.12194440e-4)
        y = (_horner(r, _EXP) * (r * r) + r) + _f(1.0)
        whole = np.where(np.isnan(n), _f(0.0), n).astype(np.int32)
        half = whole >> 1
        return (y * _pow2(half)) * _pow2(whole - half)


def log(x: F32) -> F32:
    """The natural logarithm: -infinity at 0, NaN below."""
    with np.errstate(all="ignore"):
        x = np.asarray(x, dtype=np.float32)
        tiny = x < _f(1.17549435e-38)
        bits = _bits(np.where(tiny, x * _f(8388608.0), x))
        e = ((bits >> np.uint32(23)) & np.uint32(0xFF)).astype(np.int32) - 126
        e = e - np.where(tiny, 23, 0)
        m = ((bits & np.uint32(0x007FFFFF)) | np.uint32(0x3F000000)).view(np.float32)
        low = m < _f(0.707106781186547524)
        ef = (e - low).astype(np.float32)
        m = np.where(low, m + m, m) - _f(1.0)
        z = m * m
        y = (_horner(m, _LOG) * m) * z
        y = y + ef * _f(-2.12194440e-4)
        y = y - z * _f(0.5)
        y = (m + y) + ef * _f(0.693359375)
        y = np.where(x == np.inf, _f(np.inf), y)
        y = np.where(x == 0, _f(-np.inf), y)
        return np.where(x >= 0, y, _f(np.nan))


def erf(x: F32) -> F32:
    """The error function."""
    with np.errstate(all="ignore"):
        x = np.asarray(x, dtype=np.float32)
        x = minimum(np.full_like(x, 4.0), maximum(np.full_like(x, -4.0), x))
        z = x * x
        return (x * _horner(z, _ERF_OVER)) / _horner(z, _ERF_UNDER)


def tanh(x: F32) -> F32:
    """The hyperbolic tangent."""
    with np.errstate(all="ignore"):
        x = np.asarray(x, dtype=np.float32)
        edge = np.full_like(x, 7.90531110763549805)
        t = minimum(edge, maximum(-edge, x))
        z = t * t
        y = (t * _horner(z, _TANH_OVER)) / _horner(z, _TANH_UNDER)
        return np.where(np.abs(x) < _f(0.0004), x, y)


def sigmoid(x: F32) -> F32:
    """1 / (1 + exp(-x))."""
    with np.errstate(all="ignore"):
        return np.reciprocal(exp(-x) + _f(1.0))


def silu(x: F32) -> F32:
    """x * sigmoid(x)."""
    with np.errstate(all="ignore"):
        return x * sigmoid(x)


def relu(x: F32) -> F32:
    """x where x > 0, else 0; NaN becomes 0."""
    return maximum(x, _f(0.0))


def gelu(x: F32) -> F32:
    """(x / 2) * (1 + erf(x / sqrt(2)))."""
    with np.errstate(all="ignore"):
        return (x * _f(0.5)) * (erf(x * _f(0.707106781186547524)) + _f(1.0))


def gelu_tanh(x: F32) -> F32:
    """(x / 2) * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))."""
    with np.errstate(all="ignore"):
        cubic = x + ((x * x) * x) * _f(0.044715)
        return (x * _f(0.5)) * (tanh(cubic * _f(0.797884560802865356)) + _f(1.0))


ACTIVATIONS: dict[str, Callable[[F32], F32]] = {
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "silu": silu,
}
"""The activations that an epilogue can apply, by their names in the IR."""

# ---- reductions


def lanes(x: F32, identity: float, combine: Callable[[F32, F32], F32]) -> F32:
    """
    Reduce the last axis with 16 virtual lanes and the fixed tree; `[..., n]` to `[...]`.

    Lane j starts from `identity` and combines x[j], x[j + 16], ... in order; then lanes l and
    l + 8 are combined, l and l + 4, l and l + 2, l and l + 1.
    """
    x = np.asarray(x, dtype=np.float32)
    acc = np.full((*x.shape[:-1], LANES), identity, dtype=np.float32)
    for start in range(0, x.shape[-1], LANES):
        part = x[..., start : start + LANES]
        count = part.shape[-1]
        acc[..., :count] = combine(acc[..., :count], part)
    half = LANES // 2
    while half:
        acc = combine(acc[..., :half], acc[..., half : 2 * half])
        half //= 2
    return acc[..., 0]


def sum_lanes(x: F32) -> F32:
    """The sum over the last axis in the device's order."""
    with np.errstate(all="ignore"):
        return lanes(x, 0.0, lambda a, b: a + b)


def max_lanes(x: F32) -> F32:
    """The maximum over the last axis in the device's order (it matters only with NaN)."""
    return lanes(x, -np.inf, maximum)


# ---- quantisation

RANGES: dict[str, tuple[int, int]] = {"uint8": (0, 255), "int8": (-128, 127)}


def quantise(x: F32, inv_scale: np.float32, zero: int, dtype: str) -> Bytes:
    """x * inv_scale, NaN to 0, clamped in float, halves to even, + zero, as `uint8` or `int8`."""
    low, high = RANGES[dtype]
    with np.errstate(all="ignore"):
        t = np.asarray(x, dtype=np.float32) * np.float32(inv_scale)
        t = np.where(np.isnan(t), _f(0.0), t)
        t = minimum(maximum(t, _f(low - zero)), _f(high - zero))
        q = np.rint(t).astype(np.int32) + np.int32(zero)
    return q.astype(np.uint8) if dtype == "uint8" else q.astype(np.int8)


def dequantise(q: NDArray[Any], scale: np.float32, zero: int) -> F32:
    """(float)(q - zero) * scale for integer q."""
    return (q.astype(np.int32) - np.int32(zero)).astype(np.float32) * np.float32(scale)


def quantise_rows(
    x: F32, zero: int = 128, columns: F32 | None = None
) -> tuple[NDArray[np.uint8], F32]:
    """
    Quantise every row of `x[..., n]` to u8 with one zero point; also gives scales `[...]`.

    With `columns [n]` it is `x * columns` that is quantised.

    128: scale = max|x| / 127, or 1 where the row is all zeros; q = round(x * (127 / max|x|))
    clamped to -127..127, + 128. Another: scale = max(max(x) / (255 - zero), max(-x) / zero) of
    what is positive, or 1; q = round(x * (1 / scale)) clamped to bytes. NaN gives the zero point.
    """
    if columns is not None:
        with np.errstate(all="ignore"):
            x = np.asarray(x, dtype=np.float32) * columns
    if zero != 128:
        return _quantise_rows_from(np.asarray(x, dtype=np.float32), zero)
    values, scale, _ = symmetric_rows(x)
    return (values + 128).astype(np.uint8), scale


def symmetric_rows(x: F32) -> tuple[I32, F32, F32]:
    """Rows of `x[..., n]` as -127..127, scales max|x| / 127 (or 1), and 127 / max|x| (or 0)."""
    with np.errstate(all="ignore"):
        x = np.asarray(x, dtype=np.float32)
        peak = lanes(np.abs(x), 0.0, lambda a, b: maximum(b, a))
        empty = peak == 0
        scale = np.where(empty, _f(1.0), peak / _f(127.0)).astype(np.float32)
        inverse = np.where(empty, _f(0.0), _f(127.0) / peak).astype(np.float32)
        t = x * inverse[..., None]
        t = np.where(np.isnan(t), _f(0.0), t)
        t = minimum(maximum(t, _f(-127.0)), _f(127.0))
        return np.rint(t).astype(np.int32), scale, inverse


def _quantise_rows_from(x: F32, zero: int) -> tuple[NDArray[np.uint8], F32]:
    """`quantise_rows` with more than half of the bytes above the zero point."""
    with np.errstate(all="ignore"):
        scale = lanes(x, 0.0, lambda a, b: maximum(b, a)) / _f(255 - zero)
        if zero:
            below = lanes(-x, 0.0, lambda a, b: maximum(b, a)) / _f(zero)
            scale = maximum(below, scale)
        empty = scale == 0
        scale = np.where(empty, _f(1.0), scale).astype(np.float32)
        inverse = np.where(empty, _f(0.0), _f(1.0) / scale).astype(np.float32)
        t = x * inverse[..., None]
        t = np.where(np.isnan(t), _f(0.0), t)
        t = minimum(maximum(t, _f(-zero)), _f(255 - zero))
        return (np.rint(t).astype(np.int32) + zero).astype(np.uint8), scale


_EXP = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
_LOG = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
_ERF_OVER = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_UNDER = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)
_TANH_OVER = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
_TANH_UNDER = (
    1.19825839466702e-06,
    1.18534705686654e-04,
    2.26843463243900e-03,
    4.89352518554385e-03,
)
