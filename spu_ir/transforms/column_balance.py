"""Factors and shifts of the columns of an activation that make INT8 err least."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spu_ir.dialects.types import Array

Doubles = NDArray[np.float64]

LARGEST = 1024.0
"""Of the factors: columns that are nearly zeros must not decide what the others are scaled by."""

ENOUGH = 256
"""Rows; fewer say too little of how often each column is a row's largest."""

STEPS = 200
FASTEST = 0.05
"""Of Adam: the largest step of a factor's logarithm, and of a shift in standard deviations."""


def factors(peaks: Doubles, weights: Sequence[Array], strength: float) -> NDArray[np.float32]:
    """
    What each column k of x is divided by, f32 [K]: `max|x_k|^a / max|w_k|^(1 - a)`, mean 1.

    The maximum of w is over all rows of all `weights [N, K]`, the mean is geometric. A column of
    zeros, of x or of w, has 1, and none has more than LARGEST or less than its inverse.
    """
    columns = np.max([np.abs(weight).max(axis=0) for weight in weights], axis=0).astype(np.float64)
    used = (peaks > 0) & (columns > 0)
    logs = strength * np.log(np.where(used, peaks, 1.0))
    logs -= (1 - strength) * np.log(np.where(used, columns, 1.0))
    logs -= logs[used].mean() if used.any() else 0.0
    logs = np.clip(logs, -np.log(LARGEST), np.log(LARGEST))
    return np.where(used, np.exp(logs), 1.0).astype(np.float32)


@dataclass(frozen=True)
class Gains:
    """What the squares of errors count, in whatever unit."""

    columns: Doubles
    """Of errors in each column of x, [K]."""
    rows: Doubles
    """Of errors in each row of x that is looked at, [R], as a part of the mean."""
    weights: Sequence[Doubles]
    """Of errors in each element of each weight [N, K]."""


def plain_gains(rows: Array, weights: Sequence[Doubles]) -> Gains:
    """Gains where nothing is known but x and the products: parts of each product's square."""
    x = rows.astype(np.float64)
    second = x.T @ x / max(len(x), 1)
    columns, each = np.zeros(x.shape[1]), list[Doubles]()
    for weight in weights:
        power = max(float(((weight @ second) * weight).sum()), 1e-30)
        columns += (weight**2).sum(axis=0) / power
        each.append(np.broadcast_to(np.diag(second) / power, weight.shape))
    return Gains(columns, np.ones(len(x)), each)


@dataclass
class Loss:
    """
    What the rounding of `(x - z) / d` and of `w * d` adds to outputs, as functions of d and z.

    x are `rows [R, K]`. A row's step is its largest magnitude over 127 and every rounding error
    is uniform, so activations add `E[gain of row * step^2] / 12 * sum_k d_k^2 * gain_k`, and
    weights, of which each row n has a step, `sum_nk step_n^2 / 12 * gain_nk / d_k^2`, where gains
    are proportional to `E(x - z)^2`; what weights add counts `share` times.
    """

    rows: Doubles
    weights: Sequence[Doubles]
    share: float
    gains: Gains

    def __post_init__(self) -> None:
        self.mean: Doubles = self.rows.mean(axis=0)
        self.variance: Doubles = self.rows.var(axis=0)
        self.second: Doubles = np.maximum(self.variance + self.mean**2, 1e-30)
        self.stacked: Doubles = np.concatenate(self.weights)
        self.felt: Doubles = np.concatenate(self.gains.weights)

    def __call__(self, logs: Doubles, shift: Doubles) -> tuple[float, Doubles, Doubles]:
        """The loss at `d = exp(logs)` and z, over 127^2 * 12; its gradients by logs and z."""
        d = np.exp(logs)
        scaled = (self.rows - shift) / d
        largest = np.abs(scaled).argmax(axis=1)
        peaks = np.take_along_axis(scaled, largest[:, None], axis=1)[:, 0]
        noise = d**2 * self.gains.columns
        weighed = self.gains.rows * peaks
        step, total = float((weighed * peaks).mean()), float(noise.sum())
        at = np.bincount(largest, weighed * peaks, len(d)) / len(peaks)
        slope = np.bincount(largest, weighed, len(d)) / len(peaks)
        by_logs = 2 * (step * noise - total * at)
        by_shift = -2 * total * slope / d
        centred = self.mean - shift
        left = (self.variance + centred**2) / self.second
        value, by_columns, by_left = of_weights(self.stacked, self.felt, d, left)
        by_logs += self.share * by_columns
        by_shift += self.share * by_left * -2 * centred / self.second
        return step * total + self.share * value, by_logs, by_shift


def of_weights(
    stacked: Doubles, gains: Doubles, d: Doubles, left: Doubles
) -> tuple[float, Doubles, Doubles]:
    """
    What the rounding of weights `stacked [N, K] * d` adds, and its gradients by log d and `left`.

    It is `sum_nk top_n^2 * gain_nk * left_k / d_k^2`, top_n the largest of a row.
    """
    wide = np.abs(stacked * d)
    widest = wide.argmax(axis=1)
    tops = np.take_along_axis(wide, widest[:, None], axis=1)[:, 0] ** 2
    columns = (tops @ gains) / d**2
    each = columns * left
    rows = tops * (gains @ (left / d**2))
    return float(each.sum()), 2 * (np.bincount(widest, rows, len(d)) - each), columns


def balanced(
    rows: Array,
    weights: Sequence[Array],
    *,
    shifted: bool,
    share: float,
    strength: float = 0.5,
    gains: Gains | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """
    Divisors and shifts, f32 [K], of the columns of x: products see `(x - shift) / divisor`.

    They begin as `factors` of x without its mean, and descend `Loss` of x `rows [R, K]` and
    weights `[N, K]` by Adam, on all rows at once: at the end each column is the largest of a row
    as often as it adds noise. Without `gains` errors count as parts of what products yield.
    Without `shifted` the shifts are zeros; with fewer than ENOUGH rows it is the plain `factors`.
    A column of zeros, of x or of w, has 1 and 0.
    """
    x = rows.astype(np.float64)
    peaks = np.abs(x).max(axis=0, initial=0)
    plain = factors(peaks, weights, strength)
    zeros = np.zeros(x.shape[1])
    if len(x) < ENOUGH:
        return plain, zeros.astype(np.float32)
    doubles = [weight.astype(np.float64) for weight in weights]
    used = (peaks > 0) & (np.max([np.abs(w).max(axis=0) for w in doubles], axis=0) > 0)
    if not used.any():
        return plain, zeros.astype(np.float32)
    loss = Loss(x, doubles, share, gains or plain_gains(rows, doubles))
    unit = np.where(used, x.std(axis=0), 0.0) if shifted else zeros
    first = np.where(used, loss.mean, 0.0) if shifted else zeros
    logs = np.log(factors(np.abs(x - first).max(axis=0), weights, strength).astype(np.float64))
    start = np.log(plain.astype(np.float64))

    def joint(point: Doubles) -> tuple[float, Doubles]:
        """The loss of logarithms of divisors, then of shifts in units."""
        value, by_logs, by_shift = loss(point[: len(logs)], first + unit * point[len(logs) :])
        return value, np.concatenate([np.where(used, by_logs, 0), by_shift * unit])

    bound = np.concatenate([np.full(len(logs), np.log(LARGEST)), np.full(len(logs), np.inf)])
    value, point = descend(joint, np.concatenate([logs, zeros]), bound)
    if value >= loss(start, zeros)[0]:
        return plain, zeros.astype(np.float32)
    shift = first + unit * point[len(logs) :]
    return np.exp(point[: len(logs)]).astype(np.float32), shift.astype(np.float32)


def descend(
    loss: Callable[[Doubles], tuple[float, Doubles]], point: Doubles, bound: Doubles
) -> tuple[float, Doubles]:
    """
    The least value of `loss` that Adam meets from `point` on, and where: STEPS steps.

    `loss` yields its value and gradient; every number stays within `bound` of 0. What descends is
    the logarithm of the loss.
    """
    best = (np.inf, point)
    momentum, square = np.zeros_like(point), np.zeros_like(point)
    for step in range(1, STEPS + 1):
        value, gradient = loss(point)
        if value < best[0]:
            best = (value, point)
        gradient = gradient / value
        momentum += 0.1 * (gradient - momentum)
        square += 0.001 * (gradient**2 - square)
        rate = FASTEST * 0.5 * (1 + np.cos(np.pi * step / STEPS))
        move = rate * (momentum / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-12)
        point = np.clip(point - move, -bound, bound)
    return best
