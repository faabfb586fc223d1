"""How near a compiled model comes to what the processor's registers could do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import numpy as np

from .compare_profile import Region
from .spu_peaks import Peaks

Layer: TypeAlias = Mapping[str, Any]
_SHAPES = re.compile(r"(?:\[(.*)\] -> )?\[(.*)\]")


class Ceilings:
    """
    The rates of loops in registers (MAC/s), as benchmarks.spu_matmul measures them.

    The best of all measurements counts, since the clock drifts and others use the processor.
    """

    def __init__(self, level: str, folder: Path):
        self.level = level
        self.peaks = Peaks(level, folder)
        self.dot: float | None = None
        self.pair: float | None = None
        self.measure()

    def measure(self) -> None:
        """Measure once more."""
        for name in ("dot", "pair"):
            again = self.peaks.rate(f"peak_{name}")
            if again is not None:
                setattr(self, name, max(again, getattr(self, name) or 0.0))

    def of(self, layer: Layer) -> float | None:
        """
        The ceiling of a product: of vpdpbusd alone if it is dense or an attention's, else of its
        pair with vpermb. None for other arithmetic than INT8. Weights two of whose lane groups
        share a permute can exceed it.
        """
        if layer["precision"] != "int8":
            return None
        return self.pair if str(layer["format"]).startswith(("banked", "ragged")) else self.dot


def useful(layer: Layer, extents: Mapping[str, int]) -> int | None:
    """
    Multiply-accumulates of a row of the model's report, with non-zero weights; None for other ops.

    An unknown dimension of the output is the batch, a second one the sequence. An attention's two
    products have no weights; its keys are as many as its rows, as in every model of the zoo.
    """
    match, density = _SHAPES.fullmatch(layer["shape"]), layer["density"]
    attention = layer["op"] == "spu.packed_attention"
    if match is None or (density is None and not attention):
        return None
    sizes = iter((extents["batch"], extents.get("seq", 1)))
    places = [next(sizes) if dim.strip() == "?" else int(dim) for dim in match.group(2).split(",")]
    if density is None:
        return 2 * int(np.prod(places)) * places[-2]
    weight = [int(dim) for dim in match.group(1).split(",")]
    return round(int(np.prod(weight)) * density) * int(np.prod(places[:-1]))


def least_seconds(
    layers: Sequence[Layer], extents: Mapping[str, int], ceilings: Ceilings
) -> float | None:
    """The time that all INT8 products, attention's too, would take at their ceilings."""
    total = 0.0
    for layer in layers:
        work, ceiling = useful(layer, extents), ceilings.of(layer)
        if work is not None and layer["precision"] == "int8":
            if ceiling is None:
                return None
            total += work / ceiling
    return total


def by_layer(
    regions: Sequence[Region],
    layers: Sequence[Layer],
    extents: Mapping[str, int],
    ceilings: Ceilings,
) -> list[dict[str, Any]]:
    """
    Seconds, work and fraction of the ceiling of every product and attention, in the report's order.
    """
    spent: dict[tuple[str, str], float] = {}
    for region in regions:
        for op in dict.fromkeys(region.ops):
            for layer in region.layers:
                spent[layer, op] = spent.get((layer, op), 0.0) + region.seconds
    found: list[dict[str, Any]] = []
    for layer in layers:
        work = useful(layer, extents)
        seconds = spent.get((layer["layer"], layer["op"]))
        if work is None or not seconds:
            continue
        ceiling = ceilings.of(layer)
        found.append(
            {
                "layer": layer["layer"],
                "op": layer["op"],
                "format": layer["format"],
                "seconds": seconds,
                "useful_macs": work,
                "of_ceiling": work / seconds / ceiling if ceiling else None,
            }
        )
    return found


def kinds(regions: Sequence[Region]) -> dict[str, float]:
    """Seconds by the kind of op, of regions that are not data movement alone."""
    found: dict[str, float] = {}
    for region in regions:
        # A region of a product also moves and rounds tiles: it counts as the product's.
        ops = sorted(region.ops, key=lambda op: (not op.startswith("spu."), op))
        kind = ops[0] if ops else "none"
        found[kind] = found.get(kind, 0.0) + region.seconds
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The median and the extremes of what products reach of their ceilings; empty without any."""
    found = [row["of_ceiling"] for row in rows if row["of_ceiling"] is not None]
    if not found:
        return {}
    return {"least": min(found), "median": median(found), "most": max(found)}
