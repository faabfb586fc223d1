"""Lines through measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spu_ir.errors import SpuError


@dataclass(frozen=True)
class Fit:
    """A polynomial of least squares, and how well it describes what it was made of."""

    coefficients: tuple[float, ...]
    """Of the powers of x, the constant first."""
    r2: float
    """The part of the variance that it explains; 1 for values that do not vary."""
    deviation: float
    """The largest difference from a measurement, as a part of that measurement."""

    def __call__(self, x: float) -> float:
        return sum(value * x**power for power, value in enumerate(self.coefficients))


def least_squares(x: Sequence[float], y: Sequence[float], degree: int = 1) -> Fit:
    """
    The polynomial in `x` of a degree with the least sum of squares from `y`, all of them positive.

    Raises SpuError for too few different `x`.
    """
    if len(set(x)) <= degree:
        raise SpuError(
            f"a line of degree {degree} needs {degree + 1} different places, got {len(set(x))}",
            remedy="measure more points",
        )
    places, values = np.asarray(x, np.float64), np.asarray(y, np.float64)
    # Powers of places near 1, so that the system is well conditioned.
    unit = float(places.max())
    powers = np.stack([(places / unit) ** power for power in range(degree + 1)], axis=1)
    found = np.linalg.lstsq(powers, values)[0]
    off = powers @ found - values
    variance = float(((values - values.mean()) ** 2).sum())
    return Fit(
        tuple(float(value) / unit**power for power, value in enumerate(found)),
        1 - float((off**2).sum()) / variance if variance else 1.0,
        float(np.max(np.abs(off) / values)),
    )
