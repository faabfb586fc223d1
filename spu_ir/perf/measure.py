"""Time a model on this machine: one caller, one run after the other, wall clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

LEAST = 5
"""Runs that a batch size has at least, however long they take."""

WARM_UP = 30
"""Runs before those that count, as in ByteMLPerf, unless they take more than `WARM_UP_SHARE`."""

WARM_UP_SHARE = 0.1
"""Of the time that a batch size may take. One run is always made."""


@dataclass(frozen=True)
class Timing:
    """The runs of one batch size."""

    batch: int
    asked: int
    """Runs that were asked for."""
    warm_up: int
    """Runs before those that count."""
    latencies: tuple[float, ...]
    """Seconds of each run that counts, in order."""
    wall: float
    """Seconds from the start of the first of them to the end of the last."""

    @property
    def qps(self) -> float:
        """Samples a second: those completed, over the wall clock."""
        return self.batch * len(self.latencies) / self.wall

    @property
    def average(self) -> float:
        """Seconds of a run on average."""
        return sum(self.latencies) / len(self.latencies)

    @property
    def p99(self) -> float:
        """Seconds that 99 % of the runs stay within: the slowest, of up to 100."""
        return sorted(self.latencies)[int(len(self.latencies) * 0.99)]


def measure(
    run: Callable[[], object],
    batch: int,
    *,
    iterations: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """
    Time `iterations` calls of `run`, a batch of `batch` samples each.

    After `seconds` it stops, but not before `LEAST` runs (or `iterations`, if those are fewer).
    """
    warm_up, start = 0, clock()
    while warm_up == 0 or (warm_up < WARM_UP and clock() - start < WARM_UP_SHARE * seconds):
        run()
        warm_up += 1
    latencies: list[float] = []
    start = end = clock()
    while len(latencies) < iterations:
        began = clock()
        run()
        end = clock()
        latencies.append(end - began)
        if len(latencies) >= LEAST and end - start >= seconds:
            break
    return Timing(batch, iterations, warm_up, tuple(latencies), end - start)
