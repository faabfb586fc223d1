"""The onnx-level passes keep what a model computes, as ONNX Runtime computes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper
from support.onnx_passes import CLEAN, apply, keeps, kinds, text

from spu_ir.errors import SpuError
from spu_ir.transforms.fold_batch_norm import FoldBatchNormPass
from spu_ir.transforms.fold_constants import FoldConstantsPass
from spu_ir.transforms.fuse_attention import FuseAttentionPass
from spu_ir.transforms.fuse_gelu import FuseGeluPass
from spu_ir.transforms.fuse_layer_norm import FuseLayerNormPass
from spu_ir.transforms.infer_shapes import InferShapesPass
from spu_ir.transforms.symbolic_shapes import reshaped
from spu_ir.transforms.upgrade_opset import UpgradeOpsetPass
from spu_ir.universe import load_pass

# upgrade-opset --------------------------------------------------------------------------------

UPGRADES = [
    (9, "(float[2,3,4,4] x)", "y = Slice <axes=[2,3], starts=[1,0], ends=[3,2]> (x)", ["Slice"]),
    (9, "(float[2,3,4,4] x)", "y = Pad <pads=[0,0,1,1,0,0,1,1], value=2.0> (x)", ["Pad"]),
    (9, "(float[2,3,4,4] x)", "y = Clip <max=0.5> (x)", ["Clip"]),
    (9, "(float[2,3,4,4] x)", "y = ReduceSum <axes=[1], keepdims=0> (x)", ["ReduceSum"]),
    (9, "(float[2,1,4] x)", "y = Squeeze <axes=[1]> (x)", ["Squeeze"]),
    (9, "(float[2,4] x)", "y = Unsqueeze <axes=[1]> (x)", ["Unsqueeze"]),
    (9, "(float[2,4] x)", "y = Dropout (x)", ["Dropout"]),
    (9, "(float[4,4] x)", "y, z = Split <axis=1, split=[1,3]> (x)", ["Split"]),
    (11, "(float[4,4] x)", "y, z = Split <axis=0> (x)", ["Split"]),
    (9, "(float[2,9] x)", "y, i = TopK <axis=1, k=2> (x)", ["TopK"]),
    (11, "(float[1,3,8,8] x)", "y = MaxPool <kernel_shape=[3,3], strides=[2,2]> (x)", ["MaxPool"]),
    (11, "(float[2,3] x)", "y = ArgMax <axis=1, keepdims=0> (x)", ["ArgMax"]),
    (12, "(float[2,3,4] x)", "y = Softmax <axis=2> (x)", ["Softmax"]),
    (12, "(float[2,3,1] x)", "y = LogSoftmax (x)", ["LogSoftmax"]),
    (12, "(float[2,3,4] x)", "y = Softmax (x)", ["Shape", "Flatten", "Softmax", "Reshape"]),
    (12, "(float[2,3,4] x)", "y = Hardmax (x)", ["Shape", "Flatten", "Hardmax", "Reshape"]),
    # What `Expand` makes has no known rank for ONNX's inference.
    (
        12,
        "(float[2,3,4] x)",
        """c = Constant <value = int64[3] {2, 3, 4}> ()
        s = Abs (c)
        e = Expand (x, s)
        f = Add (e, x)
        y = Softmax <axis=2> (f)""",
        ["Abs", "Expand", "Add", "Softmax"],
    ),
    (
        12,
        "(float[2,3,4] x)",
        """c = Constant <value = int64[3] {2, 3, 4}> ()
        s = Abs (c)
        e = Reshape (x, s)
        y = Softmax <axis=1> (e)""",
        ["Abs", "Reshape", "Shape", "Flatten", "Softmax", "Reshape"],
    ),
    (16, "(float[1,1,4,4] x, float[1,2,2,2] w)", "y = GridSample (x, w)", ["GridSample"]),
    (
        9,
        "(float[1,2,4,4] x)",
        """s = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> ()
        y = Upsample <mode = "linear"> (x, s)""",
        ["Resize"],
    ),
    (
        10,
        "(float[1,2,4,4] x)",
        """s = Constant <value = float[4] {1.0, 1.0, 1.6, 1.6}> ()
        y = Resize <mode = "nearest"> (x, s)""",
        ["Resize"],
    ),
    (
        11,
        "(float[5,2,3] x, float[1,16,3] w, float[1,16,4] r)",
        "y = LSTM <hidden_size = 4> (x, w, r)",
        ["LSTM"],
    ),
]


@pytest.mark.parametrize(("opset", "inputs", "body", "expected"), UPGRADES)
def test_upgrade_keeps_results(opset: int, inputs: str, body: str, expected: list[str]) -> None:
    results = body.splitlines()[-1].partition("=")[0].split(",")
    kind = "int64" if "ArgMax" in body else "float"
    outputs = ", ".join(f"float[n{i}] {name.strip()}" for i, name in enumerate(results))
    if "TopK" in body:
        outputs = outputs.replace("float[n1]", "int64[n1]")
    model = text(
        f"g {inputs} => ({outputs.replace('float[n0]', f'{kind}[n0]')}) {{ {body} }}", opset
    )
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    assert keeps(model, [UpgradeOpsetPass(), InferShapesPass()]) == expected


def test_upgrade_refuses_what_has_no_way_up() -> None:
    model = text(
        "g (float[2,3] x, float[3] z) => (bool[2,3] y) { y = Less <broadcast=1> (x, z) }", 6
    )
    with pytest.raises(
        SpuError,
        match=r"^Less: cannot be raised from opset 1 to 13, ONNX says: No Adapter.*newer opset",
    ):
        apply(model, [UpgradeOpsetPass()])


def test_upgrade_refuses_to_flatten_what_it_does_not_know() -> None:
    model = text(
        "g (float[2,3] x, int64[n] s) => (float[m] y) { r = Reshape (x, s) y = Softmax (r) }", 12
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(SpuError, match=r"\(?Softmax\)?.*unknown rank.*opset 13 or later"):
        apply(model, [UpgradeOpsetPass()], {"n": (1, 4)})


def test_upgrade_reaches_subgraphs() -> None:
    model = text(
        """g (float[4] x, bool c) => (float[4] y) { y = If (c) <
          then_branch = t () => (float[4] a) { a = Clip <max = 0.5> (x) },
          else_branch = e () => (float[4] b) { b = Relu (x) }> }""",
        10,
    )
    assert keeps(model, [UpgradeOpsetPass()]) == ["If", "Clip", "Yield", "Relu", "Yield"]


# infer-shapes and fold-constants --------------------------------------------------------------


@pytest.mark.parametrize(
    ("dims", "shape", "zero_is_size", "expected"),
    [
        (("n", 8), [0, 2, -1], False, ["n", 2, 4]),
        (("n", "m", 8), ["n", "m", -1, 4], False, ["n", "m", 2, 4]),
        (("n", "m", 8), [-1, 8], False, [None, 8]),
        (("n", 8), [-1, 8], False, ["n", 8]),
        (("n", 8), [-1, 3], False, [None, 3]),
        (("n", 8), [-1, "m"], False, [None, "m"]),
        ((None, 8), [-1, 8], False, [None, 8]),
        ((4, 0), [0, 4], True, [0, 4]),
    ],
)
def test_reshape_divides_extents(
    dims: tuple[Any, ...], shape: list[Any], zero_is_size: bool, expected: list[Any]
) -> None:
    assert reshaped(dims, shape, zero_is_size) == expected


def test_sizes_of_static_dims_are_constants() -> None:
    model = text(
        """g (float[batch, 3, 8] x) => (float[n, m] y) {
          s = Shape (x)
          i = Constant <value = int64 {0}> ()
          one = Constant <value_ints = [1]> () two = Constant <value_ints = [2]> ()
          three = Constant <value_ints = [3]> ()
          b = Gather (s, i)  z = Constant <value_ints = [0]> ()  bu = Unsqueeze (b, z)
          c = Slice (s, one, three)  p = ReduceProd (c, z)
          t = Concat <axis = 0> (bu, p)
          y = Reshape (x, t) }"""
    )
    left = keeps(model, CLEAN, {"batch": 5})
    assert left == ["Shape", "Gather", "Unsqueeze", "Concat", "Reshape"]
    _, module = apply(model, CLEAN, {"batch": (1, 64)})
    assert "tensor<?x24xf32>" in str(module)


@pytest.mark.parametrize("axis", [0, 1])
def test_long_constants_are_gathered_element_by_element(axis: int) -> None:
    """More than 32 along the axis, and fewer indices than that along the other."""
    random = np.random.default_rng(0)
    table = random.normal(size=(40, 50)).astype(np.float32)
    index = random.integers(-40, 40, (7, 9))
    model = text(
        f"""g (float[7,9] x) => (float[7,9] y) {{
            g = GatherElements <axis={axis}> (table, index) y = Add (g, x)
        }}"""
    )
    weights = {"table": table, "index": index}
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in weights.items())
    assert keeps(model, [FoldConstantsPass()]) == ["Add"]


def test_a_taken_branch_is_inlined() -> None:
    model = text(
        """g (float[4] x) => (float[4] y) { c = Constant <value = bool {0}> () y = If (c) <
          then_branch = t () => (float[4] a) { a = Exp (x) },
          else_branch = e () => (float[4] b) { u = Relu (x) b = Neg (u) }> }"""
    )
    assert keeps(model, CLEAN) == ["Relu", "Neg"]


def growing(size: int, count: int = 1) -> ModelProto:
    """A tiny file whose constants are `count` vectors of `size` elements."""
    shape = numpy_helper.from_array(np.array([size], np.int64), "n")
    nodes = [
        helper.make_node(
            "ConstantOfShape",
            ["n"],
            [f"c{i}"],
            value=helper.make_tensor("v", onnx.TensorProto.FLOAT, [1], [float(i)]),
        )
        for i in range(count)
    ]
    nodes.append(helper.make_node("Sum", [f"c{i}" for i in range(count)] + ["x"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [shape],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)


def test_a_tiny_file_cannot_allocate_gigabytes() -> None:
    _, module = apply(growing(1 << 38), CLEAN)
    assert kinds(module) == ["ConstantOfShape", "Sum"]
    # Each of these is small enough, all together are not.
    passes = [*CLEAN[:2], FoldConstantsPass(limit=100, total=250)]
    _, module = apply(growing(100, 4), passes)
    assert kinds(module).count("ConstantOfShape") == 2


def test_large_weights_are_folded_where_nothing_grows() -> None:
    weight = np.arange(32, dtype=np.float32).reshape(4, 8)
    model = text("g (float[2, 8] x) => (float[2, 4] y) { t = Transpose (w) y = MatMul (x, t) }")
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    assert keeps(model, [*CLEAN[:2], FoldConstantsPass(limit=1)]) == ["MatMul"]


def test_random_and_quantised_constants_stay() -> None:
    model = text(
        """g (float[2,4] x) => (float[2,4] y) {
          r = RandomNormal <shape = [2, 4]> ()
          q = Constant <value = int8[4] {1, 2, 3, 4}> () s = Constant <value = float {0.5}> ()
          d = DequantizeLinear (q, s)
          u = Add (x, d) y = Add (u, r) }"""
    )
    _, module = apply(model, CLEAN)
    assert kinds(module) == ["RandomNormal", "DequantizeLinear", "Add", "Add"]


# fuse-* ---------------------------------------------------------------------------------------

MULTI_HEAD = """
  cut = Constant <value_ints = [0, 0, 2, 4]> () join = Constant <value_ints = [0, 0, 8]> ()
  q0 = Reshape (q, cut) q1 = Transpose <perm = [0, 2, 1, 3]> (q0)
  k0 = Reshape (k, cut) k1 = Transpose <perm = [0, 2, 3, 1]> (k0)
  v0 = Reshape (v, cut) v1 = Transpose <perm = [0, 2, 1, 3]> (v0)
  {scores}
  p = Softmax <axis = -1> (s)
  m = MatMul (p, v1) t = Transpose <perm = [0, 2, 1, 3]> (m) y = Reshape (t, join)
"""
SCORES = {
    "plain": "s = MatMul (q1, k1)",
    "div": "r = Constant <value = float {2.0}> () a = MatMul (q1, k1) s = Div (a, r)",
    "mul": "r = Constant <value = float {0.3}> () a = MatMul (q1, k1) s = Mul (r, a)",
    "both": """r = Constant <value = float {0.7}> () q2 = Mul (q1, r) k2 = Mul (k1, r)
    s = MatMul (q2, k2)""",
    "mask": "a = MatMul (q1, k1) s = Add (a, mask)",
    "mask first": "a = MatMul (q1, k1) s = Add (mask, a)",
}


@pytest.mark.parametrize("scores", SCORES)
def test_attention_keeps_results(scores: str) -> None:
    inputs = "float[batch,seq,8] q, float[batch,keys,8] k, float[batch,keys,8] v"
    if "mask" in scores:
        inputs += ", float[batch,1,1,keys] mask"
    body = MULTI_HEAD.replace("{scores}", SCORES[scores])
    model = text(f"g ({inputs}) => (float[batch,seq,8] y) {{ {body} }}")
    passes = [*CLEAN, FuseAttentionPass()]
    assert keeps(model, passes, {"batch": 3, "seq": 5, "keys": 7}, 1e-5) == ["Attention"]


@pytest.mark.parametrize(
    "wrong",
    [
        # The heads of K are cut in another order than those of Q and V.
        (
            "k0 = Reshape (k, cut)",
            "kc = Constant <value_ints = [0, 0, 4, 2]> () k0 = Reshape (k, kc)",
        ),
        # A scale for each key is no scale of all.
        ("s = MatMul (q1, k1)", "a = MatMul (q1, k1) s = Mul (a, scales)"),
        # A zero in the last shape copies the heads, which attention has joined with the depth.
        ("join = Constant <value_ints = [0, 0, 8]>", "join = Constant <value_ints = [5, 12, 0]>"),
    ],
)
def test_what_is_no_attention_is_left(wrong: tuple[str, str]) -> None:
    body = MULTI_HEAD.replace("{scores}", SCORES["plain"]).replace(*wrong)
    if "value_ints = [0, 0, 4, 2]" in body:
        body = body.replace("[0, 2, 3, 1]> (k0)", "[0, 3, 2, 1]> (k0)")
        body = body.replace(
            "s = MatMul (q1, k1)", "k2 = Transpose <perm = [0,1,2,3]> (k1) s = MatMul (q1, k2)"
        )
    inputs = "float[3,5,8] q, float[3,5,8] k, float[3,5,8] v, float[5] scales"
    model = text(f"g ({inputs}) => (float[a,b,c] y) {{ {body} }}")
    assert "Attention" not in keeps(model, [*CLEAN, FuseAttentionPass()], tolerance=1e-6)


NORMS = {
    "pow": "two = Constant <value = float {2.0}> () s = Pow (d, two)",
    "mul": "s = Mul (d, d)",
}
QUOTIENTS = {"div": "n = Div (d, r)", "reciprocal": "i = Reciprocal (r) n = Mul (d, i)"}
AFFINES = {
    "none": "y = Identity (n)",
    "scale": "y = Mul (g, n)",
    "bias": "y = Add (n, b)",
    "both": "m = Mul (n, g) y = Add (m, b)",
}


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("square", NORMS)
@pytest.mark.parametrize("quotient", QUOTIENTS)
@pytest.mark.parametrize("affine", AFFINES)
def test_layer_norm_keeps_results(opset: int, square: str, quotient: str, affine: str) -> None:
    # The mean takes its axes as an attribute before opset 18, then as an operand.
    axes, operand = ("<axes = [-1]>", "") if opset < 18 else ("", ", a")
    model = text(
        f"""g (float[batch, 3, 6] x) => (float[batch, 3, 6] y)
        <float[6] g = {{1, 2, 3, 4, 5, 6}}, float[6] b = {{6, 5, 4, 3, 2, 1}}> {{
          a = Constant <value_ints = [-1]> () e = Constant <value = float {{0.001}}> ()
          u = ReduceMean {axes} (x{operand}) d = Sub (x, u) {NORMS[square]}
          v = ReduceMean {axes} (s{operand}) w = Add (v, e) r = Sqrt (w)
          {QUOTIENTS[quotient]} {AFFINES[affine]} }}""",
        opset,
    )
    left = keeps(model, [*CLEAN, FuseLayerNormPass()], {"batch": 4}, 1e-5)
    # A bias without a scale is fused with the norm too.
    assert left == ["LayerNormalization"]


GELUS = {
    "none": """c = Constant <value = float {1.41421356}> () o = Constant <value = float {1.0}> ()
      h = Constant <value = float {0.5}> () d = Div (x, c) e = Erf (d) a = Add (e, o)
      m = Mul (x, a) y = Mul (m, h)""",
    "tanh": """c = Constant <value = float {0.79788456}> () o = Constant <value = float {1.0}> ()
      h = Constant <value = float {0.5}> () k = Constant <value = float {0.044715}> ()
      x2 = Mul (x, x) x3 = Mul (x, x2) f = Mul (k, x3) s = Add (x, f) u = Mul (c, s) t = Tanh (u)
      a = Add (o, t) hx = Mul (h, x) y = Mul (hx, a)""",
}


@pytest.mark.parametrize("approximate", GELUS)
def test_gelu_keeps_results(approximate: str) -> None:
    model = text(f"g (float[batch, 6] x) => (float[batch, 6] y) {{ {GELUS[approximate]} }}")
    _, module = apply(model, [*CLEAN, FuseGeluPass()], {"batch": (1, 8)})
    assert kinds(module) == ["Gelu"]
    assert f'approximate = "{approximate}"' in str(module)
    assert keeps(model, [*CLEAN, FuseGeluPass()], {"batch": 4}, 1e-6) == ["Gelu"]


# fold-batch-norm ------------------------------------------------------------------------------

PRODUCTS = [
    ("Conv", "[4,2,3,3]", "float[batch,2,6,6] x", "c = Conv (x, w, k)", ["Conv"]),
    ("Conv of groups", "[4,1,3,3]", "float[batch,2,6,6] x", "c = Conv <group=2> (x, w)", ["Conv"]),
    (
        "ConvTranspose of groups",
        "[4,2,3,3]",
        "float[batch,4,6,6] x",
        "c = ConvTranspose <group=2> (x, w, k)",
        ["ConvTranspose"],
    ),
    (
        "Gemm",
        "[4,6]",
        "float[batch,6] x",
        "c = Gemm <transB=1, alpha=0.5, beta=2.0> (x, w, k)",
        ["Gemm"],
    ),
    ("MatMul", "[6,4]", "float[batch,6] x", "c = MatMul (x, w)", ["MatMul", "Add"]),
]


@pytest.mark.parametrize(("name", "shape", "inputs", "product", "expected"), PRODUCTS)
def test_batch_norm_goes_into_weights(
    name: str, shape: str, inputs: str, product: str, expected: list[str]
) -> None:
    random = np.random.default_rng(1)
    model = text(
        f"""g ({inputs}) => (float[n] y) {{ {product}
        y = BatchNormalization <epsilon = 0.01> (c, scale, shift, mean, variance) }}"""
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    arrays = {
        "w": random.standard_normal(tuple(int(d) for d in shape[1:-1].split(","))),
        "k": random.standard_normal(4),
        "scale": random.standard_normal(4),
        "shift": random.standard_normal(4),
        "mean": random.standard_normal(4),
        "variance": random.random(4) + 0.1,
    }
    for key, array in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), key))
    assert keeps(model, [*CLEAN, FoldBatchNormPass()], {"batch": 3}, 1e-5) == expected, name


def test_a_gemm_that_adds_a_matrix_is_left() -> None:
    model = text(
        """g (float[3,2] x) => (float[3,2] y) <float[2] o = {1, 2}> {
          w = Constant <value = float[2,2] {1.0, 2.0, 3.0, 4.0}> ()
          k = Constant <value = float[3,2] {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}> ()
          c = Gemm (x, w, k) y = BatchNormalization (c, o, o, o, o) }"""
    )
    left = keeps(model, [*CLEAN, FoldBatchNormPass()], tolerance=1e-6)
    assert left == ["Gemm", "BatchNormalization"]


@pytest.mark.parametrize(
    "name", ["fuse-layer-norm", "fuse-gelu", "fuse-attention", "fold-batch-norm", "fold-constants"]
)
def test_passes_are_idempotent(name: str) -> None:
    model = text(f"g (float[batch, 6] x) => (float[batch, 6] y) {{ {GELUS['none']} }}")
    ctx, module = apply(model, [*CLEAN, load_pass(name)()], {"batch": (1, 8)})
    once = str(module)
    load_pass(name)().apply(ctx, module)
    assert str(module) == once
