"""From whole buffers to tiles: parallel loops over views, one instruction of fixed shape each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects import func, memref
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, UnitAttr, i8, i64
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from spu_ir.dialects.antoum import DmaOp, FillOp
from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.functions import bounds
from spu_ir.dialects.spu import (
    GROUP_LANES,
    LANE_PAIRS,
    AttentionOp,
    ConvOp,
    EpilogueOp,
    MatmulOp,
    PackedAttentionOp,
    PackKeysOp,
    PackValuesOp,
    encoding_of,
    integers,
)
from spu_ir.dialects.types import element_of, numpy_dtype, shape_of
from spu_ir.dialects.vpu import ConcatOp, PackRowsOp, PadOp, SliceOp, UnpackRowsOp
from spu_ir.transforms.emitter import Emitter, Extent, is_contiguous
from spu_ir.transforms.extents import bound_of, evaluate
from spu_ir.transforms.tile_sizes import QUAD_SLOTS, WIDE_ROWS, Tiling, rows_in_pairs
from spu_ir.transforms.tiling_attention import tile_attention, tile_pack_heads
from spu_ir.transforms.tiling_loops import (
    Place,
    parallel_loops,
    sequential_loops,
    view_of,
    with_operands,
)
from spu_ir.transforms.tiling_packed import tile_pack, tile_unpack
from spu_ir.transforms.tiling_rules import Map, Rule, rule_of

LANES = 16
"""Output channels of a lane group: the int32 lanes of one 64-byte accumulator."""
MAX_ROWS = 14
"""Rows (pixels) of one SPU instruction: as many accumulators as registers hold."""


@dataclass(frozen=True)
class TilePass(ModulePass):
    """
    Cut every op into tiles and spread the tiles over the cores.

    `scf.parallel` runs over blocks of `rows_a_block` rows and `lanes_a_block` lanes (of a
    convolution `channels_a_block`), what one core takes at a time; inside, `scf.for` over
    instructions: as many rows as `tile_bytes` hold, or pixels, at most 14 (12 where two lane groups
    go together), by the block's lanes; about `elements` elements of a VPU op. A tile is the same op
    on `memref.subview`s; at the edges the views are smaller, which is a masked instruction.

    Fewer than 13 rows pay more for reading x than for products. Two lane groups of INT8 slots of a
    fixed number have the same windows, so that such tiles are marked `lane_pairs`: they go in pairs
    past 12 rows, from L2 if need be; past 8 whose places in L1 are the same, 4096 bytes apart, and
    past the 8 or more that L1 holds where one quad a window is more than L2 gives.

    Weights are fetched into L1 ahead of their use, activations are not: so a block has the rows of
    one tile, and many lanes. `compile` chooses the sizes from the host's caches: docs/tuning.md.
    """

    name = "tile"
    preserves: ClassVar[str] = "exact"

    tile_bytes: int = Tiling.tile_bytes
    rows_a_block: int = Tiling.rows_a_block
    lanes_a_block: int = Tiling.lanes_a_block
    channels_a_block: int = Tiling.channels_a_block
    elements: int = Tiling.elements

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in [o for o in op.ops if isinstance(o, func.FuncOp)]:
            high = {name: upper for name, (_, upper) in bounds(function).items()}
            for target in list(function.body.block.ops):
                expanded = _expand(target)
                for part in expanded:
                    self._tile(part, function, high)

    def _tile(self, op: Operation, function: func.FuncOp, high: Mapping[str, int]) -> None:
        emit = Emitter(InsertPoint.before(op))
        if isinstance(op, MatmulOp):
            self._matmul(emit, op)
        elif isinstance(op, ConvOp):
            (self._depthwise if op.depthwise else self._conv)(emit, op)
        elif isinstance(op, AttentionOp | PackedAttentionOp):
            tile_attention(emit, op)
        elif isinstance(op, PackKeysOp | PackValuesOp):
            tile_pack_heads(emit, op)
        elif isinstance(op, PackRowsOp):
            tile_pack(emit, op, self.elements)
        elif isinstance(op, UnpackRowsOp):
            tile_unpack(emit, op, self.elements)
        else:
            rule = rule_of(op)
            if rule is None:
                return
            self._by_rule(emit, op, rule, function, high)
        op.detach()
        op.erase()

    def _by_rule(
        self,
        emit: Emitter,
        op: Operation,
        rule: Rule,
        function: func.FuncOp,
        high: Mapping[str, int],
    ) -> None:
        shape = emit.extents(rule.output)
        upper = [_upper(function, extent, high) for extent in shape]
        steps: dict[int, int] = {}
        for axis in rule.axes:
            inner = prod(u for a, u in enumerate(upper) if a > axis or a not in rule.axes)
            steps[axis] = max(rule.grain.get(axis, 1), self.elements // max(inner, 1))
            if steps[axis] > 1:
                break
        steps = {axis: step for axis, step in steps.items() if upper[axis] > 1}

        def body(inner: Emitter, places: Mapping[int, Place]) -> None:
            views = [
                view_of(inner, value, axes, places)
                for value, axes in zip(op.operands, rule.maps, strict=True)
            ]
            inner.insert(with_operands(op, views))

        parallel_loops(emit, [(axis, shape[axis], step) for axis, step in steps.items()], body)

    def _matmul(self, emit: Emitter, op: MatmulOp) -> None:
        flat = [_flattened(emit, value, keep) for value, keep in _matmul_operands(op)]
        maps = _epilogue_maps(op, rows=[0], lanes=1, weight_axes=2)
        rows, lanes = emit.extents(flat[-1])
        share = _share(op)
        # Rows that stay in L1 while every lane group passes over them.
        row_bytes = shape_of(op.x)[-1] * numpy_dtype(element_of(op.x)).itemsize
        tile_rows = max(1, min(_max_rows(share), self.tile_bytes // row_bytes))
        few = min(tile_rows, rows) if isinstance(rows, int) else tile_rows
        paired = few <= WIDE_ROWS and _in_pairs(op, lanes)
        encoding = encoding_of(op.weight)
        if paired and encoding is not None:
            share = 2
            tile_rows = rows_in_pairs(row_bytes, encoding.slots.data, self.tile_bytes)
        block = max(LANES * share, self.lanes_a_block // (LANES * share) * LANES * share)

        def tile(inner: Emitter, places: Mapping[int, Place]) -> None:
            views = [view_of(inner, v, m, places) for v, m in zip(flat, maps, strict=True)]
            inner.insert(_marked(with_operands(op, views), paired))

        row_block = max(1, self.rows_a_block // tile_rows) * tile_rows

        def body(inner: Emitter, places: Mapping[int, Place]) -> None:
            sequential_loops(inner, [(0, tile_rows)], places, tile)

        parallel_loops(emit, [(0, rows, row_block), (1, lanes, block)], body)

    def _depthwise(self, emit: Emitter, op: ConvOp) -> None:
        """Tiles of pixels with all their channels, whose places follow each other in x."""
        batch, height, width, _ = emit.extents(op.init)
        assert isinstance(width, int)
        columns = -(-width // -(-width // MAX_ROWS))
        maps = _epilogue_maps(op, rows=[0, 1, 2], lanes=3, weight_axes=4)
        weight = shape_of(op.weight)
        strides, dilations = integers(op.strides), integers(op.dilations)
        window = [dilations[a] * (weight[1 + a] - 1) + 1 for a in (0, 1)]

        def tile(inner: Emitter, places: Mapping[int, Place]) -> None:
            n, y, x = (places[a] for a in (0, 1, 2))
            reach = inner.add(inner.multiply(inner.subtract(x.size, 1), strides[1]), window[1])
            source = inner.subview(
                op.x,
                [
                    n.offset,
                    inner.multiply(y.offset, strides[0]),
                    inner.multiply(x.offset, strides[1]),
                    0,
                ],
                [n.size, window[0], reach, weight[0]],
            )
            views = [
                view_of(inner, v, m, places) for v, m in zip(op.operands[1:], maps[1:], strict=True)
            ]
            inner.insert(with_operands(op, [source, *views]))

        parallel_loops(emit, [(0, batch, 1), (1, height, 1), (2, width, columns)], tile)

    def _conv(self, emit: Emitter, op: ConvOp) -> None:
        batch, height, width, lanes = emit.extents(op.init)
        assert isinstance(width, int) and isinstance(lanes, int)
        groups = op.groups.value.data
        each = lanes // groups
        share = _share(op)
        tiles = -(-width // _max_rows(share))
        columns = -(-width // tiles)
        paired = columns <= WIDE_ROWS and _in_pairs(op, each)
        share = 2 if paired else share
        block = max(LANES * share, self.channels_a_block // (LANES * share) * LANES * share)
        maps = _epilogue_maps(op, rows=[0, 1, 2], lanes=3, weight_axes=4)
        weight = shape_of(op.weight)
        strides, dilations = integers(op.strides), integers(op.dilations)
        window = [dilations[a] * (weight[1 + a] - 1) + 1 for a in (0, 1)]

        def tile(inner: Emitter, places: Mapping[int, Place]) -> None:
            group = places[4].offset if groups > 1 else 0
            first = inner.multiply(group, each)
            lane = Place(inner.add(first, places[3].offset), places[3].size)
            shifted = {**places, 3: lane}
            n, y, x = (places[a] for a in (0, 1, 2))
            reach = inner.add(inner.multiply(inner.subtract(x.size, 1), strides[1]), window[1])
            source = inner.subview(
                op.x,
                [
                    n.offset,
                    inner.multiply(y.offset, strides[0]),
                    inner.multiply(x.offset, strides[1]),
                    inner.multiply(group, weight[3]),
                ],
                [n.size, window[0], reach, weight[3]],
            )
            views = [
                view_of(inner, v, m, shifted)
                for v, m in zip(op.operands[1:], maps[1:], strict=True)
            ]
            clone = with_operands(op, [source, *views])
            clone.properties["groups"] = IntegerAttr(1, i64)
            if groups > 1:
                # Lane groups do not straddle the groups of the whole weight.
                clone.attributes[GROUP_LANES] = IntegerAttr(each, i64)
            inner.insert(_marked(clone, paired))

        def body(inner: Emitter, places: Mapping[int, Place]) -> None:
            row = {**places, 2: Place(0, width)}
            sequential_loops(inner, [(2, columns)], row, tile)

        loops: list[tuple[int, Extent, int]] = [(0, batch, 1), (1, height, 1)]
        if groups > 1:
            loops.append((4, groups, 1))
        parallel_loops(emit, [*loops, (3, each, block)], body)


def _upper(function: func.FuncOp, extent: Extent, high: Mapping[str, int]) -> int:
    """The largest value of an extent, given the largest of the named ones."""
    return evaluate(function, bound_of(extent), high)


def _share(op: EpilogueOp) -> int:
    """Lane groups that an instruction takes at a time: those of one index vector, or two."""
    encoding = encoding_of(op.weight)
    return 2 if encoding is None else encoding.share.data


def _max_rows(share: int) -> int:
    """Rows whose accumulators fit the registers beside what a step loads."""
    return MAX_ROWS if share == 1 else WIDE_ROWS


def _in_pairs(op: EpilogueOp, lanes: Extent) -> bool:
    """
    Whether lane groups can go in pairs: those of INT8 slots that are fixed, and fill quads of one
    window, have the same windows. The units of special functions work beside single ones only.
    """
    encoding = encoding_of(op.weight)
    return (
        encoding is not None
        and encoding.share.data == 1
        and encoding.slots.data >= QUAD_SLOTS
        and element_of(op.weight) == i8
        and not op.activation.data.startswith("sfu_")
        and (not isinstance(lanes, int) or lanes > LANES)
    )


def _marked(op: Operation, paired: bool) -> Operation:
    if paired:
        op.attributes[LANE_PAIRS] = UnitAttr()
    return op


def _matmul_operands(op: MatmulOp) -> list[tuple[SSAValue, int]]:
    """A product's operands, each with how many last axes stay when its rows are flattened."""
    kept: list[tuple[SSAValue, int]] = [(op.x, 1), (op.weight, 2)]
    optional = ((op.scale, 1), (op.row_scale, 0), (op.bias, 1), (op.residual, 1))
    kept += [(value, keep) for value, keep in optional if value is not None]
    return [*kept, (op.init, 1)]


def _flattened(emit: Emitter, value: SSAValue, keep: int) -> SSAValue:
    """All but the last `keep` axes as one."""
    rank = len(shape_of(value))
    rows = keep == 0 or (keep == 1 and rank != 1)
    if keep == 2 or not rows or rank == keep + 1:
        return value
    extents = emit.extents(value)
    split = rank - keep
    if not is_contiguous(value):
        # Rows with a gap behind them (see bufferise): those of the whole buffer, without it.
        assert isinstance(value.owner, memref.SubviewOp)
        whole = _flattened(emit, value.owner.source, keep)
        rows, sizes = emit.extents(whole)[0], extents[split:]
        return emit.subview(whole, [0] * (keep + 1), [rows, *sizes])
    return emit.reshaped(value, [emit.product(extents[:split]), *extents[split:]])


def _epilogue_maps(
    op: MatmulOp | ConvOp, *, rows: Sequence[int], lanes: int, weight_axes: int
) -> list[Map]:
    maps: list[Map] = [[*rows, None], [lanes, *[None] * (weight_axes - 1)]]
    optional: list[tuple[SSAValue | None, Map]] = [
        (op.scale, [lanes]),
        (op.row_scale, rows),
        (op.bias, [lanes]),
        (op.residual, [*rows, lanes]),
    ]
    maps += [axes for value, axes in optional if value is not None]
    return [*maps, [*rows, lanes]]


def _expand(op: Operation) -> list[Operation]:
    """Data movement as copies: concat, slice and pad become DMA on views, then fills."""
    if not isinstance(op, DestinationOp) or op.on_tensors:
        return [op]
    emit = Emitter(InsertPoint.before(op))
    parts: list[Operation] = []
    if isinstance(op, ConcatOp):
        axis, at = op.axis.value.data, 0
        start: Extent = at
        for value in op.xs:
            sizes = emit.extents(value)
            offsets: list[Extent] = [start if a == axis else 0 for a in range(len(sizes))]
            parts.append(emit.insert(DmaOp(value, emit.subview(op.init, offsets, sizes))))
            start = emit.add(start, sizes[axis])
    elif isinstance(op, SliceOp):
        view = emit.subview(op.x, integers(op.starts), emit.extents(op.init), integers(op.steps))
        parts.append(emit.insert(DmaOp(view, op.init)))
    elif isinstance(op, PadOp):
        parts.append(emit.insert(FillOp(op.value, op.init)))
        view = emit.subview(op.init, integers(op.low), emit.extents(op.x))
        parts.append(emit.insert(DmaOp(op.x, view)))
    else:
        return [op]
    op.detach()
    op.erase()
    return parts
