"""How long a card would take for a program, how busy it would be, and what energy it would need."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from typing import Any, NamedTuple

from spu_ir.errors import SpuError
from spu_ir.schedule.energy import ATTO, Costs
from spu_ir.schedule.options import Options
from spu_ir.schedule.planned import Planned
from spu_ir.schedule.queues import (
    IDLE,
    UNITS,
    Matrix,
    Times,
    apply,
    matrix,
    passes,
    period,
    run,
)
from spu_ir.schedule.rates import Rates
from spu_ir.schedule.timeline import Pass, plan_pass
from spu_ir.schedule.work import Work, WorkTable
from spu_ir.targets import Target


class Event(NamedTuple):
    """What one unit of one core does from `start_s` to `end_s`."""

    core: int
    """Over all chips of the card, from 0."""
    unit: str
    layer: str
    """Of the model; of transfers what is moved, `inputs` or `outputs`."""
    label: str
    """The step's op, or `weights` or `data` for what DMA moves."""
    start_s: float
    end_s: float
    amount: int
    """Bytes, multiply-accumulates or operations: what the unit does."""


@dataclass(frozen=True)
class LayerEstimate:
    """One step of the program in the first pass of the first core."""

    layer: str
    op: str
    unit: str
    precision: str
    start_s: float
    end_s: float
    bottleneck: str
    """What takes longest: `spu macs`, `spu epilogue`, `vpu vector`, `dma ddr`, ...; or ``."""
    busy_s: Mapping[str, float]
    """By unit."""
    work: Work
    """Of all samples of the pass, before skipped zeros."""
    bytes: Mapping[str, int]
    """By level, of one core: `l2`, `ddr`, `noc`."""
    energy_j: float
    """Of the pass, without what the card draws when idle."""


@dataclass(frozen=True)
class _Core:
    """Cores with the same share of a batch: the passes that each runs, one after another."""

    passes: tuple[tuple[Pass, int], ...]
    """Passes and how often each is run."""
    matrices: tuple[Matrix, ...]

    @property
    def samples(self) -> int:
        return sum(each.samples * times for each, times in self.passes)

    @cached_property
    def matrix(self) -> Matrix:
        """Of all passes together."""
        return passes((m, n) for m, (_, n) in zip(self.matrices, self.passes, strict=True))

    @property
    def period(self) -> float:
        return period(self.matrix)

    @property
    def latency(self) -> float:
        return max(apply(self.matrix, IDLE))

    def busy(self) -> dict[str, float]:
        """Seconds that each unit is at work in a batch."""
        result = dict.fromkeys(UNITS, 0.0)
        for each, times in self.passes:
            for task in each.tasks:
                result[task.unit] += task.seconds * times
        return result

    def energy(self, costs: Costs, parts: int) -> int:
        """Attojoules of a batch on this core, or, if `parts` share every step, on all of them."""
        total = 0
        for each, times in self.passes:
            total += times * parts * pass_energy(each, costs)
        return total


def pass_energy(each: Pass, costs: Costs) -> int:
    """Attojoules of one core in one pass: the sum over its steps, and its ports'."""
    steps = sum(costs.energy(step.done, step.step.precision) for step in each.steps)
    return steps + costs.energy(each.ports, "int8")


@dataclass(frozen=True)
class Estimate:
    """
    What a batch takes on a target. Made by `estimate` and `CompiledModel.estimate`.

    Times are of the device model (docs/device-model.md), not of any machine that was measured.
    """

    target: Target
    options: Options
    extents: Mapping[str, int]
    batch: int
    latency_s: float
    """From the first input on the host link to the last output, of one batch on an idle card."""
    period_s: float
    """From batch to batch, when they follow each other without end."""
    throughput: float
    """Samples a second of the card, when batches follow each other."""
    energy_j: float
    """Of a sample, with its share of what the card draws when idle."""
    power_w: float
    """When batches follow each other."""
    busy: Mapping[str, float]
    """By unit: the share of time that it is at work, the mean over the cores in use."""
    bytes: Mapping[str, int]
    """By level of a batch on the card: `l2`, `ddr`, `noc`, `host`."""
    dynamic_aj: int
    """Attojoules of a batch without what the card draws when idle: the sum over all steps."""
    layers: tuple[LayerEstimate, ...]
    core_batch: int
    """Samples of one pass of the program."""
    chips: int
    """In use: no more than there are samples."""
    cores: int
    """In use of every chip."""
    working_set: int
    """Bytes of a pass's buffers in L2."""
    weights: int
    """Bytes of weights that a pass reads."""
    spilled: float
    """Share of the traffic to the working set that goes to DDR."""
    streamed: float
    """Share of the weights that every pass reads from DDR."""
    _groups: tuple[tuple[_Core, int], ...] = field(repr=False, default=())
    """Cores with the same share, and how many there are, over all chips."""

    @property
    def bottleneck(self) -> str:
        """The busiest unit."""
        return max(self.busy, key=lambda unit: self.busy[unit])

    @property
    def timeline(self) -> list[Event]:
        """One batch on an idle card: every task of every core."""
        return list(self._events())

    @property
    def first_core(self) -> list[Event]:
        """The first core's part of `timeline`; no other core has more of the batch."""
        return list(_group_events(self._groups[0][0]))

    @property
    def events(self) -> int:
        """How many events `timeline` has: of a large batch it may be more than memory holds."""
        shared = self.cores if self.options.cores != "batch" else 1
        return sum(
            count * shared * sum(times * len(each.tasks) for each, times in group.passes)
            for group, count in self._groups
        )

    def _events(self) -> Iterator[Event]:
        core = 0
        shared = self.cores if self.options.cores != "batch" else 1
        for group, count in self._groups:
            events = list(_group_events(group))
            for _ in range(count * shared):
                yield from (event._replace(core=core) for event in events)
                core += 1

    def to_json(self) -> dict[str, Any]:
        """Everything but the timeline, as JSON."""
        return {
            "target": self.target.name,
            "extents": dict(self.extents),
            "batch": self.batch,
            "latency_s": self.latency_s,
            "period_s": self.period_s,
            "throughput": self.throughput,
            "energy_j": self.energy_j,
            "power_w": self.power_w,
            "busy": dict(self.busy),
            "bytes": dict(self.bytes),
            "bottleneck": self.bottleneck,
            "core_batch": self.core_batch,
            "chips": self.chips,
            "cores": self.cores,
            "working_set": self.working_set,
            "weights": self.weights,
            "spilled": self.spilled,
            "streamed": self.streamed,
            "layers": [
                {
                    "layer": layer.layer,
                    "op": layer.op,
                    "unit": layer.unit,
                    "precision": layer.precision,
                    "start_s": layer.start_s,
                    "end_s": layer.end_s,
                    "bottleneck": layer.bottleneck,
                    "busy_s": dict(layer.busy_s),
                    "work": layer.work.to_json(),
                    "bytes": dict(layer.bytes),
                    "energy_j": layer.energy_j,
                }
                for layer in self.layers
            ],
        }


def _group_events(group: _Core) -> Iterator[Event]:
    free: Times = IDLE
    for each, times in group.passes:
        for _ in range(times):
            spans, free = run(each.tasks, free)
            for task, span in zip(each.tasks, spans, strict=True):
                layer = each.steps[task.step].step.layer if task.step >= 0 else task.label
                yield Event(0, task.unit, layer, task.label, span.start, span.end, task.amount)


def estimate(
    table: WorkTable,
    target: Target,
    batch: int,
    extents: Mapping[str, int],
    options: Options | None = None,
    *,
    axis: str | None = "batch",
    itemsize: Mapping[str, int] | None = None,
    least: int = 1,
    most: int | None = None,
) -> Estimate:
    """
    What a batch of `batch` samples takes on `target`.

    `axis` is the extent that counts samples, and `extents` has all others; None for a program
    without one, whose pass is one sample. `itemsize` has the bytes of an element of the ports
    that are floating-point numbers, by name; a pass can have from `least` to `most` samples.
    Raises SpuError for a missing extent or a batch that is too small.
    """
    options = options or Options()
    if batch < least:
        raise SpuError(f"batch={batch} is too small", remedy=f"at least {least}")
    whole_chip = options.cores != "batch"
    parts = int(target.chip.cores.value) if whole_chip else 1
    per_chip = 1 if whole_chip else int(target.chip.cores.value)
    slots = int(target.card.chips.value) * per_chip  # Programs at work at the same time.
    used = min(slots, batch // least)
    chips = min(int(target.card.chips.value), used)
    busiest = ceil(used / chips)  # Programs on the chip with most.
    rates = Rates.of(target, chips, busiest * parts)
    planner = _Planner(
        table, rates, options, parts, dict(extents), axis, dict(itemsize or {}), least
    )

    share, more = divmod(batch, used)
    fullest = share + (more > 0)
    core_batch = planner.core_batch(min(fullest, most or fullest))
    shares = [(fullest, more or used)]
    if more:
        shares.append((share, used - more))
    groups = tuple((planner.core(each, core_batch), count) for each, count in shares)
    return _summary(
        groups, target, batch, options, planner, chips, parts if whole_chip else busiest
    )


@dataclass
class _Planner:
    """Plans the passes of cores, each once."""

    table: WorkTable
    rates: Rates
    options: Options
    parts: int
    extents: dict[str, int]
    axis: str | None
    itemsize: dict[str, int]
    least: int
    _known: dict[int, tuple[Pass, Matrix]] = field(default_factory=dict[int, tuple[Pass, Matrix]])

    def at(self, samples: int) -> dict[str, int]:
        """The extents of a pass of `samples` samples."""
        return self.extents if self.axis is None else {**self.extents, self.axis: samples}

    def plan(self, samples: int) -> tuple[Pass, Matrix]:
        """A pass of `samples` samples."""
        if samples not in self._known:
            at, real = self.at(samples), self.options.real
            each = plan_pass(
                self.table.steps(at, real),
                self.table.buffers(at, real),
                samples,
                self.rates,
                self.options,
                self.parts,
                self.itemsize,
            )
            self._known[samples] = each, matrix(each.tasks)
        return self._known[samples]

    def core_batch(self, share: int) -> int:
        """
        Samples of a pass: as asked for, else as many of `share` as L2 has room for.

        Room beside the weights, so that these stay; if not even one sample has that, room for
        buffers alone, so that weights are loaded for as many samples as can be.
        """
        if self.axis is None:
            return 1
        if self.options.core_batch is not None:
            return max(self.least, min(self.options.core_batch, share))
        low = self.least
        one = self.plan(low)[0].residence
        weights = one.weights if self._fits(low, one.weights) else 0
        return low + bisect_right(
            range(low + 1, share + 1), False, key=lambda n: not self._fits(n, weights)
        )

    def _fits(self, samples: int, weights: int) -> bool:
        """Whether the buffers of a pass have room in L2; those of more samples are no smaller."""
        buffers = self.table.buffers(self.at(samples), self.options.real)
        arena = sum(buffer.bytes for buffer in buffers if buffer.kind == "arena")
        return arena + self.options.copies(self.parts) * weights <= self.rates.l2 * self.parts

    def core(self, share: int, core_batch: int) -> _Core:
        """The passes over `share` samples, as even as they can be."""
        count = min(ceil(share / core_batch), share // self.least)
        size, more = divmod(share, count)
        found = [(size + 1, more), (size, count - more)]
        planned = [(self.plan(samples), times) for samples, times in found if times and samples]
        return _Core(
            passes=tuple((each, times) for (each, _), times in planned),
            matrices=tuple(m for (_, m), _ in planned),
        )


def _summary(
    groups: tuple[tuple[_Core, int], ...],
    target: Target,
    batch: int,
    options: Options,
    planner: _Planner,
    chips: int,
    cores: int,
) -> Estimate:
    costs = Costs.of(target)
    parts = planner.parts
    most = groups[0][0]
    interval = max(group.period for group, _ in groups)
    dynamic = sum(group.energy(costs, parts) * count for group, count in groups)
    programs = sum(count for _, count in groups)
    busy = dict.fromkeys(UNITS, 0.0)
    moved: dict[str, int] = {}
    for group, count in groups:
        for unit, seconds in group.busy().items():
            busy[unit] += seconds * count / programs / interval
        for each, times in group.passes:
            for done in (each.ports, *(step.done for step in each.steps)):
                for level, size in done.bytes.items():
                    moved[level] = moved.get(level, 0) + size * times * count * parts
    first = most.passes[0][0]
    joules = dynamic * ATTO + target.card.idle.value * interval
    return Estimate(
        target=target,
        options=options,
        extents=planner.at(first.samples),
        batch=batch,
        latency_s=max(group.latency for group, _ in groups),
        period_s=interval,
        throughput=batch / interval,
        energy_j=joules / batch,
        power_w=joules / interval,
        busy=busy,
        bytes=moved,
        dynamic_aj=dynamic,
        layers=_layers(first, costs, parts),
        core_batch=first.samples,
        chips=chips,
        cores=cores,
        working_set=first.residence.working_set,
        weights=first.residence.weights,
        spilled=first.residence.spilled,
        streamed=first.residence.streamed,
        _groups=groups,
    )


def _layers(first: Pass, costs: Costs, parts: int) -> tuple[LayerEstimate, ...]:
    spans, _ = run(first.tasks)
    start: dict[int, float] = {}
    end: dict[int, float] = {}
    for task, span in zip(first.tasks, spans, strict=True):
        if task.step >= 0 and task.label != "weights":  # Those come ahead of the layer.
            start[task.step] = min(span.start, start.get(task.step, span.start))
            end[task.step] = max(span.end, end.get(task.step, span.end))
    return tuple(
        _layer(each, start[place], end[place], costs, parts)
        for place, each in enumerate(first.steps)
    )


def _layer(each: Planned, start: float, end: float, costs: Costs, parts: int) -> LayerEstimate:
    limit = each.bottleneck
    step = each.step
    return LayerEstimate(
        layer=step.layer,
        op=step.op,
        unit=step.unit,
        precision=step.precision,
        start_s=start,
        end_s=end,
        bottleneck=f"{limit.unit} {limit.limit}" if limit else "",
        busy_s={unit: each.busy(unit) for unit in UNITS if each.busy(unit)},
        work=step.work,
        bytes=each.done.bytes,
        energy_j=parts * costs.energy(each.done, step.precision) * ATTO,
    )
