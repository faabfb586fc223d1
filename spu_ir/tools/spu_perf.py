"""
`spu-perf`: run a ByteMLPerf task on this machine and report it beside the card's figures.

    spu-perf --task bert-torch-fp32 --hardware_type SPU
    spu-perf --show_task_list
    spu-perf estimate ...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

TASK = "spu_ir.perf.command"
"""What runs without a sub-command: launch.py's flags stay as they are."""

SUBCOMMANDS = {
    "estimate": "spu_ir.tools.perf_estimate",
    "install-backend": "spu_ir.contrib.byte_mlperf.install",
}
"""Sub-command -> the module whose `main(arguments)` it is, imported when it is called."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `spu-perf`; the exit code is that of the sub-command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in SUBCOMMANDS:
        return import_module(SUBCOMMANDS[given[0]]).main(given[1:])
    return import_module(TASK).main(given)


if __name__ == "__main__":
    sys.exit(main())
