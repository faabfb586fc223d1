"""From the `onnx` dialect to `spu` and `vpu` on tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import (
    DictionaryAttr,
    FunctionType,
    ModuleOp,
    NoneType,
    TensorType,
    UnrankedTensorType,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from spu_ir.dialects.onnx import NoValue, OnnxOp
from spu_ir.dialects.weights import store_of
from spu_ir.errors import SpuError
from spu_ir.transforms.lowering import AT_COMPILE_TIME, LOWERINGS, Lowering, positions, shapes
from spu_ir.transforms.lowering.context import ELEMENTS, Quantised, onnx_element, port_name


@dataclass(frozen=True)
class LowerOnnxPass(ModulePass):
    """
    Lower every function from `onnx` to `spu` and `vpu` ops in destination-passing style.

    Run-time dims are index values computed from the dims of the inputs; a dim that depends on
    the values of a tensor has no lowering. Floats of any width are computed in f32. Every op
    keeps its node's name as `layer`. Raises SpuError, naming the node, for what has no lowering.
    """

    name = "lower-onnx"
    preserves: ClassVar[str] = "tolerance(1e-4)"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in op.body.walk():
            if isinstance(function, FuncOp) and not function.is_declaration:
                _lower_function(ctx, function)


def _lower_function(ctx: Context, function: FuncOp) -> None:
    block = function.body.block
    end = block.last_op
    assert isinstance(end, ReturnOp)
    nodes = [op for op in block.ops if isinstance(op, OnnxOp | NoValue)]
    if not nodes:
        return
    lowering = Lowering(store_of(ctx), function, InsertPoint.before(end))
    for index, node in enumerate(nodes):
        if isinstance(node, OnnxOp):
            _lower_node(lowering, node, index)
    end.operands = _outputs(lowering, function, end.operands)
    for node in reversed(nodes):
        node.detach()
        node.erase()
    function.function_type = FunctionType.from_lists(list(block.arg_types), list(end.operand_types))


def _lower_node(lowering: Lowering, op: OnnxOp, index: int) -> None:
    name = op.schema_name
    lowering.layer = op.node_name or f"{name}_{index}"
    lowering.operator = name
    if name == "Constant":
        lowering.bind_constant(op.results[0], lowering.attribute_array(op.attributes["value"]))
        return
    for result in op.results:
        if not isinstance(result.type, TensorType | UnrankedTensorType | NoneType):
            raise lowering.error(f"a result is no tensor but {result.type}")
    symbols = shapes.evaluate(lowering, op)
    if symbols is not None:
        for result, known in zip(op.results, symbols, strict=True):
            lowering.bind_symbols(result, known)
        return
    grid = positions.evaluate(lowering, op)
    if grid is not None:
        lowering.bind_grid(op.results[0], grid)
        return
    if not op.is_newest:
        raise lowering.error(
            f"version {op.since_version} of the operator has no lowering",
            "run upgrade-opset before lower-onnx",
        )
    if name not in LOWERINGS:
        known = name in AT_COMPILE_TIME
        raise lowering.error(
            "its result depends on data, which has no lowering" if known else "no lowering",
            "docs/onnx-support.md lists the operators that have one",
        )
    lowered = LOWERINGS[name](lowering, op)
    if isinstance(lowered, np.ndarray | Quantised):
        lowering.bind_constant(op.results[0], lowered)
        return
    values = [lowered] if isinstance(lowered, SSAValue) else lowered
    # Results that a node leaves out, or that a lowering knows to be unused, come last.
    for result, value in zip(op.results, values, strict=False):
        if not isinstance(result.type, NoneType):
            lowering.bind(result, value)


def _outputs(lowering: Lowering, function: FuncOp, operands: Sequence[SSAValue]) -> list[SSAValue]:
    known = [] if function.res_attrs is None else list(function.res_attrs)
    attributes = known or [DictionaryAttr({}) for _ in operands]
    names = [port_name(each.data, index) for index, each in enumerate(attributes)]
    lowering.operator = "return"
    outputs: list[SSAValue] = []
    for name, operand in zip(names, operands, strict=True):
        element = onnx_element(operand)
        if element not in ELEMENTS:
            raise SpuError(
                f"output {name!r} has the element type {element}, which has no lowering",
                remedy="convert the model to f32",
            )
        lowering.layer = name
        outputs.append(lowering.tensor(operand))
    return outputs
