"""Runs of a compiled model that are shared: which requests go together, and who gets which rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from spu_ir.errors import SpuError

if TYPE_CHECKING:
    from spu_ir.runtime.model import CompiledModel
    from spu_ir.runtime.program import Extent, Port

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Feeds: TypeAlias = Mapping[str, Array]
Signature: TypeAlias = tuple[tuple[int, ...], ...]


class Interface(Protocol):
    """What a compiled model, and a package that is not loaded, takes and gives."""

    @property
    def inputs(self) -> tuple[Port, ...]:
        """In the program's order."""
        ...

    @property
    def outputs(self) -> tuple[Port, ...]:
        """In the program's order."""
        ...

    @property
    def extents(self) -> tuple[Extent, ...]:
        """Those of run time."""
        ...


@dataclass(frozen=True)
class Rows:
    """
    The batch of a model: axis 0 of all its inputs and outputs, where these agree on one extent.

    A run takes `minimum` to `maximum` rows; with fewer, the last one is repeated and what comes
    of that is dropped. Without such an axis a model is `shared` by no two requests.
    """

    minimum: int
    maximum: int
    shared: bool

    @staticmethod
    def of(model: Interface) -> Rows:
        """The batch of a model."""
        ports = (*model.inputs, *model.outputs)
        found = {port.shape[0] if port.shape else None for port in ports}
        extent = found.pop() if len(found) == 1 else None
        if isinstance(extent, int):
            return Rows(extent, extent, extent > 0)
        # Behind axis 0 the extent must not be: else rows are not apart.
        elsewhere = {d for port in ports for d in port.shape[1:]}
        for each in model.extents:
            if each.name == extent and extent not in elsewhere and each.maximum > 0:
                return Rows(max(each.minimum, 1), each.maximum, True)
        return Rows(1, 1, False)


def signature(model: CompiledModel, feeds: Feeds) -> Signature:
    """What requests must have alike to share a run: the shapes of their inputs behind axis 0."""
    return tuple(feeds[port.name].shape[1:] for port in model.inputs)


def run_together(
    model: CompiledModel, rows: Rows, requests: Sequence[Feeds]
) -> list[dict[str, Array] | SpuError]:
    """
    Answer requests of one signature with one run: each by its outputs, or by its error.

    Their rows are at most `rows.maximum` together. Where a run fails because
    of what is in the inputs, every request is run alone, so that only the bad ones fail. A model
    that is not shared takes one request.
    """
    assert requests
    if not rows.shared:
        assert len(requests) == 1
        return [_run(model, requests[0])]
    counts = [len(feeds[model.inputs[0].name]) for feeds in requests]
    total = sum(counts)
    assert total <= rows.maximum
    joined: dict[str, Array] = {}
    for port in model.inputs:
        parts = [feeds[port.name] for feeds in requests]
        if total < rows.minimum:
            parts.append(np.repeat(parts[-1][-1:], rows.minimum - total, axis=0))
        joined[port.name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
    outputs = _run(model, joined)
    if isinstance(outputs, SpuError):
        if len(requests) == 1:
            return [outputs]
        return [run_together(model, rows, [feeds])[0] for feeds in requests]
    answers: list[dict[str, Array] | SpuError] = []
    start = 0
    for count in counts:
        # Copies, so that one answer does not keep those of others in memory.
        part = slice(start, start + count)
        answers.append({name: array[part].copy() for name, array in outputs.items()})
        start += count
    return answers


def _run(model: CompiledModel, feeds: Feeds) -> dict[str, Array] | SpuError:
    try:
        return model.run(feeds)
    except SpuError as error:
        return error
