"""The VPU's running sums."""

from __future__ import annotations

from xdsl.dialects.builtin import BoolAttr, IntegerAttr, f32, i32, i64
from xdsl.ir import SSAValue
from xdsl.irdl import irdl_op_definition, prop_def

from .types import shape_of
from .vpu_base import UnaryLikeOp


@irdl_op_definition
class CumsumOp(UnaryLikeOp):
    """
    Running sums along the last axis: `init[..., i] = x[..., 0] + ... + x[..., i]`.

    x f32, i32 or i64, added one by one in order; integers wrap. `exclusive` leaves `x[..., i]`
    itself out; `reverse` goes from the last element down.
    """

    name = "vpu.cumsum"

    exclusive = prop_def(BoolAttr, default_value=IntegerAttr.from_bool(False))
    reverse = prop_def(BoolAttr, default_value=IntegerAttr.from_bool(False))

    def __init__(
        self, x: SSAValue, init: SSAValue, *, exclusive: bool = False, reverse: bool = False
    ):
        super().__init__(
            x,
            init,
            {
                "exclusive": IntegerAttr.from_bool(exclusive),
                "reverse": IntegerAttr.from_bool(reverse),
            },
        )

    def verify_meaning(self) -> None:
        self.require_element("x", self.x, f32, i32, i64)
        self.require_same_element()
        self.require(len(shape_of(self.x)) > 0, "x must have at least one axis")
        self.require_shape("the init", self.init, shape_of(self.x))
