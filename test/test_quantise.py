"""Calibration, the QDQ form and its integers, against the f32 network and ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from support.nets import Net
from support.networks import cnn, error, normal, products, run, transformer, weights
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr, i8
from xdsl.transforms.common_subexpression_elimination import CommonSubexpressionElimination

from spu_ir.dialects.types import DYNAMIC, Array, element_of, ui8
from spu_ir.dialects.vpu import DequantiseOp, PoolOp, QuantiseOp, QuantiseRowsOp, UnaryFn
from spu_ir.dialects.weights import store_of
from spu_ir.errors import SpuError
from spu_ir.frontend import import_model
from spu_ir.interpreters import interpret
from spu_ir.transforms.calibrate import calibrate, range_of, read_feeds
from spu_ir.transforms.convert_bf16 import ConvertBf16Pass
from spu_ir.transforms.encode import EncodePass
from spu_ir.transforms.expand_quantised import ExpandQuantisedPass
from spu_ir.transforms.fold_constants import FoldConstantsPass
from spu_ir.transforms.fold_qdq import FoldQdqPass
from spu_ir.transforms.fuse_epilogue import FuseEpiloguePass
from spu_ir.transforms.infer_shapes import InferShapesPass
from spu_ir.transforms.lower_onnx import LowerOnnxPass
from spu_ir.transforms.quantise import QuantisePass, affine, quantised_weight
from spu_ir.transforms.rewriting import constant_of
from spu_ir.transforms.upgrade_opset import UpgradeOpsetPass


def count(module: ModuleOp, *kinds: type) -> int:
    return sum(isinstance(op, kinds) for op in module.walk())


# ---- calibration


def test_ranges_cover_every_feed_and_zero() -> None:
    net = cnn()
    feeds = [{"x0": normal(n, 16, 16, 3, seed=n)} for n in (1, 2, 3)]
    done: list[int] = []
    calibrate(net.module, net.ctx, feeds, done.append)
    assert done == [1, 2, 3]
    low = min(float(feed["x0"].min()) for feed in feeds)
    high = max(float(feed["x0"].max()) for feed in feeds)
    assert range_of(net.inputs[0]) == (low, high)
    for op in products(net.module):
        found = range_of(op.results[0])
        assert found is not None
        assert found[0] <= 0 <= found[1]
        assert (found[0] == 0) == ("relu" in str(op.activation))
    net.module.verify()


def test_calibration_needs_a_feed() -> None:
    net = cnn()
    with pytest.raises(SpuError, match="nothing to calibrate with; pass at least one feed"):
        calibrate(net.module, net.ctx, [])


def test_feeds_of_a_file(tmp_path: Path) -> None:
    one, many = tmp_path / "one.npz", tmp_path / "many.npz"
    np.savez(one, a=np.zeros(2), b=np.ones(3))
    np.savez(many, **{"0/a": np.zeros(2), "1/a": np.ones(2)})
    assert [sorted(feed) for feed in read_feeds(str(one))] == [["a", "b"]]
    assert [float(feed["a"][0]) for feed in read_feeds(str(many))] == [0.0, 1.0]
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, a=np.array([{}], dtype=object))
    with pytest.raises(SpuError, match="cannot be read"):
        read_feeds(str(pickled))


# ---- grids


@given(
    low=st.floats(-1e6, 1e6, width=32),
    high=st.floats(-1e6, 1e6, width=32),
)
def test_a_grid_holds_its_range_and_zero(low: float, high: float) -> None:
    scale, zero = affine(min(low, high), max(low, high))
    step, origin = float(scale), int(zero)
    assert step > 0
    first, last = -origin * step, (255 - origin) * step
    slack = 0.51 * step
    assert first <= min(low, high, 0.0) + slack
    assert last >= max(low, high, 0.0) - slack


def test_weights_keep_their_zeros_and_signs() -> None:
    weight = weights(8, 40)
    weight[3] = 0
    weight[:, 7] = 0
    weight[5] = np.float32(1e-44)
    values, scale = quantised_weight(weight)
    assert values.dtype == np.int8
    assert scale.dtype == np.float32
    assert (values[:, 7] == 0).all()
    assert scale[3] == 1
    assert (np.abs(values).max(axis=1)[[0, 1, 2, 4, 6, 7]] >= 108).all()
    real = values * scale[:, None]
    assert (np.abs(real - weight) <= scale[:, None] * 0.5001).all()


@pytest.mark.parametrize(("kept", "gain"), [(27, 1.1), (48, 1.05), (300, 1.0)])
def test_a_row_of_few_weights_has_the_step_that_suits_them(kept: int, gain: float) -> None:
    weight = weights(64, 600)
    weight[:, kept:] = 0
    values, scale = quantised_weight(weight)
    largest = np.abs(weight).max(axis=1, keepdims=True) / 127
    plain = np.rint(weight / largest) * largest
    assert error(values * scale[:, None], weight) * gain <= error(plain, weight)
    many = weights(4, 600)
    np.testing.assert_array_equal(
        quantised_weight(many)[1], np.abs(many).max(axis=1) / np.float32(127)
    )


def test_weights_on_a_grid_stay_on_it() -> None:
    grid = np.random.default_rng(0).integers(-120, 121, (8, 100)).astype(np.float32)
    values, scale = quantised_weight(grid * np.float32(2.0**-9))
    np.testing.assert_array_equal(values * scale[:, None], grid * np.float32(2.0**-9))


# ---- whole networks


def test_a_dynamic_transformer() -> None:
    net = transformer()
    x = normal(2, 5, 96, seed=9)
    reference = run(net, x)
    QuantisePass().apply(net.ctx, net.module)
    qdq = run(net, x)
    assert 1e-4 < error(qdq, reference) < 0.02
    FoldQdqPass().apply(net.ctx, net.module)
    assert error(run(net, x), qdq) < 1e-5
    # q, k and v share one quantised input; the residuals stay f32.
    assert count(net.module, QuantiseRowsOp) == 4
    assert count(net.module, QuantiseOp, DequantiseOp) == 0
    for op in products(net.module):
        assert (element_of(op.x), element_of(op.weight)) == (ui8, i8)
        assert op.row_scale is not None
        layer = op.attributes["layer"]
        assert op.x_zero.value.data == (40 if layer == StringAttr("down") else 128)
    before = run(net, x)
    EncodePass().apply(net.ctx, net.module)
    np.testing.assert_array_equal(run(net, x), before)


@pytest.mark.parametrize(
    ("fn", "zero", "gain"),
    [(UnaryFn.RELU, 0, 1.8), (UnaryFn.GELU, 40, 1.5), (UnaryFn.SILU, 40, 1.5)],
)
def test_rows_of_an_activation_have_a_finer_grid(fn: UnaryFn, zero: int, gain: float) -> None:
    """The zero point is where the function's least value needs it, not in the middle."""

    def made(fn: UnaryFn) -> Net:
        net = Net((DYNAMIC, 96))
        hidden = net.unary(fn, net.matmul(net.inputs[0], weights(256, 96), "up"))
        net.module = net.finish(hidden, net.matmul(hidden, np.eye(256, dtype=np.float32), "down"))
        FuseEpiloguePass().apply(net.ctx, net.module)
        return net

    net, x = made(fn), 3 * normal(8, 96, seed=9)
    QuantisePass().apply(net.ctx, net.module)
    rows = [op for op in net.module.walk() if isinstance(op, QuantiseRowsOp)]
    assert [op.zero.value.data for op in rows] == [128, zero]
    FoldQdqPass().apply(net.ctx, net.module)
    assert [op.x_zero.value.data for op in products(net.module)] == [128, zero]
    results = interpret(net.module, net.ctx, {"x0": x})
    hidden, got = results["y0"], results["y1"]
    peak = np.abs(hidden).max(axis=1, keepdims=True)
    symmetric = np.rint(hidden * 127 / peak) * peak / 127
    assert error(got, hidden) * gain < error(symmetric, hidden)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_static_cnn(batch: int) -> None:
    net = cnn()
    x = normal(batch, 16, 16, 3, seed=9)
    reference = run(net, x)
    calibrate(net.module, net.ctx, [{"x0": x}])
    QuantisePass().apply(net.ctx, net.module)
    qdq = run(net, x)
    assert 1e-4 < error(qdq, reference) < 0.03
    FoldQdqPass().apply(net.ctx, net.module)
    CommonSubexpressionElimination().apply(net.ctx, net.module)
    folded = run(net, x)
    assert error(folded, qdq) < 1e-3
    # Only the image and the pooled vector are quantised by an op of their own.
    assert count(net.module, QuantiseOp) == 2
    assert count(net.module, DequantiseOp, QuantiseRowsOp) == 0
    pools = [op for op in net.module.walk() if isinstance(op, PoolOp)]
    assert [element_of(op.x) for op in pools] == [ui8]
    outs = {op.attributes["layer"]: element_of(op.init) for op in products(net.module)}
    f32_layers = {layer.data for layer, kind in outs.items() if kind != ui8}
    assert f32_layers == {"e", "fc"}
    assert all(element_of(op.x) == ui8 for op in products(net.module))


def test_a_static_transformer() -> None:
    net = transformer()
    x = normal(2, 5, 96, seed=9)
    reference = run(net, x)
    calibrate(net.module, net.ctx, [{"x0": x}])
    QuantisePass("static").apply(net.ctx, net.module)
    assert error(run(net, x), reference) < 0.05
    FoldQdqPass().apply(net.ctx, net.module)
    assert error(run(net, x), reference) < 0.05
    assert all(op.row_scale is None for op in products(net.module))


def test_a_dynamic_cnn_leaves_its_convolutions() -> None:
    net = cnn()
    x = normal(1, 16, 16, 3, seed=9)
    reference = run(net, x)
    QuantisePass("dynamic").apply(net.ctx, net.module)
    FoldQdqPass().apply(net.ctx, net.module)
    assert error(run(net, x), reference) < 0.02
    for op in products(net.module):
        if op.name == "spu.conv":
            assert "needs calibration" in str(op.attributes["fallback_reason"])
        else:
            assert element_of(op.x) == ui8


def test_an_output_that_is_also_returned_stays_exact() -> None:
    net = Net((1, 4, 4, 8))
    y = net.conv(net.inputs[0], weights(8, 1, 1, 8), "first")
    z = net.conv(y, weights(8, 1, 1, 8, seed=1), "second")
    net.module = net.finish(y, z)
    x = normal(1, 4, 4, 8)
    calibrate(net.module, net.ctx, [{"x0": x}])
    QuantisePass().apply(net.ctx, net.module)
    FoldQdqPass().apply(net.ctx, net.module)
    net.module.verify()
    results = interpret(net.module, net.ctx, {"x0": x})
    steps = results["y0"] / (np.ptp(np.append(results["y0"], 0)) / 255)
    assert np.abs(steps - np.rint(steps)).max() > 0.01, "the returned value is on a grid"


def test_a_weight_that_is_not_finite_names_its_layer() -> None:
    net = Net((2, 64))
    weight = weights(8, 64)
    weight[3, 4] = np.nan
    module = net.finish(net.matmul(net.inputs[0], weight, "broken"))
    with pytest.raises(SpuError, match=r"node 'broken' \(spu.matmul\): a weight is not finite"):
        QuantisePass().apply(net.ctx, module)


def test_bf16_rounds_products_only() -> None:
    net = transformer()
    x = normal(2, 5, 96, seed=9)
    reference = run(net, x)
    ConvertBf16Pass(chain=False).apply(net.ctx, net.module)
    apart = run(net, x)
    assert 1e-4 < error(apart, reference) < 0.01
    chained = transformer()
    ConvertBf16Pass().apply(chained.ctx, chained.module)
    np.testing.assert_array_equal(run(chained, x), apart)


# ---- models that are quantised already


def test_sums_that_could_leave_int32_stay_f32() -> None:
    depth = 2**31 // (255 * 127) + 1
    net = Net((1, depth), elements=[ui8])
    store = store_of(net.ctx)
    x = net.dequantise(net.inputs[0], 0.5, 0)
    weight = net.dequantised(np.full((1, depth), 127, np.int8), np.array(1, np.float32))
    module = net.finish(net.matmul(x, weight))
    FoldQdqPass().apply(net.ctx, module)
    (op,) = products(module)
    reason = op.attributes["fallback_reason"]
    assert isinstance(reason, StringAttr)
    assert "beyond int32" in reason.data
    array = constant_of(op.weight, store)
    assert array is not None
    assert array.dtype == np.float32


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_moved_bytes_are_the_same_as_moved_numbers(dtype: str) -> None:
    net = Net((DYNAMIC, 4, 4, 8))
    zero = 3 if dtype == "uint8" else -100
    x = net.quantise(net.inputs[0], 0.05, zero, dtype)
    y = net.quantise(net.conv(x, weights(8, 1, 1, 8)), 0.05, zero, dtype)
    y = net.quantise(net.max_pool(y, 2, 2), 0.05, zero, dtype)
    net.module = net.finish(net.reshape(y, (DYNAMIC, 32)))
    feed = normal(2, 4, 4, 8)
    before = run(net, feed)
    FoldQdqPass().apply(net.ctx, net.module)
    np.testing.assert_array_equal(run(net, feed), before)
    # The last dequantise is left, and the product stays f32: its weight is not quantised.
    pools = [op for op in net.module.walk() if isinstance(op, PoolOp)]
    assert [element_of(op.x) for op in pools] == [ui8]


def ort_qdq_model(dtype: str, seed: int) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """x -> QDQ -> MatMul(DQ weight) -> Add(DQ bias) -> Relu -> QDQ, as quantisers write it."""
    rng = np.random.default_rng(seed)
    integer = TensorProto.UINT8 if dtype == "uint8" else TensorProto.INT8
    zero = np.array(120 if dtype == "uint8" else -8, dtype)
    arrays = {
        "xs": np.array(0.03, np.float32),
        "xz": zero,
        "ys": np.array(0.05, np.float32),
        "w": rng.integers(-127, 128, (70, 24)).astype(np.int8),
        "ws": rng.uniform(0.001, 0.01, 24).astype(np.float32),
        "wz": np.zeros(24, np.int8),
        "b": rng.integers(-500, 500, 24).astype(np.float32) * np.float32(1e-3),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1),
        helper.make_node("MatMul", ["xd", "wd"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "ys", "xz"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "qdq",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [6, 70])],
        [helper.make_tensor_value_info("y", integer, [6, 24])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, {"x": rng.standard_normal((6, 70)).astype(np.float32)}


def from_onnx(model: onnx.ModelProto) -> tuple[Context, ModuleOp]:
    """An ONNX model, lowered to the tensor level."""
    ctx = Context()
    module = import_model(model, ctx)
    graph = (UpgradeOpsetPass(), InferShapesPass(), ExpandQuantisedPass(), FoldConstantsPass())
    for each in (*graph, LowerOnnxPass(), FuseEpiloguePass()):
        each.apply(ctx, module)
    module.verify()
    return ctx, module


def onnxruntime_run(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    # Optimised, ONNX Runtime folds the float epilogue too, with other roundings.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(result) for result in session.run(None, feeds)]


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("seed", range(3))
def test_an_imported_qdq_model(dtype: str, seed: int) -> None:
    model, feeds = ort_qdq_model(dtype, seed)
    ctx, module = from_onnx(model)
    FoldQdqPass().apply(ctx, module)
    module.verify()
    (op,) = products(module)
    assert (element_of(op.x), element_of(op.weight)) == (ui8, i8)
    assert str(element_of(op.init)) == ("ui8" if dtype == "uint8" else "i8")
    ours = interpret(module, ctx, feeds)["y"].astype(int)
    (theirs,) = onnxruntime_run(model, feeds)
    # A sum exactly between two steps may round either way, because of float32's own rounding.
    assert np.abs(ours - theirs.astype(int)).max() <= 1
    assert (ours != theirs).mean() < 0.02


def matmul_integer_model() -> tuple[onnx.ModelProto, dict[str, Array]]:
    """What dynamic quantisers write: DynamicQuantizeLinear, MatMulInteger, Cast, Mul, Add."""
    rng = np.random.default_rng(3)
    arrays = {
        "w": rng.integers(-127, 128, (70, 24)).astype(np.int8),
        "ws": np.array(0.004, np.float32),
        "wz": np.array(0, np.int8),
        "b": rng.standard_normal(24).astype(np.float32),
    }
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        helper.make_node("MatMulInteger", ["xq", "w", "xz", "wz"], ["m"], name="integers"),
        helper.make_node("Cast", ["m"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["xs", "ws"], ["s"]),
        helper.make_node("Mul", ["f", "s"], ["r"]),
        helper.make_node("Add", ["r", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "dynamic",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [6, 70])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [6, 24])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, {"x": rng.standard_normal((6, 70)).astype(np.float32) + np.float32(0.5)}


def test_an_imported_matmul_integer_model() -> None:
    model, feeds = matmul_integer_model()
    ctx, module = from_onnx(model)
    FoldQdqPass().apply(ctx, module)
    module.verify()
    (op,) = products(module)
    assert (element_of(op.x), element_of(op.weight)) == (ui8, i8)
    assert count(module, DequantiseOp) == 0
    ours = interpret(module, ctx, feeds)["y"]
    (theirs,) = onnxruntime_run(model, feeds)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def qlinear_model() -> tuple[onnx.ModelProto, dict[str, Array]]:
    """QLinearConv with a bias and scales for each channel, then QLinearMatMul."""
    rng = np.random.default_rng(4)
    arrays = {
        "xs": np.array(0.03, np.float32),
        "xz": np.array(120, np.uint8),
        "cw": rng.integers(-127, 128, (5, 4, 3, 3)).astype(np.int8),
        "cs": rng.uniform(0.001, 0.01, 5).astype(np.float32),
        "cz": np.zeros(5, np.int8),
        "cb": rng.integers(-500, 500, 5).astype(np.int32),
        "ys": np.array(0.05, np.float32),
        "yz": np.array(100, np.uint8),
        "mw": rng.integers(0, 200, (6, 7)).astype(np.uint8),
        "ms": np.array(0.01, np.float32),
        "mz": np.array(99, np.uint8),
    }
    conv = ["x", "xs", "xz", "cw", "cs", "cz", "ys", "yz", "cb"]
    nodes = [
        helper.make_node("QLinearConv", conv, ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("QLinearMatMul", ["c", "ys", "yz", "mw", "ms", "mz", "ys", "yz"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "qlinear",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [2, 4, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [2, 5, 6, 7])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, {"x": rng.integers(0, 256, (2, 4, 6, 6)).astype(np.uint8)}


def test_an_imported_qlinear_model() -> None:
    model, feeds = qlinear_model()
    ctx, module = from_onnx(model)
    FoldQdqPass().apply(ctx, module)
    module.verify()
    assert [element_of(op.weight) for op in products(module)] == [i8, i8]
    assert next(iter(products(module))).attributes["layer"] == StringAttr("conv")
    ours = interpret(module, ctx, feeds)["y"].astype(int)
    (theirs,) = onnxruntime_run(model, feeds)
    assert np.abs(ours - theirs.astype(int)).max() <= 1
    assert (ours != theirs).mean() < 0.02
