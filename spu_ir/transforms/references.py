"""
What the lossy passes mean, written a second time in f32: the references of `--verify-passes`.

Each function changes a copy of the module that a pass is about to see, and uses none of the
pass's arithmetic: pruned weights are masked, values rounded to bf16 are cast there and back,
quantised ones are divided, rounded and multiplied as f32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.builder import Builder
from xdsl.dialects import func, tensor
from xdsl.dialects.builtin import ModuleOp, TensorType, bf16, f32
from xdsl.ir import Attribute, Operation, SSAValue

from spu_ir.dialects.spu import EpilogueOp
from spu_ir.dialects.types import Array, bfloat16, element_of, shape_of
from spu_ir.dialects.vpu import (
    BinaryFn,
    BinaryOp,
    CastOp,
    ReduceFn,
    ReduceFnAttr,
    ReduceOp,
    UnaryFn,
    UnaryFnAttr,
    UnaryOp,
    array_attr,
)
from spu_ir.dialects.weights import WeightStore
from spu_ir.transforms.rewriting import (
    after,
    array_of,
    constant_op,
    dims_of,
    empty_of,
    is_constant,
)
from spu_ir.transforms.weight_scales import row_scales

TINY = np.float32(1e-30)
"""Stands for the peak of a row of zeros, so that nothing is divided by 0."""


def f32_products(module: ModuleOp) -> list[EpilogueOp]:
    """The f32 products whose weights are constants, in order."""
    return [
        op
        for op in module.walk()
        if isinstance(op, EpilogueOp) and element_of(op.x) == f32 and is_constant(op.weight)
    ]


def set_weight(op: EpilogueOp, array: Array, store: WeightStore) -> None:
    """Give `op` alone another constant weight."""
    op.operands[1] = Builder(after([op.weight])).insert(constant_op(store, array)).result


def weight_of(op: EpilogueOp, store: WeightStore) -> Array:
    """The constant weight of `op`."""
    array = array_of(op.weight, store)
    return array


# ---- pruning


def mask(
    weight: Array, lengths: Sequence[int], bank: int, slots: int, share: int, groups: int
) -> Array:
    """
    1 where an element of `weight [N, K]` is among the `slots` largest of its row and bank.

    Rows 16 apart in a block of 16 * share rows are taken together, by the sum of magnitudes.
    """
    score = np.abs(weight.astype(np.float64))
    per_group = len(weight) // groups
    for first in range(0, len(weight), per_group):
        for block in range(first, first + per_group, 16 * share):
            for lane in range(block, min(block + 16, first + per_group)):
                rows = range(lane, min(block + 16 * share, first + per_group), 16)
                score[rows] = score[rows].sum(axis=0)
    kept = np.zeros(weight.shape, np.bool_)
    start = 0
    for length in lengths:
        for at in range(start, start + length, bank):
            part = score[:, at : min(at + bank, start + length)]
            least = np.sort(part, axis=1)[:, -min(slots, part.shape[1])]
            kept[:, at : at + part.shape[1]] = part >= least[:, None]
        start += length
    return kept


# ---- rounding


class Arithmetic:
    """Builds f32 ops on values of one shape, right after the value that they start from."""

    def __init__(self, value: SSAValue, store: WeightStore):
        self.value, self.store = value, store
        self.dims = dims_of(value)
        self.builder = Builder(after([value, *self.dims]))
        self.built: set[Operation] = set()

    def insert(self, op: Operation) -> SSAValue:
        """The first result of `op`."""
        self.built.add(op)
        return self.builder.insert(op).results[0]

    def scalar(self, number: float) -> SSAValue:
        """An f32 constant without axes."""
        return self.insert(constant_op(self.store, np.array(number, np.float32)))

    def unary(self, fn: UnaryFn, x: SSAValue) -> SSAValue:
        init = self.insert(empty_of(self.value, f32, self.dims))
        return self.insert(UnaryOp(x, init, {"fn": UnaryFnAttr(fn)}))

    def binary(
        self, fn: BinaryFn, a: SSAValue, b: SSAValue, like: SSAValue | None = None
    ) -> SSAValue:
        init = self.insert(empty_of(self.value if like is None else like, f32, self.dims))
        return self.insert(BinaryOp(fn, a, b, init))

    def row_peaks(self, values: SSAValue | None = None) -> SSAValue:
        """The largest magnitude (of `values`) of each row, the last axis kept with extent 1."""
        magnitude = self.unary(UnaryFn.ABS, self.value) if values is None else values
        shape = shape_of(self.value)
        kind = TensorType(f32, [*shape[:-1], 1])
        init = self.insert(tensor.EmptyOp(self.dims, kind))
        properties: dict[str, Attribute] = {
            "fn": ReduceFnAttr(ReduceFn.MAX),
            "axes": array_attr([len(shape) - 1]),
        }
        peak = self.insert(ReduceOp(magnitude, init, properties))
        return self.binary(BinaryFn.MAX, peak, self.scalar(float(TINY)), like=peak)


def rounded_rows(x: SSAValue, zero: int, store: WeightStore) -> SSAValue:
    """
    x as the levels of each row hold it: `round(x * (127 / peak)) * (peak / 127)` around 128,
    else 256 levels from `-zero` steps of a size that reaches the row's largest and least number.
    """
    f = Arithmetic(x, store)
    if zero != 128:
        step = _reach(f, x, 255 - zero)
        if zero:
            down = f.binary(BinaryFn.MUL, x, f.scalar(-1.0))
            step = f.binary(BinaryFn.MAX, step, _reach(f, down, zero), like=step)
        inverse = f.binary(BinaryFn.DIV, f.scalar(1.0), step, like=step)
        levels = f.unary(UnaryFn.ROUND, f.binary(BinaryFn.MUL, x, inverse))
        return f.binary(BinaryFn.MUL, levels, step)
    peak, levels = f.row_peaks(), f.scalar(127.0)
    inverse = f.binary(BinaryFn.DIV, levels, peak, like=peak)
    scale = f.binary(BinaryFn.DIV, peak, levels, like=peak)
    whole = f.unary(UnaryFn.ROUND, f.binary(BinaryFn.MUL, x, inverse))
    return f.binary(BinaryFn.MUL, whole, scale)


def _reach(f: Arithmetic, x: SSAValue, levels: int) -> SSAValue:
    """The step with which `levels` of them reach the largest number, above 0, of each row."""
    peak = f.row_peaks(x)
    return f.binary(BinaryFn.DIV, peak, f.scalar(float(levels)), like=peak)


def round_value(x: SSAValue, scale: float, zero: int, store: WeightStore) -> None:
    """Let the users of x see it as 256 levels of `scale` around `zero` hold it."""
    f = Arithmetic(x, store)
    step = f.scalar(scale)
    steps = f.binary(BinaryFn.DIV, x, step)
    steps = f.binary(BinaryFn.MAX, steps, f.scalar(-zero))
    steps = f.binary(BinaryFn.MIN, steps, f.scalar(255 - zero))
    rounded = f.binary(BinaryFn.MUL, f.unary(UnaryFn.ROUND, steps), step)
    x.replace_uses_with_if(
        rounded,
        lambda use: (
            use.operation not in f.built
            and not isinstance(use.operation, tensor.DimOp | func.ReturnOp)
        ),
    )


def rounded_bf16(x: SSAValue, store: WeightStore) -> SSAValue:
    """x rounded to bf16, as f32."""
    f = Arithmetic(x, store)
    narrow = f.insert(CastOp(x, f.insert(empty_of(x, bf16, f.dims))))
    return f.insert(CastOp(narrow, f.insert(empty_of(x, f32, f.dims))))


def round_products_bf16(products: Sequence[EpilogueOp], store: WeightStore) -> None:
    """Round the operands of f32 products to bf16."""
    for op in products:
        set_weight(op, weight_of(op, store).astype(bfloat16).astype(np.float32), store)
        op.operands[0] = rounded_bf16(op.x, store)


def round_rows_of_weight(op: EpilogueOp, store: WeightStore) -> None:
    """Round each row of `op`'s weight to 255 levels, symmetric."""
    weight = weight_of(op, store)
    rows = weight.reshape(len(weight), -1)
    scale = row_scales(rows)[:, None]
    set_weight(op, (np.rint(rows / scale) * scale).reshape(weight.shape), store)
