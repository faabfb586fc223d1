"""Interpreter of the INT8 attention: packed keys and values, and what reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, cast

import numpy as np
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls

from spu_ir.dialects.spu import PackedAttentionOp, PackKeysOp, PackValuesOp
from spu_ir.dialects.spu_attention import KEY_BLOCK, PackHeadsOp
from spu_ir.dialects.types import Array

from . import numerics_attention_int8 as golden
from .destination import deliver
from .spu import split_heads


@register_impls
class PackedAttentionFunctions(InterpreterFunctions):
    """`spu.pack_keys`, `spu.pack_values` and `spu.packed_attention`."""

    @impl(PackKeysOp)
    def run_pack_keys(self, _: Interpreter, op: PackKeysOp, args: PythonValues) -> PythonValues:
        return deliver(op, args, *pack(op, args, golden.pack_keys))

    @impl(PackValuesOp)
    def run_pack_values(self, _: Interpreter, op: PackValuesOp, args: PythonValues) -> PythonValues:
        return deliver(op, args, *pack(op, args, golden.pack_values))

    @impl(PackedAttentionOp)
    def run_packed_attention(
        self, _: Interpreter, op: PackedAttentionOp, args: PythonValues
    ) -> PythonValues:
        q, k, k_scale, v, v_scales, *given, init = args
        mask = given[0] if op.mask is not None else None
        if op.offsets is None:
            return deliver(op, args, attention(op, q, k, k_scale, v, v_scales, mask))
        out = np.empty(init.shape, np.float32)
        for b, rows in samples(given[-1]):
            count = rows.stop - rows.start
            blocks = golden.blocks_of(count)
            own = None
            if mask is not None:
                own = mask[b if mask.shape[0] > 1 else 0][None]
                seen = count if q.ndim == 2 else q.shape[1]
                own = own[:, :, : seen if mask.shape[2] > 1 else 1, :count]
            keys = k[b, :, :blocks][None], k_scale[b, :, :blocks][None]
            values = v[b, :, :blocks][None], v_scales[b, :, :, :blocks][None]
            place = rows if q.ndim == 2 else b
            out[place] = attention(op, q[place][None], *keys, *values, own)[0]
        return deliver(op, args, out)


def samples(offsets: Array) -> Iterator[tuple[int, slice]]:
    """Every sample's number and its packed rows."""
    for b, (start, end) in enumerate(pairwise(int(offset) for offset in offsets)):
        yield b, slice(start, end)


def pack(
    op: PackHeadsOp, args: PythonValues, by: Callable[[Array], tuple[Any, Any]]
) -> tuple[Array, Array]:
    """The packed heads of `[B, T, heads * D]`, or of packed rows, and their scales."""
    x, init, scale_init = args[0], args[-2], args[-1]
    heads = init.shape[1]
    if op.offsets is None:
        packed, scale = by(split_heads(x, heads))
        return packed, scale.reshape(scale_init.shape)
    whole, scales = np.zeros(init.shape, init.dtype), np.zeros(scale_init.shape, np.float32)
    for b, rows in samples(args[1]):
        own = x[rows] if x.ndim == 2 else x[b, : rows.stop - rows.start]
        packed, scale = by(split_heads(own[None], heads))
        blocks = packed.shape[2]
        whole[b, :, :blocks] = packed[0]
        scales[b, ..., :blocks, :] = scale[0].reshape(*scale.shape[1:-1], blocks, KEY_BLOCK)
    return whole, scales


def attention(
    op: PackedAttentionOp,
    q: Array,
    k: Array,
    k_scale: Array,
    v: Array,
    v_scales: Array,
    mask: Array | None,
) -> Array:
    """`[B, S, heads * DV]` of q `[B, S, heads * D]` and packed heads."""
    heads = op.heads.value.data
    repeat = heads // k.shape[1]
    k, k_scale, v, v_scales = (np.repeat(x, repeat, axis=1) for x in (k, k_scale, v, v_scales))
    blocks = k.shape[2]
    keys = blocks * KEY_BLOCK
    if mask is not None and mask.shape[3] != 1:
        keys = mask.shape[3]
    out = golden.attention_int8(
        split_heads(q, heads),
        cast("Any", k),
        k_scale.reshape(*k_scale.shape[:2], -1),
        cast("Any", v),
        v_scales.reshape(*v_scales.shape[:3], -1),
        mask,
        keys=keys,
        depth=op.channels,
        scale=op.scale.value.data,
        causal_first=0 if op.causal.value.data else None,
    )
    return np.swapaxes(out, 1, 2).reshape(*q.shape[:2], heads * op.channels)
