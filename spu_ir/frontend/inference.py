"""
Types of all values of a graph, from ONNX's own shape inference.

Inference sees a light model: large tensors are declared as inputs, so that nothing is copied and
protobuf's limit of 2 GB does not matter. Small ones keep their values, because shapes, axes and
paddings depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from onnx import GraphProto, ModelProto, TensorProto, TypeProto, ValueInfoProto, shape_inference
from onnx.helper import make_tensor_value_info
from xdsl.dialects.builtin import NoneType, TensorType, UnrankedTensorType
from xdsl.ir import Attribute

from spu_ir.dialects.onnx_proto import LIGHT_ELEMENTS
from spu_ir.dialects.onnx_schema import OptType, SeqType
from spu_ir.dialects.types import DYNAMIC
from spu_ir.errors import SpuError

from .checks import first_line, subgraphs
from .limits import element_of_data_type, tensor_bytes

PROPAGATED_ELEMENTS = 1 << 20
"""Most elements of a vector of integers whose values inference follows."""


@dataclass
class Inferred:
    """Types of the values of one graph by name, and of its subgraphs."""

    types: dict[str, TypeProto] = field(default_factory=dict[str, TypeProto])
    subgraphs: dict[tuple[str, str], Inferred] = field(
        default_factory=dict[tuple[str, str], "Inferred"]
    )
    """By the first output of the node and the name of the attribute."""


def run_inference(model: ModelProto, *, strict: bool) -> Inferred:
    """
    Infer the types of a light model.

    Raises SpuError when ONNX finds shapes that do not fit (all of them only if `strict`).
    """
    # Without values first: ONNX would make a long list of numbers of a Range over 2^33 of them.
    plain = _infer(model, strict=False, values=False)
    if _longest(plain) > PROPAGATED_ELEMENTS:
        return _infer(model, strict=strict, values=False) if strict else plain
    return _infer(model, strict=strict, values=True)


def _infer(model: ModelProto, *, strict: bool, values: bool) -> Inferred:
    """ONNX's inference; with `values`, of shapes that are computed from shapes too."""
    try:
        inferred = shape_inference.infer_shapes(
            model, check_type=True, strict_mode=strict, data_prop=values
        )
    except (shape_inference.InferenceError, ValueError, RuntimeError, MemoryError) as error:
        raise SpuError(
            f"shape inference failed: {first_line(error)}",
            remedy="check the shapes given and the node's inputs",
        ) from None
    return _collect(inferred.graph)


def _longest(inferred: Inferred) -> int:
    """The most elements of a vector of integers, whose values ONNX's inference would follow."""
    sizes = [_longest(inner) for inner in inferred.subgraphs.values()]
    for proto in inferred.types.values():
        tensor = proto.tensor_type
        if (
            tensor.elem_type in (TensorProto.INT32, TensorProto.INT64)
            and len(tensor.shape.dim) == 1
        ):
            sizes.append(tensor.shape.dim[0].dim_value)
    return max(sizes, default=0)


def _collect(graph: GraphProto) -> Inferred:
    result = Inferred()
    for values in (graph.input, graph.value_info, graph.output):
        result.types.update((value.name, value.type) for value in values)
    for node in graph.node:
        for name, inner in subgraphs(node):
            first = next((output for output in node.output if output), "")
            result.subgraphs[first, name] = _collect(inner)
    return result


def light_model(model: ModelProto, inputs: Mapping[str, ValueInfoProto]) -> ModelProto:
    """
    A copy of `model` for inference: `inputs` in place of its own, large initializers as inputs.

    Types that the file states for other values are left out, they may not hold for `inputs`.
    """
    light = ModelProto(ir_version=max(model.ir_version, 4), opset_import=model.opset_import)
    graph = light.graph
    graph.name = model.graph.name or "main"
    graph.node.extend(model.graph.node)
    names = {tensor.name for tensor in model.graph.initializer}
    graph.input.extend(inputs.get(v.name, v) for v in model.graph.input if v.name not in names)
    for value in model.graph.output:
        graph.output.add(name=value.name)
    for tensor in model.graph.initializer:
        if is_light(tensor):
            graph.initializer.append(tensor)
        else:
            info = make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            graph.input.append(info)
    return light


def is_light(tensor: TensorProto) -> bool:
    """Whether a tensor keeps its values in a light model."""
    size = 1
    for dim in tensor.dims:
        size *= dim
    return size <= LIGHT_ELEMENTS and tensor.data_location != TensorProto.EXTERNAL


def value_type(
    proto: TypeProto, what: str, known: Callable[[str], str], **place: str | None
) -> tuple[Attribute, str]:
    """
    A value's type, and its dims that have a name that `known` maps to an extent: `0:batch,1:seq`.

    A tensor of an unknown rank is `tensor<*xf32>`. Raises SpuError at `place` naming `what` for
    an element type that is not supported.
    """
    kind = proto.WhichOneof("value")
    if kind == "sequence_type":
        inner, _ = value_type(proto.sequence_type.elem_type, what, known, **place)
        return SeqType(inner), ""
    if kind == "optional_type":
        inner, _ = value_type(proto.optional_type.elem_type, what, known, **place)
        return OptType(inner), ""
    if kind != "tensor_type":
        raise SpuError(
            f"{what} has no known type",
            remedy="run onnx.shape_inference on the model, or add a value_info for it",
            **place,
        )
    tensor = proto.tensor_type
    element = element_of_data_type(tensor.elem_type, what, **place)
    if not tensor.HasField("shape"):
        return UnrankedTensorType(element), ""
    shape = [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else DYNAMIC
        for dim in tensor.shape.dim
    ]
    if DYNAMIC not in shape:
        tensor_bytes(shape, element, what, **place)
    named = [
        f"{axis}:{known(dim.dim_param)}"
        for axis, dim in enumerate(tensor.shape.dim)
        if dim.dim_param and known(dim.dim_param)
    ]
    return TensorType(element, shape), ",".join(named)


NONE = NoneType()
