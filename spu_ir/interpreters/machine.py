"""xDSL's interpreter for whole networks: a value is forgotten after its last use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from xdsl.interpreter import Interpreter, PythonValues, ReturnedValues
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.utils.exceptions import InterpretationError

Observer: TypeAlias = Callable[[Operation, Sequence[Any]], None]
"""Called after every op with the op and the values of its results."""


class Step(NamedTuple):
    """One op of a block as it is run, time and again when the block is a loop's body."""

    op: Operation
    operands: tuple[SSAValue, ...]
    results: tuple[SSAValue, ...]
    dying: tuple[SSAValue, ...]
    """The values of the block that nothing uses after this op."""


@dataclass
class Machine(Interpreter):
    """
    An interpreter of single-block regions that keeps only the values that are still needed.

    xDSL's own keeps every value to the end of the function, which for a network is the memory of
    all its activations.
    """

    observer: Observer | None = None
    _values: dict[SSAValue, Any] = field(default_factory=dict[SSAValue, Any])
    _steps: dict[Block, list[Step]] = field(default_factory=dict[Block, list[Step]])

    def get_values(self, values: Iterable[SSAValue]) -> tuple[Any, ...]:
        return tuple([self._values[value] for value in values])

    def set_values(self, pairs: Iterable[tuple[SSAValue, Any]]) -> None:
        self._values.update(pairs)

    def run_ssacfg_region(
        self, region: Region, args: PythonValues, name: str = "unknown"
    ) -> PythonValues:
        block = region.blocks.first
        if block is None:
            return ()
        if block.next_block is not None:
            raise InterpretationError(f"{name}: only regions of one block can be interpreted")
        steps = self._steps.get(block)
        if steps is None:
            steps = self._steps[block] = steps_of(block)
        values, observer = self._values, self.observer
        values.update(zip(block.args, args, strict=True))
        for op, operands, results, dying in steps:
            result = self._run_op(op, tuple([values[operand] for operand in operands]))
            if isinstance(result.terminator_value, ReturnedValues):
                return result.terminator_value.values
            values.update(zip(results, result.values, strict=True))
            if observer is not None:
                observer(op, result.values)
            for value in dying:
                del values[value]
        return ()


def steps_of(block: Block) -> list[Step]:
    """The ops of `block` in order, each with the values whose last use it is."""
    order = {op: number for number, op in enumerate(block.ops)}
    dying: dict[Operation, list[SSAValue]] = {op: [] for op in order}
    for op in order:
        for value in op.results:
            users = (block.find_ancestor_op_in_block(use.operation) for use in value.uses)
            known = (user for user in users if user is not None)
            dying[max(known, key=order.__getitem__, default=op)].append(value)
    return [Step(op, tuple(op.operands), tuple(op.results), tuple(dying[op])) for op in order]
