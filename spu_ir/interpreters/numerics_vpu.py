"""
The VPU's element-wise and row instructions in numpy: the same bits as runtime/device/vpu_*.h.

Arrays are float32 of any shape unless a function says otherwise. Warnings about overflow and
invalid values are the callers' business: wrap calls in `np.errstate(all="ignore")`, which the
interpreters do, or use the functions of `UNARY`, `BINARY` and below, which do it themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from math import prod
from typing import Any, ParamSpec, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from .numerics import (
    ACTIVATIONS,
    F32,
    Bytes,
    dequantise,
    erf,
    exp,
    lanes,
    log,
    max_lanes,
    maximum,
    minimum,
    quantise,
    quantise_rows,
    sum_lanes,
)

F64: TypeAlias = NDArray[np.float64]
I64: TypeAlias = NDArray[np.int64]
Bool: TypeAlias = NDArray[np.bool_]

P = ParamSpec("P")
R = TypeVar("R")


def quiet(function: Callable[P, R]) -> Callable[P, R]:
    """`function` without numpy's floating-point warnings."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with np.errstate(all="ignore"):
            return function(*args, **kwargs)

    return run


def _f(x: float) -> np.float32:
    return np.float32(x)


@quiet
def reciprocal(x: F32) -> F32:
    """1 / x."""
    return np.divide(_f(1.0), x)


# ---- element-wise


def negative(x: F32) -> F32:
    """x with its sign bit turned, NaN too."""
    return -x


def sign(x: F32) -> F32:
    """-1, 0 or 1; NaN gives 0."""
    return np.where(x > 0, _f(1.0), np.where(x < 0, _f(-1.0), _f(0.0)))


def clip(x: F32, low: float | F32, high: float | F32) -> F32:
    """low where x is below it or NaN, else high where x is above it."""
    return minimum(maximum(x, np.asarray(low, np.float32)), np.asarray(high, np.float32))


def prelu(x: F32, slope: float | F32) -> F32:
    """x < 0 ? x * slope : x."""
    return np.where(x < 0, x * np.asarray(slope, np.float32), x)


def elu(x: F32, alpha: float) -> F32:
    """x > 0 ? x : (exp(x) - 1) * alpha."""
    return np.where(x > 0, x, (exp(x) - _f(1.0)) * _f(alpha))


@quiet
def softplus(x: F32) -> F32:
    """max(x, 0) + log(1 + exp(-|x|)), the logarithm corrected for the rounding of 1 + t."""
    t = exp(-np.abs(x))
    u = _f(1.0) + t
    log1p = np.where(u == 1, t, log(u) * (t / (u - _f(1.0))))
    return np.where(x > 0, x, _f(0.0)) + log1p


def hard_sigmoid(x: F32, alpha: float, beta: float) -> F32:
    """clip(x * alpha + beta, 0, 1)."""
    return clip(x * _f(alpha) + _f(beta), 0.0, 1.0)


def hard_swish(x: F32) -> F32:
    """x * hard_sigmoid(x, 1/6, 1/2)."""
    return x * hard_sigmoid(x, float(_f(1.0) / _f(6.0)), 0.5)


def _log_f64(x: F64) -> F64:
    bits = np.ascontiguousarray(x).view(np.int64)
    e = ((bits >> 52) & 0x7FF) - 1023
    m = ((bits & 0x000FFFFFFFFFFFFF) | 0x3FF0000000000000).view(np.float64)
    high = m > 1.4142135623730951
    e = e + high
    m = np.where(high, m * 0.5, m)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = np.full_like(z, 1.0 / 19.0)
    for i in range(17, 0, -2):
        p = p * z + 1.0 / i
    return e.astype(np.float64) * 0.6931471805599453 + (s + s) * p


def _exp_f64(x: F64) -> F64:
    magic = 6755399441055744.0
    shifted = x * 1.4426950408889634 + magic
    n = shifted.view(np.int64) - np.float64(magic).view(np.int64)
    r = x - (shifted - magic) * 0.6931471805599453
    p = np.full_like(r, _INVERSE_FACTORIALS[0])
    for c in _INVERSE_FACTORIALS[1:]:
        p = p * r + c
    return p * ((n + 1023) << 52).view(np.float64)


@quiet
def power(x: F32, y: F32) -> F32:
    """x to the y, computed in float64, with the special cases of C's pow."""
    x, y = np.broadcast_arrays(np.asarray(x, np.float32), np.asarray(y, np.float32))
    magnitude = np.abs(x)
    usual = (magnitude > 0) & (magnitude < np.inf)
    base = np.where(usual, magnitude, _f(1.0)).astype(np.float64)
    t = y.astype(np.float64) * _log_f64(base)
    t = np.where(t < 200.0, t, 200.0)
    t = np.where(t > -200.0, t, -200.0)
    grows = (magnitude > 1) == (y > 0)
    result = np.where(usual, _exp_f64(t).astype(np.float32), np.where(grows, _f(np.inf), _f(0.0)))
    half = y * _f(0.5)
    whole = np.rint(y) == y
    odd = whole & (np.rint(half) != half)
    result = np.where(odd & np.signbit(x), -result, result)
    undefined = ((x < 0) & usual & ~whole) | np.isnan(x) | np.isnan(y)
    result = np.where(undefined, _f(np.nan), result)
    unit = (x == 1) | (y == 0) | ((x == -1) & np.isinf(y))
    return np.where(unit, _f(1.0), result)


UNARY: dict[str, Callable[[F32], F32]] = {
    "abs": np.abs,
    "neg": negative,
    "exp": exp,
    "log": log,
    "sqrt": quiet(np.sqrt),
    "reciprocal": reciprocal,
    "erf": erf,
    **ACTIVATIONS,
    "softplus": softplus,
    "floor": quiet(np.floor),
    "ceil": quiet(np.ceil),
    "round": quiet(np.rint),
    "sign": quiet(sign),
}
"""Functions of one f32 operand by their names in the IR."""

BINARY: dict[str, Callable[[F32, F32], F32]] = {
    "add": quiet(lambda a, b: a + b),
    "sub": quiet(lambda a, b: a - b),
    "mul": quiet(lambda a, b: a * b),
    "div": quiet(np.divide),
    "pow": power,
    "min": quiet(minimum),
    "max": quiet(maximum),
}
"""Functions of two f32 operands of broadcastable shapes."""

COMPARE: dict[str, Callable[[Any, Any], Bool]] = {
    "equal": np.equal,
    "less": np.less,
    "less_or_equal": np.less_equal,
    "greater": np.greater,
    "greater_or_equal": np.greater_equal,
    "and": np.logical_and,
    "or": np.logical_or,
}
"""Functions that yield bool, of two operands of any one type."""


def _integer_div(a: I64, b: I64) -> I64:
    # int64 through unsigned magnitudes, so that the lowest value has one too.
    safe = np.where((b == 0) | (b == -1), 1, b)
    quotient = np.abs(a).view(np.uint64) // np.abs(safe).view(np.uint64)
    signed = quotient.view(np.int64)
    towards_zero = np.where((a < 0) != (safe < 0), -signed, signed)
    return np.where(b == 0, 0, np.where(b == -1, -a, towards_zero))


INTEGER_UNARY: dict[str, Callable[[I64], I64]] = {
    "abs": np.abs,
    "neg": np.negative,
    "sign": np.sign,
    "relu": lambda x: np.maximum(x, 0),
}
"""Functions of one int64 operand, wrapping; narrower integers are widened and cut off again."""

INTEGER_BINARY: dict[str, Callable[[I64, I64], I64]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": quiet(lambda a, b: _integer_div(*np.broadcast_arrays(a, b))),
    "min": np.minimum,
    "max": np.maximum,
}
"""Functions of two int64 operands, wrapping; div is towards zero, by 0 it gives 0."""


def truncate(x: F32, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Float to integer: towards zero, saturating (i64 at i32's range), NaN to 0."""
    number = np.where(np.isnan(x), _f(0.0), np.asarray(x, np.float32))
    t = minimum(maximum(number, _f(-2147483648.0)), _f(2147483520.0)).astype(np.int64)
    info = np.iinfo(dtype)
    return np.clip(t, max(info.min, -(2**31)), min(info.max, 2**31 - 1)).astype(dtype)


@quiet
def quantise_by(x: F32, scale: F32, zero: NDArray[Any], dtype: str) -> Bytes:
    """
    QuantizeLinear to `uint8` or `int8`: x / scale, NaN to 0, clamped, halves to even, + zero.

    `scale` f32 and `zero` integers broadcast to x.
    """
    low, high = (_f(0.0), _f(255.0)) if dtype == "uint8" else (_f(-128.0), _f(127.0))
    point = zero.astype(np.float32)
    t = np.divide(np.asarray(x, np.float32), scale)
    t = np.where(np.isnan(t), _f(0.0), t)
    q = np.rint(clip(t, low - point, high - point)) + point
    return q.astype(np.uint8) if dtype == "uint8" else q.astype(np.int8)


@quiet
def dequantise_by(q: NDArray[Any], scale: F32, zero: NDArray[Any]) -> F32:
    """DequantizeLinear: (float)(q - zero) * scale, the difference in wrapping int32."""
    difference = q.astype(np.int32) - zero.astype(np.int32)
    return difference.astype(np.float32) * scale


def dynamic_scale(low: np.float32, high: np.float32) -> tuple[np.float32, int]:
    """DynamicQuantizeLinear's u8 scale and zero point of a range that holds 0."""
    scale = _f(1.0) if high == low else np.float32((high - low) / _f(255.0))
    zero = quantise(np.asarray(-low / scale, np.float32), _f(1.0), 0, "uint8")
    return scale, int(zero)


def table(entries: NDArray[Any], x: NDArray[np.uint8]) -> NDArray[Any]:
    """`entries[x]` of 256 entries, or `entries[c, x[..., c]]` of a row for each channel."""
    return entries[x] if entries.ndim == 1 else entries[np.arange(len(entries)), x]


# ---- reductions


def _product_lanes(x: F32) -> F32:
    return lanes(x, 1.0, lambda a, b: a * b)


def _min_lanes(x: F32) -> F32:
    return lanes(x, np.inf, minimum)


_LANES: dict[str, Callable[[F32], F32]] = {
    "max": max_lanes,
    "min": _min_lanes,
    "prod": _product_lanes,
}
_STEPS: dict[str, tuple[float, Callable[[F32, F32], F32]]] = {
    "max": (-np.inf, maximum),
    "min": (np.inf, minimum),
    "prod": (1.0, lambda a, b: a * b),
}
_MAPS: dict[str, Callable[[F32], F32]] = {
    "sum_square": lambda x: x * x,
    "l2": lambda x: x * x,
    "l1": np.abs,
}


def reduce_strided(x: F32, fn: str) -> F32:
    """Reduce the first axis in order, from the identity, without the final step of `fn`."""
    identity, combine = _STEPS.get(fn, (0.0, lambda a, b: a + b))
    acc = np.full(x.shape[1:], identity, np.float32)
    for row in x:
        acc = combine(acc, row)
    return acc


def _reduce_log_sum_exp(x: F32, trailing: bool) -> F32:
    axis = -1 if trailing else 0
    top = max_lanes(x) if trailing else reduce_strided(x, "max")
    shift = np.where(top - top == 0, top, _f(0.0))
    e = exp(x - np.expand_dims(shift, axis))
    return shift + log(sum_lanes(e) if trailing else reduce_strided(e, "sum"))


@quiet
def reduce(x: F32, fn: str, axes: Sequence[int]) -> F32:
    """
    Reduce `axes` (dropped) with sum, mean, max, min, prod, sum_square, l1, l2, log_sum or
    log_sum_exp.

    Reduced axes at the end are one row, taken in 16 lanes and the tree; the others are then gone
    through in order, the last one fastest; the final step (division, root, logarithm) comes last.
    log_sum_exp takes axes of one of the two kinds only, and raises ValueError otherwise.
    """
    x = np.asarray(x, np.float32)
    reduced = {axis % x.ndim for axis in axes}
    cut = x.ndim
    while cut > 0 and cut - 1 in reduced:
        cut -= 1
    leading = [axis for axis in range(cut) if axis in reduced]
    kept = [axis for axis in range(cut) if axis not in reduced]
    count = prod(x.shape[axis] for axis in reduced)
    # [reduced leading axes, kept axes, reduced trailing axes]
    part = x.transpose(*leading, *kept, *range(cut, x.ndim))
    part = part.reshape(
        prod(x.shape[axis] for axis in leading),
        *(x.shape[axis] for axis in kept),
        *([prod(x.shape[cut:])] if cut < x.ndim else []),
    )
    shape = [x.shape[axis] for axis in kept]
    if fn == "log_sum_exp":
        if leading and cut < x.ndim:
            raise ValueError("log_sum_exp reduces either the last axes or others, not both")
        return _reduce_log_sum_exp(part, not leading).reshape(shape)
    part = _MAPS[fn](part) if fn in _MAPS else part
    if cut < x.ndim:
        part = _LANES.get(fn, sum_lanes)(part)
    # Never without an axis, so that numpy gives arrays and not scalars.
    result = reduce_strided(part, fn)[None] if leading else part
    if fn == "mean":
        result = np.divide(result, _f(count))
    elif fn == "l2":
        result = np.sqrt(result)
    elif fn == "log_sum":
        result = log(result)
    return result.reshape(shape)


# ---- softmax and normalisation, over the last axis


@quiet
def softmax(x: F32) -> F32:
    """exp(x - max) * (1 / sum)."""
    e = exp(x - max_lanes(x)[..., None])
    return e * reciprocal(sum_lanes(e))[..., None]


@quiet
def cumsum(x: F32, *, exclusive: bool, reverse: bool) -> F32:
    """Running sums of float32 or integers along the last axis, one by one from 0."""
    ordered = x[..., ::-1] if reverse else x
    start = np.zeros((*x.shape[:-1], 1), x.dtype)
    sums = np.cumsum(np.concatenate([start, ordered], -1), -1, dtype=x.dtype)
    sums = sums[..., :-1] if exclusive else sums[..., 1:]
    return sums[..., ::-1] if reverse else sums


@quiet
def softmax_strided(x: F32) -> F32:
    """Softmax over the first axis, its sum taken in order."""
    e = exp(x - reduce_strided(x, "max"))
    return e * reciprocal(reduce_strided(e, "sum"))


@quiet
def log_softmax(x: F32) -> F32:
    """(x - max) - log(sum of exp(x - max))."""
    shifted = x - max_lanes(x)[..., None]
    return shifted - log(sum_lanes(exp(shifted))[..., None])


def _mean(x: F32) -> F32:
    return np.divide(sum_lanes(x), _f(x.shape[-1]))


@quiet
def layer_norm(x: F32, gamma: F32 | None, beta: F32 | None, epsilon: float) -> F32:
    """((x - mean) * (1 / sqrt(variance + epsilon))) * gamma + beta."""
    centred = np.subtract(x, _mean(x)[..., None])
    variance = _mean(centred * centred)
    y = centred * reciprocal(np.sqrt(variance + _f(epsilon)))[..., None]
    y = y if gamma is None else y * gamma
    return y if beta is None else y + beta


@quiet
def rms_norm(x: F32, gamma: F32 | None, epsilon: float) -> F32:
    """(x * (1 / sqrt(mean of x^2 + epsilon))) * gamma."""
    y = x * reciprocal(np.sqrt(_mean(x * x) + _f(epsilon)))[..., None]
    return y if gamma is None else y * gamma


_INVERSE_FACTORIALS = (
    1.0 / 479001600,
    1.0 / 39916800,
    1.0 / 3628800,
    1.0 / 362880,
    1.0 / 40320,
    1.0 / 5040,
    1.0 / 720,
    1.0 / 120,
    1.0 / 24,
    1.0 / 6,
    0.5,
    1.0,
    1.0,
)

__all__ = [
    "BINARY",
    "COMPARE",
    "INTEGER_BINARY",
    "INTEGER_UNARY",
    "UNARY",
    "clip",
    "dequantise",
    "dequantise_by",
    "dynamic_scale",
    "elu",
    "hard_sigmoid",
    "hard_swish",
    "layer_norm",
    "log_softmax",
    "negative",
    "power",
    "prelu",
    "quantise",
    "quantise_by",
    "quantise_rows",
    "quiet",
    "reduce",
    "reduce_strided",
    "rms_norm",
    "sign",
    "softmax",
    "softmax_strided",
    "softplus",
    "table",
    "truncate",
]
