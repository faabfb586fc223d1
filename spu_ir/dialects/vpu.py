"""
The VPU: everything that is not a matrix product.

Element-wise functions, reductions, softmax, normalisation, pooling, data movement, quantisation,
tables and resizing of images, in destination-passing style. Broadcasting is numpy's. Images are
channels last. The element-wise functions' names and meanings are those of the ONNX operators.
"""

from __future__ import annotations

from enum import auto

from xdsl.dialects.builtin import (
    BoolAttr,
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    bf16,
    f32,
    i1,
    i8,
    i32,
    i64,
)
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import Dialect, SpacedOpaqueSyntaxAttribute, SSAValue
from xdsl.irdl import (
    ParsePropInAttrDict,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    prop_def,
    traits_def,
)
from xdsl.utils.str_enum import StrEnum

from .destination import DestinationEffects
from .spu import integers
from .types import element_of, shape_of, ui8
from .vpu_base import Shaped, UnaryLikeOp, VpuOp, array_attr
from .vpu_image import ResizeFilter, ResizeFilterAttr, ResizeOp, ResizeTapsOp
from .vpu_movement import (
    ConcatOp,
    ExpandOp,
    GatherOp,
    PadOp,
    ReshapeOp,
    SliceOp,
    TransposeOp,
)
from .vpu_packed import PackRowsOp, RowOffsetsOp, UnpackRowsOp
from .vpu_quantise import (
    NORM_ROW,
    DequantiseOp,
    LayerNormRowsOp,
    QuantiseOp,
    QuantiseProductOp,
    QuantiseRowsOp,
    ScaledOp,
    TableOp,
)
from .vpu_scan import CumsumOp


class UnaryFn(StrEnum):
    """Functions of one operand."""

    ABS = auto()
    NEG = auto()
    EXP = auto()
    LOG = auto()
    SQRT = auto()
    RECIPROCAL = auto()
    ERF = auto()
    TANH = auto()
    SIGMOID = auto()
    RELU = auto()
    GELU = auto()
    GELU_TANH = auto()
    SILU = auto()
    SOFTPLUS = auto()
    FLOOR = auto()
    CEIL = auto()
    ROUND = auto()
    SIGN = auto()
    NOT = auto()


class BinaryFn(StrEnum):
    """Functions of two operands; the last seven yield i1."""

    ADD = auto()
    SUB = auto()
    MUL = auto()
    DIV = auto()
    POW = auto()
    MIN = auto()
    MAX = auto()
    EQUAL = auto()
    LESS = auto()
    LESS_OR_EQUAL = auto()
    GREATER = auto()
    GREATER_OR_EQUAL = auto()
    AND = auto()
    OR = auto()

    @property
    def compares(self) -> bool:
        """Whether the function yields i1."""
        names = list(BinaryFn)
        return names.index(self) >= names.index(BinaryFn.EQUAL)


class ReduceFn(StrEnum):
    """Reductions over axes."""

    SUM = auto()
    MEAN = auto()
    MAX = auto()
    MIN = auto()
    PROD = auto()
    L2 = auto()


class PoolFn(StrEnum):
    """Reductions over windows; `avg` divides by the positions inside, `avg_padded` by all."""

    MAX = auto()
    AVG = auto()
    AVG_PADDED = auto()


@irdl_attr_definition
class UnaryFnAttr(EnumAttribute[UnaryFn], SpacedOpaqueSyntaxAttribute):
    name = "vpu.unary_fn"


@irdl_attr_definition
class BinaryFnAttr(EnumAttribute[BinaryFn], SpacedOpaqueSyntaxAttribute):
    name = "vpu.binary_fn"


@irdl_attr_definition
class ReduceFnAttr(EnumAttribute[ReduceFn], SpacedOpaqueSyntaxAttribute):
    name = "vpu.reduce_fn"


@irdl_attr_definition
class PoolFnAttr(EnumAttribute[PoolFn], SpacedOpaqueSyntaxAttribute):
    name = "vpu.pool_fn"


@irdl_op_definition
class UnaryOp(UnaryLikeOp):
    """`init = fn(x)`, element by element; shapes are equal."""

    name = "vpu.unary"

    fn = prop_def(UnaryFnAttr)
    assembly_format = (
        "$fn $x `into` $init attr-dict `:` type($x) `,` type($init) (`->` type($result)^)?"
    )

    def verify_meaning(self) -> None:
        self.require_shape("the init", self.init, shape_of(self.x))
        self.require_same_element()
        fn = self.fn.data
        if fn is UnaryFn.NOT:
            self.require_element("x of not", self.x, i1)
        elif fn in (UnaryFn.ABS, UnaryFn.NEG, UnaryFn.SIGN, UnaryFn.RELU):
            self.require_element(f"x of {fn}", self.x, f32, i32, i64, i8)
        else:
            self.require_element(f"x of {fn}", self.x, f32)


@irdl_op_definition
class CastOp(UnaryLikeOp):
    """
    `init = x` in the init's element type. Float to integer truncates, saturates, and takes NaN
    to 0; to bf16 rounds to nearest even; to i1 is `x != 0`.
    """

    name = "vpu.cast"

    def verify_meaning(self) -> None:
        self.require_shape("the init", self.init, shape_of(self.x))
        for value in (self.x, self.init):
            self.require_element("x and the init", value, f32, bf16, i1, i8, ui8, i32, i64)


@irdl_op_definition
class ReduceOp(UnaryLikeOp):
    """A reduction over `axes`; the init keeps them with extent 1 or drops them."""

    name = "vpu.reduce"

    fn = prop_def(ReduceFnAttr)
    axes = prop_def(DenseArrayBase)
    assembly_format = (
        "$fn $x `into` $init attr-dict `:` type($x) `,` type($init) (`->` type($result)^)?"
    )

    def verify_meaning(self) -> None:
        self.require_element("x", self.x, f32)
        self.require_same_element()
        shape, axes, out = shape_of(self.x), integers(self.axes), shape_of(self.init)
        self.require(
            len(set(axes)) == len(axes) > 0 and all(0 <= a < len(shape) for a in axes),
            f"axes must be different axes of x, 0 to {len(shape) - 1}, got {list(axes)}",
        )
        kept = [1 if i in axes else d for i, d in enumerate(shape)]
        dropped = [d for i, d in enumerate(shape) if i not in axes]
        self.require_shape("the init", self.init, kept if len(out) == len(shape) else dropped)


@irdl_op_definition
class SoftmaxOp(UnaryLikeOp):
    """Softmax over the last axis, or its logarithm with `log`."""

    name = "vpu.softmax"

    log = prop_def(BoolAttr, default_value=IntegerAttr.from_bool(False))

    def verify_meaning(self) -> None:
        self.require_element("x", self.x, f32)
        self.require_same_element()
        self.require_shape("the init", self.init, shape_of(self.x))


@irdl_op_definition
class PoolOp(UnaryLikeOp):
    """
    Windows over height and width: x `[N, H, W, C]`, init `[N, OH, OW, C]`.

    `kernel`, `strides`, `dilations` are (height, width), `pads` (top, left); how far windows
    reach past the lower right is given by the init's shape. Positions outside x are skipped:
    they neither win a maximum nor, with `avg`, count.
    """

    name = "vpu.pool"

    fn = prop_def(PoolFnAttr)
    kernel = prop_def(DenseArrayBase)
    strides = prop_def(DenseArrayBase)
    pads = prop_def(DenseArrayBase)
    dilations = prop_def(DenseArrayBase)
    assembly_format = (
        "$fn $x `into` $init attr-dict `:` type($x) `,` type($init) (`->` type($result)^)?"
    )

    def verify_meaning(self) -> None:
        if self.fn.data is PoolFn.MAX:
            self.require_element("x", self.x, f32, ui8)
        else:
            self.require_element("x", self.x, f32)
        self.require_same_element()
        x, out = shape_of(self.x), shape_of(self.init)
        self.require(len(x) == len(out) == 4, "x and the init must be [N, H, W, C]")
        self.require_shape("the init", self.init, [x[0], out[1], out[2], x[3]])
        for what in ("kernel", "strides", "dilations", "pads"):
            values = integers(getattr(self, what))
            low = 0 if what == "pads" else 1
            self.require(
                len(values) == 2 and min(values) >= low,
                f"{what} must be two integers of at least {low}, got {list(values)}",
            )


@irdl_op_definition
class BinaryOp(VpuOp):
    """`init = fn(a, b)`, element by element, a and b broadcast to the init's shape."""

    name = "vpu.binary"

    fn = prop_def(BinaryFnAttr)
    a = operand_def(Shaped)
    b = operand_def(Shaped)
    init = operand_def(Shaped)

    irdl_options = ()
    traits = traits_def(DestinationEffects())
    assembly_format = (
        "$fn $a `,` $b `into` $init attr-dict "
        "`:` type($a) `,` type($b) `,` type($init) (`->` type($result)^)?"
    )

    def __init__(self, fn: BinaryFn, a: SSAValue, b: SSAValue, init: SSAValue):
        super().__init__(
            [a, b],
            init,
            properties={"fn": BinaryFnAttr(fn)},
        )

    def verify_meaning(self) -> None:
        fn = self.fn.data
        self.require_broadcast("a", self.a)
        self.require_broadcast("b", self.b)
        self.require_element("b", self.b, element_of(self.a))
        if fn in (BinaryFn.AND, BinaryFn.OR):
            self.require_element(f"a of {fn}", self.a, i1)
        elif fn is BinaryFn.POW:
            self.require_element("a of pow", self.a, f32)
        else:
            extra = (i1,) if fn is BinaryFn.EQUAL else ()
            self.require_element(f"a of {fn}", self.a, f32, i32, i64, *extra)
        self.require_element("the init", self.init, i1 if fn.compares else element_of(self.a))


@irdl_op_definition
class SelectOp(VpuOp):
    """`init = condition ? a : b`, element by element, all broadcast to the init's shape."""

    name = "vpu.select"

    condition = operand_def(Shaped)
    a = operand_def(Shaped)
    b = operand_def(Shaped)
    init = operand_def(Shaped)

    irdl_options = ()
    traits = traits_def(DestinationEffects())
    assembly_format = (
        "$condition `,` $a `,` $b `into` $init attr-dict `:` type($condition) `,` "
        "type($a) `,` type($b) `,` type($init) (`->` type($result)^)?"
    )

    def __init__(self, condition: SSAValue, a: SSAValue, b: SSAValue, init: SSAValue):
        super().__init__(
            [condition, a, b],
            init,
        )

    def verify_meaning(self) -> None:
        self.require_element("condition", self.condition, i1)
        for what in ("condition", "a", "b"):
            self.require_broadcast(what, getattr(self, what))
        for what in ("a", "b"):
            self.require_element(what, getattr(self, what), element_of(self.init))


@irdl_op_definition
class LayerNormOp(VpuOp):
    """
    `init = (x - mean) / sqrt(variance + epsilon) * gamma + beta` over the last axis.

    x and init f32 `[..., K]`, gamma and beta f32 `[K]`. Without `centre`, RMS normalisation:
    no mean is taken off and no beta is added.
    """

    name = "vpu.layer_norm"

    x = operand_def(Shaped)
    gamma = operand_def(Shaped)
    beta = opt_operand_def(Shaped)
    init = operand_def(Shaped)
    epsilon = prop_def(FloatAttr)
    centre = prop_def(BoolAttr, default_value=IntegerAttr.from_bool(True))

    irdl_options = (ParsePropInAttrDict(),)
    traits = traits_def(DestinationEffects())
    assembly_format = (
        "$x `,` $gamma (`beta` `(` $beta^ `:` type($beta) `)`)? `into` $init attr-dict "
        "`:` type($x) `,` type($gamma) `,` type($init) (`->` type($result)^)?"
    )

    def __init__(
        self,
        x: SSAValue,
        gamma: SSAValue,
        beta: SSAValue | None,
        init: SSAValue,
        *,
        epsilon: float,
        centre: bool = True,
    ):
        super().__init__(
            [x, gamma, beta],
            init,
            properties={
                "epsilon": FloatAttr(epsilon, f32),
                "centre": IntegerAttr.from_bool(centre),
            },
        )

    def verify_meaning(self) -> None:
        shape = shape_of(self.x)
        for value in self.operands:
            self.require_element("every operand", value, f32)
        self.require_shape("the init", self.init, shape)
        self.require_shape("gamma", self.gamma, shape[-1:])
        if self.beta is not None:
            self.require(bool(self.centre.value.data), "RMS normalisation has no beta")
            self.require_shape("beta", self.beta, shape[-1:])


POINTWISE = (UnaryOp, BinaryOp, SelectOp, CastOp, ExpandOp, QuantiseOp, DequantiseOp, TableOp)
"""Ops whose output element depends on one element of every operand."""

Vpu = Dialect(
    "vpu",
    [
        UnaryOp,
        BinaryOp,
        SelectOp,
        CastOp,
        ExpandOp,
        ReshapeOp,
        TransposeOp,
        SliceOp,
        PadOp,
        ConcatOp,
        GatherOp,
        RowOffsetsOp,
        PackRowsOp,
        UnpackRowsOp,
        ReduceOp,
        SoftmaxOp,
        CumsumOp,
        LayerNormOp,
        LayerNormRowsOp,
        PoolOp,
        QuantiseOp,
        QuantiseProductOp,
        DequantiseOp,
        QuantiseRowsOp,
        TableOp,
        ResizeTapsOp,
        ResizeOp,
    ],
    [UnaryFnAttr, BinaryFnAttr, ReduceFnAttr, PoolFnAttr, ResizeFilterAttr],
)

__all__ = [
    "BinaryFn",
    "BinaryFnAttr",
    "BinaryOp",
    "CastOp",
    "ConcatOp",
    "CumsumOp",
    "DequantiseOp",
    "ExpandOp",
    "GatherOp",
    "LayerNormOp",
    "LayerNormRowsOp",
    "NORM_ROW",
    "POINTWISE",
    "PackRowsOp",
    "PadOp",
    "PoolFn",
    "PoolFnAttr",
    "PoolOp",
    "QuantiseOp",
    "QuantiseProductOp",
    "QuantiseRowsOp",
    "ReduceFn",
    "ReduceFnAttr",
    "ReduceOp",
    "ReshapeOp",
    "ResizeFilter",
    "ResizeFilterAttr",
    "ResizeOp",
    "ResizeTapsOp",
    "RowOffsetsOp",
    "ScaledOp",
    "SelectOp",
    "SliceOp",
    "SoftmaxOp",
    "TableOp",
    "TransposeOp",
    "UnaryFn",
    "UnaryFnAttr",
    "UnaryLikeOp",
    "UnaryOp",
    "UnpackRowsOp",
    "Vpu",
    "VpuOp",
    "array_attr",
]
