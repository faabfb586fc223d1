"""Give activations before a quantisation to the special function unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects import tensor
from xdsl.dialects.builtin import ModuleOp, i8
from xdsl.passes import ModulePass

from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.spu import Activation, ActivationAttr, EpilogueOp
from spu_ir.dialects.types import element_of, ui8
from spu_ir.dialects.vpu import QuantiseOp, QuantiseRowsOp, ReshapeOp, TransposeOp
from spu_ir.transforms.rewriting import users_of

TABLES = {
    Activation.GELU: Activation.SFU_GELU,
    Activation.GELU_TANH: Activation.SFU_GELU_TANH,
    Activation.SILU: Activation.SFU_SILU,
}
"""Each activation that the unit has."""


@dataclass(frozen=True)
class ApproximateActivationsPass(ModulePass):
    """
    Compute GELU and SiLU of products by table where they end in 8 bits.

    32 parabolas are within 7e-5 of GELU and 2e-4 of SiLU near 0, far below a step of 8 bits, and
    take a third of the time. Products that anything reads in f32 are left alone.
    """

    name = "approximate-activations"
    preserves: ClassVar[str] = "lossy(5e-3)"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for each in op.walk():
            if not isinstance(each, EpilogueOp) or not each.on_tensors:
                continue
            table = TABLES.get(each.activation.data)
            if table is not None and is_quantised(each):
                each.properties["activation"] = ActivationAttr(table)

    def reference(self, ctx: Context, module: ModuleOp) -> ModuleOp:
        """`module` as it is: the tables' error is the tolerance."""
        return module


def is_quantised(op: DestinationOp) -> bool:
    """Whether `op` stores bytes, or all that reads it, in whatever shape, makes bytes of it."""
    if element_of(op.inits[0]) in (ui8, i8):
        return True
    readers = [user for user in users_of(op.results[0]) if not isinstance(user, tensor.DimOp)]
    return bool(readers) and all(
        isinstance(reader, QuantiseOp | QuantiseRowsOp)
        or (isinstance(reader, ReshapeOp | TransposeOp) and is_quantised(reader))
        for reader in readers
    )
