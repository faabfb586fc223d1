"""
The sizes of a nest's tiles, without running it: every loop is so many full tiles and one tail.

Tiling makes `min(extent - place, step)` the size of the tile at `place`, and nothing else of a tile
depends on where it is, but for a sample's rows among packed ones. So the tiles of a loop fall into
cases of equal size, and a sum over them is a sum over cases: how often, times the tile's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from xdsl.dialects import arith, func, memref, scf
from xdsl.dialects.builtin import IntegerAttr
from xdsl.ir import Operation, SSAValue

from spu_ir.dialects.functions import bounds, extent_name
from spu_ir.dialects.spu import integers
from spu_ir.dialects.types import DYNAMIC, shape_of
from spu_ir.dialects.vpu import RowOffsetsOp
from spu_ir.errors import SpuError
from spu_ir.schedule.expressions import (
    ROWS,
    SAMPLE,
    Expr,
    add,
    ceil_divide,
    floor_divide,
    maximum,
    minimum,
    multiply,
    subtract,
)

_ARITHMETIC: dict[type[Operation], Callable[[Expr, Expr], Expr]] = {
    arith.AddiOp: add,
    arith.SubiOp: subtract,
    arith.MuliOp: multiply,
    arith.DivUIOp: floor_divide,
    arith.DivSIOp: floor_divide,
    arith.FloorDivSIOp: floor_divide,
    arith.CeilDivUIOp: ceil_divide,
    arith.CeilDivSIOp: ceil_divide,
    arith.MinSIOp: minimum,
    arith.MinUIOp: minimum,
    arith.MaxSIOp: maximum,
    arith.MaxUIOp: maximum,
}


@dataclass(frozen=True)
class Loop:
    """One loop from 0: its counter, where it ends, and its step."""

    counter: SSAValue
    end: SSAValue
    step: SSAValue

    @staticmethod
    def of(op: scf.ForOp | scf.ParallelOp) -> list[Loop]:
        """The loops of an op, outermost first. Raises SpuError unless they start at 0."""
        if isinstance(op, scf.ForOp):
            low, high, step = [op.lb], [op.ub], [op.step]
        else:
            low, high, step = list(op.lowerBound), list(op.upperBound), list(op.step)
        if any(constant_of_index(value) != 0 for value in low):
            raise SpuError("a loop over tiles must start at 0", op=op.name)
        counters = op.body.block.args
        return [Loop(*each) for each in zip(counters, high, step, strict=False)]


@dataclass(frozen=True)
class Tiles:
    """Tiles of a loop that are alike: their size, and how many of their rows are a sample's."""

    end: SSAValue
    step: Expr
    size: Expr
    rows: Expr | None = None


@dataclass(frozen=True)
class Sample:
    """A loop's counter that is the number of a sample of a mask."""

    mask: int


Place: TypeAlias = int | Tiles | Sample
Places: TypeAlias = Mapping[SSAValue, Place]
"""What is known of each loop's counter; an int where every turn is looked at by itself."""


def constant_of_index(value: SSAValue) -> int | None:
    """The number that an index value is, where an `arith.constant` says it."""
    owner = value.owner
    if isinstance(owner, arith.ConstantOp) and isinstance(owner.value, IntegerAttr):
        return owner.value.value.data
    return None


@dataclass(frozen=True)
class Sizes:
    """Evaluates index values and shapes of a tiled function to expressions in its extents."""

    function: func.FuncOp
    masks: Mapping[SSAValue, int] = field(default_factory=dict[SSAValue, int])
    """The buffer of row offsets of every mask whose padding is skipped."""

    @classmethod
    def of(cls, function: func.FuncOp) -> Sizes:
        """Of a function; its masks are numbered in program order."""
        found = [op for op in function.body.block.ops if isinstance(op, RowOffsetsOp)]
        return cls(function, {op.init: number for number, op in enumerate(found)})

    @property
    def extents(self) -> tuple[str, ...]:
        """The names of the run-time extents, in order."""
        return tuple(bounds(self.function))

    def shape(self, value: SSAValue, places: Places) -> tuple[Expr, ...]:
        """The shape of a memref."""
        static = shape_of(value)
        if DYNAMIC not in static:
            return static
        owner = value.owner
        if isinstance(owner, memref.ViewOp):
            dynamic = iter(owner.sizes)
        elif isinstance(owner, memref.SubviewOp | memref.ReinterpretCastOp):
            dynamic = iter(owner.sizes)
            static = integers(owner.static_sizes)
        else:
            return tuple(
                self._argument(value, axis) if d == DYNAMIC else d for axis, d in enumerate(static)
            )
        return tuple(self.index(next(dynamic), places) if d == DYNAMIC else d for d in static)

    def _argument(self, value: SSAValue, axis: int) -> Expr:
        name = extent_name(self.function, value, axis)
        if name is None:
            raise SpuError(f"no extent says how large axis {axis} of {value.type} is")
        return name

    def index(self, value: SSAValue, places: Places) -> Expr:
        """
        The value of index arithmetic.

        Raises SpuError where it depends on the place of a tile other than by the tile's size.
        """
        known: dict[SSAValue, Expr] = {}
        # Not by recursion: offsets in the arena build on one another.
        waiting = [value]
        while waiting:
            current = waiting[-1]
            found = None if current in known else self._leaf(current, places)
            if found is not None:
                known[current] = found
            if current in known:
                waiting.pop()
                continue
            owner = current.owner
            if not isinstance(owner, Operation) or type(owner) not in _ARITHMETIC:
                raise SpuError(
                    f"the size of a tile depends on {current}",
                    op=owner.name if isinstance(owner, Operation) else "",
                    remedy="tiles may depend on their place by min(extent - place, step) only",
                )
            missing = [operand for operand in owner.operands if operand not in known]
            waiting += missing
            if not missing:
                a, b = (known[operand] for operand in owner.operands)
                known[current] = _ARITHMETIC[type(owner)](a, b)
        return known[value]

    def _leaf(self, value: SSAValue, places: Places) -> Expr | None:
        """What is known without looking at the operands' values by themselves."""
        number = constant_of_index(value)
        if number is not None:
            return number
        place = places.get(value)
        if isinstance(place, int):
            return place
        owner = value.owner
        if isinstance(owner, memref.DimOp):
            axis = constant_of_index(owner.index)
            assert axis is not None
            return self.shape(owner.source, places)[axis]
        if isinstance(owner, arith.MinSIOp):
            return self._tile_size(owner, places)
        if isinstance(owner, arith.SubiOp):
            return self._sample_rows(owner, places)
        if isinstance(owner, arith.IndexCastOp):
            return self._all_rows(owner, places)
        return None

    def _tile_size(self, op: arith.MinSIOp, places: Places) -> Expr | None:
        """`min(end - place, step)`, or `min(max(rows - place, 0), size)`, of a known place."""
        first, other = op.lhs.owner, op.rhs
        within = isinstance(first, arith.MaxSIOp) and constant_of_index(first.rhs) == 0
        inner = first.lhs.owner if within and isinstance(first, arith.MaxSIOp) else first
        if not isinstance(inner, arith.SubiOp):
            return None
        tiles = places.get(inner.rhs)
        if not isinstance(tiles, Tiles):
            return None
        if within:
            if tiles.rows is None or self.index(other, places) != tiles.size:
                return None
            return tiles.rows
        same_end = inner.lhs is tiles.end or (
            self.index(inner.lhs, places) == self.index(tiles.end, places)
        )
        return tiles.size if same_end and self.index(other, places) == tiles.step else None

    def _element(self, value: SSAValue) -> tuple[int, SSAValue] | None:
        """The mask whose offsets an index value is read from, and at which index."""
        owner = value.owner
        load = owner.input.owner if isinstance(owner, arith.IndexCastOp) else None
        if not isinstance(load, memref.LoadOp) or load.memref not in self.masks:
            return None
        return self.masks[load.memref], load.indices[0]

    def _sample_rows(self, op: arith.SubiOp, places: Places) -> Expr | None:
        """`offsets[sample + 1] - offsets[sample]`: the sample's rows."""
        end, start = self._element(op.lhs), self._element(op.rhs)
        if end is None or start is None or end[0] != start[0]:
            return None
        mask, first = start
        number = constant_of_index(first)
        after = end[1].owner
        if number is not None:
            follows = constant_of_index(end[1]) == number + 1
        else:
            follows = (
                isinstance(places.get(first), Sample)
                and isinstance(after, arith.AddiOp)
                and after.lhs is first
                and constant_of_index(after.rhs) == 1
            )
        return f"{SAMPLE}{mask}" if follows else None

    def _all_rows(self, op: arith.IndexCastOp, places: Places) -> Expr | None:
        """`offsets[samples]`: the rows of all samples."""
        found = self._element(op.result)
        if found is None:
            return None
        mask, at = found
        offsets = next(value for value, number in self.masks.items() if number == mask)
        samples = add(self.shape(offsets, places)[0], -1)
        return f"{ROWS}{mask}" if self.index(at, places) == samples else None

    def sample_of(self, loop: Loop) -> int | None:
        """The mask whose samples a loop runs over: its counter is an index of the offsets."""
        for use in loop.counter.uses:
            op = use.operation
            if isinstance(op, memref.LoadOp) and op.memref in self.masks:
                return self.masks[op.memref]
        return None

    def cases(self, loop: Loop, places: Places, *, each: bool) -> Iterator[tuple[Expr, Place]]:
        """
        The tiles of a loop by case: how many there are, and what they are.

        With `each`, every turn is a case, of a loop whose bounds are known at compile time.
        """
        end, step = self.index(loop.end, places), self.index(loop.step, places)
        if not isinstance(step, int):
            raise SpuError("the step of a loop over tiles must be known at compile time")
        if each:
            if not isinstance(end, int):
                raise SpuError("the lanes of a weight must be known at compile time")
            yield from ((1, place) for place in range(0, end, step))
            return
        mask = self.sample_of(loop)
        if mask is not None:
            yield 1, Sample(mask)
            return
        full = floor_divide(end, step)
        tail = subtract(end, multiply(full, step))
        tails = subtract(ceil_divide(end, step), full)
        rows = self._rows_in(loop, places)
        sizes: list[tuple[Expr, Expr, Expr | None]]
        if rows is None:
            sizes = [(full, step, None), (tails, tail, None)]
        else:
            # Real rows come first: full tiles of them, one with some, and tiles without any.
            rows = minimum(rows, end)
            whole, started = floor_divide(rows, step), ceil_divide(rows, step)
            some = subtract(rows, multiply(whole, step))
            left = subtract(end, multiply(whole, step))
            beyond = subtract(add(full, 1), minimum(started, add(full, 1)))
            empty_tail = multiply(tails, minimum(1, beyond))
            sizes = [
                (whole, step, step),
                (subtract(started, whole), minimum(left, step) if tails != 0 else step, some),
                (maximum(subtract(full, started), 0), step, 0),
                (empty_tail, tail, 0),
            ]
        for count, size, inside in sizes:
            if count != 0:
                yield count, Tiles(loop.end, step, size, inside)

    def _rows_in(self, loop: Loop, places: Places) -> Expr | None:
        """The rows that a sample has, where a loop runs over a sample's positions."""
        for use in loop.counter.uses:
            op = use.operation
            if not isinstance(op, arith.SubiOp) or op.rhs is not loop.counter:
                continue
            if any(isinstance(u.operation, arith.MaxSIOp) for u in op.result.uses):
                return self.index(op.lhs, places)
        return None


def depends_on(value: SSAValue | int, counter: SSAValue) -> bool:
    """Whether index arithmetic uses a loop's counter."""
    waiting = [value] if isinstance(value, SSAValue) else []
    seen: set[SSAValue] = set()
    while waiting:
        current = waiting.pop()
        if current is counter:
            return True
        if current not in seen and isinstance(current.owner, Operation):
            seen.add(current)
            waiting += current.owner.operands
    return False


def combinations(
    sizes: Sizes, loops: Sequence[Loop], places: Places, each: Callable[[Loop], bool]
) -> Iterator[tuple[Expr, dict[SSAValue, Place]]]:
    """Every combination of the loops' cases: how often, and what is known of every counter."""
    if not loops:
        yield 1, dict(places)
        return
    loop, *rest = loops
    for count, place in sizes.cases(loop, places, each=each(loop)):
        for more, known in combinations(sizes, rest, {**places, loop.counter: place}, each):
            yield multiply(count, more), known
