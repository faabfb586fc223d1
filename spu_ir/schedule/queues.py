"""
Tasks in queues: when each starts and ends, and how often all of them can be repeated.

Every unit works off its own queue in order, one task at a time. A task waits for others by links.
Over a link of n tiles, the first tile of the waiting task needs the first of the other's n, and
its last one needs all of them: so, with times of a task `start` and `end`,

    start >= other.start + other.seconds / n    (other.end if n is 1)
    end   >= other.end + seconds / n            and  end >= start + seconds

All of this is maxima of sums, which is what the properties follow from: with the queues' order
fixed, no task ends later for any task being shorter, and no unit works longer than it takes from
its first start to its last end. It also makes repetition exact: what one pass over all queues does
to the times at which units come free is a matrix in the algebra of (max, +), whose powers are more
passes and whose largest cycle mean is the time of a pass when there is no end of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

UNITS: tuple[str, ...] = ("host in", "dma", "noc", "spu", "vpu", "sfu", "host out")
"""The queues of a core, roughly in the order in which a sample passes them."""

_PLACE = {unit: number for number, unit in enumerate(UNITS)}
NEVER = float("-inf")

Times: TypeAlias = tuple[float, ...]
"""Seconds at which each unit comes free, in the order of `UNITS`; `NEVER` is no constraint."""
Matrix: TypeAlias = tuple[Times, ...]
"""Row u, column v: unit u comes free no sooner than that after unit v was free."""

IDLE: Times = (0.0,) * len(UNITS)


@dataclass(frozen=True)
class Link:
    """That a task waits for an earlier one, by its place among the tasks, tile by tile."""

    task: int
    tiles: int = 1


@dataclass(frozen=True)
class Task:
    """What one unit does of one step, in `seconds` if it never waits within it."""

    unit: str
    seconds: float
    links: tuple[Link, ...] = ()
    step: int = -1
    """The number of the step that it is of; -1 for what serves all, as transfers of ports."""
    label: str = ""
    amount: int = 0
    """Bytes, multiply-accumulates or operations: what the unit does."""


@dataclass(frozen=True)
class Span:
    """When a task runs."""

    start: float
    end: float


def run(tasks: Sequence[Task], free: Times = IDLE) -> tuple[list[Span], Times]:
    """
    The spans of `tasks`, each queued on its unit in this order, and when the units are free then.

    Links must point to earlier tasks. A unit without a task is free when it was.
    """
    spans: list[Span] = []
    times = list(free)
    for task in tasks:
        place = _PLACE[task.unit]
        start = times[place]
        for link in task.links:
            other = spans[link.task]
            whole = link.tiles == 1
            tile = tasks[link.task].seconds / link.tiles
            start = max(start, other.end if whole else other.start + tile)
        end = start + task.seconds
        for link in task.links:
            end = max(end, spans[link.task].end + task.seconds / link.tiles)
        times[place] = end
        spans.append(Span(start, end))
    return spans, tuple(times)


def matrix(tasks: Sequence[Task]) -> Matrix:
    """What one pass over the queues does to the times at which units come free."""
    columns: list[Times] = []
    for place in range(len(UNITS)):
        free = tuple(0.0 if p == place else NEVER for p in range(len(UNITS)))
        columns.append(run(tasks, free)[1])
    return tuple(zip(*columns, strict=True))


def apply(passed: Matrix, free: Times) -> Times:
    """When units come free after a pass that starts as they come free."""
    return tuple(max(a + b for a, b in zip(row, free, strict=True)) for row in passed)


def compose(later: Matrix, earlier: Matrix) -> Matrix:
    """The matrix of two passes."""
    columns = [apply(later, column) for column in zip(*earlier, strict=True)]
    return tuple(zip(*columns, strict=True))


def passes(matrices: Iterable[tuple[Matrix, int]]) -> Matrix:
    """The matrix of passes one after another, each so many times."""
    result: Matrix = tuple(
        tuple(0.0 if p == q else NEVER for q in range(len(UNITS))) for p in range(len(UNITS))
    )
    for each, times in matrices:
        # By squares of the matrix: a batch may be millions of passes.
        while times:
            if times % 2:
                result = compose(each, result)
            times //= 2
            if times:
                each = compose(each, each)
    return result


def period(passed: Matrix) -> float:
    """
    Seconds a pass when passes follow each other without end.

    It is the largest mean of a cycle of the matrix, by Karp's theorem: with d[k][v] the heaviest
    walk of k steps to v, max over v of min over k of (d[n][v] - d[k][v]) / (n - k). No unit can be
    busy for longer than it in a pass, as its own place in the matrix is a cycle.
    """
    size = len(passed)
    # Walks may start anywhere: all units are free at first.
    walks: list[Times] = [(0.0,) * size]
    for _ in range(size):
        walks.append(apply(passed, walks[-1]))
    best = 0.0
    for v in range(size):
        if walks[size][v] == NEVER:
            continue
        means = [(walks[size][v] - walks[k][v]) / (size - k) for k in range(size)]
        best = max(best, min(means))
    return best
