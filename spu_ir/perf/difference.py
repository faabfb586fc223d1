"""How far outputs are from a reference's, by ByteMLPerf's formulas."""

from __future__ import annotations

import numpy as np

from .datasets import Array


def differences(reference: Array, outputs: Array) -> dict[str, float]:
    """
    ByteMLPerf's five figures of two arrays of the same size, flattened, to 5 digits.

    `Mean`, `Std` and `Max Diff` are of |reference - output|. `Max` and `Mean Rel-Diff` divide that
    by |reference|, or by 1 where the reference is 0. What is not finite counts as 0 on both sides.
    Sums are in double precision.
    """
    want, got = _finite(reference), _finite(outputs)
    signed = want - got
    absolute = np.abs(signed)
    relative = np.abs(signed / np.where(want == 0, 1, want))
    figures = {
        "Mean Diff": absolute.mean(),
        "Std Diff": absolute.std(),
        "Max Diff": absolute.max(),
        "Max Rel-Diff": relative.max(),
        "Mean Rel-Diff": relative.mean(),
    }
    return {name: round(float(value), 5) for name, value in figures.items()}


def relative_error(reference: Array, outputs: Array) -> float:
    """|reference - output| / |reference| as vectors (L2): small where the five figures mislead."""
    want, got = _finite(reference), _finite(outputs)
    size = float(np.linalg.norm(want))
    error = float(np.linalg.norm(want - got))
    return error / size if size else float(error > 0)


def _finite(values: Array) -> Array:
    flat = values.astype(np.float64).reshape(-1)
    result: Array = np.where(np.isfinite(flat), flat, 0.0)
    return result
