"""Tiles of packed rows: loops over samples whose bounds are read from the offsets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from xdsl.dialects import arith, memref
from xdsl.dialects.builtin import FloatAttr, IndexType, IntegerAttr, IntegerType, Signedness, f32
from xdsl.ir import Attribute, SSAValue

from spu_ir.dialects.antoum import DmaOp, FillOp
from spu_ir.dialects.types import DYNAMIC, element_of, numpy_dtype, shape_of
from spu_ir.dialects.vpu import ExpandOp, PackRowsOp, UnpackRowsOp
from spu_ir.interpreters.numerics_rows import lowest
from spu_ir.transforms.emitter import Emitter, Extent
from spu_ir.transforms.tiling_loops import Place, parallel_loops


@dataclass(frozen=True)
class SampleRows:
    """The packed rows of one sample, read where a tile begins."""

    first: Extent
    count: Extent

    @staticmethod
    def of(emit: Emitter, offsets: SSAValue, sample: Extent) -> SampleRows:
        """The rows of `sample`."""
        first, end = (_element(emit, offsets, at) for at in (sample, emit.add(sample, 1)))
        return SampleRows(first, emit.subtract(end, first))

    def within(self, emit: Emitter, place: Place) -> Extent:
        """How many of the sample's rows lie in `place`, a range of its positions; may be none."""
        left = emit.subtract(self.count, place.offset)
        return emit.minimum(emit.value(arith.MaxSIOp(emit.index(left), emit.index(0))), place.size)


def _element(emit: Emitter, offsets: SSAValue, at: Extent) -> SSAValue:
    loaded = emit.value(memref.LoadOp.get(offsets, [emit.index(at)]))
    return emit.value(arith.IndexCastOp(loaded, IndexType()))


def one_sample(emit: Emitter, packed: SSAValue) -> SSAValue:
    """Packed rows `[rows, ...]` as a batch of one, `[1, rows, ...]`."""
    return emit.reshaped(packed, [1, *emit.extents(packed)])


def _row_step(packed: SSAValue, elements: int) -> int:
    """How many packed rows have about `elements` elements."""
    width = prod(extent for extent in shape_of(packed)[1:] if extent != DYNAMIC)
    return max(1, elements // max(width, 1))


def tile_pack(emit: Emitter, op: PackRowsOp, elements: int) -> None:
    """Copies of about `elements` elements of a sample's rows at a time."""
    target = one_sample(emit, op.init)
    batch = emit.subtract(emit.extents(op.offsets)[0], 1)
    by_sample, by_row = (extent != 1 for extent in shape_of(op.x)[:2])
    rest = emit.extents(op.x)[2:]
    # Rows that broadcast are as many as the offsets say; then a tile is a sample.
    positions: Extent = emit.extents(op.x)[1] if by_row else 1
    zeros: list[Extent] = [0] * len(rest)

    def body(inner: Emitter, places: Mapping[int, Place]) -> None:
        sample, place = places[0], places[1]
        rows = SampleRows.of(inner, op.offsets, sample.offset)
        count = rows.within(inner, place) if by_row else rows.count
        start = inner.add(rows.first, place.offset)
        source = inner.subview(
            op.x,
            [sample.offset if by_sample else 0, place.offset if by_row else 0, *zeros],
            [1, count if by_row else 1, *rest],
        )
        view = inner.subview(target, [0, start, *zeros], [1, count, *rest])
        inner.insert(DmaOp(source, view) if by_row else ExpandOp(source, view))

    step = _row_step(op.init, elements)
    parallel_loops(emit, [(0, batch, 1), (1, positions, step)], body)


def tile_unpack(emit: Emitter, op: UnpackRowsOp, elements: int) -> None:
    """Copies as `tile_pack` makes them, and fills of the positions without a row."""
    source = one_sample(emit, op.x)
    batch, positions, *rest = emit.extents(op.init)
    value = _fill_value(element_of(op.init), lowest_value=op.lowest is not None)
    zeros: list[Extent] = [0] * len(rest)

    def body(inner: Emitter, places: Mapping[int, Place]) -> None:
        sample, place = places[0], places[1]
        rows = SampleRows.of(inner, op.offsets, sample.offset)
        count = rows.within(inner, place)
        start = inner.add(rows.first, place.offset)
        view = inner.subview(source, [0, start, *zeros], [1, count, *rest])
        target = inner.subview(op.init, [sample.offset, place.offset, *zeros], [1, count, *rest])
        inner.insert(DmaOp(view, target))
        empty = inner.subview(
            op.init,
            [sample.offset, inner.add(place.offset, count), *zeros],
            [1, inner.subtract(place.size, count), *rest],
        )
        inner.insert(FillOp(value, empty))

    step = _row_step(op.x, elements)
    parallel_loops(emit, [(0, batch, 1), (1, positions, step)], body)


def _fill_value(element: Attribute, *, lowest_value: bool) -> Attribute:
    dtype = numpy_dtype(element)
    number = lowest(dtype) if lowest_value else 0
    if dtype.kind in "iub":
        kind = IntegerType(8 * dtype.itemsize, Signedness.SIGNLESS)
        return IntegerAttr(int(number), kind)
    return FloatAttr(float(number), f32)
