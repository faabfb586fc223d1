"""A profile as a table: one row a layer, and the total."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spu_ir.tools.tables import clean, console_for

if TYPE_CHECKING:
    from spu_ir.schedule.profile import Profile, StepProfile

COLUMNS = (
    "host",
    "share",
    "device",
    "MACs",
    "skipped",
    "vector",
    "special",
    "read",
    "written",
    "zeros",
)
"""
Of every layer: seconds on this machine and their share, seconds on the card, multiply-accumulates
and the share that sparsity skips, other operations, bytes, and zeros among the activations.
"""


def print_profile(profile: Profile) -> None:
    """Print a profile's layers in the program's order, and what they add up to."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_footer=True)
    total = profile.total
    footer = ["total", "", "", *_cells(total, total)]
    for number, heading in enumerate(("layer", "op", "precision", *COLUMNS)):
        last = footer[number] if number < len(footer) else ""
        justify = "right" if number > 2 else "left"
        table.add_column(heading, last, justify=justify, no_wrap=True, max_width=60)
    for layer in profile.layers:
        # Text: a layer's name comes from the model and is no markup.
        name = Text(clean(layer.layer))
        table.add_row(name, layer.op, layer.precision, *_cells(layer, total))
    console = console_for([table])
    console.print(table)
    extents = ", ".join(f"{name} {value}" for name, value in profile.extents.items())
    console.print(
        Text(
            f"{extents or 'fixed extents'}; median of {profile.runs} on {profile.threads} threads "
            f"({profile.level}), counting included; {profile.target}, modelled: "
            f"{_seconds(profile.latency_s)} for the batch"
        )
    )


def _cells(row: StepProfile, total: StepProfile) -> Sequence[str]:
    work = row.work
    share = row.host_s / total.host_s if total.host_s else 0.0
    skipped = work.skipped / work.dense_macs if work.dense_macs else None
    return (
        _seconds(row.host_s),
        f"{share:.1%}",
        _seconds(row.device_s),
        _count(work.macs),
        "-" if skipped is None else f"{skipped:.1%}",
        _count(work.vector_ops),
        _count(work.special_ops),
        f"{_count(sum(work.read.values()))}B",
        f"{_count(sum(work.written.values()))}B",
        f"{row.zero_share:.1%}" if work.activations else "-",
    )


def _seconds(value: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def _count(value: int) -> str:
    for unit, scale in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value} "
