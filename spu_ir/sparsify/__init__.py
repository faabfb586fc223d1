"""
Pruning of ONNX models in the banks of the sparse format: ONNX in, ONNX out.

`magnitude` needs no data; `second_order` takes calibration feeds and mends the weights that stay
for those that go. Any engine runs the result, and the compiler finds the banks by itself.
`python -m spu_ir.sparsify` does the same with files; docs/sparsity.md compares the methods.
"""

from spu_ir.packing.prune import RATIOS

from .banks import BANK, BankedRows, bank_mask, conv_rows, linear_rows
from .layers import Layer, Ratio
from .magnitude import Structure, magnitude, pruned_weight
from .report import LayerReport, Report, report_table
from .second_order import second_order

__all__ = [
    "BANK",
    "RATIOS",
    "BankedRows",
    "Layer",
    "LayerReport",
    "Ratio",
    "Report",
    "Structure",
    "bank_mask",
    "conv_rows",
    "linear_rows",
    "magnitude",
    "pruned_weight",
    "report_table",
    "second_order",
]
