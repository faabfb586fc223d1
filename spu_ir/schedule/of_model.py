"""Estimates of a model: which of its extents counts samples, and what the others are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from math import ceil
from typing import Any, Protocol

from spu_ir.errors import SpuError
from spu_ir.schedule.estimate import Estimate, estimate
from spu_ir.schedule.options import Options
from spu_ir.schedule.work import WorkTable
from spu_ir.targets import Target

FLOATS = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
"""Bytes of an element of the dtypes that an option may narrow on the wire."""

BATCH = "batch"


class Port(Protocol):
    """An input or output as `spu_ir.runtime.program.Port` describes it."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int | str, ...]: ...


def estimate_model(
    table: WorkTable,
    target: str | os.PathLike[str] | Target,
    batch: int,
    extents: Mapping[str, int] | None,
    *,
    bounds: Mapping[str, tuple[int, int]],
    inputs: Sequence[Port],
    **options: Any,
) -> Estimate:
    """
    What batches of `batch` samples of a model take on `target`.

    Samples are counted by the extent `batch`, else by the leading axis of the first input. Other
    `extents` are, by default, the largest of their `bounds`. Where that axis is fixed, a pass has
    that many samples, and the last one of a batch may be padded. `options` are those of `Options`.

    Raises SpuError for a target, an extent or an option that there is not, and for extents out of
    their bounds.
    """
    given = dict(extents or {})
    axis = _axis(bounds, inputs)
    for name, value in given.items():
        if name not in bounds or name == axis:
            others = [each for each in bounds if each != axis]
            raise SpuError(
                f"the extent {name!r} cannot be given",
                remedy=f"give {', '.join(others)}" if others else "leave extents out",
            )
        low, high = bounds[name]
        if not low <= value <= high:
            raise SpuError(f"the extent {name!r} is {value}, allowed are {low} to {high}")
    values = {name: given.get(name, high) for name, (_, high) in bounds.items()}
    chosen = _options(options)
    floats = {port.name: FLOATS[port.dtype] for port in inputs if port.dtype in FLOATS}
    card = Target.load(target)
    if axis is not None:
        least, most = bounds[axis]
        return estimate(
            table,
            card,
            batch,
            values,
            chosen,
            axis=axis,
            itemsize=floats,
            least=max(1, least),
            most=most,
        )
    samples = _fixed(inputs)
    each = estimate(table, card, ceil(batch / samples), values, chosen, axis=None, itemsize=floats)
    return replace(
        each,
        batch=batch,
        throughput=batch / each.period_s,
        energy_j=each.energy_j * each.batch / batch,
        core_batch=samples,
    )


def _axis(extents: Mapping[str, object], inputs: Sequence[Port]) -> str | None:
    """The extent that counts samples; None where their number is fixed."""
    if BATCH in extents:
        return BATCH
    leading = inputs[0].shape[0] if inputs and inputs[0].shape else None
    return leading if isinstance(leading, str) and leading in extents else None


def take_batch(extents: dict[str, int], inputs: Sequence[Port]) -> int:
    """The samples of a run at `extents`, which lose the one that counts them, if one does."""
    axis = _axis(extents, inputs)
    return _fixed(inputs) if axis is None else extents.pop(axis)


def _fixed(inputs: Sequence[Port]) -> int:
    """The samples of every run of a model that has no extent for them."""
    size = inputs[0].shape[0] if inputs and inputs[0].shape else 1
    return size if isinstance(size, int) else 1


def _options(options: Mapping[str, Any]) -> Options:
    names = [field.name for field in fields(Options)]
    for name in options:
        if name not in names:
            raise SpuError(
                f"an estimate has no option {name!r}", remedy=f"one of {', '.join(names)}"
            )
    return Options(**options)
