"""The golden model of the VPU's ops against plain numpy, on tensors and on memrefs alike."""

from __future__ import annotations

from math import erf
from typing import Any

import numpy as np
import pytest
from support.interpreting import BF16, both, f32, integers, run

from spu_ir.errors import SpuError

UNARY = {
    "abs": np.abs,
    "neg": np.negative,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "reciprocal": np.reciprocal,
    "erf": np.vectorize(erf),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x / 2 * (1 + np.vectorize(erf)(x / np.sqrt(2))),
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "sign": np.sign,
}


@pytest.mark.parametrize("fn", UNARY)
def test_unary_functions(fn: str) -> None:
    x = f32(3, 50) * 3
    if fn in ("log", "sqrt"):
        x = np.abs(x) + np.float32(0.1)
    (y,) = both(f"vpu.unary {fn} %x into %0 : $x, $0", {"x": x}, (x.shape, np.float32))
    np.testing.assert_allclose(y, UNARY[fn](x.astype(np.float64)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fn", ["abs", "neg", "sign", "relu"])
@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64])
def test_unary_functions_of_integers(fn: str, dtype: Any) -> None:
    x = integers(-100, 100, 40, dtype=dtype)
    (y,) = both(f"vpu.unary {fn} %x into %0 : $x, $0", {"x": x}, (x.shape, dtype))
    np.testing.assert_array_equal(y, UNARY[fn](x))


def test_not_turns_truth_around() -> None:
    x = integers(0, 2, 9, dtype=np.bool_)
    (y,) = both("vpu.unary not %x into %0 : $x, $0", {"x": x}, ((9,), np.bool_))
    np.testing.assert_array_equal(y, ~x)


BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "min": np.minimum,
    "max": np.maximum,
    "equal": np.equal,
    "less": np.less,
    "less_or_equal": np.less_equal,
    "greater": np.greater,
    "greater_or_equal": np.greater_equal,
}


@pytest.mark.parametrize("fn", BINARY)
def test_binary_functions_broadcast(fn: str) -> None:
    a, b = np.abs(f32(4, 1, 6)) + np.float32(0.1), f32(3, 1, seed=1)
    a[1] = b[2, 0]
    if fn == "pow":
        a = np.abs(a)
    expected = BINARY[fn](a, b)
    (y,) = both(
        f"vpu.binary {fn} %a, %b into %0 : $a, $b, $0",
        {"a": a, "b": b},
        ((2, 4, 3, 6), expected.dtype),
    )
    np.testing.assert_allclose(y, np.broadcast_to(expected, (2, 4, 3, 6)), rtol=1e-6)


@pytest.mark.parametrize("fn", ["add", "sub", "mul", "div", "min", "max"])
def test_binary_functions_of_integers(fn: str) -> None:
    a, b = integers(-99, 99, 30, dtype=np.int32), integers(1, 9, 30, dtype=np.int32, seed=1)
    (y,) = both(f"vpu.binary {fn} %a, %b into %0 : $a, $b, $0", {"a": a, "b": b}, ((30,), np.int32))
    expected = np.trunc(a / b).astype(np.int32) if fn == "div" else BINARY[fn](a, b)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(("fn", "expected"), [("and", np.logical_and), ("or", np.logical_or)])
def test_truth_functions(fn: str, expected: Any) -> None:
    a, b = np.array([False, False, True, True]), np.array([False, True, False, True])
    (y,) = both(f"vpu.binary {fn} %a, %b into %0 : $a, $b, $0", {"a": a, "b": b}, ((4,), np.bool_))
    np.testing.assert_array_equal(y, expected(a, b))


def test_select_broadcasts_all_three() -> None:
    c, a, b = integers(0, 2, 3, 1, dtype=np.bool_), f32(4), np.float32(7)
    (y,) = both(
        "vpu.select %c, %a, %b into %0 : $c, $a, $b, $0",
        {"c": c, "a": a, "b": np.array(b)},
        ((3, 4), np.float32),
    )
    np.testing.assert_array_equal(y, np.where(c, a, b))


@pytest.mark.parametrize(
    ("x", "to", "expected"),
    [
        ([1.5, -1.5, np.nan, 3e9, -np.inf], np.int32, [1, -1, 0, 2**31 - 128, -(2**31)]),
        ([1.5, -1.5, 300.0, np.nan], np.uint8, [1, 0, 255, 0]),
        ([0.0, -0.5, np.nan], np.bool_, [False, True, True]),
        ([1.00390625, 1.01171875, 3.0], BF16, [1.0, 1.015625, 3.0]),
    ],
)
def test_casts_of_floats(x: list[float], to: Any, expected: list[Any]) -> None:
    (y,) = both("vpu.cast %x into %0 : $x, $0", {"x": np.array(x, np.float32)}, ((len(x),), to))
    np.testing.assert_array_equal(y, np.array(expected, to))


@pytest.mark.parametrize(
    ("x", "to", "expected"),
    [
        (np.array([True, False]), np.float32, [1.0, 0.0]),
        (np.array([300, -1, 2], np.int64), np.uint8, [44, 255, 2]),
        (np.array([2**24 + 1, -3], np.int32), np.float32, [2.0**24, -3.0]),
        (np.array([1.5, -2.0], BF16), np.float32, [1.5, -2.0]),
        (np.array([1.5, -2.0], BF16), np.int64, [1, -2]),
        (np.array([5, 0], np.int64), np.bool_, [True, False]),
    ],
)
def test_other_casts(x: np.ndarray, to: Any, expected: list[Any]) -> None:
    (y,) = both("vpu.cast %x into %0 : $x, $0", {"x": x}, (x.shape, to))
    np.testing.assert_array_equal(y, np.array(expected, to))


def test_movement() -> None:
    x = f32(4, 6, 8)
    cases: list[tuple[str, np.ndarray]] = [
        ("vpu.expand %x into %0 : $x, $0", np.broadcast_to(x, (2, 4, 6, 8))),
        ("vpu.reshape %x into %0 : $x, $0", x.reshape(2, 12, 8)),
        (
            "vpu.transpose %x into %0 {perm = array<i64: 2, 0, 1>} : $x, $0",
            x.transpose(2, 0, 1),
        ),
        (
            "vpu.slice %x into %0 {starts = array<i64: 0, 1, 7>, steps = array<i64: 2, 3, -2>} "
            ": $x, $0",
            x[::2, 1::3, ::-2],
        ),
        (
            "vpu.pad %x into %0 {low = array<i64: 0, 1, 0>, value = 0.5 : f32} : $x, $0",
            np.pad(x, ((0, 0), (1, 2), (0, 1)), constant_values=0.5),
        ),
        (
            "vpu.concat %x, %x into %0 {axis = 1 : i64} : $x, $x into $0",
            np.concatenate([x, x], 1),
        ),
    ]
    for op, expected in cases:
        (y,) = both(op, {"x": x}, (expected.shape, np.float32))
        np.testing.assert_array_equal(y, expected)


def test_gather_counts_negative_indices_from_the_end() -> None:
    x, i = integers(0, 99, 3, 5, dtype=np.int8), np.array([[0, -1], [4, -5]], np.int32)
    (y,) = both(
        "vpu.gather %x, %i into %0 {axis = 1 : i64} : $x, $i, $0",
        {"x": x, "i": i},
        ((3, 2, 2), np.int8),
    )
    np.testing.assert_array_equal(y, np.take(x, i, 1))


def test_an_index_outside_names_the_layer() -> None:
    text = """
    func.func @main(%x: tensor<5x2xf32> {onnx.name = "x"}, %i: tensor<3xi64> {onnx.name = "i"})
        -> (tensor<3x2xf32>) {
      %0 = tensor.empty() : tensor<3x2xf32>
      %y = vpu.gather %x, %i into %0 {axis = 0 : i64, layer = "words"}
          : tensor<5x2xf32>, tensor<3xi64>, tensor<3x2xf32> -> tensor<3x2xf32>
      func.return %y : tensor<3x2xf32>
    }"""
    message = r"node 'words' \(vpu.gather\): index 5 is outside the extent 5 of axis 0"
    with pytest.raises(SpuError, match=message):
        run(text, x=f32(5, 2), i=np.array([0, 5, 1]))


@pytest.mark.parametrize("fn", ["sum", "mean", "max", "min", "prod", "l2"])
@pytest.mark.parametrize(("axes", "keep"), [((2,), True), ((0,), False), ((0, 2), False)])
def test_reductions(fn: str, axes: tuple[int, ...], keep: bool) -> None:
    x = f32(4, 5, 21)
    reduce = np.linalg.norm if fn == "l2" else getattr(np, fn)
    wide = x.astype(np.float64)
    if fn == "l2":
        expected = np.sqrt((wide * wide).sum(axis=axes, keepdims=keep))
    else:
        expected = reduce(wide, axis=axes, keepdims=keep)
    listed = ", ".join(map(str, axes))
    (y,) = both(
        f"vpu.reduce {fn} %x into %0 {{axes = array<i64: {listed}>}} : $x, $0",
        {"x": x},
        (expected.shape, np.float32),
    )
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_running_sums(exclusive: bool, reverse: bool) -> None:
    x = np.array([[3, 1, -4], [2**62, 2**62, 0]], np.int64)
    flags = f"{{exclusive = {str(exclusive).lower()}, reverse = {str(reverse).lower()}}}"
    (y,) = both(f"vpu.cumsum %x into %0 {flags} : $x, $0", {"x": x}, (x.shape, np.int64))
    expected = {
        (False, False): [[3, 4, 0], [2**62, -(2**63), -(2**63)]],
        (True, False): [[0, 3, 4], [0, 2**62, -(2**63)]],
        (False, True): [[0, -3, -4], [-(2**63), 2**62, 0]],
        (True, True): [[-3, -4, 0], [2**62, 0, 0]],
    }
    np.testing.assert_array_equal(y, expected[exclusive, reverse])


def test_softmax_and_normalisation() -> None:
    x, g, b = f32(3, 21) * 4, f32(21, seed=1), f32(21, seed=2)
    wide = x.astype(np.float64)
    p = np.exp(wide) / np.exp(wide).sum(-1, keepdims=True)
    centred = wide - wide.mean(-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 0.5)
    rms = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 0.5)
    cases = [
        ("vpu.softmax %x into %0 : $x, $0", p),
        ("vpu.softmax %x into %0 {log = true} : $x, $0", np.log(p)),
        (
            "vpu.layer_norm %x, %g beta(%b : $b) into %0 {epsilon = 0.5 : f32} : $x, $g, $0",
            normal * g + b,
        ),
        ("vpu.layer_norm %x, %g into %0 {epsilon = 0.5 : f32} : $x, $g, $0", normal * g),
        (
            "vpu.layer_norm %x, %g into %0 {epsilon = 0.5 : f32, centre = false} : $x, $g, $0",
            rms * g,
        ),
    ]
    for op, expected in cases:
        (y,) = both(op, {"x": x, "g": g, "b": b}, ((3, 21), np.float32))
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fn", ["max", "avg", "avg_padded"])
def test_pooling(fn: str) -> None:
    x = f32(2, 7, 6, 3)
    pads = ((0, 0), (1, 1), (1, 1), (0, 0))
    padded = np.pad(x, pads, constant_values=-np.inf if fn == "max" else 0)
    inside = np.pad(np.ones_like(x), pads)
    expected = np.zeros((2, 4, 3, 3), np.float32)
    for i in range(4):
        for j in range(3):
            at = (slice(None), slice(2 * i, 2 * i + 3), slice(2 * j, 2 * j + 3))
            window, count = padded[at], inside[at].sum(axis=(1, 2))
            area = 9 if fn == "avg_padded" else count
            expected[:, i, j] = (
                window.max(axis=(1, 2)) if fn == "max" else window.sum(axis=(1, 2)) / area
            )
    (y,) = both(
        f"vpu.pool {fn} %x into %0 {{kernel = array<i64: 3, 3>, strides = array<i64: 2, 2>, "
        "pads = array<i64: 1, 1>, dilations = array<i64: 1, 1>} : $x, $0",
        {"x": x},
        (expected.shape, np.float32),
    )
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_quantisation_by_tensor_axis_and_row() -> None:
    x = f32(4, 6)
    scale, per_row = np.array(0.03, np.float32), np.abs(f32(4, seed=1)) / 50
    zero, zeros = np.array(20, np.uint8), integers(-9, 9, 4, dtype=np.int8)
    (q,) = both(
        "vpu.quantise %x scale(%s : $s) zero(%z : $z) into %0 : $x, $0",
        {"x": x, "s": scale, "z": zero},
        ((4, 6), np.uint8),
    )
    np.testing.assert_array_equal(q, np.clip(np.rint(x / scale) + 20, 0, 255).astype(np.uint8))
    (q,) = both(
        "vpu.quantise %x scale(%s : $s) zero(%z : $z) into %0 {axis = 0 : i64} : $x, $0",
        {"x": x, "s": per_row, "z": zeros},
        ((4, 6), np.int8),
    )
    exact = np.rint(x / per_row[:, None]) + zeros[:, None]
    np.testing.assert_array_equal(q, np.clip(exact, -128, 127).astype(np.int8))
    (y,) = both(
        "vpu.dequantise %q scale(%s : $s) into %0 : $q, $0",
        {"q": q, "s": per_row},
        ((4, 6), np.float32),
    )
    np.testing.assert_array_equal(y, q.astype(np.float32) * per_row[:, None])


def test_products_are_quantised() -> None:
    x, factor = f32(2, 7, 33), f32(2, 7, 33, seed=1)
    scale, zero = np.array(0.02, np.float32), np.array(100, np.uint8)
    (q,) = both(
        "vpu.quantise_product %x, %f scale(%s : $s) zero(%z : $z) into %0 : $x, $f, $0",
        {"x": x, "f": factor, "s": scale, "z": zero},
        ((2, 7, 33), np.uint8),
    )
    (want,) = both(
        "vpu.quantise %x scale(%s : $s) zero(%z : $z) into %0 : $x, $0",
        {"x": x * factor, "s": scale, "z": zero},
        ((2, 7, 33), np.uint8),
    )
    np.testing.assert_array_equal(q, want)
    assert len(np.unique(q)) > 50


def test_rows_are_quantised_with_their_own_scales() -> None:
    x = f32(5, 33)
    x[2] = 0
    q, scale = both(
        "vpu.quantise_rows %x into %0, %1 : $x, $0, $1",
        {"x": x},
        ((5, 33), np.uint8),
        ((5,), np.float32),
    )
    assert (q[2] == 128).all()
    assert scale[2] == 1
    np.testing.assert_allclose((q.astype(np.float32) - 128) * scale[:, None], x, atol=0.02)
    assert {int(np.abs(q[i].astype(int) - 128).max()) for i in (0, 1, 3, 4)} == {127}


def test_rows_are_normalised_and_quantised() -> None:
    x, g, b = f32(2, 7, 33), f32(33, seed=1), f32(33, seed=2)
    x[1, 2] = 3
    inputs = {"x": x, "g": g, "b": b}
    rows = ((2, 7, 33), np.uint8), ((2, 7), np.float32)
    q, scale = both(
        "vpu.layer_norm_rows %x, %g, %b into %0, %1 {epsilon = 0.5 : f32} : $x, $g, $b, $0, $1",
        inputs,
        *rows,
    )
    (y,) = both(
        "vpu.layer_norm %x, %g beta(%b : $b) into %0 {epsilon = 0.5 : f32} : $x, $g, $0",
        inputs,
        ((2, 7, 33), np.float32),
    )
    want, want_scale = both("vpu.quantise_rows %x into %0, %1 : $x, $0, $1", {"x": y}, *rows)
    np.testing.assert_array_equal(q, want)
    np.testing.assert_array_equal(scale, want_scale)


def test_columns_are_scaled_before_rows_are_quantised() -> None:
    x, columns = f32(5, 33), np.exp(f32(33, seed=1)).astype(np.float32)
    for zero in (128, 40):
        q, scale = both(
            f"vpu.quantise_rows %x columns(%k : $k) into %0, %1 {{zero = {zero} : i32}} "
            ": $x, $0, $1",
            {"x": x, "k": columns},
            ((5, 33), np.uint8),
            ((5,), np.float32),
        )
        want, want_scale = both(
            f"vpu.quantise_rows %x into %0, %1 {{zero = {zero} : i32}} : $x, $0, $1",
            {"x": x * columns},
            ((5, 33), np.uint8),
            ((5,), np.float32),
        )
        np.testing.assert_array_equal(q, want)
        np.testing.assert_array_equal(scale, want_scale)


def test_a_table_maps_bytes() -> None:
    x, table = integers(0, 256, 7, 5, dtype=np.uint8), integers(0, 256, 256, dtype=np.uint8, seed=1)
    (y,) = both("vpu.table %x, %t into %0 : $x, $t, $0", {"x": x, "t": table}, ((7, 5), np.uint8))
    np.testing.assert_array_equal(y, table[x])
