"""Magnitude pruning of ONNX models: what stays, and how each layer reads its weight."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from spu_ir.errors import SpuError
from spu_ir.sparsify import conv_rows, magnitude, pruned_weight
from spu_ir.zoo.common import Array, GraphBuilder


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, feeds)


@pytest.mark.parametrize("ratio", [2, 4, 8, 16, 32])
def test_pruned_banks_keep_the_largest(ratio: int) -> None:
    random = np.random.default_rng(ratio)
    filters = random.standard_normal((24, 32, 3, 5)).astype(np.float32)
    pruned = pruned_weight(filters, conv_rows(filters.shape), ratio)
    rows, kept = (w.transpose(0, 2, 3, 1).reshape(24, 3, 160) for w in (filters, pruned))
    np.testing.assert_array_equal(kept[kept != 0], rows[kept != 0])
    for first, last in ((0, 64), (64, 128), (128, 160)):
        bank, left = np.abs(rows[..., first:last]), np.abs(kept[..., first:last])
        count = min(64 // ratio, last - first)
        assert ((left != 0).sum(-1) == count).all()
        largest = np.sort(bank)[..., -count:]
        np.testing.assert_array_equal(np.sort(left)[..., -count:], largest)


def test_of_equal_magnitudes_the_first_stay() -> None:
    filters = np.full((1, 64, 1, 1), -2.0, np.float32)
    kept = pruned_weight(filters, conv_rows(filters.shape), 16)
    assert np.flatnonzero(kept).tolist() == [0, 1, 2, 3]


def small_network(old_format: bool = False) -> onnx.ModelProto:
    """A convolution over rows, one over taps, one first layer, a Gemm, and a MatMul."""
    random = np.random.default_rng(1)
    graph = GraphBuilder("small")
    image = graph.input("x", 1, [1, 3, 8, 8])

    def weight(name: str, *shape: int) -> str:
        return graph.constant(name, random.standard_normal(shape).astype(np.float32))

    value = graph.add("Conv", image, weight("first", 32, 3, 5, 5), name="a", pads=[2] * 4)
    value = graph.add("Conv", value, weight("rows", 32, 32, 3, 3), name="b", pads=[1] * 4)
    taps = weight("taps", 32, 16, 3, 3)
    value = graph.add("Conv", value, taps, name="c", pads=[2] * 4, dilations=[2, 2], group=2)
    value = graph.add("GlobalAveragePool", value, name="d")
    value = graph.add("Flatten", value, name="e")
    value = graph.add("MatMul", value, weight("short", 32, 128), name="f")
    value = graph.add("Gemm", value, weight("gemm", 70, 128), name="g", transB=1)
    graph.add("MatMul", value, weight("matmul", 70, 10), name="h", output="y")
    model = graph.output("y", 1, [1, 10]).model()
    if old_format:
        model.ir_version = 3
        for tensor in model.graph.initializer:
            model.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    return model


@pytest.mark.parametrize("old_format", [False, True])
def test_prune_knows_how_each_layer_reads_its_weight(old_format: bool) -> None:
    model = small_network(old_format)
    original = model.SerializeToString()
    pruned = magnitude(model, 16)
    assert model.SerializeToString() == original, "the model given must not change"
    onnx.checker.check_model(pruned, full_check=True)
    assert [value.name for value in pruned.graph.input if "pruned" in value.name] == []
    image = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    assert np.isfinite(run(pruned, {"x": image})[0]).all()

    weights = {
        t.name.split("/pruned")[0]: numpy_helper.to_array(t) for t in pruned.graph.initializer
    }
    density = {name: np.count_nonzero(w) / w.size for name, w in weights.items()}
    # Runs are 96 numbers for `rows`, 16 for `taps`: 8 of 96 and 4 of 16 stay.
    assert density == {
        "first": 1.0,
        "rows": 8 / 96,
        "taps": 4 / 16,
        "short": 1.0,
        "gemm": 8 / 128,
        "matmul": pytest.approx(8 / 70),
    }
    rows = weights["rows"].transpose(0, 2, 3, 1).reshape(32, 3, 96)
    assert (np.count_nonzero(rows[:, :, :64], axis=2) == 4).all()


def test_prune_of_weights_that_are_made_by_nodes() -> None:
    shape = numpy_helper.from_array(np.array([64, 4]), "shape")
    filler = numpy_helper.from_array(np.array([3.0], np.float32))
    graph = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["w"], value=filler),
            helper.make_node("MatMul", ["x", "w"], ["y"]),
        ],
        "made",
        [helper.make_tensor_value_info("x", 1, [1, 64])],
        [helper.make_tensor_value_info("y", 1, [1, 4])],
        [shape],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    pruned = magnitude(model, 16)
    assert [node.op_type for node in pruned.graph.node] == ["MatMul"]
    np.testing.assert_array_equal(run(pruned, {"x": np.ones((1, 64), np.float32)})[0], [[12.0] * 4])


def test_a_ratio_outside_the_format_is_named() -> None:
    with pytest.raises(SpuError, match=r"ratio 3 is not one of .* use one of 1, 2, 4, 8, 16, 32"):
        magnitude(small_network(), 3)


def test_ratio_one_changes_nothing() -> None:
    model = small_network()
    assert magnitude(model, 1) == model
