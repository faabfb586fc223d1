"""A report as tables for people: what is in the JSON, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spu_ir.runtime.program import Json


def print_report(
    report: Mapping[str, Json], path: str | None, console: Console | None = None
) -> None:
    """Print a report that was written to `path`, or not written."""
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
        console.print("\n[bold]speed on this machine[/bold], wall clock")
        console.print(_speed(found))
    console.print("\n[bold]the card[/bold], by the device model, and as published")
    console.print(_card(details))
    console.print("\n[bold]sparsity[/bold]: three figures that are not the same")
    console.print(_pairs(details["Sparsity"]))
    if "Accuracy" in found:
        console.print("\n[bold]accuracy[/bold]")
        console.print(_pairs({**found["Accuracy"], **details.get("Numeric", {})}))
    for name in details["Unreadable"]:
        console.print(f"[red]{escape(name)}[/red]", soft_wrap=True, highlight=False)
    if path is not None:
        console.print(f"report: {escape(path)}", soft_wrap=True, highlight=False)


def _lines(console: Console, lines: list[tuple[str, str]]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in lines:
        table.add_row(name, escape(text))
    console.print(table)


def _speed(found: Mapping[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD)
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


def _card(details: Mapping[str, Any]) -> Table:
    modelled = cast("dict[str, Any]", details["Modelled"])
    published = cast("dict[str, Any]", details["Published"] or {})
    table = Table(box=SIMPLE_HEAD)
    table.add_column("")
    table.add_column(f"{escape(modelled['Card'])}, modelled", justify="right")
    if published:
        table.add_column(f"{published['Card']}, published", justify="right")
    for name in dict.fromkeys((*modelled, *published)):
        if name not in ("Card", "Source"):
            row = [_cell(values.get(name)) for values in (modelled, published) if values]
            table.add_row(_UNITS.get(name, name), *row)
    if published:
        table.caption = published["Source"]
    return table


_UNITS = {
    "QPS": "samples/s",
    "QPS/W": "samples/s/W, at average power",
    "QPS/W at TDP": "samples/s/W, at the TDP",
    "BS": "batch",
    "Peak Power": "peak power, W",
    "Average Power": "average power, W",
    "TDP": "TDP, W",
    "Latency": "latency, ms",
}


def _pairs(values: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    table.add_column()
    table.add_column(justify="right")
    for name, value in values.items():
        table.add_row(name, _cell(value))
    return table


def _cell(value: Json) -> str:
    if isinstance(value, float):
        return f"{value:,.5g}" if abs(value) < 1000 else f"{value:,.1f}"
    return "-" if value is None else escape(f"{value:,}" if isinstance(value, int) else str(value))
