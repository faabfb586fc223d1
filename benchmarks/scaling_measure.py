"""Measures all points of a sweep in turns, each in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import numpy as np

import spu_ir
from spu_ir.runtime.package import read_package
from spu_ir.schedule.work import WorkTable

from .compare_cases import Subject
from .compare_engines import ENVIRONMENT
from .compare_measure import Plan, Progress, profiled
from .compare_process import Process
from .compare_recipes import compiler
from .scaling_cases import Point, Sweep, feeds

Row: TypeAlias = dict[str, Any]
PRODUCTS = ("spu.matmul", "spu.conv")


@dataclass(frozen=True)
class Build:
    """A compiled package, and what its report and its table of work say."""

    path: Path
    digest: str
    sparse: frozenset[str]
    """The layers whose weights are in the sparse format."""
    work: WorkTable


class Builder:
    """Compiles every package once, in a folder where a later run finds it again."""

    def __init__(self, place: Path, progress: Progress):
        self.place, self.progress = place, progress
        self.sources = sources()
        self.found: dict[tuple[str, int, str], Build] = {}

    def build(self, subject: Subject, point: Point) -> Build:
        """The package of a point."""
        key = subject.name, point.ratio, point.padding
        if key not in self.found:
            self.found[key] = self._build(subject, point)
        return self.found[key]

    def path(self, subject: Subject, point: Point) -> Path:
        """Where the package of a point is: named after all that it is made by."""
        config = repr((subject.case.model.config, subject.seq, point.ratio)).encode()
        digest = hashlib.sha256(self.sources + config).hexdigest()[:16]
        return self.place / f"{subject.name}-{point.ratio}-{point.padding}-{digest}.spu"

    def _build(self, subject: Subject, point: Point) -> Build:
        path = self.path(subject, point)
        if not path.exists():
            self.progress(f"{subject.name} {point.ratio}x, padding={point.padding}: compile")
            compiled = spu_ir.compile(
                subject.build(point.ratio),
                threads=1,
                padding=point.padding,
                **subject.options(),
            )
            compiled.save(path, levels=[compiled.level])
        package = read_package(path)
        sparse = frozenset(
            str(row["layer"])
            for row in package.report
            if row["op"] in PRODUCTS and str(row["format"]).startswith(("banked", "ragged"))
        )
        return Build(path, _digest(path), sparse, WorkTable.from_json(package.work))


def sources() -> bytes:
    """The digest of the compiler, the zoo's included, and the text of what it is asked for."""
    here = Path(__file__)
    names = ("fidelity_cases", "compare_cases", "ratios")
    texts = (here.with_name(f"{name}.py").read_bytes() for name in names)
    return b"".join([compiler().encode(), *texts])


def _digest(path: Path) -> str:
    return str(json.loads((path / "manifest.json").read_text(encoding="ascii"))["digest"])


def measure(
    sweep: Sweep, subject: Subject, points: Sequence[Point], plan: Plan, builder: Builder
) -> list[Row]:
    """
    A row for every kind of padding among the points, with its points in order.

    Seconds are the median of the rounds' medians; `macs` those that the package's table of work
    has of the layers that are pruned in any of the packages.
    """
    builds = [builder.build(subject, point) for point in points]
    sparse = frozenset[str]().union(*(build.sparse for build in builds))
    title = f"{subject.name}, {sweep}"
    with ExitStack() as stack:
        processes: list[Process] = []
        rounds: list[list[list[float]]] = []
        paths: list[Path] = []
        for number, (point, build) in enumerate(zip(points, builds, strict=True)):
            paths.append(builder.place / f"{subject.name}-{sweep}-{number}.npz")
            np.savez(paths[-1], allow_pickle=False, **feeds(subject, point))
            affinity = plan.affinity(1)
            process = Process(Path(sys.executable), "spu", affinity, ENVIRONMENT, plan.policy)
            processes.append(stack.enter_context(process))
            process.ask("load", model=str(build.path), feeds=str(paths[-1]), threads=1)
            rounds.append([])
        for turn in range(plan.rounds):
            builder.progress(f"{title}: round {turn + 1} of {plan.rounds}")
            # Each round starts with another point: none always follows the same one.
            for place in range(len(points)):
                each = (place + turn) % len(points)
                answer = processes[each].ask("time", seconds=plan.seconds, hint="latency")
                rounds[each].append(answer["seconds"])
    rest: float | None = None
    if sweep == "ratio":
        builder.progress(f"{title}: everything but sparse products")
        rest = _rest(builds[-1].path, paths[-1], sparse, plan.processors[0])
    found: list[Row] = []
    for padding in dict.fromkeys(point.padding for point in points):
        chosen = [
            _point(subject, point, build, times, sparse)
            for point, build, times in zip(points, builds, rounds, strict=True)
            if point.padding == padding
        ]
        row: Row = {"sweep": sweep, "model": subject.name, "padding": padding}
        row |= {"size": subject.size, "points": chosen, "loadavg": os.getloadavg()[0]}
        found.append(row | ({} if sweep != "ratio" else {"rest_seconds": rest}))
    return found


def _point(
    subject: Subject, point: Point, build: Build, rounds: list[list[float]], sparse: frozenset[str]
) -> Row:
    medians = [median(times) for times in rounds]
    real = None if point.real is None else [point.real] * point.batch
    steps = build.work.steps(subject.extents(point.batch), real if build.work.masks else None)
    return {
        "x": point.x,
        "ratio": point.ratio,
        "batch": point.batch,
        "seconds": median(medians),
        "least_seconds": min(map(min, rounds)),
        "rounds": medians,
        "runs": sum(map(len, rounds)),
        "macs": sum(
            step.work.macs for step in steps if step.op in PRODUCTS and step.layer in sparse
        ),
        "package": build.digest,
    }


def _rest(package: Path, inputs: Path, sparse: frozenset[str], processor: int) -> float | None:
    """Seconds of the regions that are not products of `sparse` layers, timed one by one."""
    regions = profiled(package, inputs, processor)
    if regions is None:
        return None
    return sum(
        region.seconds
        for region in regions
        if not (set(region.ops) & set(PRODUCTS) and set(region.layers) & sparse)
    )
