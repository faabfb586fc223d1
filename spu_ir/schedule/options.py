"""What may be asked of an estimate beside the target: how the work is laid out, what is skipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spu_ir.errors import SpuError

WIRE = {"int8": 1, "bf16": 2, "fp32": 4}
"""Bytes of an element on the host link, by the name of the option."""

CORES = ("batch", "broadcast", "split")


@dataclass(frozen=True)
class Options:
    """
    Options of `CompiledModel.estimate`.

    Checked when made: raises SpuError for a value that is none of an option's.
    """

    cores: str = "batch"
    """
    How the cores of a chip work: "batch", each on samples of its own; "split", all on one sample,
    each with a part of its rows; "broadcast", all on one sample, each with a part of the output
    channels and of the weights.
    """
    core_batch: int | None = None
    """Samples that a program runs at once; None is as many as L2 has room for."""
    zeros: float | Mapping[str, float] = 0.0
    """
    Dual sparsity: the share of activations that are zero and whose products are skipped, of all
    layers or by layer. Off (0) by default: whether the silicon does it is not public.
    """
    real: float | None = None
    """Padding skipped: the share of rows that are real, for programs that skip padding."""
    wire: str | None = None
    """Floating-point inputs cross the host link as "int8", "bf16" or "fp32"; None: as they are."""
    host: bool = True
    """Whether inputs and outputs cross the host link at all, or lie in the card's memory."""

    def __post_init__(self) -> None:
        if self.cores not in CORES:
            raise SpuError(f"cores={self.cores!r} is unknown", remedy=f"one of {', '.join(CORES)}")
        if self.core_batch is not None and self.core_batch < 1:
            raise SpuError(f"core_batch={self.core_batch} is too small", remedy="at least 1")
        if self.wire is not None and self.wire not in WIRE:
            raise SpuError(f"wire={self.wire!r} is unknown", remedy=f"one of {', '.join(WIRE)}")
        shares = self.zeros.values() if isinstance(self.zeros, Mapping) else (self.zeros,)
        for share in (*shares, *(() if self.real is None else (self.real,))):
            if not 0 <= share <= 1:
                raise SpuError(f"a share must be 0 to 1, got {share}")

    def copies(self, parts: int) -> int:
        """
        Of the weights in `parts` cores that share every step.

        Cores that share rows have all weights each; those that share channels have parts.
        """
        return parts if self.cores == "split" else 1

    def zero_share(self, layer: str) -> float:
        """The share of activation zeros of a layer whose products are skipped."""
        return self.zeros.get(layer, 0.0) if isinstance(self.zeros, Mapping) else self.zeros
