"""Second-order rounding: outputs change less than by plain rounding, on grids found again."""

from __future__ import annotations

import numpy as np
import pytest
from support.models import MODELS, SHAPES, feeds
from support.nets import Net
from support.networks import error, normal, products, transformer, weights
from xdsl.dialects.builtin import ModuleOp

import spu_ir
from spu_ir.dialects.spu import MatmulOp
from spu_ir.dialects.types import DYNAMIC, Array
from spu_ir.dialects.vpu import QuantiseRowsOp
from spu_ir.dialects.weights import store_of
from spu_ir.errors import SpuError
from spu_ir.interpreters import interpret
from spu_ir.transforms.quantise import QuantisePass, quantised_weight
from spu_ir.transforms.rewriting import constant_of
from spu_ir.transforms.round_weights import round_weights
from spu_ir.transforms.row_zeros import best_zero, choose_row_zero, row_zero
from spu_ir.transforms.second_order_rounding import rounded

BASIS = normal(12, 96, seed=9)


def correlated(rows: int, seed: int) -> Array:
    """Inputs `[rows, 5, 96]` near to a space of 12 dimensions, with a mean."""
    x = normal(rows, 5, 12, seed=seed) @ BASIS + np.float32(0.1) * normal(rows, 5, 96, seed=seed)
    return (x + normal(96, seed=5)).astype(np.float32)


@pytest.mark.parametrize("depth", [96, 640])
@pytest.mark.parametrize("kept", [1.0, 0.3])
def test_outputs_are_nearer_and_the_grid_is_found_again(depth: int, kept: float) -> None:
    basis = normal(depth // 8, depth, seed=1)
    x = normal(4 * depth, depth // 8, seed=2) @ basis + normal(4 * depth, depth, seed=3)
    weight = weights(24, depth)
    weight[np.abs(normal(24, depth, seed=4)) > 3 * kept] = 0
    weight[5] = 0
    found = rounded(weight, (x.T @ x).astype(np.float64))
    values, scale = quantised_weight(found)
    np.testing.assert_allclose(values * scale[:, None], found, rtol=1e-5, atol=1e-9)
    assert not found[weight == 0].any()
    nearest, plain = quantised_weight(weight)
    by_nearest = x @ (nearest * plain[:, None] - weight).T
    assert np.linalg.norm(x @ (found - weight).T) < 0.7 * np.linalg.norm(by_nearest)


def test_an_input_without_a_direction_is_rounded_to_the_nearest() -> None:
    weight = weights(8, 32)
    values, scale = quantised_weight(weight)
    found = rounded(weight, np.zeros((32, 32)))
    np.testing.assert_array_equal(found, values * scale[:, None])


def quantised_error(net: Net, expected: Array, x: Array) -> float:
    QuantisePass("dynamic").apply(net.ctx, net.module)
    net.module.verify()
    return error(interpret(net.module, net.ctx, {"x0": x})["y0"], expected)


def test_a_network_in_int8_is_nearer_on_other_inputs() -> None:
    seen = [{"x0": correlated(32, seed)} for seed in (1, 2, 3)]
    x = correlated(64, 7)
    expected = interpret(transformer().module, transformer().ctx, {"x0": x})["y0"]
    plain = quantised_error(transformer(), expected, x)
    net = transformer()
    done: list[int] = []
    round_weights(net.module, net.ctx, seen, progress=done.append)
    assert done == list(range(1, len(products(net.module)) + 1))
    assert quantised_error(net, expected, x) < 0.9 * plain


def outputs_mean(module: ModuleOp, net: Net, x: Array) -> Array:
    return interpret(module, net.ctx, {"x0": x})["y0"].mean(axis=(0, 1), dtype=np.float64)


def test_the_mean_of_every_channel_is_that_of_f32() -> None:
    def one() -> Net:
        net = Net((DYNAMIC, 5, 96))
        net.module = net.finish(net.matmul(net.inputs[0], weights(24, 96), "only"))
        return net

    x = correlated(32, 1)
    net = one()
    expected = outputs_mean(net.module, net, x)
    round_weights(net.module, net.ctx, [{"x0": x}])
    QuantisePass("dynamic").apply(net.ctx, net.module)
    np.testing.assert_allclose(outputs_mean(net.module, net, x), expected, atol=1e-5)


def test_weights_of_several_products_and_layers_in_bf16_stay() -> None:
    net = Net((DYNAMIC, 5, 96))
    shared = net.constant(weights(96, 96))
    y = net.matmul(net.matmul(net.inputs[0], shared, "a"), shared, "b")
    net.module = net.finish(net.matmul(y, weights(8, 96), "c"))
    round_weights(net.module, net.ctx, [{"x0": correlated(64, 1)}])
    a, b, c = products(net.module)
    assert isinstance(a, MatmulOp)
    assert a.weight is b.weight
    store = store_of(net.ctx)
    kept, changed = constant_of(a.weight, store), constant_of(c.weight, store)
    assert kept is not None
    assert changed is not None
    np.testing.assert_array_equal(kept, weights(96, 96))
    assert (changed != weights(8, 96)).any()


@pytest.mark.parametrize(("rows", "enough"), [(191, False), (192, True)])
def test_few_rows_are_rounded_to_the_nearest(rows: int, enough: bool) -> None:
    """Fitted to fewer rows than two for each of 96 inputs, weights would suit only these."""
    net = Net((DYNAMIC, 96))
    net.module = net.finish(net.matmul(net.inputs[0], weights(8, 96), "only"))
    x = correlated(39, 1).reshape(-1, 96)[:rows]
    expected = interpret(net.module, net.ctx, {"x0": x})["y0"]
    round_weights(net.module, net.ctx, [{"x0": x}])
    (op,) = products(net.module)
    weight = constant_of(op.weight, store_of(net.ctx))
    assert weight is not None
    assert (weight == weights(8, 96)).all() == (not enough)
    # The bias takes the mean error all the same.
    QuantisePass("dynamic").apply(net.ctx, net.module)
    got = interpret(net.module, net.ctx, {"x0": x})["y0"]
    np.testing.assert_allclose(got.mean(axis=0), expected.mean(axis=0), atol=1e-5)


def test_rows_of_a_gelu_get_the_zero_point_with_the_finest_steps() -> None:
    far: Array = np.array([[-0.17, 20.0], [-0.1, 15.0]], np.float32)
    near: Array = np.array([[-0.17, 0.5]], np.float32)
    assert best_zero([far]) < 10
    assert best_zero([near]) == 40
    assert best_zero([np.zeros((2, 3), np.float32)]) == 40
    net = transformer()
    down = products(net.module)[-1]
    assert row_zero(down.x) == 40
    choose_row_zero(down.x, [far, far])
    assert row_zero(down.x) == best_zero([far])
    choose_row_zero(down.x, [near])
    assert row_zero(down.x) == best_zero([far])
    choose_row_zero(products(net.module)[0].x, [near])
    assert row_zero(products(net.module)[0].x) == 128
    QuantisePass("dynamic").apply(net.ctx, net.module)
    zeros = {op.zero.value.data for op in net.module.walk() if isinstance(op, QuantiseRowsOp)}
    assert zeros == {128, best_zero([far])}


def test_what_is_wrong_is_said() -> None:
    net = transformer()
    with pytest.raises(SpuError, match="nothing to round weights with"):
        round_weights(net.module, net.ctx, [])
    with pytest.raises(SpuError, match="an activation is not finite"):
        round_weights(net.module, net.ctx, [{"x0": np.full((1, 5, 96), np.inf, np.float32)}])
    model, shapes = MODELS["block"](), SHAPES["block"]
    with pytest.raises(SpuError, match="second-order rounding needs calibration data"):
        spu_ir.compile(model, shapes=shapes, rounding="second-order")
    with pytest.raises(SpuError, match="second-order rounding is for INT8"):
        spu_ir.compile(model, shapes=shapes, rounding="second-order", precision="bf16")
    with pytest.raises(SpuError, match="corrects biases itself"):
        spu_ir.compile(
            model,
            shapes=shapes,
            rounding="second-order",
            bias_correction=True,
            calibration=[feeds("block", 0, 2, 9)],
        )


def test_a_model_with_everything() -> None:
    calibration = [feeds("block", seed, 2, 9) for seed in range(2)]
    model = spu_ir.compile(
        MODELS["block"](),
        shapes=SHAPES["block"],
        calibration=calibration,
        smoothing=True,
        rounding="second-order",
        sparsity=2,
    )
    assert model.options["rounding"] == "second-order"
    assert np.isfinite(model.run(calibration[0])["y"]).all()
