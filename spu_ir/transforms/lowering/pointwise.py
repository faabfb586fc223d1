"""Element-wise operators: `vpu.unary`, `vpu.binary`, `vpu.select`, `vpu.cast`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from spu_ir.dialects.onnx import OnnxOp
from spu_ir.dialects.types import element_of
from spu_ir.dialects.vpu import BinaryFn, UnaryFn

from .context import Constant, Lowering

LowerFn = Callable[[Lowering, OnnxOp], SSAValue | Constant]


def _x(ctx: Lowering, op: OnnxOp) -> SSAValue:
    return ctx.tensor(op.input(0))


def _unary(fn: UnaryFn, ctx: Lowering, op: OnnxOp) -> SSAValue:
    return ctx.unary(fn, _x(ctx, op))


def _binary(fn: BinaryFn, ctx: Lowering, op: OnnxOp) -> SSAValue:
    return ctx.binary(fn, _x(ctx, op), ctx.tensor(op.input(1)))


def _variadic(fn: BinaryFn, ctx: Lowering, op: OnnxOp) -> SSAValue:
    return reduce(partial(ctx.binary, fn), [ctx.tensor(x) for x in op.operands])


def _mean(ctx: Lowering, op: OnnxOp) -> SSAValue:
    total = _variadic(BinaryFn.ADD, ctx, op)
    return ctx.binary(BinaryFn.DIV, total, ctx.scalar(len(op.operands)))


def _affine(ctx: Lowering, x: SSAValue, factor: float, term: float) -> SSAValue:
    scaled = ctx.binary(BinaryFn.MUL, x, ctx.scalar(factor))
    return ctx.binary(BinaryFn.ADD, scaled, ctx.scalar(term))


def _clamp(ctx: Lowering, x: SSAValue, low: float, high: float) -> SSAValue:
    raised = ctx.binary(BinaryFn.MAX, x, ctx.scalar(low))
    return ctx.binary(BinaryFn.MIN, raised, ctx.scalar(high))


def _hard_sigmoid(ctx: Lowering, op: OnnxOp) -> SSAValue:
    scaled = _affine(ctx, _x(ctx, op), op.float_value("alpha"), op.float_value("beta"))
    return _clamp(ctx, scaled, 0.0, 1.0)


def _hard_swish(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = _x(ctx, op)
    gate = _clamp(ctx, _affine(ctx, x, 1.0 / 6.0, 0.5), 0.0, 1.0)
    return ctx.binary(BinaryFn.MUL, x, gate)


def _gelu(ctx: Lowering, op: OnnxOp) -> SSAValue:
    tanh = op.str_value("approximate") == "tanh"
    return ctx.unary(UnaryFn.GELU_TANH if tanh else UnaryFn.GELU, _x(ctx, op))


def _swish(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x, alpha = _x(ctx, op), op.float_value("alpha")
    if alpha == 1.0:
        return ctx.unary(UnaryFn.SILU, x)
    gate = ctx.unary(UnaryFn.SIGMOID, ctx.binary(BinaryFn.MUL, x, ctx.scalar(alpha)))
    return ctx.binary(BinaryFn.MUL, x, gate)


def _negative_part(ctx: Lowering, x: SSAValue, below: SSAValue) -> SSAValue:
    """x where it is not negative, `below` elsewhere."""
    return ctx.select(ctx.binary(BinaryFn.LESS, x, ctx.scalar(0.0)), below, x)


def _leaky_relu(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = _x(ctx, op)
    slope = ctx.scalar(op.float_value("alpha"))
    return _negative_part(ctx, x, ctx.binary(BinaryFn.MUL, x, slope))


def _p_relu(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = _x(ctx, op)
    return _negative_part(ctx, x, ctx.binary(BinaryFn.MUL, x, ctx.tensor(op.input(1))))


def _exponential(ctx: Lowering, x: SSAValue, alpha: float, inner: float = 1.0) -> SSAValue:
    """`alpha * (exp(x / inner) - 1)`, of x where it is negative, so that exp stays finite."""
    low = ctx.binary(BinaryFn.MIN, x, ctx.scalar(0.0))
    if inner != 1.0:
        low = ctx.binary(BinaryFn.DIV, low, ctx.scalar(inner))
    less_one = ctx.binary(BinaryFn.SUB, ctx.unary(UnaryFn.EXP, low), ctx.scalar(1.0))
    return ctx.binary(BinaryFn.MUL, less_one, ctx.scalar(alpha))


def _elu(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = _x(ctx, op)
    return _negative_part(ctx, x, _exponential(ctx, x, op.float_value("alpha")))


def _celu(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x, alpha = _x(ctx, op), op.float_value("alpha")
    return _negative_part(ctx, x, _exponential(ctx, x, alpha, alpha))


def _selu(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = _x(ctx, op)
    below = _exponential(ctx, x, op.float_value("alpha"))
    return ctx.binary(
        BinaryFn.MUL, _negative_part(ctx, x, below), ctx.scalar(op.float_value("gamma"))
    )


def _mish(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = _x(ctx, op)
    gate = ctx.unary(UnaryFn.TANH, ctx.unary(UnaryFn.SOFTPLUS, x))
    return ctx.binary(BinaryFn.MUL, x, gate)


def _softsign(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = _x(ctx, op)
    below = ctx.binary(BinaryFn.ADD, ctx.unary(UnaryFn.ABS, x), ctx.scalar(1.0))
    return ctx.binary(BinaryFn.DIV, x, below)


def _clip(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = _x(ctx, op)
    for index, fn in ((1, BinaryFn.MAX), (2, BinaryFn.MIN)):
        bound = op.input(index)
        if bound is not None:
            x = ctx.binary(fn, x, ctx.reshape(ctx.tensor(bound), ()))
    return x


def _pow(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = _x(ctx, op)
    exponent = ctx.known(op.input(1))
    if exponent is not None and exponent.size == 1 and exponent.ndim <= len(ctx.dims(x)):
        match float(exponent.reshape(())):
            case 1.0:
                return x
            case 2.0:
                return ctx.binary(BinaryFn.MUL, x, x)
            case 0.5 if element_of(x) == f32:
                return ctx.unary(UnaryFn.SQRT, x)
            case _:
                pass
    if exponent is not None:
        return ctx.binary(BinaryFn.POW, x, ctx.constant_in(exponent, op.operands[0]))
    power = ctx.cast(ctx.tensor(op.input(1)), element_of(x))
    return ctx.binary(BinaryFn.POW, x, power)


def _mod(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x, divisor = _x(ctx, op), ctx.tensor(op.input(1))
    if element_of(x) == f32:
        raise ctx.error("Mod of floats has no lowering")

    def remainder(of: SSAValue) -> SSAValue:
        quotient = ctx.binary(BinaryFn.DIV, of, divisor)
        return ctx.binary(BinaryFn.SUB, of, ctx.binary(BinaryFn.MUL, quotient, divisor))

    # Integer division truncates, so the remainder has the dividend's sign: C's fmod.
    rest = remainder(x)
    if op.int_value("fmod"):
        return rest
    return remainder(ctx.binary(BinaryFn.ADD, rest, divisor))


def _junction(fn: BinaryFn, ctx: Lowering, op: OnnxOp) -> SSAValue:
    """And and Or: an operand that is known, and does not decide alone, is left out."""
    dims = ctx.broadcast(*(ctx.operand_dims(x) for x in op.operands))
    grids = [ctx.grid(x) for x in op.operands]
    open_ = [
        ctx.tensor(x)
        for x, grid in zip(op.operands, grids, strict=True)
        if grid is None or grid.uniform is None
    ]
    return ctx.expand(reduce(partial(ctx.binary, fn), open_), dims)


def _xor(ctx: Lowering, op: OnnxOp) -> SSAValue:
    return ctx.unary(UnaryFn.NOT, _binary(BinaryFn.EQUAL, ctx, op))


def _where(ctx: Lowering, op: OnnxOp) -> SSAValue:
    condition = ctx.grid(op.input(0))
    if condition is not None and isinstance(condition.uniform, bool):
        chosen = ctx.tensor(op.input(1 if condition.uniform else 2))
        return ctx.expand(chosen, ctx.broadcast(*(ctx.operand_dims(x) for x in op.operands)))
    return ctx.select(*(ctx.tensor(x) for x in op.operands))


def _cast(ctx: Lowering, op: OnnxOp) -> SSAValue:
    return ctx.cast(_x(ctx, op), ctx.element(op.results[0]))


def _identity(ctx: Lowering, op: OnnxOp) -> SSAValue | Constant:
    constant = ctx.raw(op.input(0))
    return _x(ctx, op) if constant is None else constant


def _dropout(ctx: Lowering, op: OnnxOp) -> SSAValue:
    training = op.input(2)
    if training is not None and ctx.must_know(training, "training_mode").any():
        raise ctx.error("Dropout in training mode has no lowering", "export for inference")
    ctx.unused(op, 1, "mask")
    return _x(ctx, op)


def _is_nan(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = _x(ctx, op)
    return ctx.unary(UnaryFn.NOT, ctx.binary(BinaryFn.EQUAL, x, x))


def _thresholded_relu(ctx: Lowering, op: OnnxOp) -> SSAValue:
    x = _x(ctx, op)
    above = ctx.binary(BinaryFn.GREATER, x, ctx.scalar(op.float_value("alpha")))
    return ctx.select(above, x, ctx.scalar(0.0))


def _batch_norm(ctx: Lowering, op: OnnxOp) -> SSAValue:
    """A normalisation that nothing before it could absorb: one factor and one term a channel."""
    x = _x(ctx, op)
    names = ("scale", "B", "input_mean", "input_var")
    scale, bias, mean, variance = (
        ctx.must_know(op.input(i + 1), name).astype(np.float32) for i, name in enumerate(names)
    )
    if op.int_value("training_mode"):
        raise ctx.error("BatchNormalization in training mode has no lowering")
    factor = scale / np.sqrt(variance + np.float32(op.float_value("epsilon")))
    ones = [1] * (len(ctx.dims(x)) - 2)
    shape = (-1, *ones)
    scaled = ctx.binary(BinaryFn.MUL, x, ctx.constant(factor.reshape(shape)))
    term = ctx.constant((bias - mean * factor).reshape(shape))
    return ctx.binary(BinaryFn.ADD, scaled, term)


_UNARY = {
    "Abs": UnaryFn.ABS,
    "Neg": UnaryFn.NEG,
    "Exp": UnaryFn.EXP,
    "Log": UnaryFn.LOG,
    "Sqrt": UnaryFn.SQRT,
    "Reciprocal": UnaryFn.RECIPROCAL,
    "Erf": UnaryFn.ERF,
    "Tanh": UnaryFn.TANH,
    "Sigmoid": UnaryFn.SIGMOID,
    "Relu": UnaryFn.RELU,
    "Softplus": UnaryFn.SOFTPLUS,
    "Floor": UnaryFn.FLOOR,
    "Ceil": UnaryFn.CEIL,
    "Round": UnaryFn.ROUND,
    "Sign": UnaryFn.SIGN,
    "Not": UnaryFn.NOT,
}
_BINARY = {
    "Add": BinaryFn.ADD,
    "Sub": BinaryFn.SUB,
    "Mul": BinaryFn.MUL,
    "Div": BinaryFn.DIV,
    "Equal": BinaryFn.EQUAL,
    "Less": BinaryFn.LESS,
    "LessOrEqual": BinaryFn.LESS_OR_EQUAL,
    "Greater": BinaryFn.GREATER,
    "GreaterOrEqual": BinaryFn.GREATER_OR_EQUAL,
}
_JUNCTIONS = {"And": BinaryFn.AND, "Or": BinaryFn.OR}
_VARIADIC = {"Min": BinaryFn.MIN, "Max": BinaryFn.MAX, "Sum": BinaryFn.ADD}

LOWERINGS: dict[str, LowerFn] = {
    **{name: partial(_unary, fn) for name, fn in _UNARY.items()},
    **{name: partial(_binary, fn) for name, fn in _BINARY.items()},
    **{name: partial(_junction, fn) for name, fn in _JUNCTIONS.items()},
    **{name: partial(_variadic, fn) for name, fn in _VARIADIC.items()},
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "CastLike": _cast,
    "Celu": _celu,
    "Clip": _clip,
    "Dropout": _dropout,
    "Elu": _elu,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Identity": _identity,
    "IsNaN": _is_nan,
    "LeakyRelu": _leaky_relu,
    "Mean": _mean,
    "Mish": _mish,
    "Mod": _mod,
    "PRelu": _p_relu,
    "Pow": _pow,
    "Selu": _selu,
    "Softsign": _softsign,
    "Swish": _swish,
    "ThresholdedRelu": _thresholded_relu,
    "Where": _where,
    "Xor": _xor,
}
