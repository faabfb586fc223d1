"""The golden model of the SPU's ops against plain numpy, on tensors and on memrefs alike."""

from __future__ import annotations

import numpy as np
import pytest
from support.interpreting import BF16, both, f32, integers


def test_an_int8_product_is_exact_before_its_epilogue() -> None:
    x, w = integers(0, 256, 3, 70, dtype=np.uint8), integers(-127, 128, 5, 70, dtype=np.int8)
    scale = np.full(5, 0.25, np.float32)
    (y,) = both(
        "spu.matmul %x, %w scale(%s : $s) into %0 {x_zero = 7 : i32} : $x, $w, $0",
        {"x": x, "w": w, "s": scale},
        ((3, 5), np.float32),
    )
    exact = (x.astype(np.int64) - 7) @ w.astype(np.int64).T
    np.testing.assert_array_equal(y, exact * np.float32(0.25))


def test_the_whole_epilogue_in_its_order() -> None:
    x, w = integers(0, 256, 2, 3, 64, dtype=np.uint8), integers(-127, 128, 16, 64, dtype=np.int8)
    scale, row_scale, bias = f32(16) * 1e-3, f32(2, 3, seed=1), f32(16, seed=2)
    residual = integers(-128, 128, 2, 3, 16, dtype=np.int8)
    (y,) = both(
        "spu.matmul %x, %w scale(%s : $s) row_scale(%t : $t) bias(%b : $b) residual(%r : $r) "
        "into %0 {activation = #spu.activation relu, x_zero = 128 : i32, out_scale = 0.1 : f32, "
        "out_zero = 3 : i32, residual_scale = 0.5 : f32, residual_zero = -4 : i32} : $x, $w, $0",
        {"x": x, "w": w, "s": scale, "t": row_scale, "b": bias, "r": residual},
        ((2, 3, 16), np.uint8),
        w=", #spu.banked<bank = 64, slots = 0, share = 1>",
    )
    v = ((x.astype(np.int64) - 128) @ w.astype(np.int64).T).astype(np.float32)
    v = v * scale * row_scale[..., None] + bias
    v = v + (residual.astype(np.float32) + 4) * np.float32(0.5)
    inverse = np.float32(1) / np.float32(0.1)
    expected = np.clip(np.rint(np.maximum(v, 0) * inverse) + 3, 0, 255)
    np.testing.assert_array_equal(y, expected.astype(np.uint8))


def test_an_f32_product_adds_in_order_of_k_when_asked() -> None:
    x, w = f32(3, 50), f32(4, 50, seed=1)
    op = "spu.matmul %x, %w into %0 : $x, $w, $0"
    (exact,) = both(op, {"x": x, "w": w}, ((3, 4), np.float32))
    for m in range(3):
        for n in range(4):
            acc = np.float32(0)
            for k in range(50):
                acc = np.float32(acc + np.float32(x[m, k] * w[n, k]))
            assert exact[m, n] == acc
    (fast,) = both(op, {"x": x, "w": w}, ((3, 4), np.float32), exact_f32=False)
    np.testing.assert_allclose(fast, x @ w.T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("encoding", ["", ", #spu.banked<bank = 32, slots = 4, share = 1>"])
def test_a_bf16_product(encoding: str) -> None:
    x, w = f32(3, 96).astype(BF16), f32(5, 96, seed=1).astype(BF16)
    w[:, np.arange(96) % 32 >= 4] = 0
    (y,) = both(
        "spu.matmul %x, %w into %0 : $x, $w, $0",
        {"x": x, "w": w},
        ((3, 5), BF16),
        w=encoding,
    )
    reference = x.astype(np.float64) @ w.astype(np.float64).T
    np.testing.assert_allclose(y.astype(np.float64), reference, rtol=2**-7, atol=1e-3)


@pytest.mark.parametrize(
    ("groups", "strides", "pads", "dilations"),
    [
        (1, (1, 1), (0, 0, 0, 0), (1, 1)),
        (1, (2, 1), (1, 2, 0, 1), (1, 1)),
        (2, (1, 2), (1, 1, 1, 1), (2, 1)),
        (4, (1, 1), (0, 1, 2, 1), (1, 3)),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "uint8", "bfloat16"])
def test_a_convolution_against_loops(
    groups: int,
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilations: tuple[int, int],
    dtype: str,
) -> None:
    zero = 9 if dtype == "uint8" else 0
    if dtype == "uint8":
        x = integers(0, 256, 2, 7, 8, 4, dtype=np.uint8)
        w = integers(-9, 10, 8, 3, 2, 4 // groups, dtype=np.int8)
    else:
        x = integers(-8, 9, 2, 7, 8, 4).astype(dtype)
        w = integers(-8, 9, 8, 3, 2, 4 // groups, seed=1).astype(dtype)
    top, left, bottom, right = pads
    border = ((0, 0), (top, bottom), (left, right), (0, 0))
    padded = np.pad(x.astype(np.int64) - zero, border)
    height = (padded.shape[1] - dilations[0] * 2 - 1) // strides[0] + 1
    width = (padded.shape[2] - dilations[1] - 1) // strides[1] + 1
    expected = np.zeros((2, height, width, 8))
    for o in range(8):
        first = o // (8 // groups) * (4 // groups)
        for i in range(3):
            for j in range(2):
                for c in range(4 // groups):
                    at = padded[
                        :,
                        i * dilations[0] : i * dilations[0]
                        + (height - 1) * strides[0]
                        + 1 : strides[0],
                        j * dilations[1] : j * dilations[1]
                        + (width - 1) * strides[1]
                        + 1 : strides[1],
                        first + c,
                    ]
                    expected[..., o] += at * float(w[o, i, j, c])
    feeds = {"x": x, "w": w}
    scale = ""
    if dtype == "uint8":
        feeds["s"] = np.ones(8, np.float32)
        scale = "scale(%s : $s) "
    (y,) = both(
        f"spu.conv %x, %w {scale}into %0 {{strides = array<i64: {strides[0]}, {strides[1]}>, "
        f"pads = array<i64: {top}, {left}, {bottom}, {right}>, groups = {groups} : i64, "
        f"dilations = array<i64: {dilations[0]}, {dilations[1]}>, x_zero = {zero} : i32}} "
        ": $x, $w, $0",
        feeds,
        (expected.shape, np.float32),
    )
    # Small whole numbers: every order of summing them is exact.
    np.testing.assert_array_equal(y, expected)


def test_batch_matmul_broadcasts_and_transposes() -> None:
    a, b = f32(2, 3, 4, 5), f32(3, 6, 5, seed=1)
    op = "spu.batch_matmul %a, %b into %0 {alpha = 0.5 : f32, transpose_b = true} : $a, $b, $0"
    expected = a @ np.swapaxes(b, -1, -2) * 0.5
    for exact in (True, False):
        (y,) = both(op, {"a": a, "b": b}, ((2, 3, 4, 6), np.float32), exact_f32=exact)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2)])
def test_attention_against_softmax(causal: bool, heads: int, kv_heads: int) -> None:
    q, k, v = (
        f32(2, 70, heads * 8),
        f32(2, 70, kv_heads * 8, seed=1),
        f32(2, 70, kv_heads * 4, seed=2),
    )
    mask = np.where(np.arange(70) < 66, 0, -1e9).astype(np.float32).reshape(1, 1, 1, 70)
    (y,) = both(
        f"spu.attention %q, %k, %v mask(%m : $m) into %0 {{heads = {heads} : i64, kv_heads = "
        f"{kv_heads} : i64, scale = 0.5 : f32, causal = {str(causal).lower()}}} : $q, $k, $v, $0",
        {"q": q, "k": k, "v": v, "m": mask},
        ((2, 70, heads * 4), np.float32),
    )
    repeat = heads // kv_heads
    split = [x.reshape(2, 70, -1, d).transpose(0, 2, 1, 3) for x, d in ((q, 8), (k, 8), (v, 4))]
    keys, values = (np.repeat(x, repeat, axis=1) for x in split[1:])
    scores = (split[0] @ keys.transpose(0, 1, 3, 2)).astype(np.float64) * 0.5 + mask
    if causal:
        scores = np.where(np.tri(70, dtype=bool), scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    expected = (p / p.sum(-1, keepdims=True)) @ values
    np.testing.assert_allclose(
        y, expected.transpose(0, 2, 1, 3).reshape(2, 70, -1), rtol=1e-4, atol=1e-5
    )
