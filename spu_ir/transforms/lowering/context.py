"""The state of one lowering: ONNX values, and what is known of them at compile time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, TypeAlias, cast

import numpy as np
from xdsl.dialects import tensor
from xdsl.dialects.builtin import (
    BFloat16Type,
    Float16Type,
    Float64Type,
    StringAttr,
    TensorType,
    UnrankedTensorType,
    f32,
    i1,
    i8,
    i32,
    i64,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, SSAValue
from xdsl.rewriter import InsertPoint

from spu_ir.dialects.functions import argument_attributes, bounds, dim_params
from spu_ir.dialects.onnx import OnnxOp
from spu_ir.dialects.types import (
    DYNAMIC,
    Array,
    element_of,
    element_type,
    numpy_dtype,
    shape_of,
    ui8,
)
from spu_ir.dialects.vpu import BinaryFn
from spu_ir.dialects.weights import WeightStore, constant_array
from spu_ir.errors import SpuError

from .builder import TensorBuilder
from .dims import Dim, Extent, add
from .grids import Grid, of_array, of_items

Symbols: TypeAlias = np.ndarray[Any, np.dtype[np.object_]]
"""An integer or bool tensor known at compile time: an object array of int, bool and `Extent`."""

MAX_SYMBOLS = 256
"""Integer tensors of up to this many elements are followed at compile time."""

MAX_COUNTED = 1 << 24
"""Tensors that count 0, 1, ... are constants of up to this many elements."""

ELEMENTS = (f32, i1, i8, ui8, i32, i64)
"""Element types of lowered tensors."""


@dataclass(frozen=True)
class Quantised:
    """A constant that a model gives as integers: `(values - zero) * scale` along `axis`."""

    values: Array
    scale: Array
    """f32: of rank 0, or one for each index of `axis`."""
    zero: Array
    """int32, the shape of `scale`."""
    axis: int

    def _along(self, of: Array) -> Array:
        if not of.ndim:
            return of
        shape = [1] * self.values.ndim
        shape[self.axis] = -1
        return of.reshape(shape)

    def centred(self) -> Array:
        """`values - zero`, int32."""
        return self.values.astype(np.int32) - self._along(self.zero)

    def real(self) -> Array:
        """The f32 array that it stands for."""
        return self.centred().astype(np.float32) * self._along(self.scale)

    def transposed(self, perm: Sequence[int]) -> Quantised:
        """With axis i the former axis `perm[i]`."""
        axis = list(perm).index(self.axis) if self.scale.ndim else 0
        return Quantised(self.values.transpose(perm), self.scale, self.zero, axis)


Constant: TypeAlias = Array | Quantised


def _wrapped(number: int, dtype: np.dtype[Any]) -> Array:
    """A number of any size in a dtype of rank 0, as integers wrap at run time."""
    return np.array(number & ((1 << 64) - 1), np.uint64).astype(dtype)


class Lowering(TensorBuilder):
    """
    One forward walk over a function.

    Every ONNX value is one or more of: a lowered tensor, a constant, symbols (an integer tensor
    whose elements are known, or known to be extents), a grid (one whose elements follow from their
    places). Tensors of the last three kinds are made only when an op needs them as data.
    """

    def __init__(self, store: WeightStore, function: FuncOp, point: InsertPoint):
        super().__init__(store, point)
        self._values: dict[SSAValue, SSAValue] = {}
        self._known: dict[SSAValue, Constant] = {}
        self._symbols: dict[SSAValue, Symbols] = {}
        self._grids: dict[SSAValue, Grid | None] = {}
        self._open_arguments(function)

    def _open_arguments(self, function: FuncOp) -> None:
        known = bounds(function)
        named: dict[str, Dim] = {}
        ports = zip(function.body.block.args, argument_attributes(function), strict=True)
        for argument, attributes in ports:
            name, params = port_name(attributes, argument.index), dim_params(attributes)
            if not isinstance(argument.type, TensorType):
                raise SpuError(f"input {name!r} is no tensor of known rank but {argument.type}")
            element = element_of(argument)
            if element not in ELEMENTS:
                raise SpuError(
                    f"input {name!r} has the element type {element}, which has no lowering",
                    remedy=f"use one of {', '.join(map(str, ELEMENTS))}; convert the model to f32",
                )
            dims: list[Dim] = []
            for axis, size in enumerate(shape_of(argument)):
                if size != DYNAMIC:
                    dims.append(size)
                    continue
                param = params.get(axis, f"{argument.index}.{axis}")
                if param not in named:
                    value = self.builder.insert(
                        tensor.DimOp(argument, self.extents.value(axis))
                    ).result
                    value.name_hint = params.get(axis)
                    named[param] = self.extents.atom(value, known.get(param, (1, None)))
                dims.append(named[param])
            self._values[argument] = argument
            self.set_dims(argument, dims)

    # Binding results

    def bind(self, value: SSAValue, lowered: SSAValue) -> None:
        """`lowered` is the tensor of an ONNX value."""
        if lowered.name_hint is None:
            lowered.name_hint = value.name_hint
        self._values[value] = lowered

    def bind_constant(self, value: SSAValue, constant: Constant) -> None:
        """An ONNX value is a constant; f16, bf16 and f64 become f32."""
        if isinstance(constant, np.ndarray):
            if constant.dtype.name in ("float16", "bfloat16", "float64"):
                constant = constant.astype(np.float32)
            elif constant.dtype.kind in "biu" and constant.size <= MAX_SYMBOLS:
                self._symbols[value] = constant.astype(object)
        self._known[value] = constant

    def bind_symbols(self, value: SSAValue, symbols: Symbols) -> None:
        """An ONNX value is an integer or bool tensor of known elements."""
        if all(isinstance(item, int) for item in symbols.reshape(-1)):
            dtype = numpy_dtype(onnx_element(value))
            self.bind_constant(value, np.asarray(symbols.tolist(), dtype).reshape(symbols.shape))
        else:
            self._symbols[value] = symbols

    def bind_grid(self, value: SSAValue, grid: Grid) -> None:
        """An ONNX value is an integer or bool tensor whose elements follow from their places."""
        self._grids[value] = grid

    # Reading operands

    def tensor(self, value: SSAValue | None) -> SSAValue:
        """The lowered tensor of an ONNX value, made now if it was only known so far."""
        if value is None:
            raise self.error("an input is missing")
        if value not in self._values:
            if value in self._known:
                lowered = self._constant_tensor(value)
            elif value in self._symbols:
                lowered = self._symbols_tensor(onnx_element(value), self._symbols[value])
            elif (grid := self._grids.get(value)) is not None:
                lowered = self.grid_tensor(grid, self.element(value))
            else:
                raise self.error("an input has not been lowered")
            self._values[value] = lowered
        return self._values[value]

    def _constant_tensor(self, value: SSAValue) -> SSAValue:
        array = self.known(value)
        assert array is not None
        if element_type(array.dtype) not in ELEMENTS:
            raise self.error(f"a constant has the element type {element_type(array.dtype)}")
        return self.constant(array)

    def _symbols_tensor(self, element: Attribute, symbols: Symbols) -> SSAValue:
        grid = of_items(symbols)
        if grid is not None:
            return self.grid_tensor(grid, element)
        items = [self._number_tensor(cast("Dim", item), element) for item in symbols.reshape(-1)]
        row = self.concat([self.reshape(item, (1,)) for item in items], (len(items),), 0)
        return self.reshape(row, symbols.shape)

    def operand_dims(self, value: SSAValue | None) -> tuple[Dim, ...]:
        """The dims of an ONNX value, without making its tensor."""
        if value is not None and value not in self._values:
            array = self.known(value)
            if array is not None:
                return array.shape
            if value in self._symbols:
                return self._symbols[value].shape
            grid = self._grids.get(value)
            if grid is not None:
                return grid.dims
        return self.dims(self.tensor(value))

    def raw(self, value: SSAValue | None) -> Constant | None:
        """The constant that an ONNX value is, quantised if the model has it so; else None."""
        return None if value is None else self._known.get(value)

    def known(self, value: SSAValue | None) -> Array | None:
        """The array that an ONNX value is at compile time, else None."""
        constant = self.raw(value)
        return constant.real() if isinstance(constant, Quantised) else constant

    def must_know(self, value: SSAValue | None, what: str) -> Array:
        """The array of an operand that has to be constant."""
        array = self.known(value)
        if array is None:
            raise self.error(f"{what} must be constant", "export the model with constant folding")
        return array

    def number(self, value: SSAValue | None, what: str, default: float) -> float:
        """The one number of a constant operand, `default` where it is left out."""
        if value is None:
            return default
        array = self.must_know(value, what)
        if array.size != 1:
            raise self.error(f"{what} must be one number, it has {array.size}")
        return float(array.reshape(()))

    def symbols(self, value: SSAValue | None) -> Symbols | None:
        """The elements of an integer or bool tensor where they are known, else None."""
        return None if value is None else self._symbols.get(value)

    def grid(self, value: SSAValue | None) -> Grid | None:
        """The grid that an integer or bool tensor is, None where it is none."""
        if value is None:
            return None
        if value not in self._grids:
            symbols, constant = self._symbols.get(value), self._known.get(value)
            if symbols is not None:
                self._grids[value] = of_items(symbols)
            elif isinstance(constant, np.ndarray):
                self._grids[value] = of_array(constant)
        return self._grids.get(value)

    def grid_tensor(self, grid: Grid, element: Attribute) -> SSAValue:
        """The tensor of a grid, in an integer type or i1."""
        dtype = numpy_dtype(element)
        if isinstance(grid.offset, bool):
            return self.expand(self.constant(np.array(grid.offset, dtype)), grid.dims)
        total: SSAValue | None = None
        if isinstance(grid.offset, Extent) or grid.offset or not grid.axes:
            total = self._number_tensor(grid.offset, element)
        for axis in grid.axes:
            step = grid.steps[axis]
            number = step if isinstance(step, int) else 1
            column = self._column(grid.dims[axis], number, dtype)
            column = self.reshape(column, (grid.dims[axis], *[1] * (len(grid.dims) - 1 - axis)))
            if isinstance(step, Extent):
                column = self.binary(BinaryFn.MUL, column, self._number_tensor(step, element))
            total = column if total is None else self.binary(BinaryFn.ADD, total, column)
        assert total is not None
        return self.expand(total, grid.dims)

    def _column(self, dim: Dim, step: int, dtype: np.dtype[Any]) -> SSAValue:
        """0, step, ..., `dim` of them: a constant of the greatest length, cut at run time."""
        most = self.extents.bound(dim)[1]
        if most is None:
            raise self.error("its length has no bound", "give one in shapes={'name': (1, 512)}")
        if most > MAX_COUNTED:
            raise self.error(
                f"it counts to {most}, in a tensor of more than {MAX_COUNTED} elements",
                "narrow the bounds of the extents in shapes, as in shapes={'name': (1, 512)}",
            )
        values = self.constant((np.arange(most) * _wrapped(step, np.dtype(np.int64))).astype(dtype))
        return self.slice(values, [0], [1], [dim]) if isinstance(dim, Extent) else values

    def _number_tensor(self, number: Dim, element: Attribute) -> SSAValue:
        """A tensor of rank 0."""
        dtype = numpy_dtype(element)
        if isinstance(number, int):
            return self.constant(_wrapped(number, dtype))
        terms: list[SSAValue] = []
        for monomial, factor in number.terms:
            factors = [self._atom_tensor(Extent((((atom,), 1),)), dtype) for atom in monomial]
            if factor != 1 or not factors:
                factors.append(self.constant(_wrapped(factor, dtype)))
            terms.append(reduce(partial(self.binary, BinaryFn.MUL), factors))
        return reduce(partial(self.binary, BinaryFn.ADD), terms)

    def _atom_tensor(self, atom: Extent, dtype: np.dtype[Any]) -> SSAValue:
        """A run-time extent as data: the last of 0, 1, ..., cut behind it."""
        counted = self._column(add(atom, 1), 1, dtype)
        return self.gather(counted, self.constant(np.array(-1, np.int64)), 0)

    def dims_from(self, value: SSAValue | None, what: str) -> list[Dim]:
        """The elements of a rank-1 integer tensor; an error where they depend on data."""
        symbols = self.symbols(value)
        if symbols is None:
            raise self.error(
                f"{what} depends on the values of the model's inputs",
                "export the model so that shapes follow from the inputs' shapes alone",
            )
        return [cast("Dim", item) for item in symbols.reshape(-1)]

    def integers_from(self, value: SSAValue | None, what: str) -> list[int]:
        """The elements of an integer tensor that has to be constant."""
        items = self.dims_from(value, what)
        if not all(isinstance(item, int) for item in items):
            raise self.error(
                f"{what} must be known at compile time",
                "fix the extents that it follows from with shapes={'name': number}",
            )
        return cast("list[int]", items)

    def attribute_array(self, attribute: Attribute) -> Array:
        """The array of a tensor attribute."""
        return constant_array(self.store, attribute)

    def constant_in(self, array: Array, value: SSAValue) -> SSAValue:
        """A constant with the element type of an ONNX value."""
        return self.constant(array.astype(numpy_dtype(self.element(value))))

    def element(self, value: SSAValue) -> Attribute:
        """The element type of an ONNX value once lowered: every float is f32."""
        element = onnx_element(value)
        if isinstance(element, Float16Type | BFloat16Type | Float64Type):
            return f32
        if element not in ELEMENTS:
            raise self.error(f"the element type {element} has no lowering")
        return element

    def axis(self, axis: int, rank: int) -> int:
        """An axis that may count from the end, as one that does not."""
        if not -rank <= axis < max(rank, 1):
            raise self.error(f"axis {axis} does not exist, the operand has {rank}")
        return axis % rank if rank else 0

    def unused(self, op: OnnxOp, index: int, what: str) -> None:
        """Raise where a node asks for an optional result that has no lowering."""
        if index < len(op.results) and op.results[index].first_use is not None:
            raise self.error(f"its result {what} has no lowering")


def onnx_element(value: SSAValue) -> Attribute:
    """The element type of an ONNX value; the number of its axes need not be known."""
    kind = value.type
    if isinstance(kind, UnrankedTensorType):
        return cast("UnrankedTensorType[Attribute]", kind).element_type
    return element_of(value)


def port_name(attributes: Mapping[str, Attribute], index: int) -> str:
    """The ONNX name of a function's argument or result."""
    name = attributes.get("onnx.name")
    return name.data if isinstance(name, StringAttr) else f"number {index}"
