"""The caches that one core of this processor has to itself, as Linux lists them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

L1D = 32 << 10
"""Bytes of the first level's data cache where the system does not say: the least of x86-64 cores
since 2008, and of most others."""

L2 = 1 << 20
"""Bytes of the second level where the system does not say."""

_SIZE = re.compile(r"(\d+)([KM]?)")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}


@dataclass(frozen=True)
class Caches:
    """Bytes of a core's first (data) and second level; the least of all cores that differ."""

    l1d: int = L1D
    l2: int = L2


@cache
def host_caches(system: Path = Path("/sys/devices/system/cpu")) -> Caches:
    """
    What the processors that this process may use have, by `cpu*/cache/index*` of `system`.

    A level that several cores share counts by its part; processors that share the first level
    are one core. L1D and L2 stand for what is not listed, as on other systems than Linux.
    """
    numbers = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    found = [_levels(system / f"cpu{number}" / "cache") for number in numbers]
    l1d = min((levels[1][0] for levels in found if 1 in levels), default=L1D)
    shares = [
        size * min(levels.get(1, (0, 1))[1], sharers) // sharers
        for levels in found
        if 2 in levels
        for size, sharers in [levels[2]]
    ]
    return Caches(l1d, min(shares, default=L2))


def _levels(folder: Path) -> dict[int, tuple[int, int]]:
    """Of each level for data: its bytes, and how many processors share it."""
    found: dict[int, tuple[int, int]] = {}
    for index in sorted(folder.glob("index*")):
        try:
            level, kind, size, shared = (
                (index / name).read_text(encoding="ascii").strip()
                for name in ("level", "type", "size", "shared_cpu_list")
            )
        except (OSError, ValueError):
            continue  # A level that is listed in part is not known.
        match = _SIZE.fullmatch(size)
        if kind in ("Data", "Unified") and level.isdigit() and match and int(match[1]):
            found[int(level)] = (int(match[1]) * _UNITS[match[2]], _count(shared))
    return found


def _count(processors: str) -> int:
    """How many a list as `0-3,8` names; 1 for anything else."""
    total = 0
    for part in processors.split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            return 1
        total += int(last or first) - int(first) + 1
    return max(total, 1)
