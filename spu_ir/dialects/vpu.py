"""
The VPU: everything that is not a matrix product.

Element-wise functions, reductions, softmax, normalisation, pooling, data movement, quantisation
and tables, in destination-passing style. Broadcasting is numpy's. Images are channels last.
The element-wise functions' names and meanings are those of the ONNX operators.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from enum import auto
from typing import ClassVar

from xdsl.dialects.builtin import (
    BoolAttr,
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    MemRefType,
    TensorType,
    bf16,
    f32,
    i1,
    i8,
    i32,
    i64,
)
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import Attribute, Dialect, SpacedOpaqueSyntaxAttribute, SSAValue
from xdsl.irdl import (
    ParsePropInAttrDict,
    SameVariadicResultSize,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_result_def,
    prop_def,
    traits_def,
    var_operand_def,
)
from xdsl.utils.str_enum import StrEnum

from .destination import DestinationEffects, DestinationOp, result_type
from .spu import integers
from .types import DYNAMIC, element_of, same_extent, shape_of, show_shape, ui8

Shaped = TensorType | MemRefType


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


def array_attr(values: Sequence[int]) -> DenseArrayBase:
    """`array<i64: ...>` of `values`."""
    return DenseArrayBase.from_list(i64, list(values))


class VpuOp(DestinationOp, ABC):
    """A VPU op with one init, which is its last operand."""

    init = operand_def(Shaped)
    result = opt_result_def(TensorType)

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
        properties: dict[str, Attribute] | None = None,
        attributes: dict[str, Attribute] | None = None,
    ):
        super().__init__(
            operands=[x, init],
            result_types=[result_type(init)],
            properties=dict(properties or {}),
            attributes=dict(attributes or {}),
        )

    def require_same_element(self) -> None:
        """The init must have x's element type."""
        self.require_element("the init", self.init, element_of(self.x))


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
class QuantiseRowsOp(DestinationOp):
    """
    Dynamic quantisation, row by row: symmetric, the zero point always 128.

    x f32 `[..., K]`; init ui8, x's shape; scale_init f32, x's shape without its last axis.
    `scale = max|x| / 127`, `init = clamp(rint(x * (127 / max|x|)), -127, 127) + 128`.
    """

    name = "vpu.quantise_rows"

    x = operand_def(Shaped)
    init = operand_def(Shaped)
    scale_init = operand_def(Shaped)
    result = opt_result_def(TensorType)
    scale = opt_result_def(TensorType)

    irdl_options = (SameVariadicResultSize(),)
    traits = traits_def(DestinationEffects())
    assembly_format = (
        "$x `into` $init `,` $scale_init attr-dict `:` type($x) `,` type($init) `,` "
        "type($scale_init) (`->` type($result)^ `,` type($scale))?"
    )

    def __init__(self, x: SSAValue, init: SSAValue, scale_init: SSAValue):
        super().__init__(
            operands=[x, init, scale_init],
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
            operands=[a, b, init],
            result_types=[result_type(init)],
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
            operands=[condition, a, b, init],
            result_types=[result_type(init)],
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
            operands=[x, gamma, beta, init],
            result_types=[result_type(init)],
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
            operands=[x, indices, init],
            result_types=[result_type(init)],
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
            operands=[xs, init],
            result_types=[result_type(init)],
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
            operands=[x, scale, zero, init],
            result_types=[result_type(init)],
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
class DequantiseOp(ScaledOp):
    """`init = (x - zero) * scale`: x ui8, i8 or i32, init f32 (DequantizeLinear)."""

    name = "vpu.dequantise"

    def verify_meaning(self) -> None:
        self.require_element("x", self.x, *self.INTEGERS)
        self.require_element("the init", self.init, f32)
        self.verify_scale(self.x)


@irdl_op_definition
class TableOp(VpuOp):
    """`init[i] = table[x[i]]`: x ui8, table 256 entries, between static scales only."""

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
            operands=[x, table, init],
            result_types=[result_type(init)],
        )

    def verify_meaning(self) -> None:
        self.require_element("x", self.x, ui8)
        self.require_element("table", self.table, ui8)
        self.require_element("the init", self.init, ui8)
        self.require_shape("table", self.table, [256])
        self.require_shape("the init", self.init, shape_of(self.x))


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
        ReduceOp,
        SoftmaxOp,
        LayerNormOp,
        PoolOp,
        QuantiseOp,
        DequantiseOp,
        QuantiseRowsOp,
        TableOp,
    ],
    [UnaryFnAttr, BinaryFnAttr, ReduceFnAttr, PoolFnAttr],
)
