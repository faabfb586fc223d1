"""The arenas that runs borrow: as many at once as is useful, kept for the next run."""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any

import numpy as np

from spu_ir.runtime.weights import SLACK, anonymous_memory

POISON = 0xCD
_HUGE = 2 << 20


class Arena:
    """Scratch memory of one run, grown to the largest run so far; aligned to a page."""

    _memory: np.ndarray[Any, np.dtype[np.uint8]]

    def __init__(self):
        self._memory = np.empty(0, np.uint8)

    def reserve(self, size: int, *, poison: bool) -> int:
        """
        The address of at least `size` bytes and the slack that programs may read behind.

        `poison` fills all of it, so that reading what was never written shows. The content
        is unspecified otherwise. Raises SpuError where memory is short.
        """
        if self._memory.size < size + SLACK:
            self._memory = np.empty(0, np.uint8)  # Give the old one back first.
            pages = anonymous_memory(size + SLACK)
            if size >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
                pages.madvise(mmap.MADV_HUGEPAGE)
            self._memory = np.frombuffer(pages, np.uint8)
        if poison:
            self._memory.fill(POISON)
        return self._memory.__array_interface__["data"][0]


class ArenaPool:
    """
    At most `limit` arenas; a borrower beyond that waits, since more runs at once than
    processors would only take memory.

    A forked child starts with none, as threads that are not there hold the parent's.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self.reset()
        _pools.add(self)

    def reset(self) -> None:
        """Forget all arenas; runs that hold one give it back to the past."""
        self._free: list[Arena] = []
        self._turns = BoundedSemaphore(self._limit)

    @contextmanager
    def borrow(self) -> Generator[Arena]:
        """An arena for the duration of a `with`."""
        free, turns = self._free, self._turns
        with turns:
            # The one used last is the one still in the caches. pop and append are atomic.
            try:
                arena = free.pop()
            except IndexError:
                arena = Arena()
            try:
                yield arena
            finally:
                free.append(arena)


_pools: weakref.WeakSet[ArenaPool] = weakref.WeakSet()


def _reset_all() -> None:
    for pool in list(_pools):
        pool.reset()


os.register_at_fork(after_in_child=_reset_all)
