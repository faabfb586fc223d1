"""Applying onnx-level passes to models, and comparing with what ONNX Runtime computes before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, helper, parser
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from spu_ir.dialects.types import Array
from spu_ir.frontend import export_model, import_model
from spu_ir.transforms.fold_constants import FoldConstantsPass
from spu_ir.transforms.infer_shapes import InferShapesPass
from spu_ir.transforms.upgrade_opset import UpgradeOpsetPass

CLEAN = (UpgradeOpsetPass(), InferShapesPass(), FoldConstantsPass())


def text(body: str, opset: int = 20) -> ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {body}')


def run(model: ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, dict(feeds))


def draw(model: ModelProto, sizes: Mapping[str, int], seed: int = 0) -> dict[str, Array]:
    """Inputs of a model, its extents at the given sizes."""
    random = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    initializers = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name in initializers:
            continue
        tensor = value.type.tensor_type
        shape = [sizes.get(dim.dim_param, dim.dim_value) for dim in tensor.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if dtype.kind in "ib":
            feeds[value.name] = random.integers(0, 2, shape).astype(dtype)
        else:
            feeds[value.name] = random.standard_normal(shape).astype(dtype)
    return feeds


def apply(
    model: ModelProto, passes: Sequence[Any], shapes: Mapping[str, Any] | None = None
) -> tuple[Context, ModuleOp]:
    ctx = Context()
    module = import_model(model, ctx, shapes=shapes)
    for one in passes:
        one.apply(ctx, module)
        module.verify()
    return ctx, module


def kinds(module: ModuleOp) -> list[str]:
    """Names of the module's ops, without constants and what is not ONNX."""
    return [
        op.name.removeprefix("onnx.")
        for op in module.walk()
        if op.name.startswith("onnx.") and op.name not in ("onnx.Constant", "onnx.NoValue")
    ]


def keeps(
    model: ModelProto,
    passes: Sequence[Any],
    sizes: Mapping[str, int] | None = None,
    tolerance: float = 0.0,
) -> list[str]:
    """Hold the passes to the model's results, and return the ops that they leave."""
    shapes = dict.fromkeys(sizes or {}, (1, 64))
    ctx, module = apply(model, passes, shapes)
    feeds = draw(model, sizes or {})
    exported = export_model(module, ctx)
    for expected, got in zip(run(model, feeds), run(exported, feeds), strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)
    return kinds(module)
