"""
Three figures that are easily taken for each other, and what the chosen card is modelled to do.

- *Weight sparsity* counts zeros among the weights of products and convolutions.
- *Effective MAC ratio* is the multiply-accumulates of the unpruned network over those that run:
  attention's products have no weights, and some layers stay dense, so it is less than the ratio
  that weights were pruned at.
- *Matmul time share* is the share of the time that goes to products. A footnote of the published
  table says that its "sparsity" is determined by this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .datasets import Feeds

if TYPE_CHECKING:
    from spu_ir.runtime.model import CompiledModel
    from spu_ir.schedule.estimate import Estimate, LayerEstimate

PROFILE_RUNS = 3

WINDOW = 10e-6
"""Seconds that power is averaged over: less has no meaning for the supply of a card."""


@dataclass(frozen=True)
class Modelled:
    """A card at work on batches that follow each other, by the device model; and its limit."""

    card: str
    batch: int
    qps: float
    latency: float
    """Seconds of one batch, on an idle card."""
    power: float
    """Watts on average."""
    peak_power: float
    """Watts over the busiest `WINDOW` of a pass, all cores in step."""
    tdp: float
    """Watts that the card is published to draw at most."""
    bottleneck: str

    @property
    def qps_per_watt(self) -> float:
        """At the average power."""
        return self.qps / self.power


def modelled(model: CompiledModel, target: str, batch: int) -> tuple[Modelled, float]:
    """
    What `target` does with batches of `batch`, and the share of its time that products take.

    Raises SpuError for a target that is not known.
    """
    found = model.estimate(target=target, batch=batch)
    figures = Modelled(
        card=found.target.name,
        batch=batch,
        qps=found.throughput,
        latency=found.latency_s,
        power=found.power_w,
        peak_power=peak_power(found),
        tdp=found.target.card.tdp.value,
        bottleneck=found.bottleneck,
    )
    return figures, covered(found.layers, "spu")


def peak_power(found: Estimate) -> float:
    """
    Watts of the card over the busiest `WINDOW` of a pass, or over all of a shorter one.

    Each step's energy is spread evenly over its time; steps of different units overlap.
    """
    layers = [layer for layer in found.layers if layer.end_s > layer.start_s]
    marks = np.unique([time for layer in layers for time in (layer.start_s, layer.end_s)])
    if marks.size < 2:
        return found.power_w
    used = np.zeros(marks.size)
    for layer in layers:
        used += np.interp(marks, (layer.start_s, layer.end_s), (0.0, layer.energy_j))
    window = min(WINDOW, float(marks[-1] - marks[0]))
    # Energy grows linearly between marks, so the busiest window starts or ends at one.
    starts = np.concatenate((marks, marks - window))
    joules = np.interp(starts + window, marks, used) - np.interp(starts, marks, used)
    at_work = found.chips * (found.cores if found.options.cores == "batch" else 1)
    return found.target.card.idle.value + at_work * float(joules.max()) / window


def covered(layers: tuple[LayerEstimate, ...], unit: str) -> float:
    """The share of a pass, from its first step to the end of its last, in which `unit` works."""
    spans = sorted((layer.start_s, layer.end_s) for layer in layers if layer.unit == unit)
    start = min((layer.start_s for layer in layers), default=0.0)
    end = max((layer.end_s for layer in layers), default=0.0)
    total, until = 0.0, start
    for first, last in spans:
        total += max(0.0, last - max(first, until))
        until = max(until, last)
    return total / (end - start) if end > start else 0.0


def mac_ratio(model: CompiledModel, batch: int) -> float:
    """Multiply-accumulates of the unpruned network over those that run; 1 if there are none."""
    extents = {extent.name: batch for extent in model.extents}
    work = model.work.total(extents)
    return work.dense_macs / work.macs if work.macs else 1.0


def host_share(model: CompiledModel, feeds: Feeds) -> float:
    """The share of a run's time on this machine that steps with products take, 0 to 1."""
    steps = model.profile(feeds, runs=PROFILE_RUNS).steps
    total = sum(step.host_s for step in steps)
    products = sum(step.host_s for step in steps if step.work.dense_macs)
    return products / total if total else 0.0
