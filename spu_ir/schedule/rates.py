"""Rates of one core's units on a target, in work a second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spu_ir.targets import Target


@dataclass(frozen=True)
class Rates:
    """What one core does in a second when it has its share of what is shared."""

    macs: Mapping[str, float]
    """Multiply-accumulates of all its SPUs, by precision."""
    epilogue: float
    """Operations on finished sums, of all its SPUs."""
    vector: Mapping[str, float]
    """Operations of its VPU, by precision."""
    special: float
    l1: float
    """Bytes of its SPUs' local memories together."""
    l2: float
    """Bytes of its L2."""
    l2_bandwidth: float
    ddr: float
    """Bytes a second at its port."""
    noc: float
    """Bytes a second that the network takes in all."""
    host: float
    """Bytes a second each way, where `chips` and `cores` of them share the link."""
    launch: float
    """Seconds to start a step."""

    @classmethod
    def of(cls, target: Target, chips: int, cores: int) -> Rates:
        """
        The rates of a core, when `chips` chips with `cores` cores each share the host link.

        What the model does in fp32, the card does in bf16: it has no other floating point.
        """
        clock = target.chip.clock.value
        spus, all_cores = target.spu.count.value, target.chip.cores.value
        bf16_macs = spus * target.spu.bf16_macs.value * clock
        bf16_lanes = target.vpu.bf16_lanes.value * clock
        chip_link = min(target.chip.host_link.value, target.card.host_link.value / chips)
        return cls(
            macs={
                "int8": spus * target.spu.int8_macs.value * clock,
                "bf16": bf16_macs,
                "fp32": bf16_macs,
            },
            epilogue=spus * target.spu.epilogue.value * clock,
            vector={
                "int8": target.vpu.int8_lanes.value * clock,
                "bf16": bf16_lanes,
                "fp32": bf16_lanes,
            },
            special=target.sfu.lanes.value * clock,
            l1=target.l1.size.value / all_cores,
            l2=target.l2.size.value / all_cores,
            l2_bandwidth=target.l2.bandwidth.value / all_cores,
            ddr=target.ddr.bandwidth.value / all_cores,
            noc=target.chip.noc.value,
            host=chip_link / cores,
            launch=target.control.launch.value,
        )
