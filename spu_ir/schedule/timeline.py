"""
From steps to tasks: what each unit of one core does in a pass of a program, and in which order.

A step is cut by unit: the SPU multiplies and finishes sums in its epilogues; the VPU and the
special-function unit do the rest of it, tile by tile beside the SPU; DMA brings weights that do
not stay in L2, spilled buffers and inputs. Tasks are queued in the order of the program, but for
weights, which are loaded ahead of it as far as a part of L2 has room for them. A step waits for
those that wrote what it reads; buffers that use one place in the arena one after another are
renamed, so it waits for nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from spu_ir.schedule.energy import Operations
from spu_ir.schedule.memory import Residence, crossing, residence
from spu_ir.schedule.options import WIRE, Options
from spu_ir.schedule.planned import WHOLE_SAMPLES, Planned, Port, plan_steps
from spu_ir.schedule.queues import Link, Task
from spu_ir.schedule.rates import Rates
from spu_ir.schedule.work import Buffer, Step

WINDOW = 1 / 8
"""The share of L2 for weights that pass through it: loads ahead of their use fill no more."""


@dataclass(frozen=True)
class Pass:
    """One pass of a program on one core: its tasks in queue order, and its steps."""

    samples: int
    tasks: tuple[Task, ...]
    steps: tuple[Planned, ...]
    residence: Residence
    ports: Operations
    """What inputs and outputs take outside of all steps."""


def plan_pass(
    steps: Sequence[Step],
    buffers: Sequence[Buffer],
    samples: int,
    rates: Rates,
    options: Options,
    parts: int,
    itemsize: Mapping[str, int],
) -> Pass:
    """
    One pass over `steps`, a program for `samples` samples whose buffers are `buffers`.

    `parts` cores share every step; 1 where each has samples of its own. `itemsize` has the bytes
    of an element of those ports that are floating-point numbers.
    """
    shared = residence(steps, buffers, rates.l2 * parts, options.copies(parts))
    wire = WIRE[options.wire] if options.wire else None
    sizes = crossing(buffers, itemsize, wire)
    ports = {b.number: Port(b.bytes, sizes[b.number]) for b in buffers if b.number in sizes}
    planned = plan_steps(steps, ports, shared, rates, options, parts)
    inputs, outputs = (
        -(-sum(sizes[b.number] for b in buffers if b.kind == kind) // parts)
        for kind in ("input", "output")
    )
    queue = _Queue(planned, buffers, samples, rates, parts)
    if options.host:
        queue.inputs(inputs)
    queue.program()
    queue.outputs(outputs, host=options.host)
    moved = inputs + outputs if options.host else 0
    return Pass(
        samples=samples,
        tasks=tuple(queue.tasks),
        steps=tuple(planned),
        residence=shared,
        # DDR sees them once more than the steps that read and write them there.
        ports=Operations(bytes={"host": moved, "ddr": moved} if moved else {}),
    )


class _Queue:
    """The tasks so far, and which of them wrote each buffer."""

    def __init__(
        self,
        planned: Sequence[Planned],
        buffers: Sequence[Buffer],
        samples: int,
        rates: Rates,
        parts: int,
    ):
        self.tasks: list[Task] = []
        self._planned = planned
        self._buffers = {buffer.number: buffer for buffer in buffers}
        self._samples = samples
        self._rates = rates
        self._parts = parts
        self._writers: dict[int, list[int]] = {}
        self._read: set[int] = set()
        self._users: list[list[int]] = []
        """The tasks of every step that weights were loaded for, in order."""
        self._sizes: list[int] = []
        """The bytes of every load of weights, in order."""
        self._held = 0
        """Bytes of weights that are loaded and not known to be used."""
        self._freed = 0
        """Loads whose room is used again: those known to be used."""
        self._weights: dict[int, int] = {}
        """The load of weights of a step, by the step's place."""

    def inputs(self, size: int) -> None:
        """Inputs of `size` bytes over the host link into DDR, by an engine of the link's own."""
        seconds = size / min(self._rates.host, self._rates.ddr)
        arrived = self._add("host in", seconds, (), "inputs", size)
        for number, buffer in self._buffers.items():
            if buffer.kind == "input":
                self._writers[number] = [arrived]

    def program(self) -> None:
        """All steps."""
        self._load_weights(0)
        for place in range(len(self._planned)):
            self._load_weights(place + 1)
            self._step(place)

    def outputs(self, size: int, *, host: bool) -> None:
        """Outputs of `size` bytes to DDR as they are written, and on over the host link."""
        written = {
            task
            for number, tasks in self._writers.items()
            if self._buffers[number].kind == "output"
            for task in tasks
        }
        links = tuple(Link(task, self._tiles(size)) for task in sorted(written))
        rate = min(self._rates.host, self._rates.ddr) if host else self._rates.ddr
        self._add("host out", size / rate, links, "outputs", size)

    def _load_weights(self, place: int) -> None:
        if place >= len(self._planned) or not self._planned[place].weights:
            return
        size = self._planned[place].weights
        self._sizes.append(size)
        links: list[Link] = []
        # What was loaded first makes room; the step before this one still needs its own weights.
        while self._held + size > self._rates.l2 * WINDOW and self._freed < len(self._users):
            links.extend(Link(task) for task in self._users[self._freed])
            self._held -= self._sizes[self._freed]
            self._freed += 1
        self._held += size
        seconds = size / self._rates.ddr
        self._weights[place] = self._add("dma", seconds, tuple(links), "weights", size, place)

    def _step(self, place: int) -> None:
        each = self._planned[place]
        step = each.step
        links = self._links(step)
        if place in self._weights:
            links.append(Link(self._weights[place], self._tiles(each.weights)))
        if each.loaded and step.unit != "dma":
            seconds = each.loaded / self._rates.ddr
            load = self._add("dma", seconds, tuple(links), "data", each.loaded, place)
            links.append(Link(load, self._tiles(each.loaded)))
        done: list[int] = []
        for unit in (step.unit, *(u for u in ("noc", "vpu", "sfu") if u != step.unit)):
            seconds = each.busy(unit)
            if seconds or unit == step.unit:
                # The units of a step go through it together, an instruction at a time.
                inner = (Link(task, max(1, step.work.instructions)) for task in done)
                amount = each.amount(unit)
                done.append(self._add(unit, seconds, (*links, *inner), step.op, amount, place))
        if each.stored and step.unit != "dma":
            links = [Link(task, self._tiles(each.stored)) for task in done]
            seconds = each.stored / self._rates.ddr
            done.append(self._add("dma", seconds, tuple(links), "data", each.stored, place))
        if place in self._weights:
            self._users.append(done)
        self._wrote(step, done)

    def _links(self, step: Step) -> list[Link]:
        """A step's links to those that wrote what it reads."""
        tiles: dict[int, int] = {}
        for number in step.reads:
            parts = self._tiles(self._buffers[number].bytes / self._parts)
            if step.op in WHOLE_SAMPLES:
                parts = min(parts, self._samples)
            for task in self._writers.get(number, ()):
                tiles[task] = min(parts, tiles.get(task, parts))
        self._read.update(step.reads)
        return [Link(task, parts) for task, parts in tiles.items()]

    def _wrote(self, step: Step, done: list[int]) -> None:
        for number in step.writes:
            if number in self._read:  # What was there has been used: this is something new.
                self._read.discard(number)
                self._writers[number] = []
            self._writers.setdefault(number, []).extend(done)

    def _tiles(self, size: float) -> int:
        """In how many tiles bytes are handed on: each fills half of the SPUs' L1."""
        return max(1, ceil(size / (self._rates.l1 / 2)))

    def _add(
        self,
        unit: str,
        seconds: float,
        links: tuple[Link, ...],
        label: str,
        amount: int,
        step: int = -1,
    ) -> int:
        self.tasks.append(Task(unit, seconds, links, step, label, amount))
        return len(self.tasks) - 1
