"""
The state of the cards over a short time, from what the processes on them publish.

Busy time and energy are those of the schedule model, for the work that really ran: a card is as
busy as the silicon would be with the load that this machine manages to give it. Temperature is a
first-order model: it follows the power with the time constant HEAT_SECONDS, from AMBIENT with no
power to HOTTEST at the card's cap.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

from spu_ir.errors import SpuError
from spu_ir.runtime.cards import Device, devices
from spu_ir.runtime.cards_folder import Process, usable_folder
from spu_ir.runtime.cards_layout import Row
from spu_ir.runtime.cards_reader import Published, read_all
from spu_ir.runtime.cards_state import HEAT_SECONDS

AMBIENT, HOTTEST = 30.0, 80.0
"""Degrees Celsius of a card without power, and of one that has long drawn all that it may."""


@dataclass(frozen=True)
class Reading:
    """What was published at a time of CLOCK_MONOTONIC; `problem` is why nothing could be read."""

    at: float
    published: tuple[Published, ...]
    problem: str | None = None


@dataclass(frozen=True)
class ModelState:
    """
    A model on a card: its process, its counters, and what it did a second of the time looked at.

    `spu`, `vpu` and `codec` are shares of the card's time, not limited to 1.
    """

    process: Process
    program: str
    row: Row
    runs_rate: float = 0.0
    samples_rate: float = 0.0
    spu: float = 0.0
    vpu: float = 0.0
    codec: float = 0.0
    power: float = 0.0
    """Watts above idle."""


@dataclass(frozen=True)
class CardState:
    """A card and the models on it."""

    device: Device
    models: tuple[ModelState, ...]
    at: float

    @property
    def chip_memory_used(self) -> int:
        """Bytes taken on each chip: the models that are placed are so on all chips alike."""
        return sum(model.row.memory for model in self.models)

    @property
    def memory_used(self) -> int:
        """Bytes taken on all chips."""
        return self.chip_memory_used * self.device.chips

    @property
    def memory_total(self) -> int:
        """Bytes of all chips."""
        return self.device.chip_memory * self.device.chips

    @property
    def power_cap(self) -> float:
        """Watts that it may draw."""
        return self.device.target.card.tdp.value

    @property
    def power(self) -> float:
        """Watts: idle, and what the models on it take above; a card stays below its cap."""
        idle = self.device.target.card.idle.value
        return min(idle + sum(model.power for model in self.models), self.power_cap)

    @property
    def temperature(self) -> float:
        """Degrees Celsius."""
        heat = sum(
            row.heat_j * exp(min(row.heat_at - self.at, 0) / HEAT_SECONDS)
            for row in (model.row for model in self.models)
        )
        power = self.device.target.card.idle.value + heat / HEAT_SECONDS
        return AMBIENT + (HOTTEST - AMBIENT) * min(power / self.power_cap, 1)

    def utilisation(self, unit: str) -> float:
        """The share of time, 0 to 1, that all units of a kind ("spu", "vpu", "codec") are busy."""
        return min(sum(getattr(model, unit) for model in self.models), 1.0)


@dataclass(frozen=True)
class State:
    """All cards that SPU_IR_DEVICES lists."""

    cards: tuple[CardState, ...]
    window: float
    """Seconds that rates are over; 0 if there are none."""
    elsewhere: tuple[ModelState, ...]
    """Models on cards that other processes' SPU_IR_DEVICES lists."""
    problem: str | None

    def only(self, index: int) -> State:
        """The same with one card. Raises SpuError if there is no such card."""
        if index not in range(len(self.cards)):
            listed = ", ".join(str(card.device.index) for card in self.cards) or "none"
            raise SpuError(f"there is no device {index}", remedy=f"there are: {listed}")
        return State((self.cards[index],), self.window, (), self.problem)


def read() -> Reading:
    """What is published now."""
    try:
        folder = usable_folder()
    except SpuError as error:
        return Reading(time.monotonic(), (), str(error))
    published = tuple(read_all(folder))
    return Reading(time.monotonic(), published)


def state(before: Reading | None, now: Reading) -> State:
    """
    The cards at `now`, with rates over the time since `before`; None for no rates.

    Raises SpuError if SPU_IR_DEVICES lists a target that there is not.
    """
    window = 0.0 if before is None else now.at - before.at
    earlier = {} if before is None else _rows(before.published)
    models = [
        _model(one, row, earlier.get((one.process, row.identity)), window)
        for one in now.published
        for row in one.models
    ]
    cards = tuple(
        CardState(device, tuple(model for model in models if _is_on(model, device)), now.at)
        for device in devices()
    )
    here = {(card.device.index, card.device.name) for card in cards}
    elsewhere = tuple(model for model in models if (model.row.device, model.row.card) not in here)
    return State(cards, window, elsewhere, now.problem)


def _rows(published: Sequence[Published]) -> dict[tuple[Process, int], Row]:
    return {(one.process, row.identity): row for one in published for row in one.models}


def _is_on(model: ModelState, device: Device) -> bool:
    return (model.row.device, model.row.card) == (device.index, device.name)


def _model(one: Published, row: Row, before: Row | None, window: float) -> ModelState:
    if window <= 0:
        return ModelState(one.process, one.program, row)

    def rate(name: str) -> float:
        # A model that was not there before began at 0.
        since = 0 if before is None else getattr(before, name)
        return (getattr(row, name) - since) / window

    return ModelState(
        one.process,
        one.program,
        row,
        runs_rate=rate("runs"),
        samples_rate=rate("samples"),
        spu=rate("spu_s"),
        vpu=rate("vpu_s"),
        codec=rate("codec_s"),
        power=rate("energy_j"),
    )
