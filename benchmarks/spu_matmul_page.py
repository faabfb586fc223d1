"""What the kernels' rates come to beside their goals, and docs/kernels.md of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spu_ir.runtime.cpu import processor_name

PAGE = Path(__file__).resolve().parents[1] / "docs" / "kernels.md"

Row = dict[str, Any]

_INTRO = """# Kernels

How near the SPU's INT8 kernels, alone, come to what this processor's registers can do.
`python -m benchmarks.spu_matmul --write` measures and writes this page. Every layer runs on one
thread at every ratio, with random weights pruned to it, through the device code of compiled models,
scale, bias and 8-bit output included; the time is the least of all runs.

- *Useful* multiply-accumulates are those of non-zero weights, *dense* ones those of all weights.
- *Dot* is the rate of `vpdpbusd` in a loop in registers, which bounds every dense product, and
  *pair* that of `vpermb` and `vpdpbusd`, which bounds a sparse one with one permute for one dot
  product (share 1); with share 2 a permute feeds two. Both are the best of the same run.
- A mean over ResNet-50's 3x3 layers is weighted by their work: a layer's multiply-accumulates
  times how often the network has it.
"""


@dataclass(frozen=True)
class Goal:
    """A ratio that was asked for, and what a run has; None where the processor lacks a peak."""

    name: str
    least: float
    value: float | None

    @property
    def verdict(self) -> str:
        """`holds`, `missed` or `-`."""
        if self.value is None:
            return "-"
        return "holds" if self.value >= self.least else "missed"

    def text(self) -> str:
        """One line for people."""
        value = "-" if self.value is None else f"{self.value:.2f}"
        return f"{self.name}: {value}, at least {self.least:g} ({self.verdict})"


def goals(report: Row) -> list[Goal]:
    """The ratios that the kernels are held to, of a report of `spu_matmul.run`."""
    rows: list[Row] = report["results"]
    dot: float | None = report["peak_dot"]
    found: list[Goal] = []

    def add(name: str, least: float, chosen: Sequence[Row], value: Callable[[Row], float | None]):
        if not chosen:
            return
        weights = [row["useful"] * row["seconds"] * row["count"] for row in chosen]
        values = [value(row) for row in chosen]
        known = [v for v in values if v is not None]
        mean = None
        if len(known) == len(values):
            mean = sum(w * v for w, v in zip(weights, known, strict=True)) / sum(weights)
        found.append(Goal(name, least, mean))

    def of_pair(row: Row) -> float | None:
        return row["of_pair_peak"]

    for ratio in ("4x", "8x", "16x"):
        one = [row for row in rows if row["ratio"] == ratio and row["share"] == 1]
        for row in one:
            if transformer(row):
                add(f"{ratio}, {row['layer']}, of the pair", 0.85, [row], of_pair)
        add(f"{ratio}, ResNet-50's 3x3, of the pair", 0.75, list(filter(three, one)), of_pair)
    for ratio in ("4x", "8x", "16x"):
        two = [row for row in rows if row["ratio"] == ratio and row["share"] == 2]
        alone = {
            row["layer"]: row["useful"]
            for row in rows
            if row["ratio"] == ratio and row["share"] == 1
        }
        add(
            f"{ratio}, transformer, share 2 over share 1",
            1.2,
            list(filter(transformer, two)),
            lambda row, alone=alone: row["useful"] / alone[row["layer"]],
        )
    for row in rows:
        if row["ratio"] == "16x" and row["share"] == 1 and transformer(row):
            rate = row["equivalent"]
            add(
                f"16x, {row['layer']}, dense over the dot product",
                9,
                [row],
                lambda _, rate=rate: rate / dot if dot else None,
            )
    dense = [row for row in rows if row["ratio"] == "1x"]
    add(
        "1x, transformer, of the dot product",
        0.8,
        list(filter(transformer, dense)),
        lambda row: row["of_dot_peak"],
    )
    return found


def transformer(row: Row) -> bool:
    """Whether a row is of a transformer's shape."""
    return row["layer"].startswith("matmul")


def three(row: Row) -> bool:
    """Whether a row is of a 3x3 convolution."""
    return " 3x3" in row["layer"]


def write_page(report: Row, repeats: int) -> None:
    """Write docs/kernels.md."""
    PAGE.write_text(page(report, repeats), encoding="utf-8")


def page(report: Row, repeats: int) -> str:
    """The text of docs/kernels.md."""
    peaks = [report[name] for name in ("peak_dot", "peak_pair")]
    dot, pair = ("-" if peak is None else f"{peak / 1e9:.0f}" for peak in peaks)
    day = datetime.now(UTC).date().isoformat()
    lines = [
        _INTRO,
        f"Measured on {day}: {processor_name()}, level {report['level']}, the least of "
        f"{repeats} runs; dot {dot} G MAC/s, pair {pair} G MAC/s.\n",
        "## Goals\n",
        "| what | at least | measured | |",
        "| --- | --- | --- | --- |",
    ]
    for goal in goals(report):
        value = "-" if goal.value is None else f"{goal.value:.2f}"
        lines.append(f"| {goal.name} | {goal.least:g} | {value} | {goal.verdict} |")
    lines += [
        "",
        "No dense INT8 product in software is faster than the dot product's rate.\n",
        "## Layers\n",
        "| layer | times | ratio | share | us | useful G/s | dense G/s | / dot | / pair |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in report["results"]:
        fractions = [row["of_dot_peak"], row["of_pair_peak"]]
        cells = [
            row["layer"],
            str(row["count"]),
            row["ratio"],
            str(row["share"]),
            f"{row['seconds'] * 1e6:.0f}",
            f"{row['useful'] / 1e9:.0f}",
            f"{row['equivalent'] / 1e9:.0f}",
            *("-" if f is None else f"{f:.2f}" for f in fractions),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
