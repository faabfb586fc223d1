"""
Sizes that follow from run-time extents, beyond what ONNX's shape inference can say.

A dim is an int, the name of an extent, or None. ONNX follows names through most operators, but
not through what exporters compute with them: `Slice` up to a length, `Expand` and `Reshape` to
computed shapes, `Range`. The rules here do that, and ONNX's inference of single nodes carries
what they find on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from onnx import TensorProto, TypeProto, helper
from onnx.shape_inference import InferenceError, infer_node_outputs
from xdsl.dialects.builtin import ArrayAttr, NoneType, StringAttr, TensorType, UnrankedTensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, BlockArgument, Operation, OpResult, SSAValue
from xdsl.rewriter import Rewriter

from spu_ir.dialects.functions import argument_attributes, bounds, dim_params
from spu_ir.dialects.onnx import OnnxOp
from spu_ir.dialects.onnx_proto import ProtoWriter, type_proto
from spu_ir.dialects.types import DYNAMIC, element_of, numpy_dtype
from spu_ir.dialects.weights import WeightStore

from .onnx_patterns import dims_of, ints, is_constant, producer, scalar, size_of

Dim: TypeAlias = int | str | None

END = 1 << 31
"""Ends of slices from here on mean the end of the axis."""


def symbolic_dims(value: SSAValue) -> tuple[Dim, ...] | None:
    """The dims of a tensor, with names of extents where they are known; None without a rank."""
    dims = dims_of(value)
    if dims is None:
        return None
    names = _names(value)
    return tuple(names.get(axis) if dim == DYNAMIC else dim for axis, dim in enumerate(dims))


def _names(value: SSAValue) -> Mapping[int, str]:
    if isinstance(value, OpResult):
        params = _params(value.op)
        return dim_params({"onnx.dim_params": params[value.index]}) if params else {}
    elif isinstance(value, BlockArgument):
        function = value.block.parent_op()
        if isinstance(function, FuncOp) and value.block is function.body.block:
            return dim_params(argument_attributes(function)[value.index])
    return {}


def _params(op: Operation) -> list[StringAttr] | None:
    """The names of an op's results' dims, one string a result."""
    params = op.attributes.get("onnx.dim_params")
    if not isinstance(params, ArrayAttr):
        return None
    entries = list(cast("ArrayAttr[StringAttr]", params))
    return entries if len(entries) == len(op.results) else None


def symbolic_ints(value: SSAValue, store: WeightStore) -> list[Dim] | None:
    """The elements of a small vector (or scalar) of sizes, None for any other value."""
    op = producer(
        value, "Constant", "Shape", "Size", "Gather", "Slice", "Concat", "Cast", "Squeeze",
        "Unsqueeze", "Where", "Identity",
    )  # fmt: skip
    dims = dims_of(value)
    if op is None or dims is None or len(dims) > 1:
        return None
    match op.schema_name:
        case "Constant":
            found = ints(value, store)
            return None if found is None else list(found)
        case "Shape":
            return _shape_part(op)
        case "Size":
            return [size_of(op.operands[0])]
        case "Concat":
            parts = [symbolic_ints(operand, store) for operand in op.operands]
            return None if None in parts else [dim for part in parts for dim in part or ()]
        case "Where":
            return _without_minus_one(op, store)
        case _:
            return _moved(op, value, store)


def _shape_part(op: OnnxOp) -> list[Dim] | None:
    dims = symbolic_dims(op.operands[0])
    if dims is None:
        return None
    end = op.value("end")
    return list(dims[op.int_value("start") : end if isinstance(end, int) else None])


def _moved(op: OnnxOp, value: SSAValue, store: WeightStore) -> list[Dim] | None:
    inner = symbolic_ints(op.operands[0], store)
    if inner is None or op.schema_name in ("Squeeze", "Unsqueeze", "Identity"):
        return inner
    if op.schema_name == "Cast":
        # A size fits every integer type, but not a boolean or a float.
        return inner if numpy_dtype(element_of(value)).kind in "iu" else None
    if op.schema_name == "Gather":
        picked = ints(op.operands[1], store)
        if picked is None or not all(-len(inner) <= index < len(inner) for index in picked):
            return None
        return [inner[index] for index in picked]
    limits = [ints(operand, store) for operand in op.operands[1:]]
    single = [limit[0] for limit in limits if limit is not None and len(limit) == 1]
    if len(single) != len(limits):
        return None
    start, end = single[:2]
    step = single[3] if len(single) == 4 else 1
    return inner[start:end:step] if step > 0 else None


def _without_minus_one(op: OnnxOp, store: WeightStore) -> list[Dim] | None:
    """`Where(sizes == -1, a, sizes)`, which exporters put before `Expand`."""
    condition = producer(op.operands[0], "Equal")
    sizes = symbolic_ints(op.operands[2], store)
    instead = symbolic_ints(op.operands[1], store)
    if condition is None or sizes is None or instead is None or len(instead) != len(sizes):
        return None
    compared = {ints(operand, store) for operand in condition.operands}
    if op.operands[2] not in condition.operands or not any(
        found and set(found) == {-1} for found in compared
    ):
        return None
    # An extent is never -1, and an unknown size is a size too where Shape made it.
    return [other if dim == -1 else dim for dim, other in zip(sizes, instead, strict=True)]


def refine(function: FuncOp, store: WeightStore) -> None:
    """Write what the rules find on the types and `onnx.dim_params` of a function's ops."""
    largest = {name: bound[1] for name, bound in bounds(function).items()}
    _Refiner(store, largest).block(function.body.block)


@dataclass
class _Refiner:
    store: WeightStore
    largest: Mapping[str, int]
    """The largest value of every extent."""

    def __post_init__(self) -> None:
        self.changed: set[SSAValue] = set()

    def block(self, block: Block) -> None:
        for op in block.ops:
            if isinstance(op, OnnxOp) and not op.regions and op.schema_name != "Constant":
                self.op(op)

    def op(self, op: OnnxOp) -> None:
        open_results = [
            index
            for index, result in enumerate(op.results)
            if isinstance(result.type, UnrankedTensorType)
            or (isinstance(result.type, TensorType) and None in (symbolic_dims(result) or ()))
        ]
        if not open_results:
            return
        found: dict[int, Sequence[Dim]] = {}
        if any(operand in self.changed for operand in op.operands):
            found.update(self.onnx_rule(op))
        own = self.rule(op)
        if own is not None:
            found[0] = _merge(found.get(0), own)
        for index in open_results:
            if index in found:
                self.write(op, index, found[index])

    def write(self, op: OnnxOp, index: int, found: Sequence[Dim]) -> None:
        result = op.results[index]
        old = symbolic_dims(result)
        dims = _merge(old, found)
        if dims == old:
            return
        names = [f"{axis}:{dim}" for axis, dim in enumerate(dims) if isinstance(dim, str)]
        entries = _params(op) or [StringAttr("")] * len(op.results)
        entries[index] = StringAttr(",".join(names))
        if any(entry != StringAttr("") for entry in entries):
            op.attributes["onnx.dim_params"] = ArrayAttr(entries)
        shape = [dim if isinstance(dim, int) else DYNAMIC for dim in dims]
        kind = TensorType(element_of(result), shape)
        if kind != result.type:
            result = Rewriter.replace_value_with_new_type(result, kind)
        self.changed.add(result)

    def onnx_rule(self, op: OnnxOp) -> dict[int, Sequence[Dim]]:
        """What ONNX infers for this node alone, now that more is known of its operands."""
        writer = ProtoWriter(self.store)
        types: dict[str, TypeProto] = {}
        data: dict[str, TensorProto] = {}
        for value in op.operands:
            if isinstance(value.type, NoneType):
                continue
            name = writer.name(value)
            dims = symbolic_dims(value) or ()
            params = ",".join(f"{a}:{d}" for a, d in enumerate(dims) if isinstance(d, str))
            types[name] = type_proto(value.type, params)
            owner = value.owner
            if isinstance(owner, OnnxOp) and is_constant(value) and (size_of(value) or 0) <= 64:
                data[name] = writer.tensor(owner.attributes["value"], name)
        node = writer.node(op)
        try:
            inferred = infer_node_outputs(
                op.schema,
                node,
                types,
                data,
                opset_imports=[helper.make_opsetid("", op.since_version)],
            )
        except InferenceError:
            return {}
        result: dict[int, Sequence[Dim]] = {}
        for index, name in enumerate(node.output):
            proto = inferred.get(name)
            if proto is not None and proto.tensor_type.HasField("shape"):
                result[index] = [self.dim(dim) for dim in proto.tensor_type.shape.dim]
        return result

    def dim(self, proto: object) -> Dim:
        value = getattr(proto, "dim_value", 0)
        name = getattr(proto, "dim_param", "")
        return value if value > 0 else name if name in self.largest else None

    def rule(self, op: OnnxOp) -> Sequence[Dim] | None:
        """The dims of an operator that ONNX's inference gives up on."""
        match op.schema_name:
            case "Slice":
                return self.slice(op)
            case "Expand":
                dims, shape = symbolic_dims(op.operands[0]), self.sizes(op.operands[1])
                return None if dims is None or shape is None else _broadcast(dims, shape)
            case "ConstantOfShape":
                return self.sizes(op.operands[0])
            case "Range":
                zero, one = scalar(op.operands[0], self.store), scalar(op.operands[2], self.store)
                return self.sizes(op.operands[1]) if zero == 0 and one == 1 else None
            case "Reshape":
                dims, shape = symbolic_dims(op.operands[0]), self.sizes(op.operands[1])
                zero_is_size = bool(op.int_value("allowzero"))
                if dims is not None and shape is not None:
                    told = reshaped(dims, shape, zero_is_size)
                    if None not in told:
                        return told
                return self.followed(op)
            case _:
                return None

    def followed(self, op: OnnxOp) -> Sequence[Dim] | None:
        """The dims of a movement whose extents are followed from further back."""
        from .axis_atoms import followed_dims  # which is about symbolic dims itself

        return followed_dims(op.results[0])

    def sizes(self, value: SSAValue) -> list[Dim] | None:
        return symbolic_ints(value, self.store)

    def slice(self, op: OnnxOp) -> list[Dim] | None:
        dims = symbolic_dims(op.operands[0])
        starts, ends = ints(op.operands[1], self.store), self.sizes(op.operands[2])
        if dims is None or starts is None or ends is None:
            return None
        axes = ints(op.input(3), self.store) if op.input(3) is not None else range(len(starts))
        steps = ints(op.input(4), self.store) if op.input(4) is not None else [1] * len(starts)
        if axes is None or steps is None:
            return None
        result = list(dims)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            old = dims[axis]
            new: Dim = None
            if start == 0 and step == 1:
                if isinstance(end, int) and end >= END:
                    new = old
                elif isinstance(end, str) and (
                    end == old or (isinstance(old, int) and self.largest[end] <= old)
                ):
                    new = end
            result[axis] = new
        return result


def _merge(old: Sequence[Dim] | None, new: Sequence[Dim]) -> tuple[Dim, ...]:
    """Dim by dim the more precise one: a number, then a name."""
    if old is None or len(old) != len(new):
        return tuple(new)
    return tuple(
        a if isinstance(a, int) else b if isinstance(b, int) else a if a is not None else b
        for a, b in zip(old, new, strict=True)
    )


def _broadcast(a: Sequence[Dim], b: Sequence[Dim]) -> list[Dim]:
    rank = max(len(a), len(b))
    wide_a = [1] * (rank - len(a)) + list(a)
    wide_b = [1] * (rank - len(b)) + list(b)
    return [_broadcast_dim(x, y) for x, y in zip(wide_a, wide_b, strict=True)]


def _broadcast_dim(a: Dim, b: Dim) -> Dim:
    if a == 1:
        return b
    if b == 1 or a == b:
        return a
    # A number above 1 wins over whatever may stand against it.
    return a if isinstance(a, int) else b if isinstance(b, int) else None


def reshaped(dims: Sequence[Dim], shape: Sequence[Dim], zero_is_size: bool) -> list[Dim]:
    """The dims after a reshape to `shape`, whose 0 copies a dim and whose -1 is what remains."""
    result: list[Dim] = [
        (dims[axis] if axis < len(dims) else None) if dim == 0 and not zero_is_size else dim
        for axis, dim in enumerate(shape)
    ]
    if -1 not in result:
        return result
    rest = [dim for dim in result if dim != -1]
    open_axis = result.index(-1)
    result[open_axis] = None
    if None in rest or None in dims:
        return result
    size, names = _factors(dims)
    rest_size, rest_names = _factors(rest)
    left, missing = names - rest_names, rest_names - names
    if missing or rest_size == 0 or size % rest_size:
        return result
    size //= rest_size
    if not left:
        result[open_axis] = size
    elif size == 1 and left.total() == 1:
        result[open_axis] = next(iter(left))
    return result


def _factors(dims: Sequence[Dim]) -> tuple[int, Counter[str]]:
    size = 1
    names: Counter[str] = Counter()
    for dim in dims:
        if isinstance(dim, int):
            size *= dim
        elif dim is not None:
            names[dim] += 1
    return size, names
