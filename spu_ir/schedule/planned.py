"""What one core does of each step, and for how long each of its units is at work with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from spu_ir.schedule.energy import Operations
from spu_ir.schedule.memory import Residence
from spu_ir.schedule.options import Options
from spu_ir.schedule.rates import Rates
from spu_ir.schedule.work import WEIGHTS, Step

PRODUCTS = ("spu.matmul", "spu.conv")
"""Products with a constant weight: their vector operations are epilogues, done by the SPU."""

WHOLE_SAMPLES = ("spu.attention", "spu.packed_attention", "spu.batch_matmul")
"""What starts with a whole sample: every query row needs all keys."""


@dataclass(frozen=True)
class Port:
    """An input or output: its bytes in the program, and as they cross the host link."""

    size: int
    crossing: int


@dataclass(frozen=True)
class Part:
    """One reason that a step takes time: the unit that is at work, and for how long."""

    unit: str
    limit: str
    """`macs`, `epilogue`, `vector`, `special`, `l2`, `ddr`, `noc` or `launch`."""
    seconds: float
    amount: int
    """Operations or bytes."""


@dataclass(frozen=True)
class Planned:
    """A step with what it makes one core do."""

    step: Step
    parts: tuple[Part, ...]
    done: Operations
    weights: int
    """Bytes of weights that are loaded for it: they can come ahead of it."""
    loaded: int
    """Bytes of spilled buffers and inputs that are loaded."""
    stored: int
    """Bytes of spilled buffers that are stored; outputs leave by the queue of the host link."""

    @property
    def bottleneck(self) -> Part | None:
        """The part that takes longest; None for a step that takes no time."""
        longest = max(self.parts, key=lambda part: part.seconds, default=None)
        return longest if longest is not None and longest.seconds > 0 else None

    def busy(self, unit: str) -> float:
        """
        Seconds that `unit` is at work with the step: its longest part, after its launch.

        The SPU finishes sums while it multiplies, and both move bytes meanwhile.
        """
        limits = [p.seconds for p in self.parts if p.unit == unit and p.limit != "launch"]
        launches = [p.seconds for p in self.parts if p.unit == unit and p.limit == "launch"]
        return max(limits, default=0.0) + sum(launches)

    def amount(self, unit: str) -> int:
        """What `unit` does, as its longest part counts it."""
        parts = [p for p in self.parts if p.unit == unit and p.limit != "launch"]
        return max(parts, key=lambda part: part.seconds).amount if parts else 0


def plan_steps(
    steps: Sequence[Step],
    ports: Mapping[int, Port],
    shared: Residence,
    rates: Rates,
    options: Options,
    parts: int,
) -> list[Planned]:
    """
    What a core does of each of `steps`, where `parts` cores share every step.

    `ports` has all inputs and outputs by number.
    """
    return [_planned(step, ports, shared, rates, options, parts) for step in steps]


def _planned(
    step: Step,
    ports: Mapping[int, Port],
    shared: Residence,
    rates: Rates,
    options: Options,
    parts: int,
) -> Planned:
    work = step.work
    product = step.op in PRODUCTS
    macs = work.macs - (int(work.macs * options.zero_share(step.layer)) if product else 0)
    macs, vector, special = (
        -(-count // parts) for count in (macs, work.vector_ops, work.special_ops)
    )
    constants = step.once_read.get(WEIGHTS, 0)
    if options.cores == "broadcast":
        constants = -(-constants // parts)
    read, written = _bytes(step.once_read), _bytes(step.once_written)
    # Where the memory plan puts a buffer is the host's concern: here L2 has what fits in it, and
    # ports are in DDR.
    read, port_in = _of_ports(read, [ports[n] for n in step.reads if n in ports])
    written, port_out = _of_ports(written, [ports[n] for n in step.writes if n in ports])
    arena_in, arena_out, port_in, port_out = (
        -(-size // parts) for size in (read, written, port_in, port_out)
    )
    weights = ceil(constants * shared.streamed)
    loaded = ceil(arena_in * shared.spilled) + port_in
    stored = ceil(arena_out * shared.spilled)
    dma = weights + loaded + stored
    moved = {
        "l2": arena_in + arena_out + constants,
        "ddr": dma + port_out,
        "noc": _gathered(step, options, parts),
    }
    found = [
        Part("spu", "macs", macs / rates.macs[step.precision], macs),
        Part("spu", "epilogue", vector / rates.epilogue, vector if product else 0),
        Part("vpu", "vector", vector / rates.vector[step.precision], 0 if product else vector),
        Part("sfu", "special", special / rates.special, special),
        Part(step.unit, "l2", moved["l2"] / rates.l2_bandwidth, moved["l2"]),
        Part(step.unit, "launch", rates.launch, 1 if rates.launch else 0),
        Part("dma", "ddr", dma / rates.ddr, dma),
        Part("noc", "noc", moved["noc"] / rates.noc, moved["noc"]),
    ]
    return Planned(
        step=step,
        parts=tuple(part for part in found if part.amount),
        done=Operations(macs, vector, special, {k: v for k, v in moved.items() if v}),
        weights=weights,
        loaded=loaded,
        stored=stored,
    )


def _of_ports(moved: int, ports: Sequence[Port]) -> tuple[int, int]:
    """Of bytes moved: those that are no port's, and those of ports, as they lie in DDR."""
    size = sum(port.size for port in ports)
    if not size:
        return moved, 0
    of_ports = min(moved, size)
    return moved - of_ports, of_ports * sum(port.crossing for port in ports) // size


def _gathered(step: Step, options: Options, parts: int) -> int:
    """
    Bytes that cross the network so that every core has what it needs for its part of what follows.

    "broadcast": all cores get all channels of a product. "split": all cores get all keys and
    values; rows at the edge of a convolution's part are left out, as they are few.
    """
    if parts == 1 or step.unit != "spu":
        return 0
    if options.cores == "broadcast":
        return _bytes(step.once_written) * (parts - 1)
    return _bytes(step.once_read) * (parts - 1) if step.op in WHOLE_SAMPLES else 0


def _bytes(moved: Mapping[str, int]) -> int:
    """All but constants."""
    return sum(size for space, size in moved.items() if space != WEIGHTS)
