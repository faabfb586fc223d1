"""The fields of a card that `spu-smi --query` knows, and their CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spu_ir.errors import SpuError
from spu_ir.tools.smi_state import CardState, ModelState, State

Value = int | float | str


@dataclass(frozen=True)
class Field:
    """One field: what it is and how it is read off a card; `rate` if it needs a window."""

    about: str
    of: Callable[[CardState], Value]
    rate: bool = False


FIELDS: dict[str, Field] = {
    "index": Field("device index", lambda card: card.device.index),
    "name": Field("the card's target", lambda card: card.device.name),
    "chips": Field("chips of the card", lambda card: card.device.chips),
    "temperature": Field("degrees Celsius, simulated", lambda card: round(card.temperature, 1)),
    "power.draw": Field("watts, simulated", lambda card: round(card.power, 2), rate=True),
    "power.cap": Field("watts", lambda card: card.power_cap),
    "memory.used": Field("bytes, of all chips", lambda card: card.memory_used),
    "memory.free": Field("bytes, of all chips", lambda c: c.memory_total - c.memory_used),
    "memory.total": Field("bytes, of all chips", lambda card: card.memory_total),
    "chip.memory.used": Field("bytes, of each chip", lambda card: card.chip_memory_used),
    "chip.memory.total": Field("bytes, of each chip", lambda card: card.device.chip_memory),
    "utilisation.spu": Field(
        "percent of time, simulated", lambda card: _percent(card, "spu"), rate=True
    ),
    "utilisation.vpu": Field(
        "percent of time, simulated", lambda card: _percent(card, "vpu"), rate=True
    ),
    "utilisation.codec": Field(
        "percent of time, simulated", lambda card: _percent(card, "codec"), rate=True
    ),
    "processes": Field(
        "processes with a model on the card", lambda c: len({m.process for m in c.models})
    ),
    "models": Field("models on the card", lambda card: len(card.models)),
    "runs": Field("runs of the models on it now", lambda c: sum(m.row.runs for m in c.models)),
    "samples": Field("samples of these runs", lambda c: sum(m.row.samples for m in c.models)),
    "runs.rate": Field(
        "runs a second", lambda c: round(sum(m.runs_rate for m in c.models), 3), rate=True
    ),
    "samples.rate": Field(
        "samples a second", lambda c: round(sum(m.samples_rate for m in c.models), 3), rate=True
    ),
    "energy": Field(
        "joules above idle of these runs, simulated",
        lambda c: round(sum(m.row.energy_j for m in c.models), 6),
    ),
}
"""By name."""


def parse_fields(text: str) -> list[str]:
    """The names of a comma-separated list. Raises SpuError for one that there is not."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in FIELDS:
            raise SpuError(f"there is no field {name!r}", remedy="spu-smi --help-query lists all")
    return names


def values(card: CardState, names: Sequence[str]) -> dict[str, Value]:
    """Fields of a card, by name."""
    return {name: FIELDS[name].of(card) for name in names}


def csv_text(state: State, names: Sequence[str], *, header: bool = True) -> str:
    """A line a card, below one of names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(names)
    for card in state.cards:
        writer.writerow(values(card, names).values())
    return text.getvalue()


def json_text(state: State, names: Sequence[str], indent: int | None) -> str:
    """A list of cards as JSON."""
    return json.dumps([values(card, names) for card in state.cards], indent=indent) + "\n"


def everything(state: State) -> dict[str, object]:
    """All there is, as `--json` prints it."""
    return {
        "simulated": ["temperature", "power.draw", "utilisation", "energy"],
        "window_s": round(state.window, 6),
        "problem": state.problem,
        "cards": [
            values(card, list(FIELDS)) | {"running": [model(one) for one in card.models]}
            for card in state.cards
        ],
        "elsewhere": [model(one) for one in state.elsewhere],
    }


def model(one: ModelState) -> dict[str, Value]:
    """A model and its process."""
    row = one.row
    return {
        "pid": one.process.pid,
        "program": one.program,
        "model": row.name,
        "device": row.device,
        "card": row.card,
        "chip.memory.used": row.memory,
        "runs": row.runs,
        "samples": row.samples,
        "runs.modelled": row.modelled,
        "runs.rate": round(one.runs_rate, 3),
        "samples.rate": round(one.samples_rate, 3),
        "utilisation.spu": _share(one.spu),
        "utilisation.vpu": _share(one.vpu),
        "utilisation.codec": _share(one.codec),
        "energy": round(row.energy_j, 6),
    }


def _percent(card: CardState, unit: str) -> float:
    return _share(card.utilisation(unit))


def _share(share: float) -> float:
    return round(100 * share, 3)
