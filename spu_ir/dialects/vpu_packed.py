"""
The VPU's packed rows: the real rows of a padded batch, one sample after another.

`[batch, seq, ...]` with padding behind every sample's end is packed to `[rows, ...]`. The rows of
sample b are `offsets[b]` to `offsets[b + 1]`, offsets i64 `[batch + 1]`, and `rows` is
`offsets[batch]`, known only at run time.
"""

from __future__ import annotations

from abc import ABC

from xdsl.dialects import tensor
from xdsl.dialects.builtin import UnitAttr, i1, i64
from xdsl.ir import Operation, OpResult, SSAValue
from xdsl.irdl import (
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    traits_def,
)

from .destination import DestinationEffects, DestinationOp
from .types import DYNAMIC, element_of, same_shape, shape_of, show_shape
from .vpu_base import Shaped, UnaryLikeOp, VpuOp


@irdl_op_definition
class RowOffsetsOp(UnaryLikeOp):
    """
    Where every sample's rows begin among the packed ones, and after the last one, how many.

    x i1 `[batch, seq]`, true where a position is real; init i64 `[batch + 1]`. A sample has as
    many rows as the position behind its last real one: holes before that are rows too.
    """

    name = "vpu.row_offsets"

    def verify_meaning(self) -> None:
        self.require_element("x", self.x, i1)
        self.require_element("the init", self.init, i64)
        shape = shape_of(self.x)
        self.require(len(shape) == 2, f"x must be [batch, seq], got {show_shape(shape)}")
        samples = DYNAMIC if shape[0] == DYNAMIC else shape[0] + 1
        self.require_shape("the init", self.init, [samples])


class _RowsOp(VpuOp, ABC):
    """What packing and unpacking share: x, offsets and the init."""

    x = operand_def(Shaped)
    offsets = operand_def(Shaped)
    init = operand_def(Shaped)

    irdl_options = (ParsePropInAttrDict(),)
    traits = traits_def(DestinationEffects())
    assembly_format = (
        "$x `,` $offsets `into` $init attr-dict "
        "`:` type($x) `,` type($offsets) `,` type($init) (`->` type($result)^)?"
    )

    def verify_rows(self, padded: SSAValue, packed: SSAValue, *, broadcasts: bool) -> None:
        """Check that `padded [batch, seq, ...]` and `packed [rows, ...]` belong together."""
        self.require_element("the init", self.init, element_of(self.x))
        self.require_element("offsets", self.offsets, i64)
        shape, rows = shape_of(padded), shape_of(packed)
        batch = next(iter(shape), DYNAMIC)
        self.require(
            len(shape) >= 2 and len(rows) >= 1 and same_shape(shape[2:], rows[1:]),
            f"[batch, seq, ...] and [rows, ...] must agree behind their first axes, got "
            f"{show_shape(shape)} and {show_shape(rows)}",
        )
        free = batch == DYNAMIC or (broadcasts and batch == 1)
        self.require_shape("offsets", self.offsets, [DYNAMIC if free else batch + 1])


@irdl_op_definition
class PackRowsOp(_RowsOp):
    """
    `init[offsets[b] + s] = x[b, s]` for every row s of every sample b.

    x `[batch, seq, ...]`, where either extent may be 1 and broadcasts; init `[rows, ...]`.
    """

    name = "vpu.pack_rows"

    def __init__(self, x: SSAValue, offsets: SSAValue, init: SSAValue):
        super().__init__([x, offsets], init)

    def verify_meaning(self) -> None:
        self.verify_rows(self.x, self.init, broadcasts=True)


@irdl_op_definition
class UnpackRowsOp(_RowsOp):
    """
    `init[b, s] = x[offsets[b] + s]` for the rows of sample b, and 0 at positions without a row.

    x `[rows, ...]`, init `[batch, n, ...]`; n is the sequence or just its first n positions. With
    `lowest`, positions without a row hold the lowest finite value of the element type.
    """

    name = "vpu.unpack_rows"

    lowest = opt_prop_def(UnitAttr)

    def __init__(self, x: SSAValue, offsets: SSAValue, init: SSAValue, *, lowest: bool = False):
        super().__init__([x, offsets], init, {"lowest": UnitAttr()} if lowest else {})

    def verify_meaning(self) -> None:
        self.verify_rows(self.init, self.x, broadcasts=False)


def is_packed(value: SSAValue) -> bool:
    """Whether a tensor has packed rows: an extent of it is read from another tensor."""
    owner = value.owner
    if isinstance(value, OpResult) and isinstance(owner, DestinationOp):
        owner = owner.inits[value.index].owner
    if not isinstance(owner, tensor.EmptyOp):
        return False
    waiting = list(owner.dynamic_sizes)
    while waiting:
        source = waiting.pop().owner
        if isinstance(source, tensor.ExtractOp):
            return True
        if isinstance(source, Operation) and not isinstance(source, tensor.DimOp):
            waiting += source.operands
    return False
