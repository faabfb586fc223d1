"""Element types of the dialects and the numpy dtypes that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, TypeAlias, cast

import ml_dtypes
import numpy as np
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    AnyFloat,
    BFloat16Type,
    Float16Type,
    Float32Type,
    Float64Type,
    IntegerType,
    MemRefType,
    Signedness,
    TensorType,
    bf16,
    f16,
    f32,
    f64,
    i1,
    i8,
    i16,
    i32,
    i64,
)
from xdsl.ir import Attribute, SSAValue

ElementType: TypeAlias = AnyFloat | IntegerType
Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

DYNAMIC = DYNAMIC_INDEX
"""How a run-time extent stands in a type's shape (printed as `?`)."""

ui8 = IntegerType(8, Signedness.UNSIGNED)
ui16 = IntegerType(16, Signedness.UNSIGNED)
ui32 = IntegerType(32, Signedness.UNSIGNED)
ui64 = IntegerType(64, Signedness.UNSIGNED)
bfloat16 = np.dtype(ml_dtypes.bfloat16)

_NUMPY: dict[ElementType, np.dtype[Any]] = {
    f32: np.dtype(np.float32),
    f64: np.dtype(np.float64),
    f16: np.dtype(np.float16),
    bf16: bfloat16,
    i1: np.dtype(np.bool_),
    i8: np.dtype(np.int8),
    i16: np.dtype(np.int16),
    i32: np.dtype(np.int32),
    i64: np.dtype(np.int64),
    ui8: np.dtype(np.uint8),
    ui16: np.dtype(np.uint16),
    ui32: np.dtype(np.uint32),
    ui64: np.dtype(np.uint64),
}
_ELEMENT = {dtype: element for element, dtype in _NUMPY.items()}


def numpy_dtype(element: Attribute) -> np.dtype[Any]:
    """The numpy dtype that holds `element`. Raises KeyError for a type without one."""
    if not isinstance(
        element, IntegerType | Float32Type | Float64Type | Float16Type | BFloat16Type
    ):
        raise KeyError(element)
    return _NUMPY[element]


def element_type(dtype: np.dtype[Any]) -> ElementType:
    """The element type held by a numpy `dtype`. Raises KeyError for a dtype without one."""
    return _ELEMENT[dtype]


def shaped(value: SSAValue | Attribute) -> TensorType[Attribute] | MemRefType[Attribute]:
    """The tensor or memref type of a value. Raises TypeError for anything else."""
    kind = value.type if isinstance(value, SSAValue) else value
    if not isinstance(kind, TensorType | MemRefType):
        raise TypeError(f"expected a tensor or a memref, got {kind}")
    return cast("TensorType[Attribute] | MemRefType[Attribute]", kind)


def shape_of(value: SSAValue | Attribute) -> tuple[int, ...]:
    """The shape of a tensor or memref; `DYNAMIC` where the extent is known only at run time."""
    return shaped(value).get_shape()


def element_of(value: SSAValue | Attribute) -> Attribute:
    """The element type of a tensor or memref."""
    return shaped(value).get_element_type()


def static_size(shape: Sequence[int]) -> int | None:
    """The number of elements of a shape, or None where an extent is dynamic."""
    return None if DYNAMIC in shape else prod(shape)


def same_extent(a: int, b: int) -> bool:
    """Whether two extents can be equal: either is dynamic, or they are the same number."""
    return a == DYNAMIC or b == DYNAMIC or a == b


def same_shape(a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether two shapes can be equal, extent by extent."""
    return len(a) == len(b) and all(map(same_extent, a, b))


def show_shape(shape: Sequence[int]) -> str:
    """A shape as messages print it: `[?, 384]`."""
    return "[" + ", ".join("?" if d == DYNAMIC else str(d) for d in shape) + "]"
