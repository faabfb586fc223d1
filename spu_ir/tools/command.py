"""What the commands do alike: one `error:` line and exit code 1 for what the user gave."""

from __future__ import annotations

import sys
from collections.abc import Callable

from spu_ir.errors import SpuError


def exit_code(run: Callable[[], None]) -> int:
    """Call `run`; 0, or 1 after an SpuError was printed to standard error."""
    try:
        run()
    except SpuError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
