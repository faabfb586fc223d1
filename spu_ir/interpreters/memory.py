"""
Interpreters of the standard dialects around ours: `memref`, `tensor`, `arith`, `scf`.

A memref's value is a numpy *view*, so that what is written through a subview is seen by its
source; a tensor's value is an array that nothing writes. An index is a Python int. Fresh memory
holds `POISON` bytes, so that a read of what was never written shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from math import prod
from typing import Any, cast

import numpy as np
from numpy.lib.stride_tricks import as_strided
from xdsl.dialects import arith, memref, scf, tensor
from xdsl.dialects.builtin import ArrayAttr, DenseArrayBase, IntegerAttr, MemRefType, NoneAttr
from xdsl.interpreter import (
    Interpreter,
    InterpreterFunctions,
    PythonValues,
    ReturnedValues,
    TerminatorValue,
    impl,
    impl_terminator,
    register_impls,
)
from xdsl.utils.exceptions import InterpretationError

from spu_ir.dialects.spu import integers
from spu_ir.dialects.types import DYNAMIC, Array, element_of, numpy_dtype, shape_of

POISON = 0xCD
"""The byte that fills memory before anything is written to it."""


def poisoned(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """A new array whose bytes are `POISON` (for bool, whose bytes are 0 or 1: True)."""
    if dtype == np.bool_:
        return np.ones(shape, dtype)
    data = np.full(prod(shape) * dtype.itemsize, POISON, np.uint8)
    return data.view(dtype).reshape(shape)


def filled_shape(shape: Sequence[int], dynamic: Iterable[int]) -> tuple[int, ...]:
    """`shape` with its run-time extents taken from `dynamic`, in order."""
    extents = iter(dynamic)
    return tuple([next(extents) if size == DYNAMIC else size for size in shape])


def mixed(static: DenseArrayBase, dynamic: Iterable[int]) -> tuple[int, ...]:
    """The numbers of a list that is partly in an attribute, partly in operands."""
    return filled_shape(integers(static), dynamic)


def viewed(x: Array, shape: Sequence[int]) -> Array:
    """`x` in another shape, sharing its memory. Raises InterpretationError if that needs a copy."""
    result = x.reshape(shape)
    if result.size and not np.may_share_memory(x, result):
        raise InterpretationError(
            f"shape {list(shape)} is not a view of shape {list(x.shape)} with strides "
            f"{list(x.strides)}"
        )
    return result


def groups_of(reassociation: ArrayAttr[ArrayAttr[IntegerAttr]]) -> list[list[int]]:
    """The axes of each group of a collapse or an expansion."""
    return [[axis.value.data for axis in group] for group in reassociation]


def scalar(value: Any) -> Any:
    """An element as arith has it: a Python int or bool, or a numpy float of its own precision."""
    return value.item() if value.dtype.kind in "iub" else value


@register_impls
class TensorFunctions(InterpreterFunctions):
    """What makes and asks for tensors around ops in destination-passing style."""

    @impl(tensor.EmptyOp)
    def run_empty(self, _: Interpreter, op: tensor.EmptyOp, args: PythonValues) -> PythonValues:
        # Only the shape is ever used, so one read-only element stands for all of them.
        dtype = numpy_dtype(element_of(op.tensor))
        return (np.broadcast_to(poisoned((), dtype), filled_shape(shape_of(op.tensor), args)),)

    @impl(tensor.DimOp)
    def run_dim(self, _: Interpreter, op: tensor.DimOp, args: PythonValues) -> PythonValues:
        x, axis = args
        return (x.shape[axis],)

    @impl(tensor.CastOp)
    def run_cast(self, _: Interpreter, op: tensor.CastOp, args: PythonValues) -> PythonValues:
        return args

    @impl(tensor.ExtractOp)
    def run_extract(self, _: Interpreter, op: tensor.ExtractOp, args: PythonValues) -> PythonValues:
        x, *indices = args
        return (scalar(x[tuple(indices)]),)

    @impl(tensor.FromElementsOp)
    def run_from_elements(
        self, _: Interpreter, op: tensor.FromElementsOp, args: PythonValues
    ) -> PythonValues:
        dtype = numpy_dtype(element_of(op.result))
        return (np.array(args, dtype=dtype).reshape(shape_of(op.result)),)


@register_impls
class MemRefFunctions(InterpreterFunctions):
    """Buffers and their views."""

    @impl(memref.AllocOp)
    def run_alloc(self, _: Interpreter, op: memref.AllocOp, args: PythonValues) -> PythonValues:
        shape = filled_shape(shape_of(op.memref), args[: len(op.dynamic_sizes)])
        return (poisoned(shape, numpy_dtype(element_of(op.memref))),)

    @impl(memref.AllocaOp)
    def run_alloca(self, _: Interpreter, op: memref.AllocaOp, args: PythonValues) -> PythonValues:
        shape = filled_shape(shape_of(op.memref), args[: len(op.dynamic_sizes)])
        return (poisoned(shape, numpy_dtype(element_of(op.memref))),)

    @impl(memref.DeallocOp)
    def run_dealloc(self, _: Interpreter, op: memref.DeallocOp, args: PythonValues) -> PythonValues:
        return ()

    @impl(memref.DimOp)
    def run_dim(self, _: Interpreter, op: memref.DimOp, args: PythonValues) -> PythonValues:
        x, axis = args
        return (x.shape[axis],)

    @impl(memref.LoadOp)
    def run_load(self, _: Interpreter, op: memref.LoadOp, args: PythonValues) -> PythonValues:
        x, *indices = args
        return (scalar(x[checked(x, indices)]),)

    @impl(memref.StoreOp)
    def run_store(self, _: Interpreter, op: memref.StoreOp, args: PythonValues) -> PythonValues:
        value, x, *indices = args
        x[checked(x, indices)] = value
        return ()

    @impl(memref.CopyOp)
    def run_copy(self, _: Interpreter, op: memref.CopyOp, args: PythonValues) -> PythonValues:
        source, target = args
        target[...] = source
        return ()

    @impl(memref.CastOp)
    def run_cast(self, _: Interpreter, op: memref.CastOp, args: PythonValues) -> PythonValues:
        return args

    @impl(memref.MemorySpaceCastOp)
    def run_space_cast(
        self, _: Interpreter, op: memref.MemorySpaceCastOp, args: PythonValues
    ) -> PythonValues:
        return args

    @impl(memref.ViewOp)
    def run_view(self, _: Interpreter, op: memref.ViewOp, args: PythonValues) -> PythonValues:
        arena, start, *sizes = args
        shape = filled_shape(shape_of(op.result), sizes)
        dtype = numpy_dtype(element_of(op.result))
        end = start + prod(shape) * dtype.itemsize
        if not 0 <= start <= end <= arena.size:
            raise InterpretationError(
                f"memref.view: bytes {start} to {end} are not within {arena.size}"
            )
        return (arena[start:end].view(dtype).reshape(shape),)

    @impl(memref.SubviewOp)
    def run_subview(self, _: Interpreter, op: memref.SubviewOp, args: PythonValues) -> PythonValues:
        x, *rest = args
        ends = len(op.offsets), len(op.offsets) + len(op.sizes)
        offsets = mixed(op.static_offsets, rest[: ends[0]])
        sizes = mixed(op.static_sizes, rest[ends[0] : ends[1]])
        strides = mixed(op.static_strides, rest[ends[1] :])
        for axis, (extent, start, size, step) in enumerate(
            zip(x.shape, offsets, sizes, strides, strict=True)
        ):
            last = start + (size - 1) * step
            if size > 0 and not (0 <= start < extent and 0 <= last < extent):
                raise InterpretationError(
                    f"memref.subview: axis {axis}: positions {start} to {last} are not within "
                    f"{extent}"
                )
        # An end before position 0, of a negative step, is no position to numpy.
        ends_at = [s + n * step for s, n, step in zip(offsets, sizes, strides, strict=True)]
        part = x[
            tuple(
                [
                    slice(start, end if end >= 0 else None, step)
                    for start, end, step in zip(offsets, ends_at, strides, strict=True)
                ]
            )
        ]
        kept = kept_axes(op.static_sizes, shape_of(op.result))
        return (part if len(kept) == part.ndim else part.reshape([sizes[axis] for axis in kept]),)

    @impl(memref.CollapseShapeOp)
    def run_collapse(
        self, _: Interpreter, op: memref.CollapseShapeOp, args: PythonValues
    ) -> PythonValues:
        (x,) = args
        groups = groups_of(op.reassociation)
        return (viewed(x, [prod(x.shape[axis] for axis in group) for group in groups]),)

    @impl(memref.ExpandShapeOp)
    def run_expand(
        self, _: Interpreter, op: memref.ExpandShapeOp, args: PythonValues
    ) -> PythonValues:
        x, *sizes = args
        return (viewed(x, mixed(op.static_output_shape, sizes)),)

    @impl(memref.ReinterpretCastOp)
    def run_reinterpret(
        self, _: Interpreter, op: memref.ReinterpretCastOp, args: PythonValues
    ) -> PythonValues:
        x, *rest = args
        # The offset counts from the start of the buffer, which a view no longer knows.
        if not isinstance(cast("MemRefType[Any]", op.source.type).layout, NoneAttr):
            raise InterpretationError("memref.reinterpret_cast: the source must be a whole buffer")
        ends = len(op.offsets), len(op.offsets) + len(op.sizes)
        (offset,) = mixed(op.static_offsets, rest[: ends[0]])
        sizes = mixed(op.static_sizes, rest[ends[0] : ends[1]])
        strides = mixed(op.static_strides, rest[ends[1] :])
        reach = [(size - 1) * stride for size, stride in zip(sizes, strides, strict=True)]
        first, last = offset + sum(min(r, 0) for r in reach), offset + sum(max(r, 0) for r in reach)
        if prod(sizes) and not 0 <= first <= last < x.size:
            raise InterpretationError(
                f"memref.reinterpret_cast: elements {first} to {last} are not within {x.size}"
            )
        flat = x.reshape(-1)[offset:]
        return (as_strided(flat, sizes, [stride * x.itemsize for stride in strides]),)


def checked(x: Array, indices: Sequence[int]) -> tuple[int, ...]:
    """`indices`, which must lie in x: numpy would count negative ones from the end."""
    if not all(0 <= index < extent for index, extent in zip(indices, x.shape, strict=True)):
        raise InterpretationError(f"element {list(indices)} is not within shape {list(x.shape)}")
    return tuple(indices)


def kept_axes(static_sizes: DenseArrayBase, shape: Sequence[int]) -> list[int]:
    """The axes of a subview that its result, of `shape`, keeps; the others have extent 1."""
    kept: list[int] = []
    for axis, size in enumerate(integers(static_sizes)):
        if len(kept) < len(shape) and shape[len(kept)] == size:
            kept.append(axis)
    return kept


@register_impls
class IndexFunctions(InterpreterFunctions):
    """Arithmetic on indices, never negative, that xDSL's own arith interpreter lacks."""

    @impl(arith.DivUIOp)
    def run_divui(self, _: Interpreter, op: arith.DivUIOp, args: PythonValues) -> PythonValues:
        return (args[0] // args[1],)

    @impl(arith.CeilDivUIOp)
    def run_ceildivui(
        self, _: Interpreter, op: arith.CeilDivUIOp, args: PythonValues
    ) -> PythonValues:
        return (-(-args[0] // args[1]),)

    @impl(arith.CeilDivSIOp)
    def run_ceildivsi(
        self, _: Interpreter, op: arith.CeilDivSIOp, args: PythonValues
    ) -> PythonValues:
        return (-(-args[0] // args[1]),)

    @impl(arith.RemUIOp)
    def run_remui(self, _: Interpreter, op: arith.RemUIOp, args: PythonValues) -> PythonValues:
        return (args[0] % args[1],)

    @impl(arith.MinUIOp)
    def run_minui(self, _: Interpreter, op: arith.MinUIOp, args: PythonValues) -> PythonValues:
        return (min(args),)

    @impl(arith.MaxUIOp)
    def run_maxui(self, _: Interpreter, op: arith.MaxUIOp, args: PythonValues) -> PythonValues:
        return (max(args),)

    @impl(arith.MinSIOp)
    def run_minsi(self, _: Interpreter, op: arith.MinSIOp, args: PythonValues) -> PythonValues:
        return (min(args),)

    @impl(arith.MaxSIOp)
    def run_maxsi(self, _: Interpreter, op: arith.MaxSIOp, args: PythonValues) -> PythonValues:
        return (max(args),)


@register_impls
class ParallelFunctions(InterpreterFunctions):
    """`scf.parallel` without reductions, one iteration after another."""

    @impl(scf.ParallelOp)
    def run_parallel(
        self, interpreter: Interpreter, op: scf.ParallelOp, args: PythonValues
    ) -> PythonValues:
        axes = len(op.lowerBound)
        if len(args) != 3 * axes:
            raise InterpretationError("scf.parallel: reductions are not supported")
        bounds = zip(args[:axes], args[axes : 2 * axes], args[2 * axes :], strict=True)
        for indices in product(*(range(*bound) for bound in bounds)):
            interpreter.run_ssacfg_region(op.body, indices, "parallel")
        return ()

    @impl_terminator(scf.ReduceOp)
    def run_reduce(
        self, _: Interpreter, op: scf.ReduceOp, args: PythonValues
    ) -> tuple[TerminatorValue, PythonValues]:
        return ReturnedValues(()), ()
