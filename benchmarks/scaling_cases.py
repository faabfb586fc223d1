"""What the scaling benchmark varies: batch, ratio, and the real length of padded inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from .compare_cases import Subject
from .fidelity_cases import Feeds

Sweep: TypeAlias = Literal["batch", "ratio", "padding"]
Padding: TypeAlias = Literal["compute", "skip"]

SWEEPS: tuple[Sweep, ...] = ("batch", "ratio", "padding")
MODELS = ("bert", "resnet50", "conformer")
BATCHES = (1, 2, 4, 8, 16)
RATIOS = (2, 4, 8, 16, 32)
RATIO = 16
"""Of the sweeps over other things."""
PARTS = 8
"""In so many steps the real length grows to that of the whole input."""


@dataclass(frozen=True)
class Point:
    """One package on one input."""

    x: int
    """What is varied: the batch, the ratio, or the real positions."""
    ratio: int = RATIO
    batch: int = 1
    padding: Padding = "compute"
    real: int | None = None
    """The real positions of every sample, from the left; None for all of them."""


def points(
    sweep: Sweep,
    subject: Subject,
    batches: Sequence[int] = BATCHES,
    ratios: Sequence[int] = RATIOS,
    parts: int = PARTS,
) -> list[Point]:
    """What is measured of a subject; no padding of a model that has no mask."""
    if sweep == "batch":
        return [Point(batch, batch=batch) for batch in batches]
    if sweep == "ratio":
        return [Point(ratio, ratio=ratio) for ratio in ratios]
    width = positions(subject)
    if width is None:
        return []
    lengths = [max(1, round(width * part / parts)) for part in range(1, parts + 1)]
    kinds: tuple[Padding, ...] = ("skip", "compute")
    return [Point(real, padding=kind, real=real) for kind in kinds for real in lengths]


def positions(subject: Subject) -> int | None:
    """How many positions its mask has; None without a mask."""
    real = subject.case.real(subject.feeds(1))
    return None if real is None else real.shape[1]


def feeds(subject: Subject, point: Point) -> Feeds:
    """The inputs of a point: all real but for what it has as padding, on the right."""
    found = subject.feeds(point.batch)
    if point.real is None:
        return found
    padding = getattr(subject.case.model.config, "pad_token_id", 0)
    for name, array in found.items():
        if name == "src_pad_mask":
            array[:, point.real :] = np.True_
        elif array.dtype == np.int64:
            array[:, point.real :] = padding if name.startswith("input_ids") else 0
    return found
