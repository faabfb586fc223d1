"""The published benchmark for eyes: a table on a terminal, and docs/device-model.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from spu_ir.schedule.estimate import Estimate
from spu_ir.schedule.shares import KINDS, alike, shares
from spu_ir.targets import NAMES, Target

if TYPE_CHECKING:
    from .published import Result

TEMPLATE = Path(__file__).with_name("published_page.md")
"""The page with marks such as `{{results}}` in the place of what is generated."""

COLUMNS = ("workload", "card", "published", "modelled", "off by", "", "source")

LONGEST = 5
"""Steps of a model that the page lists."""


def show(results: Sequence[Result]) -> None:
    """Print the table."""
    table = Table(box=None, header_style="bold")
    for name in (*COLUMNS[:-1], "bottleneck", "W", "source"):
        right = name in ("published", "modelled", "off by", "W")
        narrow = name not in ("workload", "source")
        table.add_column(
            name, justify="right" if right else "left", no_wrap=narrow, overflow="fold"
        )
    for each in results:
        *cells, source = _cells(each)
        found = each.estimate
        table.add_row(*cells, found.bottleneck, f"{found.power_w:.0f}", source)
    Console().print(table)


def _cells(each: Result) -> list[str]:
    row = each.row
    return [
        row.workload,
        row.card.upper(),
        f"{row.published:,.0f}" if row.published else "",
        f"{each.estimate.throughput:,.0f}",
        f"{each.error:+.1%}" if each.error is not None else "",
        each.verdict + (f" ({row.limit:.0%})" if row.limit else ""),
        row.source,
    ]


def write_page(path: Path, results: Sequence[Result], what_if: Mapping[str, str]) -> None:
    """Write the page."""
    path.write_text(page(results, what_if), encoding="utf-8")


def page(results: Sequence[Result], what_if: Mapping[str, str]) -> str:
    """
    docs/device-model.md: the template with its marks filled in.

    `what_if` has the marks of what other chips would do.
    """
    s30 = {each.row.case: each.estimate for each in results if each.row.card == "s30"}
    parts = {
        "results": _markdown(
            (*COLUMNS[:5], "", "source, note"),
            ([*_cells(each)[:6], _source(each)] for each in results),
        ),
        "scaling": _scaling(results),
        "shares": _shares(s30),
        "units": _units(results),
        "longest": _longest(s30),
        "figures": _figures(),
        "cards": _cards(),
        **what_if,
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, value in parts.items():
        assert f"{{{{{name}}}}}" in text, f"the page has no place for {name}"
        text = text.replace(f"{{{{{name}}}}}", value)
    assert "{{" not in text, "the page has a mark that nothing fills in"
    return text


def _source(each: Result) -> str:
    return "; ".join(filter(None, (each.row.source, each.row.note)))


def _scaling(results: Sequence[Result]) -> str:
    rows = {r.row.card: r for r in results if r.row.workload == "ResNet-50 Offline"}
    one = rows["s4"]
    assert one.row.published is not None
    lines: list[list[str]] = []
    for card in NAMES:
        each = rows[card]
        assert each.row.published is not None
        published = each.row.published / one.row.published
        modelled = each.estimate.throughput / one.estimate.throughput
        off = modelled / published - 1
        lines.append([card.upper(), f"{published:.2f}", f"{modelled:.2f}", f"{off:+.1%}"])
    return _markdown(("card", "published", "modelled", "difference"), lines)


def _shares(estimates: dict[str, Estimate]) -> str:
    lines = [
        [case, *(f"{share:.1%}" for share in shares(found.layers).values())]
        for case, found in estimates.items()
    ]
    return _markdown(("model", *KINDS), lines)


def _units(results: Sequence[Result]) -> str:
    units = ("host in", "dma", "spu", "vpu", "sfu", "host out")
    lines: list[list[str]] = []
    seen: set[tuple[str, str, str]] = set()
    for each in results:
        found, key = each.estimate, (each.row.workload, each.row.case, each.row.card)
        if key in seen:
            continue
        seen.add(key)
        lines.append(
            [
                each.row.workload,
                each.row.card.upper(),
                *(f"{found.busy[unit]:.0%}" for unit in units),
                f"{found.latency_s * 1e3:.2f}",
                f"{found.energy_j * 1e3:.2f}",
                f"{found.power_w:.0f} of {found.target.card.tdp.value:g}",
            ]
        )
    return _markdown(("workload", "card", *units, "latency, ms", "mJ a sample", "W"), lines)


def _longest(estimates: dict[str, Estimate]) -> str:
    lines: list[list[str]] = []
    for case in ("resnet50", "bert", "conformer"):
        found = estimates[case]
        for group in alike(found.layers)[:LONGEST]:
            one = group.first
            lines.append(
                [
                    case,
                    f"`{one.layer}`",
                    one.op,
                    str(len(group.layers)),
                    f"{group.share:.1%}",
                    one.bottleneck,
                    f"{one.work.macs / found.core_batch / 1e6:,.1f}",
                    f"{one.work.dense_macs / found.core_batch / 1e6:,.1f}",
                ]
            )
    names = ("model", "step", "op", "alike", "share", "limited by", "M MACs", "M MACs unpruned")
    return _markdown(names, lines)


def _figures() -> str:
    target = Target.load("s4")
    lines = (
        [f"`{name}`", f"{figure.value:g}", figure.unit, figure.status, figure.source]
        for name, figure in target.figures().items()
    )
    return _markdown(("figure", "S4", "unit", "status", "source"), lines)


def _cards() -> str:
    base = Target.load("s4").figures()
    lines: list[list[str]] = []
    for card in NAMES[1:]:
        for name, figure in Target.load(card).figures().items():
            if figure != base[name]:
                values = (f"{figure.value:g}", figure.unit, figure.status, figure.source)
                lines.append([card.upper(), f"`{name}`", *values])
    return _markdown(("card", "figure", "value", "unit", "status", "source"), lines)


def _markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
