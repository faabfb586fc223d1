"""Measures engines in turns: every round, each of them works for a moment while the rest stand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import numpy as np

from spu_ir.errors import SpuError

from .compare_cases import LINES
from .compare_engines import ENVIRONMENT
from .compare_process import ROOT, EngineError, Policy, Process, one_line
from .compare_profile import Region
from .compare_recipes import Maker, Variant
from .compare_roofline import Ceilings, by_layer, kinds, least_seconds, summary
from .fidelity_cases import Array
from .fidelity_ort import outputs_of
from .ratios import Ratio

Row: TypeAlias = dict[str, Any]
Progress: TypeAlias = Callable[[str], None]
PROFILED_RUNS = 20


@dataclass(frozen=True)
class Plan:
    """How long is measured, and on which processors."""

    rounds: int = 5
    seconds: float = 0.5
    """Of one engine in one round, at least one run."""
    policy: Policy = "normal"
    processors: tuple[int, ...] = tuple(sorted(os.sched_getaffinity(0)))

    def affinity(self, threads: int) -> tuple[int, ...]:
        """The processors of a run. Raises SpuError if there are too few."""
        if threads > len(self.processors):
            raise SpuError(
                f"{threads} threads need as many processors, and there are {len(self.processors)}",
                remedy="ask for fewer --threads",
            )
        return self.processors[:threads]


@dataclass
class Running:
    """A worker that has loaded a variant, and what is known of it so far."""

    variant: Variant
    process: Process
    row: Row


class Group:
    """One model at one ratio, batch and number of threads, on all variants."""

    def __init__(self, maker: Maker, batch: int, threads: int, plan: Plan, progress: Progress):
        self.maker, self.batch, self.threads = maker, batch, threads
        self.plan, self.progress = plan, progress

    def row(self, variant: Variant) -> Row:
        """What identifies a measurement."""
        return {
            "model": self.maker.subject.name,
            "ratio": self.maker.ratio,
            "batch": self.batch,
            "threads": self.threads,
            "engine": variant.engine,
            "form": variant.form,
            "format": variant.format,
        }

    @property
    def hint(self) -> str:
        return "latency" if self.batch == 1 else "throughput"

    def measure(self, variants: Sequence[Variant], want: Mapping[str, Array]) -> list[Row]:
        """A row for every variant; one that was refused has the key `unavailable`."""
        rows: list[Row] = []
        with ExitStack() as stack:
            running: list[Running] = []
            for variant in variants:
                row = self.row(variant)
                rows.append(row)
                try:
                    running.append(self.start(variant, row, want, stack))
                except (EngineError, SpuError) as error:
                    place = f"{self.maker.folder}/"
                    row["unavailable"] = one_line(str(error).replace(place, ""))
                    self.progress(f"{variant.engine} {variant.form}: {row['unavailable']}")
            for number in range(self.plan.rounds):
                self.progress(f"round {number + 1} of {self.plan.rounds}")
                # Each round starts with another engine: none always follows the same one.
                for each in rotated(running, number):
                    self.turn(each)
            for each in running:
                if "unavailable" not in each.row:
                    self.finish(each)
        return rows

    def start(
        self, variant: Variant, row: Row, want: Mapping[str, Array], stack: ExitStack
    ) -> Running:
        """Make the variant's files, load it in a process, and hold its answer against `want`."""
        self.progress(f"{variant.engine} {variant.form}: make")
        try:
            made = variant.make(self.maker)
        except (EngineError, SpuError):
            raise
        except Exception as error:
            # Quantisers raise what they like; that they refuse a model is a finding.
            raise EngineError(f"{type(error).__name__}: {error}") from error
        path = made if isinstance(made, str) else made[self.batch]
        python = self.maker.pythons[variant.engine]
        self.progress(f"{variant.engine} {variant.form}: load")
        affinity = self.plan.affinity(self.threads)
        process = stack.enter_context(
            Process(python, variant.engine, affinity, ENVIRONMENT, self.plan.policy)
        )
        row |= process.ask(
            "load",
            model=path,
            feeds=str(self.maker.feeds(self.batch)),
            batch=self.batch,
            threads=self.threads,
            extents=self.maker.subject.extents(self.batch),
            hint=self.hint,
            options=dict(variant.options),
        )
        outputs = self.maker.path("outputs.npz")
        process.ask("run", outputs=str(outputs))
        feeds = self.maker.subject.feeds(self.batch)
        with np.load(outputs) as archive:
            got = {name: archive[name] for name in archive.files}
        row["error"] = agreement(self.maker, got, want, feeds)
        row["wrong"] = not row["error"] <= LINES[variant.format]
        row["rounds"] = []
        return Running(variant, process, row)

    def turn(self, each: Running) -> None:
        """One engine's part of a round; an engine that breaks down is left out from then on."""
        if "unavailable" in each.row:
            return
        try:
            found = each.process.ask("time", seconds=self.plan.seconds, hint=self.hint)
        except EngineError as error:
            each.row["unavailable"] = str(error)
            return
        each.row["rounds"].append(found["seconds"])

    def finish(self, each: Running) -> None:
        """Medians of the rounds, and memory."""
        rounds = each.row["rounds"]
        each.row |= each.process.ask("memory")
        each.row["rounds"] = [median(found) for found in rounds]
        each.row["runs"] = sum(map(len, rounds))
        each.row["seconds"] = median(each.row["rounds"])
        each.row["least_seconds"] = min(map(min, rounds))
        each.row["throughput"] = self.batch / each.row["seconds"]
        each.row["loadavg"] = os.getloadavg()[0]


def agreement(
    maker: Maker, got: Mapping[str, Array], want: Mapping[str, Array], feeds: Any
) -> float:
    """The relative L2 error of all outputs; infinite if one is missing or misshapen."""
    if any(name not in got or got[name].shape != want[name].shape for name in want):
        return float("inf")
    return maker.subject.case.error(got, want, feeds)


def rotated(items: Sequence[Running], number: int) -> list[Running]:
    """`items` from another one on."""
    start = number % len(items) if items else 0
    return [*items[start:], *items[:start]]


def reference(maker: Maker, batch: int) -> dict[str, Array]:
    """FP32 answers of ONNX Runtime; computed once and kept beside the model."""
    path = maker.path(f"answers-{batch}.npz")
    if not path.exists():
        answers = outputs_of(maker.proto, maker.subject.feeds(batch))
        np.savez(path, allow_pickle=False, **answers)
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def best_variants(rows: Sequence[Row], variants: Sequence[Variant]) -> list[Variant]:
    """The INT8 variant of each engine that stands for it: the fastest whose answers are right."""
    found: dict[str, tuple[tuple[bool, float], Variant]] = {}
    for row, variant in zip(rows, variants, strict=True):
        if variant.format == "int8" and "seconds" in row:
            # Wrong answers only stand for an engine that has no others, and stay marked.
            place = row["wrong"], row["seconds"]
            if variant.engine not in found or place < found[variant.engine][0]:
                found[variant.engine] = place, variant
    return [variant for _, variant in found.values()]


def profiled(package: str | Path, feeds: Path, processor: int) -> list[Region] | None:
    """The regions of a package, timed in a process of its own on one processor."""
    command = [sys.executable, "-m", "benchmarks.compare_layers", str(package), str(feeds)]
    done = subprocess.run(
        [*command, str(PROFILED_RUNS), str(processor)],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SpuError(f"the layers could not be timed: {one_line(done.stderr)}")
    found: list[Row] | None = json.loads(done.stdout)
    if found is None:
        return None
    return [Region(tuple(row["ops"]), tuple(row["layers"]), row["seconds"]) for row in found]


def roofline(
    maker: Maker, batch: int, row: Row, ceilings: Ceilings, processor: int
) -> dict[str, Any]:
    """
    What of the processor's roofline the package reaches.

    The whole run against the least time of its INT8 products, and every product by itself, which
    takes a single thread.
    """
    ceilings.measure()
    layers, extents = maker.package["layers"], maker.subject.extents(batch)
    least = least_seconds(layers, extents, ceilings)
    found: dict[str, Any] = {
        "of_run": None if least is None else least / row["seconds"] / row["threads"],
    }
    if row["threads"] != 1:
        return found
    try:
        regions = profiled(maker.package["path"], maker.feeds(batch), processor)
    except SpuError as error:
        return {**found, "layers": None, "reason": str(error)}
    if regions is None:
        return {**found, "layers": None, "reason": "its regions are not those of its IR"}
    rows = by_layer(regions, layers, extents, ceilings)
    return {**found, "layers": rows, "summary": summary(rows), "seconds_by_op": kinds(regions)}


def accepted(digest: str, model: str, ratio: Ratio, page: Path) -> str:
    """What the fidelity benchmark's results say of a package: `yes`, or why not."""
    if not page.exists():
        return "docs/fidelity.json is not there"
    for row in json.loads(page.read_text(encoding="utf-8"))["results"]:
        if (row["model"], row["ratio"]) == (model, ratio):
            if row["packages"]["int8"] != digest:
                return "fidelity was measured of another build"
            return "yes" if row["verdicts"]["int8"] == "holds" else "fidelity's line is missed"
    return "not measured there"
