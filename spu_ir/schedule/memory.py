"""What of a program's memory a core's L2 holds: working set, weights, and what spills to DDR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spu_ir.schedule.work import WEIGHTS, Buffer, Step


@dataclass(frozen=True)
class Residence:
    """Shares of what a program touches that stay in L2, from 0 to 1."""

    working_set: int
    """Bytes of the arena: the memory plan's, in which buffers follow each other."""
    weights: int
    """Bytes of all constants that one pass reads, each once."""
    spilled: float
    """Of the traffic to the arena: what goes to DDR and comes back."""
    streamed: float
    """Of the weights: what every pass reads from DDR again."""


def residence(
    steps: Sequence[Step], buffers: Sequence[Buffer], l2: float, copies: int = 1
) -> Residence:
    """
    What stays in `l2` bytes: the working set first, then `copies` of the weights in what is left.

    Both are cut in proportion where they do not fit: a larger L2 never moves more.
    """
    arena = sum(buffer.bytes for buffer in buffers if buffer.kind == "arena")
    weights = weight_bytes(steps, buffers)
    left = max(0.0, l2 - arena) / copies
    return Residence(
        working_set=arena,
        weights=weights,
        spilled=max(0.0, 1 - l2 / arena) if arena else 0.0,
        streamed=max(0.0, 1 - left / weights) if weights else 0.0,
    )


def weight_bytes(steps: Sequence[Step], buffers: Sequence[Buffer]) -> int:
    """
    Bytes of constants that a pass reads, each once, however many steps read it.

    Of a table that rows are gathered from, the rows that are.
    """
    sizes: dict[tuple[int, ...], int] = {}
    kinds = {buffer.number: buffer.kind for buffer in buffers}
    for step in steps:
        constants = tuple(n for n in step.reads if kinds[n] == "constant")
        if constants:
            read = step.once_read.get(WEIGHTS, 0)
            sizes[constants] = max(read, sizes.get(constants, 0))
    return sum(sizes.values())


def crossing(
    buffers: Sequence[Buffer], itemsize: Mapping[str, int], wire: int | None
) -> dict[int, int]:
    """
    Bytes of every input and output as they cross the host link and lie in DDR, by number.

    `itemsize` has the bytes of an element of the ports of floating-point numbers; inputs of these
    cross with `wire` bytes each, if given. All other ports cross as they are.
    """
    result: dict[int, int] = {}
    for buffer in buffers:
        size = itemsize.get(buffer.name)
        if buffer.kind == "input" and wire is not None and size is not None:
            result[buffer.number] = buffer.bytes // size * wire
        elif buffer.kind in ("input", "output"):
            result[buffer.number] = buffer.bytes
    return result
