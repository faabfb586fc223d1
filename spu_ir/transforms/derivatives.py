"""How ops on tensors, in f32, pass a gradient on to their operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from xdsl.ir import Operation

from spu_ir.dialects.spu import Activation, AttentionOp, BatchMatmulOp, MatmulOp, integers
from spu_ir.dialects.types import Array, element_of
from spu_ir.dialects.vpu import (
    BinaryFn,
    BinaryOp,
    ConcatOp,
    ExpandOp,
    LayerNormOp,
    ReduceFn,
    ReduceOp,
    ReshapeOp,
    SelectOp,
    SliceOp,
    SoftmaxOp,
    TransposeOp,
    UnaryFn,
    UnaryOp,
)
from spu_ir.interpreters import numerics_vpu
from spu_ir.interpreters.spu import split_heads
from spu_ir.transforms.rewriting import is_constant

Passed: TypeAlias = dict[int, Array]
"""A gradient for some operands, by their numbers."""

STEP = np.float32(2.0**-6)
"""Of the difference that is a function's slope: its error is far below what slopes are for."""

_STEPS = {UnaryFn.FLOOR, UnaryFn.CEIL, UnaryFn.ROUND, UnaryFn.SIGN, UnaryFn.NOT}


class NoDerivativeError(Exception):
    """An op that gradients do not pass, called by its name."""


def passed_on(op: Operation, values: Sequence[Any], result: Array, gradient: Array) -> Passed:
    """
    What the operands of `op`, which were `values`, get of the `gradient` of its `result`, f32.

    Constants and masks get nothing. Raises NoDerivativeError for an op that is not known here.
    """
    rule = _RULES.get(type(op))
    if rule is None:
        raise NoDerivativeError(op.name)
    with np.errstate(all="ignore"):
        return rule(op, values, result, gradient)


def narrowed(gradient: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of what was broadcast from `shape`."""
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    axes = tuple(a for a, n in enumerate(shape) if n == 1 and gradient.shape[a] != 1)
    return gradient.sum(axis=axes, keepdims=True) if axes else gradient


def slope(function: str, x: Array) -> Array:
    """The derivative of a function of one operand, by a difference."""
    f = numerics_vpu.UNARY[function]
    return (f(x + STEP) - f(x - STEP)) / (2 * STEP)


def into_product(op: MatmulOp, values: Sequence[Any], gradient: Array) -> Array:
    """The gradient of what the activation of a product takes, `[..., N]`."""
    if element_of(op.x) != element_of(op.init) or op.scale is not None or op.row_scale is not None:
        raise NoDerivativeError(op.name)
    if op.activation.data is Activation.NONE:
        return gradient
    if op.activation.data not in numerics_vpu.UNARY:
        raise NoDerivativeError(op.name)
    x, weight, *given = values[:-1]
    before = x.reshape(-1, x.shape[-1]) @ weight.T
    before = before.reshape(gradient.shape)
    for each in given:
        before = before + each.reshape(each.shape if each.ndim == 1 else gradient.shape)
    return gradient * slope(op.activation.data, before)


def _matmul(op: Operation, values: Sequence[Any], _result: Array, gradient: Array) -> Passed:
    assert isinstance(op, MatmulOp)
    if not is_constant(op.weight) or not (op.bias is None or is_constant(op.bias)):
        raise NoDerivativeError(op.name)
    inner = into_product(op, values, gradient)
    weight = values[1]
    rows = inner.reshape(-1, weight.shape[0]) @ weight
    passed = {0: rows.reshape(values[0].shape)}
    if op.residual is not None:
        passed[len(values) - 2] = inner.reshape(values[-2].shape)
    return passed


def _batch_matmul(op: Operation, values: Sequence[Any], _result: Array, gradient: Array) -> Passed:
    assert isinstance(op, BatchMatmulOp)
    a, b, _init = values
    wide = gradient * np.float32(op.alpha.value.data)
    to_a = wide @ (b if op.transposed else np.swapaxes(b, -1, -2))
    to_b = np.swapaxes(a, -1, -2) @ wide
    to_b = np.swapaxes(to_b, -1, -2) if op.transposed else to_b
    return {0: narrowed(to_a, a.shape), 1: narrowed(to_b, b.shape)}


def _attention(op: Operation, values: Sequence[Any], _result: Array, gradient: Array) -> Passed:
    assert isinstance(op, AttentionOp)
    if op.offsets is not None:
        raise NoDerivativeError(op.name)
    heads, kv_heads = op.heads.value.data, op.kv_heads.value.data
    repeat, factor = heads // kv_heads, np.float32(op.scale.value.data)
    q = split_heads(values[0], heads)
    k = np.repeat(split_heads(values[1], kv_heads), repeat, axis=1)
    v = np.repeat(split_heads(values[2], kv_heads), repeat, axis=1)
    score = (q @ np.swapaxes(k, -1, -2)) * factor
    if op.mask is not None:
        score = score + values[3]
    if op.causal.value.data:
        score = np.where(np.tri(*score.shape[-2:], dtype=np.bool_), score, np.float32(-np.inf))
    most = score.max(axis=-1, keepdims=True)
    p = np.exp(score - np.where(np.isfinite(most), most, np.float32(0)))
    p /= np.maximum(p.sum(axis=-1, keepdims=True), np.float32(1e-30))
    g = split_heads(gradient, heads)
    to_p = g @ np.swapaxes(v, -1, -2)
    to_score = p * (to_p - (p * to_p).sum(axis=-1, keepdims=True)) * factor
    to_k, to_v = np.swapaxes(to_score, -1, -2) @ q, np.swapaxes(p, -1, -2) @ g

    def joined(x: Array, count: int) -> Array:
        x = x.reshape(x.shape[0], count, -1, *x.shape[2:]).sum(axis=2)
        return np.swapaxes(x, 1, 2).reshape(x.shape[0], x.shape[2], -1)

    return {
        0: joined(to_score @ k, heads),
        1: joined(to_k, kv_heads),
        2: joined(to_v, kv_heads),
    }


def _layer_norm(op: Operation, values: Sequence[Any], _result: Array, gradient: Array) -> Passed:
    assert isinstance(op, LayerNormOp)
    x, gamma = values[:2]
    inner = gradient * gamma
    centre = bool(op.centre.value.data)
    if centre:
        x = x - x.mean(axis=-1, keepdims=True)
        inner = inner - inner.mean(axis=-1, keepdims=True)
    inverse = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + op.epsilon.value.data)
    unit = x * inverse
    passed = (inner - unit * (inner * unit).mean(axis=-1, keepdims=True)) * inverse
    return {0: passed.astype(np.float32)}


def _unary(op: Operation, values: Sequence[Any], _result: Array, gradient: Array) -> Passed:
    assert isinstance(op, UnaryOp)
    return {} if op.fn.data in _STEPS else {0: gradient * slope(op.fn.data, values[0])}


def _binary(op: Operation, values: Sequence[Any], _result: Array, gradient: Array) -> Passed:
    assert isinstance(op, BinaryOp)
    a, b, _init = values
    match op.fn.data:
        case BinaryFn.ADD:
            both = gradient, gradient
        case BinaryFn.SUB:
            both = gradient, -gradient
        case BinaryFn.MUL:
            both = gradient * b, gradient * a
        case BinaryFn.DIV:
            both = gradient / b, -gradient * a / (b * b)
        case BinaryFn.MIN:
            both = gradient * (a <= b), gradient * (a > b)
        case BinaryFn.MAX:
            both = gradient * (a >= b), gradient * (a < b)
        case _:
            raise NoDerivativeError(f"{op.name} {op.fn.data}")
    return {0: narrowed(both[0], a.shape), 1: narrowed(both[1], b.shape)}


def _select(op: Operation, values: Sequence[Any], _result: Array, gradient: Array) -> Passed:
    assert isinstance(op, SelectOp)
    chosen, a, b = values[:3]
    zero = np.float32(0)
    return {
        1: narrowed(np.where(chosen, gradient, zero), a.shape),
        2: narrowed(np.where(chosen, zero, gradient), b.shape),
    }


def _reduce(op: Operation, values: Sequence[Any], result: Array, gradient: Array) -> Passed:
    assert isinstance(op, ReduceOp)
    x = values[0]
    axes = [axis % x.ndim for axis in integers(op.axes)]
    kept = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
    wide = np.broadcast_to(gradient.reshape(kept), x.shape)
    match op.fn.data:
        case ReduceFn.SUM:
            return {0: wide}
        case ReduceFn.MEAN:
            return {0: wide / np.float32(x.size / max(gradient.size, 1))}
        case ReduceFn.L2:
            return {0: wide * x / np.maximum(result.reshape(kept), np.float32(1e-30))}
        case _:
            raise NoDerivativeError(f"{op.name} {op.fn.data}")


def _softmax(op: Operation, _values: Sequence[Any], result: Array, gradient: Array) -> Passed:
    assert isinstance(op, SoftmaxOp)
    if op.log.value.data:
        return {0: gradient - np.exp(result) * gradient.sum(axis=-1, keepdims=True)}
    return {0: result * (gradient - (result * gradient).sum(axis=-1, keepdims=True))}


def _reshape(_op: Operation, values: Sequence[Any], _result: Array, gradient: Array) -> Passed:
    return {0: gradient.reshape(values[0].shape)}


def _expand(_op: Operation, values: Sequence[Any], _result: Array, gradient: Array) -> Passed:
    return {0: narrowed(gradient, values[0].shape)}


def _transpose(op: Operation, _values: Sequence[Any], _result: Array, gradient: Array) -> Passed:
    assert isinstance(op, TransposeOp)
    return {0: gradient.transpose(np.argsort(integers(op.perm)))}


def _slice(op: Operation, values: Sequence[Any], _result: Array, gradient: Array) -> Passed:
    assert isinstance(op, SliceOp)
    passed = np.zeros(values[0].shape, np.float32)
    starts, steps = integers(op.starts), integers(op.steps)
    places: list[Array] = [
        start + step * np.arange(count)
        for start, step, count in zip(starts, steps, gradient.shape, strict=True)
    ]
    passed[np.ix_(*places)] = gradient
    return {0: passed}


def _concat(op: Operation, values: Sequence[Any], _result: Array, gradient: Array) -> Passed:
    assert isinstance(op, ConcatOp)
    axis = op.axis.value.data
    ends = np.cumsum([value.shape[axis] for value in values[:-1]])
    return dict(enumerate(np.split(gradient, ends[:-1], axis)))


_RULES: dict[type[Operation], Callable[[Operation, Sequence[Any], Array, Array], Passed]] = {
    MatmulOp: _matmul,
    BatchMatmulOp: _batch_matmul,
    AttentionOp: _attention,
    LayerNormOp: _layer_norm,
    UnaryOp: _unary,
    BinaryOp: _binary,
    SelectOp: _select,
    ReduceOp: _reduce,
    SoftmaxOp: _softmax,
    ReshapeOp: _reshape,
    ExpandOp: _expand,
    TransposeOp: _transpose,
    SliceOp: _slice,
    ConcatOp: _concat,
}
