"""How the weight of a product or a convolution is read as rows of runs, in which banks are cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spu_ir.packing.prune import RATIOS, banks_of, keep_in_banks, why_dense

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Mask: TypeAlias = NDArray[np.bool_]

BANK = 64
"""Weights of a bank of INT8; a bank of bfloat16 has 32."""

Kind = Literal["[n, k]", "[k, n]", "conv", "conv transpose"]


@dataclass(frozen=True)
class BankedRows:
    """
    A weight of some shape as rows `[N, K]`: row n is one output channel, K is its reduction.

    K is ordered as the compiler orders it (of a convolution: kernel row, kernel column, channel)
    and is a list of contiguous runs of equal length. Banks are cut inside runs, so the last of a
    run may be short.
    """

    kind: Kind
    shape: tuple[int, ...]
    groups: int
    run: int
    """Elements of a run."""

    @cached_property
    def depth(self) -> int:
        """K: how many weights an output channel has."""
        if self.kind == "[k, n]":
            return self.shape[0]
        if self.kind == "conv transpose":
            return self.shape[0] // self.groups * prod(self.shape[2:])
        return prod(self.shape[1:])

    @property
    def lengths(self) -> list[int]:
        """The lengths of the runs, in the order of K."""
        return [self.run] * (self.depth // self.run)

    @property
    def why_dense(self) -> str | None:
        """Why the compiler leaves such a weight dense, or None when it prunes it."""
        if self.kind in ("[n, k]", "[k, n]"):
            return why_dense(self.depth)
        channels = self.depth // prod(self.shape[2:])
        return why_dense(self.depth, channels, self.groups)

    def banks(self, bank: int = BANK) -> list[tuple[int, int]]:
        """(first, end) in K of every bank."""
        return list(banks_of(self.lengths, bank))

    def rows(self, weight: Array) -> Array:
        """The weight as `[N, K]`, of its own dtype."""
        if weight.shape != self.shape:
            raise ValueError(f"expected a weight of shape {self.shape}, got {weight.shape}")
        if self.kind == "[n, k]":
            return weight
        if self.kind == "[k, n]":
            return np.ascontiguousarray(weight.T)
        axes = (0, *range(2, weight.ndim), 1)
        return np.ascontiguousarray(self._filters(weight).transpose(axes)).reshape(-1, self.depth)

    def weight(self, rows: Array) -> Array:
        """The inverse of `rows`."""
        if self.kind == "[n, k]":
            return np.ascontiguousarray(rows)
        if self.kind == "[k, n]":
            return np.ascontiguousarray(rows.T)
        spatial = self.shape[2:]
        last = rows.reshape(len(rows), *spatial, -1)
        filters = last.transpose(0, last.ndim - 1, *range(1, last.ndim - 1))
        return np.ascontiguousarray(self._from_filters(filters))

    def _filters(self, weight: Array) -> Array:
        """`[out, channels, *kernel]` of a convolution that does the same."""
        if self.kind == "conv":
            return weight
        inner, outer = self.shape[0] // self.groups, self.shape[1]
        split = weight.reshape(self.groups, inner, outer, *self.shape[2:]).swapaxes(1, 2)
        turned = np.flip(split, axis=tuple(range(3, split.ndim)))
        return turned.reshape(self.groups * outer, inner, *self.shape[2:])

    def _from_filters(self, filters: Array) -> Array:
        if self.kind == "conv":
            return filters
        inner, outer = self.shape[0] // self.groups, self.shape[1]
        split = filters.reshape(self.groups, outer, inner, *self.shape[2:]).swapaxes(1, 2)
        return np.flip(split, axis=tuple(range(3, split.ndim))).reshape(self.shape)


def linear_rows(shape: Sequence[int], *, outputs_last: bool = False) -> BankedRows:
    """
    The rows of a product's weight, `[out, in]` or with `outputs_last` `[in, out]`: one run each.
    """
    if len(shape) != 2:
        raise ValueError(f"the weight of a product has two axes, not {list(shape)}")
    kind: Kind = "[k, n]" if outputs_last else "[n, k]"
    return BankedRows(kind, tuple(shape), 1, shape[0] if outputs_last else shape[1])


def conv_rows(
    shape: Sequence[int], *, groups: int = 1, dilation: int = 1, transpose: bool = False
) -> BankedRows:
    """
    The rows of filters `[out, channels / groups, *kernel]` with one or two spatial axes.

    A run is a kernel row, or a tap where the width is dilated by `dilation` or there are groups:
    the weights that meet neighbours in an image with channels last. With `transpose` the shape
    is `[channels, out / groups, *kernel]`, as ONNX's ConvTranspose has it.
    """
    if len(shape) not in (3, 4):
        raise ValueError(f"a convolution's filters have three or four axes, not {list(shape)}")
    channels = shape[0] // groups if transpose else shape[1]
    together = groups == 1 and dilation == 1
    run = channels * (shape[-1] if together else 1)
    return BankedRows("conv transpose" if transpose else "conv", tuple(shape), groups, run)


def bank_mask(
    weight: Array,
    rows: BankedRows,
    ratio: int,
    *,
    bank: int = BANK,
    share: int = 1,
    score: Array | None = None,
) -> Mask:
    """
    Which elements of `weight` stay at `ratio`: the `bank / ratio` largest of each row and bank.

    `score` of the weight's shape, by default its magnitudes, says what is large; of equals the
    first stay. With `share = 2` rows l and l + 16 of every 32 of a group keep the same, by the sum
    of their scores: these fit slots that two lane groups share. A weight that the compiler leaves
    dense (`rows.why_dense`) keeps everything.
    """
    if ratio not in RATIOS:
        raise ValueError(f"ratio {ratio} is not one of {RATIOS}")
    if ratio == 1 or rows.why_dense is not None:
        return np.full(rows.shape, True)
    values: Array = np.abs(weight if score is None else score).astype(np.float64)
    slots = bank // ratio
    keep = keep_in_banks(rows.rows(values), rows.lengths, bank, slots, share, rows.groups)
    return rows.weight(keep)
