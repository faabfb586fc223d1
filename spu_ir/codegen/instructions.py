"""Tile ops of the IR as the instructions that `spu_ir.schedule.instructions` has formulas for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

from xdsl.dialects import scf
from xdsl.dialects.builtin import DenseArrayBase, FloatAttr, IntegerAttr, IntegerType
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import Block, Operation, SSAValue
from xdsl.utils.str_enum import StrEnum

from spu_ir.codegen.weights import Placed, constant_of
from spu_ir.dialects.antoum import DmaOp, FillOp
from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.spu import EpilogueOp, PackedAttentionOp, integers
from spu_ir.dialects.types import element_of, numpy_dtype, shape_of
from spu_ir.errors import SpuError
from spu_ir.schedule.expressions import Expr
from spu_ir.schedule.instructions import LANES, MASK_OF_KEYS, Instruction, Operand, Packed

ACTIVATION = {
    "spu.matmul": "x",
    "spu.conv": "x",
    "spu.batch_matmul": "a",
    "spu.attention": "q",
    "spu.packed_attention": "q",
}
"""The operand of a product whose zeros could be skipped."""


def is_instruction(op: Operation) -> bool:
    """Whether an op of a tiled function is an instruction of the device."""
    return isinstance(op, DestinationOp | DmaOp | FillOp)


def steps_of(block: Block) -> list[Operation]:
    """The steps of a tiled function: loop nests at its top, and instructions outside of any."""
    return [op for op in block.ops if next(instructions_of(op), None) is not None]


def instructions_of(op: Operation) -> Iterator[Operation]:
    """The instructions of a step, in program order."""
    if is_instruction(op):
        yield op
    elif isinstance(op, scf.ForOp | scf.ParallelOp):
        for inner in op.body.block.ops:
            yield from instructions_of(inner)


def written_by(op: Operation) -> tuple[SSAValue, ...]:
    """The operands that an instruction writes."""
    if isinstance(op, DestinationOp):
        return tuple(op.inits)
    assert isinstance(op, DmaOp | FillOp)
    return (op.target,)


def operands_of(op: Operation) -> dict[str, SSAValue]:
    """An instruction's operands by name, in order; without the optional ones that are not there."""
    found: dict[str, SSAValue] = {}
    assert isinstance(op, DestinationOp | DmaOp | FillOp)
    for name, _ in type(op).get_irdl_definition().operands:
        value: object = getattr(op, name)
        if isinstance(value, SSAValue):
            found[name] = value
        elif value is not None:
            raise SpuError(f"{op.name} has a list of operands; tile it first", op=op.name)
    return found


def instruction_of(
    op: Operation,
    shape: Callable[[SSAValue], tuple[Expr, ...]],
    weight: Packed | None = None,
) -> Instruction:
    """The instruction that an op is; `shape` tells that of a memref, `weight` what it streams."""
    operands: dict[str, Operand] = {}
    for name, value in operands_of(op).items():
        if isinstance(op, EpilogueOp) and name == "weight":
            dims: tuple[Expr, ...] = (shape(op.init)[-1], *shape_of(value)[1:])
        else:
            dims = shape(value)
        operands[name] = Operand(dims, numpy_dtype(element_of(value)).itemsize)
    facts = _facts(op)
    if isinstance(op, PackedAttentionOp) and op.mask is not None:
        facts[MASK_OF_KEYS] = int(shape_of(op.mask)[3] != 1)
    return Instruction(op.name, operands, facts, weight)


def _facts(op: Operation) -> dict[str, int | float | str | tuple[int, ...]]:
    facts: dict[str, int | float | str | tuple[int, ...]] = {}
    for name, attr in op.properties.items():
        if isinstance(attr, IntegerAttr | FloatAttr):
            facts[name] = attr.value.data
        elif isinstance(attr, EnumAttribute):
            facts[name] = str(cast("EnumAttribute[StrEnum]", attr).data)
        elif isinstance(attr, DenseArrayBase):
            facts[name] = integers(cast("DenseArrayBase[IntegerType]", attr))
    return facts


def precision_of(op: Operation) -> str:
    """The arithmetic of an instruction: `int8`, `bf16` or `fp32`, which counts for the rest too."""
    if op.name in ("spu.packed_attention", "spu.pack_keys", "spu.pack_values"):
        return "int8"
    # A gather's first operand is the table; of a cast or quantisation it is where it comes from.
    name = numpy_dtype(element_of(op.operands[0])).name
    return {"uint8": "int8", "int8": "int8", "bfloat16": "bf16"}.get(name, "fp32")


def packed_of(placed: Placed, quads: Expr) -> Packed:
    """What a product streams of a packed weight, of which it takes `quads`."""
    packed = placed.packed
    if packed.format == "depthwise":
        return Packed(quads, LANES, 64)
    slots = (
        64 * packed.share // (packed.value.itemsize if packed.kind == "f32" else _SIZE[packed.kind])
    )
    offsets = 8 if packed.format == "banked2" else 4
    index = 0 if packed.index is None else 64
    return Packed(quads, slots, index + 64 * packed.share + offsets)


_SIZE = {"i8": 1, "bf16": 2}


def total_quads(placed: Placed) -> int:
    """Quads of all lane groups of a packed weight."""
    packed = placed.packed
    if packed.format == "depthwise":
        return packed.lane_groups * int(packed.begin[-1])
    return int(packed.begin[-1])


def quads_of(placed: Placed, group: int, lanes: int) -> int:
    """Quads of the lane groups that `lanes` channels from lane group `group` on are in."""
    packed = placed.packed
    count = -(-lanes // LANES)
    if packed.format == "depthwise":
        return count * int(packed.begin[-1])
    end = -(-(group + count) // packed.share)
    return int(packed.begin[end] - packed.begin[group // packed.share])


def rows_of_weight(op: EpilogueOp) -> tuple[SSAValue | int, int]:
    """The first row of its constant that a product takes, and how many the constant has."""
    constant, row = constant_of(op.weight)
    return row, shape_of(constant.result)[0]
