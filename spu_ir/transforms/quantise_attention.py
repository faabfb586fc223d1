"""Turn f32 attention into INT8 attention of packed keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, tensor
from xdsl.dialects.builtin import IndexType, IntegerAttr, ModuleOp, StringAttr, TensorType, f32, i8
from xdsl.ir import Attribute, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from spu_ir.dialects.spu import AttentionOp, PackedAttentionOp, PackKeysOp, PackValuesOp
from spu_ir.dialects.spu_attention import KEY_BLOCK
from spu_ir.dialects.types import DYNAMIC, shape_of, ui8
from spu_ir.dialects.vpu import DequantiseOp
from spu_ir.errors import SpuError
from spu_ir.transforms.rewriting import PRECISION_REASON, dims_of

MODES = ("auto", "int8")


@dataclass(frozen=True)
class QuantiseAttentionPass(ModulePass):
    """
    `spu.attention` -> `spu.pack_keys`, `spu.pack_values` and `spu.packed_attention`.

    Queries, keys and values are quantised row by row at run time, each head for itself, so that
    nothing needs calibration and no row depends on another. In a model that was quantised before
    it came here, mode `auto` leaves attention in f32, as whoever quantised it did; `int8` does not.
    """

    name = "quantise-attention"
    preserves: ClassVar[str] = "lossy(5e-2)"

    mode: str = "auto"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.mode not in MODES:
            raise SpuError(
                f"quantise-attention has no mode {self.mode!r}",
                remedy=f"it is one of {', '.join(MODES)}",
            )
        attentions = [
            each for each in op.walk() if isinstance(each, AttentionOp) and each.on_tensors
        ]
        quantised = any(isinstance(each, DequantiseOp) for each in op.walk())
        for attention in attentions:
            if self.mode == "auto" and quantised:
                attention.attributes[PRECISION_REASON] = StringAttr(
                    "the model was quantised without its attention; attention='int8' does it"
                )
            else:
                quantise_attention(attention)

    def reference(self, ctx: Context, module: ModuleOp) -> ModuleOp:
        """`module` as it is: what rounding to bytes may add is the tolerance."""
        return module


def quantise_attention(op: AttentionOp) -> None:
    """Replace one attention; its keys' blocks are counted by the mask where rows are packed."""
    builder = Builder(InsertPoint.before(op))
    batch, keys = _batch_and_keys(op, builder)
    if keys is None:
        op.attributes["fallback_reason"] = StringAttr(
            "packed rows without a mask do not say how many keys a sample may have"
        )
        return
    blocks = _blocks(builder, keys)
    kv_heads = op.kv_heads.value.data
    size = shape_of(op.k)[-1] // kv_heads
    channels = shape_of(op.v)[-1] // kv_heads
    empty = _Empties(builder, batch, kv_heads)
    packed_k = PackKeysOp(
        op.k,
        op.offsets,
        empty.make(ui8, blocks, -(-size // 4), KEY_BLOCK, 4),
        empty.make(f32, blocks, KEY_BLOCK),
    )
    packed_v = PackValuesOp(
        op.v,
        op.offsets,
        empty.make(i8, blocks, KEY_BLOCK // 4, -(-channels // 16) * 16, 4),
        empty.make(f32, 2, blocks, KEY_BLOCK),
    )
    attention = PackedAttentionOp(
        op.q,
        (packed_k.results[0], packed_k.results[1]),
        (packed_v.results[0], packed_v.results[1]),
        op.mask,
        op.offsets,
        op.init,
        heads=op.heads.value.data,
        scale=op.scale.value.data,
        causal=bool(op.causal.value.data),
    )
    for new in (packed_k, packed_v, attention):
        new.attributes.update(op.attributes)
        builder.insert(new)
    attention.results[0].name_hint = op.results[0].name_hint
    op.results[0].replace_all_uses_with(attention.results[0])
    op.detach()
    op.erase()


def _batch_and_keys(
    op: AttentionOp, builder: Builder
) -> tuple[int | SSAValue, int | SSAValue | None]:
    """How many samples there are, and the most keys of one; None where nothing says it."""
    if len(shape_of(op.k)) == 3:
        batch, keys, _ = _extents(op.k)
        return batch, keys
    assert op.offsets is not None
    (samples,) = _extents(op.offsets)
    if isinstance(samples, int):
        batch = samples - 1
    else:
        batch = builder.insert(arith.SubiOp(samples, _index(builder, 1))).result
    if op.mask is None or shape_of(op.mask)[3] == 1:
        return batch, None
    if shape_of(op.mask)[0] != 1:
        batch = _extents(op.mask)[0]
    return batch, _extents(op.mask)[3]


def _extents(value: SSAValue) -> list[int | SSAValue]:
    dynamic = iter(dims_of(value))
    return [next(dynamic) if extent == DYNAMIC else extent for extent in shape_of(value)]


def _index(builder: Builder, value: int) -> SSAValue:
    return builder.insert(arith.ConstantOp(IntegerAttr(value, IndexType()))).result


def _blocks(builder: Builder, keys: int | SSAValue) -> int | SSAValue:
    if isinstance(keys, int):
        return -(-keys // KEY_BLOCK)
    return builder.insert(arith.CeilDivUIOp(keys, _index(builder, KEY_BLOCK))).result


@dataclass(frozen=True)
class _Empties:
    """Makes inits `[batch, heads, ...]`."""

    builder: Builder
    batch: int | SSAValue
    heads: int

    def make(self, element: Attribute, *rest: int | SSAValue) -> SSAValue:
        extents = (self.batch, self.heads, *rest)
        shape = [extent if isinstance(extent, int) else DYNAMIC for extent in extents]
        dynamic = [extent for extent in extents if isinstance(extent, SSAValue)]
        return self.builder.insert(tensor.EmptyOp(dynamic, TensorType(element, shape))).tensor
