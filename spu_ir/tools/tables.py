"""What tables of models on a terminal share: names, and a console that is wide enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def clean(text: str) -> str:
    """A name from a model, without control characters."""
    return repr(text)[1:-1]


def console_for(tables: Sequence[Table]) -> Console:
    """As wide as they need it to be: a narrow terminal, or a file, takes longer lines."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console()
    wide = console.options.update(max_width=500)
    needed = max(Measurement.get(console, wide, table).maximum for table in tables)
    return Console(width=max(console.width, needed))


def seconds(value: float) -> str:
    """A time with its unit."""
    return f"{si(value)}s" if value else "0 s"


_SCALES = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1), ("m", 1e-3), ("µ", 1e-6))


def si(value: float) -> str:
    """Three digits and a prefix, before a unit."""
    for prefix, scale in _SCALES:
        if abs(value) >= scale:
            return f"{value / scale:.3g} {prefix}"
    return f"{value / 1e-9:.3g} n" if value else "0 "
