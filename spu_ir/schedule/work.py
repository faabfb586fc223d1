"""
The work of a program, step by step, symbolic in its run-time extents.

A *step* is one loop nest of the tiled program: the tiles of one op, which the cores share. The
table is made when a model is compiled and kept in its package; a profiled run counts the same
while it executes. docs/counters.md says what is counted.

>>> table = model.work
>>> steps = table.steps({"batch": 8, "seq": 384})
>>> sum(step.work.macs for step in steps)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from spu_ir.errors import SpuError
from spu_ir.schedule.expressions import Evaluation, Expr, Json, Pool, read_pool

FORMAT = 1
"""The version of the table's JSON."""

DDR, SRAM, WEIGHTS = "ddr", "sram", "weights"
SPACES = (DDR, SRAM, WEIGHTS)
"""Where bytes are: `weights` are constants of every kind, which lie in DDR and are listed apart."""

COUNTS = ("instructions", "macs", "dense_macs", "vector_ops", "special_ops", "activations")
"""The counts of a step that are sums over its instructions; also the order of the C counters."""

Real: TypeAlias = "float | Sequence[int] | Mapping[int, Sequence[int]] | None"
"""
How many of the padded rows are real: a share of all, or the rows of every sample, or those by
number of the mask; None for all.
"""


@dataclass(frozen=True)
class Work:
    """
    What a step, a layer or a program does at given extents. Adds up with `+`.

    `skipped` is what pruning saves; it is negative where padding of lanes and slots costs more.
    """

    instructions: int = 0
    """SPU, VPU and DMA instructions: tiles, those without any row included."""
    macs: int = 0
    """Multiply-accumulates that the SPU does: slots run, padding of lanes and lists included."""
    dense_macs: int = 0
    """Those of the same products unpruned and without padding: rows x channels x depth."""
    vector_ops: int = 0
    """Lane operations of the VPU and of epilogues."""
    special_ops: int = 0
    """Operations of the special function unit: exp, log, erf, tanh, sigmoid, sqrt, division."""
    activations: int = 0
    """Elements that products read of their activation; each time that they read them."""
    read: Mapping[str, int] = field(default_factory=dict[str, int])
    """
    Bytes by space that the instructions' tiles have: what passes their ports, so an operand
    counts every time that an instruction reads it. `Step.once_read` counts it once.
    """
    written: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def skipped(self) -> int:
        """Multiply-accumulates that sparsity leaves out."""
        return self.dense_macs - self.macs

    def __add__(self, other: Work) -> Work:
        return Work(
            **{name: getattr(self, name) + getattr(other, name) for name in COUNTS},
            read=_sum(self.read, other.read),
            written=_sum(self.written, other.written),
        )

    def to_json(self) -> dict[str, Json]:
        """The counts by name; read and written by space."""
        result: dict[str, Json] = {name: getattr(self, name) for name in COUNTS}
        result["read"] = dict(self.read)
        result["written"] = dict(self.written)
        return result


def total_work(parts: Iterable[Work]) -> Work:
    """The sum of `parts`."""
    return sum(parts, Work())


@dataclass(frozen=True)
class Step:
    """One loop nest of the tiled program; nests run in order, and depend on others by buffers."""

    number: int
    """Its place in the program, from 0: also that of its counters."""
    layer: str
    """The ONNX node that it is of; empty where the compiler made it for none."""
    op: str
    """Its instruction, `spu.matmul`."""
    unit: str
    """`spu`, `vpu` or `dma`: whose instruction it is. Epilogues are part of the SPU's."""
    precision: str
    """`int8`, `bf16` or `fp32`: of its arithmetic."""
    work: Work
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    """
    Numbers of buffers (`WorkTable.buffers`), without repetition. A buffer is a port, a constant, or
    a place in the arena. Views of a buffer have its number. Buffers that use a place in the arena
    one after another have one number too: the later one's first write is a write after reads of
    the earlier one, which a scheduler must keep in order unless it renames them.
    """
    once_read: Mapping[str, int]
    once_written: Mapping[str, int]
    """
    Bytes by space when everything that the step touches is moved once: the traffic of a memory
    behind caches that hold the step's operands. Never more than `work.read` and `work.written`.
    """


@dataclass(frozen=True)
class Buffer:
    """Memory that steps read and write, at given extents."""

    number: int
    kind: str
    """`input`, `output`, `constant` or `arena`."""
    name: str
    """Of a port its name; else empty."""
    space: str
    """`ddr`, `sram` or `weights`."""
    bytes: int
    """The largest size that it is used with."""


@dataclass(frozen=True)
class OperandWork:
    """One operand of a step: its bytes as expressions."""

    buffer: int
    space: str
    written: bool
    bytes: Expr
    """Over all instructions of the step."""
    once: Expr
    """Of the memory outside the loops that its tiles are of."""
    group: int
    """Operands of a step that are of the same memory have one number; it is touched once."""


@dataclass(frozen=True)
class StepWork:
    """A step with expressions for its counts, in the order of `COUNTS`."""

    layer: str
    op: str
    unit: str
    precision: str
    counts: tuple[Expr, ...]
    operands: tuple[OperandWork, ...]


@dataclass(frozen=True)
class BufferWork:
    """A buffer with an expression for its bytes."""

    kind: str
    name: str
    space: str
    bytes: Expr


@dataclass(frozen=True)
class Mask:
    """A mask whose padded rows are skipped: how many samples it has, and rows each at most."""

    samples: Expr
    rows: Expr


@dataclass(frozen=True)
class WorkTable:
    """
    What every step of a program does, as expressions in its extents.

    Made by `spu_ir.codegen.work`; `CompiledModel.work` has that of a model.
    """

    extents: tuple[str, ...]
    """The names that `steps` must be given values for."""
    program: tuple[StepWork, ...]
    memory: tuple[BufferWork, ...]
    masks: tuple[Mask, ...] = ()
    """Of a program that skips padding; empty for any other."""

    def steps(self, extents: Mapping[str, int], real: Real = None) -> list[Step]:
        """
        The work of every step at the given extents, in program order.

        `real` says how many of the padded rows are real, for a program that skips padding: a
        share such as 0.6 (rounded up in every sample), the rows of every sample, or, with several
        masks, those by the mask's number. None is the upper bound, all of them; a program
        without masks ignores it. Raises SpuError for a missing extent, or rows that do not fit.
        """
        evaluate = self._evaluation(extents, real)
        return [self._step(number, step, evaluate) for number, step in enumerate(self.program)]

    def total(self, extents: Mapping[str, int], real: Real = None) -> Work:
        """The sum over all steps; the arguments are those of `steps`."""
        return total_work(step.work for step in self.steps(extents, real))

    def buffers(self, extents: Mapping[str, int], real: Real = None) -> list[Buffer]:
        """The buffers that `Step.reads` and `Step.writes` number."""
        evaluate = self._evaluation(extents, real)
        return [
            Buffer(number, each.kind, each.name, each.space, evaluate(each.bytes))
            for number, each in enumerate(self.memory)
        ]

    def rows(self, extents: Mapping[str, int], real: Real = None) -> dict[int, tuple[int, ...]]:
        """The real rows of every sample, by number of the mask. Raises SpuError as `steps`."""
        plain = Evaluation(self._symbols(extents), {})
        result: dict[int, tuple[int, ...]] = {}
        for number, mask in enumerate(self.masks):
            samples, most = plain(mask.samples), plain(mask.rows)
            result[number] = _rows_of(number, samples, most, real, len(self.masks))
        return result

    def _symbols(self, extents: Mapping[str, int]) -> dict[str, int]:
        missing = [name for name in self.extents if name not in extents]
        if missing:
            raise SpuError(
                f"the extent {missing[0]!r} is not given",
                remedy=f"the extents are {', '.join(self.extents)}",
            )
        return {name: int(extents[name]) for name in self.extents}

    def _evaluation(self, extents: Mapping[str, int], real: Real) -> Evaluation:
        return Evaluation(self._symbols(extents), self.rows(extents, real))

    def _step(self, number: int, step: StepWork, evaluate: Evaluation) -> Step:
        traffic = _Traffic()
        for operand in step.operands:
            traffic.add(operand, evaluate(operand.bytes), evaluate(operand.once))
        counts = dict(zip(COUNTS, map(evaluate, step.counts), strict=True))
        return Step(
            number=number,
            layer=step.layer,
            op=step.op,
            unit=step.unit,
            precision=step.precision,
            work=Work(**counts, read=traffic.ports[False], written=traffic.ports[True]),
            reads=_distinct(o.buffer for o in step.operands if not o.written),
            writes=_distinct(o.buffer for o in step.operands if o.written),
            once_read=traffic.once(written=False),
            once_written=traffic.once(written=True),
        )

    def work_of(self, number: int, counts: Sequence[int], moved: Sequence[int]) -> Work:
        """The work of step `number` from counts in the order of `COUNTS` and bytes by operand."""
        read: dict[str, int] = {}
        written: dict[str, int] = {}
        for operand, size in zip(self.program[number].operands, moved, strict=False):
            spaces = written if operand.written else read
            spaces[operand.space] = spaces.get(operand.space, 0) + size
        return Work(**dict(zip(COUNTS, counts, strict=True)), read=read, written=written)

    def to_json(self) -> Json:
        """The table as JSON. Every distinct expression is in it once."""
        pool = Pool()
        steps: list[Json] = [
            {
                "layer": step.layer,
                "op": step.op,
                "unit": step.unit,
                "precision": step.precision,
                "counts": [pool.put(expr) for expr in step.counts],
                "operands": [
                    [o.buffer, o.space, o.written, pool.put(o.bytes), pool.put(o.once), o.group]
                    for o in step.operands
                ],
            }
            for step in self.program
        ]
        memory: list[Json] = [
            [each.kind, each.name, each.space, pool.put(each.bytes)] for each in self.memory
        ]
        masks: list[Json] = [[pool.put(m.samples), pool.put(m.rows)] for m in self.masks]
        return {
            "format": FORMAT,
            "extents": list(self.extents),
            "expressions": pool.nodes,
            "steps": steps,
            "buffers": memory,
            "masks": masks,
        }

    @classmethod
    def from_json(cls, value: Json) -> WorkTable:
        """The table that `to_json` wrote. Raises SpuError for anything else."""
        try:
            return _read_table(cast("dict[str, Any]", value))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise SpuError(
                f"the table of work is damaged: {type(error).__name__} {error}",
                remedy="compile the model again",
            ) from error


def _read_table(value: dict[str, Any]) -> WorkTable:
    if value["format"] != FORMAT:
        raise SpuError(
            f"the table of work has the format {value['format']!r}, this spu-ir reads {FORMAT}",
            remedy="compile the model again",
        )
    expr = read_pool(value["expressions"])
    memory = tuple(
        BufferWork(str(kind), str(name), _space(space), expr(size))
        for kind, name, space, size in value["buffers"]
    )

    def operand(item: list[Any]) -> OperandWork:
        buffer, space, written, size, once, group = item
        if not 0 <= int(buffer) < len(memory):
            raise ValueError(f"no buffer {buffer}")
        return OperandWork(
            int(buffer), _space(space), bool(written), expr(size), expr(once), int(group)
        )

    program: list[StepWork] = []
    for step in _list(value["steps"]):
        counts = tuple(expr(each) for each in step["counts"])
        if len(counts) != len(COUNTS):
            raise ValueError(f"{len(counts)} counts of a step")
        layer, op, unit, precision = (
            str(step[key]) for key in ("layer", "op", "unit", "precision")
        )
        operands = tuple(map(operand, step["operands"]))
        program.append(StepWork(layer, op, unit, precision, counts, operands))
    return WorkTable(
        extents=tuple(str(name) for name in value["extents"]),
        program=tuple(program),
        memory=memory,
        masks=tuple(Mask(expr(samples), expr(rows)) for samples, rows in value["masks"]),
    )


def _list(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise ValueError("its steps are no list")
    return cast("list[dict[str, Any]]", value)


def _space(value: object) -> str:
    if value not in SPACES:
        raise ValueError(f"no space {value!r}")
    return str(value)


class _Traffic:
    """Bytes by space of a step's operands, through their ports and once."""

    def __init__(self) -> None:
        self.ports: dict[bool, dict[str, int]] = {False: {}, True: {}}
        self._groups: dict[tuple[bool, str, int], list[int]] = {}

    def add(self, operand: OperandWork, moved: int, size: int) -> None:
        ports = self.ports[operand.written]
        ports[operand.space] = ports.get(operand.space, 0) + moved
        # Several operands of one memory touch it once, and no more than they move.
        group = self._groups.setdefault((operand.written, operand.space, operand.group), [0, 0])
        group[0] += moved
        group[1] = max(group[1], size)

    def once(self, *, written: bool) -> dict[str, int]:
        result: dict[str, int] = {}
        for (kind, space, _), (moved, size) in self._groups.items():
            if kind == written:
                result[space] = result.get(space, 0) + min(moved, size)
        return result


def _rows_of(number: int, samples: int, most: int, real: Real, masks: int) -> tuple[int, ...]:
    if real is None:
        return (most,) * samples
    if isinstance(real, int | float):
        if not 0 <= real <= 1:
            raise SpuError(f"a share of real rows must be 0 to 1, got {real}")
        return (-int(-real * most // 1),) * samples
    if isinstance(real, Mapping):
        given = tuple(real.get(number, ()))
    elif masks > 1:
        raise SpuError(
            f"the program has {masks} masks, and rows for one were given",
            remedy="give a mapping from the mask's number to the rows of its samples",
        )
    else:
        given = tuple(real)
    if len(given) != samples or not all(0 <= rows <= most for rows in given):
        raise SpuError(
            f"mask {number} has {samples} samples of at most {most} rows, got {list(given)}",
            remedy="give the number of real rows of every sample",
        )
    return given


def _sum(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {space: a.get(space, 0) + b.get(space, 0) for space in SPACES if space in {**a, **b}}


def _distinct(numbers: Iterable[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(numbers))
