"""What this processor can run, and how many threads it should."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path

from spu_ir.errors import SpuError
from spu_ir.runtime.isa import LEVELS, architecture_levels

MAX_THREADS = 256
"""Most threads of one parallel region, as in `pool.h`."""


@cache
def host_features() -> frozenset[str]:
    """
    The processor's features as Linux lists them; empty where that is unknown.

    The kernel drops what it does not save on a context switch, so a listed vector extension
    is usable. No compiler and no native code is involved, so this cannot fault.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    # Cores may differ (or be listed at different times of a migration): all must have it.
    sets = [set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")]
    return frozenset(set[str].intersection(*sets)) if sets else frozenset()


def processor_name() -> str:
    """The processor's name, as Linux has it; elsewhere its architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def host_levels() -> tuple[str, ...]:
    """The ISA levels that this host runs, the most general first; always has `c`."""
    features = host_features()
    return tuple(name for name in architecture_levels() if LEVELS[name].cpuinfo <= features)


def select_level(available: Collection[str] | None = None) -> str:
    """
    The best level that this host runs, among `available` ones if given.

    The environment variable SPU_IR_ISA forces a level. Raises SpuError if the forced level
    is unknown, beyond the host, or not available, and if no available level runs here.
    """
    host = host_levels()
    offered = [name for name in LEVELS if available is None or name in available]
    forced = os.environ.get("SPU_IR_ISA")
    if forced:
        if forced not in LEVELS:
            raise SpuError(
                f"SPU_IR_ISA={forced!r} is no ISA level", remedy=f"one of {', '.join(LEVELS)}"
            )
        if forced not in host:
            raise SpuError(
                f"SPU_IR_ISA={forced} is beyond this processor",
                remedy=f"it runs {', '.join(host)}",
            )
        if forced not in offered:
            raise SpuError(
                f"SPU_IR_ISA={forced} was not built into this model",
                remedy=f"it has {', '.join(offered)}",
            )
        return forced
    usable = [name for name in offered if name in host]
    if not usable:
        raise SpuError(
            f"the model was built for {', '.join(offered) or 'no level'}, "
            f"this processor runs {', '.join(host)}",
            remedy="save it again with level c among its levels",
        )
    return usable[-1]


def default_threads() -> int:
    """
    Threads of a parallel region unless told otherwise: SPU_IR_THREADS, or one for each
    processor that this process may use, by its affinity and its container's quota.

    Raises SpuError if SPU_IR_THREADS is not a number of threads.
    """
    forced = os.environ.get("SPU_IR_THREADS")
    if forced:
        if not forced.isascii() or not forced.isdigit():
            raise SpuError(f"SPU_IR_THREADS={forced!r} is not a number")
        return check_threads(int(forced))
    if hasattr(os, "sched_getaffinity"):
        threads = len(os.sched_getaffinity(0))
    else:
        threads = os.cpu_count() or 1
    return max(1, min(threads, _quota(), MAX_THREADS))


def check_threads(threads: int) -> int:
    """`threads` itself; SpuError unless it is within 1..MAX_THREADS."""
    if not 1 <= threads <= MAX_THREADS:
        raise SpuError(f"{threads} threads were asked for", remedy=f"use 1 to {MAX_THREADS}")
    return threads


def _quota() -> int:
    """The container's limit of processor time, rounded up to processors (cgroup v2)."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return -(-int(quota) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return MAX_THREADS  # No limit (`max`), or not Linux.
