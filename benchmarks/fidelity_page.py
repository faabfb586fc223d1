"""The fidelity report for eyes: tables on a terminal, and docs/fidelity.md."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from spu_ir import __version__
from spu_ir.runtime.cpu import processor_name, select_level

from .ratios import title

Report = dict[str, Any]

INTRODUCTION = Path(__file__).with_name("fidelity_page.md")
"""What the page says before its tables: how it is measured and what the columns mean."""

EXPLAINED: dict[tuple[str, str], str] = {
    ("resnet50", "bf16"): (
        "Rounding the operands of products to BF16, and nothing else, in a reference that "
        "multiplies and adds in FP32, is just as far from FP32: the error is the format's, not "
        "the kernels'. Each product alone is at 0.2 %; the random network multiplies it from "
        "block to block."
    ),
    ("conformer", "bf16"): (
        "Dense, the same: with nothing but the operands of products rounded to BF16, answers of "
        "ONNX Runtime are 0.019 from FP32's, as ours. Pruned, layers add less, and the line holds."
    ),
    ("conformer-speech", "bf16"): (
        "As the other size: operands rounded in ONNX Runtime give 0.019 too."
    ),
}
"""(model, precision) -> why the line is missed there. A miss without an entry fails a test."""

COLUMNS = (
    "model",
    "size",
    "ratio",
    "FP32",
    "BF16",
    "INT8",
    "ORT INT8",
    "INT8 / ORT",
    "ORT's best setting",
    "verdict",
)


def header(commands: Sequence[str]) -> Report:
    """Machine, date and commands of a measurement."""
    return {
        "machine": f"{processor_name()}, {platform.system()} {platform.machine()}",
        "level": select_level(),
        "date": date.today().isoformat(),
        "command": " && ".join(dict.fromkeys(commands)),
        "version": __version__,
        "onnxruntime": version("onnxruntime"),
    }


def verdict_of(row: Report) -> str:
    """`holds`, or which precisions miss their line."""
    missed = [name.upper() for name, verdict in row["verdicts"].items() if verdict == "miss"]
    return f"miss: {', '.join(missed)}" if missed else "holds"


def cells(row: Report) -> list[str]:
    """One line of the main table."""
    ours, ort = row["ours"], row["ort_int8"]
    return [
        row["model"],
        row["size"],
        title(row["ratio"]),
        f"{ours['fp32']:.1e}",
        f"{ours['bf16']:.1e}",
        f"{ours['int8']:.2e}",
        f"{ort:.2e}",
        f"{ours['int8'] / ort:.2f}" if ort else "-",
        row["ort_best"],
        verdict_of(row),
    ]


def layer_cells(row: Report) -> list[list[str]]:
    """First, worst, and worst against ONNX Runtime of a model's layers, one line each."""
    found = row["layer_summary"]
    lines: list[list[str]] = []
    for what, key in (("first", "first"), ("worst", "worst"), ("worst / ORT", "worst_against_ort")):
        layer = found[key]
        if layer is None:
            continue
        theirs = "-" if layer["ort"] is None else f"{layer['ort']:.2e}"
        name = layer["layer"]
        lines.append(
            [row["model"], title(row["ratio"]), what, name, f"{layer['ours']:.2e}", theirs]
        )
    better = f"{found['better']} of {found['compared']} layers no worse than ORT's"
    lines.append([row["model"], title(row["ratio"]), "all", better, "", ""])
    return lines


LAYER_COLUMNS = ("model", "ratio", "which", "layer", "INT8", "ORT INT8")


def show(report: Report) -> None:
    """Print the tables; every layer of every model where they were measured."""
    console = Console()
    table = Table(title="Relative L2 error against FP32", box=SIMPLE_HEAD, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, no_wrap=name != "ORT's best setting")
    for row in report["results"]:
        table.add_row(*cells(row))
    console.print(table)
    for row in report["results"]:
        if "layers" not in row:
            continue
        table = Table(title=f"{row['model']} {row['ratio']}x by layer", box=SIMPLE_HEAD)
        for name in ("layer", "shape", "INT8", "ORT INT8"):
            table.add_column(name)
        for layer in row["layers"]:
            theirs = "-" if layer["ort"] is None else f"{layer['ort']:.2e}"
            table.add_row(layer["layer"], layer["shape"], f"{layer['ours']:.2e}", theirs)
        console.print(table)
        for line in layer_cells(row):
            console.print(" ".join(line))


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def misses(report: Report) -> list[tuple[str, str]]:
    """(model, precision) of every line that is missed at some ratio, in order."""
    found = [
        (row["model"], precision)
        for row in report["results"]
        for precision, verdict in row["verdicts"].items()
        if verdict == "miss"
    ]
    return list(dict.fromkeys(found))


def section(report: Report, heading: str, body: Callable[[Report], str]) -> str:
    """One section of the page, empty when it has nothing to say."""
    text = body(report)
    return f"\n## {heading}\n\n{text}" if text else ""


def _missed(report: Report) -> str:
    lines = [
        f"- **{model}, {precision.upper()}.** {EXPLAINED[model, precision]}\n"
        for model, precision in misses(report)
        if (model, precision) in EXPLAINED
    ]
    return "".join(lines) or "Every line holds.\n"


def _layers(report: Report) -> str:
    rows = [line for row in report["results"] if "layers" in row for line in layer_cells(row)]
    return markdown(LAYER_COLUMNS, rows) if rows else ""


def _settings(report: Report) -> str:
    rows = [
        [row["model"], title(row["ratio"]), name, f"{error:.2e}"]
        for row in report["results"]
        for name, error in row["ort_settings"].items()
    ]
    return markdown(("model", "ratio", "setting", "error"), rows)


def page(report: Report) -> str:
    """docs/fidelity.md."""
    commands = report["command"].replace(" && ", "\n")
    measured = (
        f"Measured on {report['date']} with spu-ir {report['version']} "
        f"({report['level']}) and ONNX Runtime {report['onnxruntime']}, on: {report['machine']}.\n"
        f"\n```text\n{commands}\n```\n\n"
    )
    table = markdown(COLUMNS, [cells(row) for row in report["results"]])
    return (
        INTRODUCTION.read_text(encoding="utf-8")
        + "\n## Results\n\n"
        + measured
        + table
        + section(report, "Lines that are missed", _missed)
        + section(report, "Layer by layer", _layers)
        + section(report, "ONNX Runtime's settings", _settings)
    )


def write_page(path: Path, report: Report) -> None:
    """Write the page, and beside it the JSON that it is made of (without every single layer)."""
    results: list[Report] = []
    for row in report["results"]:
        kept: Report = {key: value for key, value in row.items() if key != "layers"}
        if "layers" in row:
            kept["layers"] = []
        results.append(kept)
    path.write_text(page(report), encoding="utf-8")
    text = json.dumps({**report, "results": results}, indent=1)
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
