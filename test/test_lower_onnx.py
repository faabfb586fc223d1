"""The lowering from ONNX to spu and vpu: every operator against ONNX's own node tests."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests
from support.lowering import check, lowered, named, normal, parsed
from xdsl.context import Context
from xdsl.dialects import arith, tensor

from spu_ir.dialects import spu, vpu
from spu_ir.dialects.types import Array, element_of, i8, shape_of
from spu_ir.errors import SpuError
from spu_ir.frontend import import_model
from spu_ir.interpreters import interpret
from spu_ir.tools.support_table import LIMITS
from spu_ir.transforms.expand_quantised import PRODUCTS
from spu_ir.transforms.lower_onnx import LowerOnnxPass
from spu_ir.transforms.lowering import AT_COMPILE_TIME, LOWERINGS
from spu_ir.zoo import resnet50

MASKED_ROWS = {
    "test_attention_causal_boolmask_nan_robustness",
    "test_attention_23_boolmask_fullymasked_row_nan_robustness",
}
"""A query that may see no key gets the mean of all values here, 0 in ONNX's newest tests."""


# Every operator, by the node tests that come with ONNX


class Case(NamedTuple):
    name: str
    model: ModelProto
    inputs: Sequence[Array]
    outputs: Sequence[Array]


HELD = {getattr(TensorProto, n) for n in ("FLOAT", "INT64", "INT32", "BOOL", "INT8", "UINT8")}
"""Element types that lower."""


@cache
def node_cases() -> dict[str, list[Case]]:
    """ONNX's node tests of one node of the default domain, by operator."""
    found: dict[str, list[Case]] = {}
    with warnings.catch_warnings():
        # Making the data of the tests overflows a cast.
        warnings.simplefilter("ignore")
        tests = load_model_tests(kind="node")
    for test in tests:
        graph = test.model.graph
        kinds = {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
        single = len(graph.node) == 1 and not graph.node[0].domain
        if single and kinds <= HELD and "expanded" not in test.name:
            inputs, outputs = test.data_sets[0]
            case = Case(test.name, test.model, inputs, outputs)
            found.setdefault(graph.node[0].op_type, []).append(case)
    return found


def variants(case: Case) -> Iterator[tuple[ModelProto, dict[str, Array]]]:
    """The model as it is, and with every input but the first constant."""
    feeds = {
        v.name: np.asarray(x) for v, x in zip(case.model.graph.input, case.inputs, strict=False)
    }
    yield case.model, feeds
    model = ModelProto()
    model.CopyFrom(case.model)
    names = list(feeds)
    del model.graph.input[1:]
    model.graph.initializer.extend(numpy_helper.from_array(feeds[n], n) for n in names[1:])
    yield model, {n: feeds[n] for n in names[:1]}


def lowers(case: Case) -> bool:
    """Whether a variant of the case has a lowering, which then gives the expected outputs."""
    for model, feeds in variants(case):
        try:
            ctx, module = lowered(model)
            got = interpret(module, ctx, feeds)
        except SpuError:
            continue
        for output, expected in zip(case.model.graph.output, case.outputs, strict=False):
            assert got[output.name].shape == expected.shape, case.name
            np.testing.assert_allclose(
                got[output.name].astype(np.float64),
                np.asarray(expected).astype(np.float64),
                rtol=1e-3,
                atol=1e-5,
                err_msg=case.name,
            )
        return True
    return False


OTHERWISE = {"Cast", "CastLike", "Constant", "ConstantOfShape", "Range"}
"""Operators whose node tests have other types or no constant shape; tests below use them."""


@pytest.mark.parametrize("operator", sorted({*LOWERINGS, *AT_COMPILE_TIME, *PRODUCTS} - OTHERWISE))
def test_operator(operator: str) -> None:
    """At least one node test of an operator lowers, and all that lower are right."""
    cases = [c for c in node_cases()[operator] if c.name not in MASKED_ROWS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert sum(lowers(case) for case in cases) >= 1


def test_limits_are_of_operators_that_compile() -> None:
    assert LIMITS.keys() <= {*LOWERINGS, *AT_COMPILE_TIME, *PRODUCTS}


# Run-time extents


def test_extents_of_one_name_are_one_value() -> None:
    model = parsed(
        "m (float[batch, seq, 8] x, float[batch, seq, 8] y) => (float[batch, seq, 8] z)"
        "{ z = Add(x, y) }"
    )
    module = check(
        model,
        {"x": normal(2, 3, 8), "y": normal(2, 3, 8, seed=1)},
        {"batch": (1, 4), "seq": (1, 8)},
    )
    assert len([op for op in module.walk() if isinstance(op, tensor.DimOp)]) == 2


def test_extents_that_may_differ_are_an_error() -> None:
    model = parsed("m (float[a, 8] x, float[b, 8] y) => (float[?, 8] z) { z = Add(x, y) }")
    model.graph.node[0].name = "sum"
    expected = r"node 'sum' \(Add\): .*a and b are not known to be; give both extents one name"
    with pytest.raises(SpuError, match=expected):
        lowered(model, {"a": (1, 4), "b": (1, 4)})


def test_shape_arithmetic_of_exporters() -> None:
    """Heads split and merged by shapes computed in the graph, as PyTorch exports them."""
    model = parsed(
        """m (float[batch, seq, 24] x) => (float[?, ?, 24] y) {
            shape = Shape (x)
            zero = Constant <value: tensor = int64 {0}> ()
            one = Constant <value: tensor = int64 {1}> ()
            axis = Constant <value: tensor = int64[1] {0}> ()
            heads = Constant <value: tensor = int64[1] {4}> ()
            minus = Constant <value: tensor = int64[1] {-1}> ()
            six = Constant <value: tensor = int64 {6}> ()
            b = Gather (shape, zero)
            s = Gather (shape, one)
            b1 = Unsqueeze (b, axis)
            s1 = Unsqueeze (s, axis)
            split = Concat <axis = 0> (b1, s1, heads, minus)
            x4 = Reshape (x, split)
            xt = Transpose <perm = [0, 2, 1, 3]> (x4)
            back = Transpose <perm = [0, 2, 1, 3]> (xt)
            width = Mul (six, six)
            twelve = Constant <value: tensor = int64 {12}> ()
            rest = Sub (width, twelve)
            w1 = Unsqueeze (rest, axis)
            merged = Concat <axis = 0> (b1, s1, w1)
            y = Reshape (back, merged)
        }"""
    )
    shapes = {"batch": (1, 4), "seq": (1, 8)}
    module = check(model, {"x": normal(2, 5, 24)}, shapes)
    # It all cancels: the result is the argument.
    assert not named(module, vpu.TransposeOp)


def test_a_slice_to_the_sequence_s_length() -> None:
    model = parsed(
        """m (float[batch, seq, 4] x) => (float[?, ?, 4] y) {
            shape = Shape <start = 1, end = 2> (x)
            zero = Constant <value: tensor = int64[1] {0}> ()
            part = Slice (table, zero, shape, zero)
            y = Add (x, part)
        }""",
        table=normal(16, 4),
    )
    check(model, {"x": normal(2, 5, 4)}, {"batch": (1, 4), "seq": (1, 16)})
    with pytest.raises(SpuError, match="narrow the bound of the extent in shapes"):
        lowered(model, {"batch": (1, 4), "seq": (1, 17)})


def test_the_last_element_of_a_run_time_extent() -> None:
    model = parsed(
        """m (float[batch, seq, 4] x) => (float[?, 1, 4] last, float[?, 4] first) {
            start = Constant <value: tensor = int64[1] {-1}> ()
            end = Constant <value: tensor = int64[1] {9223372036854775807}> ()
            axis = Constant <value: tensor = int64[1] {1}> ()
            last = Slice (x, start, end, axis)
            zero = Constant <value: tensor = int64 {0}> ()
            first = Gather <axis = 1> (x, zero)
        }"""
    )
    module = check(model, {"x": normal(2, 5, 4)}, {"batch": (1, 4), "seq": (1, 16)})
    assert len(named(module, vpu.GatherOp)) == len(named(module, vpu.SliceOp)) == 1


def test_a_range_as_long_as_the_sequence() -> None:
    model = parsed(
        """m (float[batch, seq] x) => (int64[?, ?] y) {
            shape = Shape (x)
            zero = Constant <value: tensor = int64 {0}> ()
            one = Constant <value: tensor = int64 {1}> ()
            s = Gather (shape, one)
            positions = Range (zero, s, one)
            y = Expand (positions, shape)
        }"""
    )
    check(model, {"x": normal(2, 5)}, {"batch": (1, 4), "seq": (1, 16)})


def test_filled_and_cast() -> None:
    model = parsed(
        """m (float[batch, 4] x, int64[batch, 4] mask) => (float[?, ?] y, bool[?, 4] kept) {
            shape = Shape (x)
            fill = ConstantOfShape <value: tensor = float[1] {2.5}> (shape)
            kept = Cast <to = 9> (mask)
            weight = CastLike (kept, x)
            scaled = Mul (fill, weight)
            whole = Cast <to = 7> (x)
            part = Cast <to = 1> (whole)
            y = Add (scaled, part)
        }"""
    )
    feeds = {"x": normal(2, 4) * 9, "mask": np.array([[0, 1, 2, 0], [1, 0, 0, -3]])}
    check(model, feeds, {"batch": (1, 4)})


def test_a_shape_as_data() -> None:
    model = parsed(
        "m (float[batch, seq, 4] x) => (int64[3] y) { shape = Shape (x) y = Identity (shape) }"
    )
    module = check(model, {"x": normal(2, 5, 4)}, {"batch": (1, 4), "seq": (1, 16)})
    # The extents are read off constants, which are cut behind them; the third is a number.
    assert len(named(module, vpu.SliceOp)) == len(named(module, vpu.GatherOp)) == 2


def test_an_even_quotient_is_no_division() -> None:
    model = parsed(
        """m (float[batch, 12] x) => (float[?, 6] y) {
            shape = Constant <value: tensor = int64[2] {-1, 6}> ()
            y = Reshape (x, shape)
        }"""
    )
    module = check(model, {"x": normal(3, 12)}, {"batch": (1, 4)})
    assert not any(isinstance(op, arith.DivUIOp) for op in module.walk())
    assert any(isinstance(op, arith.MuliOp) for op in module.walk())


def test_a_shape_that_depends_on_data_is_an_error() -> None:
    model = parsed(
        "m (float[2, 6] x, int64[2] shape) => (float[?, ?] y) { y = Reshape (x, shape) }"
    )
    with pytest.raises(SpuError, match="depends on the values of the model's inputs"):
        lowered(model)


# Products


def test_gemm_folds_alpha_beta_and_the_bias() -> None:
    model = parsed(
        "m (float[3, 8] x) => (float[3, 5] y)"
        "{ y = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (x, w, c) }",
        w=normal(5, 8),
        c=normal(5, seed=1),
    )
    module = check(model, {"x": normal(3, 8, seed=2)})
    (product,) = named(module, spu.MatmulOp)
    assert isinstance(product, spu.MatmulOp)
    assert product.bias is not None
    assert not named(module, vpu.BinaryOp)


@pytest.mark.parametrize(
    ("a", "b"), [((7,), (7, 5)), ((3, 7), (7,)), ((7,), (7,)), ((2, 3, 7), (2, 7, 5))]
)
def test_matmul_of_activations_and_of_a_constant(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    shape = ",".join(map(str, np.matmul(normal(*a), normal(*b)).shape))
    shape_of_a, shape_of_b = (",".join(map(str, s)) for s in (a, b))
    out = f"float[{shape}] z" if shape else "float z"
    feeds = {"x": normal(*a), "y": normal(*b, seed=1)}
    both = f"m (float[{shape_of_a}] x, float[{shape_of_b}] y) => ({out}) {{ z = MatMul(x, y) }}"
    check(parsed(both), feeds)
    one = f"m (float[{shape_of_a}] x) => ({out}) {{ z = MatMul(x, y) }}"
    check(parsed(one, y=feeds["y"]), {"x": feeds["x"]})


def test_a_transposed_operand_is_read_as_it_is() -> None:
    model = parsed(
        "m (float[2, 3, 8] q, float[2, 5, 8] k) => (float[2, 3, 5] y)"
        "{ kt = Transpose <perm = [0, 2, 1]> (k) y = MatMul (q, kt) }"
    )
    module = check(model, {"q": normal(2, 3, 8), "k": normal(2, 5, 8, seed=1)})
    (product,) = named(module, spu.BatchMatmulOp)
    assert isinstance(product, spu.BatchMatmulOp)
    assert product.transposed
    assert product.b.name_hint == "k"


@pytest.mark.parametrize(
    "attributes",
    ['auto_pad = "SAME_LOWER", strides = [2]', "group = 3, pads = [2, 1], dilations = [2]"],
)
def test_conv_of_one_spatial_axis(attributes: str) -> None:
    model = parsed(
        f"m (float[b, 6, 11] x) => (float[?, 9, ?] y) {{ y = Conv <{attributes}> (x, w, c) }}",
        w=normal(9, 2 if "group" in attributes else 6, 3),
        c=normal(9, seed=1),
    )
    check(model, {"x": normal(2, 6, 11, seed=2)}, {"b": (1, 2)})


def test_a_convolution_by_one_tap_of_a_line_is_a_product() -> None:
    model = parsed(
        "m (float[b, 6, t] x) => (float[?, 9, ?] y) { y = Conv (x, w, c) }",
        w=normal(9, 6, 1),
        c=normal(9, seed=1),
    )
    module = check(model, {"x": normal(2, 6, 11, seed=2)}, {"b": (1, 2), "t": (1, 16)})
    assert len(named(module, spu.MatmulOp)) == 1


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("group", [1, 2])
def test_conv_transpose(stride: int, group: int) -> None:
    extra = stride - 1
    model = parsed(
        f"m (float[2, 4, 5, 6] x) => (float[?, ?, ?, ?] y) {{ y = ConvTranspose <"
        f"strides = [{stride}, {stride}], pads = [1, 0, 1, 1], group = {group}, "
        f"output_padding = [{extra}, 0]> (x, w, c) }}",
        w=normal(4, 3, 3, 4),
        c=normal(3 * group, seed=1),
    )
    check(model, {"x": normal(2, 4, 5, 6, seed=2)})


def test_a_run_time_height_is_an_error() -> None:
    model = parsed(
        "m (float[1, 3, h, 8] x) => (float[1, 4, ?, ?] y) { y = Conv (x, w) }", w=normal(4, 3, 3, 3)
    )
    with pytest.raises(SpuError, match="height and width of an image must be known"):
        lowered(model, {"h": (8, 16)})


def test_resnet_has_one_transpose_and_layers_keep_their_names() -> None:
    _, module = lowered(resnet50(), {"batch": (1, 4)})
    transposes = [op for op in named(module, vpu.TransposeOp) if op.results[0].uses]
    assert [shape_of(op.results[0])[3] for op in transposes] == [3]
    layers = [op.attributes["layer"] for op in named(module, spu.ConvOp)]
    assert len(set(layers)) == 53
    assert '"/layer4.2.conv3/Conv"' in map(str, layers)


# Quantised models


def test_a_quantised_weight_stays_integer() -> None:
    """u8 weights around 128 become i8; the scale of a channel follows the rows."""
    weight = np.random.default_rng(0).integers(0, 256, (8, 5)).astype(np.uint8)
    model = parsed(
        """m (float[3, 8] x) => (float[3, 5] y) {
            q = QuantizeLinear (x, s, z)
            d = DequantizeLinear (q, s, z)
            wd = DequantizeLinear <axis = 1> (w, ws, wz)
            y = MatMul (d, wd)
        }""",
        s=np.float32(0.05),
        z=np.uint8(120),
        w=weight,
        ws=np.abs(normal(5)),
        wz=np.full(5, 128, np.uint8),
    )
    module = check(model, {"x": normal(3, 8, seed=1)})
    (product,) = named(module, spu.MatmulOp)
    assert isinstance(product, spu.MatmulOp)
    source = product.weight.owner
    assert isinstance(source, vpu.DequantiseOp)
    assert source.axis.value.data == 0
    assert element_of(source.x) == i8
    assert source.zero is None


def test_an_asymmetric_weight_beyond_int8_runs_in_float() -> None:
    model = parsed(
        "m (float[3, 8] x) => (float[3, 5] y)"
        "{ wd = DequantizeLinear (w, s, z) y = MatMul (x, wd) }",
        w=np.arange(40, dtype=np.uint8).reshape(8, 5) * np.uint8(6),
        s=np.float32(0.1),
        z=np.uint8(10),
    )
    module = check(model, {"x": normal(3, 8)})
    assert not named(module, vpu.DequantiseOp)


def test_a_quantised_table_is_gathered_in_bytes() -> None:
    model = parsed(
        "m (int64[2, 3] i) => (float[2, 3, 4] y)"
        "{ t = DequantizeLinear (w, s, z) y = Gather (t, i) }",
        w=np.arange(40, dtype=np.uint8).reshape(10, 4),
        s=np.float32(0.25),
        z=np.uint8(7),
    )
    module = check(model, {"i": np.arange(6).reshape(2, 3)})
    (gather,) = named(module, vpu.GatherOp)
    assert shape_of(gather.inputs[0]) == (10, 4)
    assert str(element_of(gather.inputs[0])) == "ui8"


def test_a_quantised_bias_and_a_depthwise_convolution() -> None:
    """One scale for a vector: the axis, which does not exist, does not matter."""
    model = parsed(
        """m (float[b, 4, 6, 6] x) => (float[?, 4, 6, 6] y) {
            q = QuantizeLinear (x, s, z)
            d = DequantizeLinear (q, s, z)
            wd = DequantizeLinear <axis = 0> (w, ws)
            cd = DequantizeLinear (c, cs)
            y = Conv <group = 4, pads = [1, 1, 1, 1]> (d, wd, cd)
        }""",
        s=np.float32(0.05),
        z=np.uint8(120),
        w=np.random.default_rng(0).integers(-127, 128, (4, 1, 3, 3)).astype(np.int8),
        ws=np.abs(normal(4)),
        c=np.array([10, -20, 30, 40], np.int32),
        cs=np.float32(0.01),
    )
    module = check(model, {"x": normal(2, 4, 6, 6, seed=1)}, {"b": (1, 2)})
    (product,) = named(module, spu.ConvOp)
    assert isinstance(product, spu.ConvOp)
    assert isinstance(product.weight.owner, vpu.DequantiseOp)
    assert product.bias is not None


def test_dynamic_quantisation_as_onnx_runtime_exports_it() -> None:
    model = parsed(
        """m (float[rows, 64] x) => (float[rows, 5] y) {
            q, s, z = DynamicQuantizeLinear (x)
            product = MatMulInteger (q, w, z, wz)
            real = Cast <to = 1> (product)
            scales = Mul (s, ws)
            scaled = Mul (real, scales)
            y = Add (scaled, c)
        }""",
        w=np.random.default_rng(0).integers(-127, 128, (64, 5)).astype(np.int8),
        wz=np.int8(0),
        ws=np.float32(0.01),
        c=normal(5),
    )
    check(model, {"x": normal(4, 64, seed=1)}, {"rows": (1, 8)}, rtol=1e-4)


# Errors


def test_an_operator_without_a_lowering() -> None:
    model = parsed("m (float[4, 4] x) => (float[4, 4] y) { y = Det (x) }")
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.node[0].name = "minor"
    with pytest.raises(SpuError) as caught:
        lowered(model)
    assert str(caught.value) == (
        "node 'minor' (Det): no lowering; docs/onnx-support.md lists the operators that have one"
    )


def test_an_old_version_names_the_pass_that_raises_it() -> None:
    model = parsed("m (float[4, 4] x) => (float[4, 4] y) { y = Relu (x) }")
    model.opset_import[0].version = 6
    ctx = Context()
    module = import_model(model, ctx)
    with pytest.raises(SpuError, match="run upgrade-opset before lower-onnx"):
        LowerOnnxPass().apply(ctx, module)


@pytest.mark.parametrize(("kind", "name"), [("float16", "f16"), ("double", "f64")])
def test_an_input_of_another_float_type(kind: str, name: str) -> None:
    model = parsed(f"m ({kind}[4] x) => ({kind}[4] y) {{ y = Relu (x) }}")
    with pytest.raises(SpuError, match=f"input 'x' has the element type {name}"):
        lowered(model)


def test_floats_of_other_widths_inside_a_model_are_f32() -> None:
    model = parsed(
        "m (float[4] x) => (float[4] y)"
        "{ d = Cast <to = 11> (x) e = Mul (d, c) y = Cast <to = 1> (e) }",
        c=np.array([0.1, 0.2, 0.3, 0.4]),
    )
    check(model, {"x": normal(4)})
