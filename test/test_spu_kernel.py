"""The SPU's kernels give the interpreter's bits at every level of the host, and stay in bounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.device import levels_of_host
from support.spu_device import (
    ACTIVATIONS,
    OUTPUTS,
    Array,
    Device,
    Epilogue,
    Product,
    assert_same_bits,
    device,
)

from spu_ir.dialects.types import bfloat16
from spu_ir.packing.prune import prune_banked

KINDS = {"i8": np.dtype(np.int8), "bf16": bfloat16, "f32": np.dtype(np.float32)}
INT8_SLOTS = (32, 16, 8, 4, 2)
BF16_SLOTS = (16, 8, 4, 2, 1)


def cases() -> Iterator[Any]:
    """Levels, plain and sanitised, which for the widest vectors takes GCC two minutes each."""
    for level in levels_of_host():
        yield pytest.param((level, False), id=level)
        marks = [pytest.mark.slow] if level.startswith("avx512") else []
        yield pytest.param((level, True), id=f"{level}-sanitised", marks=marks)


@pytest.fixture(scope="module", params=cases())
def spu(request: pytest.FixtureRequest) -> Iterator[Device]:
    level, sanitise = request.param
    found = device(level, sanitise)
    yield found
    found.close()
    device.cache_clear()


def random_floats(rng: np.random.Generator, shape: tuple[int, ...], wild: bool) -> Array:
    """Values around 1, or of every exponent with zeros, denormals and now and then infinity."""
    if not wild:
        return rng.normal(size=shape).astype(np.float32)
    bits = rng.integers(0, 2**32, shape, dtype=np.uint64).astype(np.uint32)
    values = bits.view(np.float32).copy()
    values[~np.isfinite(values)] = 0.0
    values[rng.random(shape) < 0.05] = -0.0
    values[rng.random(shape) < 0.002] = np.inf
    # Exponents near the middle make products that stay in range, the others leave it.
    near = rng.random(shape) < 0.5
    values[near] = rng.normal(size=shape).astype(np.float32)[near]
    return values


def random_values(rng: np.random.Generator, shape: tuple[int, ...], kind: str, wild: bool) -> Array:
    if kind == "i8":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    values = random_floats(rng, shape, wild)
    with np.errstate(over="ignore"):
        return values.astype(KINDS[kind])


def random_weight(
    draw: st.DrawFn,
    rng: np.random.Generator,
    kind: str,
    rows: int,
    segments: list[tuple[int, int]],
    groups: int,
) -> tuple[Array, tuple[int, int, int] | None]:
    """A weight `[rows, K]` and its encoding: dense, balanced at some ratio, or lossless."""
    shape = (rows, sum(length for _, length in segments))
    if kind == "i8":
        weight = rng.integers(-128, 128, shape).astype(np.int8)
    else:
        # A weight is finite; only activations are not.
        wild = random_floats(rng, shape, draw(st.booleans()))
        weight = np.where(np.isfinite(wild), wild, 0).astype(KINDS[kind])
        weight = np.where(np.isfinite(weight.astype(np.float32)), weight, 0).astype(KINDS[kind])
    if kind == "f32" or draw(st.sampled_from(("dense", "banked", "banked"))) == "dense":
        return weight, None
    bank = 64 // weight.itemsize
    share = draw(st.sampled_from((1, 2, 4)))
    slots = draw(st.sampled_from((0, *(INT8_SLOTS if kind == "i8" else BF16_SLOTS))))
    if slots:
        weight = prune_banked(weight, segments, bank, slots, share, groups)
    else:
        weight = weight * (rng.random(shape) < draw(st.sampled_from((0.02, 0.1, 0.6))))
        weight = weight.astype(KINDS[kind])
    # Whole banks of zeros, for all rows and for some.
    for first in range(0, shape[1], bank):
        if rng.random() < 0.2:
            weight[rng.integers(0, rows) :, first : first + bank] = 0
    return weight, (bank, slots, share)


def random_epilogue(
    draw: st.DrawFn, rng: np.random.Generator, kind: str, rows: int, lanes: int
) -> Epilogue:
    out = draw(st.sampled_from(("float32", "bfloat16", "uint8", "int8", "int32")))
    if out == "int32":
        return Epilogue(out="int32" if kind == "i8" else "float32")

    def maybe(*shape: int) -> Array | None:
        return rng.normal(size=shape).astype(np.float32) if draw(st.booleans()) else None

    scale = maybe(lanes)
    if kind == "i8":
        scale = (rng.random(lanes) * 1e-3).astype(np.float32)
    dtype = draw(st.sampled_from((None, "float32", "bfloat16", "uint8", "int8")))
    residual: Array | None = None
    if dtype == "float32":
        residual = rng.normal(size=(rows, lanes)).astype(np.float32)
    elif dtype == "bfloat16":
        residual = rng.normal(size=(rows, lanes)).astype(bfloat16).view(np.uint16)
    elif dtype is not None:
        residual = rng.integers(0, 256, (rows, lanes)).astype(np.uint8).view(dtype)
    return Epilogue(
        scale=scale,
        row_scale=maybe(rows),
        bias=maybe(lanes),
        residual=residual,
        residual_dtype=dtype,
        residual_scale=float(np.float32(rng.random())),
        residual_zero=int(rng.integers(0, 256)) - 128 * (dtype == "int8"),
        activation=draw(st.sampled_from(tuple(ACTIVATIONS))),
        out=out,
        out_scale=draw(st.sampled_from((1.0, float(np.float32(rng.random() + 0.01))))),
        out_zero=draw(st.sampled_from((0, int(rng.integers(0, 256)) - 128 * (out == "int8")))),
    )


@st.composite
def matmuls(draw: st.DrawFn, kind: str) -> tuple[Product, Epilogue]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, lanes = draw(st.integers(1, 31)), draw(st.integers(1, 70))
    depth = draw(st.integers(1, 300 if kind == "i8" else 130))
    segments = [(0, depth)]
    weight, encoding = random_weight(draw, rng, kind, lanes, segments, 1)
    x = random_values(rng, (rows, depth), kind, draw(st.booleans()))
    product = Product(
        x=x,
        starts=np.zeros(1, dtype=np.int64),
        run_rows=rows,
        x_stride=depth * x.itemsize,
        weight=weight,
        segments=segments,
        encoding=encoding,
        x_zero=draw(st.integers(0, 255)) if kind == "i8" else 0,
        tile_rows=draw(st.integers(1, 14)),
        tile_share=draw(st.sampled_from((1, 2))),
        tile_blocks=draw(st.integers(1, 3)),
        tile_pairs=draw(st.booleans()),
    )
    return product, random_epilogue(draw, rng, kind, rows, lanes)


@st.composite
def convolutions(draw: st.DrawFn, kind: str) -> tuple[Product, Epilogue]:
    """NHWC convolutions over an x whose halo is already there."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = draw(st.sampled_from((1, 1, 2, 3)))
    depth, per_group = draw(st.integers(1, 40)), draw(st.integers(1, 20))
    kernel = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    strides, dilations, pads = (
        (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        [draw(st.integers(0, 2)) for _ in range(4)],
    )
    zero = draw(st.integers(0, 255)) if kind == "i8" else 0
    extra = draw(st.integers(0, 5)), draw(st.integers(0, 20))
    reach = [dilations[a] * (kernel[a] - 1) + 1 for a in (0, 1)]
    size = [max(1, reach[a] + extra[a] - pads[a] - pads[a + 2]) for a in (0, 1)]
    batch, channels = draw(st.integers(1, 2)), groups * depth
    inner = random_values(rng, (batch, *size, channels), kind, draw(st.booleans()))
    border = ((0, 0), (pads[0], pads[2]), (pads[1], pads[3]), (0, 0))
    x = np.pad(inner, border, constant_values=zero)
    out = [(x.shape[1 + a] - reach[a]) // strides[a] + 1 for a in (0, 1)]
    pixel = channels * x.itemsize
    line = x.shape[2] * pixel
    if dilations[1] == 1 and groups == 1:
        segments = [(y * dilations[0] * line, kernel[1] * depth) for y in range(kernel[0])]
    else:
        taps = ((y, x) for y in range(kernel[0]) for x in range(kernel[1]))
        segments = [(y * dilations[0] * line + x * dilations[1] * pixel, depth) for y, x in taps]
    weight, encoding = random_weight(draw, rng, kind, groups * per_group, segments, groups)
    starts = [
        n * x.shape[1] * line + y * strides[0] * line for n in range(batch) for y in range(out[0])
    ]
    product = Product(
        x=x,
        starts=np.array(starts, dtype=np.int64),
        run_rows=out[1],
        x_stride=strides[1] * pixel,
        weight=weight,
        segments=segments,
        encoding=encoding,
        x_zero=zero,
        groups=groups,
        group_bytes=depth * x.itemsize,
        tile_rows=draw(st.integers(1, 14)),
        tile_share=draw(st.sampled_from((1, 2))),
        tile_blocks=draw(st.integers(1, 3)),
        tile_pairs=draw(st.booleans()),
    )
    return product, random_epilogue(draw, rng, kind, batch * prod(out), groups * per_group)


def check(spu: Device, case: tuple[Product, Epilogue]) -> None:
    product, epilogue = case
    assert_same_bits(spu.run(product, epilogue), epilogue.golden(product.golden()))


@given(matmuls("i8"))
@settings(max_examples=80)
def test_int8_matmul(spu: Device, case: tuple[Product, Epilogue]) -> None:
    check(spu, case)


@given(matmuls("bf16"))
@settings(max_examples=50)
def test_bf16_matmul(spu: Device, case: tuple[Product, Epilogue]) -> None:
    check(spu, case)


@given(matmuls("f32"))
def test_f32_matmul(spu: Device, case: tuple[Product, Epilogue]) -> None:
    check(spu, case)


@given(convolutions("i8"))
@settings(max_examples=50)
def test_int8_convolution(spu: Device, case: tuple[Product, Epilogue]) -> None:
    check(spu, case)


@given(convolutions("bf16"))
def test_bf16_convolution(spu: Device, case: tuple[Product, Epilogue]) -> None:
    check(spu, case)


@given(convolutions("f32"))
@settings(max_examples=15)
def test_f32_convolution(spu: Device, case: tuple[Product, Epilogue]) -> None:
    check(spu, case)


@pytest.mark.parametrize("share", [1, 2, 4])
@pytest.mark.parametrize("slots", [None, 0, *INT8_SLOTS])
def test_every_ratio_and_share_with_extreme_values(
    spu: Device, slots: int | None, share: int
) -> None:
    """All of x 255 and all weights -128 or 127: where 16-bit sums would saturate."""
    rng = np.random.default_rng(1)
    rows, lanes, depth = 15, 16 * share + 5, 200
    weight = np.where(rng.random((lanes, depth)) < 0.5, -128, 127).astype(np.int8)
    segments = [(0, depth)]
    if slots:
        weight = prune_banked(weight, segments, 64, slots, share)
    product = Product(
        x=np.full((rows, depth), 255, dtype=np.uint8),
        starts=np.zeros(1, dtype=np.int64),
        run_rows=rows,
        x_stride=depth,
        weight=weight,
        segments=segments,
        encoding=None if slots is None else (64, slots, share),
        x_zero=3,
        tile_share=min(share, 2),
    )
    check(spu, (product, Epilogue(out="int32")))


@pytest.mark.parametrize("rows", range(1, 15))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [1, 2, 4])
def test_every_number_of_rows(spu: Device, kind: str, rows: int, share: int) -> None:
    rng = np.random.default_rng(rows)
    lanes, depth = 16 * share, 96
    dtype = KINDS[kind]
    weight = rng.integers(-9, 10, (lanes, depth)).astype(dtype)
    encoding = None if kind == "f32" else (64 // dtype.itemsize, 0, share)
    x = rng.integers(0, 200, (rows, depth)).astype(np.uint8 if kind == "i8" else dtype)
    product = Product(
        x=x,
        starts=np.zeros(1, dtype=np.int64),
        run_rows=rows,
        x_stride=depth * x.itemsize,
        weight=weight,
        segments=[(0, depth)],
        encoding=encoding,
        tile_share=min(share, 2),
    )
    check(spu, (product, Epilogue()))


@pytest.mark.parametrize("rows", range(1, 15))
@pytest.mark.parametrize("slots", [4, 8])
@pytest.mark.parametrize("out", OUTPUTS)
def test_pairs_of_lane_groups(spu: Device, out: str, slots: int, rows: int) -> None:
    """
    Whole pairs, one lane group more, and a part of one, in two convolution groups; rows of zeros
    empty banks of one of a pair, or of both.
    """
    rng = np.random.default_rng(rows)
    each, depth = 16 * 7 + 3, 3 * 64 + 5
    segments = [(0, depth)]
    weight = rng.integers(-128, 128, (2 * each, depth)).astype(np.int8)
    weight = prune_banked(weight, segments, 64, slots, 1, 2)
    weight[16:32, :64] = weight[:32, 64:128] = weight[each : each + 16] = 0
    weight[each + 64 : each + 96] = 0
    x = rng.integers(0, 256, (rows, 2 * depth)).astype(np.uint8)
    product = Product(
        x=x,
        starts=np.zeros(1, dtype=np.int64),
        run_rows=rows,
        x_stride=2 * depth,
        weight=weight,
        segments=segments,
        encoding=(64, slots, 1),
        x_zero=131,
        groups=2,
        group_bytes=depth,
        tile_blocks=rows % 4 + 1,
        tile_pairs=True,
    )
    assert product.pack().paired
    residuals = [None, "uint8", "float32", "int8", "bfloat16"]
    for activation, dtype in zip([None, "relu", "gelu", "silu", "relu"], residuals, strict=True):
        residual = None
        if dtype is not None:
            residual = rng.integers(0, 100, (rows, 2 * each)).astype(np.uint8)
            residual = residual.view(np.int8) if dtype == "int8" else residual
            residual = residual.astype(np.float32) if dtype == "float32" else residual
            if dtype == "bfloat16":
                residual = residual.astype(bfloat16).view(np.uint16)
        epilogue = Epilogue(
            scale=(rng.random(2 * each) * 1e-3).astype(np.float32),
            row_scale=None if rows % 2 else rng.random(rows).astype(np.float32),
            bias=None if rows % 3 else rng.normal(size=2 * each).astype(np.float32),
            residual=residual,
            residual_dtype=dtype,
            residual_scale=0.25,
            residual_zero=3,
            activation=activation,
            out=out,
            out_scale=0.5,
            out_zero=-9 if out == "int8" else 9,
        )
        check(spu, (product, Epilogue(out="int32") if out == "int32" else epilogue))


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("out", ["uint8", "int8"])
@pytest.mark.parametrize("worst", [1.0, 1e6, -1e30, np.inf, np.nan])
@pytest.mark.parametrize("residual", [None, "uint8", "int8"])
def test_int8_scales_of_any_size(
    spu: Device, residual: str | None, worst: float, out: str, activation: str | None
) -> None:
    """
    Results far out of the output's range, and out of int32's, saturate; NaN is 0.

    The worst scale is one lane's, or that of the residual.
    """
    rng = np.random.default_rng(3)
    rows, lanes, depth = 17, 16 * 5, 130
    scale = rng.normal(size=lanes).astype(np.float32)
    bias = rng.normal(size=lanes).astype(np.float32)
    if residual is None:
        scale[37] = worst
        bias[11] = worst * 1e3
    product = Product(
        x=rng.integers(0, 256, (rows, depth)).astype(np.uint8),
        starts=np.zeros(1, dtype=np.int64),
        run_rows=rows,
        x_stride=depth,
        weight=rng.integers(-128, 128, (lanes, depth)).astype(np.int8),
        segments=[(0, depth)],
        encoding=(64, 0, 1),
        x_zero=7,
        tile_blocks=2,
    )
    zero = 100 if out == "uint8" else -5
    epilogue = Epilogue(
        scale=scale, bias=bias, activation=activation, out=out, out_scale=0.3, out_zero=zero
    )
    if residual is not None:
        epilogue = replace(
            epilogue,
            residual=rng.integers(0, 256, (rows, lanes)).astype(np.uint8).view(residual),
            residual_dtype=residual,
            residual_scale=worst,
            residual_zero=11,
        )
    with np.errstate(invalid="ignore"):
        check(spu, (product, epilogue))


def plain_product(x: Array, weight: Array) -> Product:
    """A dense bfloat16 product of `[M, K]` and `[N, K]`."""
    return Product(
        x=x.astype(bfloat16),
        starts=np.zeros(1, dtype=np.int64),
        run_rows=x.shape[0],
        x_stride=2 * x.shape[1],
        weight=weight.astype(bfloat16),
        segments=[(0, x.shape[1])],
    )


@pytest.mark.parametrize("middle", [-63, 64])
def test_bf16_at_the_ends_of_the_range(spu: Device, middle: int) -> None:
    """Products and sums that underflow, overflow and cancel there."""
    rng = np.random.default_rng(7)

    def near(*shape: int) -> Array:
        mantissa = 1 + rng.integers(0, 128, shape) / 128
        sign = rng.choice((-1.0, 1.0), shape)
        return sign * np.ldexp(mantissa, middle + rng.integers(-8, 6, shape))

    check(spu, (plain_product(near(25, 10), near(33, 10)), Epilogue()))


@pytest.mark.parametrize(
    ("less", "expected"),
    [(1.5, 0.0), (1.0, 2.0**-126), (0.5, 2.0**-126)],
)
def test_bf16_flushes_what_is_denormal_after_rounding(
    spu: Device, less: float, expected: float
) -> None:
    """2^-126 - less * 2^-151: rounded to 24 bits it is below 2^-126 or it is not."""
    x = np.array([[-less * 2.0**-75, 2.0**-63]])
    w = np.array([[2.0**-76, 2.0**-63]])
    got = spu.run(plain_product(x, w), Epilogue())
    assert got.tolist() == [[expected]]
