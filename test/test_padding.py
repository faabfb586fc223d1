"""Padding that is skipped: real positions to the bit, padded ones as documented, at every level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto
from support.models import MODELS
from support.models import SHAPES as MODEL_SHAPES
from support.padded import MASKS, SHAPES, Encoder, encoder, padded_feeds, real_positions
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser

import spu_ir
from spu_ir import api
from spu_ir.api import Padding
from spu_ir.interpreters import interpret
from spu_ir.quantisation import Precision
from spu_ir.runtime.build import build
from spu_ir.runtime.cpu import host_levels
from spu_ir.runtime.model import CompiledModel
from spu_ir.runtime.program import Program
from spu_ir.tools.verify_passes import PassVerifier
from spu_ir.transforms import pipelines
from spu_ir.transforms.skip_padding import SkipPaddingPass
from spu_ir.zoo.registry import published

Array = NDArray[Any]
LOWEST = np.finfo(np.float32).min

BATCHES = {
    "ragged": ([7, 70, 1, 64, 0], 70, ()),
    "full": ([66, 66], 66, ()),
    "one": ([1], 1, ()),
    "nothing": ([0, 0], 3, ()),
    "holes": ([40, 9, 3], 40, (0, 2, 5, 20)),
    "short": ([4, 0, 2], 5, (1,)),
}
"""Lengths of the samples, extent of the sequence, and positions of holes in the mask."""


@cache
def lowered(mask: str, precision: Precision, padding: Padding) -> tuple[Program, api.Compilation]:
    return api.lower(encoder(mask), precision=precision, padding=padding, shapes=SHAPES)


def stage(job: api.Compilation, name: str) -> ModuleOp:
    return Parser(job.ctx, job.stages[name]).parse_module()


def answer(job: api.Compilation, name: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
    return interpret(stage(job, name), job.ctx, feeds, exact_f32=True)


def expect_equal(
    got: Mapping[str, Array], computed: Mapping[str, Array], real: Array, who: str
) -> None:
    """`got` is `computed` at real positions, and what the documentation says at the others."""
    # Rows up to the last real one: those from which on some position is real.
    kept: Array = np.logical_or.accumulate(real[:, ::-1], axis=1)[:, ::-1]
    some: Array = real.any(axis=1)
    for name, array in computed.items():
        if array.shape[:2] == real.shape:
            fill = 0 if name == "hidden" else LOWEST
            assert np.array_equal(got[name][kept], array[kept]), (who, name)
            assert (got[name][~kept] == fill).all(), (who, name)
        else:
            # A sample of padding only has no first token.
            assert np.array_equal(got[name][some], array[some]), (who, name)


@pytest.mark.parametrize("mask", MASKS)
def test_every_kind_of_mask(mask: str) -> None:
    lengths, seq, holes = BATCHES["short"]
    feeds = padded_feeds(mask, real := real_positions(lengths, seq, holes))
    computed = answer(lowered(mask, "fp32", "compute")[1], "tensor", feeds)
    got = answer(lowered(mask, "fp32", "skip")[1], "tensor", feeds)
    expect_equal(got, computed, real, mask)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_every_stage_and_batch(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPU_IR_POISON", "1")
    program, job = lowered("int64", precision, "skip")
    _, plain = lowered("int64", precision, "compute")
    model = CompiledModel.from_program(program, threads=2)
    for seed, (batch, (lengths, seq, holes)) in enumerate(BATCHES.items()):
        real = real_positions(lengths, seq, holes)
        feeds = padded_feeds("int64", real, seed)
        got = model.run(feeds)
        expect_equal(got, answer(plain, "quantised", feeds), real, batch)
        if batch in ("short", "nothing"):
            for name in ("quantised", "tiled"):
                for output, array in answer(job, name, feeds).items():
                    assert np.array_equal(got[output], array), (name, output)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_every_level(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arithmetic alone is held to it by the tests of the kernels."""
    monkeypatch.setenv("SPU_IR_POISON", "1")
    programs = [lowered("int64", precision, padding)[0] for padding in api.PADDINGS]
    for level in host_levels():
        monkeypatch.setenv("SPU_IR_ISA", level)
        compute, skip = (
            CompiledModel.from_program(each, build(each.source, [level]), threads=2)
            for each in programs
        )
        for seed, (batch, (lengths, seq, holes)) in enumerate(BATCHES.items()):
            real = real_positions(lengths, seq, holes)
            feeds = padded_feeds("int64", real, seed)
            expect_equal(skip.run(feeds), compute.run(feeds), real, f"{level}, {batch}")


@cache
def compiled(padding: Padding) -> CompiledModel:
    return CompiledModel.from_program(lowered("int64", "int8", padding)[0], threads=2)


@given(st.data())
def test_any_lengths(data: st.DataObject) -> None:
    seq = data.draw(st.integers(1, SHAPES["seq"][1]))
    lengths = data.draw(st.lists(st.integers(0, seq), min_size=1, max_size=SHAPES["batch"][1]))
    holes = data.draw(st.lists(st.integers(0, seq - 1), max_size=3))
    real = real_positions(lengths, seq, holes)
    feeds = padded_feeds("int64", real, seed=seq)
    expect_equal(compiled("skip").run(feeds), compiled("compute").run(feeds), real, str(lengths))


def test_it_is_recorded(tmp_path: Any) -> None:
    model = spu_ir.compile(encoder(), precision="bf16", padding="skip", shapes=SHAPES)
    model.save(tmp_path / "model.spu", levels=[model.level])
    assert spu_ir.load(tmp_path / "model.spu").options["padding"] == "skip"
    assert "padding skip" in model.ir("c")
    padding = {str(row["layer"]): row["padding"] for row in model.report()}
    assert set(padding.values()) == {"skip", "compute"}
    products = [row for row in model.report() if row["op"] == "spu.matmul"]
    # All but the product on first tokens.
    assert [row["padding"] for row in products].count("compute") == 1
    attentions = [row for row in model.report() if row["op"] == "spu.attention"]
    assert [row["padding"] for row in attentions] == ["skip", "skip"]


def test_compute_is_the_default_and_recorded() -> None:
    model = spu_ir.compile(
        MODELS["perceptron"](), precision="fp32", shapes=MODEL_SHAPES["perceptron"]
    )
    assert model.options["padding"] == "compute"
    assert {str(row["padding"]) for row in model.report()} == {"compute"}


def test_no_mask_is_an_error() -> None:
    with pytest.raises(spu_ir.SpuError, match=r'no attention.*padding="compute"'):
        api.lower(
            MODELS["perceptron"](),
            precision="fp32",
            padding="skip",
            shapes=MODEL_SHAPES["perceptron"],
        )


def unmasked_encoder() -> Any:
    g = Encoder("int64")
    real = g.op("Cast", g.op("Unsqueeze", g.mask, g.axes(-1)), to=TensorProto.FLOAT)
    value = g.op("Mul", g.x, real)
    zero = g.op("Mul", g.op("ReduceMax", value, g.axes(1, 2), keepdims=1), g.number(0.0))
    value = g.layer(value, g.op("Unsqueeze", zero, g.axes(1)))
    return g.model(y=(value, ["batch", "seq", 64]))


def test_a_mask_that_mixes_positions_is_an_error() -> None:
    with pytest.raises(spu_ir.SpuError, match=r'depends on .*mask.*padding="compute"') as caught:
        api.lower(unmasked_encoder(), precision="fp32", padding="skip", shapes=SHAPES)
    assert "spu.attention" in str(caught.value)


def test_a_mask_of_two_inputs_is_an_error() -> None:
    g = Encoder("int64")
    bias = g.input("bias", ["batch", 1, 1, "seq"])
    value = g.layer(g.x, g.op("Add", g.added(), bias))
    with pytest.raises(spu_ir.SpuError, match="'bias' and 'mask'"):
        api.lower(
            g.model(y=(value, ["batch", "seq", 64])),
            precision="fp32",
            padding="skip",
            shapes=SHAPES,
        )


def test_a_weak_mask_is_an_error() -> None:
    """Keys that are only made unlikely still count."""
    g = Encoder("int64")
    real = g.op("Cast", g.op("Unsqueeze", g.mask, g.axes(1, 2)), to=TensorProto.FLOAT)
    weak = g.op("Mul", g.op("Sub", g.number(1.0), real), g.number(-9.0))
    with pytest.raises(spu_ir.SpuError, match="no value of the input 'mask' hides a key"):
        api.lower(
            g.model(y=(g.layer(g.x, weak), ["batch", "seq", 64])),
            precision="fp32",
            padding="skip",
            shapes=SHAPES,
        )


def rows_of(model: Any, shapes: Mapping[str, Any]) -> list[dict[str, Any]]:
    program, _ = api.lower(model, precision="fp32", padding="skip", shapes=shapes)
    return list(program.report)


def test_all_rows_are_computed_where_an_unmasked_sum_needs_them() -> None:
    g = Encoder("int64")
    value = g.layer(g.x, g.added())
    total = g.op("ReduceMean", value, g.axes(1), keepdims=0)
    model = g.model(y=(total, ["batch", 64]))
    (attention,) = [row for row in rows_of(model, SHAPES) if row["op"] == "spu.attention"]
    assert attention["padding"] == "compute"
    assert "all rows of its result are needed by vpu.reduce of ReduceMean" in attention["reason"]
    feeds = padded_feeds("int64", real_positions([3, 9], 9))
    both = [
        api.lower(model, precision="fp32", padding=padding, shapes=SHAPES)[1]
        for padding in api.PADDINGS
    ]
    a, b = (answer(job, "tensor", feeds)["y"] for job in both)
    assert np.array_equal(a, b)


def test_a_mask_for_pooling_only_hides_what_it_is_known_to_hide() -> None:
    """Rows that another input masks may be real ones of the attention's mask, and are needed."""
    g = Encoder("int64")
    other = g.input("other", ["batch", "seq"], "int64")
    value = g.layer(g.x, g.added())
    g.mask = other
    model = g.model(y=(g.pooled(value), ["batch", 64]))
    (attention,) = [row for row in rows_of(model, SHAPES) if row["op"] == "spu.attention"]
    assert attention["padding"] == "compute"


def test_queries_of_another_sequence_keep_their_rows() -> None:
    """Cross attention: the mask is of the keys, and as many queries are all real."""
    g = Encoder("int64")
    queries = g.input("queries", ["batch", "seq", 64])
    own = g.x
    g.x = queries
    q = g.dense(queries, 64, 64)
    k, v = (g.dense(own, 64, 64) for _ in range(2))
    scores = g.op("MatMul", g.heads(q, [0, 2, 1, 3]), g.heads(k, [0, 2, 3, 1]))
    scaled = g.op("Add", g.op("Div", scores, g.number(4.0)), g.added())
    mixed = g.op("MatMul", g.op("Softmax", scaled, axis=-1), g.heads(v, [0, 2, 1, 3]))
    joined = g.op("Transpose", mixed, perm=[0, 2, 1, 3])
    out = g.dense(g.op("Reshape", joined, g.axes(0, 0, 64)), 64, 64)
    model = g.model(y=(out, ["batch", "seq", 64]))
    rows = rows_of(model, SHAPES)
    assert {row["padding"] for row in rows if row["op"] == "spu.matmul"} == {"compute"}


def test_a_masked_convolution_sees_what_it_sees_when_padded() -> None:
    """Zeroed before the convolution, padded rows need not be computed: they are unpacked as 0."""
    g = Encoder("int64")
    added = g.added()
    value = g.layer(g.x, added)
    real = g.op("Cast", g.op("Unsqueeze", g.mask, g.axes(-1)), to=TensorProto.FLOAT)
    turned = g.op("Transpose", g.op("Mul", value, real), perm=[0, 2, 1])
    mixed = g.op("Conv", turned, g.weight((64, 64, 5)), g.weight((64,)), pads=[2, 2])
    value = g.norm(g.op("Add", value, g.op("Transpose", mixed, perm=[0, 2, 1])))
    model = g.model(hidden=(g.layer(value, added), ["batch", "seq", 64]))
    shapes = {"batch": (1, 4), "seq": 12}
    jobs = [
        api.lower(model, precision="fp32", padding=padding, shapes=shapes)
        for padding in ("compute", "skip")
    ]
    products = [row for row in jobs[1][0].report if row["op"] in ("spu.matmul", "spu.attention")]
    assert {str(row["padding"]) for row in products} == {"skip"}
    feeds = padded_feeds("int64", kept := real_positions([12, 5, 0, 1], 12))
    computed, got = (answer(job, "tensor", feeds) for _, job in jobs)
    expect_equal(got, computed, kept, "convolution")


@cache
def small_conformer() -> tuple[Any, Any]:
    conformer = published("conformer")
    config = replace(
        conformer.config, d_model=32, heads=2, ffn=64, layers=2, kernel=5, height=16, width=64
    )
    conformer = replace(conformer, config=config)
    return conformer, conformer.build()


@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.slow), "bf16"])
def test_a_conformer_is_the_same_everywhere(precision: Precision) -> None:
    """Its convolutions see padded frames, so all are computed; attention reads the real keys."""
    conformer, model = small_conformer()
    program, skip = api.lower(
        model, precision=precision, padding="skip", shapes=dict(conformer.bounds)
    )
    _, compute = api.lower(model, precision=precision, shapes=dict(conformer.bounds))
    attentions = [row for row in program.report if row["op"] == "spu.attention"]
    assert {str(row["padding"]) for row in attentions} == {"keys"}
    assert all("all rows of its result are needed" in str(row["reason"]) for row in attentions)
    feeds = conformer.feeds(batch=3, seed=1)
    feeds["src_pad_mask"][1] = True
    expected = answer(compute, "quantised", feeds)["memory"]
    assert np.array_equal(answer(skip, "quantised", feeds)["memory"], expected)
    if precision == "bf16":
        got = CompiledModel.from_program(program, threads=2).run(feeds)["memory"]
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("name", ["bert", "albert", "roberta"])
def test_published_models_skip_all_products(name: str) -> None:
    """Their scores, of the published interface, are the lowest number where there is padding."""
    small = {
        "vocab_size": 60,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "max_position_embeddings": 96,
    }
    model = published(name)
    model = replace(model, config=replace(model.config, **small))
    bounds = {"batch": (1, 4), "seq": (1, 48)}
    program, skip = api.lower(model.build(), precision="int8", padding="skip", shapes=bounds)
    _, compute = api.lower(model.build(), precision="int8", shapes=bounds)
    products = [row for row in program.report if str(row["op"]).startswith("spu.")]
    assert "spu.packed_attention" in {row["op"] for row in products}
    assert {str(row["padding"]) for row in products} == {"skip"}
    feeds = model.feeds(batch=3, seq=24, seed=2)
    real = feeds["attention_mask.1"] != 0
    assert not real.all()
    expect_equal(answer(skip, "quantised", feeds), answer(compute, "quantised", feeds), real, name)


def test_static_scales_come_from_real_rows() -> None:
    """Calibrated on feeds that differ in what padding holds only, models are the same."""
    programs: list[Program] = []
    for padding in (0.0, 1000.0):
        feeds = padded_feeds("int64", real := real_positions([5, 12], 12))
        feeds["x"][~real] = padding
        program, _ = api.lower(
            encoder(layers=1),
            padding="skip",
            shapes=SHAPES,
            calibration=[feeds],
            quantisation=spu_ir.quantisation.Quantisation("int8", activations="static"),
        )
        programs.append(program)
    first, second = programs
    # Not the head's digest: the module has the range of the input, which nothing quantises.
    assert first.source.splitlines()[4:] == second.source.splitlines()[4:]
    assert all(np.array_equal(first.weights[n], second.weights[n]) for n in first.weights)


def test_the_pass_keeps_its_promise() -> None:
    """`spu-opt --verify-passes`: all rows computed, and the padded ones overwritten."""
    ctx = api.new_context()
    job = api.Compilation(ctx, spu_ir.frontend.import_model(encoder(), ctx, shapes=SHAPES))
    job.run("graph", pipelines.GRAPH)
    job.run("lowered", pipelines.LOWER)
    for seed in range(4):
        module = stage(job, "lowered")
        verifier = PassVerifier(ctx, seed=seed)
        skip = SkipPaddingPass()
        verifier(None, module, skip)
        skip.apply(ctx, module)
        assert "vpu.pack_rows" in str(module)
        verifier(skip, module, None)


def test_fixed_extents() -> None:
    shapes = {"batch": 2, "seq": 9}
    jobs = [
        api.lower(encoder(layers=1), precision="fp32", padding=padding, shapes=shapes)[1]
        for padding in ("compute", "skip")
    ]
    real = real_positions([4, 9], 9)
    computed, got = (answer(job, "tiled", padded_feeds("int64", real)) for job in jobs)
    expect_equal(got, computed, real, "fixed")
    one = {"batch": 1, "seq": 9}
    jobs = [
        api.lower(encoder(layers=1), precision="fp32", padding=padding, shapes=one)[1]
        for padding in ("compute", "skip")
    ]
    computed, got = (answer(job, "tiled", padded_feeds("int64", real[:1])) for job in jobs)
    expect_equal(got, computed, real[:1], "fixed")


def test_deep_models() -> None:
    """What a mask depends on is found without recursion."""
    wide, scores = "tensor<2x4x8xf32>", "tensor<2x1x1x4xf32>"
    lines = [f"%v0 = vpu.unary tanh %x into %e : {wide}, {wide} -> {wide}"]
    for number in range(1500):
        lines.append(
            f"%v{number + 1} = vpu.unary tanh %v{number} into %e : {wide}, {wide} -> {wide}"
        )
    body = "\n".join(lines)
    text = f"""
    func.func @main(%x: {wide} {{onnx.name = "x"}}, %m: tensor<2x4xf32> {{onnx.name = "m"}})
        -> {wide} {{
      %e = tensor.empty() : {wide}
      %es = tensor.empty() : {scores}
      %s = vpu.reshape %m into %es : tensor<2x4xf32>, {scores} -> {scores}
      {body}
      %y = spu.attention %v1500, %v1500, %v1500 mask(%s : {scores}) into %e
          {{heads = 2 : i64, kv_heads = 2 : i64, scale = 0.5 : f32}}
          : {wide}, {wide}, {wide}, {wide} -> {wide}
      %z = vpu.binary mul %y, %x into %e : {wide}, {wide}, {wide} -> {wide}
      func.return %z : {wide}
    }}"""
    ctx = api.new_context()
    module = Parser(ctx, text).parse_module()
    SkipPaddingPass().apply(ctx, module)
    module.verify()
    # x, and nothing else, is packed.
    assert str(module).count("vpu.pack_rows") == 1
