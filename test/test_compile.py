"""Whole compilations: every stage and every ISA level give one answer, and it is ONNX's."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from support.models import MODELS, SHAPES, feeds
from xdsl.dialects import arith
from xdsl.dialects.builtin import IndexType
from xdsl.ir import Block, SSAValue
from xdsl.parser import Parser

import spu_ir
from spu_ir import api
from spu_ir.api import Precision
from spu_ir.codegen.index import print_slice
from spu_ir.codegen.scope import Scope
from spu_ir.interpreters import interpret
from spu_ir.runtime.build import build
from spu_ir.runtime.cpu import host_levels
from spu_ir.runtime.model import CompiledModel
from spu_ir.runtime.program import Program

Array = NDArray[Any]
TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2, "int8": 4e-2, "mixed": 4e-2}
"""Largest relative L2 error against ONNX Runtime's FP32, by precision; INT8 of nets this small."""


@cache
def lowered(name: str, precision: Precision, sparsity: int | None) -> tuple[Program, Any]:
    calibration = [feeds(name, seed, 2, 9) for seed in range(3)]
    return api.lower(
        MODELS[name](),
        precision=precision,
        sparsity=sparsity,
        calibration=calibration,
        shapes=SHAPES[name],
    )


@cache
def reference(name: str) -> onnxruntime.InferenceSession:
    model = MODELS[name]().SerializeToString()
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def at_level(program: Program, level: str, monkeypatch: pytest.MonkeyPatch) -> CompiledModel:
    monkeypatch.setenv("SPU_IR_ISA", level)
    monkeypatch.setenv("SPU_IR_POISON", "1")
    return CompiledModel.from_program(program, build(program.source, [level]), threads=2)


@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.parametrize("name", MODELS)
def test_agrees_with_onnx_runtime(
    name: str, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, _ = lowered(name, precision, None)
    model = at_level(program, host_levels()[-1], monkeypatch)
    for seed, (batch, seq) in enumerate([(1, 1), (2, 7), (3, 33)]):
        inputs = feeds(name, seed, batch, seq)
        expected = np.asarray(reference(name).run(["y"], inputs)[0])
        got = model.run(inputs)["y"]
        assert got.shape == expected.shape
        error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
        assert error <= TOLERANCE[precision]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("precision", "sparsity"),
    [
        ("bf16", None),
        ("int8", 16),
        pytest.param("int8", None, marks=SLOW),
        *(pytest.param("bf16", ratio, marks=SLOW) for ratio in (4, 16, 32)),
        *(pytest.param("int8", ratio, marks=SLOW) for ratio in (4, 32)),
    ],
)
@pytest.mark.parametrize("name", MODELS)
def test_one_answer_at_every_stage_and_level(
    name: str, precision: Precision, sparsity: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, job = lowered(name, precision, sparsity)
    inputs = feeds(name, 7, 2, 5)
    answers = {
        stage: interpret(
            Parser(job.ctx, job.stages[stage]).parse_module(), job.ctx, inputs, exact_f32=True
        )["y"]
        for stage in ("quantised", "tiled")
    }
    for level in host_levels():
        answers[level] = at_level(program, level, monkeypatch).run(inputs)["y"]
    expected = answers["quantised"]
    for who, got in answers.items():
        assert np.array_equal(got.view(np.uint32), expected.view(np.uint32)), who


def test_fp32_answers_alike_at_every_level(monkeypatch: pytest.MonkeyPatch) -> None:
    program, _ = lowered("block", "fp32", None)
    inputs = feeds("block", 3, 2, 11)
    answers = [at_level(program, level, monkeypatch).run(inputs)["y"] for level in host_levels()]
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], rtol=1e-5, atol=1e-6)


def test_compiles_to_the_same_bytes_twice() -> None:
    first, second = (
        api.lower(MODELS["block"](), precision="int8", shapes=SHAPES["block"])[0] for _ in range(2)
    )
    assert first.source == second.source
    assert list(first.weights) == list(second.weights)
    assert all(np.array_equal(first.weights[n], second.weights[n]) for n in first.weights)


def test_names_from_the_model_never_reach_c() -> None:
    model = MODELS["perceptron"]()
    evil = 'x */ int evil; /* "\n#include "y'
    for node in model.graph.node:
        node.name = evil + node.name
        node.input[:] = [evil if name == "x" else name for name in node.input]
    model.graph.input[0].name = evil
    program, _ = api.lower(model, precision="fp32", shapes=SHAPES["perceptron"])
    assert "evil" not in program.source
    compiled = CompiledModel.from_program(program)
    inputs = feeds("perceptron", 0, 1, 3)
    expected = reference("perceptron").run(["y"], inputs)[0]
    got = compiled.run({evil: inputs["x"]})["y"]
    np.testing.assert_allclose(got, np.asarray(expected), rtol=1e-4, atol=1e-5)


def test_a_convolution_needs_calibration_for_int8() -> None:
    with pytest.raises(spu_ir.SpuError, match="calibration"):
        spu_ir.compile(MODELS["convolutions"](), precision="int8", shapes={"batch": 1})


def test_an_index_outside_the_table_fails_the_run() -> None:
    model = spu_ir.compile(MODELS["mixture"](), precision="fp32", shapes=SHAPES["mixture"])
    inputs = feeds("mixture", 0, 2, 1)
    inputs["ids"][1] = 9
    with pytest.raises(spu_ir.SpuError, match="index"):
        model.run(inputs)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("precision", "int4"), ("target", "s99"), ("sparsity", 3), ("padding", "drop")],
)
def test_unknown_arguments_are_named(argument: str, value: Any) -> None:
    with pytest.raises(spu_ir.SpuError, match=argument):
        spu_ir.compile(MODELS["perceptron"](), shapes=SHAPES["perceptron"], **{argument: value})


def test_progress_and_stages() -> None:
    seen: list[str] = []
    model = spu_ir.compile(
        MODELS["perceptron"](),
        precision="fp32",
        shapes=SHAPES["perceptron"],
        progress=lambda what, _done, _total: seen.append(what),
    )
    assert seen[0] == "upgrade-opset"
    assert seen[-2:] == ["compile C", "done"]
    assert "onnx.MatMul" in model.ir("onnx")
    assert "spu.matmul" in model.ir("tensor")
    assert "scf.parallel" in model.ir("tiled")
    assert "int32_t spu_run" in model.ir("c")
    rows = model.report()
    assert [row["op"] for row in rows if row["op"] == "spu.matmul"] == ["spu.matmul"] * 2
    assert all(row["bytes"] for row in rows if row["op"] == "spu.matmul")


def test_long_chains_of_index_arithmetic_are_printed() -> None:
    """A model of thousands of layers has an arena whose offsets build on one another."""
    block = Block(arg_types=[IndexType()])
    scope = Scope(values={block.args[0]: "x0"})
    value: SSAValue = block.args[0]
    for _ in range(5000):
        op = arith.AddiOp(value, block.args[0])
        block.add_op(op)
        value = op.result
    scope.line(f"return {print_slice(scope, value)};")
    lines = scope.text().lines
    assert len(lines) == 5001
    assert "x0 + x0" in lines[0]
