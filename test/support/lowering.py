"""Models through the lowering from ONNX, interpreted and held to ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.parser
import onnxruntime
from onnx import ModelProto, numpy_helper
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.types import Array
from spu_ir.frontend import import_model
from spu_ir.frontend.extents import Shapes
from spu_ir.interpreters import interpret
from spu_ir.transforms.expand_quantised import ExpandQuantisedPass
from spu_ir.transforms.fold_constants import FoldConstantsPass
from spu_ir.transforms.infer_shapes import InferShapesPass
from spu_ir.transforms.lower_onnx import LowerOnnxPass
from spu_ir.transforms.sink_transposes import SinkTransposesPass
from spu_ir.transforms.upgrade_opset import UpgradeOpsetPass

PASSES = (
    UpgradeOpsetPass(),
    InferShapesPass(),
    ExpandQuantisedPass(),
    FoldConstantsPass(),
    LowerOnnxPass(),
    SinkTransposesPass(),
)


def lowered(model: ModelProto, shapes: Shapes | None = None) -> tuple[Context, ModuleOp]:
    ctx = Context()
    module = import_model(model, ctx, shapes=shapes)
    for each in PASSES:
        each.apply(ctx, module)
        module.verify()
    return ctx, module


def parsed(text: str, opset: int = 21, **constants: Array) -> ModelProto:
    """A model in ONNX's text form, with further initializers."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
    return model


def reference(model: ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Its optimiser would quantise more than the model does.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    results = [np.asarray(result) for result in session.run(names, dict(feeds))]
    return dict(zip(names, results, strict=True))


def check(
    model: ModelProto,
    feeds: Mapping[str, Array],
    shapes: Shapes | None = None,
    *,
    rtol: float = 1e-5,
) -> ModuleOp:
    """Lower, run, and compare with ONNX Runtime; returns the lowered module."""
    ctx, module = lowered(model, shapes)
    got = interpret(module, ctx, feeds)
    for name, expected in reference(model, feeds).items():
        assert got[name].dtype == expected.dtype
        np.testing.assert_allclose(got[name], expected, rtol=rtol, atol=rtol)
    return module


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def named(module: ModuleOp, kind: type) -> list[DestinationOp]:
    return [op for op in module.walk() if isinstance(op, kind)]
