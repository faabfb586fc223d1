"""
The SPU: matrix products and convolutions, banked sparse or dense, with a fused epilogue.

It models the sparse processing units of Moffett's Antoum chip (US 10,970,619; US 11,144,823
describe the two-level sparse filters). A product accumulates exactly in int32 for int8 operands,
and in float32 for bf16 and f32; the epilogue then computes, in float32 and in this order:

    v = acc * scale[n];  v = v * row_scale[m];  v = v + bias[n];  v = v + residual[m, n]
    v = activation(v);   store as f32 or bf16, or quantise with out_scale and out_zero

A `prescaled` product has the factor 1 / out_scale in its scale, bias and residual_scale already,
and is quantised without it.

Weights have rows of output channels: `[N, K]` for a product, `[O, KH, KW, C / groups]` for a
convolution. Their tensor type may carry `#spu.banked`; without an encoding they are dense.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import auto
from typing import ClassVar, cast

from xdsl.dialects.builtin import (
    BoolAttr,
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    MemRefType,
    TensorType,
    UnitAttr,
    bf16,
    f32,
    i8,
    i32,
    i64,
)
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import Attribute, Dialect, SpacedOpaqueSyntaxAttribute, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    ParsePropInAttrDict,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    opt_result_def,
    prop_def,
    traits_def,
)
from xdsl.utils.str_enum import StrEnum

from .destination import DestinationEffects, DestinationOp, result_type
from .spu_attention import AttentionOp, PackedAttentionOp, PackKeysOp, PackValuesOp
from .types import DYNAMIC, element_of, same_extent, shape_of, shaped, show_shape, ui8
from .weights import BankedAttr, WeightsAttr


class Activation(StrEnum):
    """The functions that an epilogue can apply; `sfu_` ones by the special function unit."""

    NONE = auto()
    RELU = auto()
    GELU = auto()
    GELU_TANH = auto()
    TANH = auto()
    SIGMOID = auto()
    SILU = auto()
    SFU_GELU = auto()
    SFU_GELU_TANH = auto()
    SFU_SILU = auto()
    SFU_SIGMOID = auto()


@irdl_attr_definition
class ActivationAttr(EnumAttribute[Activation], SpacedOpaqueSyntaxAttribute):
    """The activation of an epilogue: `#spu.activation gelu`."""

    name = "spu.activation"


PRESCALED_ACTIVATIONS = (Activation.NONE, Activation.RELU)
"""Those that a positive factor passes through."""

GROUP_LANES = "group_lanes"
"""Attribute of a convolution that is a tile of one group: the output channels of a group."""


LANE_PAIRS = "lane_pairs"
"""Attribute of a tile whose lane groups go two by two past each window that is read."""


def encoding_of(weight: SSAValue | Attribute) -> BankedAttr | None:
    """The banked encoding of a weight's type, or None for a dense weight."""
    kind = shaped(weight)
    found = kind.encoding if isinstance(kind, TensorType) else kind.layout
    return found if isinstance(found, BankedAttr) else None


def integers(attr: DenseArrayBase) -> tuple[int, ...]:
    """The values of an `array<i64: ...>` attribute."""
    return cast("DenseArrayBase[IntegerType]", attr).get_values()


_GROUP = "(`{0}` `(` ${0}^ `:` type(${0}) `)`)?"
_EPILOGUE_FORMAT = " ".join(
    _GROUP.format(name) for name in ("scale", "row_scale", "bias", "residual")
)


class EpilogueOp(DestinationOp, ABC):
    """
    A product of activations and constant weights, with the epilogue of this dialect.

    Operands: `x`; `weight`; `scale` f32 [N]; `row_scale` f32, x's shape without its last axis;
    `bias` f32 [N]; `residual`, the init's shape, f32, bf16, ui8 or i8; `init`. Element types of
    (x, weight): (ui8, i8), (bf16, bf16) or (f32, f32).
    """

    x = operand_def(TensorType | MemRefType)
    weight = operand_def(TensorType | MemRefType)
    scale = opt_operand_def(TensorType | MemRefType)
    row_scale = opt_operand_def(TensorType | MemRefType)
    bias = opt_operand_def(TensorType | MemRefType)
    residual = opt_operand_def(TensorType | MemRefType)
    init = operand_def(TensorType | MemRefType)
    result = opt_result_def(TensorType)

    x_zero = prop_def(IntegerAttr, default_value=IntegerAttr(0, i32))
    activation = prop_def(ActivationAttr, default_value=ActivationAttr(Activation.NONE))
    residual_scale = opt_prop_def(FloatAttr)
    residual_zero = opt_prop_def(IntegerAttr)
    out_scale = opt_prop_def(FloatAttr)
    out_zero = opt_prop_def(IntegerAttr)
    prescaled = opt_prop_def(UnitAttr)

    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    traits = traits_def(DestinationEffects())

    assembly_format = (
        "$x `,` $weight " + _EPILOGUE_FORMAT + " `into` $init attr-dict "
        "`:` type($x) `,` type($weight) `,` type($init) (`->` type($result)^)?"
    )

    WEIGHT_OF: ClassVar[dict[Attribute, Attribute]] = {ui8: i8, bf16: bf16, f32: f32}

    def __init__(
        self,
        x: SSAValue,
        weight: SSAValue,
        init: SSAValue,
        *,
        scale: SSAValue | None = None,
        row_scale: SSAValue | None = None,
        bias: SSAValue | None = None,
        residual: SSAValue | None = None,
        properties: dict[str, Attribute] | None = None,
        attributes: dict[str, Attribute] | None = None,
    ):
        super().__init__(
            operands=[x, weight, scale, row_scale, bias, residual, init],
            result_types=[result_type(init)],
            properties=dict(properties or {}),
            attributes=dict(attributes or {}),
        )

    @property
    def inits(self) -> Sequence[SSAValue]:
        return (self.init,)

    @property
    @abstractmethod
    def segments(self) -> tuple[int, ...]:
        """
        The lengths, in elements and in the order of K, of the runs of x that meet consecutive
        weights of a row. Banks are cut inside of them.
        """

    def verify_epilogue(self, channels: int, rows: Sequence[int], depth: int) -> None:
        """Check what does not depend on the kind of product; `depth` is the banked extent."""
        self.require_element("x", self.x, *self.WEIGHT_OF)
        expected = self.WEIGHT_OF[element_of(self.x)]
        self.require_element(f"the weight of a {element_of(self.x)} x", self.weight, expected)
        encoding = encoding_of(self.weight)
        if encoding is not None:
            element = element_of(self.weight)
            self.require(
                element != f32, "an f32 weight is always dense: remove its #spu.banked encoding"
            )
            bank = 64 if element == i8 else 32
            self.require(
                encoding.bank.data == bank,
                f"a bank is 64 bytes: bank must be {bank} for {element_of(self.weight)} weights, "
                f"got {encoding.bank.data}",
            )
        if element_of(self.x) == ui8:
            self.require(self.scale is not None, "an int8 product needs scale (f32 [N])")
        for what in ("scale", "bias"):
            value = getattr(self, what)
            if value is not None:
                self.require_element(what, value, f32)
                self.require_shape(what, value, [channels])
        if self.row_scale is not None:
            self.require_element("row_scale", self.row_scale, f32)
            self.require_shape("row_scale", self.row_scale, rows)
        if self.residual is not None:
            self.require_element("residual", self.residual, f32, bf16, ui8, i8)
            self.require_shape("residual", self.residual, shape_of(self.init))
            quantised = element_of(self.residual) in (ui8, i8)
            self.require(
                quantised == (self.residual_scale is not None and self.residual_zero is not None),
                "residual_scale and residual_zero belong to a ui8 or i8 residual, and only to it",
            )
        self.require_element("the init", self.init, f32, bf16, ui8, i8)
        quantised = element_of(self.init) in (ui8, i8)
        self.require(
            quantised == (self.out_scale is not None and self.out_zero is not None),
            "out_scale and out_zero belong to a ui8 or i8 init, and only to it",
        )
        self.require(
            self.prescaled is None or (quantised and self.activation.data in PRESCALED_ACTIVATIONS),
            "prescaled belongs to a ui8 or i8 init, after no activation or relu",
        )
        zero = self.x_zero.value.data
        limit = 255 if element_of(self.x) == ui8 else 0
        self.require(0 <= zero <= limit, f"x_zero must lie in 0..{limit} here, got {zero}")
        self.require(depth != 0, "the reduction must not be empty")
        self.require(channels != 0, "there must be at least one output channel")


@irdl_op_definition
class MatmulOp(EpilogueOp):
    """
    `init[..., n] = epilogue(sum_k (x[..., k] - x_zero) * weight[n, k])`.

    x `[..., K]`, weight `[N, K]`, init `[..., N]`.
    """

    name = "spu.matmul"

    @property
    def segments(self) -> tuple[int, ...]:
        return (shape_of(self.weight)[-1],)

    def verify_meaning(self) -> None:
        x, weight, init = shape_of(self.x), shape_of(self.weight), shape_of(self.init)
        self.require(len(x) >= 1, "x must have at least one axis")
        self.require(
            len(weight) == 2 and same_extent(weight[1], x[-1]),
            f"weight must have shape [N, {show_shape(x[-1:])[1:-1]}] to match x {show_shape(x)}, "
            f"got {show_shape(weight)}",
        )
        self.require_shape("the init", self.init, [*x[:-1], weight[0]])
        self.verify_epilogue(init[-1], x[:-1], weight[1])


@irdl_op_definition
class ConvOp(EpilogueOp):
    """
    Two-dimensional convolution, channels last.

    x `[N, H, W, C]`, weight `[O, KH, KW, C / groups]`, init `[N, OH, OW, O]`; `strides` and
    `dilations` are (height, width), `pads` (top, left, bottom, right) as ONNX has them. Padded
    positions hold `x_zero`, the real value 0.
    """

    name = "spu.conv"

    strides = prop_def(DenseArrayBase, default_value=DenseArrayBase.from_list(i64, [1, 1]))
    pads = prop_def(DenseArrayBase, default_value=DenseArrayBase.from_list(i64, [0, 0, 0, 0]))
    dilations = prop_def(DenseArrayBase, default_value=DenseArrayBase.from_list(i64, [1, 1]))
    groups = prop_def(IntegerAttr, default_value=IntegerAttr(1, i64))

    def verify_meaning(self) -> None:
        x, weight, init = shape_of(self.x), shape_of(self.weight), shape_of(self.init)
        groups = self.groups.value.data
        for what, count in (("strides", 2), ("dilations", 2), ("pads", 4)):
            values = integers(getattr(self, what))
            low = 0 if what == "pads" else 1
            self.require(
                len(values) == count and min(values) >= low,
                f"{what} must be {count} integers of at least {low}, got {list(values)}",
            )
        self.require(
            len(x) == len(weight) == len(init) == 4,
            "x must be [N, H, W, C], weight [O, KH, KW, C / groups], init [N, OH, OW, O]",
        )
        self.require(
            x[3] != DYNAMIC and DYNAMIC not in weight[1:],
            f"x's channels and the kernel must have static extents, got x {show_shape(x)} and "
            f"weight {show_shape(weight)}",
        )
        self.require(
            groups >= 1
            and (weight[0] == DYNAMIC or weight[0] % groups == 0)
            and weight[3] * groups == x[3],
            f"weight must have C / groups = {x[3]} / {groups} channels and O divisible by "
            f"groups, got {show_shape(weight)}",
        )
        self.require_shape("the init", self.init, [x[0], *self.spatial_out(), weight[0]])
        self.verify_epilogue(init[3], init[:3], weight[1] * weight[2] * weight[3])

    @property
    def segments(self) -> tuple[int, ...]:
        """One a kernel row where its taps are neighbours in memory, else one a tap."""
        _, height, width, channels = shape_of(self.weight)
        if integers(self.dilations)[1] == 1 and not self.of_a_group:
            return (width * channels,) * height
        return (channels,) * (height * width)

    @property
    def of_a_group(self) -> bool:
        """Whether a pixel has channels of other groups, before or after tiling to one group."""
        return self.groups.value.data > 1 or GROUP_LANES in self.attributes

    @property
    def depthwise(self) -> bool:
        """Whether every output channel is that of one input channel, each a group of its own."""
        outputs, _, _, depth = shape_of(self.weight)
        return depth == 1 and outputs == self.groups.value.data > 1

    def spatial_out(self) -> tuple[int, int]:
        """(OH, OW) from x, the kernel, pads, strides and dilations; run-time where x's are."""
        x, weight = shape_of(self.x), shape_of(self.weight)
        pads, strides = integers(self.pads), integers(self.strides)
        dilations = integers(self.dilations)
        height, width = (
            DYNAMIC
            if x[1 + a] == DYNAMIC
            else (x[1 + a] + pads[a] + pads[a + 2] - dilations[a] * (weight[1 + a] - 1) - 1)
            // strides[a]
            + 1
            for a in (0, 1)
        )
        return height, width


@irdl_op_definition
class BatchMatmulOp(DestinationOp):
    """
    The product of two activations: `init[..., m, n] = alpha * sum_k a[..., m, k] * b[..., k, n]`.

    a `[..., M, K]`, b `[..., K, N]` (`[..., N, K]` with `transpose_b`), init `[..., M, N]`, all
    f32; leading axes of a and b broadcast as numpy's do. Each output accumulates over k in order,
    from 0, multiplying and then adding.
    """

    name = "spu.batch_matmul"

    a = operand_def(TensorType | MemRefType)
    b = operand_def(TensorType | MemRefType)
    init = operand_def(TensorType | MemRefType)
    result = opt_result_def(TensorType)
    alpha = prop_def(FloatAttr, default_value=FloatAttr(1.0, f32))
    transpose_b = prop_def(BoolAttr, default_value=IntegerAttr.from_bool(False))

    irdl_options = (ParsePropInAttrDict(),)
    traits = traits_def(DestinationEffects())
    assembly_format = (
        "$a `,` $b `into` $init attr-dict "
        "`:` type($a) `,` type($b) `,` type($init) (`->` type($result)^)?"
    )

    def __init__(
        self,
        a: SSAValue,
        b: SSAValue,
        init: SSAValue,
        *,
        alpha: float = 1.0,
        transpose_b: bool = False,
        attributes: dict[str, Attribute] | None = None,
    ):
        super().__init__(
            operands=[a, b, init],
            result_types=[result_type(init)],
            properties={
                "alpha": FloatAttr(alpha, f32),
                "transpose_b": IntegerAttr.from_bool(transpose_b),
            },
            attributes=dict(attributes or {}),
        )

    @property
    def inits(self) -> Sequence[SSAValue]:
        return (self.init,)

    @property
    def transposed(self) -> bool:
        """Whether b is `[..., N, K]`."""
        return bool(self.transpose_b.value.data)

    def verify_meaning(self) -> None:
        a, b, init = shape_of(self.a), shape_of(self.b), shape_of(self.init)
        self.require(
            min(len(a), len(b)) >= 2 and len(init) == max(len(a), len(b)),
            "a and b must be matrices with optional leading axes, init as many axes as the longer",
        )
        depth, columns = (b[-1], b[-2]) if self.transposed else (b[-2], b[-1])
        self.require(
            same_extent(a[-1], depth),
            f"the reduction must agree: a {show_shape(a)} has {a[-1]}, b {show_shape(b)} {depth}",
        )
        self.require_shape("the last axes of the init", self.init, [*init[:-2], a[-2], columns])
        for value in (self.a, self.b, self.init):
            self.require_element("a, b and init", value, f32)


Spu = Dialect(
    "spu",
    [
        MatmulOp,
        ConvOp,
        BatchMatmulOp,
        AttentionOp,
        PackKeysOp,
        PackValuesOp,
        PackedAttentionOp,
    ],
    [WeightsAttr, BankedAttr, ActivationAttr],
)

__all__ = [
    "GROUP_LANES",
    "LANE_PAIRS",
    "Activation",
    "ActivationAttr",
    "AttentionOp",
    "BatchMatmulOp",
    "ConvOp",
    "EpilogueOp",
    "MatmulOp",
    "PackKeysOp",
    "PackValuesOp",
    "PackedAttentionOp",
    "Spu",
    "encoding_of",
    "integers",
]
