"""The VPU's data movement: copies, views, gathers."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import (
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    i32,
    i64,
)
from xdsl.ir import SSAValue
from xdsl.irdl import (
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    prop_def,
    traits_def,
    var_operand_def,
)

from .destination import DestinationEffects
from .spu import integers
from .types import DYNAMIC, element_of, same_extent, shape_of, show_shape
from .vpu_base import Shaped, UnaryLikeOp, VpuOp


@irdl_op_definition
class ExpandOp(UnaryLikeOp):
    """`init = x` broadcast to the init's shape; also a plain copy."""

    name = "vpu.expand"

    def verify_meaning(self) -> None:
        self.require_broadcast("x", self.x)
        self.require_same_element()


@irdl_op_definition
class ReshapeOp(UnaryLikeOp):
    """x's elements, in order, in the init's shape. Bufferisation makes it a view where it can."""

    name = "vpu.reshape"

    def verify_meaning(self) -> None:
        self.require_same_element()


@irdl_op_definition
class TransposeOp(UnaryLikeOp):
    """The init's axis i is x's axis `perm[i]`."""

    name = "vpu.transpose"

    perm = prop_def(DenseArrayBase)

    def verify_meaning(self) -> None:
        self.require_same_element()
        shape, perm = shape_of(self.x), integers(self.perm)
        self.require(
            sorted(perm) == list(range(len(shape))),
            f"perm must be a permutation of 0..{len(shape) - 1}, got {list(perm)}",
        )
        self.require_shape("the init", self.init, [shape[axis] for axis in perm])


@irdl_op_definition
class SliceOp(UnaryLikeOp):
    """`init[i] = x[starts + i * steps]`, axis by axis; a step may be negative, a start not."""

    name = "vpu.slice"

    starts = prop_def(DenseArrayBase)
    steps = prop_def(DenseArrayBase)

    def verify_meaning(self) -> None:
        self.require_same_element()
        shape, out = shape_of(self.x), shape_of(self.init)
        starts, steps = integers(self.starts), integers(self.steps)
        self.require(
            len(starts) == len(steps) == len(shape) == len(out),
            "starts, steps, x and the init must have as many axes each",
        )
        for axis, (size, count, start, step) in enumerate(
            zip(shape, out, starts, steps, strict=True)
        ):
            self.require(
                start >= 0 and step != 0,
                f"axis {axis}: a start must be at least 0 and a step not 0",
            )
            if DYNAMIC not in (size, count) and count > 0:
                last = start + (count - 1) * step
                self.require(
                    0 <= last < size and start < size,
                    f"axis {axis}: positions {start} to {last} must lie in x's extent {size}",
                )


@irdl_op_definition
class PadOp(UnaryLikeOp):
    """x surrounded by `value`: `low` elements before it, the rest of the init after it."""

    name = "vpu.pad"

    low = prop_def(DenseArrayBase)
    value = prop_def(FloatAttr)

    def verify_meaning(self) -> None:
        self.require_same_element()
        low, shape, out = integers(self.low), shape_of(self.x), shape_of(self.init)
        self.require(
            len(low) == len(shape) == len(out)
            and all(
                p >= 0 and (DYNAMIC in (a, b) or p + a <= b)
                for p, a, b in zip(low, shape, out, strict=True)
            ),
            f"low {list(low)} and x {show_shape(shape)} must fit in the init {show_shape(out)}",
        )


@irdl_op_definition
class GatherOp(VpuOp):
    """
    `init = take(x, indices, axis)`, as numpy's; a negative index counts from the end.

    An index outside x makes the run fail with a message; nothing is read there.
    """

    name = "vpu.gather"

    x = operand_def(Shaped)
    indices = operand_def(Shaped)
    init = operand_def(Shaped)
    axis = prop_def(IntegerAttr)

    irdl_options = (ParsePropInAttrDict(),)
    traits = traits_def(DestinationEffects())
    assembly_format = (
        "$x `,` $indices `into` $init attr-dict "
        "`:` type($x) `,` type($indices) `,` type($init) (`->` type($result)^)?"
    )

    def __init__(self, x: SSAValue, indices: SSAValue, init: SSAValue, *, axis: int):
        super().__init__(
            [x, indices],
            init,
            properties={"axis": IntegerAttr(axis, i64)},
        )

    def verify_meaning(self) -> None:
        self.require_element("indices", self.indices, i32, i64)
        self.require_element("the init", self.init, element_of(self.x))
        shape, axis = shape_of(self.x), self.axis.value.data
        self.require(0 <= axis < len(shape), f"axis must be 0 to {len(shape) - 1}, got {axis}")
        taken = shape_of(self.indices)
        self.require_shape("the init", self.init, [*shape[:axis], *taken, *shape[axis + 1 :]])


@irdl_op_definition
class ConcatOp(VpuOp):
    """The operands one after another along `axis`."""

    name = "vpu.concat"

    xs = var_operand_def(Shaped)
    init = operand_def(Shaped)
    axis = prop_def(IntegerAttr)

    irdl_options = (ParsePropInAttrDict(),)
    traits = traits_def(DestinationEffects())
    assembly_format = (
        "$xs `into` $init attr-dict `:` type($xs) `into` type($init) (`->` type($result)^)?"
    )

    def __init__(self, xs: Sequence[SSAValue], init: SSAValue, *, axis: int):
        super().__init__(
            [xs],
            init,
            properties={"axis": IntegerAttr(axis, i64)},
        )

    def verify_meaning(self) -> None:
        out, axis = shape_of(self.init), self.axis.value.data
        self.require(len(self.xs) >= 1, "at least one operand is needed")
        self.require(0 <= axis < len(out), f"axis must be 0 to {len(out) - 1}, got {axis}")
        for value in self.xs:
            self.require_element("every operand", value, element_of(self.init))
            own = shape_of(value)
            self.require(len(own) == len(out), f"every operand must have {len(out)} axes")
            self.require_shape("an operand", value, [*out[:axis], own[axis], *out[axis + 1 :]])
        extents = [shape_of(value)[axis] for value in self.xs]
        if DYNAMIC not in extents:
            self.require(
                same_extent(sum(extents), out[axis]),
                f"the extents along axis {axis} must add up to {out[axis]}, got {extents}",
            )
