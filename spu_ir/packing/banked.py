"""
Logical weights to the arrays that the SPU's kernels stream (runtime/device/spu_tile.h).

A *quad* is 64 index bytes and 64 value bytes: 16 lanes of 4 INT8 or 2 bfloat16 slots, gathered
from one window of the activation, or from two when a bank keeps fewer slots than a quad has. A
block of `share` lane groups has one index vector and `share` value vectors per quad. Dense
weights are *steps* instead: 4 INT8, 2 bfloat16 or 1 float32 consecutive elements of every lane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..dialects.types import Array
from ..dialects.weights import BANK_BYTES
from .windows import I64, LANES, Segments, blocks_of, check_weight, counts_of, windows_of

Kind = Literal["i8", "bf16", "f32"]
Format = Literal["dense", "banked", "banked2", "depthwise"]

_KINDS: dict[str, Kind] = {"int8": "i8", "bfloat16": "bf16", "float32": "f32"}


@dataclass(frozen=True)
class PackedWeight:
    """
    One weight in the layout of the device; `spu_weight` in spu_tile.h names the same arrays.

    Lane groups of convolution group g start at g * `lane_groups`, a multiple of `share`.
    """

    kind: Kind
    format: Format
    share: int
    """Lane groups of a block, which use one index vector (1 when dense)."""
    index: NDArray[np.uint8] | None
    """uint8 [quads, 64]; None when dense."""
    value: NDArray[Any]
    """uint8 [quads * share, 64], quad-major; dense: uint8 [steps, 64] or float32 [steps, 16]."""
    offset: NDArray[np.int32]
    """int32 [quads] bytes from x, [quads, 2] when `format` is banked2, [steps] when dense."""
    begin: NDArray[np.int32]
    """int32 [blocks + 1] the first quad (step) of every block."""
    correction: NDArray[np.int32] | None
    """int32 [blocks * share * 16] the first accumulators, -x_zero * sum(w); None: zeros."""
    slots_run: float
    """Slots run per full bank and row, on average: 64 / slots_run is an INT8's real ratio."""
    lane_groups: int
    """Lane groups of each convolution group, padding included."""
    paired: bool = False
    """Whether blocks 2i and 2i + 1 of every convolution group have the same list of windows."""

    @property
    def nbytes(self) -> int:
        """Bytes of all the arrays."""
        arrays = (self.index, self.value, self.offset, self.begin, self.correction)
        return sum(array.nbytes for array in arrays if array is not None)


def slots_needed(
    weight: Array, segments: Segments, bank: int, share: int = 1, groups: int = 1
) -> int:
    """The largest number of non-zeros in any lane and bank of `weight` `[N, K]`."""
    _check_bank(weight, bank)
    counts = counts_of(weight, segments, share, groups)
    return int(counts.max(initial=0))


def is_balanced(
    weight: Array, segments: Segments, bank: int, slots: int, share: int = 1, groups: int = 1
) -> bool:
    """Whether no lane and bank of `weight` has more than `slots` non-zeros."""
    return slots_needed(weight, segments, bank, share, groups) <= slots


def check_accumulator(weight: Array, x_zero: int) -> None:
    """
    Prove that no sum of an INT8 weight `[N, K]` with u8 activations leaves int32.

    Raises ValueError with the row and its bound unless 255 * sum|w| + |x_zero * sum(w)| < 2^31
    for every row, which bounds every partial sum in any order too.
    """
    wide = weight.astype(np.int64)
    bound = 255 * np.abs(wide).sum(axis=1) + np.abs(x_zero * wide.sum(axis=1))
    if bound.size and int(bound.max()) >= 2**31:
        row = int(bound.argmax())
        raise ValueError(
            f"sums of row {row} may reach {int(bound[row])}, beyond int32's {2**31 - 1}"
        )


def pack(
    weight: Array,
    *,
    segments: Segments,
    encoding: tuple[int, int, int] | None,
    x_zero: int = 0,
    groups: int = 1,
    group_bytes: int = 0,
) -> PackedWeight:
    """
    Pack `weight` `[N, K]` (int8, bfloat16 or float32; K in segment order).

    `encoding` is (bank, slots, share) of `#spu.banked`, slots 0 for lossless, or None for dense
    (float32 is always dense). `x_zero` is the zero point of u8 activations. Rows of convolution
    group g (of `groups`) read every segment `group_bytes` * g bytes further on.

    A dense bfloat16 weight with a segment of one element is packed as lossless banked, because
    a step would read past it. Raises ValueError when shapes disagree, when a bank has more
    non-zeros than slots, or when a sum could leave int32.
    """
    kind = _KINDS.get(weight.dtype.name)
    if kind is None:
        raise ValueError(f"the SPU has int8, bfloat16 and float32 weights, not {weight.dtype}")
    check_weight(weight, segments, groups)
    if kind == "i8":
        check_accumulator(weight, x_zero)
    if encoding is None and kind == "bf16" and any(length == 1 for _, length in segments):
        encoding = (BANK_BYTES // 2, 0, 1)
    if encoding is None or kind == "f32":
        return _pack_dense(weight, kind, segments, x_zero, groups, group_bytes)
    return _pack_banked(weight, kind, segments, encoding, x_zero, groups, group_bytes)


def _pack_banked(
    weight: Array,
    kind: Kind,
    segments: Segments,
    encoding: tuple[int, int, int],
    x_zero: int,
    groups: int,
    group_bytes: int,
) -> PackedWeight:
    bank, slots, share = encoding
    _check_bank(weight, bank)
    size = weight.itemsize
    width = 4 // size
    two = 0 < slots < width
    windows = windows_of(segments, size)
    blocks = blocks_of(weight, share, groups)
    counts = counts_of(weight, segments, share, groups)
    if slots and int(counts.max(initial=0)) > slots:
        block, lane, window = (int(i) for i in np.unravel_index(counts.argmax(), counts.shape))
        raise ValueError(
            f"lane {lane} of block {block} has {int(counts.max())} non-zeros in bank {window}, "
            f"more than {slots} slots"
        )

    # With two windows to a quad, windows 2i and 2i + 1 are one unit of work.
    unit = windows.of // 2 if two else windows.of
    place = windows.place + BANK_BYTES * (windows.of % 2) if two else windows.place
    units = -(-windows.count // 2) if two else windows.count
    used = (blocks != 0).any(axis=1).reshape(-1, weight.shape[1])
    row, k = np.nonzero(used)  # by row, then by k: the order of the slots
    lists = row * units + unit[k]
    length = np.bincount(lists, minlength=used.shape[0] * units)
    rank = np.arange(lists.size) - (np.cumsum(length) - length)[lists]
    per_unit = length.reshape(blocks.shape[0], LANES, units).max(axis=1, initial=0)
    need = -(-per_unit // width)
    paired = kind == "i8" and slots > 0 and share == 1 and not two
    if paired:
        need = _in_pairs(need, groups)
    first = (np.cumsum(need) - need.reshape(-1)).reshape(need.shape)
    total = int(need.sum())

    block, lane = row // LANES, row % LANES
    quad = first[block, unit[k]] + rank // width
    slot = rank % width
    # An unused slot reads the window's first element, as a whole, and multiplies it by zero.
    index = np.zeros((total, LANES, width, size), dtype=np.uint8) + np.arange(size, dtype=np.uint8)
    value = np.zeros((total, share, LANES, width), dtype=weight.dtype)
    index[quad, lane, slot] = place[k][:, None] + np.arange(size)
    for j in range(share):
        value[quad, j, lane, slot] = blocks[block, j, lane, k]

    starts = windows.offset
    if two:
        second = np.append(starts[1::2], starts[-1:]) if starts.size % 2 else starts[1::2]
        starts = np.stack([starts[::2], second], axis=-1)
    per_group = blocks.shape[0] // groups
    moved = np.repeat(np.arange(groups), per_group) * group_bytes
    every = starts[None] + moved.reshape(-1, 1, *(1,) * (starts.ndim - 1))
    offset = np.repeat(every.reshape(-1, *starts.shape[1:]), need.reshape(-1), axis=0)
    return PackedWeight(
        kind=kind,
        format="banked2" if two else "banked",
        share=share,
        index=index.reshape(total, BANK_BYTES),
        value=value.reshape(total * share, LANES * width).view(np.uint8),
        offset=_int32(offset),
        begin=_int32(np.concatenate([[0], np.cumsum(need.sum(axis=1))])),
        correction=_correction(blocks, kind, x_zero),
        slots_run=total * width * bank / max(1, blocks.shape[0] * weight.shape[1]),
        lane_groups=per_group * share,
        paired=paired,
    )


def _in_pairs(need: NDArray[Any], groups: int) -> NDArray[Any]:
    """
    The quads `[blocks, windows]` of every block: as many as that one of its pair has that has more.

    With so many slots a bank nearly all need as many: what differs are banks without non-zeros.
    """
    joined = need.reshape(groups, need.shape[0] // groups, need.shape[1]).copy()
    even = joined.shape[1] // 2 * 2
    most = np.maximum(joined[:, :even:2], joined[:, 1:even:2])
    joined[:, :even:2] = joined[:, 1:even:2] = most
    return joined.reshape(need.shape)


def _pack_dense(
    weight: Array, kind: Kind, segments: Segments, x_zero: int, groups: int, group_bytes: int
) -> PackedWeight:
    size = weight.itemsize
    width = max(1, 4 // size)
    blocks = blocks_of(weight, 1, groups)
    starts: list[int] = []
    source: list[int] = []  # the element of every slot, -1 for none
    k = 0
    for offset, length in segments:
        for step in range(0, length, width):
            read = list(range(k + step, k + min(step + width, length)))
            if kind == "bf16" and len(read) == 1:
                # Step back over an element already used rather than read past the segment,
                # where there may be a NaN, which a weight of zero would not silence.
                starts.append(offset + (step - 1) * size)
                source.extend([-1, *read])
            else:
                starts.append(offset + step * size)
                source.extend(read + [-1] * (width - len(read)))
        k += length
    slots = np.array(source, dtype=np.int64)
    value = np.where(slots >= 0, blocks[:, 0][..., slots], np.zeros((), dtype=weight.dtype))
    steps = len(starts)
    value = value.reshape(-1, LANES, steps, width).transpose(0, 2, 1, 3)
    flat = np.ascontiguousarray(value).reshape(-1, LANES * width)
    per_group = blocks.shape[0] // groups
    moved = np.repeat(np.arange(groups), per_group) * group_bytes
    return PackedWeight(
        kind=kind,
        format="dense",
        share=1,
        index=None,
        value=flat if kind == "f32" else flat.view(np.uint8),
        offset=_int32((np.array(starts, dtype=np.int64)[None] + moved[:, None]).reshape(-1)),
        begin=_int32(np.arange(blocks.shape[0] + 1, dtype=np.int64) * steps),
        correction=_correction(blocks, kind, x_zero),
        slots_run=float(BANK_BYTES // size),
        lane_groups=per_group,
    )


def _check_bank(weight: Array, bank: int) -> None:
    if bank * weight.itemsize != BANK_BYTES:
        raise ValueError(f"a bank of {weight.dtype} is {BANK_BYTES // weight.itemsize}, not {bank}")


def _correction(blocks: NDArray[Any], kind: Kind, x_zero: int) -> NDArray[np.int32] | None:
    if kind != "i8" or x_zero == 0:
        return None
    return _int32(-x_zero * blocks.astype(np.int64).sum(axis=-1)).reshape(-1)


def _int32(values: I64 | Sequence[int]) -> NDArray[np.int32]:
    wide = np.asarray(values, dtype=np.int64)
    if wide.size and (int(wide.max()) >= 2**31 or int(wide.min()) < -(2**31)):
        raise ValueError(f"a packed weight's list leaves int32: {int(np.abs(wide).max())}")
    return wide.astype(np.int32)
