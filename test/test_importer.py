"""ONNX in and out: what is imported, what is refused and with which words, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, parser
from xdsl.context import Context
from xdsl.dialects.builtin import TensorType

from spu_ir.dialects.onnx import OPS, OnnxOp, op_at
from spu_ir.dialects.weights import constant_array, store_of
from spu_ir.errors import SpuError
from spu_ir.frontend import export_model, import_model, main_function, parse_shapes
from spu_ir.interpreters import interpret

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def text(body: str, opset: int = 20) -> ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {body}')


def one_node(
    node: NodeProto, inputs: Sequence[tuple[str, int, list[int | str]]], opset: int = 20
) -> ModelProto:
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def ops_of(model: ModelProto | Path, **options: Any) -> list[str]:
    module = import_model(model, Context(), **options)
    module.verify()
    return [op.name for op in main_function(module).body.block.ops]


def run(model: ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, feeds)


# What is imported -----------------------------------------------------------------------------


def test_every_operator_of_the_default_domain_has_an_op() -> None:
    schemas = [s for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""]
    assert len(OPS) == len(schemas)
    for schema in schemas:
        op = op_at(schema.name, schema.since_version)
        assert op is not None
        assert op.since_version == schema.since_version
        assert op.__doc__ == schema.doc


def test_names_versions_and_order_of_ops() -> None:
    model = text(
        """g (float[2,3] x) => (float[2,3] y) <float[3] b = {1, 2, 3}>
        { [first] s = Softmax <axis = 1> (x)  y = Add (s, b) }""",
        opset=12,
    )
    assert ops_of(model) == ["onnx.SoftmaxV11", "onnx.Constant", "onnx.AddV7", "func.return"]
    module = import_model(model, Context())
    softmax = next(op for op in module.walk() if op.name == "onnx.SoftmaxV11")
    assert isinstance(softmax, OnnxOp)
    assert softmax.node_name == "first"
    assert softmax.int_value("axis") == 1


def test_initializers_go_to_the_store() -> None:
    weight = np.arange(64, dtype=np.float32).reshape(8, 8)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = one_node(node, [("x", TensorProto.FLOAT, [2, 8])])
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    ctx = Context()
    constant = next(op for op in import_model(model, ctx).walk() if op.name == "onnx.Constant")
    np.testing.assert_array_equal(
        constant_array(store_of(ctx), constant.attributes["value"]), weight
    )


def test_absent_operands_and_results() -> None:
    model = text("""g (float[4] x, float high) => (float[4] y) { y = Clip (x, , high) }""")
    assert ops_of(model) == ["onnx.NoValue", "onnx.Clip", "func.return"]


def test_types_are_inferred_and_extents_followed() -> None:
    model = text("g (float[batch, 8] x) => (float[n, m] y) { t = Relu (x) y = Transpose (t) }")
    module = import_model(model, Context(), shapes={"batch": (1, 16)})
    function = main_function(module)
    assert function.function_type.outputs.data[0] == TensorType(
        function.function_type.inputs.data[0].element_type,  # type of x
        [8, -9223372036854775808],
    )
    assert function.res_attrs is not None
    assert function.res_attrs.data[0].data["onnx.dim_params"].data == "1:batch"
    assert str(function.attributes["spu.extents"]) == "{batch = [1 : i64, 16 : i64]}"


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"batch": 4, "seq": 7}, "tensor<4x7xf32>"),
        ({"batch": (1, 4), "seq": 7}, "tensor<?x7xf32>"),
        ({"x": [4, 7]}, "tensor<4x7xf32>"),
        ({"x": [2, (1, 9)]}, "tensor<2x?xf32>"),
        ({"x": ["batch", 3], "batch": (2, 5)}, "tensor<?x3xf32>"),
    ],
)
def test_shapes_fix_and_bound_extents(shapes: dict[str, Any], expected: str) -> None:
    model = text("g (float[batch, seq] x) => (float[batch, seq] y) { y = Relu (x) }")
    module = import_model(model, Context(), shapes=shapes)
    function = main_function(module)
    assert str(function.function_type.inputs.data[0]) == expected
    assert str(function.function_type.outputs.data[0]) == expected


def test_an_unnamed_extent_gets_a_name() -> None:
    model = one_node(helper.make_node("Relu", ["a/b"], ["y"]), [("a/b", TensorProto.FLOAT, [2])])
    dim = model.graph.input[0].type.tensor_type.shape.dim[0]
    dim.ClearField("dim_value")
    module = import_model(model, Context(), shapes={"a_b_dim0": (1, 3)})
    assert str(main_function(module).attributes["spu.extents"]) == "{a_b_dim0 = [1 : i64, 3 : i64]}"


def test_names_cannot_break_the_attribute_that_lists_them() -> None:
    model = text("g (float[4] x) => (float[4] y) { y = Relu (x) }")
    dim = model.graph.input[0].type.tensor_type.shape.dim[0]
    dim.dim_param = '1:evil,"\n'
    module = import_model(model, Context(), shapes={'1:evil,"\n': (1, 3)})
    assert list(main_function(module).attributes["spu.extents"].data) == ["_1_evil___"]


def test_command_line_shapes() -> None:
    assert parse_shapes("batch=1:64, seq=128,image=[1,3,h,1:224]") == {
        "batch": (1, 64),
        "seq": 128,
        "image": [1, 3, "h", (1, 224)],
    }
    for wrong in ("batch", "batch=x", "=3", "batch=1:"):
        with pytest.raises(SpuError, match="shapes"):
            parse_shapes(wrong)


def test_subgraphs_become_regions() -> None:
    model = text(
        """g (float[2] x, bool c) => (float[2] y) <float[2] w = {1, 2}> {
          y = If (c) <
            then_branch = t () => (float[2] a) { a = Add (x, w) },
            else_branch = e () => (float[2] b) { b = Relu (x) }
          >
        }"""
    )
    module = import_model(model, Context())
    module.verify()
    conditional = next(op for op in module.walk() if op.name.startswith("onnx.If"))
    then, otherwise = conditional.regions
    assert [op.name for op in then.block.ops] == ["onnx.Add", "onnx.Yield"]
    assert [op.name for op in otherwise.block.ops] == ["onnx.Relu", "onnx.Yield"]


def test_local_functions_are_inlined() -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 20, "local" : 1]>
        g (float[8] x) => (float[8] y) <float[8] w = {1,2,3,4,5,6,7,8}> { y = local.twice (x, w) }
        <domain: "local", opset_import: ["" : 20]>
        twice (a, b) => (c) { t = Mul (a, b) c = Add (t, t) }"""
    )
    assert ops_of(model) == ["onnx.Constant", "onnx.Mul", "onnx.Add", "func.return"]


# The way back ---------------------------------------------------------------------------------

X = np.linspace(-2, 2, 24, dtype=np.float32)
ROUND_TRIPS: list[tuple[str, int, dict[str, np.ndarray]]] = [
    ("g (float[2,12] x) => (float[2,12] y) { y = Softmax <axis = 0> (x) }", 12, {}),
    ("g (float[2,12] x) => (float[2,12] y) { y = Identity (x) }", 20, {}),
    ("g (float[2,12] x) => (float[2,12] y, float[2,12] z) { z = Relu (x) y = Neg (z) }", 20, {}),
    (
        """g (float[2,12] x) => (float[12] y, int64[12] i)
        { a = Constant <value_ints = [0]> () y = ReduceMax <keepdims = 0> (x, a)
          i = ArgMax <axis = 0, keepdims = 0> (x) }""",
        20,
        {},
    ),
    (
        """g (float[2,12] x, bool c) => (float[2,12] y) { y = If (c) <
            then_branch = t () => (float[2,12] a) { a = Exp (x) },
            else_branch = e () => (float[2,12] b) { b = Identity (x) }> }""",
        20,
        {"c": np.array(False)},
    ),
]


@pytest.mark.parametrize(("body", "opset", "more"), ROUND_TRIPS)
def test_export_gives_the_same_results(body: str, opset: int, more: dict[str, np.ndarray]) -> None:
    model = text(body, opset)
    ctx = Context()
    module = import_model(model, ctx)
    exported = export_model(module, ctx)
    onnx.checker.check_model(exported)
    assert exported.opset_import[0].version == opset
    feeds = {"x": X.reshape(2, 12), **more}
    for expected, got in zip(run(model, feeds), run(exported, feeds), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", ["resnet50", "shufflenet", "inception_v1"])
def test_real_graphs_come_back(name: str) -> None:
    path = LIGHT / f"light_{name}.onnx"
    ctx = Context()
    module = import_model(path, ctx)
    module.verify()
    original = onnx.load(path)
    exported = export_model(module, ctx)
    onnx.checker.check_model(exported)
    kinds = [node.op_type for node in original.graph.node]
    assert [node.op_type for node in exported.graph.node] == kinds


def test_export_refuses_what_no_opset_has() -> None:
    model = text("g (float[2,3] x) => (float[2,3] y) { t = Softmax (x) y = Relu (t) }", 12)
    ctx = Context()
    module = import_model(model, ctx)
    relu = next(op for op in module.walk() if op.name == "onnx.ReluV6")
    newer = OPS["Gelu"].create(operands=relu.operands, result_types=relu.result_types)
    block = relu.parent_block()
    assert block is not None
    block.insert_op_before(newer, relu)
    with pytest.raises(SpuError, match=r"onnx.Gelu needs opset 20 or later.*upgrade-opset"):
        export_model(module, ctx)


def test_the_interpreter_runs_the_onnx_level() -> None:
    # Opset 12 flattens at the axis, which ONNX's reference evaluator forgets.
    model = text("g (float[2,3,4] x) => (float[2,3,4] y) { y = Softmax <axis = 1> (x) }", 12)
    ctx = Context()
    module = import_model(model, ctx)
    feeds = {"x": X.reshape(2, 3, 4)}
    (expected,) = run(model, feeds)
    np.testing.assert_allclose(interpret(module, ctx, feeds)["y"], expected, rtol=1e-6)


# What is refused ------------------------------------------------------------------------------


def refuse(model: ModelProto | bytes | Path, *words: str, **options: Any) -> None:
    with pytest.raises(SpuError) as caught:
        import_model(model, Context(), **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_refuses_files_that_are_no_models(tmp_path: Path) -> None:
    whole = text("g (float[2] x) => (float[2] y) { y = Relu (x) }").SerializeToString()
    refuse(whole[:-3], "truncated")
    refuse(b"", "no graph")
    refuse(b"not an ONNX model", "no ONNX model")
    refuse(tmp_path / "absent.onnx", "cannot read", "absent.onnx")


@pytest.mark.parametrize("name", [b"first", b"batch", b"weight", b"inside"])
def test_refuses_names_that_are_no_text(name: bytes) -> None:
    model = text(
        """g (float[batch, 4] x, bool c) => (float[batch, 4] y) <float[4] weight = {1, 2, 3, 4}>
        { first = Relu (x) y = If (c) <
            then_branch = t () => (float[batch, 4] inside) { inside = Add (first, weight) },
            else_branch = e () => (float[batch, 4] b) { b = Identity (first) }> }"""
    )
    damaged = model.SerializeToString().replace(name, b"\xff" + name[1:])
    refuse(damaged, "UTF-8", shapes={"batch": (1, 4)})


def test_refuses_versions_that_are_too_new() -> None:
    model = text("g (float[2] x) => (float[2] y) { y = Relu (x) }")
    model.ir_version = 999
    refuse(model, "IR version 999", "update the onnx package")
    model.ir_version = 8
    model.opset_import[0].version = 999
    refuse(model, "opset 999", "update the onnx package")
    del model.opset_import[:]
    refuse(model, "declares no opset")


CYCLE = [
    helper.make_node("Add", ["x", "b"], ["a"], name="first"),
    helper.make_node("Relu", ["a"], ["b"], name="second"),
    helper.make_node("Relu", ["b"], ["y"], name="third"),
]
UNSORTED = [CYCLE[2], helper.make_node("Relu", ["x"], ["b"], name="late")]


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        (CYCLE, ["node 'first' (Add)", "cycle: 'first' -> 'second' -> 'first'"]),
        (UNSORTED, ["node 'third' (Relu)", "made only later, by node 'late'", "sort"]),
        (
            [helper.make_node("Relu", ["w"], ["y"], name="n")],
            ["node 'n' (Relu)", "input 'w' is neither", "initializer is missing"],
        ),
        (
            [helper.make_node("Frobnicate", ["x"], ["y"], name="n")],
            ["node 'n' (Frobnicate)", "unknown operator"],
        ),
        (
            [helper.make_node("Gelu", ["x"], ["y"], name="n")],
            ["node 'n' (Gelu)", "opset 17 does not have the operator, 20 does"],
        ),
        (
            [helper.make_node("Scatter", ["x", "x", "x"], ["y"], name="n")],
            ["node 'n' (Scatter)", "deprecated since opset 11"],
        ),
        (
            [helper.make_node("FusedMatMul", ["x", "x"], ["y"], name="n", domain="com.microsoft")],
            ["node 'n' (FusedMatMul)", "'com.microsoft'", "without ONNX Runtime's optimisations"],
        ),
        (
            [helper.make_node("Relu", ["x"], ["y"], name="a")] * 2,
            ["node 'a' (Relu)", "value 'y' is defined twice, first by node 'a'"],
        ),
        (
            [helper.make_node("Relu", ["x"], ["y"], name="n", slope=1.0)],
            ["node 'n' (Relu)", "slope"],
        ),
        (
            [helper.make_node("Add", ["x"], ["y"], name="n")],
            ["node 'n' (Add)", "input size 1"],
        ),
        (
            [
                helper.make_node("Cast", ["x"], ["t"], name="n", to=TensorProto.STRING),
                helper.make_node("Cast", ["t"], ["y"], to=TensorProto.FLOAT),
            ],
            ["node 'n' (Cast)", "result 't' has the element type string", "not supported"],
        ),
        (
            [helper.make_node("Relu", ["x"], ["z"], name="n")],
            ["output 'y'", "not made by any node"],
        ),
    ],
)
def test_refuses_graphs(nodes: list[NodeProto], words: list[str]) -> None:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    refuse(helper.make_model(graph, opset_imports=opsets, ir_version=8), *words)


def test_refuses_functions_that_call_themselves() -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 20, "local" : 1]>
        g (float[8] x) => (float[8] y) { y = local.f (x) }
        <domain: "local", opset_import: ["" : 20, "local" : 1]> f (a) => (c) { c = local.h (a) }
        <domain: "local", opset_import: ["" : 20, "local" : 1]> h (a) => (c) { c = local.f (a) }"""
    )
    refuse(model, "local functions call themselves: f, h")


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (TensorProto.STRING, "string"),
        (TensorProto.COMPLEX64, "complex64"),
        (TensorProto.FLOAT8E4M3FN, "float8e4m3fn"),
    ],
)
def test_refuses_element_types(kind: int, word: str) -> None:
    node = helper.make_node("Identity", ["x"], ["y"], name="n")
    refuse(one_node(node, [("x", kind, [2])]), "input 'x'", word, "not supported")


def weighted(tensor: TensorProto, op: str = "MatMul") -> ModelProto:
    model = one_node(
        helper.make_node(op, ["x", "w"], ["y"], name="n"), [("x", TensorProto.FLOAT, [2, 4])]
    )
    tensor.name = "w"
    model.graph.initializer.append(tensor)
    return model


def test_refuses_sizes_that_do_not_fit_the_data() -> None:
    tensor = numpy_helper.from_array(np.zeros((4, 4), np.float32))
    tensor.dims[0] = 5
    refuse(weighted(tensor), "initializer 'w'", "needs 80 bytes, the file has 64 bytes")
    tensor.dims[0] = 1 << 60
    refuse(weighted(tensor), "initializer 'w'", "absurd")
    tensor.dims[0] = -4
    refuse(weighted(tensor), "initializer 'w'", "negative size")
    values = helper.make_tensor("w", TensorProto.FLOAT, [4, 4], [1.0] * 16)
    values.dims[0] = 3
    refuse(weighted(values), "needs 48 bytes, the file has 16 values")


@pytest.mark.parametrize(("bad", "op"), [(np.nan, "MatMul"), (np.inf, "MatMul"), (np.nan, "Add")])
def test_refuses_weights_that_are_not_finite(bad: float, op: str) -> None:
    array = np.zeros((4, 4), np.float32)
    array[1, 2] = bad
    model = weighted(numpy_helper.from_array(array), op)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    refuse(model, "weight 'w' is not finite", "at [1, 2]")


def test_an_infinite_mask_is_no_weight() -> None:
    array = np.full((2, 4), -np.inf, np.float32)
    assert ops_of(weighted(numpy_helper.from_array(array), "Add")) == [
        "onnx.Constant",
        "onnx.Add",
        "func.return",
    ]


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (None, ["input 'x'", "extent 'batch' without a bound", "shapes={'batch': (1, 64)}"]),
        ({"batch": (4, 2)}, ["'batch'", "bound 4 to 2", "min <= max"]),
        ({"batch": 0}, ["'batch'", "must be positive"]),
        ({"batch": (1, 2), "z": 3}, ["'z'", "no extent or input", "batch"]),
        ({"x": [1, 2, 3]}, ["input 'x' 3 dims, it has 2"]),
        ({"x": [-1, 8]}, ["input 'x' the dim -1"]),
    ],
)
def test_refuses_shapes(shapes: dict[str, Any] | None, words: list[str]) -> None:
    model = text("g (float[batch, 8] x) => (float[batch, 8] y) { y = Relu (x) }")
    refuse(model, *words, shapes=shapes)


def test_refuses_an_input_without_a_shape() -> None:
    model = one_node(helper.make_node("Relu", ["x"], ["y"]), [("x", TensorProto.FLOAT, [2])])
    model.graph.input[0].type.tensor_type.ClearField("shape")
    refuse(model, "input 'x' has no shape", "shapes={'x': [...]}")


# External data --------------------------------------------------------------------------------


def external(tmp_path: Path, location: str, **entries: str) -> Path:
    """A model in a folder of its own, whose weight names `location`."""
    folder = tmp_path / "model"
    folder.mkdir()
    array = np.arange(16, dtype=np.float32)
    (folder / "w.bin").write_bytes(b"\0" * 8 + array.tobytes())
    (tmp_path / "secret.bin").write_bytes(b"\1" * 128)
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[4, 4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    path = folder / "m.onnx"
    path.write_bytes(weighted(tensor).SerializeToString())
    return path


def test_reads_external_data(tmp_path: Path) -> None:
    path = external(tmp_path, "w.bin", offset="8", length="64")
    ctx = Context()
    constant = next(op for op in import_model(path, ctx).walk() if op.name == "onnx.Constant")
    array = constant_array(store_of(ctx), constant.attributes["value"])
    np.testing.assert_array_equal(array, np.arange(16, dtype=np.float32).reshape(4, 4))


def absolute(tmp_path: Path) -> str:
    return str(tmp_path / "secret.bin")


def linked(tmp_path: Path) -> str:
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "secret.bin")
    return "link.bin"


@pytest.mark.parametrize(
    ("location", "word"),
    [
        ("../secret.bin", "outside the model's folder"),
        ("a/../../secret.bin", "outside the model's folder"),
        (absolute, "outside the model's folder"),
        ("", "outside the model's folder"),
        (linked, "through a link"),
        ("absent.bin", "not in the model's folder"),
    ],
)
def test_refuses_external_data(
    tmp_path: Path, location: str | Callable[[Path], str], word: str
) -> None:
    path = external(tmp_path, "x")
    name = location if isinstance(location, str) else location(tmp_path)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = name
    path.write_bytes(model.SerializeToString())
    refuse(path, "initializer 'w'", word)


@pytest.mark.parametrize(
    ("entries", "word"),
    [
        ({"offset": "16", "length": "64"}, "needs bytes 16 to 80 of 'w.bin', which has 72"),
        ({"offset": "-8", "length": "64"}, "needs bytes -8"),
        ({"offset": "8", "length": "60"}, "needs 64 bytes, the file has an external length of 60"),
        ({"offset": "eight"}, "no number"),
    ],
)
def test_refuses_parts_of_external_data(tmp_path: Path, entries: dict[str, str], word: str) -> None:
    refuse(external(tmp_path, "w.bin", **entries), word)


def test_refuses_external_data_without_a_file(tmp_path: Path) -> None:
    path = external(tmp_path, "w.bin", offset="8")
    refuse(path.read_bytes(), "not read from a file", "pass the model's path")
