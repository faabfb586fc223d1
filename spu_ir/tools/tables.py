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
