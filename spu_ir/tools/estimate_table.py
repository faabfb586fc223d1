"""An estimate for eyes: tables of the card and of its layers; and the same as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spu_ir.tools.tables import clean, console_for, seconds, si

if TYPE_CHECKING:
    from rich.table import Table

    from spu_ir.schedule.estimate import Estimate
    from spu_ir.schedule.shares import Group

Swept = Sequence[tuple[float, "Estimate"]]
"""Values of a figure of the target, and the estimates with them."""

RANDOM = "scales are from random inputs of unit variance: times depend on shapes, not on scales"


def estimate_json(
    model: str, how: Mapping[str, Any], estimate: Estimate, swept: str, sweep: Swept
) -> dict[str, Any]:
    """Everything that the tables say, for every layer."""
    from spu_ir.schedule.shares import alike, shares

    return {
        "model": model,
        **how,
        **_totals(estimate),
        "shares": shares(estimate.layers),
        "groups": [group.to_json() for group in alike(estimate.layers)],
        "layers": estimate.to_json()["layers"],
        "sweep": {"figure": swept, "values": [{"value": v, **_totals(e)} for v, e in sweep]}
        if sweep
        else None,
    }


def _totals(estimate: Estimate) -> dict[str, Any]:
    found = estimate.to_json()
    del found["layers"]
    samples = 1 / estimate.energy_j if estimate.energy_j else None
    return {**found, "samples_per_joule": samples, "tdp_w": estimate.target.card.tdp.value}


def print_estimate(
    model: str,
    how: Mapping[str, Any],
    estimate: Estimate,
    swept: str,
    sweep: Swept,
    most: int | None,
) -> None:
    """
    Print the card's totals, a sweep, and `most` groups of like steps; None: every step in order.

    `how` has the precision, the sparsity and what scales were taken from.
    """
    from rich.text import Text

    tables = [_card(estimate), _kinds(estimate)]
    tables += [_sweep(swept, estimate, sweep)] if sweep else []
    tables += [_steps(estimate) if most is None else _groups(estimate, most)]
    console = console_for(tables)
    console.print(Text(f"{clean(model)} on {estimate.target.name}", style="bold"))
    console.print(Text(_settings(how, estimate)))
    if how.get("calibration") == "random":
        console.print(Text(RANDOM))
    for table in tables:
        console.print(table)
    console.print(Text("modelled, not measured: docs/device-model.md"))


def _settings(how: Mapping[str, Any], estimate: Estimate) -> str:
    sparsity = how.get("sparsity")
    others = ((name, value) for name, value in estimate.extents.items() if name != "batch")
    extents = [f"{clean(name)} {value}" for name, value in others]
    passes = f"{estimate.core_batch} a pass" if estimate.core_batch > 1 else "one a pass"
    return "; ".join(
        (
            str(how.get("precision") or "unknown precision"),
            f"one weight in {sparsity}" if sparsity else "weights as they are",
            f"batch {estimate.batch} on {estimate.chips} x {estimate.cores} cores, {passes}",
            *([", ".join(extents)] if extents else []),
        )
    )


def _table(headings: Iterable[str], left: int = 1, title: str = "") -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left")
    for number, heading in enumerate(headings):
        justify = "left" if number < left else "right"
        table.add_column(heading, justify=justify, no_wrap=True, max_width=60)
    return table


def _card(estimate: Estimate) -> Table:
    e = estimate
    over = e.power_w > e.target.card.tdp.value
    table = _table(("card", "", "unit", "busy", "level", "a batch"))
    left = [
        ("throughput", f"{e.throughput:,.1f} /s"),
        ("latency", seconds(e.latency_s)),
        ("samples a joule", f"{1 / e.energy_j:,.3g}" if e.energy_j else "-"),
        ("energy a sample", f"{si(e.energy_j)}J"),
        ("power", f"{e.power_w:.0f} of {e.target.card.tdp.value:g} W{' (over)' * over}"),
        ("bottleneck", e.bottleneck),
        ("weights", f"{si(e.weights)}B, {e.streamed:.0%} streamed"),
        ("buffers", f"{si(e.working_set)}B, {e.spilled:.0%} spilled"),
    ]
    middle = [(unit, f"{share:.1%}") for unit, share in e.busy.items()]
    right = [(level, f"{si(size)}B") for level, size in e.bytes.items()]
    for row in range(max(len(left), len(middle), len(right))):
        parts = (part[row] if row < len(part) else ("", "") for part in (left, middle, right))
        table.add_row(*(cell for pair in parts for cell in pair))
    return table


def _kinds(estimate: Estimate) -> Table:
    from spu_ir.schedule.shares import shares

    table = _table(("where time goes", "share", "the rest gains at most"))
    for kind, share in shares(estimate.layers).items():
        table.add_row(kind, f"{share:.1%}", f"{1 / share:,.1f}x" if share else "-")
    return table


def _sweep(figure: str, estimate: Estimate, sweep: Swept) -> Table:
    given = estimate.target.figures()[figure]
    table = _table(
        (figure, "throughput", "change", "latency", "samples/J", "power", "bottleneck"),
        title=f"{estimate.target.name} has {figure} = {given.value:g} {given.unit}",
    )
    for value, each in sweep:
        table.add_row(
            f"{value:g}",
            f"{each.throughput:,.1f} /s",
            f"{each.throughput / estimate.throughput - 1:+.1%}",
            seconds(each.latency_s),
            f"{1 / each.energy_j:,.3g}" if each.energy_j else "-",
            f"{each.power_w:.0f} W",
            each.bottleneck,
        )
    return table


COLUMNS = ("time", "share", "limited by", "MACs", "unpruned", "L2", "DDR", "energy")
"""Of a step, or of a group of them, in one pass of one core."""
_MACS = ("macs", "dense_macs")


def _groups(estimate: Estimate, most: int) -> Table:
    from rich.text import Text

    from spu_ir.schedule.shares import alike

    groups = alike(estimate.layers)
    shown = groups[:most]
    rest = sum(group.share for group in groups[most:])
    title = f"{len(shown)} of {len(groups)} groups of like steps"
    title += f"; the others take {rest:.1%} (--layers all)" if len(shown) < len(groups) else ""
    table = _table(("first step", "op", "precision", "alike", *COLUMNS), 3, title)
    for group in shown:
        one, count = group.first, f"{len(group.layers)}"
        name = Text(clean(one.layer) or "-")
        table.add_row(name, one.op, one.precision, count, *_cells(group))
    return table


def _steps(estimate: Estimate) -> Table:
    from rich.text import Text

    from spu_ir.schedule.shares import Group, longest

    total = sum(map(longest, estimate.layers))
    table = _table(("step", "op", "precision", "starts", *COLUMNS), 3, "every step of a pass")
    for layer in estimate.layers:
        time = longest(layer)
        alone = Group((layer,), time, time / total if total else 0.0)
        name, start = Text(clean(layer.layer) or "-"), seconds(layer.start_s)
        table.add_row(name, layer.op, layer.precision, start, *_cells(alone))
    return table


def _cells(group: Group) -> list[str]:
    macs = (sum(getattr(each.work, name) for each in group.layers) for name in _MACS)
    moved = (group.bytes(level) for level in ("l2", "ddr"))
    return [
        seconds(group.seconds),
        f"{group.share:.1%}",
        group.first.bottleneck or "-",
        *(si(number).strip() if number else "-" for number in macs),
        *(f"{si(size)}B" if size else "-" for size in moved),
        f"{si(sum(each.energy_j for each in group.layers))}J",
    ]
