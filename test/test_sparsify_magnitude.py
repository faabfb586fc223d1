"""Magnitude pruning of ONNX models: what stays, and how each layer reads its weight."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from rich.console import Console

import spu_ir
from spu_ir.api import new_context
from spu_ir.dialects.spu import EpilogueOp
from spu_ir.dialects.weights import store_of
from spu_ir.errors import SpuError
from spu_ir.frontend import import_model
from spu_ir.sparsify import (
    LayerReport,
    Ratio,
    Structure,
    conv_rows,
    linear_rows,
    magnitude,
    pruned_weight,
    report_table,
)
from spu_ir.transforms import pipelines
from spu_ir.transforms.encode import EncodePass
from spu_ir.transforms.pipelines import GRAPH, LOWER
from spu_ir.transforms.rewriting import constant_of, layer_of
from spu_ir.transforms.sparsify import SparsifyPass
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


def test_pairs_of_lane_groups_keep_the_same_places() -> None:
    random = np.random.default_rng(5)
    weight = random.standard_normal((128, 80)).astype(np.float32)
    rows = linear_rows(weight.shape, outputs_last=True)
    kept = pruned_weight(weight, rows, 16, structure="paired")
    np.testing.assert_array_equal(kept[kept != 0], weight[kept != 0])
    places = (kept != 0).T.reshape(80, 2, 64)
    for row in (0, 15, 32, 47):
        np.testing.assert_array_equal(places[row], places[row + 16])
        sums = np.abs(weight[:, row]) + np.abs(weight[:, row + 16])
        for bank, found in zip(sums.reshape(2, 64), places[row], strict=True):
            assert set(np.flatnonzero(found)) == set(np.argsort(-bank)[:4])
    # The last 16 of 80 have no partner.
    alone = pruned_weight(weight[:, 64:], linear_rows((128, 16), outputs_last=True), 16)
    np.testing.assert_array_equal(kept[:, 64:], alone)


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


def all_layouts() -> onnx.ModelProto:
    """A layer of every kind that the compiler prunes, and of those that it leaves dense."""
    random = np.random.default_rng(3)
    graph = GraphBuilder("layouts")

    def weight(name: str, *shape: int) -> str:
        return graph.constant(name, random.standard_normal(shape).astype(np.float32))

    image = graph.input("image", 1, [1, 32, 10, 10])
    signal = graph.input("signal", 1, [1, 32, 40])
    rows = graph.input("rows", 1, ["n", 130])
    value = graph.add("Conv", image, weight("conv", 48, 32, 3, 3), name="conv")
    scale = [graph.constant(f"norm{i}", np.linspace(1, 2, 48).astype(np.float32)) for i in range(4)]
    value = graph.add("BatchNormalization", value, *scale, name="norm")
    wide = weight("dilated", 32, 48, 2, 2)
    value = graph.add("Conv", value, wide, name="dilated", dilations=[2, 2])
    value = graph.add("Conv", value, weight("grouped", 32, 16, 3, 3), name="grouped", group=2)
    value = graph.add("Conv", value, weight("depthwise", 32, 1, 3, 3), name="deep", group=32)
    turned = weight("turned", 32, 24, 3, 3)
    value = graph.add("ConvTranspose", value, turned, name="turned", strides=[2, 2])
    value = graph.add("ConvTranspose", value, weight("gt", 24, 9, 2, 2), name="gt", group=4)
    outputs = [graph.add("GlobalAveragePool", value, name="pool", output="a")]
    value = graph.add("Conv", signal, weight("signal1", 70, 32, 5), name="signal1")
    outputs.append(
        graph.add("Conv", value, weight("signal2", 8, 70, 1), name="signal2", output="b")
    )
    value = graph.add("MatMul", rows, weight("matmul", 130, 72), name="matmul")
    value = graph.add("Gemm", value, weight("gemm", 80, 72), name="gemm", transB=1, alpha=0.5)
    flipped = graph.add("Transpose", weight("transposed", 96, 80), name="transpose", perm=[1, 0])
    value = graph.add("MatMul", value, flipped, name="transposed")
    value = graph.add("Gemm", value, weight("gemm2", 96, 40), name="gemm2")
    outputs.append(graph.add("MatMul", value, weight("short", 40, 3), name="short", output="c"))
    for name in outputs:
        graph.output(name, 1, None)  # pyright: ignore
    return graph.model()


def compiled_weights(
    model: onnx.ModelProto, ratio: int, precision: str, share: int = 1
) -> dict[str, Array]:
    """The weights of every product as the compiler has them after pruning to `ratio`."""
    ctx = new_context()
    module = import_model(model, ctx, shapes={"n": (1, 8)})
    for each in (*GRAPH, *LOWER, SparsifyPass(ratio, precision, share)):
        each.apply(ctx, module)
    found: dict[str, Array] = {}
    for op in module.walk():
        if isinstance(op, EpilogueOp):
            weight = constant_of(op.weight, store_of(ctx))
            assert weight is not None
            found[layer_of(op) or ""] = weight
    return found


@pytest.mark.parametrize(("precision", "bank"), [("int8", 64), ("bf16", 32)])
@pytest.mark.parametrize("ratio", [2, 16])
@pytest.mark.parametrize(("structure", "share"), [("banked", 1), ("paired", 2)])
def test_it_keeps_what_the_compiler_keeps_bit_for_bit(
    structure: Structure, share: int, ratio: int, precision: str, bank: int
) -> None:
    model = all_layouts()
    rows: list[LayerReport] = []
    pruned = magnitude(model, ratio, bank=bank, structure=structure, report=rows.append)
    theirs = compiled_weights(model, ratio, precision, share)
    ours = compiled_weights(pruned, 1, precision)
    assert ours.keys() == theirs.keys() == {row.layer for row in rows}
    assert len(ours) == 13
    differ = {name for name in theirs if theirs[name].tobytes() != ours[name].tobytes()}
    # The compiler has multiplied the rows of this one by a normalisation before it adds them.
    assert differ == ({"conv"} if structure == "paired" else set())
    dense = {row.layer for row in rows if row.reason is not None}
    assert dense == {row.layer for row in rows if row.ratio == 1} == {"deep", "gt", "short"}
    # Pruned already, so there is nothing left to prune.
    again = compiled_weights(pruned, ratio, precision, share)
    assert all(again[name].tobytes() == ours[name].tobytes() for name in ours)


def test_unstructured_keeps_the_largest_of_the_whole_weight() -> None:
    model = small_network()
    for ratio, density in ((10, 0.1), (20, 0.05), (1.25, 0.8)):
        rows: list[LayerReport] = []
        pruned = magnitude(model, ratio, structure="unstructured", report=rows.append)
        onnx.checker.check_model(pruned, full_check=True)
        weights = {t.name.split("/")[0]: numpy_helper.to_array(t) for t in pruned.graph.initializer}
        before = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        for row in rows:
            name = {"b": "rows", "c": "taps", "g": "gemm", "h": "matmul"}.get(row.layer)
            if name is None:
                assert row.density == 1
                continue
            assert row.density == pytest.approx(density, abs=1e-3)
            kept = weights[name] != 0
            np.testing.assert_array_equal(weights[name][kept], before[name][kept])
            assert np.abs(before[name][kept]).min() >= np.abs(before[name][~kept]).max()


@pytest.mark.parametrize("ratio", [10, 20])
def test_an_unstructured_program_has_the_bits_of_the_dense_format(
    ratio: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = GraphBuilder("two layers")
    random = np.random.default_rng(0)
    value = graph.input("x", 1, ["n", 256])
    for i, shape in enumerate([(256, 192), (192, 64)]):
        weight = graph.constant(f"w{i}", random.standard_normal(shape).astype(np.float32))
        value = graph.add("MatMul", value, weight, name=f"layer{i}", output="y" if i else None)
    model = magnitude(graph.output("y", 1, ["n", 64]).model(), ratio, structure="unstructured")
    feed = {"x": random.standard_normal((13, 256)).astype(np.float32)}
    ragged = spu_ir.compile(model, precision="int8", shapes={"n": (1, 16)})
    formats = [str(row["format"]) for row in ragged.report() if row["op"] == "spu.matmul"]
    assert len(formats) == 2
    assert "dense" not in formats
    monkeypatch.setattr(pipelines, "EncodePass", lambda: EncodePass(format="dense"))
    dense = spu_ir.compile(model, precision="int8", shapes={"n": (1, 16)})
    assert [r["format"] for r in dense.report() if r["op"] == "spu.matmul"] == ["dense"] * 2
    assert ragged.run(feed)["y"].tobytes() == dense.run(feed)["y"].tobytes()


def test_ratios_by_name_by_function_and_exceptions() -> None:
    model = small_network()

    def ratios(given: Ratio, keep: tuple[str, ...] = ()) -> dict[str, float]:
        rows: list[LayerReport] = []
        magnitude(model, given, keep=keep, report=rows.append)
        return {row.layer: row.ratio for row in rows if row.ratio > 1}

    assert ratios(8) == dict.fromkeys("bcgh", 8)
    assert ratios(8, ("g", "tap*")) == {"b": 8, "h": 8}
    assert ratios({"b": 2, "[bg]": 16}) == {"b": 2, "g": 16}
    assert ratios(lambda layer: 4 if layer.op == "Conv" else 1) == {"b": 4, "c": 4}
    with pytest.raises(SpuError, match=r"'z' is the name of no layer; patterns match .* 'a', 'b'"):
        ratios({"b": 2, "z": 16})
    with pytest.raises(SpuError, match="ratio 5 is not one of"):
        ratios({"b": 5})
    with pytest.raises(SpuError, match="ratio 6 is not one of"):
        ratios(lambda _: 6)
    with pytest.raises(SpuError, match=r"ratio 0\.5 is below 1"):
        magnitude(model, 0.5, structure="unstructured")
    with pytest.raises(SpuError, match="structure 'n:m' is not known; use one of banked, "):
        magnitude(model, 2, structure="n:m")  # pyright: ignore


def test_a_shared_weight_stays_one_and_different_ratios_are_two() -> None:
    graph = GraphBuilder("shared")
    value = graph.input("x", 1, ["n", 64])
    weight = graph.constant("w", np.random.default_rng(0).standard_normal((64, 64), np.float32))
    for name in ("a", "b", "c"):
        output = "y" if name == "c" else None
        value = graph.add("MatMul", value, weight, name=name, output=output)
    model = graph.output("y", 1, ["n", 64]).model()
    used = [node.input[1] for node in magnitude(model, 4).graph.node]
    assert len(set(used)) == 1
    used = [node.input[1] for node in magnitude(model, {"a": 4, "b": 8}).graph.node]
    assert len(set(used)) == 3
    assert used[2] == "w"


def test_other_float_types_stay_what_they_are() -> None:
    weight = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float16)
    graph = GraphBuilder("half")
    x = graph.input("x", onnx.TensorProto.FLOAT16, [1, 64])
    graph.add("MatMul", x, graph.constant("w", weight), name="a", output="y")
    model = graph.output("y", onnx.TensorProto.FLOAT16, [1, 8]).model()
    (tensor,) = magnitude(model, 8).graph.initializer
    kept = numpy_helper.to_array(tensor)
    assert kept.dtype == np.float16
    assert np.count_nonzero(kept) == 64
    np.testing.assert_array_equal(kept[kept != 0], weight[kept != 0])


def test_the_report_is_a_table_and_json() -> None:
    rows: list[LayerReport] = []
    magnitude(small_network(), 8, report=rows.append)
    console = Console(record=True, width=140)
    console.print(report_table(rows))
    text = console.export_text()
    assert "a convolution of 3 input channels is not pruned" in text
    assert "12.5%" in text
    parsed = json.loads(json.dumps([row.json() for row in rows]))
    assert parsed[4] == {
        "layer": "g",
        "op": "Gemm",
        "shape": [70, 128],
        "ratio": 8,
        "density": 0.125,
        "reason": None,
        "error": None,
        "magnitude_error": None,
        "relative_error": None,
    }
