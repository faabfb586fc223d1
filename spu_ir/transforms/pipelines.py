"""The named pipelines: which passes take a model from one stage to the next."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from xdsl.passes import ModulePass
from xdsl.transforms.canonicalize import CanonicalizePass
from xdsl.transforms.common_subexpression_elimination import CommonSubexpressionElimination
from xdsl.transforms.dead_code_elimination import DeadCodeElimination

from spu_ir.transforms.approximate_activations import ApproximateActivationsPass
from spu_ir.transforms.bufferise import BufferisePass
from spu_ir.transforms.collapse_movement import CollapseMovementPass
from spu_ir.transforms.convert_bf16 import ConvertBf16Pass
from spu_ir.transforms.encode import EncodePass
from spu_ir.transforms.expand_quantised import ExpandQuantisedPass
from spu_ir.transforms.fold_batch_norm import FoldBatchNormPass
from spu_ir.transforms.fold_constants import FoldConstantsPass
from spu_ir.transforms.fold_qdq import FoldQdqPass
from spu_ir.transforms.fuse_attention import FuseAttentionPass
from spu_ir.transforms.fuse_epilogue import FuseEpiloguePass
from spu_ir.transforms.fuse_gelu import FuseGeluPass
from spu_ir.transforms.fuse_layer_norm import FuseLayerNormPass
from spu_ir.transforms.infer_shapes import InferShapesPass
from spu_ir.transforms.lower_onnx import LowerOnnxPass
from spu_ir.transforms.normalise_rows import NormaliseRowsPass
from spu_ir.transforms.plan_memory import PlanMemoryPass
from spu_ir.transforms.prescale_outputs import PrescaleOutputsPass
from spu_ir.transforms.quantise import QuantisePass
from spu_ir.transforms.quantise_attention import QuantiseAttentionPass
from spu_ir.transforms.quantise_products import QuantiseProductsPass
from spu_ir.transforms.run_samples_apart import RunSamplesApartPass
from spu_ir.transforms.sink_transposes import SinkTransposesPass
from spu_ir.transforms.skip_padding import SkipPaddingPass
from spu_ir.transforms.sparsify import SparsifyPass
from spu_ir.transforms.split_products import SplitProductsPass
from spu_ir.transforms.tile import TilePass
from spu_ir.transforms.tile_sizes import Tiling
from spu_ir.transforms.unflatten_products import UnflattenProductsPass
from spu_ir.transforms.upgrade_opset import UpgradeOpsetPass

Precision = Literal["fp32", "bf16", "int8", "mixed"]
Passes = tuple[ModulePass, ...]

CLEAN: Passes = (CanonicalizePass(), CommonSubexpressionElimination(), DeadCodeElimination())

GRAPH: Passes = (
    UpgradeOpsetPass(),
    InferShapesPass(),
    ExpandQuantisedPass(),
    FoldConstantsPass(),
    UnflattenProductsPass(),
    SplitProductsPass(),
    CollapseMovementPass(),
    FuseLayerNormPass(),
    FuseGeluPass(),
    FuseAttentionPass(),
    FoldBatchNormPass(),
    DeadCodeElimination(),
)
"""onnx -> onnx: the newest operators, known shapes, fused."""

LOWER: Passes = (LowerOnnxPass(), SinkTransposesPass(), *CLEAN, FuseEpiloguePass(), *CLEAN)
"""onnx -> spu and vpu on tensors, in f32."""


def lower(preprocess: ModulePass | None = None) -> Passes:
    """`LOWER`, with `preprocess` (`preprocess-images`) as soon as there are ops of the VPU."""
    return LOWER if preprocess is None else (LOWER[0], preprocess, *LOWER[1:])


PLAN: Passes = (
    RunSamplesApartPass(),
    NormaliseRowsPass(),
    QuantiseProductsPass(),
    DeadCodeElimination(),
    BufferisePass(),
    PlanMemoryPass(),
    *CLEAN,
)
"""Tensors -> memrefs in planned arenas."""


def tile(tiling: Tiling) -> Passes:
    """Memrefs in arenas -> tiles of the given sizes."""
    return (TilePass(**asdict(tiling)), *CLEAN)


MEMORY: Passes = (*PLAN, *tile(Tiling()))
"""Tensors -> memrefs in planned arenas -> tiles."""


def padding(mode: str) -> Passes:
    """`skip` leaves out the rows that the model's mask marks as padding."""
    return (SkipPaddingPass(), *CLEAN) if mode == "skip" else ()


def sparsify(ratio: int | None, precision: Precision) -> Passes:
    """Prune to one of `ratio` weights a bank; None leaves the weights alone."""
    if ratio is None or ratio == 1:
        return ()
    return (SparsifyPass(ratio=ratio, precision="bf16" if precision == "bf16" else "int8"),)


def quantise(precision: Precision, activations: str = "auto", attention: str = "auto") -> Passes:
    """f32 -> the arithmetic of `precision`, and the weights' formats."""
    int8: Passes = (QuantisePass(mode=activations), ConvertBf16Pass(marked=True))
    if attention != "fp32":
        int8 = (QuantiseAttentionPass(mode=attention), *int8)
    convert: dict[Precision, Passes] = {
        "fp32": (),
        "bf16": (ConvertBf16Pass(),),
        "int8": int8,
        "mixed": int8,
    }
    tables: Passes = (ApproximateActivationsPass(),) if precision in ("int8", "mixed") else ()
    fold: Passes = (FoldQdqPass(), *CLEAN, PrescaleOutputsPass())
    return (*convert[precision], *CLEAN, *fold, *tables, EncodePass(), *CLEAN)


PIPELINES: dict[str, Passes] = {
    "graph": GRAPH,
    "lower": LOWER,
    "quantise-int8": quantise("int8"),
    "quantise-bf16": quantise("bf16"),
    "quantise-fp32": quantise("fp32"),
    "memory": MEMORY,
}
"""What `spu-opt --pipeline NAME` runs, in the order of a compilation."""
