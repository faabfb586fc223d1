"""The VPU's ops on images: the taps of a resize, and the resize itself."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import BoolAttr, IntegerAttr, TensorType, i32, i64
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import SpacedOpaqueSyntaxAttribute, SSAValue
from xdsl.irdl import (
    ParsePropInAttrDict,
    SameVariadicResultSize,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_result_def,
    prop_def,
    traits_def,
)
from xdsl.utils.str_enum import StrEnum

from .destination import DestinationEffects, DestinationOp, result_type
from .types import DYNAMIC, shape_of, ui8
from .vpu_base import Shaped, VpuOp

GEOMETRY = 4
"""Numbers of an axis of an image: extent, first position stored, extent resized, first taken."""

MAX_ROW = 12288
"""Most bytes of a row of a resized image: what a tile accumulates in its core's stack."""


class ResizeFilter(StrEnum):
    """How far a pixel reaches when an image is resized: 1 position to each side, or 2."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


@irdl_attr_definition
class ResizeFilterAttr(EnumAttribute[ResizeFilter], SpacedOpaqueSyntaxAttribute):
    """`#vpu<filter bilinear>`; the op prints it without the prefix."""

    name = "vpu.filter"


@irdl_op_definition
class ResizeTapsOp(DestinationOp):
    """
    For each position of an axis of resized images, which pixels it is made of, and their weights.

    geometry i32 `[N, 2, 4]` has for the rows and the columns of each image: the extent, the first
    position that is stored (the rest may be missing), the extent that it is resized to, and the
    first position of that which is taken. init i32 `[N, S, 2]`: the first pixel, counted from the
    first one stored, and how many; weight_init i32 `[N, S, K]`: their weights, which add up to
    about 2^22. `axis` is 0 for rows, 1 for columns. With `antialias` the filter grows with the
    reduction, as Pillow's does; without it has the extent of an enlargement. An extent below 1,
    positions outside the resized image or more than K taps make the run fail with a message.
    """

    name = "vpu.resize_taps"

    geometry = operand_def(Shaped)
    init = operand_def(Shaped)
    weight_init = operand_def(Shaped)
    filter = prop_def(ResizeFilterAttr)
    axis = prop_def(IntegerAttr)
    antialias = prop_def(BoolAttr, default_value=BoolAttr.from_bool(True))
    result = opt_result_def(TensorType)
    weights = opt_result_def(TensorType)

    irdl_options = (SameVariadicResultSize(), ParsePropInAttrDict())
    traits = traits_def(DestinationEffects())
    assembly_format = (
        "$filter $geometry `into` $init `,` $weight_init attr-dict `:` type($geometry) `,` "
        "type($init) `,` type($weight_init) (`->` type($result)^ `,` type($weights))?"
    )

    def __init__(
        self,
        filter: ResizeFilter,
        geometry: SSAValue,
        init: SSAValue,
        weight_init: SSAValue,
        *,
        axis: int,
        antialias: bool = True,
    ):
        super().__init__(
            operands=[geometry, init, weight_init],
            properties={
                "filter": ResizeFilterAttr(filter),
                "axis": IntegerAttr(axis, i64),
                "antialias": BoolAttr.from_bool(antialias),
            },
            result_types=[result_type(init), result_type(weight_init)],
        )

    @property
    def inits(self) -> Sequence[SSAValue]:
        return (self.init, self.weight_init)

    def verify_meaning(self) -> None:
        self.require_element("geometry", self.geometry, i32)
        self.require_element("the init", self.init, i32)
        self.require_element("weight_init", self.weight_init, i32)
        axis = self.axis.value.data
        self.require(axis in (0, 1), f"axis must be 0 (rows) or 1 (columns), got {axis}")
        given = shape_of(self.geometry)
        self.require_shape("geometry", self.geometry, [given[0] if given else 0, 2, GEOMETRY])
        weights = shape_of(self.weight_init)
        self.require(
            len(weights) == 3 and DYNAMIC not in weights[1:],
            "weight_init must have three axes, the last two known",
        )
        self.require_shape("weight_init", self.weight_init, [given[0], *weights[1:]])
        self.require_shape("the init", self.init, [given[0], weights[1], 2])


@irdl_op_definition
class ResizeOp(VpuOp):
    """
    Images resized with given taps, columns first, rounding to bytes in between as Pillow does.

    x ui8 `[N, H, W, C]`, C 1 to 4; rows i32 `[N, OH, 2]` and row_weights i32 `[N, OH, K]`, columns
    i32 `[N, OW, 2]` and column_weights i32 `[N, OW, L]`, as `vpu.resize_taps` makes them; init ui8
    `[N, OH, OW, C]`. A sum of products is `(sum + 2^21) >> 22`, clamped to 0..255. H and W are
    those of the largest image stored; taps outside them make the run fail with a message.
    """

    name = "vpu.resize"

    x = operand_def(Shaped)
    rows = operand_def(Shaped)
    row_weights = operand_def(Shaped)
    columns = operand_def(Shaped)
    column_weights = operand_def(Shaped)
    init = operand_def(Shaped)

    irdl_options = ()
    traits = traits_def(DestinationEffects())
    assembly_format = (
        "$x `rows` `(` $rows `,` $row_weights `:` type($rows) `,` type($row_weights) `)` `columns` "
        "`(` $columns `,` $column_weights `:` type($columns) `,` type($column_weights) `)` `into` "
        "$init attr-dict `:` type($x) `,` type($init) (`->` type($result)^)?"
    )

    def __init__(
        self,
        x: SSAValue,
        rows: tuple[SSAValue, SSAValue],
        columns: tuple[SSAValue, SSAValue],
        init: SSAValue,
    ):
        super().__init__([x, *rows, *columns], init)

    def verify_meaning(self) -> None:
        self.require_element("x", self.x, ui8)
        self.require_element("the init", self.init, ui8)
        out, shape = shape_of(self.init), shape_of(self.x)
        self.require(len(shape) == len(out) == 4, "x and the init must have four axes")
        batch, channels = out[0], out[3]
        self.require_shape("x", self.x, [batch, *shape[1:3], channels])
        self.require(1 <= channels <= 4, f"there must be 1 to 4 channels, got {channels}")
        width = out[2]
        self.require(
            width != DYNAMIC and width * channels <= MAX_ROW,
            f"a row of the init must be known and at most {MAX_ROW} bytes",
        )
        for what, taps, weights, extent in (
            ("rows", self.rows, self.row_weights, out[1]),
            ("columns", self.columns, self.column_weights, width),
        ):
            self.require_element(what, taps, i32)
            self.require_element(f"weights of {what}", weights, i32)
            self.require_shape(what, taps, [batch, extent, 2])
            given = shape_of(weights)
            most = given[2] if len(given) == 3 else DYNAMIC
            self.require(most != DYNAMIC, f"weights of {what} must have three axes, the last known")
            self.require_shape(f"weights of {what}", weights, [batch, extent, most])
