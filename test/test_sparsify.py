"""Pruning by bank, and the formats that encode chooses for the zeros that it leaves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.nets import Net
from xdsl.dialects.builtin import FloatAttr, StringAttr

from spu_ir.dialects.spu import EpilogueOp, encoding_of
from spu_ir.dialects.types import Array, bfloat16
from spu_ir.dialects.weights import store_of
from spu_ir.errors import SpuError
from spu_ir.interpreters import interpret
from spu_ir.packing.segments import segments_of
from spu_ir.packing.windows import counts_of
from spu_ir.transforms.convert_bf16 import ConvertBf16Pass
from spu_ir.transforms.encode import EncodePass, choose
from spu_ir.transforms.fold_qdq import FoldQdqPass
from spu_ir.transforms.quantise import QuantisePass
from spu_ir.transforms.rewriting import constant_of
from spu_ir.transforms.sparsify import SparsifyPass


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def product_of(net: Net) -> EpilogueOp:
    """The last product of a net."""
    return [op for op in net.block.ops if isinstance(op, EpilogueOp)][-1]


def weight_of(net: Net) -> Array:
    array = constant_of(product_of(net).weight, store_of(net.ctx))
    assert array is not None
    return array


@pytest.mark.parametrize("share", [1, 2])
@pytest.mark.parametrize("precision", ["int8", "bf16"])
@pytest.mark.parametrize("ratio", [2, 4, 8, 16, 32])
def test_ratio_becomes_slots(ratio: int, precision: str, share: int) -> None:
    net = Net((4, 160))
    module = net.finish(net.matmul(net.inputs[0], normal(64, 160)))
    SparsifyPass(ratio, precision, share).apply(net.ctx, module)
    if precision == "int8":
        QuantisePass().apply(net.ctx, module)
        FoldQdqPass().apply(net.ctx, module)
    else:
        ConvertBf16Pass().apply(net.ctx, module)
    EncodePass().apply(net.ctx, module)
    module.verify()
    op = product_of(net)
    bank = 64 if precision == "int8" else 32
    encoding = encoding_of(op.weight)
    assert encoding is not None
    assert (encoding.bank.data, encoding.slots.data) == (bank, bank // ratio)
    assert encoding.share.data == share
    assert op.attributes["format"] == StringAttr(f"banked {bank // ratio}/{bank}")
    density = op.attributes["density"]
    assert isinstance(density, FloatAttr)
    assert 0 < density.value.data <= -(-160 // bank) * (bank // ratio) / 160 + 1e-6


def test_the_largest_of_a_bank_stay() -> None:
    weight = normal(16, 100)
    net = Net((2, 100))
    module = net.finish(net.matmul(net.inputs[0], weight))
    SparsifyPass(16).apply(net.ctx, module)
    pruned = weight_of(net)
    for low, high in ((0, 64), (64, 100)):
        for row, kept in zip(weight[:, low:high], pruned[:, low:high], strict=True):
            largest = np.sort(np.abs(row))[-4]
            np.testing.assert_array_equal(kept, np.where(np.abs(row) >= largest, row, 0))


@pytest.mark.parametrize(("groups", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_banks_of_a_convolution_lie_inside_its_segments(groups: int, dilation: int) -> None:
    net = Net((1, 9, 9, 48 * groups))
    weight = normal(32, 3, 3, 48)
    y = net.conv(net.inputs[0], weight, groups=groups, dilation=dilation)
    module = net.finish(y)
    op = product_of(net)
    segments = segments_of(op)
    lengths = [length for _, length in segments]
    assert lengths == ([144] * 3 if groups == dilation == 1 else [48] * 9)
    SparsifyPass(16).apply(net.ctx, module)
    flat = (weight_of(net) != 0).reshape(32, -1).astype(np.int8)
    assert counts_of(flat, segments, 1, groups).max() == 4
    assert flat.sum() == 32 * 4 * sum(-(-length // 64) for length in lengths)


def test_segments_are_where_the_taps_are() -> None:
    net = Net((1, 9, 10, 4))
    op = net.conv(net.inputs[0], normal(8, 2, 3, 4), dilation=2).owner
    assert isinstance(op, EpilogueOp)
    line, pixel = 10 * 16, 16
    taps = [(y * 2 * line + x * 2 * pixel, 4) for y in range(2) for x in range(3)]
    assert segments_of(op) == taps
    # A halo of one pixel on each side makes lines longer.
    assert segments_of(op, line=12 * 16)[3] == (2 * 12 * 16, 4)
    op = net.conv(net.inputs[0], normal(8, 2, 3, 4)).owner
    assert isinstance(op, EpilogueOp)
    assert segments_of(op) == [(0, 12), (line, 12)]


def test_a_shared_weight_is_pruned_once() -> None:
    net = Net((2, 64))
    weight = net.constant(normal(64, 64))
    y = net.matmul(net.matmul(net.inputs[0], weight), weight)
    module = net.finish(y)
    SparsifyPass(8).apply(net.ctx, module)
    first, second = [op for op in net.block.ops if isinstance(op, EpilogueOp)]
    assert first.weight is second.weight
    assert first.weight is not weight


def test_unknown_options_are_named() -> None:
    net = Net((2, 64))
    module = net.finish(net.matmul(net.inputs[0], normal(64, 64)))
    with pytest.raises(SpuError, match="no ratio 3; it is one of 1, 2, 4, 8, 16, 32"):
        SparsifyPass(3).apply(net.ctx, module)
    with pytest.raises(SpuError, match="no precision 'f32'; it is one of int8, bf16"):
        SparsifyPass(16, "f32").apply(net.ctx, module)


def random_sparse(rows: int, depth: int, density: float, seed: int = 1) -> Array:
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 128, (rows, depth)).astype(np.int8)
    return np.where(rng.random((rows, depth)) < density, values, np.int8(0))


@pytest.mark.parametrize(
    ("density", "low", "high"), [(0.1, 11.5, 13.5), (0.05, 7.4, 9.0), (0.2, 19.0, 23.0)]
)
def test_unstructured_zeros_are_ragged(density: float, low: float, high: float) -> None:
    choice = choose(random_sparse(256, 1024, density), [(0, 1024)], 1)
    assert choice.encoding is not None
    assert choice.encoding.slots.data == 0
    assert low < float(choice.format.removeprefix("ragged ").partition("/")[0]) < high


def test_few_zeros_are_dense() -> None:
    choice = choose(random_sparse(64, 512, 0.5), [(0, 512)], 1)
    assert choice.encoding is None
    assert choice.dense_reason is not None
    assert "slots a bank" in choice.dense_reason


def test_short_banks_are_counted_at_their_length() -> None:
    # 4 of 8 in each segment: a bank of 64 would look sparse, but its 8 elements are half full.
    weight = np.tile(np.array([1, 0] * 4, np.int8), (16, 9))
    assert choose(weight, [(0, 8)] * 9, 1).encoding is not None
    weight = np.tile(np.array([1, 1, 1, 0] * 2, np.int8), (16, 9))
    assert choose(weight, [(0, 8)] * 9, 1).encoding is None


@given(
    rows=st.integers(1, 40),
    depth=st.integers(1, 200),
    density=st.sampled_from([0.0, 0.02, 0.1, 0.3, 1.0]),
    dtype=st.sampled_from(["int8", "bfloat16"]),
    seed=st.integers(0, 99),
)
def test_every_choice_can_hold_its_weight(
    rows: int, depth: int, density: float, dtype: str, seed: int
) -> None:
    weight = random_sparse(rows, depth, density, seed)
    weight = weight if dtype == "int8" else weight.astype(bfloat16)
    choice = choose(weight, [(0, depth)], 1)
    if choice.encoding is not None and choice.encoding.slots.data:
        share = choice.encoding.share.data
        counts = counts_of(weight, [(0, depth)], share)
        assert counts.max() <= choice.encoding.slots.data
        assert choice.encoding.bank.data * weight.itemsize == 64


def test_pruning_is_the_masked_network() -> None:
    net = Net((3, 128))
    weight = normal(32, 128)
    module = net.finish(net.matmul(net.inputs[0], weight))
    SparsifyPass(8).apply(net.ctx, module)
    x = normal(3, 128, seed=5)
    mask = weight_of(net) != 0
    assert mask.mean() == 1 / 8
    result = interpret(module, net.ctx, {"x0": x})["y0"]
    np.testing.assert_allclose(result, x @ np.where(mask, weight, 0).T, rtol=1e-4, atol=1e-5)
