"""Factors of an activation's columns that make INT8 rows err least, around any zero point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spu_ir.dialects.types import Array
from spu_ir.transforms.column_balance import (
    ENOUGH,
    LARGEST,
    Doubles,
    Gains,
    descend,
    factors,
    of_weights,
    plain_gains,
)
from spu_ir.transforms.row_zeros import CANDIDATES, MOSTLY_POSITIVE, SYMMETRIC, best_zero

HIGHER = (*CANDIDATES, 48, 64, 80, 96)
"""Scaled columns may reach further down than a GELU: zero points to choose from."""


@dataclass(frozen=True)
class Found:
    """What `balanced_factors` found."""

    factors: NDArray[np.float32]
    """f32 [K], by which columns are multiplied."""
    zero: int
    """The u8 zero point around which rows are quantised then."""
    left: float
    """The squared error of the products that is left, as a part of that without factors."""


@dataclass
class ReachLoss:
    """
    What the rounding of `x / d` and of `w * d` adds to outputs, as a function of d.

    It is `column_balance.Loss` without shifts and for a zero point: the step of a row is its
    largest `reach [R, K]` over 127, which `reach_of` says for x.
    """

    reach: NDArray[np.float32]
    stacked: Doubles
    share: float
    gains: Gains
    felt: Doubles

    def __call__(self, logs: Doubles) -> tuple[float, Doubles]:
        """The loss at `d = exp(logs)`, over 127^2 * 12, and its gradient."""
        d = np.exp(logs)
        scaled = self.reach * (1 / d).astype(np.float32)
        largest = scaled.argmax(axis=1)
        peaks = scaled[np.arange(len(scaled)), largest].astype(np.float64) ** 2 * self.gains.rows
        noise, step = d**2 * self.gains.columns, float(peaks.mean())
        total = float(noise.sum())
        at = np.bincount(largest, peaks, len(d)) / len(peaks)
        value, by_columns, _ = of_weights(self.stacked, self.felt, d, np.ones_like(d))
        gradient = 2 * (step * noise - total * at) + self.share * by_columns
        return step * total + self.share * value, gradient


def reach_of(x: Array, zero: int) -> NDArray[np.float32]:
    """How many steps each number takes from a row around `zero`, in steps of 1 / 127: [R, K]."""
    if zero == SYMMETRIC:
        return np.abs(x)
    up = np.maximum(x, 0) * np.float32(127 / (255 - zero))
    return up if zero == 0 else np.maximum(up, -x * np.float32(127 / zero))


def balanced_factors(
    rows: Array,
    weights: Sequence[Array],
    zero: int,
    *,
    share: float,
    gains: Gains | None = None,
) -> Found | None:
    """
    Factors of the columns of x `rows [R, K]`, f32, for products with weights `[N, K]`.

    They descend `ReachLoss` as `column_balance.balanced` does, from 1 or from the plain `factors`,
    whichever is less. Rows around MOSTLY_POSITIVE get the zero point with the finest steps before,
    and again after. `share` is how much the rounding of weights counts; without `gains` errors
    count as parts of what products yield. None for fewer than ENOUGH rows, which say too little,
    and for an activation or weights of zeros.
    """
    peaks = np.abs(rows).max(axis=0, initial=0).astype(np.float64)
    used = (peaks > 0) & (np.max([np.abs(w).max(axis=0) for w in weights], axis=0) > 0)
    if len(rows) < ENOUGH or not used.any():
        return None
    doubles = [weight.astype(np.float64) for weight in weights]
    gains = gains or plain_gains(rows, doubles)
    stacked, felt = np.concatenate(doubles), np.concatenate(gains.weights)

    def loss_around(point: int) -> ReachLoss:
        return ReachLoss(reach_of(rows, point), stacked, share, gains, felt)

    def zero_of(logs: Doubles) -> int:
        if zero != MOSTLY_POSITIVE:
            return zero
        return best_zero([rows * np.exp(-logs).astype(np.float32)], HIGHER)

    none = np.zeros(len(peaks))
    before, _ = loss_around(zero_of(none))(none)
    logs = np.log(factors(peaks, weights, 0.5).astype(np.float64))
    for _ in range(1 if zero != MOSTLY_POSITIVE else 2):
        loss = loss_around(zero_of(logs))
        logs = logs if loss(logs)[0] < loss(none)[0] else none
        _, logs = descend(loss, logs, np.where(used, np.log(LARGEST), 0.0))
    columns = np.exp(-logs).astype(np.float32)
    point = zero_of(logs)
    left, _ = loss_around(point)(-np.log(columns.astype(np.float64)))
    return Found(columns, point, left / before)
