"""
Pruning while a PyTorch model is trained, in the banks of the sparse format.

`BankPruner` masks the weights that the compiler would prune, fewer and fewer to a bank;
`Distiller` lets the pruned model learn from the dense one; `BankTopK` keeps few activations of a
bank of channels. What `BankPruner.export` writes the compiler sees as banked by itself.
docs/training.md is the guide. Importing this module needs PyTorch; `spu_ir` does not.
"""

from importlib.util import find_spec

from spu_ir.errors import SpuError

if find_spec("torch") is None:
    raise SpuError("training needs PyTorch, which is not there", remedy="pip install spu-ir[train]")

from .training_distil import Distiller, feature_distance, soft_targets
from .training_pruner import BankPruner
from .training_schedule import Schedule, at_once, cubic, linear
from .training_top_k import BankTopK

__all__ = [
    "BankPruner",
    "BankTopK",
    "Distiller",
    "Schedule",
    "at_once",
    "cubic",
    "feature_distance",
    "linear",
    "soft_targets",
]
