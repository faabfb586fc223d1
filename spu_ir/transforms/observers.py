"""
Observers: which range of an activation 256 levels are spread over, from what calibration saw.

`minmax` covers every element. The others clip: they keep a `Histogram` of every element that was
seen, and choose from it

- `percentile` (or `percentile:99.9`; 99.99 when left out): so many per cent of the elements, the
  rest being cut in equal shares from both ends;
- `entropy`: the range whose 256 levels diverge least from the distribution (Kullback-Leibler);
- `mse`: the range with the least mean squared error of clipping and rounding.

No observer keeps an activation, and none depends on how the elements are cut into feeds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from spu_ir.dialects.types import Array
from spu_ir.errors import SpuError

Doubles: TypeAlias = NDArray[np.float64]
Range: TypeAlias = tuple[float, float]

BINS = 4096
"""Bins of a histogram on each side of 0, of which the wider side uses at least half."""

LEAST_EXPONENT = -100
"""Bins are at least 2^-100 wide: a float32 scaled by 2^100 is a float32."""

LEVELS = 256
CANDIDATES = 64
"""How many ranges `mse` tries in each round, and `entropy` between 256 bins and all of them."""


@dataclass
class Histogram:
    """
    Counts of elements by magnitude and sign, in bins whose width is a power of two.

    Bin k counts elements with `k <= |x| / 2^exponent < k + 1`. When a larger element comes, the
    width doubles and pairs of bins become one, which loses nothing: the counts are those that the
    final width would have given from the start, whatever the order and the cut of the data.
    Zeros, which every grid holds exactly, are counted apart.
    """

    exponent: int = LEAST_EXPONENT
    positive: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    negative: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    zeros: int = 0

    @property
    def width(self) -> float:
        """The width of a bin."""
        return 2.0**self.exponent

    def add(self, array: Array) -> None:
        """Count the elements of a finite f32 array of any shape."""
        x = array.reshape(-1)
        peak = float(np.abs(x).max(initial=0))
        while peak >= BINS * self.width:
            self.widen()
        bins = np.abs(x * np.float32(2.0**-self.exponent)).astype(np.int64)
        below = x < 0
        zeros = x == 0
        negative = np.bincount(bins[below], minlength=BINS)
        self.negative += negative
        self.positive += np.bincount(bins[~below], minlength=BINS)
        found = int(np.count_nonzero(zeros))
        self.positive[0] -= found
        self.zeros += found

    def widen(self) -> None:
        """Let bins be twice as wide."""
        for counts in (self.positive, self.negative):
            counts[: BINS // 2] = counts.reshape(-1, 2).sum(axis=1)
            counts[BINS // 2 :] = 0
        self.exponent += 1

    def bins(self) -> tuple[Doubles, Doubles]:
        """The centres of all bins, ascending, and their counts: f64 [2 * BINS] each."""
        centres: Doubles = np.arange(-BINS + 0.5, BINS, dtype=np.float64) * self.width
        return centres, np.concatenate([self.negative[::-1], self.positive]).astype(np.float64)

    def squared_error(self, lows: Array, highs: Array) -> Doubles:
        """
        The squared error, summed over all elements, of u8 grids over [low, high], of any shape.

        An element counts as its bin's centre. It is clipped to the grid and rounded to its
        nearest level, as `grids.affine` and docs/numerics.md have it.
        """
        centres, counts = self.bins()
        used = counts > 0
        centres, counts = centres[used], counts[used]
        low = np.asarray(lows, np.float64)[..., None]
        high = np.asarray(highs, np.float64)[..., None]
        scale = np.maximum((high - low) / (LEVELS - 1), np.finfo(np.float32).tiny)
        zero = np.clip(np.rint(-low / scale), 0, LEVELS - 1)
        rounded = np.clip(np.rint(centres / scale), -zero, LEVELS - 1 - zero) * scale
        return ((rounded - centres) ** 2 * counts).sum(axis=-1)


@dataclass
class Observer(ABC):
    """What calibration keeps of one value: its smallest and largest finite element, and 0."""

    low: float = 0.0
    high: float = 0.0

    def see(self, array: Array) -> None:
        """Take another run's value, f32 of any shape, into account."""
        if array.size == 0:
            return
        low, high = array.min(), array.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            # Attention masks hold -inf; a grid can only cover what is finite.
            array = array[np.isfinite(array)]
            low, high = array.min(initial=0), array.max(initial=0)
        self.low = min(self.low, float(low))
        self.high = max(self.high, float(high))
        self.count(array)

    @abstractmethod
    def count(self, array: Array) -> None:
        """Take finite elements into account."""

    @abstractmethod
    def range(self) -> Range:
        """The (lowest, highest) number to be covered: within all that was seen, around 0."""

    def within(self, low: float, high: float) -> Range:
        """[low, high], cut to what was seen and widened to 0."""
        return min(max(low, self.low), 0.0), max(min(high, self.high), 0.0)


@dataclass
class MinMax(Observer):
    """All that was seen."""

    def count(self, array: Array) -> None:
        """The ends are enough."""

    def range(self) -> Range:
        return self.low, self.high


@dataclass
class Clipping(Observer):
    """An observer that chooses from a histogram."""

    histogram: Histogram = field(default_factory=Histogram)

    def count(self, array: Array) -> None:
        self.histogram.add(array)


@dataclass
class Percentile(Clipping):
    """
    The range of `percentile` per cent of the elements; the tails share the rest equally.

    Its ends are edges of bins, outwards. See McKinstry et al. 2018, "Discovering low-precision
    networks close to full-precision networks for efficient embedded inference".
    """

    percentile: float = 99.99

    def range(self) -> Range:
        counts = self.histogram.bins()[1]
        counts[BINS] += self.histogram.zeros
        below = np.cumsum(counts)
        total = float(below[-1])
        if not total:
            return 0.0, 0.0
        cut = total * (100 - self.percentile) / 200
        first = int(np.searchsorted(below, cut, side="right"))
        last = int(np.searchsorted(below, total - cut, side="left"))
        width = self.histogram.width
        return self.within((first - BINS) * width, (last + 1 - BINS) * width)


@dataclass
class Entropy(Clipping):
    """
    [-t, t], cut to what was seen, with the t of least divergence KL(P || Q).

    P is the histogram inside, with what is outside added to the outermost bins. Q has the mass of
    256 levels, each spread evenly over those of its bins that are not empty; an empty Q under a P
    gets a little of the rest. This is Migacz 2017, "8-bit inference with TensorRT" (GTC), and
    ONNX Runtime's `entropy`, on a grid of 256 levels. Zeros are left out, as in NVIDIA's
    pytorch-quantization: they are exact on every grid and would drown the rest.
    """

    def range(self) -> Range:
        counts = self.histogram.bins()[1]
        used = np.flatnonzero(counts)
        if not used.size:
            return 0.0, 0.0
        first, last = min(int(used[0]), BINS), max(int(used[-1]) + 1, BINS)
        most = max(BINS - first, last - BINS)
        least = min(LEVELS // 2 if first < BINS < last else LEVELS, most)
        best = (np.inf, most)
        for share in range(2 * CANDIDATES + 1):
            bins = least + (most - least) * share // (2 * CANDIDATES)
            start, stop = max(first, BINS - bins), min(last, BINS + bins)
            best = min(best, (divergence(counts, start, stop), bins))
        limit = best[1] * self.histogram.width
        return self.within(-limit, limit)


def divergence(counts: Doubles, start: int, stop: int) -> float:
    """KL(P || Q) of 256 levels over the bins from `start` to `stop`; see `Entropy`."""
    inside = counts[start:stop]
    p = inside.copy()
    p[0] += counts[:start].sum()
    p[-1] += counts[stop:].sum()
    level = np.arange(len(p)) * LEVELS // len(p)
    filled = np.bincount(level, inside > 0, minlength=LEVELS)
    q = np.bincount(level, inside, minlength=LEVELS) / np.maximum(filled, 1)
    q = np.where(inside > 0, q[level], 0.0)
    if not q.any():
        return float(np.inf)
    p, q = smooth(p / p.sum()), smooth(q / q.sum())
    return float((p * np.log(p / q)).sum())


def smooth(p: Doubles, little: float = 1e-6) -> Doubles:
    """A distribution with `little` where it was 0, taken from the rest in proportion."""
    p = np.where(p > 0, p, little)
    return p / p.sum()


@dataclass
class Mse(Clipping):
    """
    The range with the least squared error on the histogram, by search on a grid.

    First both ends shrink together from what was seen to 1/64 of it, then each alone, twice.
    See Banner et al. 2019, "Post training 4-bit quantization of convolutional networks for
    rapid-deployment", and the survey of Nagel et al. 2021, "A white paper on neural network
    quantization", section 3.1.
    """

    def range(self) -> Range:
        steps = np.arange(CANDIDATES, 0, -1) / CANDIDATES
        low, high = self.low, self.high
        for both in (
            (low * steps, high * steps),
            *2 * ((None, high * steps), (low * steps, None)),
        ):
            lows = np.full(CANDIDATES, low) if both[0] is None else both[0]
            highs = np.full(CANDIDATES, high) if both[1] is None else both[1]
            # What there is comes first, so that an equal error changes nothing.
            lows, highs = np.append(low, lows), np.append(high, highs)
            best = int(self.histogram.squared_error(lows, highs).argmin())
            low, high = float(lows[best]), float(highs[best])
        return self.within(low, high)


OBSERVERS: dict[str, Callable[[], Observer]] = {
    "minmax": MinMax,
    "percentile": Percentile,
    "entropy": Entropy,
    "mse": Mse,
}
"""Name -> a new observer."""


def observer_called(name: str) -> Callable[[], Observer]:
    """
    What makes the observers called `name`: one of OBSERVERS, or `percentile:P` with P > 50.

    Raises SpuError for another name, and for a P that is not above 50 and at most 100.
    """
    kind, colon, number = name.partition(":")
    if kind not in OBSERVERS or (colon and kind != "percentile"):
        raise SpuError(
            f"there is no observer {name!r}",
            remedy=f"it is one of {', '.join(OBSERVERS)}, or percentile:99.9",
        )
    if not colon:
        return OBSERVERS[kind]
    try:
        percentile = float(number)
    except ValueError:
        percentile = 0.0
    if not 50 < percentile <= 100:
        raise SpuError(
            f"{number!r} is not a percentile that can be observed",
            remedy="it is a number above 50, at most 100, as in percentile:99.9",
        )
    return lambda: Percentile(percentile=percentile)
