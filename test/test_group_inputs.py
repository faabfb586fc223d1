"""Groups of inputs with scales of their own: the same network in f32, and INT8 errs less."""

from __future__ import annotations

import numpy as np
import pytest
from support.models import MODELS, SHAPES, feeds
from support.nets import Net
from support.networks import error, normal, products, weights
from xdsl.ir import SSAValue
from xdsl.parser import Parser

import spu_ir
from spu_ir import api
from spu_ir.dialects.types import DYNAMIC, shape_of
from spu_ir.dialects.vpu import BinaryFn, QuantiseRowsOp, SliceOp, UnaryFn
from spu_ir.errors import SpuError
from spu_ir.interpreters import interpret
from spu_ir.quantisation import Quantisation
from spu_ir.runtime.build import build
from spu_ir.runtime.model import CompiledModel
from spu_ir.transforms.group_inputs import group_inputs
from spu_ir.transforms.quantise import QuantisePass
from spu_ir.transforms.row_zeros import choose_row_zero, row_zero
from spu_ir.transforms.scale_columns import scale_columns

DEPTH = 256


def outliers(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Rows whose largest number is in one of the four banks, another one each time."""
    x = normal(rows, DEPTH, seed=seed)
    place = np.random.default_rng(seed).integers(DEPTH, size=rows)
    x[np.arange(rows), place] *= 20
    return {"x0": x}


def network(width: int | None = None) -> Net:
    """Two products of one input, a residual and an activation; groups of `width` inputs."""
    net = Net((DYNAMIC, DEPTH))
    x = net.inputs[0]
    h = net.matmul(x, weights(32, DEPTH), "a")
    g = net.unary(UnaryFn.GELU, net.matmul(x, weights(32, DEPTH, seed=1), "b"))
    net.module = net.finish(net.binary(BinaryFn.ADD, h, g))
    if width is not None:
        assert group_inputs(net.module, net.ctx, width) == 2
        net.module.verify()
    return net


@pytest.mark.parametrize(("width", "groups"), [(64, 4), (128, 2), (192, 2)])
def test_the_network_is_the_same_and_what_both_read_is_cut_once(width: int, groups: int) -> None:
    feed = outliers(40, 3)
    expected = interpret(network().module, network().ctx, feed)["y0"]
    net = network(width)
    assert error(interpret(net.module, net.ctx, feed)["y0"], expected) < 1e-6
    assert sum(isinstance(op, SliceOp) for op in net.module.walk()) == groups
    depths = [shape_of(op.weight)[1] for op in products(net.module)]
    assert sum(depths) == 2 * DEPTH
    assert max(depths) == width


def test_int8_errs_less() -> None:
    feed = outliers(200, 3)
    expected = interpret(network().module, network().ctx, feed)["y0"]
    errors: list[float] = []
    for width in (None, 128, 64):
        net = network(width)
        QuantisePass("dynamic").apply(net.ctx, net.module)
        errors.append(error(interpret(net.module, net.ctx, feed)["y0"], expected))
        rows = sum(isinstance(op, QuantiseRowsOp) for op in net.module.walk())
        assert rows == DEPTH // (width or DEPTH)
    # A row's largest number is in one group of two, or of four: the others' steps are small.
    assert errors[1] < 0.8 * errors[0]
    assert errors[2] < 0.6 * errors[0]


def test_groups_keep_what_is_known_of_their_rows() -> None:
    def feed_forward(net: Net, x: SSAValue) -> SSAValue:
        up = weights(DEPTH, DEPTH)
        up[[3, 90]] *= 12
        return net.matmul(net.unary(UnaryFn.GELU, net.matmul(x, up, "up")), weights(16, DEPTH), "d")

    net = Net((DYNAMIC, DEPTH))
    net.module = net.finish(feed_forward(net, net.inputs[0]))
    seen = [{"x0": normal(300, DEPTH, seed=seed)} for seed in (1, 2)]
    assert scale_columns(net.module, net.ctx, seen) == 1
    zero = row_zero(products(net.module)[1].x)
    assert group_inputs(net.module, net.ctx, 128) == 2
    QuantisePass("dynamic").apply(net.ctx, net.module)
    scaled = [op for op in net.module.walk() if isinstance(op, QuantiseRowsOp) and op.columns]
    assert [op.zero.value.data for op in scaled] == [zero, zero]

    net = Net((DYNAMIC, DEPTH))
    net.module = net.finish(feed_forward(net, net.inputs[0]))
    group_inputs(net.module, net.ctx, 128)
    first, second = (op.x for op in products(net.module)[2:])
    assert row_zero(first) == row_zero(second) == 40
    far = np.linspace(0, 5, 128, dtype=np.float32).reshape(1, 128)
    choose_row_zero(first, [far])
    assert row_zero(first) < row_zero(second) == 40


def test_a_compiled_model_answers_what_its_ir_says() -> None:
    program, job = api.lower(
        MODELS["block"](),
        quantisation=Quantisation("int8", group_size=64),
        shapes=SHAPES["block"],
        sparsity=16,
    )
    chain = [row for row in program.report if "[64, 64] -> " in row["shape"]]
    assert {row["format"] for row in chain} == {"banked 4/64"}
    inputs = feeds("block", 7, 2, 5)
    ir = Parser(job.ctx, job.stages["quantised"]).parse_module()
    expected = interpret(ir, job.ctx, inputs, exact_f32=True)["y"]
    model = CompiledModel.from_program(program, build(program.source))
    got = model.run(inputs)["y"]
    assert np.array_equal(got.view(np.uint32), expected.view(np.uint32))


def test_what_is_wrong_is_said() -> None:
    model, shapes = MODELS["block"](), SHAPES["block"]
    for width in (0, 48, 100):
        with pytest.raises(SpuError, match=f"groups of {width} inputs"):
            spu_ir.compile(model, shapes=shapes, group_size=width)
    with pytest.raises(SpuError, match="a group size is for INT8"):
        spu_ir.compile(model, shapes=shapes, group_size=64, precision="bf16")
