"""The VPU's quantisation: affine mappings, by row, and tables."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar

from xdsl.dialects.builtin import (
    FloatAttr,
    IntegerAttr,
    TensorType,
    f32,
    i8,
    i32,
    i64,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    ParsePropInAttrDict,
    SameVariadicResultSize,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_result_def,
    prop_def,
    traits_def,
)

from .destination import DestinationEffects, DestinationOp, result_type
from .types import element_of, shape_of, ui8
from .vpu_base import Shaped, VpuOp

NORM_ROW = 1024
"""The most elements of a row of `vpu.layer_norm_rows`; VPU_NORM_ROW of the device's code."""


@irdl_op_definition
class QuantiseRowsOp(DestinationOp):
    """
    Dynamic quantisation, row by row, with one zero point for all rows.

    x f32 `[..., K]`; init ui8, x's shape; scale_init f32, x's shape without its last axis;
    columns f32 `[K]`: with these, x stands for `x * columns` in what follows.
    With `zero` 128 it is symmetric: `scale = max|x| / 127`,
    `init = clamp(rint(x * (127 / max|x|)), -127, 127) + 128`. Any other is for rows that reach
    further up than down: `scale = max(max(x, 0) / (255 - zero), max(-x, 0) / zero)`,
    `init = clamp(rint(x / scale), -zero, 255 - zero) + zero`; with 0 there is no negative number.
    """

    name = "vpu.quantise_rows"

    x = operand_def(Shaped)
    columns = opt_operand_def(Shaped)
    init = operand_def(Shaped)
    scale_init = operand_def(Shaped)
    zero = prop_def(IntegerAttr, default_value=IntegerAttr(128, i32))
    result = opt_result_def(TensorType)
    scale = opt_result_def(TensorType)

    irdl_options = (SameVariadicResultSize(), ParsePropInAttrDict())
    traits = traits_def(DestinationEffects())
    assembly_format = (
        "$x (`columns` `(` $columns^ `:` type($columns) `)`)? `into` $init `,` $scale_init "
        "attr-dict `:` type($x) `,` type($init) `,` type($scale_init) "
        " (`->` type($result)^ `,` type($scale))?"
    )

    def __init__(
        self,
        x: SSAValue,
        init: SSAValue,
        scale_init: SSAValue,
        zero: int = 128,
        columns: SSAValue | None = None,
    ):
        super().__init__(
            operands=[x, columns, init, scale_init],
            properties={"zero": IntegerAttr(zero, i32)},
            result_types=[result_type(init), result_type(scale_init)],
        )

    @property
    def inits(self) -> Sequence[SSAValue]:
        return (self.init, self.scale_init)

    def verify_meaning(self) -> None:
        self.require_element("x", self.x, f32)
        self.require_element("the init", self.init, ui8)
        self.require_element("scale_init", self.scale_init, f32)
        self.require_shape("the init", self.init, shape_of(self.x))
        self.require_shape("scale_init", self.scale_init, shape_of(self.x)[:-1])
        if self.columns is not None:
            self.require_element("columns", self.columns, f32)
            self.require_shape("columns", self.columns, shape_of(self.x)[-1:])
        zero = self.zero.value.data
        self.require(0 <= zero <= 128, f"zero must be 0 to 128, got {zero}")


@irdl_op_definition
class LayerNormRowsOp(DestinationOp):
    """
    `vpu.layer_norm` and the `vpu.quantise_rows` of its rows around 128, without what is between.

    x f32 `[..., K]`, K a number of at most NORM_ROW; gamma and beta f32 `[K]`; init ui8, x's shape;
    scale_init f32, x's shape without its last axis.
    """

    name = "vpu.layer_norm_rows"

    x = operand_def(Shaped)
    gamma = operand_def(Shaped)
    beta = operand_def(Shaped)
    init = operand_def(Shaped)
    scale_init = operand_def(Shaped)
    epsilon = prop_def(FloatAttr)
    result = opt_result_def(TensorType)
    scale = opt_result_def(TensorType)

    irdl_options = (SameVariadicResultSize(), ParsePropInAttrDict())
    traits = traits_def(DestinationEffects())
    assembly_format = (
        "$x `,` $gamma `,` $beta `into` $init `,` $scale_init attr-dict `:` "
        "type($x) `,` type($gamma) `,` type($beta) `,` type($init) `,` type($scale_init) "
        " (`->` type($result)^ `,` type($scale))?"
    )

    def __init__(
        self,
        x: SSAValue,
        gamma: SSAValue,
        beta: SSAValue,
        init: SSAValue,
        scale_init: SSAValue,
        *,
        epsilon: float,
    ):
        super().__init__(
            operands=[x, gamma, beta, init, scale_init],
            properties={"epsilon": FloatAttr(epsilon, f32)},
            result_types=[result_type(init), result_type(scale_init)],
        )

    @property
    def inits(self) -> Sequence[SSAValue]:
        return (self.init, self.scale_init)

    def verify_meaning(self) -> None:
        shape = shape_of(self.x)
        for name, value in (("x", self.x), ("gamma", self.gamma), ("beta", self.beta)):
            self.require_element(name, value, f32)
        self.require_element("the init", self.init, ui8)
        self.require_element("scale_init", self.scale_init, f32)
        self.require_shape("gamma", self.gamma, shape[-1:])
        self.require_shape("beta", self.beta, shape[-1:])
        self.require_shape("the init", self.init, shape)
        self.require_shape("scale_init", self.scale_init, shape[:-1])
        self.require(0 <= shape[-1] <= NORM_ROW, f"rows must have at most {NORM_ROW} elements")


class ScaledOp(VpuOp, ABC):
    """
    An affine mapping between real values and integers.

    `scale` is f32 and `zero` has the integers' type; both have no axis (one for the tensor), or,
    with `axis`, the extent of that axis, or x's shape without its last axis (one for each row).
    """

    x = operand_def(Shaped)
    scale = operand_def(Shaped)
    zero = opt_operand_def(Shaped)
    init = operand_def(Shaped)
    axis = prop_def(IntegerAttr, default_value=IntegerAttr(-1, i64))

    irdl_options = (ParsePropInAttrDict(),)
    traits = traits_def(DestinationEffects())
    assembly_format = (
        "$x `scale` `(` $scale `:` type($scale) `)` (`zero` `(` $zero^ `:` type($zero) `)`)? "
        "`into` $init attr-dict `:` type($x) `,` type($init) (`->` type($result)^)?"
    )
    INTEGERS: ClassVar[tuple[Attribute, ...]] = (ui8, i8, i32)

    def __init__(
        self,
        x: SSAValue,
        scale: SSAValue,
        zero: SSAValue | None,
        init: SSAValue,
        *,
        axis: int = -1,
    ):
        super().__init__(
            [x, scale, zero],
            init,
            properties={"axis": IntegerAttr(axis, i64)},
        )

    def verify_scale(self, integers_of: SSAValue) -> None:
        self.require_shape("the init", self.init, shape_of(self.x))
        self.require_element("scale", self.scale, f32)
        shape, axis = shape_of(self.x), self.axis.value.data
        self.require(
            -1 <= axis < len(shape), f"axis must be -1 (none) to {len(shape) - 1}, got {axis}"
        )
        if axis >= 0:
            self.require_shape("scale", self.scale, [shape[axis]])
        elif shape_of(self.scale):
            self.require_shape("scale", self.scale, shape[:-1])
        if self.zero is not None:
            self.require_element("zero", self.zero, element_of(integers_of))
            self.require_shape("zero", self.zero, shape_of(self.scale))


@irdl_op_definition
class QuantiseOp(ScaledOp):
    """`init = clamp(rint(x / scale) + zero)`: x f32, init ui8 or i8 (QuantizeLinear)."""

    name = "vpu.quantise"

    def verify_meaning(self) -> None:
        self.require_element("x", self.x, f32)
        self.require_element("the init", self.init, ui8, i8)
        self.verify_scale(self.init)


@irdl_op_definition
class QuantiseProductOp(VpuOp):
    """
    `vpu.quantise` of `x * factor` with one scale and zero point.

    x, factor and init have one shape, x and factor are f32, init is ui8 or i8; scale is f32 and
    zero has the init's type, without an axis.
    """

    name = "vpu.quantise_product"

    x = operand_def(Shaped)
    factor = operand_def(Shaped)
    scale = operand_def(Shaped)
    zero = operand_def(Shaped)
    init = operand_def(Shaped)

    irdl_options = ()
    traits = traits_def(DestinationEffects())
    assembly_format = (
        "$x `,` $factor `scale` `(` $scale `:` type($scale) `)` `zero` `(` $zero `:` type($zero) "
        "`)` `into` $init attr-dict `:` type($x) `,` type($factor) `,` type($init) "
        "(`->` type($result)^)?"
    )

    def __init__(
        self, x: SSAValue, factor: SSAValue, scale: SSAValue, zero: SSAValue, init: SSAValue
    ):
        super().__init__([x, factor, scale, zero], init)

    def verify_meaning(self) -> None:
        shape = shape_of(self.x)
        self.require_element("x", self.x, f32)
        self.require_element("factor", self.factor, f32)
        self.require_element("scale", self.scale, f32)
        self.require_element("the init", self.init, ui8, i8)
        self.require_element("zero", self.zero, element_of(self.init))
        self.require_shape("factor", self.factor, shape)
        self.require_shape("the init", self.init, shape)
        self.require_shape("scale", self.scale, [])
        self.require_shape("zero", self.zero, [])
        self.require(bool(shape), "x must have an axis")


@irdl_op_definition
class DequantiseOp(ScaledOp):
    """`init = (x - zero) * scale`: x ui8, i8 or i32, init f32 (DequantizeLinear)."""

    name = "vpu.dequantise"

    def verify_meaning(self) -> None:
        self.require_element("x", self.x, *self.INTEGERS)
        self.require_element("the init", self.init, f32)
        self.verify_scale(self.x)


@irdl_op_definition
class TableOp(VpuOp):
    """
    `init[i] = table[x[i]]`: x ui8; table `[256]`, or `[C, 256]`, a row for each channel.

    Channels are x's last axis. The table is ui8 (between static scales) or f32 (a number for each
    byte), and so is the init.
    """

    name = "vpu.table"

    x = operand_def(Shaped)
    table = operand_def(Shaped)
    init = operand_def(Shaped)

    irdl_options = ()
    traits = traits_def(DestinationEffects())
    assembly_format = (
        "$x `,` $table `into` $init attr-dict "
        "`:` type($x) `,` type($table) `,` type($init) (`->` type($result)^)?"
    )

    def __init__(self, x: SSAValue, table: SSAValue, init: SSAValue):
        super().__init__(
            [x, table],
            init,
        )

    def verify_meaning(self) -> None:
        self.require_element("x", self.x, ui8)
        self.require_element("table", self.table, ui8, f32)
        self.require_element("the init", self.init, element_of(self.table))
        rows = shape_of(self.x)[-1:] if len(shape_of(self.table)) == 2 else ()
        self.require_shape("table", self.table, [*rows, 256])
        self.require_shape("the init", self.init, shape_of(self.x))
