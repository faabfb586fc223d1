"""
What this process publishes about its models on the cards: one file, mapped, a row a model.

Updating a row takes a few microseconds and no lock but the process's own. A forked child begins
without a file and never writes to its parent's.
"""

from __future__ import annotations

import atexit
import mmap
import os
import sys
import threading
import time
from dataclasses import dataclass
from math import exp
from pathlib import Path

from spu_ir.errors import SpuError
from spu_ir.runtime.cards_folder import Process, usable_folder
from spu_ir.runtime.cards_layout import (
    CARD_BYTES,
    FIRST_ROWS,
    HEADER_BYTES,
    MAX_ROWS,
    NAME_BYTES,
    ROW_BYTES,
    SLOT_BYTES,
    Header,
    Row,
    pack_header,
    pack_slot,
    text_bytes,
)

HEAT_SECONDS = 60.0
"""The time constant of a card's temperature."""


@dataclass(frozen=True)
class Cost:
    """
    What runs cost on a card: seconds that all its SPUs, VPUs or codecs together are busy, and
    joules above what the card takes idle.
    """

    spu_s: float = 0.0
    vpu_s: float = 0.0
    codec_s: float = 0.0
    energy_j: float = 0.0


class StateFile:
    """The state file of this process. Callers hold a lock."""

    def __init__(self, folder: Path):
        """Make the file. Raises OSError."""
        process = Process.this()
        self.path = folder / process.file
        header = Header(process.pid, process.start, process.namespace, time.time(), program_name())
        size = HEADER_BYTES + FIRST_ROWS * ROW_BYTES
        # A file of this name is of no other living process.
        self.path.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(self.path, flags, 0o600)
        try:
            # With its blocks, since writing to a hole of a full file system would be a SIGBUS.
            os.posix_fallocate(file, 0, size)
            os.pwrite(file, pack_header(header), 0)
            # The sticky bit keeps it from being swept out of XDG_RUNTIME_DIR as unused.
            os.fchmod(file, 0o1600)
            self._map = mmap.mmap(file, size)
        except BaseException:
            self.path.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)
        self._free = list(range(FIRST_ROWS))[::-1]

    def claim(self) -> int:
        """The number of a free row, in a larger file if need be. Raises OSError."""
        if not self._free:
            size = len(self._map)
            rows = (size - HEADER_BYTES) // ROW_BYTES
            more = min(2 * rows, MAX_ROWS)
            if more == rows:
                raise OSError(f"a process can have {MAX_ROWS} models on cards")
            file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.posix_fallocate(file, 0, HEADER_BYTES + more * ROW_BYTES)
            finally:
                os.close(file)
            self._map.resize(HEADER_BYTES + more * ROW_BYTES)
            self._free = list(range(rows, more))[::-1]
        return self._free.pop()

    def write(self, row: int, sequence: int, slot: bytes) -> None:
        """Write a slot of a row: the one that the sequence number before did not write."""
        at = HEADER_BYTES + row * ROW_BYTES + (sequence & 1) * SLOT_BYTES
        self._map[at : at + SLOT_BYTES] = slot

    def release(self, row: int) -> None:
        """Give a row back."""
        at = HEADER_BYTES + row * ROW_BYTES
        self._map[at : at + ROW_BYTES] = bytes(ROW_BYTES)
        self._free.append(row)

    def close(self, *, remove: bool) -> None:
        """Unmap the file, and `remove` it."""
        self._map.close()
        if remove:
            self.path.unlink(missing_ok=True)


class LiveRow:
    """A model of this process on a card: what it has done, in memory and, if so, published."""

    def __init__(self, publisher: Publisher, device: int, card: str, name: str, memory: int):
        self.device, self.card, self.name, self.memory = device, card, name, memory
        self.placed = time.time()
        self._publisher = publisher
        self._name, self._card = text_bytes(name, NAME_BYTES), text_bytes(card, CARD_BYTES)
        self._runs = self._samples = self._modelled = 0
        self._spu = self._vpu = self._codec = self._energy = self._heat = 0.0
        self._heat_at = time.monotonic()
        self._sequence = 0
        self.identity, self._number = publisher.enter(self)
        with publisher.lock:
            self._write()

    def add(self, runs: int, samples: int, modelled: int, cost: Cost | None) -> None:
        """Count runs; `cost` is that of `modelled` runs together, which need not be these."""
        with self._publisher.lock:
            self._runs += runs
            self._samples += samples
            if cost is not None:
                self._modelled += modelled
                self._spu += cost.spu_s
                self._vpu += cost.vpu_s
                self._codec += cost.codec_s
                self._energy += cost.energy_j
                now = time.monotonic()
                self._heat = self._heat * exp((self._heat_at - now) / HEAT_SECONDS) + cost.energy_j
                self._heat_at = now
            self._write()

    def row(self) -> Row:
        """The row as a reader would see it."""
        with self._publisher.lock:
            return Row(
                identity=self.identity,
                device=self.device,
                card=self.card,
                name=self.name,
                memory=self.memory,
                runs=self._runs,
                samples=self._samples,
                modelled=self._modelled,
                spu_s=self._spu,
                vpu_s=self._vpu,
                codec_s=self._codec,
                energy_j=self._energy,
                heat_j=self._heat,
                heat_at=self._heat_at,
                placed=self.placed,
            )

    @property
    def published(self) -> bool:
        """Whether it is in the file: not without a folder, nor where the file cannot grow."""
        return self._number is not None

    def close(self) -> None:
        """Take the row away; more than once does nothing."""
        self._publisher.leave(self, self._number)
        self._number = None

    def _write(self) -> None:
        file = self._publisher.file
        if file is None or self._number is None:
            return
        self._sequence += 1
        slot = pack_slot(
            self._sequence,
            self.identity,
            self.memory,
            self._runs,
            self._samples,
            self._modelled,
            (
                self._spu,
                self._vpu,
                self._codec,
                self._energy,
                self._heat,
                self._heat_at,
                self.placed,
            ),
            self.device,
            True,
            self._name,
            self._card,
        )
        file.write(self._number, self._sequence, slot)


class Publisher:
    """This process's rows, and the file that they are published in."""

    def __init__(self) -> None:
        # Reentrant: a model may be collected, and leave, while a row is written.
        self.lock = threading.RLock()
        self.rows: list[LiveRow] = []
        self.file: StateFile | None = None
        self._identity = 0

    def open(self) -> Path:
        """Make the file if there is none, and return its folder. Raises SpuError."""
        with self.lock:
            folder = usable_folder()
            # Tests and long-lived programs may change the folder, or have it swept away.
            if self.file is None or not self.rows:
                self.close()
                try:
                    self.file = StateFile(folder)
                except OSError as error:
                    raise SpuError(f"cannot write to {str(folder)!r}: {error}") from error
            return self.file.path.parent

    def enter(self, row: LiveRow) -> tuple[int, int | None]:
        """Take in a row: its identity, and its number in the file if it is published."""
        with self.lock:
            self.rows.append(row)
            self._identity += 1
            try:
                return self._identity, None if self.file is None else self.file.claim()
            except OSError:
                return self._identity, None

    def leave(self, row: LiveRow, number: int | None) -> None:
        """Take out a row; the last one takes the file along."""
        with self.lock:
            if row not in self.rows:
                return
            self.rows.remove(row)
            if self.file is not None and number is not None:
                self.file.release(number)
            if not self.rows:
                self.close()

    def close(self) -> None:
        """Remove the file."""
        with self.lock:
            if self.file is not None:
                self.file.close(remove=True)
                self.file = None


_current = [Publisher()]


def publisher() -> Publisher:
    """That of this process."""
    return _current[0]


def program_name() -> str:
    """What this process is called for people: the script or module that it runs."""
    # Under `python -m`, argv[0] is the module's file; under -c and embedded it says nothing.
    name = sys.argv[0] if sys.argv else ""
    if name in ("", "-c", "-m"):
        name = sys.executable or "python"
    path = Path(name)
    return path.parent.name if path.name == "__main__.py" else path.name


def _after_fork() -> None:
    """The parent's file stays the parent's: the child only unmaps it."""
    inherited = _current[0].file
    _current[0] = Publisher()
    if inherited is not None:
        inherited.close(remove=False)


os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: publisher().close())
