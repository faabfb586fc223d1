"""The work of a tiled program, counted the long way: every loop runs, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from xdsl.dialects import arith, func, memref, scf
from xdsl.dialects.builtin import IntegerAttr
from xdsl.ir import Block, Operation, SSAValue

from spu_ir import api
from spu_ir.codegen import program as codegen
from spu_ir.codegen.instructions import (
    instruction_of,
    is_instruction,
    operands_of,
    packed_of,
    quads_of,
    rows_of_weight,
    steps_of,
)
from spu_ir.codegen.weights import Placed
from spu_ir.codegen.work import work_table
from spu_ir.dialects.functions import extent_name
from spu_ir.dialects.spu import GROUP_LANES, EpilogueOp, integers
from spu_ir.dialects.types import DYNAMIC, shape_of
from spu_ir.schedule.instructions import cost_of
from spu_ir.schedule.work import COUNTS, WorkTable

Counts = dict[str, int]

_ARITHMETIC: dict[type[Operation], Callable[[int, int], int]] = {
    arith.AddiOp: lambda a, b: a + b,
    arith.SubiOp: lambda a, b: a - b,
    arith.MuliOp: lambda a, b: a * b,
    arith.DivUIOp: lambda a, b: a // b,
    arith.CeilDivUIOp: lambda a, b: -(-a // b),
    arith.MinSIOp: min,
    arith.MaxSIOp: max,
}


@dataclass(frozen=True)
class Tiled:
    """A model down to its tiled function, with what its products' weights were packed to."""

    function: func.FuncOp
    placed: Mapping[Operation, Placed]
    table: WorkTable
    job: api.Compilation
    """Owns the module, which owns the function."""

    @staticmethod
    def lower(model: Any, **options: Any) -> Tiled:
        """Of an ONNX model; `options` are those of `spu_ir.api.lower`."""
        with mock.patch.object(codegen, "work_table", wraps=work_table) as made:
            program, job = api.lower(model, **options)
        function, placed = made.call_args.args
        return Tiled(function, placed, WorkTable.from_json(program.work), job)

    def walk(self, extents: Mapping[str, int], lengths: Sequence[int] = ()) -> list[Counts]:
        """The counts of every step, and bytes by operand (`0`, `1`, ...), as its loops run."""
        result: list[Counts] = []
        walk = _Walk(self, dict(extents), list(lengths))
        steps = set(steps_of(self.function.body.block))
        for op in self.function.body.block.ops:
            walk.counts = {}
            walk.op(op)
            if op in steps:
                result.append(walk.counts)
        return result


@dataclass
class _Walk:
    tiled: Tiled
    extents: dict[str, int]
    lengths: list[int]
    values: dict[SSAValue, int] = field(default_factory=dict[SSAValue, int])
    counts: Counts = field(default_factory=dict[str, int])
    first: dict[Operation, int] = field(default_factory=dict[Operation, int])

    def block(self, block: Block) -> None:
        for op in block.ops:
            self.op(op)

    def op(self, op: Operation) -> None:
        if isinstance(op, arith.ConstantOp):
            assert isinstance(op.value, IntegerAttr)
            self.values[op.result] = op.value.value.data
        elif type(op) in _ARITHMETIC:
            a, b = (self.values[operand] for operand in op.operands)
            self.values[op.results[0]] = _ARITHMETIC[type(op)](a, b)
        elif isinstance(op, memref.DimOp):
            self.values[op.results[0]] = self.shape(op.source)[self.values[op.index]]
        elif isinstance(op, memref.LoadOp):
            self.values[op.res] = sum(self.lengths[: self.values[op.indices[0]]])
        elif isinstance(op, arith.IndexCastOp):
            self.values[op.result] = self.values[op.input]
        elif isinstance(op, scf.ForOp | scf.ParallelOp):
            self.loops(op)
        elif is_instruction(op):
            self.instruction(op)

    def loops(self, op: scf.ForOp | scf.ParallelOp) -> None:
        if isinstance(op, scf.ForOp):
            ends, steps = [op.ub], [op.step]
        else:
            ends, steps = list(op.upperBound), list(op.step)
        counters = op.body.block.args[: len(ends)]

        def run(axis: int) -> None:
            if axis == len(ends):
                self.block(op.body.block)
                return
            for place in range(0, self.values[ends[axis]], self.values[steps[axis]]):
                self.values[counters[axis]] = place
                run(axis + 1)

        run(0)

    def shape(self, value: SSAValue) -> tuple[int, ...]:
        owner = value.owner
        static = shape_of(value)
        sizes: Sequence[SSAValue] = ()
        if isinstance(owner, memref.ViewOp):
            sizes = owner.sizes
        elif isinstance(owner, memref.SubviewOp | memref.ReinterpretCastOp):
            static, sizes = integers(owner.static_sizes), owner.sizes
        elif DYNAMIC in static:
            names = [extent_name(self.tiled.function, value, axis) for axis in range(len(static))]
            return tuple(
                self.extents[str(name)] if d == DYNAMIC else d
                for d, name in zip(static, names, strict=True)
            )
        rest = iter(sizes)
        return tuple(self.values[next(rest)] if d == DYNAMIC else d for d in static)

    def instruction(self, op: Operation) -> None:
        packed = None
        if isinstance(op, EpilogueOp):
            row, rows = rows_of_weight(op)
            found = op.attributes.get(GROUP_LANES)
            assert found is None or isinstance(found, IntegerAttr)
            each = rows if found is None else found.value.data
            placed = self.tiled.placed[op]
            place = row if isinstance(row, int) else self.values[row]
            group = place // each * placed.packed.lane_groups + place % each // 16
            packed = packed_of(placed, quads_of(placed, group, self.shape(op.init)[-1]))
        instruction = instruction_of(op, self.shape, packed)
        cost = cost_of(instruction)
        self.add("instructions", 1)
        for name in COUNTS[1:]:
            self.add(name, getattr(cost, name))
        start = self.first.setdefault(op, sum(key.isdecimal() for key in self.counts))
        for number, name in enumerate(operands_of(op)):
            self.add(str(start + number), cost.bytes_of(instruction, name))

    def add(self, name: str, value: Any) -> None:
        assert isinstance(value, int)
        self.counts[name] = self.counts.get(name, 0) + value
