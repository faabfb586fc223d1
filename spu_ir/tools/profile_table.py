"""A profile as a table: one row a layer, and the total."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spu_ir.tools.tables import clean, console_for, seconds, si

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
            f"{seconds(profile.latency_s)} for the batch"
        )
    )


def _cells(row: StepProfile, total: StepProfile) -> Sequence[str]:
    work = row.work
    share = row.host_s / total.host_s if total.host_s else 0.0
    skipped = work.skipped / work.dense_macs if work.dense_macs else None
    return (
        seconds(row.host_s),
        f"{share:.1%}",
        seconds(row.device_s),
        si(work.macs),
        "-" if skipped is None else f"{skipped:.1%}",
        si(work.vector_ops),
        si(work.special_ops),
        f"{si(sum(work.read.values()))}B",
        f"{si(sum(work.written.values()))}B",
        f"{row.zero_share:.1%}" if work.activations else "-",
    )
