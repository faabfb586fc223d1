"""Tiles of attention: one head of one sample, and some of its query rows; of packing, one head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from xdsl.ir import SSAValue

from spu_ir.dialects.spu import AttentionOp, PackedAttentionOp, PackKeysOp, PackValuesOp
from spu_ir.dialects.spu_attention import KEY_BLOCK
from spu_ir.dialects.types import shape_of
from spu_ir.transforms.emitter import Emitter, Extent
from spu_ir.transforms.tiling_loops import Place, parallel_loops, view_of
from spu_ir.transforms.tiling_packed import SampleRows, one_sample

ATTENTION_ROWS = 64
"""Query rows of one attention instruction."""

AnyAttention: TypeAlias = AttentionOp | PackedAttentionOp
Loops: TypeAlias = list[tuple[int, Extent, int]]


def tile_attention(emit: Emitter, op: AnyAttention) -> None:
    """
    One head, and 64 query rows (all of them when causal), a tile.

    With offsets, a tile reads the keys and values that its sample has. Of packed rows there are as
    many tiles as the longest sample that the mask allows would have; those behind a sample's end
    have no rows.
    """
    packed = len(shape_of(op.q)) == 2
    q, init = (one_sample(emit, value) if packed else value for value in (op.q, op.init))
    heads, kv_heads = op.heads.value.data, kv_heads_of(op)
    size, v_size = shape_of(q)[2] // heads, shape_of(init)[2] // heads
    batch, positions, _ = emit.extents(init)
    if packed:
        assert op.offsets is not None
        batch = emit.subtract(emit.extents(op.offsets)[0], 1)
        if op.mask is not None and shape_of(op.mask)[3] != 1:
            positions = emit.extents(op.mask)[3]
    causal = bool(op.causal.value.data)
    if isinstance(op, AttentionOp) and packed:
        sources = one_sample(emit, op.k), one_sample(emit, op.v)
    else:
        sources = op.k, op.v

    def body(inner: Emitter, places: Mapping[int, Place]) -> None:
        b, head = places[0], places[1]
        row = places.get(2, Place(0, positions))
        sample = b
        first: Extent = 0
        rows: SampleRows | None = None
        if op.offsets is not None:
            rows = SampleRows.of(inner, op.offsets, b.offset)
            if packed:
                row = Place(row.offset, rows.within(inner, row))
                sample, first = Place(0, 1), rows.first
        kv = head.offset
        if heads > kv_heads:
            kv = inner.divide(head.offset, heads // kv_heads)
        own = inner.add(first, row.offset)
        tile_q, out = (
            inner.subview(
                value,
                [sample.offset, own, inner.multiply(head.offset, width)],
                [sample.size, row.size, width],
            )
            for value, width in ((q, size), (init, v_size))
        )
        if isinstance(op, AttentionOp):
            keys = rows.count if rows is not None else inner.extents(sources[0])[1]
            tile_k, tile_v = (
                inner.subview(
                    value,
                    [sample.offset, first, inner.multiply(kv, width)],
                    [sample.size, keys, width],
                )
                for value, width in zip(sources, (size, v_size), strict=True)
            )
            tile_mask = _mask_view(inner, op, {0: b, 1: head, 2: row, 3: Place(0, keys)})
            tile = AttentionOp(
                tile_q,
                tile_k,
                tile_v,
                tile_mask,
                out,
                heads=1,
                kv_heads=1,
                scale=op.scale.value.data,
                causal=causal,
            )
        else:
            blocks = None if rows is None else inner.ceil_divide(rows.count, KEY_BLOCK)
            at = {0: b, 1: head, 2: row}
            if rows is not None:
                at[3] = Place(0, rows.count)
            tile = PackedAttentionOp(
                tile_q,
                (_head(inner, op.k, b, kv, blocks), _head(inner, op.k_scale, b, kv, blocks)),
                (_head(inner, op.v, b, kv, blocks), _head(inner, op.v_scales, b, kv, blocks)),
                _mask_view(inner, op, at),
                None,
                out,
                heads=1,
                scale=op.scale.value.data,
                causal=causal,
            )
        tile.attributes.update(op.attributes)
        inner.insert(tile)

    loops: Loops = [(0, batch, 1), (1, heads, 1)]
    if not causal:
        loops.append((2, positions, ATTENTION_ROWS))
    parallel_loops(emit, loops, body)


def kv_heads_of(op: AnyAttention) -> int:
    """Heads of the keys and values."""
    return op.kv_heads.value.data if isinstance(op, AttentionOp) else shape_of(op.k)[1]


def _mask_view(emit: Emitter, op: AnyAttention, places: Mapping[int, Place]) -> SSAValue | None:
    if op.mask is None:
        return None
    axes = [None if d == 1 else axis for axis, d in enumerate(shape_of(op.mask))]
    return view_of(emit, op.mask, axes, places)


def _head(
    emit: Emitter, packed: SSAValue, sample: Place, head: Extent, blocks: Extent | None
) -> SSAValue:
    """One head of packed keys, values or scales; its first `blocks` blocks, None for all."""
    extents = emit.extents(packed)
    # Blocks are the fourth axis from the end of heads, the second of scales.
    axis = 2 if len(extents) == 6 else len(extents) - 2
    sizes: list[Extent] = [sample.size, 1, *extents[2:]]
    if blocks is not None:
        sizes[axis] = blocks
    return emit.subview(packed, [sample.offset, head, *[0] * (len(extents) - 2)], sizes)


def tile_pack_heads(emit: Emitter, op: PackKeysOp | PackValuesOp) -> None:
    """One head of one sample a tile."""
    rows_packed = len(shape_of(op.x)) == 2
    source = one_sample(emit, op.x) if rows_packed else op.x
    batch, heads = emit.extents(op.init)[0], shape_of(op.init)[1]
    size = shape_of(op.x)[-1] // heads

    def body(inner: Emitter, places: Mapping[int, Place]) -> None:
        b, head = places[0], places[1]
        sample = b
        first: Extent = 0
        blocks: Extent | None = None
        if op.offsets is None:
            keys = inner.extents(source)[1]
        else:
            rows = SampleRows.of(inner, op.offsets, b.offset)
            keys, blocks = rows.count, inner.ceil_divide(rows.count, KEY_BLOCK)
            if rows_packed:
                sample, first = Place(0, 1), rows.first
        x = inner.subview(
            source,
            [sample.offset, first, inner.multiply(head.offset, size)],
            [sample.size, keys, size],
        )
        inits = (_head(inner, init, b, head.offset, blocks) for init in op.inits)
        tile = type(op)(x, None, *inits)
        tile.attributes.update(op.attributes)
        inner.insert(tile)

    parallel_loops(emit, [(0, batch, 1), (1, heads, 1)], body)
