"""Sensitivity, mixed precision and bias correction: what they say, and that they help."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import MODELS, SHAPES, feeds
from support.nets import Net
from support.networks import cnn, error, normal, products, run, transformer, weights
from xdsl.dialects.builtin import StringAttr
from xdsl.passes import PassPipeline

import spu_ir
from spu_ir.api import lower
from spu_ir.dialects.spu import ConvOp, EpilogueOp
from spu_ir.dialects.types import Array, element_of
from spu_ir.dialects.vpu import QuantiseOp, QuantiseRowsOp
from spu_ir.errors import SpuError
from spu_ir.interpreters import interpret
from spu_ir.interpreters.branching import Trunk
from spu_ir.quantisation import Quantisation
from spu_ir.runtime.build import build
from spu_ir.runtime.cpu import host_levels
from spu_ir.runtime.model import CompiledModel
from spu_ir.tools import spu_compile
from spu_ir.tools.verify_passes import PassVerifier
from spu_ir.transforms import pipelines
from spu_ir.transforms.calibrate import calibrate
from spu_ir.transforms.choose_precision import ChoosePrecisionPass, choose_precision, chosen
from spu_ir.transforms.correct_bias import CorrectBiasPass, correct_bias, mean_errors
from spu_ir.transforms.quantise import QuantisePass
from spu_ir.transforms.rewriting import is_kept_bf16, layer_of
from spu_ir.transforms.sensitivity import LayerSensitivity, measure, report
from spu_ir.transforms.twins import with_twins

NETS = [
    (transformer, (5, 96), "dynamic"),
    (transformer, (5, 96), "static"),
    (cnn, (16, 16, 3), "static"),
]
IDS = ["dynamic", "static", "cnn"]


def ready(make: Callable[[], Net], shape: Sequence[int]) -> tuple[Net, list[dict[str, Array]]]:
    """A calibrated net, and what it was calibrated with."""
    net = make()
    inputs = [{"x0": normal(4, *shape, seed=seed)} for seed in (20, 21)]
    calibrate(net.module, net.ctx, inputs)
    return net, inputs


# ---- runs that branch


def test_a_branch_is_a_run_with_one_value_exchanged() -> None:
    net, inputs = ready(transformer, (5, 96))
    trunk = Trunk(net.module, net.ctx, inputs[0])
    same: list[Array] = []
    other: list[Array] = []
    for op in trunk.run():
        if isinstance(op, EpilogueOp):
            value = op.results[0]
            same.append(trunk.branch(value, trunk.values[value])["y0"])
            other.append(trunk.branch(value, trunk.values[value] * np.float32(2))["y0"])
    expected = interpret(net.module, net.ctx, inputs[0])["y0"]
    np.testing.assert_array_equal(trunk.outputs["y0"], expected)
    assert len(same) == len(products(net.module))
    for array in same:
        np.testing.assert_array_equal(array, expected)
    assert all(error(array, expected) > 0.01 for array in other)
    np.testing.assert_array_equal(other[-1], 2 * expected)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(("make", "shape", "mode"), NETS, ids=IDS)
def test_twins_change_nothing(
    make: Callable[[], Net], shape: Sequence[int], mode: str, plain: bool
) -> None:
    net, inputs = ready(make, shape)
    before = str(net.module)
    copy, twins = with_twins(net.module, net.ctx, mode, plain=plain)
    assert str(net.module) == before
    assert [twin.original for twin in twins] == products(net.module)
    expected = interpret(net.module, net.ctx, inputs[0])["y0"]
    np.testing.assert_array_equal(interpret(copy, net.ctx, inputs[0])["y0"], expected)


# ---- sensitivity


@pytest.mark.parametrize(("make", "shape", "mode"), NETS, ids=IDS)
def test_sensitivity_is_the_error_of_quantising_one_layer(
    make: Callable[[], Net], shape: Sequence[int], mode: str
) -> None:
    net, inputs = ready(make, shape)
    found = report(net.module, net.ctx, inputs, mode)
    assert [layer.error for layer in found.layers] == sorted(
        (layer.error for layer in found.layers), reverse=True
    )
    assert sum(layer.share for layer in found.layers) == pytest.approx(1)
    # The same by quantising a copy in which every other product is left.
    for layer in (found.layers[0], found.layers[-1]):
        copy = net.module.clone()
        for op in products(copy):
            if layer_of(op) != layer.layer:
                op.attributes["precision"] = StringAttr("bf16")
        QuantisePass(mode).apply(net.ctx, copy)
        pairs = [
            (interpret(copy, net.ctx, feed)["y0"], interpret(net.module, net.ctx, feed)["y0"])
            for feed in inputs
        ]
        got, expected = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
        assert error(got, expected) == pytest.approx(layer.error, rel=0.02)
    assert found.estimate == pytest.approx(found.error, rel=0.4)
    assert json.loads(json.dumps(found.json()))["layers"][0]["layer"] == found.layers[0].layer


def test_work_is_counted_without_zeros() -> None:
    net = Net((2, 64))
    weight = weights(8, 64)
    weight[:, ::2] = 0
    y = net.matmul(net.inputs[0], weight, "half")
    module = net.finish(net.matmul(y, weights(8, 8), "whole"))
    layers = measure(module, net.ctx, [{"x0": normal(2, 64)}])
    assert [layer.macs for layer in layers.values()] == [2 * 8 * 32, 2 * 8 * 8]


def test_sensitivity_needs_feeds_and_an_output_of_floats() -> None:
    net = transformer()
    with pytest.raises(SpuError, match="nothing to measure sensitivity with; pass at least one"):
        measure(net.module, net.ctx, [])


# ---- mixed precision


def layers_of(errors: Sequence[float], macs: Sequence[int]) -> dict[EpilogueOp, LayerSensitivity]:
    ops = products(transformer().module)
    return {
        op: LayerSensitivity(f"l{n}", "spu.matmul", "[]", m, m / sum(macs), e, e)
        for n, (op, e, m) in enumerate(zip(ops, errors, macs, strict=False))
    }


@given(
    pairs=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 1000)), min_size=1, max_size=6),
    budget=st.floats(0, 1),
    tolerance=st.floats(0, 1),
)
def test_the_budget_is_kept(
    pairs: list[tuple[float, int]], budget: float, tolerance: float
) -> None:
    errors, macs = zip(*pairs, strict=True)
    layers = layers_of(errors, macs)
    found = chosen(layers, budget, tolerance)
    assert sum(layers[op].macs for op in found) <= budget * sum(macs)
    rest = sum(layer.error**2 for op, layer in layers.items() if op not in found) ** 0.5
    fits = any(
        layer.macs <= budget * sum(macs) - sum(layers[op].macs for op in found)
        for op, layer in layers.items()
        if op not in found and layer.error > 0
    )
    assert rest <= tolerance + 1e-6 or not fits
    without_last = found[:-1]
    rest = sum(layer.error**2 for op, layer in layers.items() if op not in without_last) ** 0.5
    assert not found or rest >= tolerance - 1e-6


def sensitive() -> Net:
    """A net whose second product has columns of very different size: INT8 hurts it."""
    net = Net((16, 96))
    sizes = np.logspace(0, 2.5, 96, dtype=np.float32)
    x = net.matmul(net.inputs[0], weights(96, 96) * sizes[:, None], "before")
    x = net.matmul(x, weights(32, 96, seed=1) / sizes, "fragile")
    y = net.matmul(x, weights(512, 32, seed=2), "wide")
    net.finish(net.matmul(y, weights(256, 512, seed=3), "last"))
    return net


def test_mixed_takes_the_layer_that_matters() -> None:
    x = {"x0": normal(16, 96, seed=5)}
    errors: dict[float, float] = {}
    for budget in (0.0, 0.05):
        net = sensitive()
        expected = interpret(net.module, net.ctx, x)["y0"]
        estimate = choose_precision(net.module, net.ctx, [x], budget=budget)
        marked = [layer_of(op) for op in products(net.module) if is_kept_bf16(op)]
        assert marked == (["fragile"] if budget else [])
        for each in pipelines.quantise("mixed"):
            each.apply(net.ctx, net.module)
        net.module.verify()
        elements = {layer_of(op): str(element_of(op.x)) for op in products(net.module)}
        assert elements["fragile"] == ("bf16" if budget else "ui8")
        assert {elements[name] for name in ("before", "wide", "last")} == {"ui8"}
        errors[budget] = error(interpret(net.module, net.ctx, x)["y0"], expected)
        assert errors[budget] == pytest.approx(estimate, rel=0.4)
    assert errors[0.05] < errors[0.0] / 2


def test_a_static_net_gives_bf16_layers_values_that_went_through_no_grid() -> None:
    net, inputs = ready(cnn, (16, 16, 3))
    for op in products(net.module):
        if layer_of(op) in ("d", "c"):
            op.attributes["precision"] = StringAttr("bf16")
    for each in pipelines.quantise("mixed"):
        each.apply(net.ctx, net.module)
    net.module.verify()
    by_layer = {layer_of(op): op for op in products(net.module)}
    assert str(element_of(by_layer["d"].x)) == "bf16"
    assert str(element_of(by_layer["a"].x)) == "ui8"
    interpret(net.module, net.ctx, inputs[0])


def test_what_stays_bf16_changes_nothing_for_the_others() -> None:
    net, _ = ready(cnn, (16, 16, 3))
    for op in products(net.module):
        if isinstance(op, ConvOp):
            op.attributes["precision"] = StringAttr("bf16")
    QuantisePass().apply(net.ctx, net.module)
    # The head of a network of convolutions has a static scale, however few of them are left.
    kinds = [op for op in net.module.walk() if isinstance(op, QuantiseOp | QuantiseRowsOp)]
    assert [type(op) for op in kinds] == [QuantiseOp]


@pytest.mark.parametrize(("make", "shape", "mode"), NETS, ids=IDS)
def test_every_pass_keeps_its_promise(
    make: Callable[[], Net], shape: Sequence[int], mode: str, tmp_path: Path
) -> None:
    net, inputs = ready(make, shape)
    npz = str(tmp_path / "feeds.npz")
    np.savez(npz, **inputs[0])
    passes = (
        ChoosePrecisionPass(npz, budget=0.4, mode=mode),
        CorrectBiasPass(npz, mode=mode),
        *pipelines.quantise("mixed", mode),
    )
    PassPipeline(passes, PassVerifier(net.ctx)).apply(net.ctx, net.module)
    assert len({str(element_of(op.x)) for op in products(net.module)}) == 2


@pytest.mark.parametrize("name", ["block", "convolutions"])
def test_a_mixed_program_has_the_same_bits_everywhere(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPU_IR_POISON", "1")
    program, job = lower(
        MODELS[name](),
        quantisation=Quantisation("mixed", bias_correction=True, budget=0.5),
        sparsity=4,
        calibration=(feeds(name, seed, 2, 9) for seed in range(2)),
        shapes=SHAPES[name],
    )
    inputs = feeds(name, 7, 2, 9)
    expected = interpret(job.module, job.ctx, inputs)["y"]
    levels = host_levels() if name == "block" else host_levels()[-1:]
    for level in dict.fromkeys((levels[0], levels[-1])):
        monkeypatch.setenv("SPU_IR_ISA", level)
        model = CompiledModel.from_program(program, build(program.source, [level]), threads=2)
        np.testing.assert_array_equal(model.run(inputs)["y"], expected)
        rows = [row for row in model.report() if row["op"] in ("spu.matmul", "spu.conv")]
        assert {"int8", "bf16"} <= {str(row["precision"]) for row in rows}
        for row in rows:
            cost = "INT8 here would cost" in str(row["reason"])
            assert cost == (row["precision"] == "bf16")


# ---- bias correction


@pytest.mark.parametrize(("make", "shape", "mode"), NETS, ids=IDS)
def test_bias_correction_reduces_the_error_on_other_data(
    make: Callable[[], Net], shape: Sequence[int], mode: str
) -> None:
    x = normal(32, *shape, seed=99)
    expected = run(make(), x)
    errors: list[float] = []
    means: list[float] = []
    for corrected in (False, True):
        net, inputs = ready(make, shape)
        if corrected:
            correct_bias(net.module, net.ctx, inputs, mode)
        QuantisePass(mode).apply(net.ctx, net.module)
        got = run(net, x)
        errors.append(error(got, expected))
        means.append(float(np.linalg.norm((got - expected).reshape(-1, got.shape[-1]).mean(0))))
    assert errors[1] < (0.7 if make is cnn else 0.99) * errors[0]
    assert means[1] < 0.6 * means[0]


def test_after_correction_the_means_are_those_of_f32() -> None:
    net, inputs = ready(cnn, (16, 16, 3))
    before = mean_errors(net.module, net.ctx, inputs)
    correct_bias(net.module, net.ctx, inputs)
    # The ranges are still those of the first calibration, and the inputs moved a little.
    after = mean_errors(net.module, net.ctx, inputs)
    assert len(after) == len(before) == len(products(net.module))
    fixed = {layer_of(op): op for op in products(net.module)}
    assert all(op.bias is not None for op in fixed.values())


def test_no_feed_is_an_error() -> None:
    net = transformer()
    with pytest.raises(SpuError, match="nothing to correct biases with"):
        correct_bias(net.module, net.ctx, [])


# ---- the interface


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "mixed"}, "precision 'mixed' needs calibration data; pass calibration="),
        ({"bias_correction": True}, "bias correction needs calibration data"),
        ({"activations": "static"}, "activations 'static' needs calibration data"),
        ({"precision": "bf16", "bias_correction": True}, "bias correction is for INT8"),
        ({"activations": "often"}, "activations 'often' is not known; use auto, dynamic, static"),
        ({"observer": "best"}, "no observer 'best'"),
        ({"precision": "int4"}, "precision 'int4' is not known; use fp32, bf16, int8, mixed"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(SpuError, match=message):
        spu_ir.compile(MODELS["perceptron"](), shapes=SHAPES["perceptron"], **options)  # pyright: ignore


def test_sensitivity_of_a_model_and_its_progress() -> None:
    seen: list[tuple[str, int, int]] = []
    found = spu_ir.sensitivity(
        MODELS["perceptron"](),
        calibration=(feeds("perceptron", seed, 2, 9) for seed in range(6)),
        sparsity=4,
        shapes=SHAPES["perceptron"],
        progress=lambda *step: seen.append(step),
    )
    assert len(found.layers) == 2
    assert found.feeds == 4
    assert ("calibrate", 6, 6) in seen
    assert ("sensitivity", 8, 8) in seen


def test_the_command_prints_sensitivity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, npz = tmp_path / "m.onnx", tmp_path / "feeds.npz"
    model.write_bytes(MODELS["perceptron"]().SerializeToString())
    np.savez(npz, **feeds("perceptron", 0, 2, 9))
    arguments = [str(model), "--sensitivity", "--shapes", "batch=1:4,seq=1:48"]
    assert spu_compile.main([*arguments, "--calibration", str(npz)]) == 0
    said = capsys.readouterr()
    assert "own error" in said.out
    assert "all in int8: error" in said.out
    assert said.err == ""
    assert spu_compile.main([*arguments, "--calibration", str(npz), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["layers"]) == 2
    assert spu_compile.main(arguments) == 1
    assert "error: sensitivity is measured on inputs; give some" in capsys.readouterr().err
    assert spu_compile.main([*arguments, "-o", str(tmp_path / "x")]) == 1
    assert "--sensitivity compiles nothing" in capsys.readouterr().err


def test_the_command_says_when_a_budget_is_too_small(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, npz = tmp_path / "m.onnx", tmp_path / "feeds.npz"
    model.write_bytes(MODELS["perceptron"]().SerializeToString())
    np.savez(npz, **feeds("perceptron", 0, 2, 9))
    # C is written and not built, which is quicker.
    arguments = [str(model), "--export-c", str(tmp_path / "c")]
    arguments += ["--shapes", "batch=1:4,seq=1:48", "--calibration", str(npz)]
    arguments += ["--precision", "mixed", "--budget", "0.5", "--tolerance"]
    assert spu_compile.main([*arguments, "1e-4"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"estimated error of the outputs: 0\.0\d+, more than the tolerance", said)
    assert spu_compile.main([*arguments, "1.0", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["layers"]
    assert {row["precision"] for row in rows if row["op"] == "spu.matmul"} == {"int8"}
