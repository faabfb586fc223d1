"""Passes that follow axes through reshapes and transposes: what they find; results stay."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper
from support.onnx_passes import CLEAN, apply, keeps, text

from spu_ir.transforms.collapse_movement import CollapseMovementPass
from spu_ir.transforms.fuse_attention import FuseAttentionPass
from spu_ir.transforms.split_products import SplitProductsPass
from spu_ir.transforms.symbolic_shapes import symbolic_dims
from spu_ir.transforms.unflatten_products import UnflattenProductsPass

SIZES = {"batch": 3, "seq": 5}
STEPS = {
    "collapse": CollapseMovementPass(),
    "split": SplitProductsPass(),
    "unflatten": UnflattenProductsPass(),
    "attention": FuseAttentionPass(),
}


def left(model: ModelProto, step: str, **sizes: int) -> list[str]:
    """The ops that a pass leaves of a model, whose results are held to stay."""
    names = {dim.dim_param for i in model.graph.input for dim in i.type.tensor_type.shape.dim}
    chosen = {name: size for name, size in (SIZES | sizes).items() if name in names}
    return keeps(model, [*CLEAN, STEPS[step]], chosen, 1e-5)


def weighted(body: str, **shapes: tuple[int, ...]) -> ModelProto:
    """A model whose initializers are random numbers of the given shapes."""
    random = np.random.default_rng(1)
    model = text(body)
    for name, shape in shapes.items():
        array = random.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


# collapse-movement ----------------------------------------------------------------------------

BY_HEADS = """
  cut = Constant <value_ints = [4, -1, 2]> () apart = Constant <value_ints = [-1, 3, 4, 2]> ()
  a = Reshape (x, cut) b = Transpose <perm = [1, 0, 2]> (a) y = Reshape (b, apart)
"""


def test_merged_batch_and_heads_come_apart() -> None:
    model = text(f"g (float[4,batch,6] x) => (float[b,h,s,d] y) {{ {BY_HEADS} }}")
    assert left(model, "collapse") == ["Reshape", "Transpose"]


def test_a_chain_that_does_nothing_goes() -> None:
    body = """one = Constant <value_ints = [1]> () flat = Constant <value_ints = [-1, 8]> ()
      back = Constant <value_ints = [-1, 1, 8]> ()
      a = Unsqueeze (x, one) b = Reshape (a, flat) c = Reshape (b, back) d = Squeeze (c, one)
      y = Relu (d)"""
    model = text(f"g (float[batch,8] x) => (float[batch,8] y) {{ {body} }}")
    assert left(model, "collapse") == ["Relu"]


@pytest.mark.parametrize(
    "body",
    [
        # The last reshape joins two axes that came from apart.
        """cut = Constant <value_ints = [0, 0, 2, 4]> ()
        join = Constant <value_ints = [0, -1, 20]> () a = Reshape (x, cut)
        b = Transpose <perm = [0, 2, 3, 1]> (a) y = Reshape (b, join)""",
        # 6 does not divide 8, nor 8 divide 6.
        """cut = Constant <value_ints = [-1, 6]> () join = Constant <value_ints = [-1, 2, 3]> ()
        a = Reshape (x, cut) b = Reshape (a, join) y = Transpose <perm = [2, 1, 0]> (b)""",
    ],
)
def test_other_chains_stay(body: str) -> None:
    model = text(f"g (float[3,5,8] x) => (float[a,b,c] y) {{ {body} }}")
    _, before = apply(model, CLEAN)
    _, after = apply(model, [*CLEAN, CollapseMovementPass()])
    assert str(after) == str(before)
    left(model, "collapse")


# split-products -------------------------------------------------------------------------------

PACKED = """
  cut = Constant <value_ints = [0, 0, 3, 8]> () front = Constant <value_ints = [0]> ()
  fourth = Constant <value_ints = [3]> ()
  zero = Constant <value_int = 0> () one = Constant <value_int = 1> ()
  two = Constant <value_int = -1> ()
  m = MatMul (x, w) p = Add (bias, m) c = Reshape (p, cut) u = Unsqueeze (c, front)
  t = Transpose <perm = [3, 1, 2, 0, 4]> (u) packed = Squeeze (t, fourth)
  q = Gather (packed, zero) k = Gather (packed, one) v = Gather (packed, two)
"""
"""As nn.MultiheadAttention has its projections."""


def test_packed_projections_are_products_apart() -> None:
    body = (
        f"g (float[seq,batch,8] x) => (float[a,b,c] q, float[d,e,f] k, float[g,h,i] v) {{{PACKED}}}"
    )
    model = weighted(body, w=(8, 24), bias=(24,))
    found = left(model, "split")
    assert found == ["MatMul", "Add"] * 3


def test_a_packed_projection_that_is_used_whole_stays() -> None:
    body = f"g (float[seq,batch,8] x) => (float[a,b,c] q, float[d,e,f] p) {{{PACKED}}}"
    model = weighted(body, w=(8, 24), bias=(24,))
    _, module = apply(model, [*CLEAN, SplitProductsPass()], dict.fromkeys(SIZES, (1, 9)))
    assert str(module).count("onnx.MatMul") == 1


def test_a_middle_part_is_no_run_of_outputs() -> None:
    """One index of the faster part of the outputs is every eighth of them."""
    body = """g (float[batch,8] x) => (float[batch,3] y) {
      cut = Constant <value_ints = [0, 3, 8]> () one = Constant <value_int = 1> ()
      m = MatMul (x, w) c = Reshape (m, cut) y = Gather <axis = 2> (c, one) }"""
    found = left(weighted(body, w=(8, 24)), "split")
    assert found == ["MatMul", "Reshape", "Gather"]


GATES = {
    "conv": ("float[batch,4,6] x", "p = Conv (x, w, b)", 1, {"w": (8, 4, 1), "b": (8,)}, ["Conv"]),
    "gemm": ("float[batch,4] x", "p = Gemm (x, w, b)", 1, {"w": (4, 8), "b": (8,)}, ["Gemm"]),
    "transposed": (
        "float[batch,4] x",
        "p = Gemm <transB = 1, alpha = 0.5> (x, w)",
        1,
        {"w": (8, 4)},
        ["Gemm"],
    ),
    "add": (
        "float[batch,seq,4] x",
        "m = MatMul (x, w) p = Add (m, b)",
        -1,
        {"w": (4, 8), "b": (8,)},
        ["MatMul", "Add"],
    ),
}


@pytest.mark.parametrize("name", GATES)
def test_a_gate_is_a_product_of_its_own(name: str) -> None:
    inputs, product, axis, shapes, ops = GATES[name]
    result = "float[a,b]" if inputs == "float[batch,4] x" else "float[a,b,c]"
    body = f"""g ({inputs}) => ({result} y) {{ {product}
      a, s = Split <axis = {axis}, num_outputs = 2> (p) g = Sigmoid (s) y = Mul (a, g) }}"""
    found = left(weighted(body, **shapes), "split")
    assert found == [*ops, *ops, "Sigmoid", "Mul"]


@pytest.mark.parametrize(
    ("product", "axis", "weight"),
    [("Conv <group = 2> (x, w)", 1, (8, 2, 1)), ("Conv (x, w)", 2, (8, 4, 1))],
)
def test_what_is_no_part_of_the_outputs_stays(
    product: str, axis: int, weight: tuple[int, ...]
) -> None:
    body = f"""g (float[batch,4,6] x) => (float[a,b,c] y, float[d,e,f] z) {{
      p = {product} y, z = Split <axis = {axis}, num_outputs = 2> (p) }}"""
    found = left(weighted(body, w=weight), "split")
    assert found == ["Conv", "Split"]


# unflatten-products ---------------------------------------------------------------------------

FLATTENED = """
  flat = Constant <value_ints = [-1, 8]> () back = Constant <value_ints = {back}> ()
  f = Reshape (x, flat) p = {product} y = Reshape (p, back)
"""


@pytest.mark.parametrize(
    "product", ["Gemm (f, w, b)", "Gemm <transB = 1> (f, v, b)", "MatMul (f, w)"]
)
def test_a_flattened_product_keeps_its_axes(product: str) -> None:
    body = FLATTENED.format(back="[5, -1, 6]", product=product)
    model = weighted(
        f"g (float[5,batch,8] x) => (float[a,b,c] y) {{ {body} }}", w=(8, 6), v=(6, 8), b=(6,)
    )
    found = left(model, "unflatten")
    assert found == (["MatMul"] if product.startswith("MatMul") else ["MatMul", "Add"])


def test_extents_have_names_after_a_flattened_product() -> None:
    body = FLATTENED.format(back="[5, -1, 6]", product="Gemm (f, w)")
    model = weighted(f"g (float[5,batch,8] x) => (float[a,b,c] y) {{ {body} }}", w=(8, 6))
    _, module = apply(model, CLEAN, {"batch": (1, 9)})
    last = [op for op in module.walk() if op.name == "onnx.Reshape"][-1]
    assert symbolic_dims(last.results[0]) == (5, "batch", 6)


def test_rows_in_another_order_stay_flattened() -> None:
    body = FLATTENED.format(back="[-1, 5, 6]", product="Gemm (f, w)")
    model = weighted(f"g (float[5,batch,8] x) => (float[a,b,c] y) {{ {body} }}", w=(8, 6))
    found = left(model, "unflatten")
    assert found == ["Reshape", "Gemm", "Reshape"]


# fuse-attention, sequence first ---------------------------------------------------------------

SEQUENCE_FIRST = """
  cut = Constant <value_ints = [0, 0, 2, 4]> () join = Constant <value_ints = [{join}]> ()
  half = Constant <value = float {{0.5}}> ()
  q0 = Reshape (q, cut) q1 = Transpose <perm = [1, 2, 0, 3]> (q0)
  k0 = Reshape (k, cut) k1 = Transpose <perm = [1, 2, 3, 0]> (k0)
  v0 = Reshape (v, cut) v1 = Transpose <perm = [1, 2, 0, 3]> (v0)
  a = MatMul (q1, k1) h = Mul (a, half) s = Add (h, mask) p = Softmax (s) m = MatMul (p, v1)
  t = Transpose <perm = [2, 0, 1, 3]> (m) y = Reshape (t, join)
"""


@pytest.mark.parametrize(("join", "rank"), [("0, 0, 8", 3), ("-1, 8", 2), ("1, -1, 4, 8", 4)])
def test_attention_with_the_sequence_first(join: str, rank: int) -> None:
    each = "float[seq,batch,8]"
    inputs = f"{each} q, {each} k, {each} v, float[batch,1,1,seq] mask"
    body = SEQUENCE_FIRST.format(join=join)
    result = f"float[{', '.join('abcd'[:rank])}] y"
    model = text(f"g ({inputs}) => ({result}) {{ {body} }}")
    sizes = {"seq": 8} if rank == 4 else {}
    found = left(model, "attention", **sizes)
    assert found[:5] == ["Transpose", "Transpose", "Transpose", "Attention", "Transpose"]
    assert found[5:] == ([] if rank == 3 else ["Reshape"])


# fuse-attention, constants added to Q, K and V -------------------------------------------------

BIASED = """
  cut = Constant <value_ints = [0, 0, 2, 4]> () join = Constant <value_ints = [0, 0, 8]> ()
  half = Constant <value = float {{0.5}}> ()
  q0 = Reshape (q, cut) k0 = Reshape (k, cut) v0 = Reshape (v, cut)
  qb = Add (q0, bq) q1 = Transpose <perm = [0, 2, 1, 3]> (qb)
  kt = Transpose <perm = [0, 2, 3, 1]> (k0) k1 = Add (bk, kt)
  v1 = Transpose <perm = [0, 2, 1, 3]> (v0)
  qp = Transpose <perm = [0, 2, 1, 3]> (q0) places = MatMul (qp, where) added = Mul (places, half)
  a = MatMul (q1, k1) h = Mul (a, half) s = Add (h, added) p = Softmax (s) m = MatMul (p, v1)
  t = Transpose <perm = [0, 2, 1, 3]> (m) y = Reshape (t, join)
"""
"""Scores of contents and of relative positions, with a constant for each, as Transformer-XL has."""


@pytest.mark.parametrize(
    ("bq", "bk", "fused"),
    [
        ((2, 4), (1, 2, 4, 1), True),
        ((1, 1, 2, 4), (1, 2, 4, 1), True),
        # A constant for all heads, or for each place in the sequence, is no bias of Q.
        ((4,), (1, 2, 4, 1), False),
        ((1, 5, 2, 4), (1, 2, 4, 1), False),
        ((2, 4), (2, 4, 1), False),
    ],
)
def test_attention_with_constants_on_its_operands(
    bq: tuple[int, ...], bk: tuple[int, ...], fused: bool
) -> None:
    each = "float[batch,5,8]"
    model = weighted(
        f"g ({each} q, {each} k, {each} v) => (float[a,b,c] y) {{ {BIASED.format()} }}",
        bq=bq,
        bk=bk,
        where=(1, 2, 4, 5),
    )
    assert ("Attention" in left(model, "attention")) == fused
