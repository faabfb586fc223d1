"""
The golden model: every stage of the IR, executed with numpy.

`interpret` runs a module on the `onnx` level, on tensors, on memrefs and tiled, and gives the
bits that the generated C gives (docs/numerics.md); with `exact_f32=False` products of f32 are
summed in whatever order is fast, within the tolerance that FP32 models have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import DictionaryAttr, MemRefType, ModuleOp, StringAttr, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.interpreters.arith import ArithFunctions
from xdsl.interpreters.func import FuncFunctions
from xdsl.interpreters.scf import ScfFunctions
from xdsl.ir import Attribute

from spu_ir.dialects.functions import OUTPUT, dim_params
from spu_ir.dialects.types import (
    DYNAMIC,
    Array,
    element_of,
    numpy_dtype,
    same_shape,
    shape_of,
    show_shape,
)
from spu_ir.dialects.weights import WeightStore, store_of
from spu_ir.errors import SpuError

from .antoum import AntoumFunctions
from .machine import Machine, Observer
from .memory import IndexFunctions, MemRefFunctions, ParallelFunctions, TensorFunctions, poisoned
from .spu import SpuFunctions
from .spu_attention import PackedAttentionFunctions
from .vpu import VpuFunctions


class Port(NamedTuple):
    """An input or output of a function."""

    name: str
    type: TensorType[Attribute] | MemRefType[Attribute]
    dims: dict[int, str]
    """Names of run-time extents by axis."""

    def shape(self, extents: Mapping[str, int]) -> tuple[int, ...]:
        """The shape with its named extents filled in. Raises SpuError for an unknown one."""
        shape = list(shape_of(self.type))
        for axis, size in enumerate(shape):
            if size == DYNAMIC:
                found = extents.get(self.dims.get(axis, ""))
                if found is None:
                    raise SpuError(f"extent {axis} of output {self.name!r} follows from no input")
                shape[axis] = found
        return tuple(shape)


class Signature(NamedTuple):
    """The inputs of a function in order, its outputs, and whether these are memref arguments."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    in_place: bool


def main_of(module: ModuleOp) -> FuncOp:
    """The module's entry point: `@main`, or its only function."""
    functions = [op for op in module.ops if isinstance(op, FuncOp)]
    for function in functions:
        if function.sym_name.data == "main":
            return function
    if len(functions) != 1:
        raise SpuError(f"expected a function @main, found {len(functions)} functions")
    return functions[0]


def signature_of(function: FuncOp) -> Signature:
    """Names and types of a function's inputs and outputs, before and after bufferisation."""
    kind = function.function_type
    inputs: list[Port] = []
    outputs: list[Port] = []
    attributes = function.arg_attrs or [DictionaryAttr({})] * len(kind.inputs)
    for number, (type_, found) in enumerate(zip(kind.inputs, attributes, strict=True)):
        ports = outputs if OUTPUT in found.data else inputs
        ports.append(_port(type_, found, f"arg{number}"))
    in_place = bool(outputs)
    attributes = function.res_attrs or [DictionaryAttr({})] * len(kind.outputs)
    for number, (type_, found) in enumerate(zip(kind.outputs, attributes, strict=True)):
        outputs.append(_port(type_, found, f"result{number}"))
    return Signature(tuple(inputs), tuple(outputs), in_place)


def _port(kind: Attribute, attributes: DictionaryAttr, fallback: str) -> Port:
    if not isinstance(kind, TensorType | MemRefType):
        raise SpuError(f"{fallback} must be a tensor or a memref, got {kind}")
    name = attributes.data.get("onnx.name")
    return Port(
        name.data if isinstance(name, StringAttr) else fallback, kind, dim_params(attributes.data)
    )


def bind(inputs: Sequence[Port], feeds: Mapping[str, Array]) -> tuple[list[Array], dict[str, int]]:
    """
    The arrays of the inputs in order, and the named extents that they have.

    Raises SpuError for a missing or unknown name, a wrong dtype or shape, or two values for one
    extent.
    """
    known = [port.name for port in inputs]
    for name in feeds:
        if name not in known:
            raise SpuError(f"{name!r} is not an input", remedy=f"the inputs are {known}")
    arrays: list[Array] = []
    extents: dict[str, int] = {}
    for port in inputs:
        if port.name not in feeds:
            raise SpuError(f"input {port.name!r} is missing")
        array = np.ascontiguousarray(feeds[port.name]).reshape(np.shape(feeds[port.name]))
        dtype, shape = numpy_dtype(element_of(port.type)), shape_of(port.type)
        if array.dtype != dtype:
            raise SpuError(f"input {port.name!r} must have dtype {dtype}, got {array.dtype}")
        if not same_shape(shape, array.shape):
            raise SpuError(
                f"input {port.name!r} must have shape {show_shape(shape)}, got {list(array.shape)}"
            )
        for axis, extent in port.dims.items():
            if extents.setdefault(extent, array.shape[axis]) != array.shape[axis]:
                raise SpuError(
                    f"input {port.name!r} has extent {extent!r} = {array.shape[axis]}, "
                    f"another has {extents[extent]}"
                )
        arrays.append(array)
    return arrays, extents


def machine_for(
    module: ModuleOp, store: WeightStore, *, exact_f32: bool, listener: Observer | None
) -> Machine:
    """An interpreter of `module` with every dialect that it uses."""
    machine = Machine(module, observer=listener)
    for functions in (
        ArithFunctions(),
        IndexFunctions(),
        ScfFunctions(),
        ParallelFunctions(),
        FuncFunctions(),
        TensorFunctions(),
        MemRefFunctions(),
        AntoumFunctions(store),
        SpuFunctions(exact_f32=exact_f32),
        PackedAttentionFunctions(),
        VpuFunctions(),
    ):
        machine.register_implementations(functions)
    if any(op.dialect_name() == "onnx" for op in module.walk()):
        # ONNX's reference evaluator is slow to load, and only the first stage needs it.
        from .onnx import register_onnx

        register_onnx(machine, store)
    return machine


def interpret(
    module: ModuleOp,
    ctx: Context,
    feeds: Mapping[str, Array],
    *,
    exact_f32: bool = False,
    listener: Observer | None = None,
) -> dict[str, Array]:
    """
    Run `@main` on `feeds`, an array for each input by its name, and give the outputs by name.

    `listener(op, results)` is called after every op. `exact_f32` sums products of f32 in the
    order of the numerics contract. Raises SpuError for feeds that do not fit.
    """
    function = main_of(module)
    signature = signature_of(function)
    arrays, extents = bind(signature.inputs, feeds)
    machine = machine_for(module, store_of(ctx), exact_f32=exact_f32, listener=listener)
    results: Sequence[Any]
    if signature.in_place:
        results = [
            poisoned(port.shape(extents), numpy_dtype(element_of(port.type)))
            for port in signature.outputs
        ]
        machine.call_op(function, (*arrays, *results))
    else:
        results = machine.call_op(function, tuple(arrays))
    # A result can be a view of an input, which is the caller's to change.
    return {
        port.name: np.array(result, order="C")
        for port, result in zip(signature.outputs, results, strict=True)
    }
