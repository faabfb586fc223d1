"""A builder of index arithmetic and memref views that folds what is known at compile time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TypeAlias

from xdsl.builder import Builder
from xdsl.dialects import arith, memref
from xdsl.dialects.builtin import (
    IndexType,
    IntegerAttr,
    MemRefType,
    NoneAttr,
    StridedLayoutAttr,
)
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.rewriter import InsertPoint

from spu_ir.dialects.spu import encoding_of
from spu_ir.dialects.types import DYNAMIC, shaped

Extent: TypeAlias = int | SSAValue
"""A number of elements: known now, or an index value at run time."""


def row_major(
    shape: Sequence[Extent], multiply: Callable[[Extent, Extent], Extent]
) -> list[Extent]:
    """The strides, in elements, of a contiguous buffer of `shape`."""
    strides: list[Extent] = [1] * len(shape)
    for axis in reversed(range(len(shape) - 1)):
        strides[axis] = multiply(strides[axis + 1], shape[axis + 1])
    return strides


class Emitter:
    """Inserts ops at one point. Arithmetic on ints happens here and costs no op."""

    def __init__(self, point: InsertPoint):
        self.builder = Builder(point)
        self._constants: dict[int, SSAValue] = {}

    def insert(self, op: Operation) -> Operation:
        return self.builder.insert(op)

    def value(self, op: Operation) -> SSAValue:
        """Insert an op and return its one result."""
        return self.builder.insert(op).results[0]

    def index(self, extent: Extent) -> SSAValue:
        """`extent` as an index value; a constant is made once."""
        if isinstance(extent, SSAValue):
            return extent
        if extent not in self._constants:
            attr = IntegerAttr(extent, IndexType())
            self._constants[extent] = self.value(arith.ConstantOp(attr))
        return self._constants[extent]

    def _binary(
        self,
        a: Extent,
        b: Extent,
        fold: Callable[[int, int], int],
        op: Callable[[SSAValue, SSAValue], Operation],
        neutral: int | None = None,
    ) -> Extent:
        if isinstance(a, int) and isinstance(b, int):
            return fold(a, b)
        if isinstance(b, int) and b == neutral:
            return a
        if isinstance(a, int) and a == neutral:
            return b
        return self.value(op(self.index(a), self.index(b)))

    def add(self, a: Extent, b: Extent) -> Extent:
        return self._binary(a, b, lambda x, y: x + y, arith.AddiOp, 0)

    def subtract(self, a: Extent, b: Extent) -> Extent:
        if b == 0:
            return a
        return self._binary(a, b, lambda x, y: x - y, arith.SubiOp)

    def multiply(self, a: Extent, b: Extent) -> Extent:
        return self._binary(a, b, lambda x, y: x * y, arith.MuliOp, 1)

    def divide(self, a: Extent, unit: int) -> Extent:
        """`a` divided by a constant, rounded down; a is not negative."""
        if isinstance(a, int):
            return a // unit
        return self.value(arith.DivUIOp(a, self.index(unit)))

    def minimum(self, a: Extent, b: Extent) -> Extent:
        return self._binary(a, b, min, arith.MinSIOp)

    def maximum(self, a: Extent, b: Extent) -> Extent:
        return a if a is b else self._binary(a, b, max, arith.MaxSIOp, 0)

    def ceil_divide(self, a: Extent, unit: int) -> Extent:
        """`a` divided by a constant, rounded up; a is not negative."""
        if isinstance(a, int):
            return -(-a // unit)
        return self.value(arith.CeilDivUIOp(a, self.index(unit)))

    def ceil_multiple(self, a: Extent, unit: int) -> Extent:
        """`a` rounded up to a multiple of `unit`; a is not negative."""
        return self.multiply(self.ceil_divide(a, unit), unit)

    def product(self, extents: Sequence[Extent]) -> Extent:
        """The product of `extents`: first of what is known, then of the rest in order."""
        total: Extent = prod(e for e in extents if isinstance(e, int))
        for extent in extents:
            if isinstance(extent, SSAValue):
                total = self.multiply(total, extent)
        return total

    def extents(self, value: SSAValue) -> list[Extent]:
        """The shape of a memref: as the op that made it says, else by `memref.dim`."""
        known = stated_extents(value)
        return [
            self.value(memref.DimOp(value, self.index(axis)))
            if extent == DYNAMIC and known is None
            else (extent if known is None else known[axis])
            for axis, extent in enumerate(shaped(value).get_shape())
        ]

    def subview(
        self,
        source: SSAValue,
        offsets: Sequence[Extent],
        sizes: Sequence[Extent],
        steps: Sequence[int] | None = None,
    ) -> SSAValue:
        """The part of a memref at `offsets`, of `sizes`; a banked weight stays one."""
        kind = shaped(source)
        assert isinstance(kind, MemRefType)
        strides = list(steps or [1] * len(sizes))
        if encoding_of(source) is None:
            result = memref.SubviewOp.infer_result_type(kind, offsets, sizes, strides)
        else:
            shape = [size if isinstance(size, int) else DYNAMIC for size in sizes]
            result = MemRefType(kind.element_type, shape, kind.layout, kind.memory_space)
        return self.value(memref.SubviewOp.get(source, offsets, sizes, strides, result))

    def reshaped(self, source: SSAValue, shape: Sequence[Extent]) -> SSAValue:
        """A contiguous memref's elements in another shape, without a copy."""
        kind = shaped(source)
        assert isinstance(kind, MemRefType) and is_contiguous(source)
        static = [extent if isinstance(extent, int) else DYNAMIC for extent in shape]
        result = MemRefType(kind.element_type, static, NoneAttr(), kind.memory_space)
        if result == kind and DYNAMIC not in static:
            return source
        strides = row_major(shape, self.multiply)
        cast = memref.ReinterpretCastOp.from_dynamic(source, [0], shape, strides, result)
        return self.value(cast)


def stated_extents(value: SSAValue) -> list[Extent] | None:
    """The shape of a memref in the operands of the op that made it; None for an argument."""
    owner = value.owner
    if isinstance(owner, memref.AllocOp):
        dynamic = owner.dynamic_sizes
    elif isinstance(owner, memref.ViewOp | memref.SubviewOp | memref.ReinterpretCastOp):
        dynamic = owner.sizes
    else:
        return None
    rest = iter(dynamic)
    return [next(rest) if d == DYNAMIC else d for d in shaped(value).get_shape()]


def is_contiguous(value: SSAValue) -> bool:
    """Whether a memref's layout is row-major without gaps."""
    kind = shaped(value)
    return isinstance(kind, MemRefType) and isinstance(kind.layout, NoneAttr)


def memref_of(
    tensor: Attribute, space: Attribute, layout: StridedLayoutAttr | None = None
) -> MemRefType[Attribute]:
    """The memref type for a tensor type in a memory space; an encoding becomes the layout."""
    kind = shaped(tensor)
    encoding = encoding_of(kind)
    return MemRefType(
        kind.get_element_type(), kind.get_shape(), encoding or layout or NoneAttr(), space
    )
