"""How the numbers that a bank keeps fall while a model is trained."""

from __future__ import annotations

from dataclasses import dataclass

from spu_ir.errors import SpuError


@dataclass(frozen=True)
class Schedule:
    """
    From all weights at step `begin` to the final ratio at step `end`, changed every `every` steps.

    The part of the weights that is pruned at step t, of what is pruned in the end, is
    `1 - (1 - (t - begin) / (end - begin)) ** power`: fast first, while much is superfluous, and
    slow towards the end. With `power = 3` it is equation 1 of Zhu and Gupta, "To prune, or not to
    prune" (2017), from a sparsity of 0.
    """

    begin: int
    end: int
    every: int = 1
    power: float = 3.0

    def __post_init__(self) -> None:
        if not 0 <= self.begin <= self.end or self.every < 1 or self.power <= 0:
            raise SpuError(
                f"a schedule from step {self.begin} to {self.end}, every {self.every}, "
                f"power {self.power} is none",
                remedy="use 0 <= begin <= end, every >= 1 and power > 0",
            )

    def part(self, step: int) -> float:
        """How much of the pruning is done after `step` steps: 0 before `begin`, 1 from `end`."""
        if step >= self.end:
            return 1.0
        if step < self.begin:
            return 0.0
        changed = (step - self.begin) // self.every * self.every
        return 1.0 - (1.0 - changed / (self.end - self.begin)) ** self.power

    def slots(self, step: int, slots: int, bank: int) -> int:
        """How many of a bank's `bank` weights stay after `step` steps, if `slots` do in the end."""
        sparsity = self.part(step) * (1 - slots / bank)
        return max(slots, round(bank * (1 - sparsity)))


def cubic(begin: int, end: int, every: int = 1) -> Schedule:
    """The cubic schedule of Zhu and Gupta."""
    return Schedule(begin, end, every)


def linear(begin: int, end: int, every: int = 1) -> Schedule:
    """Equally many weights go at every change."""
    return Schedule(begin, end, every, power=1.0)


def at_once(step: int = 0) -> Schedule:
    """Everything goes at one step."""
    return Schedule(step, step)
