"""Outlier columns move into weights: nothing changes in f32, and INT8 errs less."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import MODELS, SHAPES, feeds
from support.nets import Net
from support.networks import error, normal, products, weights
from xdsl.ir import SSAValue

import spu_ir
from spu_ir.dialects.spu import MatmulOp
from spu_ir.dialects.types import DYNAMIC, Array, shape_of
from spu_ir.dialects.vpu import BinaryFn, LayerNormOp
from spu_ir.errors import SpuError
from spu_ir.interpreters import interpret
from spu_ir.transforms.column_balance import LARGEST, balanced, factors
from spu_ir.transforms.quantise import QuantisePass, quantised_weight
from spu_ir.transforms.round_weights import as_int8
from spu_ir.transforms.smooth_activations import groups_of, smooth_activations

WIDTH = 96


def layer_norm(net: Net, x: SSAValue, beta: Array | None = None, outlier: float = 30.0) -> SSAValue:
    """A normalisation of which two columns are much larger than the others."""
    gamma = np.ones(WIDTH, np.float32)
    gamma[[3, 50]] = outlier
    op = LayerNormOp(
        x,
        net.constant(gamma),
        None if beta is None else net.constant(beta),
        net.empty(shape_of(x)),
        epsilon=1e-5,
    )
    return net.builder.insert(op).results[0]


def network() -> Net:
    """Two layers of a transformer without attention: normalise, two products, a residual."""
    net = Net((DYNAMIC, WIDTH))
    x = net.inputs[0]
    for layer in range(2):
        x = layer_norm(net, x, normal(WIDTH, seed=layer))
        h = net.matmul(x, weights(128, WIDTH, seed=layer), f"up{layer}")
        g = net.matmul(x, weights(128, WIDTH, seed=layer + 2), f"gate{layer}")
        h = net.matmul(net.binary(BinaryFn.MUL, h, g), weights(WIDTH, 128, seed=7), f"down{layer}")
        x = net.binary(BinaryFn.ADD, h, x)
    net.finish(x)
    return net


def test_the_network_is_the_same_and_int8_is_nearer_to_it() -> None:
    inputs = [{"x0": normal(8, WIDTH, seed=seed)} for seed in (1, 2)]
    other = {"x0": normal(64, WIDTH, seed=3)}
    expected = interpret(network().module, network().ctx, other)["y0"]
    errors: list[float] = []
    for smooth in (False, True):
        net = network()
        if smooth:
            smooth_activations(net.module, net.ctx, inputs)
            net.module.verify()
            assert error(interpret(net.module, net.ctx, other)["y0"], expected) < 1e-5
        QuantisePass("dynamic").apply(net.ctx, net.module)
        errors.append(error(interpret(net.module, net.ctx, other)["y0"], expected))
    assert errors[1] < 0.6 * errors[0]


def test_only_products_read_what_was_divided() -> None:
    net = network()
    before = sum(isinstance(op, LayerNormOp) for op in net.module.walk())
    smooth_activations(net.module, net.ctx, [{"x0": normal(8, WIDTH)}])
    norms = [op for op in net.module.walk() if isinstance(op, LayerNormOp)]
    assert len(norms) == 2 * before
    readers = [{type(use.operation) for use in norm.results[0].uses} for norm in norms]
    assert sum(kinds == {MatmulOp} for kinds in readers) == before
    assert sum(MatmulOp not in kinds for kinds in readers) == before


def test_norms_that_share_weights_share_factors() -> None:
    net = Net((4, WIDTH))
    shared = net.constant(weights(WIDTH, WIDTH))
    x = net.matmul(layer_norm(net, net.inputs[0]), shared, "a")
    x = net.matmul(layer_norm(net, x, outlier=90.0), shared, "b")
    net.finish(x)
    assert [len(group.norms) for group in groups_of(net.module)] == [2]
    smooth_activations(net.module, net.ctx, [{"x0": normal(4, WIDTH)}])
    assert len({op.weight for op in products(net.module)}) == 1


def test_a_weight_that_something_else_uses_stays() -> None:
    net = Net((4, WIDTH))
    shared = net.constant(weights(WIDTH, WIDTH))
    x = net.matmul(net.inputs[0], shared, "first")
    net.finish(net.matmul(layer_norm(net, x), shared, "second"))
    assert groups_of(net.module) == []
    before = str(net.module)
    smooth_activations(net.module, net.ctx, [{"x0": normal(4, WIDTH)}])
    assert str(net.module) == before


@given(
    peaks=st.lists(st.floats(0, 1e4), min_size=3, max_size=3),
    columns=st.lists(st.floats(0, 1e4, width=32), min_size=3, max_size=3),
    strength=st.floats(0, 1),
)
def test_factors_are_positive_and_spare_columns_of_zeros(
    peaks: list[float], columns: list[float], strength: float
) -> None:
    found = factors(np.array(peaks), [np.array([columns], np.float32)], strength)
    assert found.dtype == np.float32
    assert (found >= 0.999 / LARGEST).all()
    assert (found <= 1.001 * LARGEST).all()
    for factor, peak, column in zip(found, peaks, columns, strict=True):
        assert factor == 1 or min(peak, column) > 0


def test_what_is_wrong_is_said() -> None:
    net = network()
    with pytest.raises(SpuError, match="nothing to smooth activations with"):
        smooth_activations(net.module, net.ctx, [])
    with pytest.raises(SpuError, match="smoothing needs calibration data"):
        spu_ir.compile(MODELS["block"](), shapes=SHAPES["block"], smoothing=True)


def test_a_model_with_everything() -> None:
    calibration = [feeds("block", seed, 2, 9) for seed in range(2)]
    model = spu_ir.compile(
        MODELS["block"](),
        shapes=SHAPES["block"],
        precision="mixed",
        calibration=calibration,
        smoothing=True,
        bias_correction=True,
        sparsity=2,
        budget=0.3,
    )
    assert model.options["smoothing"] is True
    assert isinstance(model.options["estimated_error"], float)
    rows = [row for row in model.report() if row["op"] == "spu.matmul"]
    assert {"int8", "bf16"} <= {str(row["precision"]) for row in rows}
    assert np.isfinite(model.run(calibration[0])["y"]).all()


def test_balance_errs_less_than_the_peaks_alone() -> None:
    """Columns of several sizes, with means far from zero, and one that is rarely large."""
    x = normal(1024, WIDTH, seed=1) * np.exp(normal(WIDTH, seed=2)) + 3 * normal(WIDTH, seed=3)
    x[::50, 7] *= 20
    x[:, 11] = 0
    train, other = x[::2].astype(np.float32), x[1::2].astype(np.float32)
    arrays = [weights(64, WIDTH, seed=4), weights(32, WIDTH, seed=5)]

    def noise(divisors: Array, shifts: Array) -> float:
        """What rounding rows and weights adds to products of rows that were not looked at."""
        rows, squares = (other - shifts) / divisors, 0.0
        for array in arrays:
            values, scale = quantised_weight(array * divisors)
            wrong = as_int8(rows, 128) @ (values * scale[:, None]).T - rows @ (array * divisors).T
            squares += float((wrong**2).sum() / ((other @ array.T) ** 2).sum())
        return squares**0.5

    zeros = np.zeros(WIDTH, np.float32)
    plain = factors(np.abs(train).max(axis=0).astype(float), arrays, 0.5)
    held, none = balanced(train, arrays, shifted=False, share=1.0)
    divisors, shifts = balanced(train, arrays, shifted=True, share=1.0)
    assert not none.any()
    assert divisors[11] == 1
    assert shifts[11] == 0
    assert noise(held, zeros) < 0.95 * noise(plain, zeros)
    assert noise(divisors, shifts) < 0.7 * noise(plain, zeros)


def test_shifts_become_part_of_biases() -> None:
    """With enough rows columns are shifted, and the network is still the same in f32."""
    inputs = [{"x0": normal(300, WIDTH, seed=seed)} for seed in (1, 2)]
    other = {"x0": normal(64, WIDTH, seed=3)}
    net = network()
    expected = interpret(net.module, net.ctx, other)["y0"]
    assert all(op.bias is None for op in products(net.module))
    smooth_activations(net.module, net.ctx, inputs)
    net.module.verify()
    assert sum(op.bias is not None for op in products(net.module)) == 4
    assert error(interpret(net.module, net.ctx, other)["y0"], expected) < 1e-5
