"""The VPU's C instructions against their numpy golden models: the same bits at every level."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.vpu_library import (
    LEVELS,
    SANITISED,
    SPECIAL,
    Device,
    assert_same_bits,
    device,
    floats,
)

from spu_ir.interpreters import numerics_attention as attention
from spu_ir.interpreters import numerics_pool as pool
from spu_ir.interpreters import numerics_vpu as golden
from spu_ir.interpreters.numerics import from_bf16, to_bf16
from spu_ir.runtime.build import find_compiler

Array = NDArray[Any]

sizes = st.integers(0, 70)
seeds = st.integers(0, 2**31)


@pytest.fixture(params=LEVELS, scope="module")
def c(request: pytest.FixtureRequest) -> Device:
    """The library of each level that this host runs."""
    return device(request.param)


def all_patterns() -> Array:
    """Floats from all over the 32-bit patterns, and the special ones."""
    patterns = np.arange(0, 2**32, 40009, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return np.concatenate([SPECIAL, patterns, np.linspace(-20, 20, 4001, dtype=np.float32)])


# ---- element-wise

UNARY = {
    **golden.UNARY,
    "not": lambda x: (x == 0).astype(np.float32),
    "hard_swish": golden.quiet(golden.hard_swish),
    "leaky_relu": golden.quiet(lambda x: golden.prelu(x, 0.1)),
    "elu": golden.quiet(lambda x: golden.elu(x, 1.5)),
    "hard_sigmoid": golden.quiet(lambda x: golden.hard_sigmoid(x, 0.2, 0.5)),
    "clip": lambda x: golden.clip(x, -1.0, 6.0),
}


@pytest.mark.parametrize("name", UNARY)
def test_unary(c: Device, name: str) -> None:
    x = all_patterns()
    y = np.empty_like(x)
    c.call(f"unary_{name}", x, y, x.size)
    assert_same_bits(y, UNARY[name](x))


@pytest.mark.parametrize("name", [*golden.BINARY, *golden.COMPARE])
def test_binary(c: Device, name: str) -> None:
    a, b = floats(1, 20011), floats(2, 20011)
    # Every special value meets every other, and whole numbers meet as bases and exponents.
    pairs = np.array(np.meshgrid([*SPECIAL, 2, 3, -2, 7], [*SPECIAL, 2, 3, -2, 7]), np.float32)
    a, b = (np.concatenate([x, p.ravel()]) for x, p in zip((a, b), pairs, strict=True))
    y = np.empty_like(a)
    c.call(f"binary_{name}", a, b, y, a.size)
    both = {**golden.BINARY, **golden.COMPARE}
    assert_same_bits(y, both[name](a, b).astype(np.float32))


def test_select(c: Device) -> None:
    condition, a, b = floats(1, 333), floats(2, 333), floats(3, 333)
    y = np.empty_like(a)
    c.call("ternary_select", condition, a, b, y, a.size)
    assert_same_bits(y, np.where(condition != 0, a, b))


def test_integers(c: Device) -> None:
    edge = [0, 1, -1, 2, -7, 2**31, -(2**31), 2**63 - 1, -(2**63)]
    a, b = (x.ravel() for x in np.array(np.meshgrid(edge, edge), np.int64))
    y = np.empty_like(a)
    for name, unary in golden.INTEGER_UNARY.items():
        c.call(f"integer_{name}", a, y, a.size)
        assert_same_bits(y, unary(a))
    for name, binary in golden.INTEGER_BINARY.items():
        c.call(f"integer_{name}", a, b, y, a.size)
        assert_same_bits(y, binary(a, b))
    for name, compare in golden.COMPARE.items():
        if name not in ("and", "or"):
            c.call(f"integer_{name}", a, b, y, a.size)
            assert_same_bits(y, compare(a, b).astype(np.int64))


@given(n=sizes, seed=seeds)
def test_conversions(c: Device, n: int, seed: int) -> None:
    x = floats(seed, n, scale=200.0)
    rng = np.random.default_rng(seed)
    for name, dtype in (("u8", "u1"), ("i8", "i1"), ("i32", "i4"), ("i64", "i8")):
        stored = np.empty(n, dtype)
        c.call(f"store_{name}", x, stored, n)
        assert_same_bits(stored, golden.truncate(x, np.dtype(dtype)))
        q = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, n, dtype, endpoint=True)
        loaded = np.empty(n, np.float32)
        c.call(f"load_{name}", q, loaded, n)
        assert_same_bits(loaded, q.astype(np.float32))
    half = np.empty(n, np.uint16)
    c.call("store_bf16", x, half, n)
    assert_same_bits(half, to_bf16(x))
    assert_same_bits(half, x.astype(ml_dtypes.bfloat16).view(np.uint16))
    c.call("load_bf16", half, x, n)
    assert_same_bits(x, from_bf16(half))
    truth = np.empty(n, np.uint8)
    c.call("store_i1", x, truth, n)
    assert_same_bits(truth, (x != 0).astype(np.uint8))
    c.call("load_i1", truth, x, n)
    assert_same_bits(x, truth.astype(np.float32))


@given(n=sizes, seed=seeds, dtype=st.sampled_from(["uint8", "int8"]))
def test_quantise_by_lane(c: Device, n: int, seed: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    x, scale = floats(seed, n, scale=100.0), np.abs(floats(seed + 1, n, special=False))
    info = np.iinfo(dtype)
    zero = rng.integers(info.min, info.max, n, dtype, endpoint=True)
    y = np.empty(n, dtype)
    short = "u8" if dtype == "uint8" else "i8"
    c.call(f"quantise_by_{short}", x, scale, zero.astype(np.int32), y, n)
    assert_same_bits(y, golden.quantise_by(x, scale, zero, dtype))
    q = rng.integers(-(2**31), 2**31, n, np.int32)
    back = np.empty(n, np.float32)
    c.call("dequantise_by", q, scale, zero.astype(np.int32), back, n)
    assert_same_bits(back, golden.dequantise_by(q, scale, zero))


@given(
    n=st.integers(0, 200),
    seed=seeds,
    dtype=st.sampled_from(["uint8", "int8"]),
    size=st.sampled_from([0.0, 1e-42, 1e-38, 0.013, 1.0, 3e38, np.nan]),
    special=st.booleans(),
    multiplied=st.booleans(),
)
def test_quantise_a_run(
    c: Device, n: int, seed: int, dtype: str, size: float, special: bool, multiplied: bool
) -> None:
    """One scale for all; every third number is as near to the middle between two as it can be."""
    rng, scale = np.random.default_rng(seed), np.float32(size)
    x = floats(seed, n, special=special, scale=100.0)
    factor = floats(seed + 1, n, special=special) if multiplied else None
    with np.errstate(over="ignore"):
        middle = (rng.integers(-300, 300, len(x[::3])) + np.float32(0.5)).astype(np.float32) * scale
    if not multiplied:
        x[::3] = middle
    info, short = np.iinfo(dtype), "u8" if dtype == "uint8" else "i8"
    zero = rng.integers(info.min, info.max, (), dtype, endpoint=True)
    y = np.empty(n, dtype)
    c.call(f"quantise_run_{short}", x, factor, y, n, size, np.int32(zero))
    with np.errstate(all="ignore"):
        product = x if factor is None else x * factor
    assert_same_bits(y, golden.quantise_by(product, scale, zero, dtype))


@pytest.mark.parametrize("size", [1e-42, 1e-38, 1e-20, 0.013, 1.0, 77.0, 1e20, 3e37, 3e38])
def test_quantise_next_to_the_middle(c: Device, size: float) -> None:
    """Where a product with 1 / scale, instead of a division, would be rounded to the other side."""
    rng = np.random.default_rng(0)
    scale = (rng.uniform(0.5, 1, 8192) * size).astype(np.float32)
    with np.errstate(over="ignore"):
        x = (rng.integers(-300, 300, 8192) + np.float32(0.5)).astype(np.float32) * scale
        for _ in range(2):
            x = np.nextafter(
                x, rng.choice(np.array([-np.inf, np.inf], np.float32), 8192), dtype=np.float32
            )
    zero = np.full(8192, 128, np.int32)
    y = np.empty(8192, np.uint8)
    c.call("quantise_by_u8", x, scale, zero, y, 8192)
    want = golden.quantise_by(x, scale, zero.astype(np.uint8), "uint8")
    assert_same_bits(y, want)
    if 1e-30 < size < 1e30:
        product = np.clip(np.rint(x * (np.float32(1) / scale)), -128, 127) + 128
        assert (product != want).any(), "no number is near enough to the middle"


def test_softplus_accuracy() -> None:
    """Also far below 0, where 1 + exp(x) alone would round the result away."""
    x = np.linspace(-80, 80, 100003, dtype=np.float32)
    want = np.logaddexp(0.0, x.astype(np.float64))
    error = np.abs(golden.softplus(x) - want)
    assert (error <= 4 * np.spacing(want.astype(np.float32))).all()


def test_power_accuracy() -> None:
    rng = np.random.default_rng(0)
    x = np.exp(rng.uniform(-5, 5, 20000)).astype(np.float32)
    y = rng.uniform(-8, 8, 20000).astype(np.float32)
    want = x.astype(np.float64) ** y
    assert (np.abs(golden.power(x, y) - want) <= 0.51 * np.spacing(want.astype(np.float32))).all()


# ---- rows

REDUCTIONS = ("sum", "mean", "max", "min", "prod", "sum_square", "l1", "l2", "log_sum")
ALL_REDUCTIONS = (*REDUCTIONS, "log_sum_exp")


@given(n=sizes, seed=seeds, special=st.booleans())
def test_reductions(c: Device, n: int, seed: int, special: bool) -> None:
    x = floats(seed, n, special=special)
    for fn in ALL_REDUCTIONS:
        got = np.float32(c.call(f"reduce_{fn}", x, n, returns=np.float32))
        assert_same_bits(np.array(got), golden.reduce(x, fn, [0]))


@given(n=st.integers(0, 9), width=sizes, gap=st.integers(0, 3), seed=seeds, special=st.booleans())
def test_strided_reductions(
    c: Device, n: int, width: int, gap: int, seed: int, special: bool
) -> None:
    x = floats(seed, n, width + gap, special=special)
    for fn in ALL_REDUCTIONS:
        y = np.empty(width, np.float32)
        c.call(f"strided_{fn}", x, n, width + gap, y, width)
        assert_same_bits(y, golden.reduce(x[:, :width, None][..., 0], fn, [0]))


def test_reduce_of_leading_and_trailing_axes_is_the_two_steps() -> None:
    x = floats(3, 3, 5, 4, 33, special=False)
    rows = golden.reduce(x, "sum", [3])
    assert_same_bits(golden.reduce(x, "sum", [0, 3]), golden.reduce(rows, "sum", [0]))
    flat = golden.reduce(x.reshape(3, 5, 132), "sum", [2])
    assert_same_bits(golden.reduce(x, "sum", [0, 2, 3]), golden.reduce(flat, "sum", [0]))
    assert_same_bits(
        golden.reduce(x, "mean", [0, -1]), golden.reduce(rows, "sum", [0]) / np.float32(99)
    )
    assert_same_bits(golden.reduce(x, "max", [1, 2]), x.max(axis=(1, 2)))
    with pytest.raises(ValueError, match="not both"):
        golden.reduce(x, "log_sum_exp", [0, 3])


@given(n=st.integers(1, 70), seed=seeds, special=st.booleans())
def test_softmax(c: Device, n: int, seed: int, special: bool) -> None:
    x = floats(seed, n, special=special)
    y = np.empty_like(x)
    c.call("test_vpu_softmax_f32", x, y, n)
    assert_same_bits(y, golden.softmax(x))
    if not special:
        # The rounding of x - max itself grows with its size; this is about what comes after it.
        wide = np.exp((x - x.max()).astype(np.float64))
        np.testing.assert_allclose(y, wide / wide.sum(), rtol=1e-6)
    c.call("test_vpu_log_softmax_f32", x, y, n)
    assert_same_bits(y, golden.log_softmax(x))
    own = x.copy()
    c.call("test_vpu_softmax_f32", own, own, n)
    assert_same_bits(own, golden.softmax(x))


@given(n=st.integers(1, 9), width=sizes, gap=st.integers(0, 3), seed=seeds)
def test_strided_softmax(c: Device, n: int, width: int, gap: int, seed: int) -> None:
    x = floats(seed, n, width + gap)
    y = np.zeros_like(x)
    c.call("test_vpu_softmax_strided_f32", x, y, n, width + gap, width)
    assert_same_bits(y[:, :width], golden.softmax_strided(x[:, :width]))
    assert not y[:, width:].any()


@given(
    n=st.integers(1, 70),
    rows=st.integers(1, 9),
    seed=seeds,
    special=st.booleans(),
    scaled=st.booleans(),
    shifted=st.booleans(),
)
def test_normalisation(
    c: Device, n: int, rows: int, seed: int, special: bool, scaled: bool, shifted: bool
) -> None:
    x = floats(seed, rows, n, special=special)
    gamma = floats(seed + 1, n, special=False) if scaled else None
    beta = floats(seed + 2, n, special=False) if shifted else None
    y = np.empty_like(x)
    wide_y = np.zeros((rows, n + 3), np.float32)
    gapped = np.pad(x, ((0, 0), (0, 2)))
    c.call("test_vpu_layer_norm_f32", gapped, n + 2, gamma, beta, wide_y, n + 3, rows, n, 1e-5)
    assert not wide_y[:, n:].any()
    y[:] = wide_y[:, :n]
    assert_same_bits(y, golden.layer_norm(x, gamma, beta, 1e-5))
    if not special and not scaled and not shifted:
        wide = x.astype(np.float64)
        spread = np.sqrt(wide.var(axis=-1, keepdims=True) + 1e-5)
        want = (wide - wide.mean(axis=-1, keepdims=True)) / spread
        np.testing.assert_allclose(y, want, rtol=1e-6, atol=1e-6)
    c.call("test_vpu_rms_norm_f32", x[0], gamma, y[0], n, 1e-6)
    assert_same_bits(y[:1], golden.rms_norm(x[:1], gamma, 1e-6))


@given(
    n=st.one_of(sizes, st.sampled_from([256, 1024])),
    rows=st.integers(1, 9),
    seed=seeds,
    special=st.booleans(),
)
def test_normalised_rows_are_quantised(
    c: Device, n: int, rows: int, seed: int, special: bool
) -> None:
    x = floats(seed, rows, n, special=special)
    x[rows // 2] = 7
    gamma, beta = floats(seed + 1, n, special=False), floats(seed + 2, n, special=False)
    gapped = np.pad(x, ((0, 0), (0, 2)))
    q, scale = np.zeros((rows, n + 3), np.uint8), np.empty(rows, np.float32)
    norm = (gapped, n + 2, gamma, beta, q, n + 3, scale, rows, n, 1e-5)
    c.call("test_vpu_layer_norm_rows_f32", *norm)
    assert not q[:, n:].any()
    want, want_scale = golden.quantise_rows(golden.layer_norm(x, gamma, beta, 1e-5))
    assert_same_bits(np.ascontiguousarray(q[:, :n]), want)
    assert_same_bits(scale, want_scale)


@given(n=sizes, seed=seeds, scale=st.sampled_from([0.0, 1e-42, 1e-38, 1.0, 1e30]))
def test_quantise_row(c: Device, n: int, seed: int, scale: float) -> None:
    for special in (False, True):
        x = floats(seed, n, special=special, scale=scale)
        q, row_scale = np.empty(n, np.uint8), np.empty(1, np.float32)
        c.call("test_vpu_quantise_row_f32", x, q, row_scale, n)
        want, want_scale = golden.quantise_rows(x)
        assert_same_bits(q, want)
        assert_same_bits(row_scale, np.reshape(want_scale, 1))
        for zero in (0, 1, 40, 127):
            c.call("test_vpu_quantise_row_from_f32", x, q, row_scale, n, np.int32(zero))
            want, want_scale = golden.quantise_rows(x, zero)
            assert_same_bits(q, want)
            assert_same_bits(row_scale, np.reshape(want_scale, 1))


@given(n=sizes, rows=st.integers(1, 5), seed=seeds, zero=st.sampled_from([0, 1, 40, 127, 128]))
def test_quantise_rows(c: Device, n: int, rows: int, seed: int, zero: int) -> None:
    """Rows of numbers, with NaN and infinities, without anything positive, and of zeros."""
    x = np.concatenate([floats(seed, rows, n), -np.abs(floats(seed + 1, 2, n, special=False))])
    x = np.concatenate([x, np.zeros((1, n)), -x]).astype(np.float32)
    gapped, count = np.pad(x, ((0, 0), (0, 2)), constant_values=np.inf), len(x)
    q, scale = np.zeros((count, n + 3), np.uint8), np.empty(count, np.float32)
    arguments = (gapped, n + 2, q, n + 3, scale, count, n)
    if zero == 128:
        c.call("test_vpu_quantise_rows_f32", *arguments)
    else:
        c.call("test_vpu_quantise_rows_from_f32", *arguments, np.int32(zero))
    assert not q[:, n:].any()
    want, want_scale = golden.quantise_rows(x, zero)
    assert_same_bits(np.ascontiguousarray(q[:, :n]), want)
    assert_same_bits(scale, want_scale)


@given(n=sizes, seed=seeds, special=st.booleans(), scale=st.sampled_from([0.0, 1e-42, 1e-30, 1.0]))
def test_quantise_row_of_scaled_columns(
    c: Device, n: int, seed: int, special: bool, scale: float
) -> None:
    x = floats(seed, n, special=special)
    columns = np.abs(floats(seed + 1, n, special=False, scale=scale)).astype(np.float32)
    q, row_scale = np.empty(n, np.uint8), np.empty(1, np.float32)
    for zero in (0, 1, 40, 127, 128):
        if zero == 128:
            c.call("test_vpu_quantise_columns_f32", x, columns, q, row_scale, n)
        else:
            point = np.int32(zero)
            c.call("test_vpu_quantise_columns_from_f32", x, columns, q, row_scale, n, point)
        want, want_scale = golden.quantise_rows(x, zero, columns)
        assert_same_bits(q, want)
        assert_same_bits(row_scale, np.reshape(want_scale, 1))
        with np.errstate(all="ignore"):
            first, first_scale = golden.quantise_rows(x * columns, zero)
        assert_same_bits(q, first)
        assert_same_bits(row_scale, np.reshape(first_scale, 1))


@given(n=sizes, seed=seeds, special=st.booleans(), zero=st.integers(-128, 127))
def test_quantise_and_range(c: Device, n: int, seed: int, special: bool, zero: int) -> None:
    x = floats(seed, n, special=special)
    low, high = np.zeros(1, np.float32), np.zeros(1, np.float32)
    c.call("test_vpu_minmax_f32", x, n, low, high)
    assert low[0] == min(np.nanmin(x, initial=0.0), 0)
    assert high[0] == max(np.nanmax(x, initial=0.0), 0)
    scale, point = np.empty(1, np.float32), np.empty(1, np.int32)
    with np.errstate(all="ignore"):
        want_scale, want_point = golden.dynamic_scale(low[0], high[0])
    c.call("test_vpu_dynamic_scale", float(low[0]), float(high[0]), scale, point)
    assert_same_bits(scale, np.reshape(want_scale, 1))
    assert point[0] == want_point
    for dtype, point_of in (("uint8", zero + 128), ("int8", zero)):
        q = np.empty(n, dtype)
        short = "u8" if dtype == "uint8" else "i8"
        c.call(f"test_vpu_quantise_{short}", x, q, n, 8.5, np.int32(point_of))
        assert_same_bits(q, golden.quantise(x, np.float32(8.5), point_of, dtype))


# ---- pooling

windows = st.fixed_dictionaries(
    {
        "extent": st.tuples(st.integers(1, 7), st.integers(1, 7)),
        "out": st.tuples(st.integers(1, 5), st.integers(1, 5)),
        "channels": st.sampled_from([1, 3, 16, 20, 64, 70]),
        "kernel": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "strides": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "pads": st.tuples(st.integers(0, 2), st.integers(0, 2)),
        "dilations": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "include_pad": st.booleans(),
        "halo": st.integers(0, 2),
        "seed": seeds,
    }
)


def pooled(c: Device, name: str, w: dict[str, Any], x: Array, dtype: str, *more: Any) -> Array:
    """Run a pool on an image `x` that lies inside a halo; the output's pixels have a gap of 1."""
    halo, channels = w["halo"], w["channels"]
    padded = np.full((x.shape[0] + 2 * halo, x.shape[1] + 2 * halo, channels), 77, x.dtype)
    padded[halo : halo + x.shape[0], halo : halo + x.shape[1]] = x
    rows, columns = w["out"]
    row, pixel = padded.shape[1] * channels, channels
    window = [w[key] for key in ("kernel", "strides", "dilations", "pads")]
    shape = [row, pixel, channels + 1, *x.shape, *np.ravel(window), w["include_pad"], rows, columns]
    numbers = np.array([*shape, columns * (channels + 1)], np.int64)
    y = np.zeros((rows, columns, channels + 1), dtype)
    inside = padded.reshape(-1)[halo * row + halo * pixel :]
    c.call(name, numbers, inside, y, *more)
    assert not y[..., channels].any()
    return np.ascontiguousarray(y[..., :channels])


@given(w=windows, special=st.booleans())
def test_float_pools(c: Device, w: dict[str, Any], special: bool) -> None:
    x = floats(w["seed"], *w["extent"], w["channels"], special=special)
    shape = [w[key] for key in ("out", "kernel", "strides", "pads", "dilations")]
    got = pooled(c, "test_vpu_max_pool_f32", w, x, "f4")
    assert_same_bits(got, pool.max_pool(x[None], *shape)[0])
    got = pooled(c, "test_vpu_avg_pool_f32", w, x, "f4")
    include = w["include_pad"]
    assert_same_bits(got, pool.average_pool(x[None], *shape, include_pad=include)[0])
    half = to_bf16(np.where(np.isnan(x), np.float32(0), x))
    wide = from_bf16(half)[None]
    got = pooled(c, "test_vpu_max_pool_bf16", w, half, "u2")
    assert_same_bits(got, to_bf16(pool.max_pool(wide, *shape)[0]))
    got = pooled(c, "test_vpu_avg_pool_bf16", w, half, "u2")
    want = pool.average_pool(wide, *shape, include_pad=include)[0]
    finite = ~np.isnan(want)
    assert_same_bits(got[finite], to_bf16(want)[finite])


@given(w=windows, dtype=st.sampled_from(["uint8", "int8"]), zero=st.integers(0, 100))
def test_byte_pools(c: Device, w: dict[str, Any], dtype: str, zero: int) -> None:
    info, short = np.iinfo(dtype), "u8" if dtype == "uint8" else "i8"
    rng = np.random.default_rng(w["seed"])
    x = rng.integers(info.min, info.max, (*w["extent"], w["channels"]), dtype, endpoint=True)
    shape = [w[key] for key in ("out", "kernel", "strides", "pads", "dilations")]
    got = pooled(c, f"test_vpu_max_pool_{short}", w, x, dtype)
    assert_same_bits(got, pool.max_pool(x[None], *shape)[0])
    got = pooled(c, f"test_vpu_avg_pool_{short}", w, x, "f4", 0.037, np.int32(zero))
    want = pool.average_pool(x[None], *shape, include_pad=w["include_pad"], scale=0.037, zero=zero)
    assert_same_bits(got, want[0])


@given(extent=st.tuples(st.integers(1, 8), st.integers(1, 8)), channels=sizes, seed=seeds)
def test_global_average(c: Device, extent: tuple[int, int], channels: int, seed: int) -> None:
    h, w = extent
    x = floats(seed, h, w, channels)
    tail = [w * channels, channels, *(np.int32(v) for v in (h, w, channels))]
    y = np.empty(channels, np.float32)
    c.call("test_vpu_global_average_f32", x, *tail, y)
    assert_same_bits(y, pool.global_average(x[None])[0, 0, 0])
    q = np.random.default_rng(seed).integers(0, 256, x.shape, np.uint8)
    c.call("test_vpu_global_average_u8", q, *tail, y, 0.5, np.int32(3))
    assert_same_bits(y, pool.global_average(q[None], scale=0.5, zero=3)[0, 0, 0])
    signed = q.view(np.int8)
    c.call("test_vpu_global_average_i8", signed, *tail, y, 0.5, np.int32(3))
    assert_same_bits(y, pool.global_average(signed[None], scale=0.5, zero=3)[0, 0, 0])
    half, out = to_bf16(floats(seed, h, w, channels, special=False)), np.empty(channels, "u2")
    c.call("test_vpu_global_average_bf16", half, *tail, out)
    assert_same_bits(out, to_bf16(pool.global_average(from_bf16(half)[None])[0, 0, 0]))


# ---- data movement


@given(data=st.data(), dtype=st.sampled_from(["u1", "u2", "u4", "u8"]), seed=seeds)
def test_strided_copy(c: Device, data: st.DataObject, dtype: str, seed: int) -> None:
    """Transposed, reversed, sliced and repeated views of x into a view of y."""
    rank = data.draw(st.integers(0, 5))
    shape = data.draw(st.tuples(*[st.sampled_from([0, 1, 2, 3, 5, 18])] * rank))
    shape = tuple(min(n, 5) if rank > 3 else n for n in shape)
    x = np.random.default_rng(seed).integers(0, 2**8, shape).astype(dtype)
    view = x.transpose(data.draw(st.permutations(range(rank))))
    for axis in range(rank):
        step = data.draw(st.sampled_from([1, 1, 1, 2, -1]))
        view = view[(slice(None),) * axis + (slice(None, None, step),)]
    if data.draw(st.booleans()):
        view = np.broadcast_to(view, (3, *view.shape))
    y = np.zeros((*view.shape[:-1], view.shape[-1] + 1) if view.ndim else (), dtype)
    target = y[..., : view.shape[-1]] if view.ndim else y
    extents = np.array(view.shape, np.int64)
    strides = [np.array(a.strides, np.int64) // x.itemsize for a in (view, target)]
    size = np.int32(x.itemsize)
    c.call("test_vpu_copy_strided", view, target, np.int32(view.ndim), extents, *strides, size)
    assert_same_bits(np.ascontiguousarray(target), np.ascontiguousarray(view))
    assert not view.ndim or not y[..., view.shape[-1] :].any()


@given(height=st.integers(1, 9), width=st.integers(1, 40), dtype=st.sampled_from(["u1", "f4"]))
def test_planes_become_pixels(c: Device, height: int, width: int, dtype: str) -> None:
    """An image's copy to channels last, whole and with lines longer than the image."""
    x = np.arange(3 * height * width).astype(dtype).reshape(3, height, width)
    for line in (width, width + 2):
        y = np.zeros((height, line, 3), dtype)
        view = x.transpose(1, 2, 0)
        sides = [np.array(a.strides, np.int64) // a.itemsize for a in (view, y)]
        extents = np.array(view.shape, np.int64)
        c.call("test_vpu_copy_strided", view, y, np.int32(3), extents, *sides, np.int32(y.itemsize))
        assert_same_bits(np.ascontiguousarray(y[:, :width]), np.ascontiguousarray(view))
        assert not y[:, width:].any()


@given(n=sizes, dtype=st.sampled_from(["u1", "i2", "f4", "i8"]))
def test_fill(c: Device, n: int, dtype: str) -> None:
    y = np.zeros(n + 1, dtype)
    c.call("test_vpu_fill", y, np.array([7], dtype), n, np.int32(y.itemsize))
    assert_same_bits(y, np.array([7] * n + [0], dtype))


@given(rows=st.integers(1, 9), width=st.integers(0, 40), n=st.integers(0, 12), wide=st.booleans())
def test_gather(c: Device, rows: int, width: int, n: int, wide: bool) -> None:
    rng = np.random.default_rng(rows)
    table = rng.integers(0, 256, (rows, width), np.uint8)
    index = rng.integers(-rows, rows, n).astype(np.int64 if wide else np.int32)
    name = "test_vpu_gather_rows" + ("" if wide else "_i32")
    y = np.empty((n, width), np.uint8)
    assert c.call(name, table, rows, width, index, n, y, returns=np.int32) == 0
    assert_same_bits(y, table[index])
    if n:
        for outside in (rows, -rows - 1, np.iinfo(index.dtype).max, np.iinfo(index.dtype).min):
            index[n // 2] = outside
            assert c.call(name, table, rows, width, index, n, y, returns=np.int32) == 1
            assert not y[n // 2].any()


@given(n=st.integers(0, 300), seed=seeds)
def test_table(c: Device, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    entries, x = rng.integers(0, 256, 256, np.uint8), rng.integers(0, 256, n, np.uint8)
    y = np.empty(n, np.uint8)
    c.call("test_vpu_table_u8", entries, x, y, n)
    assert_same_bits(y, golden.table(entries, x))


@given(n=st.integers(1, 40), stride=st.integers(1, 3), seed=seeds)
def test_indices_and_sums(c: Device, n: int, stride: int, seed: int) -> None:
    x = np.random.default_rng(seed).integers(-4, 5, n * stride).astype(np.float32)
    own = x[::stride]
    for name, first in (("argmax", np.argmax), ("argmin", np.argmin)):
        function = f"test_vpu_{name}_f32"
        assert c.call(function, x, n, stride, np.int32(0), returns=np.int64) == first(own)
        last = n - 1 - first(own[::-1])
        assert c.call(function, x, n, stride, np.int32(1), returns=np.int64) == last


@given(
    n=st.integers(1, 40),
    stride=st.integers(1, 3),
    exclusive=st.booleans(),
    reverse=st.booleans(),
    seed=seeds,
)
def test_running_sums(
    c: Device, n: int, stride: int, exclusive: bool, reverse: bool, seed: int
) -> None:
    flags = np.int32(exclusive), np.int32(reverse)
    wild = floats(seed, n * stride, special=True)
    random = np.random.default_rng(seed)
    top = np.iinfo(np.int64).max
    cases = (
        ("f32", wild),
        ("i32", random.integers(-(2**31), 2**31, n * stride, np.int32)),
        ("i64", random.integers(-top, top, n * stride, np.int64)),
    )
    for name, x in cases:
        y = np.zeros_like(x)
        c.call(f"test_vpu_cumsum_{name}", x, y, n, stride, *flags)
        want = golden.cumsum(x[::stride], exclusive=exclusive, reverse=reverse)
        assert_same_bits(np.ascontiguousarray(y[::stride]), np.ascontiguousarray(want))


# ---- products of activations


@given(
    rows=st.integers(0, 11),
    cols=st.integers(0, 70),
    depth=st.sampled_from([0, 1, 5, 64, 130, 300]),
    turned=st.tuples(st.booleans(), st.booleans()),
    gap=st.integers(0, 2),
    alpha=st.sampled_from([1.0, 0.125, -3.3]),
    seed=seeds,
)
def test_batch_matmul(
    c: Device,
    rows: int,
    cols: int,
    depth: int,
    turned: tuple[bool, bool],
    gap: int,
    alpha: float,
    seed: int,
) -> None:
    def operand(height: int, width: int, turn: bool, key: int) -> tuple[Array, list[int]]:
        shape = (width, height + gap) if turn else (height, width + gap)
        whole = floats(key, *shape, special=False)
        view = whole.T[:height] if turn else whole[:, :width]
        return view, [1, height + gap] if turn else [width + gap, 1]

    a, a_strides = operand(rows, depth, turned[0], seed)
    b, b_strides = operand(depth, cols, turned[1], seed + 1)
    out = np.zeros((rows, cols + gap), np.float32)
    shape = [cols + gap, rows, cols, depth, alpha]
    c.call("test_spu_batch_matmul_f32", a, *a_strides, b, *b_strides, out, *shape)
    assert_same_bits(out[:, :cols], attention.batch_matmul(a, b, alpha))
    assert not out[:, cols:].any()


# ---- memory and undefined behaviour


@pytest.mark.slow
@pytest.mark.skipif(SANITISED in os.environ, reason="this is the sanitised run")
def test_nothing_is_reported_by_the_sanitisers() -> None:
    """These same tests and those of attention, every access and operation checked."""
    runtimes = [
        subprocess.run(
            [*find_compiler().command, f"-print-file-name={name}.so"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for name in ("libasan", "libubsan")
    ]
    if not all(os.path.isabs(path) for path in runtimes):
        pytest.skip("the compiler has no shared sanitiser runtimes")
    environment = {
        **os.environ,
        SANITISED: "1",
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    names = (
        "test_vpu_kernel.py",
        "test_media_kernel.py",
        "test_attention_f32.py",
        "test_attention_int8.py",
    )
    files = [os.path.join(os.path.dirname(__file__), name) for name in names]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
