"""Interpreter of `antoum`: constants from the store, the poisoned arena, DMA as a copy."""

from __future__ import annotations

import numpy as np
from xdsl.dialects.builtin import FloatAttr, IntegerAttr
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls
from xdsl.utils.exceptions import InterpretationError

from spu_ir.dialects.antoum import ArenaOp, ConstantOp, DmaOp, FillOp
from spu_ir.dialects.weights import WeightStore, constant_array

from .memory import POISON


@register_impls
class AntoumFunctions(InterpreterFunctions):
    """`store` has the bytes of the constants that do not print inline."""

    def __init__(self, store: WeightStore):
        self.store = store

    @impl(ConstantOp)
    def run_constant(self, _: Interpreter, op: ConstantOp, args: PythonValues) -> PythonValues:
        return (constant_array(self.store, op.value),)

    @impl(ArenaOp)
    def run_arena(self, _: Interpreter, op: ArenaOp, args: PythonValues) -> PythonValues:
        (size,) = args
        return (np.full(size, POISON, np.uint8),)

    @impl(DmaOp)
    def run_dma(self, _: Interpreter, op: DmaOp, args: PythonValues) -> PythonValues:
        source, target = args
        target[...] = source
        return ()

    @impl(FillOp)
    def run_fill(self, _: Interpreter, op: FillOp, args: PythonValues) -> PythonValues:
        (target,) = args
        match op.value:
            case IntegerAttr(value=number) | FloatAttr(value=number):
                target[...] = number.data
            case _:
                raise InterpretationError(f"antoum.fill: expected a number, got {op.value}")
        return ()
