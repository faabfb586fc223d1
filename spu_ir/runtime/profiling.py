"""Runs of a profiled program, and what comes of their counters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from spu_ir.errors import SpuError
from spu_ir.runtime.counters import NANOSECONDS, Counted
from spu_ir.runtime.program import Array
from spu_ir.schedule.profile import Profile

if TYPE_CHECKING:
    from spu_ir.runtime.model import CompiledModel


def profile(
    model: CompiledModel,
    run: Callable[[Array], None],
    extents: Mapping[str, int],
    *,
    target: str | None,
    runs: int,
) -> Profile:
    """
    What `CompiledModel.profile` says; `run` runs its profiled program, which adds to an array of
    counters.

    Raises SpuError for fewer than one run, and where runs count different work, which is a bug.
    """
    if runs < 1:
        raise SpuError(f"runs={runs} profiles nothing", remedy="use 1 or more")
    table = model.work
    # Memory is touched for the first time in the first run, so it is not counted.
    run(Counted.empty(table).values)
    counted = [Counted.empty(table) for _ in range(runs)]
    for each in counted:
        run(each.values)
    first = counted[0]
    nanoseconds = np.median([each.values[:, NANOSECONDS] for each in counted], axis=0)
    card = target or str(model.options.get("target", "s4"))
    return Profile(
        target=card,
        level=model.level,
        threads=model.threads,
        runs=runs,
        extents=dict(extents),
        steps=Profile.of(
            table.steps(extents),
            first.work(table),
            first.zeros,
            (nanoseconds / 1e9).tolist(),
            None,
        ),
    )
