"""
The `onnx` dialect: one op for every version of every operator of ONNX's default domain.

Modelled on onnx-mlir's dialect of the same name (https://onnx.ai/onnx-mlir/Dialects/onnx.html):

    %y = "onnx.Conv"(%x, %w, %none) {kernel_shape = array<i64: 3, 3>, onnx_node_name = "c"}
        : (tensor<?x3x8x8xf32>, tensor<4x3x3x3xf32>, none) -> tensor<?x4x6x6xf32>

`onnx.Softmax` is the newest version of the operator; an older one is `onnx.SoftmaxV11`, where 11
is the opset that introduced it. Operand counts, attribute names and kinds and element types are
verified against ONNX's own schemas.

- An optional input that a node leaves out is the `none` value of `onnx.NoValue`; an output left
  out before one that is not has the type `none`.
- Lists are `array<i64: ...>`, `array<f32: ...>` and `["..."]`; the `[1, 2]` of onnx-mlir is
  accepted too. Tensors are `#spu.weights` or `dense`.
- Subgraphs (`then_branch`, `else_branch`, `body`) are regions in that order, ended by
  `onnx.Yield`. They may use values of the graph around them.
- `onnx_node_name` is the node's name in the file. Attributes with a dot in their name belong to
  passes and are not verified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import ClassVar, Self, cast

from onnx.defs import OpSchema, get_all_schemas_with_history
from xdsl.dialects.builtin import NoneType, StringAttr
from xdsl.ir import Attribute, Dialect, Operation, OpTraits, Region, SSAValue
from xdsl.irdl import IRDLOperation, irdl_op_definition, result_def, traits_def, var_operand_def
from xdsl.traits import IsTerminator, Pure, RecursiveMemoryEffect
from xdsl.utils.exceptions import VerifyException

from .onnx_schema import (
    Kind,
    OptType,
    SeqType,
    Value,
    Values,
    attribute_of,
    python_value,
    verify_attribute,
)
from .weights import constant_type

NODE_NAME = "onnx_node_name"

NON_DETERMINISTIC = frozenset(
    {
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
"""Operators whose result is not a function of their operands; ONNX's schemas do not say it."""


@irdl_op_definition
class NoValue(IRDLOperation):
    """The operand that stands for an optional input which a node leaves out."""

    name = "onnx.NoValue"

    result = result_def(NoneType)

    traits = traits_def(Pure())

    def __init__(self) -> None:
        super().__init__(result_types=[NoneType()])


@irdl_op_definition
class Yield(IRDLOperation):
    """Ends a subgraph; its operands are the subgraph's outputs."""

    name = "onnx.Yield"

    outputs = var_operand_def()

    traits = traits_def(IsTerminator(), Pure())

    def __init__(self, outputs: Sequence[SSAValue]) -> None:
        super().__init__(operands=[outputs])


class OnnxOp(Operation):
    """
    One version of one ONNX operator.

    The subclasses are made from ONNX's schemas; `Conv`, `SoftmaxV11` and the others are members
    of this module.
    """

    schema: ClassVar[OpSchema]
    """ONNX's schema: parameters, attributes, defaults and documentation."""

    schema_name: ClassVar[str]
    """The operator's name in ONNX, without a version: `Softmax`."""

    since_version: ClassVar[int]
    """The opset that introduced this version."""

    is_newest: ClassVar[bool]
    """Whether no later version of the operator exists."""

    @classmethod
    def make(
        cls,
        operands: Sequence[SSAValue | Operation],
        result_types: Sequence[Attribute],
        attributes: Mapping[str, Value | Attribute | Sequence[int | float | str]] | None = None,
        *,
        regions: Sequence[Region] = (),
        node_name: str | None = None,
    ) -> Self:
        """
        Build an op; attributes may be Python values, converted as the schema says.

        Raises KeyError for an attribute that the schema does not have.
        """
        kinds = cls.schema.attributes
        converted = {
            name: attribute_of(kinds[name].type, value)
            for name, value in (attributes or {}).items()
        }
        if node_name is not None:
            converted[NODE_NAME] = StringAttr(node_name)
        return cls.create(
            operands=[SSAValue.get(operand) for operand in operands],
            result_types=result_types,
            attributes=converted,
            regions=regions,
        )

    @property
    def node_name(self) -> str | None:
        """The node's name in the ONNX file, if it had one."""
        name = self.attributes.get(NODE_NAME)
        return name.data if isinstance(name, StringAttr) else None

    def input(self, index: int) -> SSAValue | None:
        """Operand `index`, or None where the node leaves it out."""
        if index >= len(self.operands) or isinstance(self.operands[index].type, NoneType):
            return None
        return self.operands[index]

    def value(self, name: str) -> Value | None:
        """
        The Python value of a scalar or list attribute; its default where the node has none.

        None when there is no default either. Raises KeyError for an unknown attribute.
        """
        attribute = self.attributes.get(name)
        return _default(type(self), name) if attribute is None else python_value(attribute)

    def int_value(self, name: str) -> int:
        """An integer attribute or its default. Raises TypeError when it has neither."""
        value = self.value(name)
        if not isinstance(value, int):
            raise TypeError(f"{self.name} has no integer {name}")
        return value

    def float_value(self, name: str) -> float:
        """A float attribute or its default. Raises TypeError when it has neither."""
        value = self.value(name)
        if not isinstance(value, float):
            raise TypeError(f"{self.name} has no number {name}")
        return value

    def str_value(self, name: str) -> str:
        """A string attribute or its default. Raises TypeError when it has neither."""
        value = self.value(name)
        if not isinstance(value, str):
            raise TypeError(f"{self.name} has no string {name}")
        return value

    def ints_value(self, name: str) -> tuple[int, ...] | None:
        """A list of integers or its default, None when it has neither."""
        value = self.value(name)
        return cast("tuple[int, ...] | None", value)

    def verify_(self) -> None:
        try:
            self._verify_schema()
        except VerifyException as error:
            place = f" {self.node_name!r}" if self.node_name else ""
            raise VerifyException(f"{self.name}{place}: {error}") from None

    def _verify_schema(self) -> None:
        signature = _signature(type(self))
        bound: dict[str, str] = {}
        signature.operands.verify(self.operand_types, bound)
        signature.results.verify(self.result_types, bound)
        self._verify_attributes(signature.kinds)
        value = self.attributes.get("value")
        if self.schema_name == "Constant" and value is not None:
            kind = constant_type(value)
            if kind != self.results[0].type:
                raise VerifyException(
                    f"the result must have the type of the value, {kind}, "
                    f"got {self.results[0].type}"
                )
        names = graph_attributes(type(self))
        if len(self.regions) != len(names):
            raise VerifyException(
                f"expected {len(names)} regions ({', '.join(names)}), got {len(self.regions)}"
            )
        for name, region in zip(names, self.regions, strict=True):
            if len(region.blocks) != 1 or not isinstance(region.block.last_op, Yield):
                raise VerifyException(f"region {name} must be one block ended by onnx.Yield")

    def _verify_attributes(self, kinds: Mapping[str, Kind]) -> None:
        for name, attribute in self.attributes.items():
            if name == NODE_NAME or "." in name:
                continue
            if name not in kinds:
                known = ", ".join(kinds) or "none"
                raise VerifyException(f"unknown attribute {name}, the operator has: {known}")
            verify_attribute(name, kinds[name], attribute)
        for name, definition in self.schema.attributes.items():
            if definition.required and name in kinds and name not in self.attributes:
                raise VerifyException(f"attribute {name} is required")


class _Signature:
    """What `verify_` asks of a schema, read from it once."""

    def __init__(self, schema: OpSchema):
        self.operands = Values("operand", schema.inputs, schema.min_input)
        self.results = Values("result", schema.outputs, schema.min_output)
        self.kinds = {
            name: definition.type
            for name, definition in schema.attributes.items()
            if definition.type != Kind.GRAPH
        }


@cache
def _signature(op: type[OnnxOp]) -> _Signature:
    return _Signature(op.schema)


@cache
def _default(op: type[OnnxOp], name: str) -> Value | None:
    proto = op.schema.attributes[name].default_value
    match op.schema.attributes[name].type:
        case Kind.INT if proto.HasField("i"):
            return proto.i
        case Kind.FLOAT if proto.HasField("f"):
            return proto.f
        case Kind.STRING if proto.HasField("s"):
            return proto.s.decode()
        case Kind.INTS if proto.ints:
            return tuple(proto.ints)
        case Kind.FLOATS if proto.floats:
            return tuple(proto.floats)
        case _:
            return None


@cache
def graph_attributes(op: type[OnnxOp]) -> tuple[str, ...]:
    """The names of an op's subgraphs, in the order of its regions (`then` before `else`)."""
    names = [name for name, a in op.schema.attributes.items() if a.type == Kind.GRAPH]
    return tuple(sorted(names, reverse=True))


def _traits(schema: OpSchema) -> OpTraits:
    if any(a.type == Kind.GRAPH for a in schema.attributes.values()):
        return OpTraits(lambda: (RecursiveMemoryEffect(),))
    if schema.name in NON_DETERMINISTIC:
        return OpTraits(tuple)
    return OpTraits(lambda: (Pure(),))


def _define_op(schema: OpSchema, newest: int) -> type[OnnxOp]:
    is_newest = schema.since_version == newest
    suffix = "" if is_newest else f"V{schema.since_version}"
    members = {
        "__doc__": schema.doc,
        "__module__": __name__,
        "name": f"onnx.{schema.name}{suffix}",
        "schema": schema,
        "schema_name": schema.name,
        "since_version": schema.since_version,
        "is_newest": is_newest,
        "traits": _traits(schema),
    }
    return cast("type[OnnxOp]", type(schema.name + suffix, (OnnxOp,), members))


def _define_ops() -> dict[str, dict[int, type[OnnxOp]]]:
    schemas: dict[str, dict[int, OpSchema]] = {}
    for schema in get_all_schemas_with_history():
        if schema.domain == "":
            schemas.setdefault(schema.name, {})[schema.since_version] = schema
    return {
        name: {since: _define_op(found[since], max(found)) for since in sorted(found)}
        for name, found in sorted(schemas.items())
    }


VERSIONS = _define_ops()
"""Operator name -> opset that introduced a version -> the op, oldest version first."""

OPS = {op.__name__: op for versions in VERSIONS.values() for op in versions.values()}
"""`Softmax`, `SoftmaxV11`, ... -> the op."""


def __getattr__(name: str) -> type[OnnxOp]:
    try:
        return OPS[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def op_at(name: str, opset: int) -> type[OnnxOp] | None:
    """The version of operator `name` in effect at `opset`; None when there is none."""
    found = [op for since, op in VERSIONS.get(name, {}).items() if since <= opset]
    return found[-1] if found else None


def newest(name: str) -> type[OnnxOp]:
    """The newest version of operator `name`. Raises KeyError for an unknown operator."""
    return list(VERSIONS[name].values())[-1]


Onnx = Dialect("onnx", [NoValue, Yield, *OPS.values()], [SeqType, OptType])
