"""Tiles of attention: one head of one sample, and some of its query rows."""

from __future__ import annotations

from collections.abc import Mapping

from spu_ir.dialects.spu import AttentionOp
from spu_ir.dialects.types import shape_of
from spu_ir.transforms.emitter import Emitter, Extent
from spu_ir.transforms.tiling_loops import Place, parallel_loops, view_of
from spu_ir.transforms.tiling_packed import SampleRows, one_sample

ATTENTION_ROWS = 64
"""Query rows of one attention instruction."""


def tile_attention(emit: Emitter, op: AttentionOp) -> None:
    """
    One head, and 64 query rows (all of them when causal), a tile.

    With offsets, a tile reads the first rows of k and v that its sample has. Of packed rows there
    are as many tiles as the longest sample that the mask allows would have; those behind a sample's
    end have no rows.
    """
    packed = op.packed
    q, k, v, init = (
        one_sample(emit, value) if packed else value for value in (op.q, op.k, op.v, op.init)
    )
    heads, kv_heads = op.heads.value.data, op.kv_heads.value.data
    size, v_size = shape_of(q)[2] // heads, shape_of(v)[2] // kv_heads
    batch, positions, _ = emit.extents(init)
    if packed:
        assert op.offsets is not None
        batch = emit.subtract(emit.extents(op.offsets)[0], 1)
        if op.mask is not None and shape_of(op.mask)[3] != 1:
            positions = emit.extents(op.mask)[3]
    causal = bool(op.causal.value.data)

    def body(inner: Emitter, places: Mapping[int, Place]) -> None:
        b, head = places[0], places[1]
        row = places.get(2, Place(0, positions))
        keys = Place(0, inner.extents(k)[1])
        sample = b
        first: Extent = 0
        if op.offsets is not None:
            rows = SampleRows.of(inner, op.offsets, b.offset)
            keys = Place(0, rows.count)
            if packed:
                row = Place(row.offset, rows.within(inner, row))
                first, sample = rows.first, Place(0, 1)
        kv = head.offset
        if heads > kv_heads:
            kv = inner.divide(head.offset, heads // kv_heads)
        own = inner.add(first, row.offset)
        tq, tk, tv, out = (
            inner.subview(value, [sample.offset, start, inner.multiply(number, width)], sizes)
            for value, start, number, width, sizes in (
                (q, own, head.offset, size, [sample.size, row.size, size]),
                (k, first, kv, size, [sample.size, keys.size, size]),
                (v, first, kv, v_size, [sample.size, keys.size, v_size]),
                (init, own, head.offset, v_size, [sample.size, row.size, v_size]),
            )
        )
        mask = None
        if op.mask is not None:
            by = [0, 1, 2, 3]
            axes = [None if d == 1 else a for a, d in zip(by, shape_of(op.mask), strict=True)]
            mask = view_of(inner, op.mask, axes, {0: b, 1: head, 2: row, 3: keys})
        clone = AttentionOp(
            tq,
            tk,
            tv,
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
        loops.append((2, positions, ATTENTION_ROWS))
    parallel_loops(emit, loops, body)
