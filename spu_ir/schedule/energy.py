"""
Energy of work: whole attojoules, so that sums over steps are exact in any order.

A step takes what its operations and bytes take; a card takes `card.idle` besides, all the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spu_ir.targets import Figure, Target

ATTO = 1e-18
_PICO = 1_000_000  # attojoules


@dataclass(frozen=True)
class Operations:
    """What one step makes a core do, in whole numbers."""

    macs: int = 0
    vector_ops: int = 0
    special_ops: int = 0
    bytes: Mapping[str, int] = field(default_factory=dict[str, int])
    """By level: "l2", "ddr", "host", "noc"."""


@dataclass(frozen=True)
class Costs:
    """Attojoules of one of each, on a target."""

    mac: Mapping[str, int]
    """By precision."""
    vector_op: int
    special_op: int
    byte: Mapping[str, int]
    """By level."""

    @classmethod
    def of(cls, target: Target) -> Costs:
        """The costs of a target; fp32 is computed in bf16, and the network costs what L2 does."""
        energy = target.energy
        bf16 = _atto(energy.bf16_mac)
        return cls(
            mac={"int8": _atto(energy.int8_mac), "bf16": bf16, "fp32": bf16},
            vector_op=_atto(energy.vector_op),
            special_op=_atto(energy.special_op),
            byte={
                "l2": _atto(energy.l2_byte),
                "noc": _atto(energy.l2_byte),
                "ddr": _atto(energy.ddr_byte),
                "host": _atto(energy.host_byte),
            },
        )

    def energy(self, done: Operations, precision: str) -> int:
        """Attojoules of a step's operations, whose products are of `precision`."""
        return (
            done.macs * self.mac[precision]
            + done.vector_ops * self.vector_op
            + done.special_ops * self.special_op
            + sum(count * self.byte[level] for level, count in done.bytes.items())
        )


def _atto(figure: Figure) -> int:
    return round(figure.value * _PICO)
