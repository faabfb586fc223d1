"""A profiled run: the host's time, the counted work and the modelled device's time by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spu_ir.schedule.expressions import Json
from spu_ir.schedule.work import Step, Work, total_work


@dataclass(frozen=True)
class StepProfile:
    """One step of a run, or, in `Profile.layers`, the steps of one layer added up."""

    layer: str
    """The ONNX node; `(antoum.dma)` and the like for what the compiler made of no node."""
    op: str
    """Its instruction; of a layer that of its step with the most multiply-accumulates."""
    precision: str
    host_s: float
    """Seconds on this machine, counting included."""
    device_s: float
    """
    Seconds on the modelled card that the step's slowest unit is at work, on a core that has a
    full share of the batch. Units overlap, so steps do not add up to the card's latency.
    """
    work: Work
    """As counted while it ran."""
    zeros: int
    """How many of `work.activations` were zero; of INT8, the zero point."""

    @property
    def zero_share(self) -> float:
        """The share of zeros among the activations that products read; 0 where there is none."""
        return self.zeros / self.work.activations if self.work.activations else 0.0

    def to_json(self) -> dict[str, Json]:
        """The fields by name, those of `work` among them."""
        return {
            "layer": self.layer,
            "op": self.op,
            "precision": self.precision,
            "host_s": self.host_s,
            "device_s": self.device_s,
            **self.work.to_json(),
            "skipped": self.work.skipped,
            "activation_zeros": self.zeros,
        }


@dataclass(frozen=True)
class Profile:
    """What `CompiledModel.profile` found out."""

    target: str
    """The card that `device_s` is modelled for."""
    level: str
    threads: int
    runs: int
    """Runs that the host's time is the median of."""
    extents: Mapping[str, int]
    latency_s: float
    """Seconds of the batch on the modelled card, from the first input to the last output."""
    steps: tuple[StepProfile, ...]

    @staticmethod
    def of(
        steps: Sequence[Step],
        counted: Sequence[Work],
        zeros: Sequence[int],
        host_s: Sequence[float],
        device_s: Sequence[float],
    ) -> tuple[StepProfile, ...]:
        """Rows for `steps`; every sequence has one entry a step."""
        return tuple(
            StepProfile(
                layer=step.layer or f"({step.op})",
                op=step.op,
                precision=step.precision,
                host_s=host,
                device_s=card,
                work=work,
                zeros=seen,
            )
            for step, work, seen, host, card in zip(
                steps, counted, zeros, host_s, device_s, strict=True
            )
        )

    @property
    def layers(self) -> tuple[StepProfile, ...]:
        """The steps added up by layer, in the order of their first steps."""
        groups: dict[str, list[StepProfile]] = {}
        for step in self.steps:
            groups.setdefault(step.layer, []).append(step)
        return tuple(_added(layer, steps) for layer, steps in groups.items())

    @property
    def zero_shares(self) -> dict[str, float]:
        """The share of activation zeros of every layer with a product: `estimate(zeros=...)`."""
        return {each.layer: each.zero_share for each in self.layers if each.work.activations}

    @property
    def total(self) -> StepProfile:
        """All steps added up."""
        return _added("total", self.steps)

    def to_json(self) -> dict[str, Json]:
        """Everything: settings, the total, layers and steps."""
        return {
            "target": self.target,
            "level": self.level,
            "threads": self.threads,
            "runs": self.runs,
            "extents": dict(self.extents),
            "latency_s": self.latency_s,
            "total": self.total.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
            "steps": [step.to_json() for step in self.steps],
        }


def _added(layer: str, steps: Sequence[StepProfile]) -> StepProfile:
    chief = max(steps, key=lambda step: (step.work.dense_macs, step.host_s), default=None)
    return StepProfile(
        layer=layer,
        op=chief.op if chief else "",
        precision=chief.precision if chief else "",
        host_s=sum(step.host_s for step in steps),
        device_s=sum(step.device_s for step in steps),
        work=total_work(step.work for step in steps),
        zeros=sum(step.zeros for step in steps),
    )
