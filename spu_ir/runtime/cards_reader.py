"""Reads what all processes of this user publish about their models on the cards."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from spu_ir.runtime.cards_folder import Process
from spu_ir.runtime.cards_layout import (
    HEADER_BYTES,
    MAX_BYTES,
    ROW_BYTES,
    Row,
    unpack_header,
    unpack_row,
)

ATTEMPTS = 16
"""How often a file is read in which both slots of a row were just being written."""


@dataclass(frozen=True)
class Published:
    """A living process and its models on the cards, in the order in which they were placed."""

    process: Process
    program: str
    started: float
    """When it began to publish, in seconds since the epoch."""
    models: tuple[Row, ...]


def read_all(folder: Path) -> list[Published]:
    """
    What the living processes publish in `folder`, by process number.

    Files of processes that ended without removing theirs are removed. What is no state file,
    belongs to another user, or makes no sense is passed over. A folder that is not there is empty.
    """
    found: list[Published] = []
    try:
        entries = sorted(os.listdir(folder))
    except OSError:
        return []
    for name in entries:
        process = Process.of_file(name)
        if process is None:
            continue
        path = folder / name
        if process.is_dead():
            _remove(path)
            continue
        published = read_file(path, process)
        if published is not None:
            found.append(published)
    return sorted(found, key=lambda one: one.process.pid)


def read_file(path: Path, process: Process) -> Published | None:
    """What `process` publishes in the file `path`, or None if that makes no sense."""
    for _ in range(ATTEMPTS):
        data = _content(path)
        if data is None:
            return None
        try:
            return _parse(data, process)
        except ValueError:
            continue
    return None


def _parse(data: bytes, process: Process) -> Published | None:
    """ValueError if a row was caught between two updates."""
    header = unpack_header(data)
    if header is None or (len(data) - HEADER_BYTES) % ROW_BYTES:
        return None
    if Process(header.pid, header.start, header.namespace) != process:
        return None
    rows = (
        unpack_row(data[at : at + ROW_BYTES]) for at in range(HEADER_BYTES, len(data), ROW_BYTES)
    )
    models = sorted(filter(None, rows), key=lambda row: row.identity)
    return Published(process, header.program, header.started, tuple(models))


def _content(path: Path) -> bytes | None:
    """
    The bytes of an own, regular file of a possible size.

    They are read, not mapped: a mapped file that its owner shortens kills who reads it.
    """
    # O_NONBLOCK, or opening a FIFO would wait for its other end.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        file = os.open(path, flags)
    except OSError:
        return None
    try:
        found = os.fstat(file)
        mine = found.st_uid == os.geteuid()
        if not mine or not stat.S_ISREG(found.st_mode) or found.st_size > MAX_BYTES:
            return None
        return os.pread(file, found.st_size, 0)
    except OSError:
        return None
    finally:
        os.close(file)


def _remove(path: Path) -> None:
    """Remove a dead process's file, if it is ours; another reader may be faster."""
    try:
        found = path.stat(follow_symlinks=False)
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
            path.unlink()
    except OSError:
        pass
