"""Columns that no normalisation scales: the network stays the same in f32, and INT8 errs less."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper
from support.models import MODELS, SHAPES, feeds
from support.nets import Net
from support.networks import cnn, error, normal, products, weights
from xdsl.ir import SSAValue
from xdsl.parser import Parser

from spu_ir import api
from spu_ir.dialects.types import DYNAMIC, Array
from spu_ir.dialects.vpu import BinaryFn, BinaryOp, QuantiseRowsOp, UnaryFn, UnaryOp
from spu_ir.errors import SpuError
from spu_ir.interpreters import interpret
from spu_ir.quantisation import Quantisation
from spu_ir.runtime.build import build
from spu_ir.runtime.cpu import host_levels
from spu_ir.runtime.model import CompiledModel
from spu_ir.transforms.column_factors import balanced_factors, reach_of
from spu_ir.transforms.quantise import QuantisePass
from spu_ir.transforms.round_weights import as_int8
from spu_ir.transforms.row_zeros import row_zero, scaled_columns
from spu_ir.transforms.scale_columns import scale_columns, sharers_of

WIDTH, INNER = 32, 96


def outliers(*shape: int, seed: int) -> Array:
    """Weights of which two rows, and so two columns of what they yield, are far larger."""
    array = weights(*shape, seed=seed)
    array[[3, 20]] *= 12
    return array


def feed_forward(net: Net, x: SSAValue, seed: int = 0, down: SSAValue | None = None) -> SSAValue:
    """A feed-forward block with a GELU and a residual."""
    h = net.unary(UnaryFn.GELU, net.matmul(x, outliers(INNER, WIDTH, seed=seed), f"up{seed}"))
    weight = weights(WIDTH, INNER, seed=seed + 1) if down is None else down
    return net.binary(BinaryFn.ADD, net.matmul(h, weight, f"down{seed}"), x)


def network() -> Net:
    net = Net((DYNAMIC, WIDTH))
    net.module = net.finish(feed_forward(net, feed_forward(net, net.inputs[0]), 2))
    return net


def multiplications(net: Net) -> list[BinaryOp]:
    return [
        op
        for op in net.module.walk()
        if isinstance(op, BinaryOp) and scaled_columns(op.results[0]) is not None
    ]


def is_gelu(value: SSAValue) -> bool:
    return isinstance(value.owner, UnaryOp) and value.owner.fn.data is UnaryFn.GELU


SEEN = [{"x0": normal(300, WIDTH, seed=seed)} for seed in (1, 2)]
OTHER = {"x0": normal(64, WIDTH, seed=3)}


def test_the_network_is_the_same_and_int8_is_nearer_to_it() -> None:
    expected = interpret(network().module, network().ctx, OTHER)["y0"]
    errors: list[float] = []
    for scaled in (False, True):
        net = network()
        if scaled:
            assert scale_columns(net.module, net.ctx, SEEN) >= 2
            net.module.verify()
            assert error(interpret(net.module, net.ctx, OTHER)["y0"], expected) < 1e-5
            zeros = {row_zero(op.results[0]) for op in multiplications(net) if is_gelu(op.a)}
            assert zeros
            assert max(zeros) < 128
        QuantisePass("dynamic").apply(net.ctx, net.module)
        net.module.verify()
        errors.append(error(interpret(net.module, net.ctx, OTHER)["y0"], expected))
    assert errors[1] < 0.85 * errors[0]


def test_quantising_rows_takes_the_multiplication() -> None:
    net = network()
    scale_columns(net.module, net.ctx, SEEN)
    scaled = {op.a: op for op in multiplications(net)}
    QuantisePass("dynamic").apply(net.ctx, net.module)
    rows = [op for op in net.module.walk() if isinstance(op, QuantiseRowsOp)]
    with_columns = {op.x: op for op in rows if op.columns is not None}
    assert with_columns.keys() == scaled.keys()
    for value, op in with_columns.items():
        assert op.columns is scaled[value].b
        assert op.zero.value.data == row_zero(scaled[value].results[0])
        assert not list(scaled[value].results[0].uses)


def test_products_that_share_weights_share_factors() -> None:
    net = Net((DYNAMIC, WIDTH))
    down = net.constant(weights(WIDTH, INNER, seed=1))
    net.module = net.finish(feed_forward(net, feed_forward(net, net.inputs[0], 0, down), 2, down))
    assert sorted(len(each.products) for each in sharers_of(net.module)) == [1, 2]
    expected = interpret(net.module, net.ctx, OTHER)["y0"]
    assert scale_columns(net.module, net.ctx, SEEN) >= 1
    _, first, _, second = products(net.module)
    assert first.weight is second.weight
    assert first.weight is not down
    scaled = [scaled_columns(op.x) for op in (first, second)]
    assert [None if each is None else is_gelu(each[0]) for each in scaled] == [True, True]
    assert error(interpret(net.module, net.ctx, OTHER)["y0"], expected) < 1e-5


def test_what_would_not_gain_stays() -> None:
    """Even columns, a weight that something else uses, few rows, and static scales."""
    even = Net((DYNAMIC, WIDTH))
    h = even.unary(UnaryFn.TANH, even.matmul(even.inputs[0], weights(WIDTH, WIDTH), "a"))
    even.module = even.finish(even.matmul(h, weights(WIDTH, WIDTH, seed=1), "b"))
    shared = Net((DYNAMIC, WIDTH))
    weight = shared.constant(outliers(WIDTH, WIDTH, seed=1))
    h = shared.unary(UnaryFn.GELU, shared.matmul(shared.inputs[0], weight, "a"))
    shared.module = shared.finish(shared.matmul(h, weight, "b"))
    for net, calibration, mode in (
        (even, SEEN, "auto"),
        (shared, SEEN, "auto"),
        (network(), [{"x0": normal(200, WIDTH)}], "auto"),
        (network(), SEEN, "static"),
        (cnn(), [{"x0": normal(1, 16, 16, 3)}], "auto"),
    ):
        before = str(net.module)
        assert scale_columns(net.module, net.ctx, calibration, mode) == 0
        assert str(net.module) == before


@pytest.mark.parametrize("zero", [128, 0, 40, 10])
def test_reach_is_the_step_of_a_row(zero: int) -> None:
    x = normal(64, WIDTH, seed=1)
    if zero != 128:
        x = np.maximum(x, np.float32(-0.2)) if zero else np.abs(x)
    rounded = as_int8(x, zero)
    step = reach_of(x, zero).max(axis=1, keepdims=True) / 127
    assert np.abs(rounded - x).max() <= 0.5001 * step.max()
    assert (np.abs(rounded - x) / step).max() == pytest.approx(0.5, abs=0.02)


def test_factors_err_less_on_other_rows() -> None:
    x = np.maximum(normal(2048, WIDTH, seed=1) * np.exp(normal(WIDTH, seed=2)), np.float32(-0.17))
    train, other = x[::2], x[1::2]
    array = weights(48, WIDTH, seed=4)
    found = balanced_factors(train, [array], 40, share=0.0)
    assert found is not None

    def noise(factors: Array, zero: int) -> float:
        rows = as_int8(other * factors, zero) / factors
        return float(np.linalg.norm((rows - other) @ array.T))

    least = min(noise(np.ones(WIDTH, np.float32), zero) for zero in (40, 20, 10))
    measured = (noise(found.factors, found.zero) / least) ** 2
    assert measured < 0.9
    assert measured == pytest.approx(found.left, rel=0.25)
    assert balanced_factors(train[:100], [array], 40, share=0.0) is None
    assert balanced_factors(np.zeros_like(train), [array], 40, share=0.0) is None


def lopsided() -> ModelProto:
    """The transformer layer of which two columns of the GELU are far larger than the others."""
    model = MODELS["block"]()
    (up,) = [each for each in model.graph.initializer if list(each.dims) == [64, 128]]
    array = numpy_helper.to_array(up).copy()
    array[:, [3, 90]] *= 12
    up.CopyFrom(numpy_helper.from_array(array, up.name))
    return model


@pytest.mark.slow
def test_one_answer_at_every_stage_and_level(monkeypatch: pytest.MonkeyPatch) -> None:
    program, job = api.lower(
        lopsided(),
        quantisation=Quantisation("int8", smoothing=True),
        calibration=[feeds("block", seed, 4, 40) for seed in range(4)],
        shapes=SHAPES["block"],
    )
    inputs = feeds("block", 7, 2, 5)
    rows = [row for row in program.report if row["op"] == "vpu.quantise_rows"]
    assert {str(row["format"]) for row in rows} == {"", "scaled columns"}
    answers = {
        stage: interpret(
            Parser(job.ctx, job.stages[stage]).parse_module(), job.ctx, inputs, exact_f32=True
        )["y"]
        for stage in ("quantised", "tiled")
    }
    for level in host_levels():
        monkeypatch.setenv("SPU_IR_ISA", level)
        model = CompiledModel.from_program(program, build(program.source, [level]), threads=2)
        answers[level] = model.run(inputs)["y"]
    expected = answers["quantised"]
    for who, got in answers.items():
        assert np.array_equal(got.view(np.uint32), expected.view(np.uint32)), who


def test_nothing_is_scaled_without_calibration() -> None:
    _, job = api.lower(lopsided(), precision="int8", shapes=SHAPES["block"])
    assert "vpu.quantise_rows" in job.stages["quantised"]
    assert "columns(" not in job.stages["quantised"]


def test_what_is_wrong_is_said() -> None:
    net = network()
    with pytest.raises(SpuError, match="nothing to scale columns with"):
        scale_columns(net.module, net.ctx, [])
