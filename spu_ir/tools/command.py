"""What the commands do alike: one `error:` line for what the user gave, and a bar of progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from spu_ir.errors import SpuError

if TYPE_CHECKING:
    from spu_ir.quantisation import Progress


def exit_code(run: Callable[[], None]) -> int:
    """Call `run`; 0, or 1 after an SpuError was printed to standard error."""
    try:
        run()
    except SpuError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def progress_bar(*, quiet: bool, counted: bool = False) -> Generator[Progress]:
    """
    A progress bar on standard error, shown where that is a terminal.

    With `counted` it also says how many of how many are done.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns: list[ProgressColumn] = [TextColumn("{task.description:20}"), BarColumn()]
    if counted:
        columns.append(MofNCompleteColumn())
    columns.append(TimeElapsedColumn())
    with Bar(
        *columns, console=console, transient=True, disable=quiet or not console.is_terminal
    ) as bar:
        task = bar.add_task("import", total=None)
        # What is being done may have the name of a layer, which is the model's.
        yield lambda what, done, total: bar.update(
            task, description=escape(what), completed=done, total=total or None
        )
