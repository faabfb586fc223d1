"""The kernels' rates for eyes, beside their goals: tables on a terminal, and docs/kernels.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .fidelity_page import markdown
from .spu_matmul_gemm import TINY

Report: TypeAlias = dict[str, Any]
Row: TypeAlias = dict[str, Any]
Lines: TypeAlias = list[list[str]]

TEMPLATE = Path(__file__).with_name("spu_matmul_page.md")
"""The page with marks such as `{{goals}}` in the place of what is generated."""
GIGA = 1e9
SPARSE = ("4x", "8x", "16x")
"""Ratios that have goals of their own."""


@dataclass(frozen=True)
class Goal:
    """A ratio that was asked for, and what a run has; None where it could not be measured."""

    name: str
    least: float
    value: float | None
    of_dot: float | None = None
    """What goes before the same ratio to the dot product's rate, if that is not the goal."""

    @property
    def verdict(self) -> str:
        """`holds`, `missed` or `not measured`."""
        if self.value is None:
            return "not measured"
        return "holds" if self.value >= self.least else "missed"

    def text(self) -> str:
        """One line for people."""
        return f"{self.name}: {number(self.value)}, at least {self.least:g} ({self.verdict})"


def number(value: float | None) -> str:
    """With two digits, or a dash."""
    return "-" if value is None else f"{value:.2f}"


def useful(row: Row) -> float:
    """MAC/s of weights that are not zero."""
    return row["useful_macs"] / row["seconds"]


def equivalent(row: Row) -> float:
    """MAC/s as if every weight counted."""
    return row["macs"] / row["seconds"]


def part(value: float, whole: float | None) -> float | None:
    """A quotient; None without a whole."""
    return value / whole if whole else None


def best_dense(report: Report, layer: str) -> Row | None:
    """The row of the fastest dense product of a layer's shape; None if there is none."""
    rows = [row for row in report["dense"] if row["layer"] == layer]
    return min(rows, key=lambda row: row["seconds"], default=None)


def of_gemm(report: Report, row: Row) -> float | None:
    """A row's rate, as if every weight counted, beside the best dense product of its shape."""
    best = best_dense(report, row["layer"])
    return None if best is None else equivalent(row) / equivalent(best)


def mean(rows: Sequence[Row], value: Callable[[Row], float | None]) -> float | None:
    """The mean of a value, weighted by the work of the rows; None where one has none."""
    weights = [row["useful_macs"] * row["count"] for row in rows]
    values = [value(row) for row in rows]
    known = [each for each in values if each is not None]
    if len(known) < len(rows):
        return None
    return sum(w * v for w, v in zip(weights, known, strict=True)) / sum(weights)


def transformer(row: Row) -> bool:
    """Whether a row is of a transformer's shape."""
    return row["layer"].startswith("matmul")


def three(row: Row) -> bool:
    """Whether a row is of a 3x3 convolution."""
    return " 3x3" in row["layer"]


def goals(report: Report) -> list[Goal]:
    """The ratios that the kernels are held to, of what a report has."""
    dot: float | None = report["peak_dot"]
    pair: float | None = report["peak_pair"]

    def rows(ratio: str, share: int, kind: Callable[[Row], bool]) -> list[Row]:
        which = (ratio, share)
        return [
            row for row in report["results"] if (row["ratio"], row["share"]) == which and kind(row)
        ]

    def of_pair(row: Row) -> float | None:
        return part(useful(row), pair)

    def beside_gemm(row: Row) -> float | None:
        return of_gemm(report, row)

    def beside_dot(row: Row) -> float | None:
        return part(equivalent(row), dot)

    found: list[Goal] = []
    for ratio in SPARSE:
        for row in rows(ratio, 1, transformer):
            found.append(Goal(f"{ratio}, {row['layer']}, of the pair", 0.85, of_pair(row)))
        if chosen := rows(ratio, 1, three):
            name = f"{ratio}, ResNet-50's 3x3, of the pair"
            found.append(Goal(name, 0.75, mean(chosen, of_pair)))
    for ratio in SPARSE:
        alone = {row["layer"]: useful(row) for row in rows(ratio, 1, transformer)}
        if chosen := rows(ratio, 2, transformer):
            value = mean(chosen, lambda row, alone=alone: useful(row) / alone[row["layer"]])
            found.append(Goal(f"{ratio}, transformer, share 2 over share 1", 1.2, value))
    for share in (1, 2):
        for row in rows("16x", share, transformer):
            name = f"16x share {share}, {row['layer']}, dense over the GEMM"
            found.append(Goal(name, 9, beside_gemm(row), beside_dot(row)))
    if chosen := rows("1x", 1, transformer):
        name = "1x, transformer, of the GEMM"
        found.append(Goal(name, 0.8, mean(chosen, beside_gemm), mean(chosen, beside_dot)))
    return found


def goal_table(report: Report) -> tuple[list[str], Lines]:
    """Every goal and its verdict."""
    columns = ["what", "at least", "measured", "", "the same of dot"]
    lines = [
        [goal.name, f"{goal.least:g}", number(goal.value), goal.verdict, number(goal.of_dot)]
        for goal in goals(report)
    ]
    return columns, lines


def dense_table(report: Report) -> tuple[list[str], Lines]:
    """The dense products of other libraries, and why some are not there."""
    columns = ["layer", "library", "form", "us", "us of a call", "G/s", "/ dot", ""]
    lines: Lines = []
    for row in report["dense"]:
        best = row == best_dense(report, row["layer"])
        lines.append(
            [
                row["layer"],
                f"{row['library']} {row['version']}",
                row["form"],
                f"{row['seconds'] * 1e6:.0f}",
                f"{row['call_seconds'] * 1e6:.0f}",
                f"{equivalent(row) / GIGA:.0f}",
                number(part(equivalent(row), report["peak_dot"])),
                "best" if best else "",
            ]
        )
    for row in report["missing"]:
        reason = f"not measured: {row['reason']}"
        lines.append(["-", row["library"], row["form"], *["-"] * 4, reason])
    return columns, lines


def layer_table(report: Report) -> tuple[list[str], Lines]:
    """What was measured of our kernels."""
    columns = ["layer", "n", "ratio", "share", "us", "useful G/s", "dense G/s"]
    columns += ["/ dot", "/ pair", "dense / dot", "dense / GEMM"]
    dot, pair = report["peak_dot"], report["peak_pair"]
    lines = [
        [
            row["layer"],
            str(row["count"]),
            row["ratio"],
            str(row["share"]),
            f"{row['seconds'] * 1e6:.0f}",
            f"{useful(row) / GIGA:.0f}",
            f"{equivalent(row) / GIGA:.0f}",
            number(part(useful(row), dot)),
            number(part(useful(row), pair)),
            number(part(equivalent(row), dot)),
            number(of_gemm(report, row)),
        ]
        for row in report["results"]
    ]
    return columns, lines


TABLES = {"goals": goal_table, "dense": dense_table, "layers": layer_table}
"""Tables by their marks in the template."""


def measured(report: Report) -> str:
    """When, where and how."""
    peaks = [report[name] for name in ("peak_dot", "peak_pair")]
    dot, pair = ("none" if peak is None else f"{peak / GIGA:.0f} G MAC/s" for peak in peaks)
    policy = "; it ran under a real-time policy" if report["policy"] == "realtime" else ""
    return (
        f"Measured on {report['date']} with spu-ir {report['version']}; {report['machine']}, level "
        f"{report['level']}, one thread, {report['rounds']} rounds of {report['round_seconds']:g} s"
        f"{policy}. Dot: {dot}; pair: {pair}.\n\n```text\n{report['command']}\n```\n"
    )


def page(report: Report) -> str:
    """docs/kernels.md."""
    text = TEMPLATE.read_text(encoding="utf-8").replace("{{measured}}\n", measured(report))
    text = text.replace("{{tiny}}", "x".join(map(str, TINY)))
    for name, table in TABLES.items():
        text = text.replace(f"{{{{{name}}}}}\n", markdown(*table(report)))
    return text


def write_page(path: Path, report: Report) -> None:
    """Write the page, and its JSON beside it."""
    path.write_text(page(report), encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def show(report: Report) -> None:
    """Print all tables."""
    console = Console()
    console.width = max(console.width, 100)
    for name in ("layers", "dense"):
        columns, lines = TABLES[name](report)
        found = Table(title=name, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for column in columns:
            found.add_column(column, no_wrap=column in columns[:1])
        for line in lines:
            found.add_row(*line)
        if lines:
            console.print(found)
    console.print(measured(report).split("\n", 1)[0])
    for goal in goals(report):
        console.print(goal.text())
