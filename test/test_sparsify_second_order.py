"""Second-order pruning: what it leaves, what it never does worse, and awkward layers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from spu_ir.errors import SpuError
from spu_ir.packing.prune import banks_of, largest_per_bank
from spu_ir.sparsify import LayerReport, conv_rows, linear_rows, magnitude, second_order
from spu_ir.sparsify.moments import Moments
from spu_ir.sparsify.reconstruct import Problem, reconstruct, refine
from spu_ir.zoo.common import Array, GraphBuilder

Feeds = list[dict[str, Array]]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def correlated(rows: int, depth: int, seed: int = 0) -> Array:
    """Inputs that depend on each other, as a network's do."""
    return normal(rows, depth, seed=seed) @ normal(depth, depth, seed=seed + 1) / 8


def problem_of(x: Array, dense: Array | None = None) -> Problem:
    moments = Moments(x.shape[1])
    moments.add(x, dense)
    return Problem(moments, 0.01)


def pruned_rows(weight: Array, x: Array, lengths: list[int], slots: int) -> tuple[Array, Array]:
    """(by magnitude, by the second-order step)"""
    largest = np.where(largest_per_bank(np.abs(weight), lengths, 64, slots), weight, 0)
    return largest, reconstruct(weight, largest, problem_of(x), lengths, 64, slots)


def miss(x: Array, weight: Array, pruned: Array) -> float:
    return float(np.linalg.norm(x.astype(np.float64) @ (weight - pruned).T.astype(np.float64)))


@given(
    outputs=st.integers(1, 12),
    lengths=st.lists(st.integers(1, 130), min_size=1, max_size=3),
    slots=st.sampled_from([2, 4, 8, 16, 32]),
    samples=st.integers(1, 300),
    seed=st.integers(0, 99),
)
def test_every_bank_has_its_slots_and_no_row_is_worse_than_magnitude(
    outputs: int, lengths: list[int], slots: int, samples: int, seed: int
) -> None:
    depth = sum(lengths)
    weight, x = normal(outputs, depth, seed=seed), correlated(samples, depth, seed + 1)
    x[:, :: max(2, depth // 3)] = 0  # dead inputs
    largest, pruned = pruned_rows(weight, x, lengths, slots)
    for first, last in banks_of(lengths, 64):
        assert (np.count_nonzero(pruned[:, first:last], axis=1) <= slots).all()
    assert np.isfinite(pruned).all()
    # The damping counts as a part of what is minimised, but not that of dead inputs.
    problem = problem_of(x)
    added = np.diag(np.sqrt(np.where(problem.dead, 0, problem.added)))
    rows = np.concatenate([x, added.astype(np.float32)])
    for row in range(outputs):
        own = slice(row, row + 1)
        ours, theirs = (miss(rows, weight[own], w[own]) for w in (pruned, largest))
        assert ours <= theirs * (1 + 1e-4) + 1e-6


@pytest.mark.parametrize(("slots", "at_most"), [(32, 0.45), (16, 0.65), (8, 0.8), (4, 0.9)])
def test_correlated_inputs_are_answered_much_better(slots: int, at_most: float) -> None:
    weight, x = normal(48, 256), correlated(2000, 256, 3)
    largest, pruned = pruned_rows(weight, x, [256], slots)
    assert miss(x, weight, pruned) < at_most * miss(x, weight, largest)
    # Not by what it was fitted to alone: the same holds for other inputs of the same kind.
    fresh = normal(500, 256, seed=99) @ normal(256, 256, seed=4) / 8
    assert miss(fresh, weight, pruned) < at_most * miss(fresh, weight, largest)


def test_few_samples_and_dead_inputs_are_no_trouble() -> None:
    weight = normal(8, 128)
    x = correlated(3, 128)
    x[:, 10] = 0
    _, pruned = pruned_rows(weight, x, [128], 8)
    assert np.isfinite(pruned).all()
    assert not pruned[:, 10].any(), "an input that is always zero needs no weight"
    zeros = np.zeros((4, 128), np.float32)
    largest, pruned = pruned_rows(weight, zeros, [128], 8)
    assert miss(zeros, weight, pruned) == miss(zeros, weight, largest) == 0


def test_refining_is_least_squares_on_what_stayed() -> None:
    weight, x = normal(5, 64), correlated(200, 64)
    problem = problem_of(x)
    keep = np.random.default_rng(0).random((5, 64)) < 0.3
    refined = refine(weight, np.where(keep, weight, 0), keep, problem.hessian32, steps=200)
    for row in range(5):
        chosen = problem.hessian[np.ix_(keep[row], keep[row])]
        right = problem.hessian[keep[row]] @ weight[row]
        exact = np.linalg.solve(chosen, right)
        np.testing.assert_allclose(refined[row, keep[row]], exact, rtol=2e-3, atol=2e-3)
        assert not refined[row, ~keep[row]].any()


def test_it_aims_at_the_dense_models_answers() -> None:
    weight, dense = normal(16, 64), correlated(2000, 64)
    x = dense @ (np.eye(64) + 0.3 * normal(64, 64, seed=7) / 8).astype(np.float32)
    problem = problem_of(x, dense)
    target = problem.target(weight)
    wanted = dense @ weight.T
    assert np.linalg.norm(x @ target.T - wanted) < 0.5 * np.linalg.norm(x @ weight.T - wanted)
    got = problem.moments.error(weight, target)
    exact = np.linalg.norm(x @ target.T - wanted) / np.linalg.norm(wanted)
    assert got == pytest.approx(exact, rel=1e-3)
    same = problem_of(dense)
    np.testing.assert_array_equal(same.target(weight), weight)


def perceptron(layers: int = 3, width: int = 96) -> onnx.ModelProto:
    graph = GraphBuilder("perceptron")
    value = graph.input("x", 1, ["n", 64])
    for i in range(layers):
        weight = normal(64 if i == 0 else width, width, seed=i) / 8
        value = graph.add("MatMul", value, graph.constant(f"w{i}", weight), name=f"layer{i}")
        value = graph.add("Add", value, graph.constant(f"b{i}", weight[0]), name=f"add{i}")
        value = graph.add("Relu", value, name=f"relu{i}", output="y" if i == layers - 1 else None)
    return graph.output("y", 1, ["n", width]).model()


def run(model: onnx.ModelProto, feed: dict[str, Array]) -> Array:
    import onnxruntime

    return np.asarray(onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)[0])


def weights_of(model: onnx.ModelProto) -> dict[str, Array]:
    return {t.name.split("/pruned")[0]: numpy_helper.to_array(t) for t in model.graph.initializer}


def feeds_of(*sizes: int) -> Feeds:
    return [{"x": correlated(size, 64, seed)} for seed, size in enumerate(sizes)]


@pytest.mark.parametrize("ratio", [2, 4, 8, 16])
def test_a_network_keeps_its_answers_better_than_by_magnitude(ratio: int) -> None:
    model, feeds = perceptron(), [{"x": correlated(600, 64)}]
    rows: list[LayerReport] = []
    pruned = second_order(model, ratio, feeds, report=rows.append)
    onnx.checker.check_model(pruned, full_check=True)
    wanted = run(model, feeds[0])
    ours, theirs = (
        np.linalg.norm(run(each, feeds[0]) - wanted) for each in (pruned, magnitude(model, ratio))
    )
    assert ours < 0.8 * theirs
    assert [row.layer for row in rows] == ["layer0", "layer1", "layer2"]
    for row in rows:
        assert row.error is not None
        assert row.relative_error is not None
        assert 0 < row.error < 1
        assert row.relative_error < 1
        assert row.reason is None
        assert row.density <= np.ceil(row.shape[0] / 64) * (64 // ratio) / row.shape[0]


def test_it_is_deterministic_and_leaves_the_model_alone() -> None:
    model = perceptron()
    original = model.SerializeToString()
    first, second = (
        second_order(model, 8, iter(feeds_of(50, 20))).SerializeToString() for _ in range(2)
    )
    assert first == second
    assert model.SerializeToString() == original


def test_one_feed_of_one_row_is_enough() -> None:
    pruned = second_order(perceptron(), 4, feeds_of(1))
    assert all(np.isfinite(weight).all() for weight in weights_of(pruned).values())


def test_ratio_one_is_the_model_itself() -> None:
    model = perceptron()
    assert second_order(model, 1, feeds_of(4)) == model


def test_dense_inputs_are_those_of_the_dense_model() -> None:
    model, feeds = perceptron(2), feeds_of(300)
    rows: list[LayerReport] = []
    pruned = weights_of(second_order(model, 8, feeds, inputs="dense", report=rows.append))
    weight = weights_of(model)["w1"].T
    x = np.maximum(feeds[0]["x"] @ weights_of(model)["w0"] + weights_of(model)["b0"], 0)
    largest = np.where(largest_per_bank(np.abs(weight), [96], 64, 8), weight, 0)
    own = miss(x, weight, pruned["w1"].T) / np.linalg.norm(x @ weight.T)
    assert rows[1].error == pytest.approx(own, rel=1e-3)
    assert rows[1].magnitude_error == pytest.approx(
        miss(x, weight, largest) / np.linalg.norm(x @ weight.T), rel=1e-3
    )
    sequential = weights_of(second_order(model, 8, feeds))
    np.testing.assert_array_equal(sequential["w0"], pruned["w0"])
    assert (sequential["w1"] != pruned["w1"]).any()


def shared_network() -> onnx.ModelProto:
    """One weight in three layers, as ALBERT has it, between two of their own."""
    graph = GraphBuilder("shared")
    value = graph.input("x", 1, ["n", 64])
    names = ["before", "shared", "shared", "shared", "after"]
    for i, name in enumerate(names):
        weight = graph.constant(name, normal(64, 64, seed=len(name)) / 6)
        value = graph.add("MatMul", value, weight, name=f"layer{i}")
        value = graph.add("Relu", value, name=f"relu{i}", output="y" if i == 4 else None)
    return graph.output("y", 1, ["n", 64]).model()


@pytest.mark.parametrize("inputs", ["pruned", "dense"])
def test_a_shared_weight_is_pruned_once_for_all_that_it_meets(inputs: str) -> None:
    model, feeds = shared_network(), feeds_of(200, 100)
    rows: list[LayerReport] = []
    said: list[tuple[str, int, int]] = []
    pruned = second_order(
        model,
        4,
        feeds,
        inputs=inputs,  # pyright: ignore
        report=rows.append,
        progress=lambda *state: said.append(state),
    )
    used = [node.input[1] for node in pruned.graph.node if node.op_type == "MatMul"]
    assert len(set(used)) == 3
    assert used[1] == used[2] == used[3]
    assert [row.error for row in rows[1:4]] == [rows[1].error] * 3
    assert said[-1] == ("done", 3, 3)
    wanted = run(model, feeds[0])
    ours, theirs = (
        np.linalg.norm(run(each, feeds[0]) - wanted) for each in (pruned, magnitude(model, 4))
    )
    assert ours < theirs


def image_network() -> onnx.ModelProto:
    """A first layer, rows with a folded normalisation, taps, a strided one, groups, a Gemm."""
    graph = GraphBuilder("images")
    value = graph.input("x", 1, ["n", 3, 12, 12])

    def conv(value: str, name: str, *shape: int, **attributes: object) -> str:
        weight = graph.constant(name, normal(*shape, seed=len(name)) / np.float32(10))
        value = graph.add("Conv", value, weight, name=f"/{name}", **attributes)
        return graph.add("Relu", value, name=f"/{name}/relu")

    value = conv(value, "first", 32, 3, 3, 3, pads=[1] * 4)
    weight = graph.constant("rows", normal(32, 32, 3, 3, seed=3) / 17)
    value = graph.add("Conv", value, weight, name="/rows", pads=[1] * 4)
    scales = [np.linspace(0.5, 2, 32), np.zeros(32), np.zeros(32), np.ones(32)]
    parts = [graph.constant(f"bn{i}", s.astype(np.float32)) for i, s in enumerate(scales)]
    value = graph.add("BatchNormalization", value, *parts, name="/norm")
    value = graph.add("Relu", value, name="/norm/relu")
    value = conv(value, "taps", 32, 32, 3, 3, pads=[2] * 4, dilations=[2, 2])
    value = conv(value, "strided", 32, 32, 2, 3, pads=[1, 0, 0, 1], strides=[2, 2])
    value = conv(value, "grouped", 32, 16, 3, 3, group=2)
    value = graph.add("GlobalAveragePool", value, name="pool")
    value = graph.add("Flatten", value, name="flat")
    wide = graph.constant("wide", normal(32, 64, seed=9))
    value = graph.add("MatMul", value, wide, name="wide")
    gemm = graph.constant("gemm", normal(10, 64, seed=8))
    graph.add("Gemm", value, gemm, name="gemm", transB=1, output="y")
    return graph.output("y", 1, ["n", 10]).model()


def test_convolutions_have_the_banks_of_the_compiler() -> None:
    model = image_network()
    feeds = [{"x": normal(n, 3, 12, 12, seed=n)} for n in (12, 4)]
    rows: dict[str, LayerReport] = {}
    pruned = second_order(model, 4, feeds, report=lambda row: rows.update({row.layer: row}))
    assert rows["/grouped"].reason == "by magnitude: a convolution with groups"
    assert rows["/first"].reason == "a convolution of 3 input channels is not pruned"
    assert rows["wide"].reason == "a reduction of 32, less than a bank of 64, is not pruned"
    weights, by_magnitude = weights_of(pruned), weights_of(magnitude(model, 4))
    np.testing.assert_array_equal(weights["grouped"], by_magnitude["grouped"])
    for name, dilation in (("rows", 1), ("taps", 2), ("strided", 1)):
        layout = conv_rows(weights[name].shape, dilation=dilation)
        for first, last in layout.banks():
            bank = layout.rows(weights[name])[:, first:last]
            assert (np.count_nonzero(bank, axis=1) <= 16).all(), name
        relative = rows[f"/{name}"].relative_error
        assert relative is not None
        assert relative < 1, name
    wanted = run(model, feeds[0])
    ours, theirs = (
        np.linalg.norm(run(each, feeds[0]) - wanted) for each in (pruned, magnitude(model, 4))
    )
    assert ours < theirs


def test_keep_and_ratios_by_name() -> None:
    rows: list[LayerReport] = []
    second_order(
        perceptron(), {"layer[12]": 8, "w0": 2}, feeds_of(80), keep=["*2"], report=rows.append
    )
    assert [row.ratio for row in rows] == [2, 8, 1]
    assert rows[2].reason == "it was asked to stay dense"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"calibration": []}, "nothing to calibrate with"),
        ({"calibration": [{}]}, "input 'x' is missing in a calibration feed"),
        ({"calibration": [{"x": np.full((2, 64), np.nan, np.float32)}]}, "not finite"),
        ({"ratio": 3}, "ratio 3 is not one of"),
        ({"keep": ["nothing*"]}, "'nothing\\*' is the name of no layer"),
        ({"damping": 0.0}, "damping 0.0 is not between"),
        ({"inputs": "both"}, "inputs 'both' is not known"),
        ({"bank": 16}, "there is no bank of 16"),
        ({"memory": 1000}, r"'layer0' \(MatMul\): the second-order step of 64 inputs takes"),
        ({"memory": 800_000, "calibration": feeds_of(5000)}, "the activations of all feeds take"),
    ],
)
def test_what_is_wrong_is_named(arguments: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"ratio": 8, "calibration": feeds_of(10), **arguments}
    with pytest.raises(SpuError, match=message):
        second_order(perceptron(), **given)  # pyright: ignore


def test_the_runs_of_a_weight() -> None:
    assert linear_rows((128, 300)).lengths == [300]
    assert linear_rows((300, 128), outputs_last=True).lengths == [300]
    assert conv_rows((8, 32, 3, 5)).lengths == [160] * 3
    assert conv_rows((8, 32, 3, 5), dilation=2).lengths == [32] * 15
    assert conv_rows((8, 32, 3, 5), groups=2).lengths == [32] * 15
    assert conv_rows((8, 32, 5)).lengths == [160]
    assert conv_rows((32, 8, 3, 5), transpose=True).lengths == [160] * 3
    assert linear_rows((8, 150)).banks() == [(0, 64), (64, 128), (128, 150)]


@pytest.mark.parametrize(
    "layout",
    [
        linear_rows((6, 7)),
        linear_rows((6, 7), outputs_last=True),
        conv_rows((6, 5, 2, 3)),
        conv_rows((6, 5, 3), dilation=2),
        conv_rows((6, 5, 2, 3), groups=2),
        conv_rows((6, 5, 2, 3), transpose=True),
        conv_rows((6, 5, 2, 3), groups=2, transpose=True),
        conv_rows((6, 5, 4), groups=3, transpose=True),
    ],
)
def test_rows_and_back(layout: object) -> None:
    assert isinstance(layout, type(linear_rows((1, 1))))
    weight = normal(*layout.shape)
    rows = layout.rows(weight)
    assert rows.shape == (weight.size // layout.depth, layout.depth)
    assert sum(layout.lengths) == layout.depth
    np.testing.assert_array_equal(layout.weight(rows), weight)
