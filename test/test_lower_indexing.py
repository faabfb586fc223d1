"""The lowering of indices and masks: what follows from the extents is no gather at run time."""

from __future__ import annotations

import numpy as np
import pytest
from support.lowering import check, lowered, named, normal, parsed
from xdsl.dialects.builtin import ModuleOp

import spu_ir
from spu_ir.dialects import spu, vpu
from spu_ir.dialects.types import Array, shape_of
from spu_ir.errors import SpuError
from spu_ir.frontend.extents import Shapes
from spu_ir.interpreters import interpret

EXTENTS: Shapes = {"batch": (1, 4), "seq": (1, 16)}

CONSTANTS = """
    zero = Constant <value: tensor = int64 {0}> ()
    one = Constant <value: tensor = int64 {1}> ()
    minus = Constant <value: tensor = int64[1] {-1}> ()
    axis0 = Constant <value: tensor = int64[1] {0}> ()
    axis1 = Constant <value: tensor = int64[1] {1}> ()
    axis2 = Constant <value: tensor = int64[1] {2}> ()
    axis3 = Constant <value: tensor = int64[1] {3}> ()
    axes12 = Constant <value: tensor = int64[2] {1, 2}> ()
    axes01 = Constant <value: tensor = int64[2] {0, 1}> ()
    shape = Shape (x)
    b = Gather (shape, zero)
    s = Gather (shape, one)
"""

PLACES = """
    rows = Range (zero, b, one)
    columns = Range (zero, s, one)
    i2 = Unsqueeze (rows, axes12)
    i = Unsqueeze (i2, axis3)
    j2 = Unsqueeze (columns, axes01)
    j = Unsqueeze (j2, axis2)
"""
"""i is 0, 1, ... [batch, 1, 1, 1], j [1, 1, 1, seq], as `torch.vmap` over a mask makes them."""


def ops(module: ModuleOp, *but: type) -> set[str]:
    """The names of the ops that compute or move data."""
    return {
        op.name
        for op in module.walk()
        if op.name.startswith(("vpu.", "spu.")) and not isinstance(op, but)
    }


def ints(*shape: int, high: int, low: int = 0, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(low, high, shape)


# Grids


def test_positions_are_a_slice_of_the_table() -> None:
    """A buffer of positions, sliced, and used as the indices of a table."""
    model = parsed(
        f"""m (float[batch, seq, 4] x) => (float[?, ?, 4] y) {{
            {CONSTANTS}
            end = Shape <start = 1, end = 2> (x)
            part = Slice (positions, axis0, end, axis1)
            rows = Gather (table, part)
            y = Add (x, rows)
        }}""",
        table=normal(300, 4),
        positions=np.arange(300)[None],
    )
    module = check(model, {"x": normal(2, 5, 4)}, EXTENTS)
    assert ops(module) == {"vpu.slice", "vpu.reshape", "vpu.binary"}


@pytest.mark.parametrize("spelling", ["GatherND", "Gather"])
def test_places_that_enumerate_a_tensor_are_a_reshape(spelling: str) -> None:
    """The mask of a batch, indexed by its own places: both exporters' `mask[i, j]`."""
    indexed = {
        "GatherND": """
            wide = Max (i, j)
            whole = Shape (wide)
            ie = Expand (i, whole)
            je = Expand (j, whole)
            iu = Unsqueeze (ie, minus)
            ju = Unsqueeze (je, minus)
            both = Concat <axis = -1> (iu, ju)
            y = GatherND (x, both)""",
        "Gather": """
            long = Gather (shape, axis1)
            flat = Flatten <axis = 2> (x)
            first = Mul (i, long)
            at = Add (j, first)
            taken = Gather (flat, at)
            line = Reshape (taken, minus)
            back = Shape (at)
            y = Reshape (line, back)""",
    }[spelling]
    model = parsed(
        f"m (bool[batch, seq] x) => (bool[?, ?, ?, ?] y) {{ {CONSTANTS} {PLACES} {indexed} }}"
    )
    module = check(model, {"x": ints(3, 5, high=2).astype(np.bool_)}, EXTENTS)
    assert ops(module) == {"vpu.reshape"}


def test_every_second_row_backwards() -> None:
    model = parsed(
        f"""m (float[batch, seq, 6] x) => (float[?, ?, 3] y) {{
            {CONSTANTS}
            five = Constant <value: tensor = int64 {{5}}> ()
            two = Constant <value: tensor = int64 {{-2}}> ()
            below = Constant <value: tensor = int64 {{-1}}> ()
            index = Range (five, below, two)
            y = Gather <axis = 2> (x, index)
        }}"""
    )
    module = check(model, {"x": normal(2, 5, 6)}, EXTENTS)
    assert ops(module) == {"vpu.slice"}


def test_a_comparison_that_the_bounds_prove() -> None:
    """`positions >= 0` is true everywhere, and nothing to `And` or `Where`."""
    model = parsed(
        f"""m (bool[batch, seq] x) => (bool[?, 1, 1, ?] y, float[?, 1, 1, ?] z) {{
            {CONSTANTS} {PLACES}
            real = GreaterOrEqual (j, zero)
            x4 = Unsqueeze (x, axes12)
            y = And (real, x4)
            outside = Less (s, zero)
            all = Not (outside)
            flags = Cast <to = 1> (x4)
            z = Where (all, flags, nothing)
        }}""",
        nothing=np.array(9, np.float32),
    )
    module = check(model, {"x": ints(3, 5, high=2).astype(np.bool_)}, EXTENTS)
    assert ops(module) == {"vpu.reshape", "vpu.cast"}


@pytest.mark.parametrize(
    ("expression", "bounds", "proven"),
    [
        ("Less (j, s)", (1, 16), True),
        ("Less (s, j)", (1, 16), True),
        ("LessOrEqual (j, four)", (1, 5), True),
        ("LessOrEqual (j, four)", (1, 6), False),
        ("Greater (i, four)", (1, 16), True),
        ("Greater (j, four)", (1, 16), False),
        ("Equal (i, s)", (4, 16), True),
        ("Equal (i, j)", (1, 16), False),
        ("Equal (s, s)", (1, 16), True),
    ],
)
def test_comparisons_of_places(expression: str, bounds: tuple[int, int], proven: bool) -> None:
    """Decided where the bounds of the extents tell, computed where they do not; right always."""
    model = parsed(
        f"""m (float[batch, seq] x) => (bool[?, ?, ?, ?] y) {{
            {CONSTANTS} {PLACES}
            four = Constant <value: tensor = int64 {{4}}> ()
            holds = {expression}
            nothing = Sub (i, i)
            zeros = Mul (j, nothing)
            none = Less (zeros, zero)
            y = Or (holds, none)
        }}"""
    )
    module = check(model, {"x": normal(3, 5)}, {"batch": (1, 4), "seq": bounds})
    assert ("vpu.binary" in ops(module)) != proven


@pytest.mark.parametrize("expression", ["Max (j, i)", "Add (i, j)", "Mul (j, s)", "Neg (j)"])
def test_places_as_data(expression: str) -> None:
    model = parsed(
        f"""m (float[batch, seq] x) => (int64[?, ?, ?, ?] y) {{
            {CONSTANTS} {PLACES}
            wide = {expression}
            whole = Add (i, j)
            sizes = Shape (whole)
            y = Expand (wide, sizes)
        }}"""
    )
    check(model, {"x": normal(3, 5)}, EXTENTS)


@pytest.mark.parametrize(("start", "step"), [("zero", 3), ("s", 1), ("s", -2)])
def test_ranges(start: str, step: int) -> None:
    end = {"zero": "s", "s": "twice" if step > 0 else "zero"}[start]
    model = parsed(
        f"""m (float[batch, seq] x) => (int64[?] y) {{
            {CONSTANTS}
            twice = Add (s, s)
            step = Constant <value: tensor = int64 {{{step}}}> ()
            y = Range ({start}, {end}, step)
        }}"""
    )
    check(model, {"x": normal(2, 7)}, EXTENTS)


def test_a_range_that_may_end_before_it_starts_is_an_error() -> None:
    model = parsed(
        f"m (float[batch, seq] x) => (int64[?] y) {{ {CONSTANTS} y = Range (b, s, one) }}"
    )
    with pytest.raises(SpuError, match=r"\(Range\): .*narrow the bounds"):
        lowered(model, EXTENTS)


def test_numbers_that_do_not_fit_wrap_as_at_run_time() -> None:
    model = parsed(
        f"""m (float[batch, seq] x) => (int64[?] y, int32[] z) {{
            {CONSTANTS}
            large = Constant <value: tensor = int64 {{{1 << 40}}}> ()
            larger = Mul (b, large)
            largest = Mul (larger, large)
            z = Cast <to = 6> (largest)
            most = Add (largest, one)
            y = Unsqueeze (most, axis0)
        }}"""
    )
    check(model, {"x": normal(3, 5)}, EXTENTS)


def test_a_model_cannot_ask_for_an_endless_table() -> None:
    model = parsed(
        f"""m (float[batch, seq] x) => (int64[?] y) {{
            {CONSTANTS}
            large = Constant <value: tensor = int64 {{{1 << 40}}}> ()
            end = Mul (s, large)
            y = Range (zero, end, one)
        }}"""
    )
    with pytest.raises(SpuError, match=r"more than 16777216 elements; narrow the bounds"):
        lowered(model, EXTENTS)


@pytest.mark.parametrize("first", ["s", "after"])
def test_a_model_cannot_ask_for_an_endless_polynomial(first: str) -> None:
    squares = "".join(f"p{i + 1} = Mul (p{i}, p{i})\n" for i in range(40))
    model = parsed(
        f"""m (float[batch, seq] x) => (int64[] y) {{
            {CONSTANTS}
            after = Add (s, one)
            p0 = Identity ({first})
            {squares}
            y = Identity (p40)
        }}"""
    )
    with pytest.raises(SpuError, match="too long a polynomial"):
        lowered(model, EXTENTS)


# Gathers


NODES = [
    ("batch, seq", "GatherElements <axis = 1> (x, index)"),
    ("batch, seq", "GatherElements <axis = 1> (buffer, index)"),
    ("seq, batch", "GatherElements <axis = 0> (x, index)"),
    ("batch, seq", "GatherND <batch_dims = 1> (x, deep)"),
    ("batch, seq, 3", "GatherND <batch_dims = 1> (x, deep)"),
    ("batch, seq, 3", "Gather <axis = 1> (x, index)"),
]


@pytest.mark.parametrize(("dims", "node"), NODES)
def test_gathers_by_data(dims: str, node: str) -> None:
    """One gather each; a negative index counts from the end, one outside fails."""
    unknown = ", ".join("?" * (4 if node.startswith("Gather <") else 1 + dims.count(",")))
    model = parsed(
        f"""m (float[{dims}] x, int64[{dims.removesuffix(", 3")}] index) => (float[{unknown}] y) {{
            {CONSTANTS}
            b1 = Unsqueeze (b, axis0)
            twenty = Constant <value: tensor = int64[1] {{20}}> ()
            sizes = Concat <axis = 0> (b1, twenty)
            buffer = Expand (table, sizes)
            deep = Unsqueeze (index, axis2)
            y = {node}
        }}""",
        table=normal(1, 20),
    )
    shape = {"batch": 3, "seq": 5, "3": 3}
    x = normal(*(shape[dim] for dim in dims.split(", ")))
    index = ints(*x.shape[:2], low=-5, high=5)
    module = check(model, {"x": x, "index": index}, EXTENTS)
    # Extents as data are gathers of one number.
    assert sum(len(shape_of(op.results[0])) > 0 for op in named(module, vpu.GatherOp)) == 1
    index[-1, -1] = 20
    ctx, module = lowered(model, EXTENTS)
    with pytest.raises(SpuError, match="is outside the extent"):
        interpret(module, ctx, {"x": x, "index": index})


def test_an_index_outside_one_axis_does_not_reach_the_next_row() -> None:
    """Places in a flat tensor are checked axis by axis, in the compiled program too."""
    model = parsed(
        "m (float[batch, seq] x, int64[batch, seq] index) => (float[?, ?] y)"
        "{ y = GatherElements <axis = 1> (x, index) }"
    )
    compiled = spu_ir.compile(model, precision="fp32", shapes=EXTENTS)
    x, index = normal(3, 5), ints(3, 5, low=-5, high=5)
    got = compiled.run({"x": x, "index": index})["y"]
    np.testing.assert_array_equal(got, np.take_along_axis(x, index, 1))
    for outside in (5, -6):
        index[0, 2] = outside
        with pytest.raises(SpuError, match="index"):
            compiled.run({"x": x, "index": index})


def test_what_is_the_same_everywhere_needs_no_index() -> None:
    """A buffer of zeros for the type of every token, as it is when none is given."""
    model = parsed(
        f"""m (int64[batch, seq] x) => (float[?, ?, 4] y) {{
            {CONSTANTS}
            end = Shape <start = 1, end = 2> (x)
            types = GatherElements <axis = 1> (buffer, x)
            y = Gather (table, types)
        }}""",
        table=normal(2, 4),
        buffer=np.zeros((3, 300), np.int64),
    )
    module = check(model, {"x": ints(3, 5, high=300)}, EXTENTS)
    assert ops(module) == {"vpu.slice", "vpu.reshape", "vpu.expand"}


# Triangles


@pytest.mark.parametrize(
    ("attributes", "k"), [("", 0), ("<upper = 0>", 0), ("<upper = 0>", 2), ("", -1), ("", 99)]
)
@pytest.mark.parametrize("element", ["float", "bool", "int64"])
def test_triangles(attributes: str, k: int, element: str) -> None:
    model = parsed(
        f"""m ({element}[batch, seq, 7] x) => ({element}[?, ?, ?] y) {{
            k = Constant <value: tensor = int64 {{{k}}}> ()
            y = Trilu {attributes} (x, k)
        }}"""
    )
    x = normal(2, 5, 7) if element == "float" else ints(2, 5, 7, high=2)
    check(model, {"x": x.astype(bool) if element == "bool" else x}, EXTENTS)


def test_a_triangle_that_is_all_of_it() -> None:
    model = parsed(
        """m (float[seq, 7] x) => (float[?, 7] y) {
            k = Constant <value: tensor = int64 {-16}> ()
            y = Trilu (x, k)
        }"""
    )
    assert not ops(check(model, {"x": normal(5, 7)}, {"seq": (1, 16)}))


# Expansions


def test_an_expanded_mask_is_expanded_last() -> None:
    """Masks of [batch, 1, seq, seq] that differ along the keys only stay [batch, 1, 1, seq]."""
    model = parsed(
        f"""m (float[batch, seq, 8] x, int64[batch, seq] mask) => (float[?, ?, 8] y) {{
            {CONSTANTS}
            b1 = Unsqueeze (b, axis0)
            s1 = Unsqueeze (s, axis0)
            full = Concat <axis = 0> (b1, axis1, s1, s1)
            flags = Cast <to = 9> (mask)
            small = Unsqueeze (flags, axes12)
            wide = Expand (small, full)
            added = Where (wide, nothing, low)
            half = Mul (added, ones)
            y = Attention <q_num_heads = 2, kv_num_heads = 2> (x, x, x, half)
        }}""",
        opset=23,
        nothing=np.array(0.0, np.float32),
        low=np.array(-1000.0, np.float32),
        ones=np.array(1.0, np.float32),
    )
    mask = (np.arange(5) < np.array([[5], [2], [4]])).astype(np.int64)
    ctx, module = lowered(model, EXTENTS)
    (attention,) = named(module, spu.AttentionOp)
    assert isinstance(attention, spu.AttentionOp)
    assert attention.mask is not None
    assert shape_of(attention.mask)[1:3] == (1, 1)
    assert "vpu.expand" not in ops(module)
    x = normal(3, 5, 8)
    heads = x.reshape(3, 5, 2, 4).transpose(0, 2, 1, 3)
    scores = heads @ heads.transpose(0, 1, 3, 2) / 2
    weights = np.exp(scores + np.where(mask[:, None, None] != 0, 0, -1000.0))
    want = weights / weights.sum(-1, keepdims=True) @ heads
    got = interpret(module, ctx, {"x": x, "mask": mask})["y"]
    np.testing.assert_allclose(got, want.transpose(0, 2, 1, 3).reshape(3, 5, 8), rtol=1e-4)


def test_a_mask_that_masks_nothing_is_none() -> None:
    """What is left of a mask when a model is exported without one."""
    model = parsed(
        f"""m (float[batch, seq, 8] x) => (float[?, ?, 8] y) {{
            {CONSTANTS} {PLACES}
            b1 = Unsqueeze (b, axis0)
            s1 = Unsqueeze (s, axis0)
            full = Concat <axis = 0> (b1, axis1, s1, s1)
            real = GreaterOrEqual (j, zero)
            wide = Expand (real, full)
            added = Where (wide, nothing, low)
            y = Attention <q_num_heads = 2, kv_num_heads = 2> (x, x, x, added)
        }}""",
        opset=23,
        nothing=np.array(0.0, np.float32),
        low=np.array(-np.inf, np.float32),
    )
    _, module = lowered(model, EXTENTS)
    (attention,) = named(module, spu.AttentionOp)
    assert isinstance(attention, spu.AttentionOp)
    assert attention.mask is None


def test_equal_ops_are_one() -> None:
    """Every layer of an exported model makes its own mask of the same flags."""
    model = parsed(
        """m (bool[batch, seq] x) => (float[?, ?] y, float[?, ?] z) {
            y = Where (x, nothing, low)
            z = Where (x, nothing, low)
        }""",
        nothing=np.array(0.0, np.float32),
        low=np.array(-1.0, np.float32),
    )
    module = check(model, {"x": ints(3, 5, high=2).astype(np.bool_)}, EXTENTS)
    assert len(named(module, vpu.SelectOp)) == 1
