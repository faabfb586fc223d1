"""The comparison for eyes: tables on a terminal, and docs/performance.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .compare_goals import Verdict, best, faster, limits, places, verdicts
from .compare_plot import bars
from .fidelity_page import markdown
from .ratios import Ratio
from .ratios import title as written

Report: TypeAlias = dict[str, Any]
Row: TypeAlias = dict[str, Any]
Lines: TypeAlias = list[list[str]]

INTRODUCTION = Path(__file__).with_name("compare_page.md")
NAMES = {
    "spu": "spu-ir",
    "openvino": "OpenVINO",
    "onnxruntime": "ONNX Runtime",
    "deepsparse": "DeepSparse",
}
"""Engines as they call themselves."""

LITTLE = 0.02
"""Ops that take less of a run's time have no line."""


def place(threads: int, batch: int) -> str:
    """`2 threads, batch 8`."""
    return f"{threads} thread{'s' * (threads != 1)}, batch {batch}"


def pairs(rows: Sequence[Row]) -> list[tuple[str, Ratio]]:
    """(model, ratio) of all rows, in order."""
    return list(dict.fromkeys((row["model"], row["ratio"]) for row in rows))


def engines(report: Report) -> list[str]:
    """The engines that were asked for, spu-ir first."""
    return sorted(report["engines"], key=lambda name: list(NAMES).index(name))


def latency(report: Report, threads: int, batch: int) -> tuple[list[str], Lines]:
    """Milliseconds of a run, and how many times those of spu-ir that is."""
    rows, names = report["results"], engines(report)
    columns = ["model", "ratio", *(f"{NAMES[name]} ms" for name in names)]
    columns += [f"/ {NAMES[name]}" for name in names if name != "spu"]
    lines: Lines = []
    for model, ratio in pairs(rows):
        at = {"model": model, "ratio": ratio, "threads": threads, "batch": batch}
        found = {name: best(rows, name, **at) for name in names}
        if not any(found.values()):
            continue
        times = [_ms(row) for row in found.values()]
        factors = [_times(faster(rows, name, **at)) for name in names if name != "spu"]
        lines.append([model, written(ratio), *times, *factors])
    return columns, lines


def throughput(report: Report) -> tuple[list[str], Lines]:
    """Inputs a second at every number of threads and batch."""
    rows, names = report["results"], engines(report)
    columns = ["model", "ratio", "threads", "batch", *(NAMES[name] for name in names)]
    lines: Lines = []
    for model, ratio in pairs(rows):
        for threads, batch in places(rows):
            at = {"model": model, "ratio": ratio, "threads": threads, "batch": batch}
            found = [best(rows, name, **at) for name in names]
            if any(found):
                rates = ["-" if row is None else f"{row['throughput']:.1f}" for row in found]
                lines.append([model, written(ratio), str(threads), str(batch), *rates])
    return columns, lines


def limited(report: Report) -> tuple[list[str], Lines]:
    """What compiling, loading and running take at most, over all that was measured."""
    lines: Lines = [
        [each.what, f"{each.most:g}", f"{each.found:.3g}", each.where, _held(each.holds)]
        for each in limits(report["results"])
        if each.found is not None
    ]
    return ["spu-ir's", "at most", "the most", "of", ""], lines


def loading(report: Report) -> tuple[list[str], Lines]:
    """Seconds of compiling, loading + the first answer, and peak memory, where first measured."""
    rows, names = report["results"], engines(report)
    threads, batch = places(rows)[0]
    columns = ["model", "ratio", "spu-ir compiles in s", *(f"{NAMES[name]} s" for name in names)]
    columns += [f"{NAMES[name]} MB" for name in names]
    lines: Lines = []
    for model, ratio in pairs(rows):
        at = {"model": model, "ratio": ratio, "threads": threads, "batch": batch}
        found = [best(rows, name, **at) for name in names]
        seconds = [
            "-" if row is None else f"{row['load_seconds']:.2f} + {row['first_seconds']:.2f}"
            for row in found
        ]
        memory = ["-" if row is None else f"{row['peak_bytes'] / 2**20:.0f}" for row in found]
        ours = best(rows, "spu", **at)
        took = None if ours is None else ours.get("compile_seconds")
        compiles = "-" if took is None else f"{took:.1f}"
        lines.append([model, written(ratio), compiles, *seconds, *memory])
    return columns, lines


def errors(report: Report) -> tuple[list[str], Lines]:
    """Every form of every engine: its time, and how far its answers are from FP32."""
    columns = ["model", "ratio", "threads", "batch", "engine", "form"]
    columns += ["ms", "fastest", "error", ""]
    lines: Lines = []
    for row in report["results"]:
        head = [row["model"], written(row["ratio"]), str(row["threads"]), str(row["batch"])]
        head += [NAMES[row["engine"]], row["form"]]
        if "unavailable" in row:
            lines.append([*head, "-", "-", "-", f"not available: {row['unavailable']}"])
        else:
            note = "**wrong answers**" if row["wrong"] else ""
            fastest = f"{row['least_seconds'] * 1e3:.2f}"
            lines.append([*head, _ms(row), fastest, f"{row['error']:.1e}", note])
    return columns, lines


def rooflines(report: Report) -> tuple[list[str], Lines]:
    """What spu-ir reaches of the roofline, in a whole run and by layer."""
    columns = ["model", "ratio", "where", "whole run", "layers: least", "median", "most"]
    lines: Lines = []
    for row in report["results"]:
        found = row.get("roofline")
        if found is None:
            continue
        layers: Row = found.get("summary") or {}
        numbers = [_share(layers.get(key)) for key in ("least", "median", "most")]
        where = place(row["threads"], row["batch"])
        head = [row["model"], written(row["ratio"]), where, _share(found["of_run"])]
        lines.append([*head, *numbers])
    return columns, lines


def by_layer(report: Report) -> Iterator[tuple[Row, list[Row]]]:
    """The rows at batch 1 whose layers were timed, and these layers."""
    for row in report["results"]:
        found: Row = row.get("roofline") or {}
        layers: list[Row] | None = found.get("layers")
        if row["batch"] == 1 and layers:
            yield row, layers


def time_by_op(report: Report) -> tuple[list[str], Lines]:
    """
    Of every model at batch 1, one thread: the ops that take time, and what their
    multiply-accumulates would take at their ceilings.
    """
    columns = ["model", "ratio", "op", "ms", "of the run", "ms at its ceiling", "of its ceiling"]
    lines: Lines = []
    for row, layers in by_layer(report):
        spent: dict[str, float] = row["roofline"]["seconds_by_op"]
        total = sum(spent.values())
        for op, seconds in spent.items():
            if seconds < LITTLE * total:
                continue
            known = [layer for layer in layers if layer["op"] == op and layer["of_ceiling"]]
            least = sum(layer["of_ceiling"] * layer["seconds"] for layer in known)
            bound = [f"{least * 1e3:.2f}", _share(least / seconds)] if known else ["-", "-"]
            head = [row["model"], written(row["ratio"]), op, f"{seconds * 1e3:.2f}"]
            lines.append([*head, _share(seconds / total), *bound])
    return columns, lines


def worst_layers(report: Report) -> tuple[list[str], Lines]:
    """Of every model at batch 1 the three products that lose most time to their ceilings."""
    columns = ["model", "ratio", "product", "format", "us", "of its ceiling"]
    lines: Lines = []
    for row, layers in by_layer(report):
        known = [layer for layer in layers if layer["of_ceiling"] is not None]
        lost = sorted(known, key=lambda layer: -layer["seconds"] * (1 - layer["of_ceiling"]))
        for layer in lost[:3]:
            time, share = f"{layer['seconds'] * 1e6:.0f}", _share(layer["of_ceiling"])
            head = [row["model"], written(row["ratio"]), f"`{layer['layer']}`", layer["format"]]
            lines.append([*head, time, share])
    return columns, lines


def goals(report: Report) -> tuple[list[str], Lines]:
    """Every goal and model in a line; a column for every number of threads and batch."""
    rows = report["results"]
    where = places(rows)
    columns = ["goal", "model", "at least", *(place(*each) for each in where)]
    found: dict[tuple[str, str], dict[tuple[int, int], Verdict]] = {}
    for each in verdicts(rows):
        line = found.setdefault((each.goal.title, each.model), {})
        line[each.threads, each.batch] = each
    lines: Lines = []
    for (title, model), line in found.items():
        factor = next(iter(line.values())).goal.of(model)
        cells = [_verdict(line.get(each)) for each in where]
        lines.append([title, model, f"{factor:g}", *cells])
    return columns, lines


def reading(report: Report) -> list[str]:
    """The goals in plain words, one sentence each."""
    found = verdicts(report["results"])
    sentences: list[str] = []
    for threads, batch in places(report["results"]):
        for title in dict.fromkeys(each.goal.title for each in found):
            these = [
                each
                for each in found
                if (each.goal.title, each.threads, each.batch) == (title, threads, batch)
            ]
            if not these:
                continue
            ratio, engine = written(these[0].goal.ratio), NAMES[these[0].goal.engine]
            parts = [
                _listed("holds for", [each for each in these if each.holds]),
                _listed("is missed for", [each for each in these if each.holds is False]),
                _listed("could not be decided for", [each for each in these if each.found is None]),
            ]
            said = "; ".join(part for part in parts if part)
            sentences.append(f"{place(threads, batch)}: {ratio} against {engine} {said}.")
    return sentences


def _listed(what: str, these: Sequence[Verdict]) -> str:
    if not these:
        return ""
    names = [
        each.model if each.found is None else f"{each.model} ({each.found:.2f})" for each in these
    ]
    return f"{what} {', '.join(names)}"


def _verdict(verdict: Verdict | None) -> str:
    if verdict is None or verdict.found is None:
        return "-"
    return f"{verdict.found:.2f} {_held(verdict.holds)}"


def _held(holds: bool | None) -> str:
    return "holds" if holds else "missed"


def _ms(row: Row | None) -> str:
    return "-" if row is None else f"{row['seconds'] * 1e3:.2f}"


def _times(factor: float | None) -> str:
    return "-" if factor is None else f"{factor:.2f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def sections(report: Report) -> list[tuple[str, tuple[list[str], Lines]]]:
    """All tables with their titles."""
    found = [("Goals", goals(report)), ("Limits", limited(report))]
    for threads, batch in places(report["results"]):
        title = f"Milliseconds a run, {place(threads, batch)}"
        found.append((title, latency(report, threads, batch)))
    return [
        *found,
        ("Inputs a second", throughput(report)),
        ("Loading and memory", loading(report)),
        ("Roofline", rooflines(report)),
        ("Where the time goes", time_by_op(report)),
        ("Products that lose most to their ceilings", worst_layers(report)),
        ("Every form of every engine", errors(report)),
    ]


def not_available(report: Report) -> list[str]:
    """Engines that could not be measured at all, and why."""
    return [
        f"{NAMES[name]}: not available: {found['reason']}"
        for name, found in report["engines"].items()
        if not found["available"]
    ]


def show(report: Report) -> None:
    """Print all tables."""
    console = Console()
    for title, (columns, lines) in sections(report):
        table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
        for name in columns:
            table.add_column(name)
        for line in lines:
            table.add_row(*line)
        if lines:
            console.print(table)
    for line in [*not_available(report), *reading(report)]:
        console.print(line)


def measured(report: Report) -> str:
    """When, where and with what."""
    found: dict[str, str] = {}
    for row in report["results"]:
        found |= row.get("versions", {})
    named = ", ".join(f"{name} {version}" for name, version in found.items())
    ceilings = report["ceilings"]
    rates = [
        f"{what} {ceilings[key] / 1e9:.0f} G MAC/s"
        for key, what in (("dot", "vpdpbusd"), ("pair", "vpermb + vpdpbusd"))
        if ceilings[key]
    ]
    loads = [row["loadavg"] for row in report["results"] if "loadavg" in row]
    busy = f"{min(loads):.1f} to {max(loads):.1f}" if loads else "unknown"
    policy = "; engines ran under a real-time policy" if report["policy"] == "realtime" else ""
    commands = "\n".join([*report["earlier"], report["command"]])
    quick = "**Two layers of each model and short inputs: a trial.** " if report["quick"] else ""
    return (
        f"{quick}Measured on {report['date']} with {named}; {report['machine']}, "
        f"{report['processors']} processors, level {report['level']}. Ceilings of one thread: "
        f"{', '.join(rates) or 'none at this level'}. Load average while it was measured, "
        f"the benchmark's own included: {busy}{policy}.\n\n```text\n{commands}\n```\n"
    )


def page(report: Report, picture: str) -> str:
    """docs/performance.md."""
    text = INTRODUCTION.read_text(encoding="utf-8") + "\n## Results\n\n" + measured(report)
    said = [*not_available(report), *reading(report)]
    text += "\n" + "".join(f"- {line}\n" for line in said)
    text += f"\n![Latency of every engine, as multiples of spu-ir's]({picture})\n"
    for title, (columns, lines) in sections(report):
        if lines:
            escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
            text += f"\n## {title}\n\n{markdown(columns, escaped)}"
    packages = [
        [row["model"], written(row["ratio"]), f"`{row['package'][:16]}`", row["accepted"]]
        for row in report["results"]
        if "package" in row and (row["threads"], row["batch"]) == places(report["results"])[0]
    ]
    if packages:
        columns = ["model", "ratio", "package's digest", "accepted by the fidelity benchmark"]
        text += f"\n## Packages\n\n{markdown(columns, packages)}"
    return text


def write_page(path: Path, report: Report) -> None:
    """Write the page, and beside it its JSON and its picture."""
    picture = path.with_suffix(".svg")
    picture.write_text(bars(report["results"], NAMES), encoding="utf-8")
    path.write_text(page(report, picture.name), encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
