"""The published models compiled: every precision and extent, against ONNX Runtime."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from support.published import CONFIGS, SEQ, run_onnx, small

import spu_ir
from spu_ir import api, zoo
from spu_ir.api import Precision

Array = NDArray[Any]
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2, "int8": 6e-2}
"""Largest relative L2 error against ONNX Runtime's FP32."""

EXTENTS = [(1, SEQ), (8, 1), (3, 11), (2, 33)]


@cache
def built(name: str) -> onnx.ModelProto:
    return small(name).build()


def relative(got: Array, want: Array) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.mark.parametrize(
    "precision", [*(pytest.param(p, marks=pytest.mark.slow) for p in ("fp32", "bf16")), "int8"]
)
@pytest.mark.parametrize("name", CONFIGS)
def test_one_compilation_serves_every_extent(name: str, precision: Precision) -> None:
    model = small(name)
    calibration = [model.feeds(4, seed=100 + i) for i in range(3)]
    compiled = spu_ir.compile(
        built(name),
        precision=precision,
        shapes=model.bounds,
        calibration=calibration if precision == "int8" else None,
    )
    for seed, (batch, seq) in enumerate(EXTENTS):
        feeds = model.feeds(batch, seq, seed=seed)
        got, want = compiled.run(feeds), run_onnx(built(name), feeds)
        assert set(got) == set(model.outputs)
        for output in model.outputs:
            assert got[output].shape == want[output].shape
            assert relative(got[output], want[output]) <= TOLERANCE[precision], (batch, seq)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_operator_is_lowered_and_attention_is_fused(name: str) -> None:
    _, job = api.lower(built(name), precision="fp32", shapes=small(name).bounds)
    tensors = job.stages["tensor"]
    assert not re.findall(r'"?\bonnx\.[A-Z]\w*', tensors)
    layers = 0 if name == "resnet50" else 2
    assert tensors.count("spu.attention ") == layers
    assert "vpu.softmax" not in tensors
    # An image comes channels first, and the Conformer's frames are the columns of one.
    transposes = {"resnet50": 1, "conformer": 2}
    assert tensors.count("vpu.transpose ") == transposes.get(name, 0)
    assert ("vpu.cumsum" in tensors) == (name == "roberta")


def test_albert_is_compiled_with_one_copy_of_its_weights() -> None:
    model = small("albert")
    sizes: list[int] = []
    for layers in (1, 3):
        config = zoo.AlbertConfig(**{**vars(model.config), "num_hidden_layers": layers})
        program, _ = api.lower(zoo.albert(config), precision="int8", shapes=model.bounds)
        sizes.append(sum(array.nbytes for array in program.weights.values()))
    assert sizes[0] == sizes[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.MODELS)
def test_published_sizes(name: str) -> None:
    model = zoo.published(name)
    proto = model.build()
    compiled = spu_ir.compile(proto, precision="fp32", shapes={**model.bounds, "batch": (1, 2)})
    for batch, seq in ((1, 384), (2, 77)):
        feeds = model.feeds(batch, seq if model.seq else None, seed=batch)
        got, want = compiled.run(feeds), run_onnx(proto, feeds)
        for output in model.outputs:
            assert relative(got[output], want[output]) <= 1e-4
