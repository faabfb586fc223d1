"""A model's place on a card: its memory is accounted, and what it runs is counted."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from spu_ir.errors import SpuError
from spu_ir.runtime.cards import VARIABLE, Device
from spu_ir.runtime.cards_reader import read_all
from spu_ir.runtime.cards_state import Cost, LiveRow, publisher

COSTS = 4096
"""So many different extents' costs are remembered."""

CREDIT, SHARE = 0.5, 0.1
"""Seconds of a processor that finding costs may take, and the share of one from then on."""

LOCK_SECONDS = 60
"""A placement takes milliseconds; who holds the lock for so long is stopped."""

Extents = tuple[int, ...]
CostOf = Callable[[Extents], Cost | None]
"""The cost of a run at extents, or None where it cannot be told. Raises nothing."""


@dataclass(frozen=True)
class Need:
    """Bytes that a model takes on each chip of a card."""

    weights: int
    arena: int
    ports: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.arena + self.ports


class Placement:
    """
    A model on a card. Its memory is taken until `close`, and `record` counts its runs.

    A forked child's model takes memory of its own when it first runs.
    """

    def __init__(self, device: Device, name: str, need: Need, cost_of: CostOf | None = None):
        """Take the memory. Raises SpuError if the card lacks it."""
        self.device, self.name, self.need = device, name, need
        self._cost_of = cost_of
        self._costs: dict[Extents, Cost | None] = {}
        self._closed = False
        self._forked()
        self._row = _take(device, name, need)
        _placements.add(self)

    def begin(self) -> None:
        """
        Before a run. Raises SpuError in a forked child if the card lacks the memory for another.
        """
        if self._row is not None:
            return
        with self._lock:
            if self._row is None and not self._closed:
                self._row = _take(self.device, self.name, self.need)

    def record(self, extents: Extents, samples: int) -> None:
        """After a run: count it. What it costs is found beside, the first time at its extents."""
        row = self._row
        if row is None:
            return
        try:
            cost = self._costs[extents]
        except KeyError:
            row.add(1, samples, 0, None)
            if self._cost_of is not None:
                self._defer(extents, self._cost_of)
        else:
            row.add(1, samples, 1, cost)

    def count(self, samples: int, cost: Cost) -> None:
        """Count something that was done for so many samples, and its cost."""
        row = self._row
        if row is not None:
            row.add(1, samples, 1, cost)

    def close(self) -> None:
        """Give the memory back; more than once does nothing."""
        self._closed = True
        row, self._row = self._row, None
        if row is not None:
            row.close()

    def _defer(self, extents: Extents, cost_of: CostOf) -> None:
        with self._lock:
            self._waiting[extents] = self._waiting.get(extents, 0) + 1
            if not self._working:
                self._working = True
                # A thread that ends when nothing waits: none is idle, and none is there to fork.
                try:
                    threading.Thread(target=self._work, args=(cost_of,), daemon=True).start()
                except RuntimeError:  # The interpreter is ending, and nobody will read it.
                    self._working = False

    def _work(self, cost_of: CostOf) -> None:
        """Find the costs of the extents that wait, and count their runs so far."""
        while True:
            with self._lock:
                extents = next(iter(self._waiting), None)
                if extents is None or self._closed:
                    self._working = False
                    return
            with _finding:
                before = time.thread_time()
                cost = cost_of(extents)
                self._spend(time.thread_time() - before)
            with self._lock:
                runs = self._waiting.pop(extents)
                if len(self._costs) >= COSTS:
                    self._costs.clear()
                self._costs[extents] = cost
            row = self._row
            if row is not None and cost is not None:
                total = Cost(
                    cost.spu_s * runs, cost.vpu_s * runs, cost.codec_s * runs, cost.energy_j * runs
                )
                row.add(0, 0, runs, total)
            # Where every run has other extents, runs must not pay for this.
            if self._credit < 0:
                time.sleep(-self._credit / SHARE)

    def _spend(self, seconds: float) -> None:
        """Take seconds off the credit, which grows by SHARE of the time that goes by."""
        now = time.monotonic()
        self._credit = min(CREDIT, self._credit + SHARE * (now - self._credit_at)) - seconds
        self._credit_at = now

    def _forked(self) -> None:
        """Begin without a row: in a forked child, locks and threads are the parent's."""
        self._row: LiveRow | None = None
        self._lock = threading.Lock()
        self._waiting: dict[Extents, int] = {}
        self._working = False
        self._credit, self._credit_at = CREDIT, time.monotonic()


_placements: weakref.WeakSet[Placement] = weakref.WeakSet()

_finding = threading.Lock()
"""Held while a cost is found, and by who forks: a child may not inherit what that has locked."""


def _take(device: Device, name: str, need: Need) -> LiveRow:
    """Take memory on a card for a model. Raises SpuError, with the numbers, if it lacks it."""
    try:
        folder = publisher().open()
    except SpuError:
        # Models run without a folder too; spu-smi says why it sees none of them.
        _check(device, name, need, _own(device, publisher().rows))
        return LiveRow(publisher(), device.index, device.name, name, need.total)
    with _lock(folder):
        held = [
            (f"process {one.process.pid} ({one.program})", row.name, row.memory)
            for one in read_all(folder)
            for row in one.models
            if (row.device, row.card) == (device.index, device.name)
        ]
        hidden = [row for row in publisher().rows if not row.published]
        _check(device, name, need, held + _own(device, hidden))
        return LiveRow(publisher(), device.index, device.name, name, need.total)


def _own(device: Device, rows: Iterable[LiveRow]) -> list[tuple[str, str, int]]:
    """What rows of this process hold on a device."""
    return [
        (f"process {os.getpid()}", row.name, row.memory)
        for row in rows
        if (row.device, row.card) == (device.index, device.name)
    ]


def _check(device: Device, name: str, need: Need, held: list[tuple[str, str, int]]) -> None:
    free = device.chip_memory - sum(memory for _, _, memory in held)
    if need.total <= free:
        return
    largest = sorted(held, key=lambda one: -one[2])
    holders = "; ".join(f"{who} {what!r} {memory}" for who, what, memory in largest) or "nobody"
    each = "" if device.chips == 1 else f" on each of {device.chips} chips"
    raise SpuError(
        f"device {device.index} ({device.name}) is full: the model {name!r} needs {need.total} "
        f"bytes{each} (weights {need.weights}, arena {need.arena}, ports {need.ports}), "
        f"{max(free, 0)} of {device.chip_memory} are free; held by: {holders}",
        remedy="use another device, smaller bounds of the extents, or close a model; "
        f"{VARIABLE}=none runs without cards",
    )


@contextmanager
def _lock(folder: Path) -> Generator[None]:
    """One placement at a time over all processes, so that two never take the same bytes."""
    try:
        with FileLock(folder / "placement.lock", timeout=LOCK_SECONDS, mode=0o600):
            yield
    except OSError as error:
        raise SpuError(f"cannot lock {str(folder)!r}: {error}") from error


def _after_fork() -> None:
    _finding.release()
    for placement in list(_placements):
        placement._forked()  # pyright: ignore[reportPrivateUsage]


os.register_at_fork(
    before=_finding.acquire, after_in_parent=_finding.release, after_in_child=_after_fork
)
