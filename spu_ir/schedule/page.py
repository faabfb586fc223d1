"""
An estimate as one page of HTML: timeline, roofline, and what limits every layer.

The page needs no network and holds all of its data. What comes from the model, names above all,
is untrusted: it stands in a block of JSON in which no character ends a script, the page's script
writes it as text only, and a policy in the page's head runs no other script and loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spu_ir.schedule.estimate import Estimate, Event
from spu_ir.schedule.queues import UNITS
from spu_ir.schedule.roofline import roofline
from spu_ir.schedule.shares import kinds, longest, shares

_FILES = Path(__file__).parent
STYLE = "page.css"
SCRIPTS = ("page.js", "page_timeline.js", "page_roofline.js", "page_layers.js")

EVENTS = 5000
"""Of the timeline that a page draws, the earliest of the first core."""
LAYERS = 4000
"""Steps that a page lists, the longest ones."""
NAME = 160
"""Characters of a name; longer ones have an ellipsis in their middle."""
NAMES = 110_000
"""Characters of all names together: where there are very many, each may have fewer than `NAME`."""


def page_of(estimate: Estimate, title: str) -> str:
    """
    The page of an estimate of the model `title`: HTML of less than 2 MB.

    All cores in use do the same, so the timeline is the first one's, and of a batch with very many
    events it has the first `EVENTS`. The same estimate has the same page, byte for byte.
    """
    # "<" in a name must neither end the block of data nor begin a comment in it.
    data = re.sub(
        "[<>&\u2028\u2029\x7f-\x9f\ud800-\udfff]",
        lambda found: f"\\u{ord(found[0]):04x}",
        json.dumps(_data(estimate, title), separators=(",", ":"), ensure_ascii=False),
    )
    style = _read(STYLE)
    script = "\n".join(map(_read, SCRIPTS))
    parts = {
        "title": html.escape(f"{_short(title)} on {estimate.target.name}"),
        "policy": f"default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"script-src {_digest(script)}; style-src {_digest(style)}; img-src data: blob:",
        "style": style,
        "data": data,
        "script": script,
    }
    # In one go: what is filled in is not looked at again.
    return re.sub("{{([a-z]+)}}", lambda found: parts[found[1]], _read("page.html"))


def _read(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _data(estimate: Estimate, title: str) -> dict[str, Any]:
    e = estimate
    chosen = e.options
    names: dict[str, int] = {}
    pictures = {**_layers(e, names), "roofline": _roofline(e), "timeline": _timeline(e, names)}
    room = min(NAME, NAMES // max(1, len(names)))
    return {
        "title": _short(title),
        "target": e.target.name,
        "batch": e.batch,
        "extents": {_short(name): value for name, value in e.extents.items()},
        "cores": [e.chips, e.cores],
        "coreBatch": e.core_batch,
        "options": {
            "cores": chosen.cores,
            "zeros": chosen.zeros if isinstance(chosen.zeros, float | int) else "by layer",
            "wire": chosen.wire,
            "host": chosen.host,
            "real": chosen.real,
        },
        "throughput": e.throughput,
        "latency": e.latency_s,
        "energy": e.energy_j,
        "power": e.power_w,
        "tdp": e.target.card.tdp.value,
        "bottleneck": e.bottleneck,
        "busy": {unit: _digits(share) for unit, share in e.busy.items()},
        "bytes": dict(e.bytes),
        "kinds": {kind: _digits(share) for kind, share in shares(e.layers).items()},
        "units": UNITS,
        "names": [_short(name, room) for name in names],
        **pictures,
    }


def _layers(e: Estimate, names: dict[str, int]) -> dict[str, Any]:
    """
    The steps as rows, in the program's order; their places there are `places`.

    Of a name a row has the number in `names`, where it is put.
    """
    chosen = sorted(range(len(e.layers)), key=lambda n: -longest(e.layers[n]))[:LAYERS]
    found = kinds(e.layers)
    rows: list[list[Any]] = []
    for number in sorted(chosen):
        layer = e.layers[number]
        work = layer.work
        rows.append(
            [
                names.setdefault(layer.layer, len(names)),
                layer.op,
                layer.precision,
                found[number],
                layer.bottleneck,
                _digits(longest(layer)),
                work.macs,
                work.dense_macs,
                work.vector_ops,
                work.special_ops,
                layer.bytes.get("l2", 0),
                layer.bytes.get("ddr", 0),
                _digits(layer.energy_j),
            ]
        )
    return {
        "layers": rows,
        "places": sorted(chosen),
        "steps": len(e.layers),
        "total": _digits(sum(map(longest, e.layers))),
    }


def _roofline(e: Estimate) -> dict[str, Any]:
    line = roofline(e)
    return {
        "points": [
            [
                point.layer,
                _digits(point.macs),
                _digits(point.per_byte.get("l2", 0)),
                _digits(point.per_byte.get("ddr", 0)),
                _digits(point.roof),
            ]
            for point in line.points[:LAYERS]
        ],
        "ceilings": [[c.precision, c.ratio, c.macs] for c in line.ceilings],
        "bandwidth": line.bandwidth,
    }


def _timeline(e: Estimate, names: dict[str, int]) -> dict[str, Any]:
    """The first core's events in order of time, as rows; names are their numbers in `names`."""
    events = sorted(e.first_core, key=_start)
    shown = events[:EVENTS]
    units: Mapping[str, int] = {unit: place for place, unit in enumerate(UNITS)}
    rows = [
        [
            units[each.unit],
            names.setdefault(each.layer, len(names)),
            names.setdefault(each.label, len(names)),
            _nanoseconds(each.start_s),
            _nanoseconds(each.end_s - each.start_s),
            each.amount,
        ]
        for each in shown
    ]
    return {"events": rows, "of": len(events), "end": _end(shown)}


def _end(events: Iterable[Event]) -> float:
    return max((_nanoseconds(each.end_s) for each in events), default=0.0)


def _start(event: Event) -> float:
    return event.start_s


def _nanoseconds(seconds: float) -> float:
    return round(seconds * 1e9, 2)


def _digits(value: float) -> float:
    """Six digits: more than the model is worth, and a third of the bytes."""
    return float(f"{value:.6g}")


def _short(name: str, room: int = NAME) -> str:
    """The name, or both of its ends in `room` characters."""
    if len(name) <= room:
        return name
    end = room // 2
    return f"{name[: room - end - 1]}…{name[-end:]}"
