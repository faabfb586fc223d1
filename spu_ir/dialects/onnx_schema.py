"""
ONNX's operator schemas as the `onnx` dialect reads them: types, attributes, operand counts.

Nothing here repeats ONNX: counts, names, kinds, defaults and type constraints all come from
`onnx.defs` (https://onnx.ai/onnx/api/defs.html).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

from onnx.defs import OpSchema
from xdsl.dialects.builtin import (
    ArrayAttr,
    BFloat16Type,
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    NoneType,
    StringAttr,
    TensorType,
    UnrankedTensorType,
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
from xdsl.ir import Attribute, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.utils.exceptions import VerifyException

from .types import ElementType, ui8, ui16, ui32, ui64
from .weights import WeightsAttr, constant_type

Kind: TypeAlias = OpSchema.AttrType
Value: TypeAlias = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]
"""A scalar or list attribute as Python sees it."""

ELEMENT_NAMES: dict[ElementType, str] = {
    f32: "float",
    f64: "double",
    f16: "float16",
    bf16: "bfloat16",
    i1: "bool",
    i8: "int8",
    i16: "int16",
    i32: "int32",
    i64: "int64",
    ui8: "uint8",
    ui16: "uint16",
    ui32: "uint32",
    ui64: "uint64",
}
"""Element type -> its name in ONNX's type strings; others (string, complex, float8) have none."""

ELEMENTS = {name: element for element, name in ELEMENT_NAMES.items()}


@irdl_attr_definition
class SeqType(ParametrizedAttribute, TypeAttribute):
    """ONNX's `seq(T)`, spelled as onnx-mlir does: `!onnx.Seq<tensor<*xf32>>`."""

    name = "onnx.Seq"

    type: Attribute


@irdl_attr_definition
class OptType(ParametrizedAttribute, TypeAttribute):
    """ONNX's `optional(T)`, spelled as onnx-mlir does: `!onnx.Opt<tensor<*xf32>>`."""

    name = "onnx.Opt"

    type: Attribute


def type_string(kind: Attribute) -> str | None:
    """ONNX's type string of a value's type, `tensor(float)`; None where ONNX has no such type."""
    if isinstance(kind, TensorType | UnrankedTensorType):
        element = cast("TensorType[Attribute]", kind).get_element_type()
        name = ELEMENT_NAMES.get(cast("ElementType", element))
        return name and f"tensor({name})"
    if isinstance(kind, SeqType):
        inner = type_string(kind.type)
        return inner and f"seq({inner})"
    if isinstance(kind, OptType):
        inner = type_string(kind.type)
        return inner and f"optional({inner})"
    return None


def attribute_of(kind: Kind, value: Value | Attribute | Sequence[int | float | str]) -> Attribute:
    """
    A Python value as the attribute that an op carries; attributes pass through unchanged.

    Raises KeyError for a kind that has no Python value (tensors, graphs and types).
    """
    if isinstance(value, Attribute):
        return value
    items = cast("Any", value)
    make = {
        Kind.INT: lambda: IntegerAttr(items, i64),
        Kind.FLOAT: lambda: FloatAttr(items, f32),
        Kind.STRING: lambda: StringAttr(items),
        Kind.INTS: lambda: DenseArrayBase.from_list(i64, list(items)),
        Kind.FLOATS: lambda: DenseArrayBase.from_list(f32, list(items)),
        Kind.STRINGS: lambda: ArrayAttr([StringAttr(item) for item in items]),
    }
    return make[kind]()


def python_value(attribute: Attribute) -> Value | None:
    """The Python value of a scalar or list attribute; None for any other attribute."""
    if isinstance(attribute, IntegerAttr):
        return cast("IntegerAttr[IntegerType]", attribute).value.data
    if isinstance(attribute, FloatAttr):
        return cast("FloatAttr[BFloat16Type]", attribute).value.data
    if isinstance(attribute, StringAttr):
        return attribute.data
    if isinstance(attribute, DenseArrayBase):
        return tuple(cast("DenseArrayBase[Any]", attribute).get_values())
    if isinstance(attribute, ArrayAttr):
        # `[1, 2]` is how onnx-mlir prints lists; it means the same as `array<i64: 1, 2>`.
        items = [python_value(item) for item in cast("ArrayAttr[Attribute]", attribute)]
        return None if None in items else cast("Value", tuple(items))
    return None


_PYTHON = {
    Kind.INT: (int, "an i64 integer"),
    Kind.FLOAT: (float, "an f32 number"),
    Kind.STRING: (str, "a string"),
    Kind.INTS: (int, "a list of i64 integers, array<i64: ...>"),
    Kind.FLOATS: (float, "a list of f32 numbers, array<f32: ...>"),
    Kind.STRINGS: (str, "a list of strings"),
}
_LISTS = (Kind.INTS, Kind.FLOATS, Kind.STRINGS)


def verify_attribute(name: str, kind: Kind, attribute: Attribute) -> None:
    """Raise VerifyException when `attribute` is not of the kind that the schema gives `name`."""
    if kind == Kind.TENSOR:
        try:
            constant_type(attribute)
        except TypeError:
            raise VerifyException(
                f"attribute {name} must be a tensor, #spu.weights<...> or dense<...>, "
                f"got {attribute}"
            ) from None
        return
    if kind == Kind.TYPE_PROTO:
        if not isinstance(attribute, TypeAttribute):
            raise VerifyException(f"attribute {name} must be a type, got {attribute}")
        return
    if kind not in _PYTHON:
        raise VerifyException(f"attribute {name} is of a kind that is not supported")
    python, right = _PYTHON[kind]
    value = None if isinstance(attribute, WeightsAttr) else python_value(attribute)
    items = value if isinstance(value, tuple) else (value,)
    if isinstance(value, tuple) != (kind in _LISTS) or not all(
        isinstance(item, python) for item in items
    ):
        raise VerifyException(f"attribute {name} must be {right}, got {attribute}")


class Values:
    """Verification of the operands or results of one op against a schema's parameters."""

    def __init__(self, what: str, formal: Sequence[OpSchema.FormalParameter], least: int):
        self.what = what
        self.formal = formal
        self.least = least
        self.variadic = bool(formal) and formal[-1].option == Option.Variadic
        self.types = [parameter.types for parameter in formal]

    def verify(self, types: Sequence[Attribute], bound: dict[str, str]) -> None:
        """
        Check count and types.

        `bound` maps a type variable (`T`) to the type string that an earlier value gave it.
        """
        least, most = self.least, len(self.formal)
        if len(types) < least or (len(types) > most and not self.variadic):
            right = f"at least {least}" if self.variadic else f"{least} to {most}"
            right = str(least) if least == most and not self.variadic else right
            names = ", ".join(parameter.name for parameter in self.formal)
            raise VerifyException(f"expected {right} {self.what}s ({names}), got {len(types)}")
        for index, kind in enumerate(types):
            self._verify_one(index, kind, bound)

    def _verify_one(self, index: int, kind: Attribute, bound: dict[str, str]) -> None:
        position = min(index, len(self.formal) - 1)
        parameter = self.formal[position]
        if isinstance(kind, NoneType):
            # Several schemas mark outputs that a node may leave out as required.
            if parameter.option == Option.Single and self.what == "operand":
                raise VerifyException(
                    f"operand {parameter.name} is required, it cannot be onnx.NoValue"
                )
            return
        given = type_string(kind)
        allowed = self.types[position]
        if given is None or given not in allowed:
            raise VerifyException(
                f"{self.what} {parameter.name} must be one of {', '.join(sorted(allowed))}, "
                f"got {kind}"
            )
        if parameter.option == Option.Variadic and not parameter.is_homogeneous:
            return
        expected = bound.setdefault(parameter.type_str, given)
        if given != expected:
            raise VerifyException(
                f"{self.what} {parameter.name} must be {expected} as the other values of type "
                f"{parameter.type_str}, got {given}"
            )


Option: TypeAlias = OpSchema.FormalParameterOption
