"""Infer the shapes of all values with ONNX's own shape inference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

from xdsl.context import Context
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    ArrayAttr,
    DictionaryAttr,
    ModuleOp,
    NoneType,
    StringAttr,
    TensorType,
    UnrankedTensorType,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from spu_ir.dialects.functions import bounds
from spu_ir.dialects.onnx import OnnxOp, graph_attributes
from spu_ir.dialects.weights import store_of
from spu_ir.frontend.exporter import export_light, main_function
from spu_ir.frontend.inference import Inferred, run_inference, value_type

from .symbolic_shapes import refine, symbolic_dims

DIM_PARAMS = "onnx.dim_params"


@dataclass(frozen=True)
class InferShapesPass(ModulePass):
    """
    Give every value of `@main` the type that `onnx.shape_inference` finds, in strict mode.

    Sizes that depend on run-time extents stay `?`; an extent that can be followed is named in the
    op's `onnx.dim_params`, one string per result ("0:batch,1:seq"), and in those of the
    function's results. Rules of our own follow extents through the slices, expansions and
    reshapes that ONNX gives up on. What an earlier run found is kept where this one knows less.
    Shapes that do not fit are an error that names the node.
    """

    name = "infer-shapes"
    preserves: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        function = main_function(op)
        exported = export_light(op, ctx)
        inferred = run_inference(exported.model, strict=True)
        extents = set(bounds(function))
        names = exported.names
        _Writer(names, extents).block(function.body.block, inferred)
        refine(function, store_of(ctx))
        function.update_function_type()
        _name_results(function)


def _name_results(function: FuncOp) -> None:
    """Put the names of the results' dims on the function."""
    return_op = function.get_return_op()
    if return_op is None or function.res_attrs is None:
        return
    entries: list[DictionaryAttr] = []
    for value, entry in zip(return_op.operands, function.res_attrs, strict=True):
        dims = symbolic_dims(value) or ()
        names = ",".join(f"{axis}:{dim}" for axis, dim in enumerate(dims) if isinstance(dim, str))
        data = {name: a for name, a in entry.data.items() if name != DIM_PARAMS}
        entries.append(DictionaryAttr(data | ({DIM_PARAMS: StringAttr(names)} if names else {})))
    function.res_attrs = ArrayAttr(entries)


@dataclass(frozen=True)
class _Writer:
    names: dict[SSAValue, str]
    extents: set[str]

    def block(self, block: Block, inferred: Inferred) -> None:
        for op in block.ops:
            if isinstance(op, OnnxOp) and op.schema_name != "Constant":
                self.op(op, inferred)

    def op(self, op: OnnxOp, inferred: Inferred) -> None:
        # Replacing a result's type makes a new value, and `names` knows the old ones.
        results = [self.names.get(result, "") for result in op.results]
        first = next((name for name in results if name), "")
        for attribute, region in zip(graph_attributes(type(op)), op.regions, strict=True):
            inner = inferred.subgraphs.get((first, attribute))
            if inner is not None:
                self.block(region.block, inner)
        params: list[str] = []
        for index, name in enumerate(results):
            proto = inferred.types.get(name)
            old = op.results[index].type
            if proto is None or isinstance(old, NoneType):
                params.append("")
                continue
            kind, param = value_type(
                proto, f"result {index}", self._known, node=op.node_name or name, op=op.schema_name
            )
            params.append(param)
            kind = _merge(old, kind)
            if kind != old:
                new = Rewriter.replace_value_with_new_type(op.results[index], kind)
                self.names[new] = name
        op.attributes.pop(DIM_PARAMS, None)
        if any(params):
            op.attributes[DIM_PARAMS] = ArrayAttr([StringAttr(param) for param in params])

    def _known(self, name: str) -> str:
        return name if name in self.extents else ""


def _merge(old: Attribute, new: Attribute) -> Attribute:
    """The new type, with sizes of the old one where the new one has none."""
    if isinstance(new, UnrankedTensorType) and isinstance(old, TensorType):
        return cast("TensorType[Attribute]", old)
    if not isinstance(new, TensorType) or not isinstance(old, TensorType):
        return cast("Attribute", new)
    before = cast("TensorType[Attribute]", old).get_shape()
    after = cast("TensorType[Attribute]", new)
    if len(before) != len(after.get_shape()):
        return after
    shape = [a if b == DYNAMIC_INDEX else b for a, b in zip(before, after.get_shape(), strict=True)]
    return TensorType(after.get_element_type(), shape)
