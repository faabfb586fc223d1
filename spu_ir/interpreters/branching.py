"""A run of a network from any point of which others branch off, with one value exchanged."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, SSAValue

from spu_ir.dialects.types import Array
from spu_ir.dialects.weights import store_of
from spu_ir.interpreters import bind, machine_for, main_of, signature_of
from spu_ir.interpreters.machine import steps_of


class Trunk:
    """
    One run of `@main` of a module on tensors, op by op; products of f32 are summed by BLAS.

    Only the values that are still needed are kept, as `interpret` does it; a branch shares them.
    Raises SpuError for feeds that do not fit.
    """

    def __init__(self, module: ModuleOp, ctx: Context, feeds: Mapping[str, Array]):
        function = main_of(module)
        block = function.body.block
        signature = signature_of(function)
        arrays, _ = bind(signature.inputs, feeds)
        self.names = [port.name for port in signature.outputs]
        self.machine = machine_for(module, store_of(ctx), exact_f32=False, listener=None)
        self.steps = steps_of(block)
        self.needed = needed_ops(block)
        self.values: dict[SSAValue, Any] = dict(zip(block.args, arrays, strict=True))
        self.outputs: dict[str, Array] = {}
        """The outputs by name, once the run has come to its end."""
        self._at = 0

    def run(self) -> Generator[Operation]:
        """Execute op by op; after each it is yielded, when its results are in `values`."""
        for at, step in enumerate(self.steps):
            self._at = at
            if isinstance(step.op, func.ReturnOp):
                self.outputs = self._named(step.operands, self.values)
                return
            results = self.machine.run_op(step.op, tuple(self.values[v] for v in step.operands))
            self.values.update(zip(step.results, results, strict=True))
            yield step.op
            for value in step.dying:
                del self.values[value]

    def branch(self, value: SSAValue, array: Array) -> dict[str, Array]:
        """The outputs that the run would have if the op just executed gave `array` for `value`."""
        values = {**self.values, value: array}
        for dead in self.steps[self._at].dying:
            del values[dead]
        for step in self.steps[self._at + 1 :]:
            if isinstance(step.op, func.ReturnOp):
                return self._named(step.operands, values)
            if step.op in self.needed:
                results = self.machine.run_op(step.op, tuple(values[v] for v in step.operands))
                values.update(zip(step.results, results, strict=True))
            for dead in step.dying:
                values.pop(dead, None)
        return {}

    def _named(
        self, operands: tuple[SSAValue, ...], values: Mapping[SSAValue, Any]
    ) -> dict[str, Array]:
        arrays = [np.asarray(values[operand]) for operand in operands]
        return dict(zip(self.names, arrays, strict=True))


def needed_ops(block: Block) -> set[Operation]:
    """The ops of a function's block that its results follow from."""
    needed: set[Operation] = set()
    for op in reversed(list(block.ops)):
        if isinstance(op, func.ReturnOp) or any(
            use.operation in needed for result in op.results for use in result.uses
        ):
            needed.add(op)
    return needed
