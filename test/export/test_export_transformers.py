"""BERT, ALBERT and RoBERTa as PyTorch exports them reach the program of the hand-built ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto
from support.exports import SHAPES, Export
from support.published import small
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue

import spu_ir
from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.onnx import OnnxOp
from spu_ir.dialects.spu import AttentionOp, MatmulOp
from spu_ir.dialects.types import DYNAMIC, shape_of
from spu_ir.dialects.vpu import CumsumOp, GatherOp, LayerNormOp
from spu_ir.frontend import import_model
from spu_ir.frontend.extents import Shapes
from spu_ir.transforms.pipelines import GRAPH, LOWER

pytestmark = pytest.mark.export

MODELS = ("Bert", "Albert", "Roberta")
ACTIVATION = {"Bert": "gelu", "Albert": "gelu_tanh", "Roberta": "gelu"}

CURRENT = [
    Export(model, dynamo, attention)
    for model in MODELS
    for dynamo in (False, True)
    for attention in ("sdpa", "eager")
]
# Before opset 20 there is no Gelu, before 17 no LayerNormalization, before 13 another Softmax.
OLD = [
    Export(model, dynamo, attention, opset)
    for model in MODELS
    for dynamo, attention, opset in ((True, "sdpa", 18), (False, "sdpa", 14), (False, "eager", 12))
]
UNMASKED = [Export(way.model, way.dynamo, way.attention, masked=False) for way in CURRENT]

Write = Callable[[Export], Path]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """The file of an export, made at its first use."""
    from export.transformers_torch import write as export

    folder = tmp_path_factory.mktemp("exports")

    @cache
    def path(way: Export) -> Path:
        export(way, folder / f"{way}.onnx")
        return folder / f"{way}.onnx"

    return path


def lowered(model: Path | ModelProto, shapes: Shapes) -> ModuleOp:
    """The program in f32, before quantisation."""
    ctx = Context()
    module = import_model(model, ctx, shapes=shapes)
    for each in (*GRAPH, *LOWER):
        each.apply(ctx, module)
    module.verify()
    return module


def of_kind(ops: Iterable[Operation], kind: type[Operation]) -> list[Any]:
    return [op for op in ops if isinstance(op, kind)]


def reached(start: SSAValue) -> set[Operation]:
    """The ops that depend on a value."""
    found: set[Operation] = set()
    waiting = [start]
    while waiting:
        for use in waiting.pop().uses:
            if use.operation not in found:
                found.add(use.operation)
                waiting.extend(use.operation.results)
    return found


def behind(end: SSAValue) -> set[Operation]:
    """The ops that a value depends on."""
    found: set[Operation] = set()
    waiting = [end]
    while waiting:
        owner = waiting.pop().owner
        if isinstance(owner, Operation) and owner not in found:
            found.add(owner)
            waiting.extend(owner.operands)
    return found


def encoder(module: ModuleOp) -> list[Operation]:
    """What computes or moves data from the embedding's normalisation to the last layer's."""
    norms = of_kind(module.walk(), LayerNormOp)
    between = reached(norms[0].results[0]) & behind(norms[-1].results[0])
    assert all(isinstance(op, DestinationOp) for op in between)
    return [op for op in module.walk() if op in between]


def check_program(way: Export, module: ModuleOp, layers: int) -> None:
    """One attention a layer, everything else in the epilogues of products, one mask."""
    assert not of_kind(module.walk(), OnnxOp)
    ops = encoder(module)
    first = 1 if way.model == "Albert" else 0  # from the embedding's width to the layers'
    assert Counter(op.name for op in ops) == {
        "spu.attention": layers,
        "spu.matmul": 6 * layers + first,
        "vpu.layer_norm": 2 * layers,
    }
    products = of_kind(ops, MatmulOp)
    activations = Counter(op.activation.data.value for op in products if op.activation)
    del activations["none"]
    assert activations == {ACTIVATION[way.model]: layers}
    assert all(op.bias is not None for op in products)
    assert sum(op.residual is not None for op in products) == 2 * layers
    masks = {op.mask for op in of_kind(ops, AttentionOp)}
    if way.masked:
        (mask,) = masks
        assert mask is not None
        assert shape_of(mask) == (DYNAMIC, 1, 1, DYNAMIC)
    else:
        assert masks == {None}


def check_embedding(way: Export, module: ModuleOp) -> None:
    """Tables are indexed by the model's inputs only; positions are a slice, or RoBERTa's sums."""
    function = next(op for op in module.walk() if isinstance(op, FuncOp))
    ids = function.body.block.args[0]
    gathers = of_kind(module.walk(), GatherOp)
    counted = of_kind(module.walk(), CumsumOp)
    assert len(counted) == (way.model == "Roberta")
    # Words, types where they are an input, and RoBERTa's positions.
    assert len(gathers) == 1 + way.masked + len(counted)
    assert sum(op.indices is ids for op in gathers) == 1


@pytest.mark.parametrize("way", [*CURRENT, *OLD, *UNMASKED], ids=str)
def test_program(way: Export, write: Write) -> None:
    module = lowered(write(way), SHAPES)
    check_program(way, module, layers=2)
    check_embedding(way, module)


@pytest.mark.parametrize("model", MODELS)
def test_the_hand_built_program_is_the_same(model: str) -> None:
    built = small(model.lower())
    module = lowered(built.build(), built.bounds)
    check_program(Export(model, False, "eager"), module, layers=2)


def relative(got: Any, expected: Any) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


TOLERANCE = {"fp32": 1e-4, "bf16": 1e-2, "int8": 5e-2}
"""Largest relative L2 error against ONNX Runtime; of the last two with random weights."""


@pytest.mark.parametrize("way", [*CURRENT, *OLD, *UNMASKED], ids=str)
def test_numbers(way: Export, write: Write) -> None:
    """Many sizes and lengths from one compilation are what ONNX Runtime makes of the file."""
    precisions = ("fp32",) if way in OLD or way in UNMASKED else ("fp32", "bf16", "int8")
    path = write(way)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options)
    for precision in precisions:
        model = spu_ir.compile(path, precision=precision, shapes=SHAPES, threads=1)
        for seed, (batch, seq) in enumerate([(1, 2), (2, 7), (3, 64), (8, 128)]):
            feeds = way.feeds(batch, seq, seed)
            got = model.run(feeds)
            for name, expected in zip(got, session.run(list(got), feeds), strict=True):
                assert got[name].shape == (batch, seq)
                assert relative(got[name], expected) <= TOLERANCE[precision], (precision, seq)


@pytest.mark.parametrize("model", MODELS)
def test_padding_is_found_in_the_mask(model: str, write: Write) -> None:
    """The exporters' masks tell which rows `padding="skip"` may leave out."""
    way = Export(model, True, "sdpa")
    feeds = way.feeds(3, 60, seed=1)
    every, real = (
        spu_ir.compile(write(way), shapes=SHAPES, padding=padding, threads=1).run(feeds)
        for padding in ("compute", "skip")
    )
    kept = feeds["attention_mask.1"] != 0
    for name, got in real.items():
        np.testing.assert_array_equal(got[kept], every[name][kept])
        assert not np.array_equal(got[~kept], every[name][~kept])


def test_bert_base(tmp_path: Path) -> None:
    """All twelve layers of the published size, in INT8."""
    from export.transformers_torch import write

    way = Export("Bert", False, "sdpa")
    write(way, tmp_path / "base.onnx", {})
    check_program(way, lowered(tmp_path / "base.onnx", SHAPES), layers=12)
    model = spu_ir.compile(tmp_path / "base.onnx", shapes=SHAPES, threads=1)
    feeds = way.feeds(2, 30)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(tmp_path / "base.onnx"), options)
    got = model.run(feeds)
    for name, expected in zip(got, session.run(list(got), feeds), strict=True):
        assert relative(got[name], expected) <= TOLERANCE["int8"]
