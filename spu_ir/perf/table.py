"""A report as tables for people: what is in the JSON, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spu_ir.runtime.program import Json


def print_report(report: Mapping[str, Json], path: str, console: Console | None = None) -> None:
    """Print a report that was written to `path`."""
    console = console or Console()
    found = cast("Mapping[str, Any]", report)
    details = found["Details"]
    compiled = found["Graph Compile"]
    console.print(f"[bold]{escape(found['Model'])}[/bold] on {escape(found['Host Info'])}")
    lines = [
        ("weights", details["Weights"]),
        ("data", f"{found['Dataset']}: {details['Data']}"),
        (
            "compiled",
            f"{compiled['Compile Precision']} in {compiled['Compile Duration']:.1f} s, "
            f"{details['Host']['ISA Level']}, {details['Host']['Threads']} threads",
        ),
    ]
    _lines(console, lines)
    if "Performance" in found:
        console.print(_speed(found))
    if "Accuracy" in found:
        console.print(_accuracy(found))
    for name in details["Unreadable"]:
        console.print(f"[red]{escape(name)}[/red]", soft_wrap=True, highlight=False)
    console.print(f"report: {escape(path)}", soft_wrap=True, highlight=False)


def _lines(console: Console, lines: list[tuple[str, str]]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in lines:
        table.add_row(name, escape(text))
    console.print(table)


def _speed(found: Mapping[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, title="this machine, wall clock", title_justify="left")
    for heading in ("batch", "samples/s", "average ms", "P99 ms", "runs", "warm-up"):
        table.add_column(heading, justify="right")
    for row, raw in zip(found["Performance"], found["Details"]["Host"]["Timings"], strict=True):
        runs = str(raw["Iterations"])
        if raw["Iterations"] < raw["Iterations Asked"]:
            runs += f" of {raw['Iterations Asked']}"
        table.add_row(
            str(row["BS"]),
            f"{row['QPS']:,.2f}",
            f"{row['AVG Latency']:,.2f}",
            f"{row['P99 Latency']:,.2f}",
            runs,
            str(raw["Warm-up"]),
        )
    return table


def _accuracy(found: Mapping[str, Any]) -> Table:
    numeric = found["Details"].get("Numeric")
    title = "accuracy"
    if numeric is not None:
        title += f"; differences to {numeric['Reference']}, {numeric['Samples']} samples"
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in found["Accuracy"].items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else f"{value:,.5g}")
    if numeric is not None:
        table.add_row("Relative L2 Error", f"{numeric['Relative L2 Error']:.3g}")
    return table
