"""Depthwise convolution: the golden model against loops, the packed weight, and the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.interpreting import BF16, integers
from support.models import Graph
from xdsl.parser import Parser

from spu_ir import api
from spu_ir.interpreters import interpret
from spu_ir.interpreters.numerics_depthwise import depthwise_bf16, depthwise_f32, depthwise_i8
from spu_ir.interpreters.numerics_spu import matmul_f32
from spu_ir.packing.depthwise import pack_depthwise
from spu_ir.runtime.build import build
from spu_ir.runtime.cpu import host_levels
from spu_ir.runtime.model import CompiledModel

Array = NDArray[Any]


def test_bytes_are_summed_exactly() -> None:
    x = integers(0, 256, 3, 5, 20, dtype=np.uint8)
    w = integers(-128, 128, 20, 5, dtype=np.int8)
    expected = np.einsum("mkc,ck->mc", x.astype(np.int64) - 200, w.astype(np.int64))
    np.testing.assert_array_equal(depthwise_i8(x, w, 200), expected)


def test_floats_are_summed_as_a_product_of_each_channel() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((3, 9, 4)).astype(np.float32)
    w = random.standard_normal((4, 9)).astype(np.float32)
    for c in range(4):
        expected = matmul_f32(x[:, :, c], w[c : c + 1])[:, 0]
        np.testing.assert_array_equal(depthwise_f32(x, w)[:, c], expected)


def test_bf16_rounds_once_a_tap_and_flushes_denormals() -> None:
    x = np.array([[[1.0], [2.0**-24], [2.0**-24]]], np.float32)
    w = np.ones((1, 3), np.float32)
    assert depthwise_bf16(x, w)[0, 0] == 1.0
    assert depthwise_bf16(x[:, ::-1], w)[0, 0] == np.float32(1 + 2.0**-23)
    tiny = np.full((1, 1, 1), 2.0**-100, np.float32)
    assert depthwise_bf16(tiny, np.full((1, 1), 2.0**-30, np.float32))[0, 0] == 0.0


@pytest.mark.parametrize("dtype", ["int8", "float32", BF16])
def test_a_packed_weight_has_a_word_for_each_channel_of_a_tap(dtype: Any) -> None:
    weight = integers(-100, 100, 20, 3).astype(dtype)
    segments = [(0, 1), (40, 1), (80, 1)]
    packed = pack_depthwise(weight, segments, 7 if dtype == "int8" else 0)
    assert packed.lane_groups == 2
    assert packed.value.shape == (6, 16)
    assert packed.value.itemsize == 4
    words = packed.value.reshape(2, 3, 16).swapaxes(1, 2).reshape(32, 3)
    if dtype == BF16:
        assert words.dtype == np.uint32
        words = (words << 16).view(np.float32)
    np.testing.assert_array_equal(words[:20], weight.astype(np.float32))
    assert not words[20:].any()
    assert list(packed.offset) == [0, 40, 80]
    if dtype == "int8":
        assert packed.correction is not None
        np.testing.assert_array_equal(packed.correction[:20], -7 * weight.sum(1, dtype=np.int32))


def test_segments_that_are_no_taps_are_refused() -> None:
    with pytest.raises(ValueError, match="3 taps needs as many segments of one element"):
        pack_depthwise(np.ones((4, 3), np.int8), [(0, 3)])


def test_a_sum_beyond_int32_is_refused() -> None:
    with pytest.raises(ValueError, match="beyond int32"):
        pack_depthwise(np.full((1, 70000), 127, np.int8), [(0, 1)] * 70000)


# fmt: off
SPECIAL = np.array([
    0.0, -0.0, 1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 3e38, -3e38, 2.0**-126, -(2.0**-70),
], np.float32)
# fmt: on


def test_special_values_give_the_same_bits_at_every_level() -> None:
    """Channels 16 to 21 are a group of lanes that is not full; 14 pixels and more are two tiles."""
    g = Graph(3)
    x = g.input("x", ["batch", 22, 4, 17])
    weight = g.rng.standard_normal((22, 1, 2, 3)).astype(np.float32)
    weight[g.rng.random(weight.shape) < 0.3] = 0
    weight[3] = 2.0**-80
    y = g.op("Conv", x, g.weight(weight), group=22, pads=[0, 1, 1, 1])
    model = g.model(y=(y, ["batch", 22, 4, 17]))
    random = np.random.default_rng(4)
    feed = random.standard_normal((2, 22, 4, 17)).astype(np.float32)
    feed = np.where(random.random(feed.shape) < 0.05, random.choice(SPECIAL, feed.shape), feed)
    for precision in ("fp32", "bf16"):
        program, job = api.lower(model, precision=precision, shapes={"batch": (1, 2)})
        stage = Parser(job.ctx, job.stages["quantised"]).parse_module()
        expected = interpret(stage, job.ctx, {"x": feed}, exact_f32=True)["y"]
        assert np.isnan(expected).any()
        for level in host_levels():
            libraries = build(program.source, [level])
            got = CompiledModel.from_program(program, libraries, threads=1).run({"x": feed})["y"]
            same = (got.view(np.uint32) == expected.view(np.uint32)) | (
                np.isnan(got) & np.isnan(expected)
            )
            assert same.all(), (precision, level, np.argwhere(~same)[:3])


WINDOWS = [
    ((1, 31), (0, 15), (1, 1), (1, 1)),
    ((1, 70), (0, 35), (1, 1), (1, 1)),
    ((3, 3), (1, 1), (1, 1), (1, 1)),
    ((2, 5), (1, 2), (1, 1), (2, 1)),
    ((1, 9), (0, 4), (1, 2), (1, 2)),
    ((1, 9), (0, 4), (1, 2), (1, 1)),
    ((1, 2), (0, 0), (1, 1), (1, 1)),
    ((1, 38), (0, 0), (1, 1), (1, 1)),
    ((4, 40), (0, 0), (1, 1), (1, 1)),
    ((16, 15), (8, 7), (1, 1), (1, 1)),
    ((17, 15), (8, 7), (1, 1), (1, 1)),
]
"""Taps, pads, strides and dilations: tiles of 1 to 14 pixels, the last one's taps too many."""


def test_bytes_give_the_same_bits_at_every_level() -> None:
    """
    Of rows of taps that lie a pixel apart, four are taken together; of the others, one.
    Channels 64 to 89 are more than those that are turned together, and the last group not full.
    """
    g = Graph(5)
    x = g.input("x", ["batch", 90, 4, 40])
    outputs: dict[str, tuple[str, list[int | str]]] = {}
    for number, (taps, pads, strides, dilations) in enumerate(WINDOWS):
        weight = g.rng.standard_normal((90, 1, *taps)).astype(np.float32)
        window = {"pads": [*pads, *pads], "strides": [*strides], "dilations": [*dilations]}
        y = g.op("Conv", x, g.weight(weight), group=90, **window)
        outputs[f"y{number}"] = (y, ["batch", 90, f"h{number}", f"w{number}"])
    feeds = {"x": np.random.default_rng(6).standard_normal((2, 90, 4, 40)).astype(np.float32)}
    program, job = api.lower(
        g.model(**outputs), precision="int8", shapes={"batch": (1, 2)}, calibration=[feeds]
    )
    assert program.source.count("spu_depthwise_run(tile, SPU_I8") == 1
    stage = Parser(job.ctx, job.stages["quantised"]).parse_module()
    expected = interpret(stage, job.ctx, feeds, exact_f32=True)
    for level in host_levels():
        libraries = build(program.source, [level])
        got = CompiledModel.from_program(program, libraries, threads=1).run(feeds)
        for name, want in expected.items():
            np.testing.assert_array_equal(got[name], want, err_msg=f"{level} {name}")
