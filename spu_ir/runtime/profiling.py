"""Runs of a profiled program, and what comes of their counters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from spu_ir.errors import SpuError
from spu_ir.runtime.counters import NANOSECONDS, Counted
from spu_ir.runtime.program import Array
from spu_ir.schedule.estimate import Estimate
from spu_ir.schedule.of_model import take_batch
from spu_ir.schedule.profile import Profile
from spu_ir.schedule.shares import longest
from spu_ir.schedule.work import WorkTable
from spu_ir.targets import Target

if TYPE_CHECKING:
    from spu_ir.runtime.model import CompiledModel


def profile(
    model: CompiledModel,
    run: Callable[[Array], None],
    extents: Mapping[str, int],
    *,
    target: Target,
    runs: int,
) -> Profile:
    """
    What `CompiledModel.profile` says; `run` runs its profiled program, which adds to an array of
    counters.

    Raises SpuError for fewer than one run.
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
    estimate, batch = _estimate(model, target, extents, _real(table, extents, first))
    # Cores take shares of the batch, and a core as many samples at once as fit.
    cores = estimate.chips * estimate.cores
    passes = ceil(ceil(batch / cores) / estimate.core_batch)
    return Profile(
        target=target.name,
        level=model.level,
        threads=model.threads,
        runs=runs,
        extents=dict(extents),
        latency_s=estimate.latency_s,
        steps=Profile.of(
            table.steps(extents),
            first.work(table),
            first.zeros,
            (nanoseconds / 1e9).tolist(),
            [passes * longest(layer) for layer in estimate.layers],
        ),
    )


def _estimate(
    model: CompiledModel, target: Target, extents: Mapping[str, int], real: float | None
) -> tuple[Estimate, int]:
    """The estimate of a run at `extents`, and its samples."""
    others = dict(extents)
    batch = take_batch(others, model.inputs)
    return model.estimate(target, batch, others, real=real), batch


def _real(table: WorkTable, extents: Mapping[str, int], counted: Counted) -> float | None:
    """The share of padded rows that are real; None in a program that skips no padding."""
    most = sum(sum(rows) for rows in table.rows(extents).values())
    return counted.real_rows / most if most else None
