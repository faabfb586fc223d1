"""Where the time of an estimate goes: by kind of step, and by steps that are alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from spu_ir.schedule.estimate import LayerEstimate
from spu_ir.schedule.planned import WHOLE_SAMPLES

KINDS: tuple[str, ...] = ("first layer", "other products", "attention", "VPU", "copies")


def longest(layer: LayerEstimate) -> float:
    """Seconds that the busiest unit is at work with a step."""
    return max(layer.busy_s.values(), default=0.0)


def kinds(layers: Iterable[LayerEstimate]) -> list[str]:
    """Which of `KINDS` each step is, in the program's order; the first product is its own."""
    found: list[str] = []
    first = True
    for layer in layers:
        if layer.op in WHOLE_SAMPLES:
            found.append("attention")
        elif layer.unit == "spu":
            found.append("first layer" if first else "other products")
        else:
            found.append("VPU" if layer.unit == "vpu" else "copies")
        first = first and layer.unit != "spu"
    return found


def shares(layers: Sequence[LayerEstimate]) -> dict[str, float]:
    """
    The share of each kind in the sum of all steps' times, each as long as its busiest unit takes.

    What Amdahl's law is about: a kind of share s caps the gain from all others at 1 / s. All are
    0 where nothing takes any time.
    """
    times = dict.fromkeys(KINDS, 0.0)
    for kind, layer in zip(kinds(layers), layers, strict=True):
        times[kind] += longest(layer)
    total = sum(times.values())
    return {kind: time / total if total else 0.0 for kind, time in times.items()}


@dataclass(frozen=True)
class Group:
    """Steps that do the same work in the same time, under the name of the first."""

    layers: tuple[LayerEstimate, ...]
    seconds: float
    """Of all of them, each as long as its busiest unit takes."""
    share: float
    """Of the seconds of all steps."""

    @property
    def first(self) -> LayerEstimate:
        return self.layers[0]

    def to_json(self) -> dict[str, Any]:
        """The group as JSON, with sums over its steps."""
        one = self.first
        return {
            "layer": one.layer,
            "op": one.op,
            "precision": one.precision,
            "bottleneck": one.bottleneck,
            "alike": len(self.layers),
            "seconds": self.seconds,
            "share": self.share,
            "macs": sum(each.work.macs for each in self.layers),
            "dense_macs": sum(each.work.dense_macs for each in self.layers),
            "bytes": {level: self.bytes(level) for level in one.bytes},
            "energy_j": sum(each.energy_j for each in self.layers),
        }

    def bytes(self, level: str) -> int:
        """Bytes that all of the steps move at a level."""
        return sum(each.bytes.get(level, 0) for each in self.layers)


def alike(layers: Sequence[LayerEstimate]) -> list[Group]:
    """The steps grouped by what they do and how long that takes, the longest group first."""
    total = sum(map(longest, layers))
    found: dict[tuple[object, ...], list[LayerEstimate]] = {}
    for layer in layers:
        key = (
            layer.op,
            layer.precision,
            layer.bottleneck,
            layer.work.dense_macs,
            f"{longest(layer):.9g}",
        )
        found.setdefault(key, []).append(layer)
    groups: list[Group] = []
    for each in found.values():
        seconds = len(each) * longest(each[0])  # Equal totals stay in the program's order.
        groups.append(Group(tuple(each), seconds, seconds / total if total else 0.0))
    return sorted(groups, key=lambda group: -group.seconds)
