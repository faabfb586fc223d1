"""
The timeline of an estimate as a trace: what chrome://tracing and ui.perfetto.dev open.

The format is the JSON object form of the Trace Event Format: a process for each core of the card,
a thread for each of its units, complete events in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spu_ir.schedule.estimate import Estimate
from spu_ir.schedule.queues import UNITS

AMOUNTS = {"spu": "multiply-accumulates", "vpu": "operations", "sfu": "operations"}
"""What a unit's amount counts; bytes where it is not said."""

PARTS = 4096
"""Of a microsecond: a power of two, so that sums of times are exact and events do not overlap."""


def trace_of(estimate: Estimate) -> dict[str, Any]:
    """
    One batch on an idle card, as a JSON object that `json.dump` writes.

    `traceEvents` has metadata first, then events in order of time within each thread. Timestamps
    are microseconds since the batch's first byte on the host link, to a quarter of a nanosecond.
    """
    return {
        "traceEvents": list(_events(estimate)),
        "displayTimeUnit": "ns",
        "otherData": {
            "target": estimate.target.name,
            "batch": estimate.batch,
            "extents": {name: str(value) for name, value in estimate.extents.items()},
            "note": "modelled time of the card, not measured",
        },
    }


def _events(estimate: Estimate) -> Iterator[dict[str, Any]]:
    timeline = estimate.timeline
    places = {unit: number for number, unit in enumerate(UNITS)}
    for core in sorted({event.core for event in timeline}):
        process, first = _numbers(core, 0)
        yield _metadata("process_name", process, first, {"name": f"core {core}"})
        yield _metadata("process_sort_index", process, first, {"sort_index": core})
        for unit, place in places.items():
            _, thread = _numbers(core, place)
            yield _metadata("thread_name", process, thread, {"name": unit})
            yield _metadata("thread_sort_index", process, thread, {"sort_index": place})
    for event in sorted(timeline, key=lambda e: (e.core, places[e.unit], e.start_s)):
        start = _microseconds(event.start_s)
        process, thread = _numbers(event.core, places[event.unit])
        yield {
            "name": event.layer or event.label,
            "cat": event.unit,
            "ph": "X",
            "ts": start,
            "dur": _microseconds(event.end_s) - start,
            "pid": process,
            "tid": thread,
            "args": {"op": event.label, AMOUNTS.get(event.unit, "bytes"): event.amount},
        }


def _numbers(core: int, place: int) -> tuple[int, int]:
    """Of a process and a thread: from 1, as 0 is the idle one's, and no thread in two processes."""
    return core + 1, core * len(UNITS) + place + 1


def _microseconds(seconds: float) -> float:
    return round(seconds * 1e6 * PARTS) / PARTS


def _metadata(name: str, process: int, thread: int, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "ph": "M", "pid": process, "tid": thread, "args": arguments}
