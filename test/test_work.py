"""The table of work: what it says at any extents is what the loops of the program do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import prod
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from support import models
from support.interpreting import parse
from support.padded import SHAPES as PADDED_SHAPES
from support.padded import encoder
from support.walker import Tiled
from xdsl.dialects.func import FuncOp

from spu_ir.codegen.attention_instructions import ATTENTION_INSTRUCTIONS
from spu_ir.codegen.image_instructions import IMAGE_INSTRUCTIONS
from spu_ir.codegen.row_instructions import ROW_INSTRUCTIONS
from spu_ir.codegen.spu_instructions import SPU_INSTRUCTIONS
from spu_ir.codegen.vpu_instructions import VPU_INSTRUCTIONS
from spu_ir.codegen.work import name_steps, work_table
from spu_ir.dialects.spu import Activation
from spu_ir.dialects.vpu import BinaryFn, UnaryFn
from spu_ir.errors import SpuError
from spu_ir.schedule import instructions
from spu_ir.schedule.expressions import (
    OPERATIONS,
    Evaluation,
    Expr,
    Pool,
    add,
    ceil_divide,
    floor_divide,
    maximum,
    minimum,
    multiply,
    over_samples,
    product,
    read_pool,
    subtract,
    total,
)
from spu_ir.schedule.instructions import FORMULAS, Instruction, Operand, Packed, cost_of
from spu_ir.schedule.work import COUNTS, OperandWork, StepWork, Work, WorkTable, total_work
from spu_ir.zoo.linear_model import linear
from spu_ir.zoo.registry import Published, published

# ---- expressions --------------------------------------------------------------------------

BUILD = {
    "add": add,
    "sub": subtract,
    "mul": multiply,
    "floordiv": floor_divide,
    "ceildiv": ceil_divide,
    "min": minimum,
    "max": maximum,
}
SYMBOLS = {"batch": 3, "seq": 37, "sample:0": 5}


def trees(depth: int) -> st.SearchStrategy[tuple[Expr, int]]:
    """Expressions and their values for SYMBOLS."""
    leaves = st.one_of(
        st.integers(-3, 70).map(lambda n: (n, n)),
        st.sampled_from(sorted(SYMBOLS.items())),
    )
    if depth == 0:
        return leaves

    def node(op: str, a: tuple[Expr, int], b: tuple[Expr, int]) -> tuple[Expr, int]:
        if op.endswith("div"):
            divisor = abs(b[1]) + 1
            b = (divisor, divisor)
        return BUILD[op](a[0], b[0]), OPERATIONS[op](a[1], b[1])

    below = trees(depth - 1)
    return st.one_of(leaves, st.builds(node, st.sampled_from(sorted(BUILD)), below, below))


@given(trees(5))
def test_an_expression_has_the_value_of_its_arithmetic(tree: tuple[Expr, int]) -> None:
    expr, value = tree
    assert Evaluation(SYMBOLS, {})(expr) == value


@given(st.lists(trees(3), min_size=1, max_size=4))
def test_expressions_come_back_from_json(made: Sequence[tuple[Expr, int]]) -> None:
    pool = Pool()
    stored = json.loads(json.dumps([[pool.put(expr) for expr, _ in made], pool.nodes]))
    read = read_pool(stored[1])
    assert [read(each) for each in stored[0]] == [expr for expr, _ in made]
    assert len(pool.nodes) == len({json.dumps(node) for node in pool.nodes})


@given(st.lists(trees(2), max_size=6))
def test_sums_and_products_are_those_of_the_values(made: Sequence[tuple[Expr, int]]) -> None:
    exprs, values = [expr for expr, _ in made], [value for _, value in made]
    evaluate = Evaluation(SYMBOLS, {})
    assert evaluate(total(exprs)) == sum(values)
    assert evaluate(product(exprs)) == prod(values)


def test_a_long_sum_is_shallow() -> None:
    numbers = [multiply(add("batch", n), n + 1) for n in range(5000)]
    expr = total([*numbers, *(multiply("seq", n) for n in range(9)), 5])
    expected = sum((3 + n) * (n + 1) for n in range(5000)) + 37 * 36 + 5
    assert Evaluation(SYMBOLS, {})(expr) == expected
    pool = Pool()
    place = pool.put(expr)
    assert read_pool(pool.nodes)(place) == expr


def test_sums_over_samples_see_each_sample() -> None:
    body = multiply("sample:1", add("sample:1", "batch"))
    evaluate = Evaluation({"batch": 3}, {1: (4, 0, 7, 4)})
    assert evaluate(over_samples(1, body)) == sum(n * (n + 3) for n in (4, 0, 7, 4))
    assert evaluate("rows:1") == 15
    with pytest.raises(SpuError, match="'seq' is not given"):
        evaluate(add("seq", 1))


@pytest.mark.parametrize(
    "pool",
    [
        None,
        [["add", 1]],
        [["add", 1, [0]]],
        [["add", 1, [-1]]],
        [["pow", 2, 3]],
        [["floordiv", "batch", 0]],
        [["ceildiv", "batch", "seq"]],
        [["samples:x", 1]],
        [["samples:0", 1, 2]],
        [[3, 1, 2]],
        [["mul", 1.5, 2]],
    ],
)
def test_a_damaged_pool_is_refused(pool: Any) -> None:
    with pytest.raises(SpuError, match="damaged"):
        read_pool(pool)


# ---- formulas -----------------------------------------------------------------------------


def test_every_instruction_of_the_device_has_a_formula() -> None:
    printed = {
        **SPU_INSTRUCTIONS,
        **ATTENTION_INSTRUCTIONS,
        **VPU_INSTRUCTIONS,
        **ROW_INSTRUCTIONS,
        **IMAGE_INSTRUCTIONS,
    }
    assert {op.name for op in printed} == set(FORMULAS)
    assert set(instructions.UNARY) == {str(fn) for fn in UnaryFn}
    assert set(instructions.BINARY) == {str(fn) for fn in BinaryFn}
    assert set(instructions.ACTIVATIONS) == {str(fn) for fn in Activation}
    with pytest.raises(SpuError, match=r"vpu\.strange"):
        cost_of(Instruction("vpu.strange", {}, {}))


def tile(op: str, facts: Mapping[str, Any] | None = None, **shapes: Sequence[int]) -> Instruction:
    """An instruction on f32 tiles; `name8=` is an operand of bytes."""
    operands = {
        name.removesuffix("8"): Operand(tuple(shape), 1 if name.endswith("8") else 4)
        for name, shape in shapes.items()
    }
    return Instruction(op, operands, dict(facts or {}))


def test_formulas_by_hand() -> None:
    softmax = cost_of(tile("vpu.softmax", x=(3, 10), init=(3, 10)))
    assert (softmax.vector_ops, softmax.special_ops) == (4 * 30, 30 + 3)
    norm = cost_of(tile("vpu.layer_norm", {"centre": 1}, x=(2, 8), gamma=(8,), beta=(8,)))
    assert (norm.vector_ops, norm.special_ops) == (7 * 16, 2 * 2)
    rows = cost_of(tile("vpu.layer_norm_rows", x=(2, 8), gamma=(8,), beta=(8,)))
    alone = cost_of(tile("vpu.quantise_rows", x=(2, 8)))
    assert rows.vector_ops == norm.vector_ops + alone.vector_ops
    assert rows.special_ops == norm.special_ops + alone.special_ops
    rms = cost_of(tile("vpu.layer_norm", {"centre": 0}, x=(2, 8), gamma=(8,)))
    assert rms.vector_ops == 4 * 16
    pool = {"fn": "avg", "kernel": (3, 2)}
    average = cost_of(tile("vpu.pool", pool, x=(1, 9, 9, 4), init=(1, 4, 4, 4)))
    assert (average.vector_ops, average.special_ops) == (6 * 64, 64)
    gather = tile("vpu.gather", x=(1000, 6), indices=(2, 5), init=(2, 5, 6))
    assert cost_of(gather).bytes_of(gather, "x") == 2 * 5 * 6 * 4
    copy = tile("antoum.dma", source=(3, 5), target=(3, 5))
    assert cost_of(copy).bytes_of(copy, "target") == 60
    gelu = cost_of(tile("vpu.unary", {"fn": "gelu"}, x=(7,), init=(7,)))
    assert (gelu.vector_ops, gelu.special_ops) == (28, 7)


def test_a_product_runs_slots_and_an_epilogue() -> None:
    facts = {"activation": "gelu", "residual_scale": 0.5}
    shapes: dict[str, Sequence[int]] = {
        "x8": (14, 128),
        "weight8": (32, 128),
        "scale": (32,),
        "bias": (32,),
        "residual8": (14, 32),
        "init8": (14, 32),
    }
    # 4 of 64 slots, two banks, two lane groups: a quad each.
    plain = tile("spu.matmul", facts, **shapes)
    cost = cost_of(replace(plain, weight=Packed(quads=4, slots=64, bytes=132)))
    assert cost.macs == 14 * 4 * 64 == 14 * 32 * 128 // 16
    assert cost.dense_macs == 14 * 32 * 128
    # To f32, scale, bias, residual and its two, gelu's four, to bytes.
    assert cost.vector_ops == 14 * 32 * (1 + 3 + 2 + 4 + 5)
    assert cost.special_ops == 14 * 32
    assert cost.activations == 14 * 128
    assert cost.bytes["weight"] == 4 * 132


def seen(rows: int, keys: int, causal: bool, block: int) -> int:
    """Query rows and keys that meet, one row after the other."""
    visible = [min(row + 1, keys) if causal else keys for row in range(rows)]
    return sum(-(-count // block) * block for count in visible)


@given(st.integers(0, 200), st.integers(0, 200), st.booleans())
def test_attention_scores_what_its_rows_see(rows: int, keys: int, causal: bool) -> None:
    facts = {"causal": int(causal), "mask_of_keys": 1}
    size, channels = 6, 20
    plain = cost_of(
        tile("spu.attention", facts, q=(2, rows, size), k=(2, keys, size), v=(2, keys, channels))
    )
    assert plain.macs == plain.dense_macs == 2 * seen(rows, keys, causal, 1) * 26
    blocks = -(-keys // 64)
    packed = cost_of(
        tile(
            "spu.packed_attention",
            facts,
            q=(2, rows, size),
            k_scale=(2, 1, blocks, 64),
            mask=(2, 1, 1, keys),
            init=(2, rows, channels),
        )
    )
    # Whole quads of channels for the scores, whole vectors for the sums.
    assert packed.macs == 2 * seen(rows, keys, causal, 64) * (8 + 32)
    assert packed.dense_macs == 2 * seen(rows, keys, causal, 1) * 26


# ---- the closed form of a program, and the program ----------------------------------------

TINY = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 208,
    "max_position_embeddings": 160,
}


def small(name: str) -> Published:
    """A published network in a size for tests."""
    model = published(name)
    sizes: dict[str, Any] = TINY
    if name == "resnet50":
        sizes = {"blocks": (1, 1), "width": 16, "image": 32, "classes": 10}
    elif name == "conformer":
        small_sizes = {"d_model": 32, "heads": 2, "ffn": 64, "layers": 1, "kernel": 7}
        sizes = {**small_sizes, "height": 32, "width": 64}
    return replace(model, config=replace(model.config, **sizes))


@cache
def tiled(name: str, precision: str = "int8", padding: str = "compute", ratio: int = 16) -> Tiled:
    if name in models.MODELS:
        feeds = [models.feeds(name, seed, 2, 9) for seed in range(2)]
        shapes: dict[str, Any] = models.SHAPES[name]
        model: Any = models.MODELS[name]()
    elif name == "encoder":
        feeds, shapes, model = [], PADDED_SHAPES, encoder("square")
    else:
        chosen = small(name)
        feeds = [chosen.feeds(2, 9)]
        shapes = (
            {"batch": (1, 64), "seq": (1, 130)} if "seq" in chosen.bounds else {"batch": (1, 9)}
        )
        model = chosen.build(ratio=ratio)
    return Tiled.lower(
        model,
        precision=precision,
        padding=padding,
        shapes=shapes,
        calibration=feeds or None,
    )


def check(program: Tiled, extents: Mapping[str, int], lengths: Sequence[int] | None) -> None:
    """Hold the table's counts and bytes to those of the loops, step by step."""
    table = program.table
    given_rows = None if lengths is None else list(lengths)
    steps = table.steps(extents, given_rows)
    walked = program.walk(extents, given_rows or ())
    assert len(steps) == len(walked)
    for step, counts in zip(steps, walked, strict=True):
        got = {name: getattr(step.work, name) for name in COUNTS}
        assert got == {name: counts.get(name, 0) for name in COUNTS}, (step.op, step.layer)
        moved = [counts.get(str(n), 0) for n in range(len(table.program[step.number].operands))]
        expected = table.work_of(step.number, [got[name] for name in COUNTS], moved)
        assert step.work == expected, (step.op, step.layer)


CASES = [
    ("bert", "int8", "compute"),
    ("bert", "bf16", "compute"),
    ("bert", "fp32", "compute"),
    ("albert", "int8", "compute"),
    ("conformer", "int8", "compute"),
    ("resnet50", "int8", "compute"),
    *((name, "int8", "compute") for name in models.MODELS),
]


@pytest.mark.parametrize(("name", "precision", "padding"), CASES)
def test_the_closed_form_is_what_the_loops_do(name: str, precision: str, padding: str) -> None:
    program = tiled(name, precision, padding)
    for batch, seq in ((1, 1), (2, 13), (3, 65)):
        extents = {"batch": batch, "seq": seq}
        check(program, {each: extents[each] for each in program.table.extents}, None)


@settings(max_examples=6)
@given(st.integers(1, 64), st.integers(1, 130))
def test_the_closed_form_at_any_extents(batch: int, seq: int) -> None:
    if batch * seq > 600:
        batch = max(1, 600 // seq)
    check(tiled("bert"), {"batch": batch, "seq": seq}, None)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@settings(max_examples=6)
@given(data=st.data())
def test_skipped_padding_is_counted_by_the_rows_of_every_sample(
    precision: str, data: st.DataObject
) -> None:
    seq = data.draw(st.integers(1, 130), "seq")
    lengths = data.draw(st.lists(st.integers(0, seq), min_size=1, max_size=4), "rows")
    extents = {"batch": len(lengths), "seq": seq}
    check(tiled("bert", precision, "skip"), extents, lengths)


@pytest.mark.parametrize("lengths", [[7, 70, 1, 64, 0], [66, 66], [0, 0], [1]])
def test_masks_of_rows_and_keys_are_counted_too(lengths: list[int]) -> None:
    extents = {"batch": len(lengths), "seq": max(1, *lengths, 1)}
    check(tiled("encoder", "int8", "skip"), extents, lengths)


def test_rows_may_be_a_share_or_left_out() -> None:
    program = tiled("bert", "int8", "skip")
    table, extents = program.table, {"batch": 2, "seq": 20}
    assert table.rows(extents) == {0: (20, 20)}
    assert table.total(extents) == table.total(extents, 1.0) == table.total(extents, [20, 20])
    assert table.total(extents, 0.52) == table.total(extents, {0: [11, 11]})
    assert table.total(extents, 0.5).macs < table.total(extents).macs
    for bad in ([20], [20, 21], [-1, 3], 1.5, {1: [3, 3]}):
        with pytest.raises(SpuError):
            table.steps(extents, bad)
    with pytest.raises(SpuError, match="'seq' is not given"):
        table.steps({"batch": 2})
    assert tiled("bert").table.total(extents, 0.5) == tiled("bert").table.total(extents)


# ---- what the counts add up to ------------------------------------------------------------


@pytest.mark.parametrize("ratio", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_a_linear_layer_skips_what_its_ratio_says(ratio: int, precision: str) -> None:
    program = Tiled.lower(
        linear(256, 96), precision=precision, sparsity=ratio, shapes={"batch": (1, 64)}
    )
    (step,) = (s for s in program.table.steps({"batch": 45}) if s.op == "spu.matmul")
    assert step.unit == "spu"
    assert step.precision == precision
    assert step.work.dense_macs == 45 * 256 * 96
    assert step.work.macs == step.work.dense_macs // ratio
    assert step.work.skipped == step.work.dense_macs - step.work.macs
    slot = 1 if precision == "int8" else 2
    values = 256 * 96 // ratio * slot
    # Of a quad 64 bytes of values and of indices, and an offset or two.
    indices = 0 if ratio == 1 else values
    offsets = values // 64 * (8 if ratio == 32 else 4)
    constants = 96 * 4 * (2 if precision == "int8" else 1)
    assert step.once_read["weights"] == values + indices + offsets + constants


@pytest.mark.parametrize("batch", [1, 3])
def test_a_transformer_multiplies_what_its_shapes_say(batch: int) -> None:
    seq, hidden, inner = 37, TINY["hidden_size"], TINY["intermediate_size"]
    steps = tiled("bert").table.steps({"batch": batch, "seq": seq})
    rows = batch * seq
    products = sum(s.work.dense_macs for s in steps if s.op == "spu.matmul")
    assert products == rows * (4 * hidden * hidden + 2 * hidden * inner + hidden * 2)
    attention = sum(s.work.dense_macs for s in steps if s.op == "spu.packed_attention")
    assert attention == batch * seq * seq * hidden * 2


def test_a_convolutional_network_multiplies_what_its_shapes_say() -> None:
    model = onnx.shape_inference.infer_shapes(small("resnet50").build())
    weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.output)
    }
    macs = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            macs += prod(shapes[node.output[0]][1:]) * prod(weights[node.input[1]].shape[1:])
        elif node.op_type in ("Gemm", "MatMul"):
            macs += weights[node.input[1]].size
    steps = tiled("resnet50").table.steps({"batch": 2})
    assert macs > 0
    assert sum(step.work.dense_macs for step in steps) == 2 * macs


@pytest.mark.parametrize("name", ["bert", "resnet50", "conformer"])
def test_buffers_are_written_before_they_are_read(name: str) -> None:
    table = tiled(name).table
    extents = dict.fromkeys(table.extents, 2)
    buffers = table.buffers(extents)
    assert [buffer.number for buffer in buffers] == list(range(len(buffers)))
    ready = {b.number for b in buffers if b.kind in ("input", "constant")}
    for step in table.steps(extents):
        assert set(step.reads) <= ready, step
        ready |= set(step.writes)
        for once, every in (
            (step.once_read, step.work.read),
            (step.once_written, step.work.written),
        ):
            assert all(once[space] <= every[space] for space in every)
    names = {b.name for b in buffers if b.kind == "output"}
    assert names == set(small(name).outputs)
    assert {b.number for b in buffers if b.kind == "output"} <= ready
    assert all(buffer.bytes > 0 for buffer in buffers)


def test_no_step_is_without_work() -> None:
    for name in ("bert", "resnet50", *models.MODELS):
        table = tiled(name).table
        for step in table.steps(dict.fromkeys(table.extents, 3)):
            work = step.work
            assert work.instructions > 0
            assert sum(work.written.values()) > 0
            if step.unit == "spu" and "pack" not in step.op.removeprefix("spu.packed"):
                assert work.macs > 0
            if step.unit == "vpu":
                assert work.vector_ops + work.special_ops > 0


# ---- storage ------------------------------------------------------------------------------


def test_a_table_comes_back_from_json() -> None:
    for name, padding in (("bert", "skip"), ("resnet50", "compute")):
        table = tiled(name, "int8", padding).table
        again = WorkTable.from_json(json.loads(json.dumps(table.to_json())))
        assert again == table
        extents = dict.fromkeys(table.extents, 2)
        assert again.steps(extents) == table.steps(extents)


def damage(value: Any, path: Sequence[Any], new: Any) -> Any:
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return copy


@pytest.mark.parametrize(
    ("path", "new"),
    [
        (["format"], 99),
        (["steps"], {}),
        (["steps", 0, "counts"], [1]),
        (["steps", 0, "counts", 0], [10**6]),
        (["steps", 0, "operands", 0, 0], 10**6),
        (["steps", 0, "operands", 0, 0], -1),
        (["steps", 0, "operands", 0, 1], "moon"),
        (["steps", 0, "operands", 0], [1, 2]),
        (["buffers", 0], []),
        (["masks"], [3]),
        (["extents"], None),
    ],
)
def test_a_damaged_table_is_refused(path: Sequence[Any], new: Any) -> None:
    value = tiled("bert").table.to_json()
    with pytest.raises(SpuError):
        WorkTable.from_json(damage(value, path, new))


def test_work_adds_up() -> None:
    a = Work(instructions=1, macs=2, dense_macs=5, read={"ddr": 3})
    b = Work(macs=7, dense_macs=7, vector_ops=4, read={"ddr": 1, "sram": 2}, written={"ddr": 1})
    both = total_work([a, b])
    assert both == a + b
    assert (both.macs, both.skipped, both.read) == (9, 3, {"ddr": 4, "sram": 2})
    assert total_work([]) == Work()
    assert np.isclose(float(json.loads(json.dumps(both.to_json()))["vector_ops"]), 4)


TRIANGLE = """
func.func @main(
    %x: memref<?x8xf32, #antoum<space ddr>> {onnx.name = "x", onnx.dim_params = "0:n"},
    %y: memref<?x8xf32, #antoum<space ddr>> {onnx.name = "y", onnx.dim_params = "0:n", spu.output})
    attributes {spu.extents = {n = [1, 8]}} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %n = memref.dim %x, %c0 : memref<?x8xf32, #antoum<space ddr>>
  scf.for %i = LOW to %n step %c1 {
    %size = OP %i, %c1 : index
    %from = memref.subview %x[0, 0] [%size, 8] [1, 1] : memref<?x8xf32, #antoum<space ddr>>
      to memref<?x8xf32, strided<[8, 1]>, #antoum<space ddr>>
    %to = memref.subview %y[0, 0] [%size, 8] [1, 1] : memref<?x8xf32, #antoum<space ddr>>
      to memref<?x8xf32, strided<[8, 1]>, #antoum<space ddr>>
    vpu.unary relu %from into %to : memref<?x8xf32, strided<[8, 1]>, #antoum<space ddr>>,
      memref<?x8xf32, strided<[8, 1]>, #antoum<space ddr>>
  }
  func.return
}
"""


@pytest.mark.parametrize(
    ("low", "op", "message"),
    [
        ("%c0", "arith.addi", "the size of a tile depends on"),
        ("%c0", "arith.minsi", "the size of a tile depends on"),
        ("%c1", "arith.addi", "must start at 0"),
    ],
)
def test_tiles_without_a_closed_form_are_refused(low: str, op: str, message: str) -> None:
    module = parse(TRIANGLE.replace("LOW", low).replace("OP", op))
    (function,) = (each for each in module.ops if isinstance(each, FuncOp))
    with pytest.raises(SpuError, match=message):
        work_table(function, {})


def test_steps_without_a_layer_get_that_which_they_serve() -> None:
    def step(layer: str, reads: Sequence[int] = (), writes: Sequence[int] = ()) -> StepWork:
        operands = [
            OperandWork(number, "sram", number in writes, 1, 1, number)
            for number in (*reads, *writes)
        ]
        return StepWork(layer, "op", "dma", "", (0,) * len(COUNTS), tuple(operands))

    steps = [
        step("", writes=[1]),  # a halo, which the next layer writes around
        step("", reads=[0], writes=[2]),  # the input, fetched for a step without a name
        step("", reads=[2], writes=[3]),
        step("first", reads=[3], writes=[1]),
        step("", writes=[2]),  # a place in the arena is used again
        step("second", reads=[1], writes=[2]),
        step("", reads=[2], writes=[4]),  # an output, which nothing reads
        step("", reads=[5], writes=[6]),  # of no layer
    ]
    names = ["first", "first", "first", "first", "second", "second", "second", ""]
    assert [named.layer for named in name_steps(steps)] == names


@pytest.mark.parametrize("name", ["resnet50", "bert"])
def test_every_step_of_a_network_is_of_a_layer(name: str) -> None:
    assert all(step.layer for step in tiled(name).table.program)
