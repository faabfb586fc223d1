"""Ratios of the benchmarks: as they are written, sorted and pruned."""

from __future__ import annotations

from argparse import ArgumentTypeError
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from benchmarks import ratios
from benchmarks.fidelity_cases import Case
from spu_ir import api
from spu_ir.transforms import encode
from spu_ir.zoo import BertConfig, ResNetConfig, published

BERT = BertConfig(
    vocab_size=200,
    hidden_size=128,
    num_hidden_layers=1,
    num_attention_heads=4,
    intermediate_size=256,
)


def test_a_ratio_is_read_sorted_and_written() -> None:
    found = ratios.parse_all("95%,16x/2,32,16,1x,90%,8/2")
    assert found == ["95%", "16x share 2", 32, 16, 1, "90%", "8x share 2"]
    ordered = [1, "8x share 2", 16, "16x share 2", 32, "90%", "95%"]
    assert sorted(found, key=ratios.order) == ordered
    titles = ["95%", "16x share 2", "32x", "16x", "1x", "90%", "8x share 2"]
    assert [ratios.title(ratio) for ratio in found] == titles


@pytest.mark.parametrize("text", ["3", "100%", "-1", "95.5%", "x", "%", "16x%", "16/3", "95%/2"])
def test_what_is_no_ratio_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="none of 1, 2, 4, 8, 16, 32, none such as"):
        ratios.parse(text)


def test_percent_are_zeros_of_each_weight_anywhere() -> None:
    model = ratios.build(replace(published("bert"), config=BERT), "95%")
    weights = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    pruned = [
        weights[node.input[1]]
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1] in weights
    ]
    assert len(pruned) == 7  # six of the layer, and the head
    for weight in pruned:
        if weight.shape[1] > 2:
            assert np.mean(weight == 0) == pytest.approx(0.95, abs=1e-3)
            of_rows = np.count_nonzero(weight, axis=0)
            assert of_rows.min() < of_rows.max()


@pytest.mark.parametrize(("ratio", "share"), [(16, 1), ("16x share 2", 2)])
def test_lane_groups_that_keep_the_same_places_share_slots(
    ratio: ratios.Ratio, share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(BERT, num_hidden_layers=2)
    case = Case(replace(published("bert"), config=config), seq=24)
    shares: list[int] = []

    def counted(*arguments: Any) -> encode.Choice:
        choice = choose(*arguments)
        if choice.encoding is not None:
            shares.append(choice.encoding.share.data)
        return choice

    choose = encode.choose
    monkeypatch.setattr(encode, "choose", counted)
    program, _ = api.lower(case.build(ratio), **case.options("int8"))
    assert program
    # Two layers of six products, and heads, which have only a few rows.
    assert shares[:12] == [share] * 12
    assert set(shares[12:]) <= {1}


def test_the_compiler_sees_them_by_itself() -> None:
    case = Case(replace(published("bert"), config=BERT), seq=24)
    program, _ = api.lower(case.build("95%"), **case.options("int8"))
    products = [row for row in program.report if ".layer.0." in str(row["layer"])]
    forms = [str(row["format"]).split()[0] for row in products if row["op"] == "spu.matmul"]
    # Lists of one length where some weight's fullest bank costs no more than lists of its own.
    assert set(forms) <= {"ragged", "banked"}
    assert "ragged" in forms
    assert len(forms) == 6


def test_a_random_resnet_is_pruned_before_its_statistics_are_taken() -> None:
    """Otherwise activations die, and errors say nothing."""
    model = replace(published("resnet50"), config=ResNetConfig(blocks=(1, 1), width=16, image=32))
    dense, found = ratios.build(model, 1), ratios.build(model, "95%")

    def variance(proto: object) -> float:
        named = {each.name: each for each in proto.graph.initializer}
        name = next(name for name in named if name.endswith("layer1.0.bn2.running_var"))
        return float(numpy_helper.to_array(named[name]).mean())

    # 5 % of normal weights, the largest, have 28 % of their energy.
    assert variance(found) < 0.5 * variance(dense)
