"""How errors are felt at the outputs: gradients of every op, gains, and smoothing by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from support.nets import Net
from support.networks import error, normal, products, weights
from xdsl.dialects.builtin import IntegerAttr, i1
from xdsl.ir import Operation, SSAValue

from spu_ir.dialects.spu import Activation, ActivationAttr, AttentionOp, BatchMatmulOp, MatmulOp
from spu_ir.dialects.types import Array, shape_of
from spu_ir.dialects.vpu import (
    BinaryFn,
    BinaryOp,
    ConcatOp,
    ExpandOp,
    LayerNormOp,
    ReduceFn,
    ReduceFnAttr,
    ReduceOp,
    ReshapeOp,
    SelectOp,
    SliceOp,
    SoftmaxOp,
    TransposeOp,
    UnaryFn,
    UnaryFnAttr,
    UnaryOp,
)
from spu_ir.dialects.vpu_base import array_attr
from spu_ir.dialects.weights import store_of
from spu_ir.interpreters import interpret, machine_for
from spu_ir.transforms import smooth_activations as smoothing
from spu_ir.transforms.derivatives import NoDerivativeError, passed_on
from spu_ir.transforms.error_gains import ErrorGains, gains_of
from spu_ir.transforms.quantise import QuantisePass

SHAPE = (2, 5, 8)
Build = Callable[[Net, SSAValue, SSAValue], Operation]


def sliced(
    net: Net, x: SSAValue, shape: Sequence[int], starts: Sequence[int], steps: Sequence[int]
) -> SliceOp:
    properties = {"starts": array_attr(starts), "steps": array_attr(steps)}
    return SliceOp(x, net.empty(shape), properties)


def reduced(net: Net, x: SSAValue, fn: ReduceFn) -> ReduceOp:
    properties = {"fn": ReduceFnAttr(fn), "axes": array_attr((1,))}
    return ReduceOp(x, net.empty((shape_of(x)[0], shape_of(x)[2])), properties)


def attention(net: Net, a: SSAValue, b: SSAValue, *, causal: bool, mask: bool) -> Operation:
    keys = net.builder.insert(sliced(net, b, (2, 5, 4), (0, 0, 0), (1, 1, 1))).results[0]
    added = net.constant(normal(2, 1, 1, 5, seed=8)) if mask else None
    return AttentionOp(
        a, keys, keys, added, net.empty(SHAPE), heads=4, kv_heads=2, scale=0.7, causal=causal
    )


def product(net: Net, a: SSAValue, b: SSAValue) -> Operation:
    return MatmulOp(
        a,
        net.constant(weights(8, 8)),
        net.empty(SHAPE),
        bias=net.constant(normal(8)),
        residual=b,
        properties={"activation": ActivationAttr(Activation.GELU)},
    )


def norm(net: Net, a: SSAValue, *, centre: bool) -> Operation:
    beta = net.constant(normal(8)) if centre else None
    gamma = net.constant(normal(8, seed=1))
    return LayerNormOp(a, gamma, beta, net.empty(SHAPE), epsilon=0.1, centre=centre)


def select(net: Net, a: SSAValue, b: SSAValue) -> Operation:
    wide = net.binary(BinaryFn.MAX, a, b)
    chosen = net.builder.insert(BinaryOp(BinaryFn.LESS, a, b, net.empty(SHAPE, i1))).results[0]
    return SelectOp(chosen, wide, b, net.empty(SHAPE))


OPS: dict[str, Build] = {
    "attention": lambda net, a, b: attention(net, a, b, causal=False, mask=True),
    "causal": lambda net, a, b: attention(net, a, b, causal=True, mask=False),
    "product": product,
    "layer norm": lambda net, a, _: norm(net, a, centre=True),
    "rms norm": lambda net, a, _: norm(net, a, centre=False),
    "batch matmul": lambda net, a, b: BatchMatmulOp(
        a, b, net.empty((2, 5, 5)), alpha=0.3, transpose_b=True
    ),
    "softmax": lambda net, a, _: SoftmaxOp(a, net.empty(SHAPE)),
    "log softmax": lambda net, a, _: SoftmaxOp(
        a, net.empty(SHAPE), {"log": IntegerAttr.from_bool(True)}
    ),
    "select": select,
    "reshape": lambda net, a, _: ReshapeOp(a, net.empty((10, 8))),
    "transpose": lambda net, a, _: TransposeOp(
        a, net.empty((5, 8, 2)), {"perm": array_attr((1, 2, 0))}
    ),
    "slice": lambda net, a, _: sliced(net, a, (2, 2, 8), (0, 4, 7), (1, -2, -1)),
    "concat": lambda net, a, b: ConcatOp([a, b], net.empty((2, 10, 8)), axis=1),
    "expand": lambda net, a, _: ExpandOp(a, net.empty((3, *SHAPE))),
    **{
        fn: lambda net, a, b, fn=fn: BinaryOp(fn, a, b, net.empty(SHAPE))
        for fn in (
            BinaryFn.ADD,
            BinaryFn.SUB,
            BinaryFn.MUL,
            BinaryFn.DIV,
            BinaryFn.MIN,
            BinaryFn.MAX,
        )
    },
    **{
        fn: lambda net, a, _, fn=fn: UnaryOp(a, net.empty(SHAPE), {"fn": UnaryFnAttr(fn)})
        for fn in (UnaryFn.GELU, UnaryFn.TANH, UnaryFn.SILU, UnaryFn.EXP, UnaryFn.NEG)
    },
    **{
        f"reduce {fn}": lambda net, a, _, fn=fn: reduced(net, a, fn)
        for fn in (ReduceFn.SUM, ReduceFn.MEAN, ReduceFn.L2)
    },
}


@pytest.mark.parametrize("name", OPS)
def test_a_gradient_is_the_slope_of_what_an_op_computes(name: str) -> None:
    net = Net(SHAPE, SHAPE)
    op = OPS[name](net, *net.inputs)
    net.finish(net.builder.insert(op).results[0])
    machine = machine_for(net.module, store_of(net.ctx), exact_f32=False, listener=None)
    seen: dict[SSAValue, Array] = {
        net.inputs[0]: normal(*SHAPE, seed=1),
        net.inputs[1]: normal(*SHAPE, seed=2) + np.float32(3),
    }
    for each in net.module.walk():
        if each is op:
            break
        if each.results and each.name not in ("builtin.module", "func.func"):
            given = machine.run_op(each, tuple([seen[v] for v in each.operands]))
            seen.update(zip(each.results, given, strict=True))
    values = [seen[v] for v in op.operands]
    result = machine.run_op(op, tuple(values))[0]
    gradient = normal(*result.shape, seed=4)
    passed = passed_on(op, values, result, gradient)
    assert passed
    for number, got in passed.items():
        assert got.shape == values[number].shape
        direction = normal(*values[number].shape, seed=5) * np.float32(2.0**-8)
        ends: list[float] = []
        for sign in (1, -1):
            moved = [v + sign * direction if n == number else v for n, v in enumerate(values)]
            y = machine.run_op(op, tuple(moved))[0]
            ends.append(float((gradient.astype(np.float64) * y).sum()))
        scale = float(np.linalg.norm(got) * np.linalg.norm(direction))
        assert (got * direction).sum() == pytest.approx((ends[0] - ends[1]) / 2, abs=0.01 * scale)


def test_an_op_without_a_derivative_is_said() -> None:
    net = Net(SHAPE)
    op = reduced(net, net.inputs[0], ReduceFn.PROD)
    with pytest.raises(NoDerivativeError, match=r"vpu\.reduce prod"):
        passed_on(op, [normal(*SHAPE)], normal(2, 8), normal(2, 8))


def found(net: Net, feeds: list[dict[str, Array]]) -> tuple[ErrorGains | None, list[Array]]:
    rows: list[Array] = []
    given = [op for op in products(net.module) if isinstance(op, MatmulOp)]
    done: list[int] = []
    gains = gains_of(
        net.module,
        net.ctx,
        feeds,
        given,
        lambda _op, _results: None,
        lambda _op, results: rows.append(results[0]),
        lambda: done.append(1),
    )
    assert len(done) == len(feeds)
    return gains, rows


def test_gains_are_what_errors_do_to_pooled_outputs() -> None:
    """y = mean over 5 rows of W2 (W1 x): errors of rows average out, those of weights do not."""
    net = Net((1, 5, 8))
    w1, w2 = weights(16, 8), weights(64, 16, seed=1)
    h = net.matmul(net.inputs[0], w1, "first")
    net.finish(net.mean(net.matmul(h, w2, "second"), (1,)))
    x = normal(1, 5, 8, seed=2) + np.float32(1)
    gains, rows = found(net, [{"x0": x}] * 100)
    assert gains is not None
    inner = x @ w1.T
    power = float(np.square(inner.mean(axis=1) @ w2.T).sum())
    _, second = products(net.module)
    columns = gains.columns[second.x] / 100
    np.testing.assert_allclose(columns, np.square(w2).sum(axis=0) / 5 / power, rtol=0.3)
    assert isinstance(second, MatmulOp)
    per_row = gains.weights[second].mean(axis=0) / 100
    np.testing.assert_allclose(per_row, np.square(inner.mean(axis=(0, 1))) / power, rtol=0.3)
    assert {row.shape for row in rows} == {(1, 5, 1)}


def test_nothing_is_known_behind_an_op_without_a_derivative() -> None:
    net = Net((2, 5, 8))
    y = net.matmul(net.inputs[0], weights(8, 8))
    out = net.builder.insert(reduced(net, y, ReduceFn.PROD)).results[0]
    net.finish(out)
    gains, rows = found(net, [{"x0": normal(2, 5, 8)}] * 2)
    assert gains is None
    assert not rows


WIDTH, KEYS = 32, 12


def encoder() -> Net:
    """A normalisation, attention whose keys have a large part in common, and a mean over rows."""
    net = Net((64, KEYS, WIDTH))
    ones = net.constant(np.ones(WIDTH, np.float32))
    mean = np.zeros(WIDTH, np.float32)
    mean[:8] = 3
    x = LayerNormOp(
        net.inputs[0], ones, net.constant(mean), net.empty((64, KEYS, WIDTH)), epsilon=1e-5
    )
    value = net.builder.insert(x).results[0]
    key = weights(WIDTH, WIDTH, seed=1)
    key[:, :8] *= 6
    q = net.matmul(value, weights(WIDTH, WIDTH) * np.float32(2), "q")
    k, v = net.matmul(value, key, "k"), net.matmul(value, weights(WIDTH, WIDTH, seed=2), "v")
    out = net.empty((64, KEYS, WIDTH))
    op = AttentionOp(q, k, v, None, out, heads=2, kv_heads=2, scale=0.25, causal=False)
    net.finish(net.mean(net.builder.insert(op).results[0], (1,)))
    return net


def test_smoothing_minds_what_is_felt(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, other = ({"x0": normal(64, KEYS, WIDTH, seed=seed)} for seed in (1, 2))
    expected = interpret(encoder().module, encoder().ctx, other)["y0"]
    errors: list[float] = []
    for known in (False, True):
        if not known:
            monkeypatch.setattr(smoothing, "gains_of", unknown)
        net = encoder()
        smoothing.smooth_activations(net.module, net.ctx, [seen], share=0.2)
        net.module.verify()
        assert error(interpret(net.module, net.ctx, other)["y0"], expected) < 1e-4
        QuantisePass("dynamic").apply(net.ctx, net.module)
        errors.append(error(interpret(net.module, net.ctx, other)["y0"], expected))
        monkeypatch.undo()
    assert errors[1] < 0.9 * errors[0]


def unknown(*given: object) -> None:
    """`gains_of` as it is behind an op without a derivative."""
    gains_of(*given)
