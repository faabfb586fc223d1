"""The table of a tiled program's work: every step's counts in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from xdsl.dialects import memref, scf
from xdsl.dialects.builtin import MemRefType, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import BlockArgument, Operation, SSAValue

from spu_ir.codegen.closed_form import Loop, Places, Sizes, combinations, depends_on
from spu_ir.codegen.instructions import (
    instruction_of,
    instructions_of,
    operands_of,
    packed_of,
    precision_of,
    quads_of,
    rows_of_weight,
    steps_of,
    total_quads,
    written_by,
)
from spu_ir.codegen.spu_instructions import group_lanes, lane_group
from spu_ir.codegen.weights import Placed, constant_of
from spu_ir.dialects.antoum import ConstantOp, SpaceAttr
from spu_ir.dialects.functions import OUTPUT, argument_attributes, extent_name
from spu_ir.dialects.spu import EpilogueOp
from spu_ir.dialects.types import DYNAMIC, element_of, numpy_dtype, shape_of, shaped
from spu_ir.errors import SpuError
from spu_ir.schedule.expressions import (
    SAMPLE,
    Expr,
    Node,
    add,
    maximum,
    multiply,
    over_samples,
    product,
    total,
)
from spu_ir.schedule.instructions import Packed, cost_of
from spu_ir.schedule.work import (
    COUNTS,
    WEIGHTS,
    BufferWork,
    Mask,
    OperandWork,
    StepWork,
    WorkTable,
)

Alias = memref.SubviewOp | memref.ReinterpretCastOp


def work_table(function: FuncOp, placed: Mapping[Operation, Placed]) -> WorkTable:
    """
    The work of every step of a tiled function, in program order.

    `placed` has the packed weight of every product. Raises SpuError, naming the op, where a tile
    depends on its place in a way that has no closed form, or where an op has no formula.
    """
    sizes = Sizes.of(function)
    builder = _Builder(function, sizes, placed)
    program = name_steps([builder.step(op) for op in steps_of(function.body.block)])
    return WorkTable(
        extents=sizes.extents,
        program=program,
        memory=tuple(builder.memory),
        masks=tuple(builder.mask(offsets) for offsets in sizes.masks),
    )


def name_steps(steps: Sequence[StepWork]) -> tuple[StepWork, ...]:
    """
    The steps, those without a layer given that which they move, fill or quantise for.

    It is the next one that touches what they write, or, where nothing does before the end, the
    last one that wrote what they read.
    """
    found = list(steps)
    for place in reversed(range(len(found))):
        if not found[place].layer:
            written = {each.buffer for each in found[place].operands if each.written}
            later = (
                step.layer
                for step in found[place + 1 :]
                if any(each.buffer in written for each in step.operands)
            )
            found[place] = replace(found[place], layer=next(later, ""))
    for place, step in enumerate(found):
        if not step.layer:
            read = {each.buffer for each in step.operands if not each.written}
            earlier = (
                before.layer
                for before in reversed(found[:place])
                if any(each.written and each.buffer in read for each in before.operands)
            )
            found[place] = replace(step, layer=next(earlier, ""))
    return tuple(found)


@dataclass
class _Builder:
    function: FuncOp
    sizes: Sizes
    placed: Mapping[Operation, Placed]
    memory: list[BufferWork] = field(default_factory=list[BufferWork])
    _numbers: dict[object, int] = field(default_factory=dict[object, int])

    def mask(self, offsets: SSAValue) -> Mask:
        """The samples and positions of a mask, from the op that counts its rows."""
        op = next(use.operation for use in offsets.uses if use.operation.name == "vpu.row_offsets")
        samples, rows = self.sizes.shape(op.operands[0], {})
        return Mask(samples, rows)

    def step(self, op: Operation) -> StepWork:
        """One step; all of its instructions are of one unit."""
        tiles = list(instructions_of(op))
        units = {_unit(tile) for tile in tiles}
        if len(units) != 1:
            raise SpuError("a loop nest must be of one unit's instructions", op=tiles[0].name)
        counts: list[Expr] = [0] * len(COUNTS)
        operands: list[OperandWork] = []
        groups: dict[SSAValue, int] = {}
        for tile in tiles:
            loops = _loops_around(tile, op)
            more, moved = self._instruction(tile, loops)
            counts = [add(a, b) for a, b in zip(counts, more, strict=True)]
            written = written_by(tile)
            for name, value in operands_of(tile).items():
                outer = _outside(value, op)
                number, space = self._buffer(value, tile)
                operands.append(
                    OperandWork(
                        buffer=number,
                        space=space,
                        written=value in written,
                        bytes=moved[name],
                        once=self._bytes(outer, tile),
                        group=groups.setdefault(outer, len(groups)),
                    )
                )
        first = tiles[0]
        return StepWork(
            layer=next((layer for tile in tiles if (layer := _layer(tile))), ""),
            op=first.name,
            unit=units.pop(),
            precision=precision_of(first),
            counts=tuple(counts),
            operands=tuple(operands),
        )

    def _instruction(
        self, tile: Operation, loops: Sequence[Loop]
    ) -> tuple[list[Expr], dict[str, Expr]]:
        """The counts of a nest's instruction, and its operands' bytes, over all its tiles."""
        row: SSAValue | int = 0
        if isinstance(tile, EpilogueOp):
            row, _ = rows_of_weight(tile)
        counts: list[list[Expr]] = [[] for _ in COUNTS]
        moved: dict[str, list[Expr]] = {name: [] for name in operands_of(tile)}
        every = combinations(self.sizes, loops, {}, lambda loop: depends_on(row, loop.counter))
        for times, places in every:

            def shape(value: SSAValue, known: Places = places) -> tuple[Expr, ...]:
                return self.sizes.shape(value, known)

            instruction = instruction_of(tile, shape, self._packed(tile, row, places))
            cost = cost_of(instruction)
            each = (1, *(getattr(cost, name) for name in COUNTS[1:]))
            for parts, count in zip(counts, each, strict=True):
                parts.append(multiply(times, count))
            for name, parts in moved.items():
                parts.append(multiply(times, cost.bytes_of(instruction, name)))
        masks = {mask for loop in loops if (mask := self.sizes.sample_of(loop)) is not None}
        return (
            [_summed(total(parts), masks) for parts in counts],
            {name: _summed(total(parts), masks) for name, parts in moved.items()},
        )

    def _packed(self, tile: Operation, row: SSAValue | int, places: Places) -> Packed | None:
        if not isinstance(tile, EpilogueOp):
            return None
        placed = self.placed[tile]
        first = row if isinstance(row, int) else self.sizes.index(row, places)
        lanes = self.sizes.shape(tile.init, places)[-1]
        if not isinstance(first, int) or not isinstance(lanes, int):
            raise SpuError("the lanes of a product must be known at compile time", op=tile.name)
        _, rows = rows_of_weight(tile)
        group = lane_group(first, group_lanes(tile, rows), placed.packed.lane_groups)
        return packed_of(placed, quads_of(placed, group, lanes))

    def _bytes(self, value: SSAValue, tile: Operation) -> Expr:
        """The bytes of memory outside of all loops; those that a weight was packed to."""
        if isinstance(tile, EpilogueOp) and value is constant_of(tile.weight)[0].result:
            placed = self.placed[tile]
            return total_quads(placed) * packed_of(placed, 1).bytes
        return multiply(
            product(self.sizes.shape(value, {})), numpy_dtype(element_of(value)).itemsize
        )

    def _is_unnamed(self, value: SSAValue) -> bool:
        """Whether a value is an argument with run-time extents that have no name."""
        return isinstance(value, BlockArgument) and any(
            d == DYNAMIC and extent_name(self.function, value, axis) is None
            for axis, d in enumerate(shape_of(value))
        )

    def _buffer(self, value: SSAValue, tile: Operation) -> tuple[int, str]:
        """The number of the buffer that an operand is part of, and the space where that is."""
        root = whole = value
        while isinstance(root.owner, Alias):
            root, whole = root.owner.source, root
        if not self._is_unnamed(root):
            whole = root  # else the extents of an output are those of the view that is written
        owner = root.owner
        name = ""
        key: object = root
        if isinstance(owner, ConstantOp):
            key, kind, space = (owner.value, shaped(root)), "constant", WEIGHTS
        elif isinstance(root, BlockArgument):
            attributes = argument_attributes(self.function)[root.index]
            kind, space = "output" if OUTPUT in attributes else "input", _space(root)
            label = attributes.get("onnx.name")
            name = label.data if isinstance(label, StringAttr) else ""
        elif isinstance(owner, memref.ViewOp):
            # A place in the arena: its buffers are used one after another.
            key, kind, space = (owner.source, owner.byte_shift), "arena", _space(root)
        else:
            raise SpuError("a buffer of a tiled program must be in the arena", op=tile.name)
        number = self._numbers.setdefault(key, len(self._numbers))
        size = self._bytes(whole, tile)
        if number == len(self.memory):
            self.memory.append(BufferWork(kind, name, space, size))
        elif kind in ("arena", "output"):
            old = self.memory[number]
            self.memory[number] = BufferWork(kind, name, space, maximum(old.bytes, size))
        return number, space


def _summed(expr: Expr, masks: set[int]) -> Expr:
    """A count over the loops of a nest, added up over the samples of the masks that it has."""
    for mask in sorted(masks | _masks_in(expr)):
        expr = over_samples(mask, expr)
    return expr


def _masks_in(expr: Expr) -> set[int]:
    """Masks whose sample's rows an expression speaks of: those of one sample have no loop."""
    found: set[int] = set()
    waiting, seen = [expr], set[Node]()
    while waiting:
        current = waiting.pop()
        if isinstance(current, str) and current.startswith(SAMPLE):
            found.add(int(current.removeprefix(SAMPLE)))
        elif isinstance(current, Node) and current not in seen:
            seen.add(current)
            waiting += current.args
    return found


def _loops_around(tile: Operation, step: Operation) -> list[Loop]:
    """The loops of a step that an instruction is in, outermost first."""
    loops: list[Loop] = []
    op: Operation | None = tile
    while op is not step:
        assert op is not None
        op = op.parent_op()
        if isinstance(op, scf.ForOp | scf.ParallelOp):
            loops = Loop.of(op) + loops
    return loops


def _outside(value: SSAValue, step: Operation) -> SSAValue:
    """The memory outside of a step that an operand is a view of."""
    while isinstance(value.owner, Alias) and _is_inside(value.owner, step):
        value = value.owner.source
    return value


def _is_inside(op: Operation, step: Operation) -> bool:
    while (parent := op.parent_op()) is not None:
        if parent is step:
            return True
        op = parent
    return False


def _layer(op: Operation) -> str:
    found = op.attributes.get("layer")
    return found.data if isinstance(found, StringAttr) else ""


def _unit(op: Operation) -> str:
    return {"spu": "spu", "vpu": "vpu", "antoum": "dma"}[op.name.split(".")[0]]


def _space(value: SSAValue) -> str:
    kind = shaped(value)
    assert isinstance(kind, MemRefType) and isinstance(kind.memory_space, SpaceAttr)
    return str(kind.memory_space.data)
