"""What second-order pruning keeps of a layer's inputs: sums of products, not the inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spu_ir.errors import SpuError

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass
class Moments:
    """
    Sums over the rows x `[K]` that a weight meets, and over the rows d that it should answer as.

    x are the inputs in the model that is pruned so far, d those in the dense model (the same
    rows where they are equal). Everything is f64, added up a chunk at a time.
    """

    depth: int
    count: int = 0

    def __post_init__(self) -> None:
        self.xx: F64 = np.zeros((self.depth, self.depth))
        """sum x x^T: the Hessian of the layer's squared error, but for a factor."""
        self._dx: F64 | None = None
        self._dd: F64 | None = None

    @property
    def dx(self) -> F64:
        """sum d x^T, which is `xx` while all d are x."""
        return self.xx if self._dx is None else self._dx

    @property
    def dd(self) -> F64:
        """sum d d^T."""
        return self.xx if self._dd is None else self._dd

    @staticmethod
    def nbytes(depth: int) -> int:
        """How much memory the sums of a layer of this depth take at most."""
        return 3 * 8 * depth * depth

    def add(self, x: F32, d: F32 | None = None) -> None:
        """
        Add rows x `[M, K]`, and d of the same shape when they differ.

        Raises SpuError for NaN and infinities.
        """
        if d is not None and self._dx is None:
            self._dx, self._dd = self.xx.copy(), self.xx.copy()
        with np.errstate(all="ignore"):
            xx = x.T @ x
        if not np.isfinite(np.trace(xx)):
            raise SpuError("an activation is not finite", remedy="check the calibration feeds")
        self.count += len(x)
        self.xx += xx
        if self._dx is not None and self._dd is not None:
            self._dx += xx if d is None else d.T @ x
            self._dd += xx if d is None else d.T @ d

    def error(self, weight: F32, pruned: F32) -> float:
        """||d W^T - x W'^T|| / ||d W^T|| of `weight` W and `pruned` W', both `[N, K]`."""
        w, z = weight.astype(np.float64), pruned.astype(np.float64)
        power = float(((w @ self.dd) * w).sum())
        rest = power - 2 * float(((w @ self.dx) * z).sum()) + float(((z @ self.xx) * z).sum())
        return (max(rest, 0.0) / power) ** 0.5 if power > 0 else 0.0
