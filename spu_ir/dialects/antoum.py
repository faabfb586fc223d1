"""
The chip around the engines: memory spaces, constants, the arena, DMA and cores.

Antoum (the chip of the S4, S10 and S30 cards) has DDR, an L2 a core which this dialect calls
`sram`, and four cores. Standard `memref` ops describe views; this dialect adds what they lack.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import auto

from xdsl.dialects.builtin import (
    FloatAttr,
    IndexType,
    IntAttr,
    IntegerAttr,
    MemRefType,
    TensorType,
    i8,
)
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import (
    Attribute,
    Dialect,
    Operation,
    ParametrizedAttribute,
    SpacedOpaqueSyntaxAttribute,
    SSAValue,
)
from xdsl.irdl import (
    IRDLOperation,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.traits import (
    ConstantLike,
    EffectInstance,
    MemoryEffect,
    MemoryEffectKind,
    NoMemoryEffect,
)
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.str_enum import StrEnum

from .types import DYNAMIC, element_of, same_shape, shape_of, shaped, show_shape
from .weights import constant_type

CORES = 4
"""Cores of one Antoum chip."""


class Space(StrEnum):
    """Memory spaces of a core."""

    DDR = auto()
    SRAM = auto()


@irdl_attr_definition
class SpaceAttr(EnumAttribute[Space], SpacedOpaqueSyntaxAttribute):
    """The memory space of a memref: `#antoum.space ddr` or `#antoum.space sram`."""

    name = "antoum.space"


@irdl_attr_definition
class CoresAttr(ParametrizedAttribute):
    """
    On an `scf.parallel`: its steps are spread over this many cores, `#antoum.cores<4>`.

    A chip has four; the device model's cores are the host's threads.
    """

    name = "antoum.cores"

    count: IntAttr

    def verify(self) -> None:
        if not 1 <= self.count.data <= CORES:
            raise VerifyException(f"a chip has 1 to {CORES} cores, got {self.count.data}")

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            return [IntAttr(parser.parse_integer())]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_int(self.count.data)


@irdl_op_definition
class ConstantOp(IRDLOperation):
    """
    A constant, resident in DDR: weights, scales, biases, tables.

    The result is a tensor, or, after bufferisation, a memref in `#antoum.space ddr`. Its type may
    carry `#spu.banked` (a tensor's encoding, a memref's layout); shape and element type are those
    of the value.
    """

    name = "antoum.constant"

    value = prop_def(Attribute)
    result = result_def(TensorType | MemRefType)

    traits = traits_def(NoMemoryEffect(), ConstantLike())
    assembly_format = "$value attr-dict `:` type($result)"

    def __init__(self, value: Attribute, result_type: Attribute | None = None):
        super().__init__(
            properties={"value": value}, result_types=[result_type or constant_type(value)]
        )

    def verify_(self) -> None:
        try:
            kind = constant_type(self.value)
        except TypeError as error:
            raise VerifyException(f"{self.name}: {error}") from error
        own = shaped(self.result)
        if (kind.get_shape(), kind.get_element_type()) != (
            own.get_shape(),
            own.get_element_type(),
        ):
            raise VerifyException(
                f"{self.name}: the result must have the value's shape and element type, "
                f"{kind}, got {own}"
            )


class _Allocates(MemoryEffect):
    @classmethod
    def get_effects(cls, op: Operation) -> set[EffectInstance]:
        return {EffectInstance(MemoryEffectKind.ALLOC)}


@irdl_op_definition
class ArenaOp(IRDLOperation):
    """
    The program's one working memory, of `bytes` bytes, aligned to 64; the caller owns it.

    Buffers are `memref.view`s of it at planned offsets. At least 64 readable bytes follow it, so
    that the window of a last bank may reach past a buffer's end.
    """

    name = "antoum.arena"

    bytes = operand_def(IndexType)
    result = result_def(MemRefType)

    traits = traits_def(_Allocates())
    assembly_format = "$bytes attr-dict `:` type($result)"

    def __init__(self, size: SSAValue, space: Space = Space.SRAM):
        super().__init__(
            operands=[size],
            result_types=[MemRefType(i8, [DYNAMIC], memory_space=SpaceAttr(space))],
        )

    def verify_(self) -> None:
        kind = shaped(self.result)
        if kind.get_shape() != (DYNAMIC,) or kind.get_element_type() != i8:
            raise VerifyException(f"{self.name}: the arena must be a memref<?xi8>, got {kind}")


class _DmaEffects(MemoryEffect):
    @classmethod
    def get_effects(cls, op: Operation) -> set[EffectInstance]:
        return {
            EffectInstance(MemoryEffectKind.READ, op.operands[0]),
            EffectInstance(MemoryEffectKind.WRITE, op.operands[1]),
        }


@irdl_op_definition
class DmaOp(IRDLOperation):
    """A copy of equal shape and element type by the DMA engine, between memory spaces or views."""

    name = "antoum.dma"

    source = operand_def(MemRefType)
    target = operand_def(MemRefType)

    traits = traits_def(_DmaEffects())
    assembly_format = "$source `into` $target attr-dict `:` type($source) `,` type($target)"

    def __init__(self, source: SSAValue, target: SSAValue):
        super().__init__(operands=[source, target])

    def verify_(self) -> None:
        if element_of(self.source) != element_of(self.target) or not same_shape(
            shape_of(self.source), shape_of(self.target)
        ):
            raise VerifyException(
                f"{self.name}: source and target must have one shape and element type, got "
                f"{show_shape(shape_of(self.source))} {element_of(self.source)} and "
                f"{show_shape(shape_of(self.target))} {element_of(self.target)}"
            )


@irdl_op_definition
class FillOp(IRDLOperation):
    """Every element of the target becomes `value`: the halo of a convolution's input."""

    name = "antoum.fill"

    value = prop_def(IntegerAttr | FloatAttr)
    target = operand_def(MemRefType)

    traits = traits_def()
    assembly_format = "$value `into` $target attr-dict `:` type($target)"

    def __init__(self, value: Attribute, target: SSAValue):
        super().__init__(properties={"value": value}, operands=[target])


Antoum = Dialect("antoum", [ConstantOp, ArenaOp, DmaOp, FillOp], [SpaceAttr, CoresAttr])
