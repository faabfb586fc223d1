"""Give activations before a quantisation to the special function unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, i8
from xdsl.passes import ModulePass

from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.spu import Activation, ActivationAttr, EpilogueOp
from spu_ir.dialects.types import element_of, ui8
from spu_ir.dialects.vpu import (
    BinaryFn,
    BinaryOp,
    QuantiseOp,
    QuantiseRowsOp,
    ReshapeOp,
    TransposeOp,
)
from spu_ir.transforms.calibrate import range_of
from spu_ir.transforms.rewriting import readers_of

TABLES = {
    Activation.GELU: Activation.SFU_GELU,
    Activation.GELU_TANH: Activation.SFU_GELU_TANH,
    Activation.SILU: Activation.SFU_SILU,
    Activation.SIGMOID: Activation.SFU_SIGMOID,
}
"""Each activation that the unit has."""


LEAST_GATE = 0.25
"""What the table's error, 6e-4 at most, is to be compared with: a step of 8 bits is 1/255 of it."""


@dataclass(frozen=True)
class ApproximateActivationsPass(ModulePass):
    """
    Compute GELU, SiLU and the sigmoid of products by table where they end in 8 bits.

    32 parabolas are within 7e-5 of GELU and 2e-4 of SiLU and the sigmoid near 0, far below a step
    of 8 bits, and take a third of the time. Products that anything reads in f32 are left alone,
    but a gate may be multiplied by what it gates before that becomes bytes: a sigmoid whose
    calibrated range reaches LEAST_GATE.
    """

    name = "approximate-activations"
    preserves: ClassVar[str] = "lossy(5e-3)"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for each in op.walk():
            if not isinstance(each, EpilogueOp) or not each.on_tensors:
                continue
            table = TABLES.get(each.activation.data)
            if table is not None and (is_quantised(each) or is_gate(each)):
                each.properties["activation"] = ActivationAttr(table)

    def reference(self, ctx: Context, module: ModuleOp) -> ModuleOp:
        """`module` as it is: the tables' error is the tolerance."""
        return module


def is_gate(op: EpilogueOp) -> bool:
    """Whether `op` is a sigmoid that is not always small, and whose products all become bytes."""
    found = range_of(op.results[0])
    if op.activation.data is not Activation.SIGMOID or found is None or found[1] < LEAST_GATE:
        return False
    return all(
        isinstance(reader, BinaryOp) and reader.fn.data is BinaryFn.MUL and is_quantised(reader)
        for reader in readers_of(op.results[0])
    )


def is_quantised(op: DestinationOp) -> bool:
    """Whether `op` stores bytes, or all that reads it, in whatever shape, makes bytes of it."""
    if element_of(op.inits[0]) in (ui8, i8):
        return True
    readers = readers_of(op.results[0])
    return bool(readers) and all(
        isinstance(reader, QuantiseOp | QuantiseRowsOp)
        or (isinstance(reader, ReshapeOp | TransposeOp) and is_quantised(reader))
        for reader in readers
    )
