"""
Integer tensors at compile time: what exporters compute shapes with.

`evaluate` follows a node whose operands are known element by element, each an int, a bool or an
`Extent`, and yields its results in the same form; None where a result depends on data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
from xdsl.dialects.builtin import IntegerType, i1
from xdsl.ir import SSAValue

from spu_ir.dialects.onnx import OnnxOp

from .context import MAX_SYMBOLS, Lowering, Symbols, onnx_element
from .dims import Dim, add, multiply, product, subtract
from .movement import squeezed, unsqueezed

Item = Dim | bool
ItemFn = Callable[[Lowering, Any, Any], Item | None]
"""None where the result is not known."""


class Unknown(Exception):
    """An element that depends on data."""


def _array(items: Sequence[Item], shape: Sequence[int]) -> Symbols:
    result: Symbols = np.empty(len(items), object)
    for index, item in enumerate(items):
        result[index] = item
    return result.reshape(tuple(shape))


def _known(ctx: Lowering, op: OnnxOp, index: int) -> Symbols:
    symbols = ctx.symbols(op.input(index))
    if symbols is None:
        raise Unknown
    return symbols


def _integers(ctx: Lowering, value: SSAValue | None) -> list[int]:
    items = [] if value is None else list(_known_items(ctx, value))
    if not all(isinstance(item, int) for item in items):
        raise Unknown
    return cast("list[int]", items)


def _known_items(ctx: Lowering, value: SSAValue) -> Symbols:
    symbols = ctx.symbols(value)
    if symbols is None:
        raise Unknown
    return symbols.reshape(-1)


def _shape(ctx: Lowering, op: OnnxOp) -> Symbols:
    dims = ctx.operand_dims(op.input(0))
    end = op.value("end")
    taken = dims[op.int_value("start") : end if isinstance(end, int) else None]
    return _array(taken, [len(taken)])


def _size(ctx: Lowering, op: OnnxOp) -> Symbols:
    return _array([product(ctx.operand_dims(op.input(0)))], [])


def _gather(ctx: Lowering, op: OnnxOp) -> Symbols:
    x, indices = _known(ctx, op, 0), ctx.known(op.input(1))
    if indices is None:
        raise Unknown
    axis = ctx.axis(op.int_value("axis"), x.ndim)
    if indices.size and not -x.shape[axis] <= indices.min() <= indices.max() < x.shape[axis]:
        raise ctx.error("an index lies outside its operand")
    return np.asarray(np.take(x, indices, axis), object)


def _slice(ctx: Lowering, op: OnnxOp) -> Symbols:
    x = _known(ctx, op, 0)
    starts, ends = (_integers(ctx, op.input(i)) for i in (1, 2))
    axes = list(range(x.ndim))[: len(starts)]
    if op.input(3) is not None:
        axes = [ctx.axis(axis, x.ndim) for axis in _integers(ctx, op.input(3))]
    steps = [1] * len(starts) if op.input(4) is None else _integers(ctx, op.input(4))
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # numpy has no end before the first element; ONNX writes it as a very small one.
        stop = None if step < 0 and end < -x.shape[axis] else end
        index[axis] = slice(start, stop, step)
    return x[tuple(index)]


def _concat(ctx: Lowering, op: OnnxOp) -> Symbols:
    parts = [_known(ctx, op, index) for index in range(len(op.operands))]
    return np.concatenate(parts, ctx.axis(op.int_value("axis"), parts[0].ndim))


def _split(ctx: Lowering, op: OnnxOp) -> list[Symbols]:
    x = _known(ctx, op, 0)
    axis = ctx.axis(op.int_value("axis"), x.ndim)
    if op.input(1) is None:
        raise Unknown
    sizes = _integers(ctx, op.input(1))
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def _reshape(ctx: Lowering, op: OnnxOp) -> Symbols:
    return _known(ctx, op, 0).reshape(_integers(ctx, op.input(1)))


def _to_dims(dims: Callable[[Lowering, OnnxOp], list[Dim]], ctx: Lowering, op: OnnxOp) -> Symbols:
    return _known(ctx, op, 0).reshape(cast("list[int]", dims(ctx, op)))


def _identity(ctx: Lowering, op: OnnxOp) -> Symbols:
    return _known(ctx, op, 0)


def _cast(ctx: Lowering, op: OnnxOp) -> Symbols:
    x, to_bool = _known(ctx, op, 0), onnx_element(op.results[0]) == i1
    items: list[Item] = []
    for item in x.reshape(-1):
        if not to_bool:
            items.append(int(item) if isinstance(item, bool) else item)
        elif isinstance(item, int):
            items.append(item != 0)
        else:
            raise Unknown
    return _array(items, x.shape)


def _elementwise(fn: ItemFn, ctx: Lowering, op: OnnxOp) -> Symbols:
    operands = [_known(ctx, op, index) for index in range(len(op.operands))]
    total = operands[0]
    for other in operands[1:]:
        a, b = np.broadcast_arrays(total, other)
        items = [fn(ctx, x, y) for x, y in zip(a.reshape(-1), b.reshape(-1), strict=True)]
        total = _array([_certain(item) for item in items], a.shape)
    return total


def _certain(item: Item | None) -> Item:
    if item is None:
        raise Unknown
    return item


def _divide(ctx: Lowering, a: Dim, b: Dim) -> Dim | None:
    if isinstance(a, int) and isinstance(b, int):
        # ONNX's integer division truncates.
        return None if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    positive = ctx.extents.bound(a)[0] >= 0 and ctx.extents.bound(b)[0] >= 1
    return ctx.extents.divide(a, b) if positive else None


def _modulo(ctx: Lowering, a: Dim, b: Dim) -> Dim | None:
    quotient = _divide(ctx, a, b)
    if quotient is None or (isinstance(a, int) and a < 0) or (isinstance(b, int) and b < 0):
        return None
    return subtract(a, multiply(quotient, b))


def _minimum(ctx: Lowering, a: Dim, b: Dim) -> Dim | None:
    return ctx.extents.minimum(a, b)


def _maximum(ctx: Lowering, a: Dim, b: Dim) -> Dim | None:
    smaller = ctx.extents.minimum(a, b)
    return None if smaller is None else (b if smaller == a else a)


def _at_most(ctx: Lowering, a: Dim, b: Dim) -> bool | None:
    if ctx.extents.at_most(a, b):
        return True
    return False if ctx.extents.at_most(add(b, 1), a) else None


def _equal(ctx: Lowering, a: Item, b: Item) -> bool | None:
    if a == b:
        return True
    apart = (_at_most(ctx, add(x, 1), y) is True for x, y in ((a, b), (b, a)))
    return False if any(apart) else None


def _not(ctx: Lowering, op: OnnxOp) -> Symbols:
    x = _known(ctx, op, 0)
    return _array([not item for item in x.reshape(-1)], x.shape)


def _where(ctx: Lowering, op: OnnxOp) -> Symbols:
    condition, a, b = np.broadcast_arrays(*(_known(ctx, op, index) for index in range(3)))
    columns = zip(condition.reshape(-1), a.reshape(-1), b.reshape(-1), strict=True)
    return _array([x if holds else y for holds, x, y in columns], condition.shape)


def _static_shape(ctx: Lowering, value: SSAValue | None) -> list[int]:
    symbols = ctx.symbols(value)
    items = [] if symbols is None else list(symbols.reshape(-1))
    if symbols is None or not all(isinstance(item, int) for item in items):
        raise Unknown
    shape = cast("list[int]", items)
    if min(shape, default=0) < 0 or product(shape) not in range(MAX_SYMBOLS + 1):
        raise Unknown
    return shape


def _constant_of_shape(ctx: Lowering, op: OnnxOp) -> Symbols:
    shape, value = _static_shape(ctx, op.input(0)), op.attributes.get("value")
    if value is None:
        raise Unknown
    array = ctx.attribute_array(value)
    return np.full(shape, array.reshape(()).item(), object)


def _expand(ctx: Lowering, op: OnnxOp) -> Symbols:
    x, shape = _known(ctx, op, 0), _static_shape(ctx, op.input(1))
    return np.array(np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape))))


def _reduce(fn: Callable[[Dim, Dim], Dim], ctx: Lowering, op: OnnxOp) -> Symbols:
    """Of all elements."""
    x = _known(ctx, op, 0)
    if x.ndim != 1 or not x.size:
        raise Unknown
    total = cast("Dim", x[0])
    for item in x[1:]:
        total = fn(total, item)
    return _array([total], [1] if op.int_value("keepdims") else [])


_FUNCTIONS: dict[str, Callable[[Lowering, OnnxOp], Symbols | list[Symbols]]] = {
    "Add": partial(_elementwise, lambda _, a, b: add(a, b)),
    "And": partial(_elementwise, lambda _, a, b: bool(a) and bool(b)),
    "Cast": _cast,
    "CastLike": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": partial(_elementwise, _divide),
    "Equal": partial(_elementwise, _equal),
    "Expand": _expand,
    "Gather": _gather,
    "Greater": partial(_elementwise, lambda ctx, a, b: _at_most(ctx, add(b, 1), a)),
    "GreaterOrEqual": partial(_elementwise, lambda ctx, a, b: _at_most(ctx, b, a)),
    "Identity": _identity,
    "Less": partial(_elementwise, lambda ctx, a, b: _at_most(ctx, add(a, 1), b)),
    "LessOrEqual": partial(_elementwise, _at_most),
    "Max": partial(_elementwise, _maximum),
    "Min": partial(_elementwise, _minimum),
    "Mod": partial(_elementwise, _modulo),
    "Mul": partial(_elementwise, lambda _, a, b: multiply(a, b)),
    "Not": _not,
    "Or": partial(_elementwise, lambda _, a, b: bool(a) or bool(b)),
    "ReduceProd": partial(_reduce, multiply),
    "ReduceSum": partial(_reduce, add),
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": partial(_to_dims, squeezed),
    "Sub": partial(_elementwise, lambda _, a, b: subtract(a, b)),
    "Unsqueeze": partial(_to_dims, unsqueezed),
    "Where": _where,
}

OPERATORS = frozenset(_FUNCTIONS)
"""Operators that are followed at compile time."""


def evaluate(ctx: Lowering, op: OnnxOp) -> list[Symbols] | None:
    """The results of a node on integers or bools, None where they are not known."""
    function = _FUNCTIONS.get(op.schema_name)
    if function is None or not all(
        isinstance(onnx_element(result), IntegerType) for result in op.results
    ):
        return None
    try:
        results = function(ctx, op)
    except Unknown:
        return None
    results = results if isinstance(results, list) else [results]
    return results if sum(x.size for x in results) <= MAX_SYMBOLS else None
