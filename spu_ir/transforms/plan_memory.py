"""One arena a memory space: every buffer gets a place in it, and places are used again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects import func, memref
from xdsl.dialects.builtin import MemRefType, ModuleOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from spu_ir.dialects.antoum import ArenaOp, Space, SpaceAttr
from spu_ir.dialects.functions import bounds
from spu_ir.dialects.types import numpy_dtype, shaped
from spu_ir.errors import SpuError
from spu_ir.transforms.emitter import Emitter, Extent, stated_extents
from spu_ir.transforms.extents import evaluate

ALIGNMENT = 64
"""Bytes: a bank, and a cache line of the host."""

Alias = memref.SubviewOp | memref.ReinterpretCastOp | memref.ViewOp | memref.CollapseShapeOp


@dataclass(eq=False)
class Slot:
    """A place for buffers that are never alive at once; as large as the largest of them."""

    buffers: list[memref.AllocOp] = field(default_factory=list[memref.AllocOp])
    size: int = 0
    """Bytes at the extents' upper bounds."""
    busy_until: int = -1
    """The position of the last op that uses the slot's newest buffer."""
    uses: int = 0


@dataclass(frozen=True)
class PlanMemoryPass(ModulePass):
    """
    Put every buffer of a function into a planned arena.

    Buffers that are never alive at once share a slot (best fit by size at the extents' upper
    bounds). A slot's size at run time is the largest of its buffers' for the actual extents, and
    slots follow one another, so that a small batch touches little memory. The slots with the most
    uses for each byte lie in `sram`, up to `sram` bytes at the upper bounds; the rest in `ddr`.
    """

    name = "plan-memory"
    preserves: ClassVar[str] = "exact"

    sram: int = 8 << 20

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in [o for o in op.ops if isinstance(o, func.FuncOp)]:
            slots = assign_slots(function)
            in_sram = _fitting(slots, self.sram)
            for space in Space:
                chosen = [slot for slot in slots if (slot in in_sram) == (space is Space.SRAM)]
                if chosen:
                    _place(function, chosen, space)


def byte_size(kind: MemRefType, sizes: Sequence[Extent], emit: Emitter) -> Extent:
    """Bytes of a buffer, rounded up to `ALIGNMENT`."""
    itemsize = numpy_dtype(kind.element_type).itemsize
    return emit.ceil_multiple(emit.product([itemsize, *sizes]), ALIGNMENT)


def _sizes(alloc: memref.AllocOp) -> list[Extent]:
    sizes = stated_extents(alloc.memref)
    assert sizes is not None
    return sizes


def last_use(value: SSAValue, position: dict[Operation, int]) -> tuple[int, int]:
    """The position of the last op of the block that uses `value` or a view of it; how many do."""
    last, count = -1, 0
    for use in value.uses:
        op = use.operation
        while op not in position:
            parent = op.parent_op()
            assert parent is not None
            op = parent
        last, count = max(last, position[op]), count + 1
        if isinstance(use.operation, Alias):
            inner, more = last_use(use.operation.results[0], position)
            last, count = max(last, inner), count + more
    return last, count


def assign_slots(function: func.FuncOp) -> list[Slot]:
    """Slots for every `memref.alloc` of a function's block, in the order of first use."""
    block = function.body.block
    position = {op: i for i, op in enumerate(block.ops)}
    high = {name: upper for name, (_, upper) in bounds(function).items()}
    slots: list[Slot] = []
    for alloc, start in position.items():
        if not isinstance(alloc, memref.AllocOp):
            continue
        try:
            extents = [evaluate(function, size, high) for size in _sizes(alloc)]
        except ValueError as error:
            raise SpuError(
                "a buffer's size is not an expression in the named extents",
                op="plan-memory",
                remedy="give every dynamic axis of the inputs a bound with shapes=",
            ) from error
        size = numpy_dtype(alloc.memref.type.element_type).itemsize
        for extent in extents:
            size *= extent
        end, uses = last_use(alloc.memref, position)
        free = [slot for slot in slots if slot.busy_until < start]
        # The smallest slot that is large enough, else the largest, which then grows.
        slot = min(free, key=lambda s: (s.size < size, abs(s.size - size)), default=None)
        if slot is None:
            slot = Slot()
            slots.append(slot)
        slot.buffers.append(alloc)
        slot.size = max(slot.size, size)
        slot.busy_until = end
        slot.uses += uses
    return slots


def _fitting(slots: Sequence[Slot], capacity: int) -> set[Slot]:
    chosen: set[Slot] = set()
    for slot in sorted(slots, key=lambda s: -s.uses / max(s.size, 1)):
        if slot.size <= capacity:
            chosen.add(slot)
            capacity -= slot.size
    return chosen


def _place(function: func.FuncOp, slots: Sequence[Slot], space: Space) -> None:
    block = function.body.block
    first = _after_extents(block, [alloc for slot in slots for alloc in slot.buffers])
    emit = Emitter(InsertPoint.after(first) if first else InsertPoint.at_start(block))
    offsets: list[Extent] = []
    total: Extent = 0
    for slot in slots:
        offsets.append(total)
        total = emit.add(total, _slot_size(emit, slot))
    arena = emit.value(ArenaOp(emit.index(total), space))
    starts = [emit.index(offset) for offset in offsets]
    for slot, start in zip(slots, starts, strict=True):
        for alloc in slot.buffers:
            old = alloc.memref.type
            kind = MemRefType(old.element_type, old.shape, old.layout, SpaceAttr(space))
            at = Emitter(InsertPoint.before(alloc))
            view = at.value(memref.ViewOp(arena, start, alloc.dynamic_sizes, kind))
            _respace(alloc.memref, view)
            alloc.detach()
            alloc.erase()


def _slot_size(emit: Emitter, slot: Slot) -> Extent:
    """The bytes of a slot at run time: the largest of its buffers', each different one once."""
    different = {
        (numpy_dtype(alloc.memref.type.element_type).itemsize, tuple(_sizes(alloc))): alloc
        for alloc in slot.buffers
    }
    size: Extent = 0
    for alloc in different.values():
        size = emit.maximum(byte_size(alloc.memref.type, _sizes(alloc), emit), size)
    return size


def _after_extents(block: Block, allocs: Sequence[memref.AllocOp]) -> Operation | None:
    """The last op that computes an extent of a buffer; they are hoisted to the block's start."""
    needed: dict[Operation, None] = {}

    def need(value: SSAValue) -> None:
        owner = value.owner
        if isinstance(owner, Operation):
            for operand in owner.operands:
                need(operand)
            needed[owner] = None

    for alloc in allocs:
        for size in alloc.dynamic_sizes:
            need(size)
    last: Operation | None = None
    for op in needed:
        op.detach()
        if last is None:
            if block.first_op is None:
                block.add_op(op)
            else:
                block.insert_op_before(op, block.first_op)
        else:
            block.insert_op_after(op, last)
        last = op
    return last


def _respace(old: SSAValue, new: SSAValue) -> None:
    """Replace a buffer and give the views of it the new buffer's memory space."""
    views = [use.operation for use in old.uses if isinstance(use.operation, Alias)]
    old.replace_all_uses_with(new)
    kind = shaped(new)
    assert isinstance(kind, MemRefType)
    for view in views:
        result = view.results[0]
        own = shaped(result)
        assert isinstance(own, MemRefType)
        spaced = MemRefType(own.element_type, own.shape, own.layout, kind.memory_space)
        clone = type(view).create(
            operands=view.operands, result_types=[spaced], properties=dict(view.properties)
        )
        assert view.parent is not None
        view.parent.insert_op_after(clone, view)
        _respace(result, clone.results[0])
        view.detach()
        view.erase()
