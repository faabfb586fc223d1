"""
What the maker of the cards published for ByteMLPerf's tasks, to be put beside what is measured.

From ByteMLPerf's repository, `byte_infer_perf/general_perf`: `backends/SPU/README.md` (the table,
its footnote and the power) and `reports/SPU/<model>/result.json` (batch sizes), as of August 2023.
They are of one S30; there are none of an S4 or S10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CARD = "s30"
"""The card that the figures are of."""

PEAK_WATTS = 250.0
"""Its peak power, as published, which is its TDP."""

SOURCE = "ByteMLPerf, backends/SPU/README.md and reports/SPU, August 2023"


@dataclass(frozen=True)
class PublishedResult:
    """A row of the table, and the batch of its report."""

    qps: float
    batch: int
    sparsity: int
    """The ratio in the table. By its footnote it is "determined by the ratio of time spent on
    Matmul operations compared to the overall time of model inference", not by counting zeros."""
    zeros: float
    """The "Sparsity Ratio" of the report: zeros among the weights."""
    precision: str
    metric: str
    value: float


RESULTS: Mapping[str, PublishedResult] = {
    "resnet50-torch-fp32": PublishedResult(52423.97, 48, 16, 0.9375, "INT8", "Top-1", 0.76613),
    "bert-torch-fp32": PublishedResult(7738.91, 64, 16, 0.9375, "INT8/BF16", "F1 Score", 86.09125),
    "albert-torch-fp32": PublishedResult(
        10824.99, 64, 16, 0.9375, "INT8/BF16", "F1 Score", 87.66387
    ),
    "roberta-torch-fp32": PublishedResult(
        8107.39, 64, 16, 0.9375, "INT8/BF16", "F1 Score", 86.63034
    ),
    "conformer-encoder-onnx-fp32": PublishedResult(
        8211.7, 64, 8, 0.9375, "INT8/BF16", "Mean Diff", 1.50
    ),
}
"""
By the name of the model. The Conformer's 1.50 is called Mean Diff in the table; the maker's report
of July 2023 has that number as Mean Rel-Diff.
"""
