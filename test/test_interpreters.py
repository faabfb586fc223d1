"""The golden model: every op against plain numpy, on tensors and on memrefs alike."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from math import erf
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser
from xdsl.universe import Universe
from xdsl.utils.exceptions import InterpretationError

from spu_ir.dialects.types import element_type
from spu_ir.dialects.weights import store_of
from spu_ir.errors import SpuError
from spu_ir.interpreters import interpret
from spu_ir.universe import SPU_UNIVERSE

BF16 = ml_dtypes.bfloat16
Arrays = dict[str, np.ndarray]


def context() -> Context:
    ctx = Context()
    for name, load in (Universe.get_multiverse().all_dialects | SPU_UNIVERSE.all_dialects).items():
        ctx.register_dialect(name, load)
    return ctx


def parse(text: str, ctx: Context | None = None) -> ModuleOp:
    module = Parser(ctx or context(), text).parse_module()
    module.verify()
    return module


def run(text: str, *, exact_f32: bool = True, **feeds: np.ndarray) -> Arrays:
    return interpret(parse(text), context(), feeds, exact_f32=exact_f32)


def kind(array: np.ndarray, encoding: str = "") -> str:
    shape = "".join(f"{extent}x" for extent in array.shape)
    return f"T<{shape}{element_type(array.dtype)}{encoding}>"


def both(
    op: str,
    feeds: Arrays,
    *outs: tuple[Sequence[int], Any],
    exact_f32: bool = True,
    **encoding: str,
) -> list[np.ndarray]:
    """
    The results of one op on tensors, which must be those on memrefs.

    In `op`, $name is the type of an input, $0 that of the first init `%0`; an op's own results
    are left out. Memrefs get inits with strides, so that what is written goes through a view.
    """
    kinds = {name: kind(array, encoding.get(name, "")) for name, array in feeds.items()}
    inits = [kind(np.empty(shape, dtype)) for shape, dtype in outs]
    kinds |= {str(i): one for i, one in enumerate(inits)}
    for name in sorted(kinds, key=len, reverse=True):
        op = op.replace(f"${name}", kinds[name])
    arguments = [f'%{name}: {kinds[name]} {{onnx.name = "{name}"}}' for name in feeds]
    names = ", ".join(f"%r{i}" for i in range(len(outs)))
    empties = [f"%{i} = tensor.empty() : {one}" for i, one in enumerate(inits)]
    body = "\n".join(empties)
    tensors = f"""
    func.func @main({", ".join(arguments)}) -> ({", ".join(inits)}) {{
      {body}
      {names} = {op} -> {", ".join(inits)}
      func.return {names} : {", ".join(inits)}
    }}"""
    arguments += [
        f'%{i}: {one} {{onnx.name = "out{i}", spu.output}}' for i, one in enumerate(inits)
    ]
    memrefs = f"func.func @main({', '.join(arguments)}) {{\n {op}\n func.return\n }}"
    on_tensors = run(tensors.replace("T<", "tensor<"), exact_f32=exact_f32, **feeds)
    on_memrefs = run(memrefs.replace("T<", "memref<"), exact_f32=exact_f32, **feeds)
    for a, b in zip(on_tensors.values(), on_memrefs.values(), strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()
    return list(on_tensors.values())


def f32(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def integers(low: int, high: int, *shape: int, dtype: Any = np.int64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


# ---- spu


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


# ---- vpu

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


def test_a_table_maps_bytes() -> None:
    x, table = integers(0, 256, 7, 5, dtype=np.uint8), integers(0, 256, 256, dtype=np.uint8, seed=1)
    (y,) = both("vpu.table %x, %t into %0 : $x, $t, $0", {"x": x, "t": table}, ((7, 5), np.uint8))
    np.testing.assert_array_equal(y, table[x])


# ---- memory and control


def test_tiles_of_an_arena_are_written_through_views() -> None:
    text = """
    func.func @main(%x: memref<?x8xf32> {onnx.name = "x", onnx.dim_params = "0:batch"},
        %out: memref<?x8xf32> {onnx.name = "y", spu.output, onnx.dim_params = "0:batch"}) {
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %c2 = arith.constant 2 : index
      %c32 = arith.constant 32 : index
      %c64 = arith.constant 64 : index
      %rows = memref.dim %x, %c0 : memref<?x8xf32>
      %bytes = arith.muli %rows, %c32 : index
      %all = arith.addi %bytes, %c64 : index
      %arena = antoum.arena %all : memref<?xi8, #antoum.space sram>
      %buffer = memref.view %arena[%c64][%rows]
          : memref<?xi8, #antoum.space sram> to memref<?x8xf32, #antoum.space sram>
      antoum.dma %x into %buffer : memref<?x8xf32>, memref<?x8xf32, #antoum.space sram>
      %tiles = arith.ceildivui %rows, %c2 : index
      "scf.parallel"(%c0, %tiles, %c1) <{operandSegmentSizes = array<i32: 1, 1, 1, 0>}> ({
      ^bb0(%t: index):
        %start = arith.muli %t, %c2 : index
        %left = arith.subi %rows, %start : index
        %count = arith.minsi %left, %c2 : index
        %in = memref.subview %buffer[%start, 0] [%count, 8] [1, 1]
            : memref<?x8xf32, #antoum.space sram>
            to memref<?x8xf32, strided<[8, 1], offset: ?>, #antoum.space sram>
        %to = memref.subview %out[%start, 0] [%count, 8] [1, 1]
            : memref<?x8xf32> to memref<?x8xf32, strided<[8, 1], offset: ?>>
        vpu.unary relu %in into %to : memref<?x8xf32, strided<[8, 1], offset: ?>,
            #antoum.space sram>, memref<?x8xf32, strided<[8, 1], offset: ?>>
        scf.reduce
      }) : (index, index, index) -> ()
      func.return
    }"""
    x = f32(5, 8)
    np.testing.assert_array_equal(run(text, x=x)["y"], np.maximum(x, 0))


def test_memory_is_poisoned_until_it_is_written() -> None:
    text = """
    func.func @main(%out: memref<4xi32> {onnx.name = "y", spu.output},
                    %other: memref<3xf32> {onnx.name = "z", spu.output}) {
      %new = memref.alloc() : memref<4xi32>
      %part = memref.subview %new[1] [2] [1]
          : memref<4xi32> to memref<2xi32, strided<[1], offset: 1>>
      antoum.fill 7 : i32 into %part : memref<2xi32, strided<[1], offset: 1>>
      "memref.copy"(%new, %out) : (memref<4xi32>, memref<4xi32>) -> ()
      func.return
    }"""
    result = run(text)
    poison = np.array([0xCDCDCDCD], np.uint32).view(np.int32)[0]
    assert result["y"].tolist() == [poison, 7, 7, poison]
    assert (result["z"].view(np.uint32) == 0xCDCDCDCD).all()


def test_views_of_views() -> None:
    text = """
    func.func @main(%x: memref<2x3x4xf32> {onnx.name = "x"},
        %a: memref<6x2xf32> {onnx.name = "a", spu.output},
        %b: memref<4xf32> {onnx.name = "b", spu.output},
        %c: memref<2x2xf32> {onnx.name = "c", spu.output}) {
      %rows = memref.collapse_shape %x [[0, 1], [2]] : memref<2x3x4xf32> into memref<6x4xf32>
      %odd = memref.subview %rows[0, 1] [6, 2] [1, 2]
          : memref<6x4xf32> to memref<6x2xf32, strided<[4, 2], offset: 1>>
      antoum.dma %odd into %a : memref<6x2xf32, strided<[4, 2], offset: 1>>, memref<6x2xf32>
      %row = memref.subview %x[1, 2, 0] [1, 1, 4] [1, 1, 1]
          : memref<2x3x4xf32> to memref<4xf32, strided<[1], offset: 20>>
      antoum.dma %row into %b : memref<4xf32, strided<[1], offset: 20>>, memref<4xf32>
      %corner = memref.reinterpret_cast %x to offset: [2], sizes: [2, 2], strides: [12, 1]
          : memref<2x3x4xf32> to memref<2x2xf32, strided<[12, 1], offset: 2>>
      antoum.dma %corner into %c : memref<2x2xf32, strided<[12, 1], offset: 2>>, memref<2x2xf32>
      func.return
    }"""
    x = f32(2, 3, 4)
    result = run(text, x=x)
    np.testing.assert_array_equal(result["a"], x.reshape(6, 4)[:, 1::2])
    np.testing.assert_array_equal(result["b"], x[1, 2])
    np.testing.assert_array_equal(result["c"], x[:, 0, 2:4])


def test_loops_carry_and_conditions_choose() -> None:
    text = """
    func.func @main(%x: memref<?xi64> {onnx.name = "x"},
        %out: memref<1xi64> {onnx.name = "y", spu.output}) {
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %zero = arith.constant 0 : i64
      %n = memref.dim %x, %c0 : memref<?xi64>
      %sum = scf.for %i = %c0 to %n step %c1 iter_args(%acc = %zero) -> (i64) {
        %v = memref.load %x[%i] : memref<?xi64>
        %positive = arith.cmpi sgt, %v, %zero : i64
        %add = scf.if %positive -> (i64) {
          scf.yield %v : i64
        } else {
          scf.yield %zero : i64
        }
        %next = arith.addi %acc, %add : i64
        scf.yield %next : i64
      }
      memref.store %sum, %out[%c0] : memref<1xi64>
      func.return
    }"""
    x = integers(-50, 50, 13)
    assert run(text, x=x)["y"].tolist() == [int(x[x > 0].sum())]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "%v = memref.load %x[%c9] : memref<2x3xf32>",
            r"element \[9, 0\] is not within shape \[2, 3\]",
        ),
        (
            "%v = memref.subview %x[1, 0] [%c9, 3] [1, 1] : memref<2x3xf32> to "
            "memref<?x3xf32, strided<[3, 1], offset: 3>>",
            "axis 0: positions 1 to 9 are not within 2",
        ),
        (
            "%a = antoum.arena %c9 : memref<?xi8>\n"
            "%v = memref.view %a[%c1][] : memref<?xi8> to memref<4xf32>",
            "bytes 1 to 17 are not within 9",
        ),
        (
            "%v = memref.reinterpret_cast %x to offset: [3], sizes: [4], strides: [1] "
            ": memref<2x3xf32> to memref<4xf32, strided<[1], offset: 3>>",
            "elements 3 to 6 are not within 6",
        ),
        (
            "%s = memref.subview %x[0, 0] [2, 2] [1, 1] : memref<2x3xf32> to "
            "memref<2x2xf32, strided<[3, 1]>>\n"
            "%v = memref.collapse_shape %s [[0, 1]] : memref<2x2xf32, strided<[3, 1]>> into "
            "memref<4xf32>",
            r"shape \[4\] is not a view of shape \[2, 2\]",
        ),
    ],
)
def test_nothing_outside_a_buffer_is_touched(body: str, message: str) -> None:
    text = f"""
    func.func @main(%x: memref<2x3xf32> {{onnx.name = "x"}}) {{
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %c9 = arith.constant 9 : index
      {body}
      func.return
    }}""".replace("[%c9] :", "[%c9, %c0] :")
    with pytest.raises(InterpretationError, match=message):
        run(text, x=f32(2, 3))


# ---- whole functions

SCALE = """
func.func @main(%x: tensor<?x4xf32> {onnx.name = "x", onnx.dim_params = "0:batch"},
                %y: tensor<?x4xf32> {onnx.name = "y", onnx.dim_params = "0:batch"})
    -> (tensor<?x4xf32> {onnx.name = "sum"}) {
  %c0 = arith.constant 0 : index
  %batch = tensor.dim %x, %c0 : tensor<?x4xf32>
  %init = tensor.empty(%batch) : tensor<?x4xf32>
  %twice = vpu.binary add %x, %x into %init
      : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  %sum = vpu.binary add %twice, %y into %init
      : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  func.return %sum : tensor<?x4xf32>
}
"""


def test_outputs_have_their_names_and_are_the_callers_own() -> None:
    x, y = f32(3, 4), f32(3, 4, seed=1)
    result = run(SCALE, x=x, y=y)
    assert list(result) == ["sum"]
    np.testing.assert_array_equal(result["sum"], x + x + y)
    text = """
    func.func @main(%x: tensor<4xf32>) -> (tensor<2x2xf32>) {
      %init = tensor.empty() : tensor<2x2xf32>
      %y = vpu.reshape %x into %init : tensor<4xf32>, tensor<2x2xf32> -> tensor<2x2xf32>
      func.return %y : tensor<2x2xf32>
    }"""
    x = f32(4)
    (view,) = run(text, arg0=x).values()
    assert not np.may_share_memory(view, x)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"x": f32(2, 4)}, "input 'y' is missing"),
        (
            {"x": f32(2, 4), "y": f32(2, 4), "z": f32(1)},
            r"'z' is not an input; the inputs are \['x', 'y'\]",
        ),
        (
            {"x": f32(2, 4).astype(np.float64), "y": f32(2, 4)},
            "input 'x' must have dtype float32, got float64",
        ),
        ({"x": f32(2, 5), "y": f32(2, 4)}, r"input 'x' must have shape \[\?, 4\], got \[2, 5\]"),
        (
            {"x": f32(2, 4), "y": f32(3, 4)},
            "input 'y' has extent 'batch' = 3, another has 2",
        ),
    ],
)
def test_feeds_that_do_not_fit(feeds: Arrays, message: str) -> None:
    with pytest.raises(SpuError, match=message):
        run(SCALE, **feeds)


def test_a_listener_sees_every_value() -> None:
    ctx, seen = context(), dict[str, np.ndarray]()

    def listener(op: Any, results: Sequence[Any]) -> None:
        for result, value in zip(op.results, results, strict=True):
            seen[str(result.name_hint)] = value

    x = f32(3, 4)
    interpret(parse(SCALE, ctx), ctx, {"x": x, "y": x}, listener=listener)
    assert seen["batch"] == 3
    np.testing.assert_array_equal(seen["twice"], x + x)


def test_values_are_forgotten_after_their_last_use() -> None:
    ctx = context()
    alive: list[weakref.ref[np.ndarray]] = []
    counts: list[int] = []

    def listener(op: Any, results: Sequence[Any]) -> None:
        if op.name == "vpu.unary":
            alive.append(weakref.ref(results[0]))
            gc.collect()
            counts.append(sum(one() is not None for one in alive))

    chain = "\n".join(
        f"%{i + 1} = vpu.unary exp %{i} into %init : tensor<4xf32>, tensor<4xf32> -> tensor<4xf32>"
        for i in range(1, 9)
    )
    text = f"""
    func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32>) {{
      %init = tensor.empty() : tensor<4xf32>
      %1 = vpu.unary neg %x into %init : tensor<4xf32>, tensor<4xf32> -> tensor<4xf32>
      {chain}
      func.return %9 : tensor<4xf32>
    }}"""
    interpret(parse(text, ctx), ctx, {"arg0": -np.abs(f32(4))}, listener=listener)
    assert len(counts) == 9
    assert max(counts) <= 2


def test_constants_come_from_the_store() -> None:
    ctx = context()
    array = f32(5, 7)
    handle = store_of(ctx).put(array)
    text = f"""
    func.func @main() -> (tensor<5x7xf32>) {{
      %w = antoum.constant {handle} : tensor<5x7xf32>
      func.return %w : tensor<5x7xf32>
    }}"""
    (result,) = interpret(parse(text, ctx), ctx, {}).values()
    np.testing.assert_array_equal(result, array)
