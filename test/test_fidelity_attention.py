"""Attention stays within one bound where it is hard: with a sink, and over 2,048 keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

import spu_ir

Array = NDArray[Any]
HEADS, DEPTH = 4, 32
WIDTH = HEADS * DEPTH


@dataclass(frozen=True)
class Kind:
    """One arithmetic of attention, by how a model is compiled to have it, and its bound."""

    precision: Literal["fp32", "bf16", "int8"]
    attention: Literal["fp32", "int8"]
    op: str
    bound: float


KINDS = {
    "f32": Kind("fp32", "fp32", "spu.attention", 1e-5),
    "f32 in a bf16 model": Kind("bf16", "fp32", "spu.attention", 1e-5),
    "f32 in an int8 model": Kind("int8", "fp32", "spu.attention", 1e-5),
    "int8": Kind("int8", "int8", "spu.packed_attention", 0.015),
}
"""Attention of other arithmetic is added here, with the bound that it promises."""


def attention_model() -> ModelProto:
    """softmax(q k^T / sqrt(depth) + mask) v, heads split and joined as exporters write it."""
    nodes: list[Any] = []
    constants: dict[str, Array] = {
        "split": np.array([0, 0, HEADS, DEPTH]),
        "join": np.array([0, 0, WIDTH]),
        "root": np.array(np.sqrt(DEPTH), np.float32),
    }

    def add(op: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [f"n{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    def heads(name: str, perm: list[int]) -> str:
        return add("Transpose", add("Reshape", name, "split"), perm=perm)

    scores = add("MatMul", heads("q", [0, 2, 1, 3]), heads("k", [0, 2, 3, 1]))
    masked = add("Add", add("Div", scores, "root"), "mask")
    mixed = add("MatMul", add("Softmax", masked, axis=-1), heads("v", [0, 2, 1, 3]))
    joined = add("Reshape", add("Transpose", mixed, perm=[0, 2, 1, 3]), "join")
    nodes.append(helper.make_node("Identity", [joined], ["y"]))
    shape = ["batch", "seq", WIDTH]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in "qkv"]
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch", 1, 1, "seq"])
    graph = helper.make_graph(
        nodes,
        "attention",
        [*inputs, mask],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def feeds(keys: int, *, sink: float = 0.0, hidden: int = 0, seed: int = 0) -> dict[str, Array]:
    """q, k, v; with `sink` key 0 scores so much above the others; the last `hidden` are masked."""
    random = np.random.default_rng(seed)
    found: dict[str, Array] = {
        name: random.standard_normal((1, keys, WIDTH), np.float32) for name in "qkv"
    }
    if sink:
        # All queries share a direction, and key 0 points along it.
        direction = np.ones(DEPTH, np.float32) / np.float32(np.sqrt(DEPTH))
        found["q"] += np.tile(direction * np.float32(4), HEADS)
        length = sink * np.sqrt(DEPTH) / 4
        found["k"][:, 0] = np.tile(direction * np.float32(length), HEADS)
        # What the sink says is small, so the rest of the mass still matters.
        found["v"][:, 0] *= np.float32(0.01)
    mask = np.zeros((1, 1, 1, keys), np.float32)
    mask[..., keys - hidden :] = np.finfo(np.float32).min
    found["mask"] = mask
    return found


def exact(arrays: dict[str, Array]) -> Array:
    """The same in double precision."""
    q, k, v = (
        arrays[name].astype(np.float64).reshape(1, -1, HEADS, DEPTH).swapaxes(1, 2)
        for name in "qkv"
    )
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(DEPTH) + arrays["mask"]
    share = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = (share / share.sum(axis=-1, keepdims=True)) @ v
    return mixed.swapaxes(1, 2).reshape(1, -1, WIDTH)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[spu_ir.CompiledModel, float]:
    """A compiled model whose attention has one kind of arithmetic, and its bound."""
    found = KINDS[request.param]
    shapes = {"batch": (1, 2), "seq": (1, 2048)}
    model = spu_ir.compile(
        attention_model(),
        precision=found.precision,
        attention=found.attention,
        shapes=shapes,
        threads=1,
    )
    assert f" {found.op} " in model.ir("quantised")
    return model, found.bound


@pytest.mark.parametrize(
    ("keys", "sink", "hidden"),
    [(64, 0.0, 0), (300, 8.0, 0), (300, 16.0, 0), (300, 8.0, 100), (2048, 0.0, 0), (2048, 12.0, 0)],
    ids=["plain", "sink", "strong sink", "sink and padding", "2048 keys", "2048 keys and a sink"],
)
def test_attention_is_within_its_bound(
    kind: tuple[spu_ir.CompiledModel, float], keys: int, sink: float, hidden: int
) -> None:
    model, bound = kind
    arrays = feeds(keys, sink=sink, hidden=hidden)
    want = exact(arrays)
    got = model.run(arrays)["y"]
    assert np.linalg.norm(got - want) <= bound * np.linalg.norm(want)
    # Every row, so that a few that lose their mass cannot hide among the others.
    rows = np.linalg.norm(got - want, axis=-1) / np.linalg.norm(want, axis=-1)
    assert rows.max() <= 10 * bound


def test_the_sink_takes_most_of_the_mass() -> None:
    """What the tests above are about: half to all of a row goes to one key of 300."""
    arrays = feeds(300, sink=8.0)
    q, k = (arrays[name].reshape(300, HEADS, DEPTH).swapaxes(0, 1) for name in "qk")
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(DEPTH)
    share = np.exp(scores - scores.max(axis=-1, keepdims=True))
    share /= share.sum(axis=-1, keepdims=True)
    assert 0.5 < np.median(share[..., 0]) < 1.0
