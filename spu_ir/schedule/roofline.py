"""
The roofline of a card: how many multiply-accumulates a second it can do for every byte moved.

After Williams, Waterman and Patterson, "Roofline", 2009. Multiply-accumulates are those of the
unpruned model, so that sparsity raises the ceiling instead of moving the points: at a ratio of r
the SPUs do r of them in a slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

from spu_ir.schedule.estimate import Estimate, LayerEstimate
from spu_ir.schedule.planned import PRODUCTS
from spu_ir.schedule.rates import Rates
from spu_ir.schedule.shares import longest

LEVELS = ("l2", "ddr")


@dataclass(frozen=True)
class Ceiling:
    """A rate of all SPUs of a card in use, in unpruned multiply-accumulates a second."""

    precision: str
    """`int8` or `bf16`."""
    ratio: int
    """The sparsity that it is for: one weight in `ratio`."""
    macs: float


@dataclass(frozen=True)
class Point:
    """A step that multiplies."""

    layer: int
    """Its place in `Estimate.layers`."""
    macs: float
    """Unpruned multiply-accumulates a second, on all cores in use."""
    per_byte: dict[str, float]
    """Unpruned multiply-accumulates for a byte, by level; without levels that it does not use."""
    roof: float
    """What the SPUs could do of it in a second, at its own sparsity."""


@dataclass(frozen=True)
class Roofline:
    """Points and the lines above them; `bandwidth` is in bytes a second, by level."""

    points: tuple[Point, ...]
    ceilings: tuple[Ceiling, ...]
    bandwidth: dict[str, float]


def roofline(estimate: Estimate) -> Roofline:
    """
    The roofline of the cores in use, and every step that multiplies as a point.

    A step takes as long as its busiest unit, or as its bytes to and from DDR; so a point touches
    the ceiling of what limits it, and is below all where that is the VPU or an epilogue.
    """
    rates = Rates.of(estimate.target, estimate.chips, estimate.cores)
    cores = estimate.chips * estimate.cores
    peaks = {name: rates.macs[name] * cores for name in ("int8", "bf16")}
    bandwidth = {"l2": rates.l2_bandwidth * cores, "ddr": rates.ddr * cores}
    parts = 1 if estimate.options.cores == "batch" else estimate.cores
    points: list[Point] = []
    lines = {("int8", 1): peaks["int8"], ("bf16", 1): peaks["bf16"]}
    for number, layer in enumerate(estimate.layers):
        unpruned = layer.work.dense_macs / parts
        seconds = max(longest(layer), layer.bytes.get("ddr", 0) / rates.ddr)
        ratio = _ratio(layer, estimate)
        if not unpruned or not seconds or ratio is None:
            continue
        precision = "int8" if layer.precision == "int8" else "bf16"
        nominal = 2 ** max(0, round(log2(ratio)))
        lines[precision, nominal] = peaks[precision] * nominal
        points.append(
            Point(
                layer=number,
                macs=cores * unpruned / seconds,
                per_byte={k: unpruned / layer.bytes[k] for k in LEVELS if layer.bytes.get(k)},
                roof=peaks[precision] * ratio,
            )
        )
    ceilings = (Ceiling(*key, macs) for key, macs in lines.items())
    return Roofline(
        tuple(points), tuple(sorted(ceilings, key=lambda c: (c.precision, c.ratio))), bandwidth
    )


def _ratio(layer: LayerEstimate, estimate: Estimate) -> float | None:
    """Unpruned multiply-accumulates for each that the SPU does; None where it does none."""
    skipped = estimate.options.zero_share(layer.layer) if layer.op in PRODUCTS else 0.0
    done = layer.work.macs - int(layer.work.macs * skipped)
    return layer.work.dense_macs / done if done else None
