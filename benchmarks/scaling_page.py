"""The scaling benchmark for eyes: tables on a terminal, and docs/scaling.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .fidelity_page import markdown
from .scaling_cases import RATIO
from .scaling_fit import Fit, least_squares
from .scaling_plot import Series, picture

Report: TypeAlias = dict[str, Any]
Row: TypeAlias = dict[str, Any]
Lines: TypeAlias = list[list[str]]

TEMPLATE = Path(__file__).with_name("scaling_page.md")
"""The page with marks such as `{{batch}}` in the place of what is generated."""
GIGA = 1e9


def chosen(report: Report, sweep: str) -> list[Row]:
    """The rows of a sweep."""
    return [row for row in report["results"] if row["sweep"] == sweep]


def places(row: Row) -> list[float]:
    """Where a row's points are on the horizontal axis: what is varied, or G MAC."""
    if row["sweep"] == "ratio":
        return [point["macs"] / GIGA for point in row["points"]]
    return [point["x"] for point in row["points"]]


def milliseconds(row: Row) -> list[float]:
    """What its points took."""
    return [point["seconds"] * 1e3 for point in row["points"]]


def fit(row: Row) -> Fit | None:
    """
    The line through a row's points; a parabola where padding is skipped, since attention's work
    grows with the square of the length; none where padding is computed: nothing should grow.
    """
    if row["sweep"] != "padding":
        return line_of(row)
    return line_of(row, 2) if row["padding"] == "skip" else None


def line_of(row: Row, degree: int = 1) -> Fit:
    """The line of least squares through a row's points."""
    return least_squares(places(row), milliseconds(row), degree)


def batch(report: Report) -> tuple[list[str], Lines]:
    """Time against batch: the line, and what a sample takes."""
    columns = ["model", "ms = constant + slope x batch", "R^2", "largest deviation"]
    columns += ["ms a sample, first", "last"]
    lines: Lines = []
    for row in chosen(report, "batch"):
        line, times, at = line_of(row), milliseconds(row), places(row)
        constant, slope = line.coefficients
        said = f"{constant:.3f} + {slope:.3f} x batch"
        each = [f"{times[place] / at[place]:.3f}" for place in (0, -1)]
        lines.append([row["model"], said, *quality(line), *each])
    return columns, lines


def ratio(report: Report) -> tuple[list[str], Lines]:
    """Time against sparse MACs: the line, its slope as a rate, and what its constant is."""
    columns = ["model", "ms = constant + slope x G MAC", "R^2", "largest deviation"]
    columns += ["G MAC/s of the slope", "ms of all but sparse products"]
    lines: Lines = []
    for row in chosen(report, "ratio"):
        line = line_of(row)
        constant, slope = line.coefficients
        rest = row["rest_seconds"]
        lines.append(
            [
                row["model"],
                f"{constant:.3f} + {slope:.3f} x G MAC",
                *quality(line),
                f"{1e3 / slope:.0f}" if slope > 0 else "-",
                "-" if rest is None else f"{rest * 1e3:.3f}",
            ]
        )
    return columns, lines


def padding(report: Report) -> tuple[list[str], Lines]:
    """Time against the real length: how it falls, and that of computing all of it."""
    columns = ["model", "padding", "ms, shortest", "ms, whole", "shortest / whole", "falls"]
    columns += ["ms = a + b x length + c x length^2", "R^2", "largest deviation"]
    columns += ["R^2 of a straight line"]
    lines: Lines = []
    for row in chosen(report, "padding"):
        times, line = milliseconds(row), fit(row)
        ends = [f"{times[0]:.3f}", f"{times[-1]:.3f}", f"{times[0] / times[-1]:.2f}"]
        head = [row["model"], row["padding"], *ends]
        if line is None:
            lines.append([*head, *["-"] * 5])
            continue
        a, b, c = line.coefficients
        falls = "yes" if times == sorted(times) else "no"
        said = f"{a:.3f} {b:+.2e} x length {c:+.2e} x length^2"
        straight = f"{line_of(row).r2:.4f}"
        lines.append([*head, falls, said, *quality(line), straight])
    return columns, lines


def quality(line: Fit) -> list[str]:
    """R^2 and the largest deviation of a line."""
    return [f"{line.r2:.4f}", f"{line.deviation:.1%}"]


def every_point(report: Report) -> tuple[list[str], Lines]:
    """What was measured."""
    columns = ["sweep", "model", "padding", "at", "ratio", "batch", "M sparse MAC"]
    columns += ["ms", "fastest", "the line's ms"]
    lines: Lines = []
    for row in report["results"]:
        line = fit(row)
        for at, point in zip(places(row), row["points"], strict=True):
            lines.append(
                [
                    row["sweep"],
                    row["model"],
                    row["padding"],
                    f"{point['x']}x" if row["sweep"] == "ratio" else str(point["x"]),
                    f"{point['ratio']}x",
                    str(point["batch"]),
                    f"{point['macs'] / 1e6:.1f}",
                    f"{point['seconds'] * 1e3:.3f}",
                    f"{point['least_seconds'] * 1e3:.3f}",
                    "-" if line is None else f"{line(at):.3f}",
                ]
            )
    return columns, lines


TABLES = {"batch": batch, "ratio": ratio, "padding": padding, "points": every_point}
"""Tables by their marks in the template."""


def drawing(report: Report) -> str:
    """docs/scaling.svg: a row of panels for every sweep."""
    axes = {
        "batch": f"batch, {RATIO}x",
        "ratio": "G sparse MAC, 32x to 2x",
        "padding": f"real positions, {RATIO}x",
    }
    rows: list[list[tuple[str, str, Sequence[Series]]]] = []
    for sweep, axis in axes.items():
        found = chosen(report, sweep)
        panels: list[tuple[str, str, Sequence[Series]]] = []
        for model in dict.fromkeys(row["model"] for row in found):
            series: list[Series] = [
                (
                    row["padding"] if sweep == "padding" else "",
                    places(row),
                    milliseconds(row),
                    fit(row),
                )
                for row in found
                if row["model"] == model
            ]
            panels.append((model, axis, series))
        if panels:
            rows.append(panels)
    return picture(rows)


def measured(report: Report) -> str:
    """When, where and how."""
    loads = [row["loadavg"] for row in report["results"]]
    policy = "; it ran under a real-time policy" if report["policy"] == "realtime" else ""
    commands = report["command"].replace(" && ", "\n")
    quick = "**Two layers of each model and short inputs: a trial.** " if report["quick"] else ""
    return (
        f"{quick}Measured on {report['date']} with spu-ir {report['version']}; "
        f"{report['machine']}, level {report['level']}, one thread on processor "
        f"{report['processor']} of {report['processors']}, {report['rounds']} rounds of "
        f"{report['round_seconds']:g} s. Load average while it was measured, the benchmark's own "
        f"included: {min(loads):.1f} to {max(loads):.1f}{policy}.\n\n"
        f"```text\n{commands}\n```\n"
    )


def page(report: Report, drawn: str) -> str:
    """docs/scaling.md, with the drawing at `drawn`."""
    text = TEMPLATE.read_text(encoding="utf-8").replace("{{measured}}\n", measured(report))
    text = text.replace("{{drawing}}", drawn)
    for name, table in TABLES.items():
        columns, lines = table(report)
        text = text.replace(
            f"{{{{{name}}}}}\n", markdown(columns, lines) if lines else "Not measured.\n"
        )
    return text


def write_page(path: Path, report: Report) -> None:
    """Write the page, and beside it its JSON and its drawing."""
    drawn = path.with_suffix(".svg")
    drawn.write_text(drawing(report), encoding="utf-8")
    path.write_text(page(report, drawn.name), encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def show(report: Report) -> None:
    """Print all tables."""
    console = Console()
    for name, table in TABLES.items():
        columns, lines = table(report)
        found = Table(title=name, box=SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            found.add_column(column)
        for line in lines:
            found.add_row(*line)
        if lines:
            console.print(found)
