"""
The bytes of a process's state file: what it runs on the cards, for `spu-smi` and for accounting.

A file is a header that never changes and rows, one a placed model. A row is two slots. An update
writes the slot that is not the newest, with a sequence number and a CRC-32 over all of it; a
reader takes the valid slot with the higher number. So a value is never torn, on any memory model,
and neither side ever waits. Everything read is somebody else's bytes: sizes, numbers and texts
are checked, and what does not hold is None.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any
from zlib import crc32

MAGIC = b"SPUCARDS"
VERSION = 1
HEADER_BYTES = 128
SLOT_BYTES = 256
ROW_BYTES = 2 * SLOT_BYTES
FIRST_ROWS = 16
MAX_ROWS = 4096
MAX_BYTES = HEADER_BYTES + MAX_ROWS * ROW_BYTES
MAX_DEVICES = 4096
NAME_BYTES, CARD_BYTES = 64, 64  # The names of targets are no longer.

# The machine's byte order and no padding; every field is aligned all the same.
_HEADER = struct.Struct("=8sIIIIQQd64s")
_SLOT = struct.Struct(f"=QQQQQQ7diI{NAME_BYTES}s{CARD_BYTES}s")
_CRC = struct.Struct("=I")
_CRC_AT = SLOT_BYTES - _CRC.size
_PADDING = bytes(_CRC_AT - _SLOT.size)

assert _HEADER.size <= HEADER_BYTES
assert _SLOT.size <= _CRC_AT


@dataclass(frozen=True)
class Header:
    """
    Which process a file is of: `start` is its start time in clock ticks since boot, `namespace`
    the inode of its PID namespace, `started` the start of publishing in seconds since the epoch.
    """

    pid: int
    start: int
    namespace: int
    started: float
    program: str


@dataclass(frozen=True)
class Row:
    """
    A model on a card, and what it has done since it was placed there.

    `identity` differs between any two models of a process. `memory` is bytes on each chip of the
    card. Of `runs`, `modelled` are in the sums: seconds that all SPUs, VPUs or codecs of the card
    together would have been busy, and joules above idle. `heat` is the energy at `heat_at`
    (CLOCK_MONOTONIC, in seconds) with every joule faded by e for each time constant of its age.
    """

    identity: int
    device: int
    card: str
    name: str
    memory: int
    runs: int
    samples: int
    modelled: int
    spu_s: float
    vpu_s: float
    codec_s: float
    energy_j: float
    heat_j: float
    heat_at: float
    placed: float


def pack_header(header: Header) -> bytes:
    """The first HEADER_BYTES of a file."""
    packed = _HEADER.pack(
        MAGIC,
        VERSION,
        HEADER_BYTES,
        ROW_BYTES,
        header.pid,
        header.start,
        header.namespace,
        header.started,
        text_bytes(header.program, NAME_BYTES),
    )
    return packed.ljust(HEADER_BYTES, b"\0")


def unpack_header(data: bytes) -> Header | None:
    """What a file's first bytes say, or None if they are no header of this version."""
    if len(data) < HEADER_BYTES:
        return None
    magic, version, header_bytes, row_bytes, pid, start, namespace, started, program = (
        _HEADER.unpack_from(data)
    )
    if (magic, version, header_bytes, row_bytes) != (MAGIC, VERSION, HEADER_BYTES, ROW_BYTES):
        return None
    if not math.isfinite(started):
        return None
    return Header(pid, start, namespace, started, _text(program))


def pack_slot(
    sequence: int,
    identity: int,
    memory: int,
    runs: int,
    samples: int,
    modelled: int,
    sums: tuple[float, float, float, float, float, float, float],
    device: int,
    used: bool,
    name: bytes,
    card: bytes,
) -> bytes:
    """
    The SLOT_BYTES of a slot; `sums` are spu_s, vpu_s, codec_s, energy_j, heat_j, heat_at and
    placed, `name` and `card` what `text_bytes` made.
    """
    packed = _SLOT.pack(
        sequence, identity, memory, runs, samples, modelled, *sums, device, used, name, card
    )
    body = packed + _PADDING
    return body + _CRC.pack(crc32(body))


def unpack_row(data: bytes) -> Row | None:
    """
    The row that ROW_BYTES are. None if it is free or makes no sense, ValueError if neither slot
    is whole, which happens when both were written to while they were read: read again.
    """
    first, second = _slot(data[:SLOT_BYTES]), _slot(data[SLOT_BYTES:ROW_BYTES])
    if first is None and second is None:
        if not any(data[:ROW_BYTES]):
            return None  # never used
        raise ValueError("no slot of the row is whole")
    newest = max(filter(None, (first, second)), key=lambda slot: slot[0])
    _, identity, memory, runs, samples, modelled, *rest = newest
    *sums, device, used, name, card = rest
    spu_s, vpu_s, codec_s, energy_j, heat_j, heat_at, placed = sums
    sane = all(math.isfinite(value) and value >= 0 for value in sums)
    if used != 1 or not sane or not 0 <= device < MAX_DEVICES or memory >= 1 << 62:
        return None
    return Row(
        identity=identity,
        device=device,
        card=_text(card),
        name=_text(name),
        memory=memory,
        runs=runs,
        samples=samples,
        modelled=modelled,
        spu_s=spu_s,
        vpu_s=vpu_s,
        codec_s=codec_s,
        energy_j=energy_j,
        heat_j=heat_j,
        heat_at=heat_at,
        placed=placed,
    )


def text_bytes(text: str, size: int) -> bytes:
    """A text in at most `size` bytes of UTF-8, shortened between letters."""
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore").encode()


def _slot(data: bytes) -> tuple[Any, ...] | None:
    """The fields of a slot, or None if it was never written or its CRC does not hold."""
    if _CRC.unpack_from(data, _CRC_AT)[0] != crc32(data[:_CRC_AT]):
        return None
    fields = _SLOT.unpack_from(data)
    return fields if fields[0] > 0 else None


def _text(data: bytes) -> str:
    """The text of a field; whatever could drive a terminal is escaped."""
    text = data.rstrip(b"\0").decode("utf-8", "replace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
