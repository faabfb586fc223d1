"""Factors of an activation's columns that make INT8 rows err least, around any zero point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spu_ir.dialects.types import Array
from spu_ir.transforms.column_balance import ENOUGH, LARGEST, Doubles, descend, factors
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
    What the rounding of `x / d` and of `w * d` adds to products, as a function of d.

    It is `column_balance.Loss` without shifts and for a zero point: the step of a row is its
    largest `reach [R, K]` over 127, which `reach_of` says for x. `powers [K]` are the means of x^2.
    """

    reach: NDArray[np.float32]
    powers: Doubles
    weights: Sequence[Doubles]
    share: float

    def __post_init__(self) -> None:
        stacked = np.concatenate(self.weights)
        self.stacked = np.abs(stacked)
        self.norms: Doubles = (stacked**2).sum(axis=0)

    def __call__(self, logs: Doubles) -> tuple[float, Doubles]:
        """The loss at `d = exp(logs)`, over 127^2 * 12, and its gradient."""
        d = np.exp(logs)
        scaled = self.reach * (1 / d).astype(np.float32)
        largest = scaled.argmax(axis=1)
        peaks = scaled[np.arange(len(scaled)), largest].astype(np.float64) ** 2
        noise, step = d**2 * self.norms, float(peaks.mean())
        total = float(noise.sum())
        at = np.bincount(largest, peaks, len(d)) / len(peaks)
        wide = self.stacked * d
        widest = wide.argmax(axis=1)
        tops = wide[np.arange(len(wide)), widest] ** 2
        squares = self.powers / d**2
        weight, power = float(tops.sum()), float(squares.sum())
        gradient = 2 * (step * noise - total * at)
        gradient += self.share * 2 * (power * np.bincount(widest, tops, len(d)) - weight * squares)
        return step * total + self.share * weight * power, gradient


def reach_of(x: Array, zero: int) -> NDArray[np.float32]:
    """How many steps each number takes from a row around `zero`, in steps of 1 / 127: [R, K]."""
    if zero == SYMMETRIC:
        return np.abs(x)
    up = np.maximum(x, 0) * np.float32(127 / (255 - zero))
    return up if zero == 0 else np.maximum(up, -x * np.float32(127 / zero))


def balanced_factors(
    rows: Array, weights: Sequence[Array], zero: int, *, share: float
) -> Found | None:
    """
    Factors of the columns of x `rows [R, K]`, f32, for products with weights `[N, K]`.

    They descend `ReachLoss` as `column_balance.balanced` does, from 1 or from the plain `factors`,
    whichever is less. Rows around MOSTLY_POSITIVE get the zero point with the finest steps before,
    and again after. `share` is how much the rounding of weights counts. None for fewer than ENOUGH
    rows, which say too little, and for an activation or weights of zeros.
    """
    peaks = np.abs(rows).max(axis=0, initial=0).astype(np.float64)
    used = (peaks > 0) & (np.max([np.abs(w).max(axis=0) for w in weights], axis=0) > 0)
    if len(rows) < ENOUGH or not used.any():
        return None
    powers = (rows.astype(np.float64) ** 2).mean(axis=0)
    second = rows.T.astype(np.float64) @ rows / len(rows)
    doubles: list[Doubles] = []
    for weight in weights:
        wide = weight.astype(np.float64)
        doubles.append(wide / max(float(((wide @ second) * wide).sum()), 1e-30) ** 0.5)

    def loss_around(point: int) -> ReachLoss:
        return ReachLoss(reach_of(rows, point), powers, doubles, share)

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
