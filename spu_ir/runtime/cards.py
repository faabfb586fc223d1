"""
The cards of this machine, as SPU_IR_DEVICES lists them: names of targets or TOML files, separated
by commas; one S4 by default, `none` for no card at all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from spu_ir.errors import SpuError
from spu_ir.targets import Target

VARIABLE = "SPU_IR_DEVICES"
DEFAULT = "s4"

_CHIP = (
    "chip.cores",
    "spu.count",
    "spu.int8_macs",
    "spu.bf16_macs",
    "vpu.int8_lanes",
    "vpu.bf16_lanes",
    "sfu.lanes",
    "l1.size",
    "l2.size",
)
"""The figures that make a chip what programs are compiled for; clocks and links are the board's."""


@dataclass(frozen=True)
class Device:
    """A card of this machine: its device index, and what it is."""

    index: int
    target: Target

    @property
    def name(self) -> str:
        """Of its target, such as "s30"."""
        return self.target.name

    @property
    def chips(self) -> int:
        """How many chips it has."""
        return int(self.target.card.chips.value)

    @property
    def chip_memory(self) -> int:
        """Bytes of memory of one chip."""
        return int(self.target.ddr.size.value)

    def runs(self, target: Target) -> bool:
        """Whether it has the chip that programs for `target` are compiled for."""
        mine, other = self.target.figures(), target.figures()
        return all(mine[name].value == other[name].value for name in _CHIP)


def devices() -> tuple[Device, ...]:
    """
    The cards of this machine, by device index.

    Raises SpuError if SPU_IR_DEVICES lists a target that there is not.
    """
    given = os.environ.get(VARIABLE, "").strip() or DEFAULT
    if given == "none":
        return ()
    found: list[Device] = []
    for index, entry in enumerate(given.split(",")):
        try:
            found.append(Device(index, Target.load(entry.strip())))
        except SpuError as error:
            raise SpuError(
                f"entry {index} of {VARIABLE}={given!r}: {error}",
                remedy="list names of targets or TOML files, separated by commas",
            ) from error
    return tuple(found)


def device(index: int) -> Device:
    """The card of a device index. Raises SpuError, listing those there are, if there is none."""
    found = devices()
    if index not in range(len(found)):
        listed = ", ".join(f"{one.index} ({one.name})" for one in found) or "none"
        raise SpuError(f"there is no device {index!r}", remedy=f"{VARIABLE} lists {listed}")
    return found[index]
