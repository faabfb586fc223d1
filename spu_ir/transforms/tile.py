"""From whole buffers to tiles: parallel loops over views, one instruction of fixed shape each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects import func, scf
from xdsl.dialects.builtin import IndexType, IntAttr, IntegerAttr, ModuleOp, i64
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from spu_ir.dialects.antoum import CORES, CoresAttr, DmaOp, FillOp
from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.functions import bounds
from spu_ir.dialects.spu import (
    GROUP_LANES,
    AttentionOp,
    ConvOp,
    EpilogueOp,
    MatmulOp,
    encoding_of,
    integers,
)
from spu_ir.dialects.types import element_of, numpy_dtype, shape_of
from spu_ir.dialects.vpu import ConcatOp, PadOp, SliceOp
from spu_ir.transforms.emitter import Emitter, Extent
from spu_ir.transforms.extents import evaluate
from spu_ir.transforms.tiling_rules import Map, Rule, rule_of

LANES = 16
"""Output channels of a lane group: the int32 lanes of one 64-byte accumulator."""
MAX_ROWS = 14
"""Rows (pixels) of one SPU instruction: as many accumulators as registers hold."""
ATTENTION_ROWS = 64
"""Query rows of one attention instruction."""
TILE_ELEMENTS = 8192
"""Elements of one VPU tile: a few of them fill an L1 cache."""


@dataclass(frozen=True)
class TilePass(ModulePass):
    """
    Cut every op into tiles and spread the tiles over the cores.

    `scf.parallel` runs over blocks of `rows_a_block` rows and `lanes_a_block` lanes, what one core
    takes at a time; inside, `scf.for` over instructions: as many rows as `tile_bytes` hold, or
    pixels, at most 14 (12 where two lane groups go together), by the block's lanes; about
    `elements` elements of a VPU op. A tile is the same op on `memref.subview`s; at the edges the
    views are smaller, which is a masked instruction.
    """

    name = "tile"
    preserves: ClassVar[str] = "exact"

    tile_bytes: int = 24 << 10
    rows_a_block: int = 32
    lanes_a_block: int = 192
    elements: int = TILE_ELEMENTS

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
            self._conv(emit, op)
        elif isinstance(op, AttentionOp):
            _attention(emit, op)
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
            steps[axis] = max(1, self.elements // max(inner, 1))
            if steps[axis] > 1:
                break
        steps = {axis: step for axis, step in steps.items() if upper[axis] > 1}

        def body(inner: Emitter, places: Mapping[int, _Place]) -> None:
            views = [
                _view(inner, value, axes, places)
                for value, axes in zip(op.operands, rule.maps, strict=True)
            ]
            inner.insert(_clone(op, views))

        _parallel(emit, [(axis, shape[axis], step) for axis, step in steps.items()], body)

    def _matmul(self, emit: Emitter, op: MatmulOp) -> None:
        flat = [_flattened(emit, value, keep) for value, keep in _matmul_operands(op)]
        maps = _epilogue_maps(op, rows=[0], lanes=1, weight_axes=2)
        rows, lanes = emit.extents(flat[-1])
        share = _share(op)
        block = max(LANES * share, self.lanes_a_block // (LANES * share) * LANES * share)

        def tile(inner: Emitter, places: Mapping[int, _Place]) -> None:
            views = [_view(inner, v, m, places) for v, m in zip(flat, maps, strict=True)]
            inner.insert(_clone(op, views))

        # Rows that stay in L1 while every lane group passes over them.
        row_bytes = shape_of(op.x)[-1] * numpy_dtype(element_of(op.x)).itemsize
        tile_rows = max(1, min(_max_rows(share), self.tile_bytes // row_bytes))
        row_block = max(1, self.rows_a_block // tile_rows) * tile_rows

        def body(inner: Emitter, places: Mapping[int, _Place]) -> None:
            _sequential(inner, [(0, tile_rows)], places, tile)

        _parallel(emit, [(0, rows, row_block), (1, lanes, block)], body)

    def _conv(self, emit: Emitter, op: ConvOp) -> None:
        batch, height, width, lanes = emit.extents(op.init)
        assert isinstance(width, int) and isinstance(lanes, int)
        groups = op.groups.value.data
        each = lanes // groups
        share = _share(op)
        tiles = -(-width // _max_rows(share))
        columns = -(-width // tiles)
        block = max(LANES * share, self.lanes_a_block // (LANES * share) * LANES * share)
        maps = _epilogue_maps(op, rows=[0, 1, 2], lanes=3, weight_axes=4)
        weight = shape_of(op.weight)
        strides, dilations = integers(op.strides), integers(op.dilations)
        window = [dilations[a] * (weight[1 + a] - 1) + 1 for a in (0, 1)]

        def tile(inner: Emitter, places: Mapping[int, _Place]) -> None:
            group = places[4].offset if groups > 1 else 0
            first = inner.multiply(group, each)
            lane = _Place(inner.add(first, places[3].offset), places[3].size)
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
                _view(inner, v, m, shifted) for v, m in zip(op.operands[1:], maps[1:], strict=True)
            ]
            clone = _clone(op, [source, *views])
            clone.properties["groups"] = IntegerAttr(1, i64)
            if groups > 1:
                # Lane groups do not straddle the groups of the whole weight.
                clone.attributes[GROUP_LANES] = IntegerAttr(each, i64)
            inner.insert(clone)

        def body(inner: Emitter, places: Mapping[int, _Place]) -> None:
            row = {**places, 2: _Place(0, width)}
            _sequential(inner, [(2, columns)], row, tile)

        loops: list[tuple[int, Extent, int]] = [(0, batch, 1), (1, height, 1)]
        if groups > 1:
            loops.append((4, groups, 1))
        _parallel(emit, [*loops, (3, each, block)], body)


@dataclass(frozen=True)
class _Place:
    """Where a tile lies along an axis."""

    offset: Extent
    size: Extent


def _upper(function: func.FuncOp, extent: Extent, high: Mapping[str, int]) -> int:
    return evaluate(function, extent, high)


def _share(op: EpilogueOp) -> int:
    """Lane groups that an instruction takes at a time: those of one index vector, or two."""
    encoding = encoding_of(op.weight)
    return 2 if encoding is None else encoding.share.data


def _max_rows(share: int) -> int:
    """Rows whose accumulators fit the registers beside what a step loads."""
    return MAX_ROWS if share == 1 else 12


def _clone(op: Operation, operands: Sequence[SSAValue]) -> Operation:
    return type(op).create(
        operands=operands, properties=dict(op.properties), attributes=dict(op.attributes)
    )


def _view(emit: Emitter, value: SSAValue, axes: Map, places: Mapping[int, _Place]) -> SSAValue:
    """The part of an operand that a tile reads or writes."""
    if not any(axis in places for axis in axes if axis is not None):
        return value
    extents = emit.extents(value)
    chosen = [places.get(axis) if axis is not None else None for axis in axes]
    offsets = [place.offset if place else 0 for place in chosen]
    sizes = [place.size if place else e for place, e in zip(chosen, extents, strict=True)]
    return emit.subview(value, offsets, sizes)


def _cut(emit: Emitter, offset: SSAValue, extent: Extent, step: int) -> Extent:
    """The size of the tile at `offset`: `step`, or what is left."""
    if step == 1 or (isinstance(extent, int) and extent % step == 0):
        return step
    return emit.minimum(emit.subtract(extent, offset), step)


def _parallel(
    emit: Emitter,
    loops: Sequence[tuple[int, Extent, int]],
    body: Callable[[Emitter, Mapping[int, _Place]], None],
) -> None:
    """`scf.parallel` over (axis, extent, step); an axis of one tile needs no loop."""
    fixed = {
        axis: _Place(0, extent)
        for axis, extent, step in loops
        if isinstance(extent, int) and extent <= step
    }
    loops = [loop for loop in loops if loop[0] not in fixed]
    if not loops:
        body(emit, fixed)
        return
    block = Block(arg_types=[IndexType()] * len(loops))
    inner = Emitter(InsertPoint.at_end(block))
    places = dict(fixed)
    for argument, (axis, extent, step) in zip(block.args, loops, strict=True):
        places[axis] = _Place(argument, _cut(inner, argument, extent, step))
    body(inner, places)
    inner.insert(scf.ReduceOp())
    loop = scf.ParallelOp(
        [emit.index(0)] * len(loops),
        [emit.index(extent) for _, extent, _ in loops],
        [emit.index(step) for _, _, step in loops],
        Region(block),
    )
    loop.attributes["cores"] = CoresAttr(IntAttr(CORES))
    emit.insert(loop)


def _sequential(
    emit: Emitter,
    order: Sequence[tuple[int, int]],
    places: Mapping[int, _Place],
    body: Callable[[Emitter, Mapping[int, _Place]], None],
) -> None:
    """Nested `scf.for` that cut `places` further by (axis, step), outermost first."""
    if not order:
        body(emit, places)
        return
    (axis, step), *rest = order
    offset, extent = places[axis].offset, places[axis].size
    if isinstance(extent, int) and extent <= step:
        _sequential(emit, rest, places, body)
        return
    block = Block(arg_types=[IndexType()])
    inner = Emitter(InsertPoint.at_end(block))
    size = _cut(inner, block.args[0], extent, step)
    place = _Place(inner.add(offset, block.args[0]), size)
    _sequential(inner, rest, {**places, axis: place}, body)
    inner.insert(scf.YieldOp())
    emit.insert(scf.ForOp(emit.index(0), emit.index(extent), emit.index(step), [], Region(block)))


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


def _attention(emit: Emitter, op: AttentionOp) -> None:
    """One head, and 64 query rows (all of them when causal), a tile."""
    batch, rows, _ = emit.extents(op.init)
    heads, kv_heads = op.heads.value.data, op.kv_heads.value.data
    size, v_size = shape_of(op.q)[2] // heads, shape_of(op.v)[2] // kv_heads
    causal = bool(op.causal.value.data)

    def body(inner: Emitter, places: Mapping[int, _Place]) -> None:
        b, head = places[0], places[1]
        row = places.get(2, _Place(0, rows))
        shared = heads // kv_heads
        kv = head.offset
        if shared > 1:
            kv = inner.divide(head.offset, shared)
        keys = inner.extents(op.k)[1]
        q = inner.subview(
            op.q,
            [b.offset, row.offset, inner.multiply(head.offset, size)],
            [b.size, row.size, size],
        )
        k = inner.subview(op.k, [b.offset, 0, inner.multiply(kv, size)], [b.size, keys, size])
        v = inner.subview(op.v, [b.offset, 0, inner.multiply(kv, v_size)], [b.size, keys, v_size])
        out = inner.subview(
            op.init,
            [b.offset, row.offset, inner.multiply(head.offset, v_size)],
            [b.size, row.size, v_size],
        )
        mask = None
        if op.mask is not None:
            by = [0, 1, 2, None]
            axes = [None if d == 1 else a for a, d in zip(by, shape_of(op.mask), strict=True)]
            mask = _view(inner, op.mask, axes, {0: b, 1: head, 2: row})
        clone = AttentionOp(
            q,
            k,
            v,
            mask,
            out,
            heads=1,
            kv_heads=1,
            scale=op.scale.value.data,
            causal=causal,
            attributes=dict(op.attributes),
        )
        inner.insert(clone)

    loops: list[tuple[int, Extent, int]] = [(0, batch, 1), (1, heads, 1)]
    if not causal:
        loops.append((2, rows, ATTENTION_ROWS))
    _parallel(emit, loops, body)


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
