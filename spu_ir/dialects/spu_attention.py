"""
The SPU's attention: scores, softmax and sums in one op, in f32, or in INT8 of packed heads.

For INT8 keys and values are quantised row by row and packed as the SPU reads them, by head, in
blocks of 64 keys:
keys ui8 `[B, heads, blocks, quads of D, 64, 4]`, a quad being 4 channels of one key; values i8
`[B, heads, blocks, 16, channels, 4]`, a quad being 4 keys of one channel, the channels padded to a
multiple of 16. docs/numerics.md has the arithmetic.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence

from xdsl.dialects.builtin import (
    BoolAttr,
    FloatAttr,
    IntegerAttr,
    MemRefType,
    TensorType,
    f32,
    i8,
    i64,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    ParsePropInAttrDict,
    SameVariadicResultSize,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_result_def,
    prop_def,
    traits_def,
)

from .destination import DestinationEffects, DestinationOp, result_type
from .types import DYNAMIC, same_extent, shape_of, show_shape, ui8

KEY_BLOCK = 64
"""Keys of one block: the bytes of a bank."""

MAX_HEAD = 256
"""The largest head size."""


def require_offsets(op: DestinationOp, offsets: SSAValue, batch: int) -> None:
    """`offsets` of `op` must be i64 `[batch + 1]`."""
    op.require_element("offsets", offsets, i64)
    op.require_shape("offsets", offsets, [DYNAMIC if batch == DYNAMIC else batch + 1])


def require_mask(op: DestinationOp, mask: SSAValue, scores: Sequence[int]) -> None:
    """`mask` of `op` must have four axes, and broadcast to `scores`, `[B, heads, S, T]`."""
    shape = shape_of(mask)
    op.require(
        len(shape) == 4
        and all(m == 1 or same_extent(m, s) for m, s in zip(shape, scores, strict=True)),
        f"mask must broadcast to {show_shape(scores)}, got {show_shape(shape)}",
    )


@irdl_op_definition
class AttentionOp(DestinationOp):
    """
    Fused scaled dot-product attention; no matrix of size S x T is ever in memory.

    q `[B, S, heads * D]`, k `[B, T, kv_heads * D]`, v `[B, T, kv_heads * DV]`, mask (added to the
    scores) f32 of four axes broadcastable to `[B, heads, S, T]`, init `[B, S, heads * DV]`; all
    f32. `heads` is a multiple of `kv_heads`; D and DV at most 256. The softmax runs over blocks
    of 64 keys (docs/numerics.md). `causal` masks keys after the query's own position.

    With `offsets`, i64 `[B + 1]`, sample b sees only its first `offsets[b + 1] - offsets[b]` keys.
    Then q, k, v and init may also be packed rows (`vpu.pack_rows`), `[rows, heads * D]` and so on;
    the mask stays as it is.
    """

    name = "spu.attention"

    q = operand_def(TensorType | MemRefType)
    k = operand_def(TensorType | MemRefType)
    v = operand_def(TensorType | MemRefType)
    mask = opt_operand_def(TensorType | MemRefType)
    offsets = opt_operand_def(TensorType | MemRefType)
    init = operand_def(TensorType | MemRefType)
    result = opt_result_def(TensorType)
    heads = prop_def(IntegerAttr)
    kv_heads = prop_def(IntegerAttr)
    scale = prop_def(FloatAttr)
    causal = prop_def(BoolAttr, default_value=IntegerAttr.from_bool(False))

    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    traits = traits_def(DestinationEffects())
    assembly_format = (
        "$q `,` $k `,` $v (`mask` `(` $mask^ `:` type($mask) `)`)? "
        "(`offsets` `(` $offsets^ `:` type($offsets) `)`)? `into` $init attr-dict "
        "`:` type($q) `,` type($k) `,` type($v) `,` type($init) (`->` type($result)^)?"
    )

    def __init__(
        self,
        q: SSAValue,
        k: SSAValue,
        v: SSAValue,
        mask: SSAValue | None,
        init: SSAValue,
        *,
        heads: int,
        kv_heads: int,
        scale: float,
        causal: bool = False,
        offsets: SSAValue | None = None,
        attributes: dict[str, Attribute] | None = None,
    ):
        super().__init__(
            operands=[q, k, v, mask, offsets, init],
            result_types=[result_type(init)],
            properties={
                "heads": IntegerAttr(heads, i64),
                "kv_heads": IntegerAttr(kv_heads, i64),
                "scale": FloatAttr(scale, f32),
                "causal": IntegerAttr.from_bool(causal),
            },
            attributes=dict(attributes or {}),
        )

    @property
    def inits(self) -> Sequence[SSAValue]:
        return (self.init,)

    @property
    def packed(self) -> bool:
        """Whether q, k, v and the init are packed rows."""
        return self.offsets is not None and len(shape_of(self.q)) == 2

    def verify_meaning(self) -> None:
        q, k, v, init = (shape_of(x) for x in (self.q, self.k, self.v, self.init))
        if self.packed:
            self.require(
                len(k) == len(v) == len(init) == 2,
                "q, k, v and init must all be packed rows [rows, heads * head size], or none",
            )
            # As the samples' rows in a batch of unknown extents.
            q, k, v, init = ((DYNAMIC, *x) for x in (q, k, v, init))
        heads, kv_heads = self.heads.value.data, self.kv_heads.value.data
        self.require(
            heads >= 1 and kv_heads >= 1 and heads % kv_heads == 0,
            f"heads must be a multiple of kv_heads, got {heads} and {kv_heads}",
        )
        self.require(
            len(q) == len(k) == len(v) == len(init) == 3,
            "q, k, v and init must be [batch, sequence, heads * head size]",
        )
        self.require(
            DYNAMIC not in (q[2], k[2], v[2], init[2])
            and q[2] % heads == k[2] % kv_heads == v[2] % kv_heads == 0
            and q[2] // heads == k[2] // kv_heads,
            f"q and k must have the same head size, got {q[2]} over {heads} heads and {k[2]} "
            f"over {kv_heads}",
        )
        size = max(q[2] // heads, v[2] // kv_heads)
        self.require(size <= MAX_HEAD, f"head sizes must be at most {MAX_HEAD}, got {size}")
        first = 1 if self.packed else 0
        self.require_shape("k", self.k, [q[0], k[1], k[2]][first:])
        self.require_shape("v", self.v, [q[0], k[1], v[2]][first:])
        width = heads * (v[2] // kv_heads)
        self.require_shape("the init", self.init, [q[0], q[1], width][first:])
        for value in self.operands:
            if value is not self.offsets:
                self.require_element("every operand", value, f32)
        batch = q[0]
        if self.offsets is not None:
            samples = shape_of(self.offsets)
            if self.packed and len(samples) == 1 and samples[0] != DYNAMIC:
                batch = samples[0] - 1
            require_offsets(self, self.offsets, batch)
        if self.mask is not None:
            positions = (DYNAMIC, DYNAMIC) if self.packed else (q[1], k[1])
            require_mask(self, self.mask, (batch, heads, *positions))


class PackHeadsOp(DestinationOp, ABC):
    """What packing of keys and of values share: x, offsets, the packed init and its scales'."""

    x = operand_def(TensorType | MemRefType)
    offsets = opt_operand_def(TensorType | MemRefType)
    init = operand_def(TensorType | MemRefType)
    scale_init = operand_def(TensorType | MemRefType)
    result = opt_result_def(TensorType)
    scale = opt_result_def(TensorType)

    irdl_options = (SameVariadicResultSize(), ParsePropInAttrDict())
    traits = traits_def(DestinationEffects())
    assembly_format = (
        "$x (`offsets` `(` $offsets^ `:` type($offsets) `)`)? `into` $init `,` $scale_init "
        "attr-dict `:` type($x) `,` type($init) `,` type($scale_init) "
        "(`->` type($result)^ `,` type($scale))?"
    )

    def __init__(self, x: SSAValue, offsets: SSAValue | None, init: SSAValue, scale_init: SSAValue):
        super().__init__(
            operands=[x, offsets, init, scale_init],
            result_types=[result_type(init), result_type(scale_init)],
        )

    @property
    def inits(self) -> Sequence[SSAValue]:
        return (self.init, self.scale_init)

    def verify_heads(self) -> tuple[int, int, int, int]:
        """Check x, offsets and the scales' element; (batch, heads, blocks, head size)."""
        x, packed = shape_of(self.x), shape_of(self.init)
        self.require(len(packed) == 6, f"the init must have six axes, got {show_shape(packed)}")
        batch, heads, blocks = packed[:3]
        self.require(
            len(x) == 3 or (len(x) == 2 and self.offsets is not None),
            f"x must be [batch, keys, heads * head size], or [rows, heads * head size] with "
            f"offsets, got {show_shape(x)}",
        )
        self.require(
            heads > 0 and x[-1] != DYNAMIC and x[-1] % heads == 0,
            f"x must be of {heads} heads, got {show_shape(x)}",
        )
        size = x[-1] // heads
        self.require(size <= MAX_HEAD, f"head sizes must be at most {MAX_HEAD}, got {size}")
        self.require_element("x", self.x, f32)
        self.require_element("scale_init", self.scale_init, f32)
        if len(x) == 3:
            self.require(same_extent(x[0], batch), "x and the init must have one batch")
        if self.offsets is None:
            if DYNAMIC not in (x[1], blocks):
                needed = -(-x[1] // KEY_BLOCK)
                self.require(blocks == needed, f"{x[1]} keys are {needed} blocks, not {blocks}")
        else:
            require_offsets(self, self.offsets, batch)
        return batch, heads, blocks, size


@irdl_op_definition
class PackKeysOp(PackHeadsOp):
    """
    Quantise keys by row, around 128, and pack them.

    x f32 `[B, T, heads * D]`; with offsets (`vpu.row_offsets`) only the rows that a sample has, and
    x may be packed rows, `[rows, heads * D]`. init ui8 `[B, heads, blocks, quads of D, 64, 4]`;
    scale_init f32 `[B, heads, blocks, 64]`.
    Behind a sample's last key the scale is 0, in the last block that it reaches.
    """

    name = "spu.pack_keys"

    def verify_meaning(self) -> None:
        batch, heads, blocks, size = self.verify_heads()
        self.require_element("the init", self.init, ui8)
        self.require_shape("the init", self.init, [batch, heads, blocks, -(-size // 4), 64, 4])
        self.require_shape("scale_init", self.scale_init, [batch, heads, blocks, KEY_BLOCK])


@irdl_op_definition
class PackValuesOp(PackHeadsOp):
    """
    Quantise values by row, symmetrically, and pack them.

    x as that of `spu.pack_keys`, of D channels a head; init i8 `[B, heads, blocks, 16, channels,
    4]`; scale_init f32 `[B, heads, 2, blocks, 64]`: of each row's scale the inverse, and the binary
    logarithm. Behind a sample's last row, in the last block that it reaches, they are 0 and
    -infinity, which hides it.
    """

    name = "spu.pack_values"

    def verify_meaning(self) -> None:
        batch, heads, blocks, size = self.verify_heads()
        self.require_element("the init", self.init, i8)
        channels = -(-size // 16) * 16
        self.require_shape("the init", self.init, [batch, heads, blocks, 16, channels, 4])
        self.require_shape("scale_init", self.scale_init, [batch, heads, 2, blocks, KEY_BLOCK])


@irdl_op_definition
class PackedAttentionOp(DestinationOp):
    """
    `softmax(scale * q . k^T + mask) . v` of packed keys and values, in INT8 with an f32 softmax.

    q f32 `[B, S, heads * D]`, quantised by row and head; k and k_scale of `spu.pack_keys`, v and
    v_scales of `spu.pack_values`, of kv_heads heads; mask (added to the scores) f32 of four axes
    broadcastable to `[B, heads, S, T]`; init f32 `[B, S, heads * DV]`. `heads` is a multiple of
    kv_heads. `causal` masks keys after the query's own position. With `offsets`, i64 `[B + 1]`,
    keys and values were packed with the same ones, and q and init may be packed rows too.
    """

    name = "spu.packed_attention"

    q = operand_def(TensorType | MemRefType)
    k = operand_def(TensorType | MemRefType)
    k_scale = operand_def(TensorType | MemRefType)
    v = operand_def(TensorType | MemRefType)
    v_scales = operand_def(TensorType | MemRefType)
    mask = opt_operand_def(TensorType | MemRefType)
    offsets = opt_operand_def(TensorType | MemRefType)
    init = operand_def(TensorType | MemRefType)
    result = opt_result_def(TensorType)
    heads = prop_def(IntegerAttr)
    scale = prop_def(FloatAttr)
    causal = prop_def(BoolAttr, default_value=IntegerAttr.from_bool(False))

    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    traits = traits_def(DestinationEffects())
    assembly_format = (
        "$q `,` $k `,` $k_scale `,` $v `,` $v_scales (`mask` `(` $mask^ `:` type($mask) `)`)? "
        "(`offsets` `(` $offsets^ `:` type($offsets) `)`)? `into` $init attr-dict `:` type($q) "
        "`,` type($k) `,` type($k_scale) `,` type($v) `,` type($v_scales) `,` type($init) "
        "(`->` type($result)^)?"
    )

    def __init__(
        self,
        q: SSAValue,
        keys: tuple[SSAValue, SSAValue],
        values: tuple[SSAValue, SSAValue],
        mask: SSAValue | None,
        offsets: SSAValue | None,
        init: SSAValue,
        *,
        heads: int,
        scale: float,
        causal: bool = False,
    ):
        super().__init__(
            operands=[q, *keys, *values, mask, offsets, init],
            result_types=[result_type(init)],
            properties={
                "heads": IntegerAttr(heads, i64),
                "scale": FloatAttr(scale, f32),
                "causal": IntegerAttr.from_bool(causal),
            },
        )

    @property
    def inits(self) -> Sequence[SSAValue]:
        return (self.init,)

    @property
    def channels(self) -> int:
        """Channels of a head of values."""
        return shape_of(self.init)[-1] // self.heads.value.data

    def verify_meaning(self) -> None:
        q, k, v, init = (shape_of(x) for x in (self.q, self.k, self.v, self.init))
        heads = self.heads.value.data
        self.require(len(k) == len(v) == 6, "k and v must be packed, with six axes")
        kv_heads = k[1]
        self.require(
            heads >= 1 and kv_heads >= 1 and heads % kv_heads == 0,
            f"heads must be a multiple of the packed {kv_heads}, got {heads}",
        )
        rank = len(q)
        self.require(
            rank == 3 or (rank == 2 and self.offsets is not None),
            "q must be [batch, rows, channels], or packed rows with offsets",
        )
        self.require(
            len(init) == rank and DYNAMIC not in (q[-1], init[-1]),
            "the init must have q's axes, the last one static",
        )
        size, channels = q[-1] // heads, init[-1] // heads
        self.require(
            q[-1] == heads * size and init[-1] == heads * channels and 1 <= size <= MAX_HEAD,
            f"q and the init must be of {heads} heads, got {q[-1]} and {init[-1]} channels",
        )
        batch, blocks = k[0], k[2]
        self.require_shape("q", self.q, [*init[:-1], heads * size])
        if rank == 3:
            self.require(same_extent(q[0], batch), "q and k must have one batch")
        self.require_shape("k", self.k, [batch, kv_heads, blocks, -(-size // 4), 64, 4])
        self.require_shape("k_scale", self.k_scale, [batch, kv_heads, blocks, KEY_BLOCK])
        wide = -(-channels // 16) * 16
        self.require_shape("v", self.v, [batch, kv_heads, blocks, 16, wide, 4])
        self.require_shape("v_scales", self.v_scales, [batch, kv_heads, 2, blocks, KEY_BLOCK])
        self.require_element("k", self.k, ui8)
        self.require_element("v", self.v, i8)
        for value in (self.q, self.k_scale, self.v_scales, self.mask, self.init):
            if value is not None:
                self.require_element("q, scales, mask and init", value, f32)
        if self.offsets is not None:
            require_offsets(self, self.offsets, batch)
        if self.mask is not None:
            rows = q[1] if rank == 3 else DYNAMIC
            require_mask(self, self.mask, (batch, heads, rows, DYNAMIC))
