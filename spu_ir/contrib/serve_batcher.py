"""Dynamic batching: requests that come at the same time share a run of the model."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spu_ir.contrib.rows import Array, Feeds, Rows, Signature, run_together, signature
from spu_ir.errors import SpuError

if TYPE_CHECKING:
    from spu_ir.runtime.model import CompiledModel


class BusyError(Exception):
    """More requests wait than may, or the server stops; the client should come again later."""


@dataclass(frozen=True)
class Answered:
    """A request's outputs, and how many rows the run had that computed them."""

    outputs: dict[str, Array]
    rows: int


@dataclass(frozen=True, eq=False)
class _Waiting:
    feeds: Feeds
    rows: int
    key: Signature
    since: float
    future: asyncio.Future[Answered]


class Batcher:
    """
    Puts requests into batches, and runs the model on one after the other in a thread.

    A batch begins with the request that has waited longest and takes those of the same shapes in
    the order in which they came, up to `maximum` rows (at most, and by default, the model's). It
    starts when it is full, or when its first request has waited `delay` seconds; while the model
    runs, requests gather without any delay of their own. At most `waiting` requests may wait. All
    methods are called from one event loop. Raises SpuError for a maximum of less than 1 row.
    """

    def __init__(
        self,
        model: CompiledModel,
        *,
        maximum: int | None = None,
        delay: float = 0.002,
        waiting: int = 256,
    ):
        self.model = model
        self.rows = Rows.of(model)
        if maximum is not None and maximum < 1:
            raise SpuError(f"a batch of {maximum} rows holds no request", remedy="use 1 or more")
        if delay < 0 or waiting < 1:
            raise SpuError("the delay must be 0 or more, and the requests that may wait 1 or more")
        self.maximum = min(maximum or self.rows.maximum, self.rows.maximum)
        self.delay, self.most_waiting = delay, waiting
        self._waiting: deque[_Waiting] = deque()
        self._changed = asyncio.Event()
        self._closing = False
        self._thread = ThreadPoolExecutor(1, "spu-serve")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to run; called inside the event loop."""
        self._task = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Answer what waits, take no more, and end the thread."""
        self._closing = True
        self._changed.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    async def submit(self, feeds: Feeds) -> Answered:
        """
        Run the model on one request.

        Raises SpuError as `model.run` does, and BusyError. What is cancelled takes no part in a run
        that has not begun.
        """
        self.model.check(feeds)
        if self._closing or len(self._waiting) >= self.most_waiting:
            raise BusyError("the server stops" if self._closing else "too many requests wait")
        count = len(feeds[self.model.inputs[0].name]) if self.rows.shared else 1
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answered] = loop.create_future()
        key = signature(self.model, feeds) if self.rows.shared else ()
        self._waiting.append(_Waiting(feeds, count, key, loop.time(), future))
        self._changed.set()
        return await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            self._drop_cancelled()
            if not self._waiting:
                if self._closing:
                    return
                await self._changed.wait()
                continue
            batch, full = self._next()
            left = batch[0].since + self.delay - loop.time()
            if not full and left > 0 and not self._closing:
                # Woken early by every request that comes: it may be the one that fills the batch.
                try:
                    async with asyncio.timeout(left):
                        await self._changed.wait()
                except TimeoutError:
                    pass
                continue
            for each in batch:
                self._waiting.remove(each)
            await self._run(batch)

    def _drop_cancelled(self) -> None:
        if any(each.future.done() for each in self._waiting):
            self._waiting = deque(each for each in self._waiting if not each.future.done())

    def _next(self) -> tuple[list[_Waiting], bool]:
        """The next batch as far as it is there, and whether no request can join it any more."""
        first = self._waiting[0]
        if not self.rows.shared or first.rows >= self.maximum:
            return [first], True
        batch: list[_Waiting] = []
        total = 0
        for each in self._waiting:
            if each.key != first.key:
                continue
            if total + each.rows > self.maximum:
                return batch, True
            batch.append(each)
            total += each.rows
        return batch, total == self.maximum

    async def _run(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        feeds = [each.feeds for each in batch]
        total = sum(each.rows for each in batch)
        try:
            answers = await loop.run_in_executor(
                self._thread, run_together, self.model, self.rows, feeds
            )
        except Exception as error:  # A fault of ours: its requests fail, later ones need not.
            for each in batch:
                if not each.future.done():
                    each.future.set_exception(error)
            return
        alone = any(isinstance(answer, SpuError) for answer in answers)
        for each, answer in zip(batch, answers, strict=True):
            if each.future.done():
                continue
            if isinstance(answer, SpuError):
                each.future.set_exception(answer)
            else:
                each.future.set_result(Answered(answer, each.rows if alone else total))
