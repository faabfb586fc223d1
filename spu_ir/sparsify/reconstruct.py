"""
The second-order step of one layer: which weights of every bank stay, and with which values.

A layer answers `d W^T` in the dense model and is to answer nearly that on its inputs x in the
pruned one. Without pruning the best weights are least squares, `T = W (sum d x^T) H^-1` with
`H = sum x x^T` (Frantar & Alistarh 2022, "Optimal Brain Compression", take d = x and T = W). What
pruned weights Z miss is then `tr((T - Z) H (T - Z)^T)` and a constant, row by row of one H.

SparseGPT (Frantar & Alistarh 2023) removes weights bank by bank and never comes back to one that
it passed. ALPS (Meng et al. 2024) weighs all banks at once, which misses far less in banks as
sparse as these; docs/sparsity.md has figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from spu_ir.packing.prune import banks_of

from .banks import Mask
from .moments import F32, F64, Moments

REFINE = 20
"""Steps of conjugate gradients; more change nothing in the sixth digit."""

SPLITS = 300
"""The most steps of the splitting, which ends when its banks no longer change."""

PENALTY, FASTER, SLOWER = 0.03, 1.15, 1.1
"""
Where the splitting's penalty begins (H has ones on its diagonal then), and how it grows while
many weights still move and while few do. Slower growth misses less and takes longer.
"""


@dataclass
class Problem:
    """Least squares of one H, damped, and its factors; several weights may share it."""

    moments: Moments
    damping: float

    def __post_init__(self) -> None:
        hessian = self.moments.xx.copy()
        diagonal = np.diag(hessian).copy()
        mean = float(diagonal.mean())
        # Inputs that are always zero get the weight of an average one, so H can be inverted.
        self.dead = diagonal <= 0
        extra = np.where(self.dead, mean or 1.0, self.damping * mean)
        self.added = extra
        hessian[np.diag_indices_from(hessian)] += extra
        self.hessian = hessian
        self.hessian32: F32 = hessian.astype(np.float32)
        root = 1 / np.sqrt(np.diag(hessian))
        values, vectors = np.linalg.eigh(hessian * root[:, None] * root)
        self.unit: F32 = root.astype(np.float32)
        """What a weight is measured in, so that all inputs are of one size."""
        self.spectrum: tuple[F32, F32] = values.astype(np.float32), vectors.astype(np.float32)
        """Eigenvalues `[K]` and, in columns, eigenvectors of H in these units."""

    def target(self, weight: F32) -> F32:
        """T: the unpruned weights `[N, K]` that come nearest to the dense model's answer."""
        moments = self.moments
        if moments.dx is moments.xx:
            target = weight.copy()
        else:
            right: F64 = weight.astype(np.float64) @ moments.dx + weight * self.added
            target = np.linalg.solve(self.hessian, right.T).T.astype(np.float32)
        target[:, self.dead] = 0
        return target

    @staticmethod
    def nbytes(depth: int) -> int:
        """The memory that the factors of this depth take at most, while they are made."""
        return (4 * 8 + 2 * 4) * depth * depth


def reconstruct(
    weight: F32,
    largest: F32,
    problem: Problem,
    lengths: Sequence[int],
    bank: int,
    slots: int,
) -> F32:
    """
    `weight` `[N, K]` with at most `slots` numbers in every bank, cut in runs of `lengths`.

    `split` chooses what stays, weighing all banks at once, and `refine` gives it the values that
    are best together. Rows do not depend on each other: one for which `largest`, the weight
    pruned by magnitude, misses less takes that. Inputs that were always zero get no weight.
    """
    target, hessian = problem.target(weight), problem.hessian32
    start = split(target, problem, lengths, bank, slots)
    refined = refine(target, start, start != 0, hessian)
    largest = np.where(problem.dead, np.float32(0), largest)
    better = _loss(target - refined, hessian) < _loss(target - largest, hessian)
    return np.where(better[:, None], refined, largest)


def split(target: F32, problem: Problem, lengths: Sequence[int], bank: int, slots: int) -> F32:
    """
    ALPS on `target` `[N, K]`: the alternating direction method of multipliers.

    A dense copy minimises the layer's loss, a copy in banks is the nearest to it, and multipliers
    draw the two together with a penalty that grows while the banks still change. Weights are
    measured in units of their inputs, so that H has ones on its diagonal.
    """
    unit, (values, vectors) = problem.unit, problem.spectrum
    scaled: F32 = target / unit
    gradient = ((scaled @ vectors) * values) @ vectors.T

    sparse = _banked(scaled, lengths, bank, slots)
    multiplier, penalty = np.zeros_like(scaled), PENALTY
    kept = sparse != 0
    for step in range(1, SPLITS + 1):
        right = gradient - multiplier + penalty * sparse
        dense = cast("F32", ((right @ vectors) / (values + penalty)) @ vectors.T)
        sparse = _banked(cast("F32", dense + multiplier / penalty), lengths, bank, slots)
        multiplier += penalty * (dense - sparse)
        if step % 3:
            continue
        changed = np.count_nonzero((sparse != 0) != kept) / 2 / max(1, np.count_nonzero(kept))
        if not changed:
            break
        kept = sparse != 0
        penalty *= FASTER if changed >= 0.1 else SLOWER
    return sparse * unit


def _banked(rows: F32, lengths: Sequence[int], bank: int, slots: int) -> F32:
    """The nearest to `rows` with `slots` numbers a bank; which of equal ones stay is not said."""
    sparse = np.zeros_like(rows)
    banks = list(banks_of(lengths, bank))
    whole = all(last - first == bank for first, last in banks)
    for first, last in [(0, rows.shape[1])] if whole else banks:
        part = rows[:, first:last].reshape(len(rows), -1, min(bank, last - first))
        kept = min(slots, part.shape[-1])
        largest = np.argpartition(-np.abs(part), kept - 1, axis=-1)[..., :kept]
        target = np.zeros_like(part)
        np.put_along_axis(target, largest, np.take_along_axis(part, largest, -1), -1)
        sparse[:, first:last] = target.reshape(len(rows), -1)
    return sparse


def refine(target: F32, start: F32, keep: Mask, hessian: F32, steps: int = REFINE) -> F32:
    """
    Least squares on the weights that stay: min `tr((T - Z) H (T - Z)^T)`, Z zero outside `keep`.

    Conjugate gradients from `start`, all rows at once, preconditioned by the diagonal of H. A
    row that got worse by rounding keeps its start.
    """
    diagonal = np.diag(hessian)
    best = start.copy()
    residual: F32 = np.where(keep, (target - best) @ hessian, 0)
    direction = residual / diagonal
    power = (residual * direction).sum(axis=1)
    for _ in range(steps):
        moved: F32 = np.where(keep, direction @ hessian, 0)
        curve = (direction * moved).sum(axis=1)
        length = np.where(curve > 0, power / np.where(curve > 0, curve, 1), 0)[:, None]
        best += length * direction
        residual -= length * moved
        scaled = residual / diagonal
        after = (residual * scaled).sum(axis=1)
        direction = (
            scaled
            + np.where(power > 0, after / np.where(power > 0, power, 1), 0)[:, None] * direction
        )
        power = after
    worse = _loss(target - best, hessian) > _loss(target - start, hessian)
    return np.where(worse[:, None], start, best)


def _loss(difference: F32, hessian: F32) -> F64:
    product = difference @ hessian
    return (product.astype(np.float64) * difference).sum(axis=1)
