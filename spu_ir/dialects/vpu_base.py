"""What the ops of the VPU share."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence

from xdsl.dialects.builtin import (
    DenseArrayBase,
    MemRefType,
    TensorType,
    i64,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    ParsePropInAttrDict,
    operand_def,
    opt_result_def,
    traits_def,
)

from .destination import DestinationEffects, DestinationOp, result_type
from .types import element_of, same_extent, shape_of, show_shape

Shaped = TensorType | MemRefType


def array_attr(values: Sequence[int]) -> DenseArrayBase:
    """`array<i64: ...>` of `values`."""
    return DenseArrayBase.from_list(i64, list(values))


class VpuOp(DestinationOp, ABC):
    """A VPU op with one init, which is its last operand."""

    init = operand_def(Shaped)
    result = opt_result_def(TensorType)

    def __init__(
        self,
        inputs: Sequence[SSAValue | Sequence[SSAValue] | None],
        init: SSAValue,
        properties: Mapping[str, Attribute] | None = None,
        attributes: Mapping[str, Attribute] | None = None,
    ):
        super().__init__(
            operands=[*inputs, init],
            result_types=[result_type(init)],
            properties=dict(properties or {}),
            attributes=dict(attributes or {}),
        )

    @property
    def inits(self) -> Sequence[SSAValue]:
        return (self.init,)

    def require_broadcast(self, what: str, value: SSAValue) -> None:
        """`value` must broadcast to the init's shape, as numpy does."""
        shape, to = shape_of(value), shape_of(self.init)
        fits = len(shape) <= len(to) and all(
            a == 1 or same_extent(a, b) for a, b in zip(reversed(shape), reversed(to), strict=False)
        )
        self.require(fits, f"{what} {show_shape(shape)} must broadcast to {show_shape(to)}")


class UnaryLikeOp(VpuOp, ABC):
    """One operand `x` and the init."""

    x = operand_def(Shaped)
    init = operand_def(Shaped)

    irdl_options = (ParsePropInAttrDict(),)
    traits = traits_def(DestinationEffects())
    assembly_format = (
        "$x `into` $init attr-dict `:` type($x) `,` type($init) (`->` type($result)^)?"
    )

    def __init__(
        self,
        x: SSAValue,
        init: SSAValue,
        properties: Mapping[str, Attribute] | None = None,
        attributes: Mapping[str, Attribute] | None = None,
    ):
        super().__init__([x], init, properties, attributes)

    def require_same_element(self) -> None:
        """The init must have x's element type."""
        self.require_element("the init", self.init, element_of(self.x))
