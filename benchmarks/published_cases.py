"""What the vendor's cards were published to do, and which of our programs stands beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from spu_ir.api import lower
from spu_ir.quantisation import Attention, Precision, Quantisation
from spu_ir.zoo.registry import MODELS

Role = Literal["fitted", "held out", "shown"]

TOKENS = 16
"""Of the texts that scales are taken from: times depend on shapes, not on scales."""


@dataclass(frozen=True)
class Case:
    """A model of the zoo, compiled as the published figure was measured, or as a comparison."""

    model: str
    ratio: int
    precision: Precision = "int8"
    attention: Attention = "fp32"
    """What is fp32 here is bf16 on the card: the vendor has INT8 at products' ports, else BF16."""

    def table(self) -> dict[str, Any]:
        """
        Its program's table of work, ports and bounds, as JSON. Nothing is built or run in C.

        Weights are random, pruned by magnitude to one in `ratio` of a bank.
        """
        model = MODELS[self.model]
        int8 = self.precision == "int8"
        program, _ = lower(
            model.build(ratio=self.ratio),
            quantisation=Quantisation(
                self.precision,
                activations="static" if int8 else "auto",
                attention=self.attention,
            ),
            calibration=[model.feeds(1, TOKENS if model.seq else None)] if int8 else None,
            shapes=dict(model.bounds),
        )
        return {
            "work": program.work,
            "inputs": [[port.name, port.dtype, list(port.shape)] for port in program.inputs],
            "bounds": {name: list(pair) for name, pair in model.bounds.items()},
        }


CASES: dict[str, Case] = {
    "resnet50": Case("resnet50", 16, attention="auto"),
    "bert": Case("bert", 16),
    "albert": Case("albert", 16),
    "roberta": Case("roberta", 16),
    "conformer": Case("conformer", 8),
    "bert, INT8 attention": Case("bert", 16, attention="int8"),
    "conformer, dense": Case("conformer", 1),
    "conformer, dense BF16": Case("conformer", 1, precision="bf16"),
}


@dataclass(frozen=True)
class Row:
    """A published throughput and the estimate that stands beside it."""

    workload: str
    case: str
    card: str
    published: float | None
    """Samples a second of the card; None for a what-if of ours."""
    source: str
    role: Role
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    limit: float | None = None
    """How far off the estimate may be, as a share of the published figure."""
    note: str = ""

    @property
    def batch(self) -> int:
        """Four samples for every core: batch 48 on an S30, as in ByteMLPerf's ResNet-50 report."""
        return {"s4": 16, "s10": 32, "s30": 48}[self.card] * (
            16 if "MLPerf v2" in self.source else 1
        )


MLPERF = "MLPerf v2.1"
SEED = "ByteMLPerf, August 2023"
JUNE = "ByteMLPerf, June 2023"
JULY = "ByteMLPerf, July 2023"
INT8: Mapping[str, Any] = {"wire": "int8"}


def _texts(
    case: str, june: int, july: int, seed: int, role: Role, limit: float | None
) -> list[Row]:
    name = {"bert": "BERT", "albert": "ALBERT", "roberta": "RoBERTa"}[case]
    twice = "reads a mean lag of a queue as time: up to twice the rate"
    return [
        Row(name, case, "s30", july, JULY, role, limit=limit),
        Row(name, case, "s30", june, JUNE, "shown", note="the same, a month earlier"),
        Row(name, case, "s30", seed, SEED, "shown", note=twice),
    ]


ROWS: tuple[Row, ...] = (
    Row("ResNet-50 Offline", "resnet50", "s30", 95_784, MLPERF, "fitted", INT8),
    Row("ResNet-50 Offline", "resnet50", "s10", 65_593, MLPERF, "held out", INT8, 0.10),
    Row("ResNet-50 Offline", "resnet50", "s4", 31_679, MLPERF, "held out", INT8, 0.10),
    *_texts("bert", 4_408, 4_823, 7_738, "fitted", None),
    *_texts("albert", 4_628, 5_024, 10_824, "held out", 0.15),
    *_texts("roberta", 4_390, 4_638, 8_107, "held out", 0.15),
    Row(
        "ResNet-50, FP32 input",
        "resnet50",
        "s30",
        59_259,
        f"{JUNE} and July",
        "shown",
        {"wire": "fp32"},
        note="FP32 fills the link at 52,300: not all of it can have crossed as FP32",
    ),
    Row(
        "ResNet-50, FP32 input",
        "resnet50",
        "s30",
        52_423,
        SEED,
        "shown",
        {"wire": "fp32"},
        note="31.6 GB/s: a whole PCIe 4.0 x16 link",
    ),
    Row("ResNet-50, BF16 input", "resnet50", "s30", None, "", "shown", {"wire": "bf16"}),
    Row("BERT, INT8 attention", "bert, INT8 attention", "s30", None, "", "shown"),
    Row("Conformer", "conformer", "s30", 10_111, JULY, "shown", note="see below"),
    Row("Conformer", "conformer", "s30", 9_330, JUNE, "shown", note="see below"),
    Row("Conformer", "conformer", "s30", 8_211, SEED, "shown", note="see below"),
    Row("Conformer, dense", "conformer, dense", "s30", None, "", "shown"),
    Row("Conformer, dense BF16", "conformer, dense BF16", "s30", None, "", "shown"),
)
