"""INT8 attention from the tensor level to C: one answer at every stage and level, near FP32's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from xdsl.parser import Parser

from spu_ir import SpuError, api
from spu_ir.interpreters import interpret
from spu_ir.runtime.build import build
from spu_ir.runtime.cpu import host_levels
from spu_ir.runtime.model import CompiledModel

Array = NDArray[Any]

HEADS, KV_HEADS, DEPTH, CHANNELS = 4, 2, 12, 20
SHAPES = {"batch": (1, 3), "queries": (1, 80), "keys": (1, 140)}
MASKS: dict[str, list[str | int] | None] = {
    "none": None,
    "keys": ["batch", 1, 1, "keys"],
    "full": ["batch", HEADS, "queries", "keys"],
    "shared": [1, 1, "queries", "keys"],
}


def model(mask: str, *, causal: bool) -> ModelProto:
    """One `Attention` of grouped queries, its values of another size than its keys."""
    shapes: dict[str, list[str | int]] = {
        "q": ["batch", "queries", HEADS * DEPTH],
        "k": ["batch", "keys", KV_HEADS * DEPTH],
        "v": ["batch", "keys", KV_HEADS * CHANNELS],
    }
    by = MASKS[mask]
    if by is not None:
        shapes["mask"] = by
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    node = helper.make_node(
        "Attention",
        list(shapes),
        ["y"],
        q_num_heads=HEADS,
        kv_num_heads=KV_HEADS,
        is_causal=int(causal),
    )
    out = ["batch", "queries", HEADS * CHANNELS]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, out)
    graph = helper.make_graph([node], "attention", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)])


def feeds(mask: str, batch: int, queries: int, keys: int) -> dict[str, Array]:
    sizes = {"batch": batch, "queries": queries, "keys": keys}
    random = np.random.default_rng(queries)
    found = {
        "q": random.standard_normal((batch, queries, HEADS * DEPTH), np.float32),
        "k": random.standard_normal((batch, keys, KV_HEADS * DEPTH), np.float32),
        "v": random.standard_normal((batch, keys, KV_HEADS * CHANNELS), np.float32),
    }
    shape = MASKS[mask]
    if shape is not None:
        extents = [sizes[e] if isinstance(e, str) else e for e in shape]
        hidden = random.random(extents) < 0.3
        found["mask"] = np.where(hidden, np.float32(-np.inf), random.random(extents, np.float32))
    return found


@pytest.mark.parametrize(
    ("mask", "causal"), [("none", False), ("keys", True), ("full", False), ("shared", True)]
)
def test_one_answer_at_every_stage_and_level(
    mask: str, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every level with one mask: `test_attention_int8.py` has the kernel's every case."""
    network = model(mask, causal=causal)
    program, job = api.lower(network, shapes=SHAPES)
    assert "spu.packed_attention" in job.stages["quantised"]
    assert {row["precision"] for row in program.report if "pack" in str(row["op"])} == {"int8"}
    exact, exact_job = api.lower(network, precision="fp32", shapes=SHAPES)
    assert exact.source != program.source
    monkeypatch.setenv("SPU_IR_POISON", "1")
    models: dict[str, CompiledModel] = {}
    for level in host_levels() if mask == "full" else host_levels()[-1:]:
        monkeypatch.setenv("SPU_IR_ISA", level)
        models[level] = CompiledModel.from_program(program, build(program.source, [level]))
    for batch, queries, keys in ((1, 1, 1), (3, 9, 140), (2, 80, 64), (1, 70, 130)):
        given = feeds(mask, batch, queries, keys)
        expected = interpret(
            Parser(job.ctx, job.stages["quantised"]).parse_module(), job.ctx, given
        )["y"]
        tiled = interpret(Parser(job.ctx, job.stages["tiled"]).parse_module(), job.ctx, given)
        assert np.array_equal(tiled["y"].view(np.uint32), expected.view(np.uint32))
        for level, compiled in models.items():
            got = compiled.run(given)["y"]
            assert np.array_equal(got.view(np.uint32), expected.view(np.uint32)), level
        plain = Parser(exact_job.ctx, exact_job.stages["quantised"]).parse_module()
        real = interpret(plain, exact_job.ctx, given)["y"]
        assert np.linalg.norm(expected - real) <= 0.02 * np.linalg.norm(real) + 1e-6


def test_attention_can_stay_in_f32() -> None:
    _, job = api.lower(
        model("keys", causal=False),
        quantisation=api.Quantisation("int8", attention="fp32"),
        shapes=SHAPES,
    )
    assert "spu.attention" in job.stages["quantised"]
    with pytest.raises(SpuError, match="attention 'int4' is not known"):
        api.lower(
            model("keys", causal=False),
            quantisation=api.Quantisation("int8", attention="int4"),  # pyright: ignore[reportArgumentType]
            shapes=SHAPES,
        )
