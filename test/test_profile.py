"""Profiled programs count what the table says, and zeros as numpy does; others pay nothing."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto
from support.programs import ADD

import spu_ir
from spu_ir import api
from spu_ir.errors import SpuError
from spu_ir.runtime import CompiledModel
from spu_ir.runtime.build import DEVICE, PROFILE, build, find_compiler, program_flags
from spu_ir.runtime.cpu import host_levels
from spu_ir.schedule.profile import Profile
from spu_ir.schedule.work import total_work
from spu_ir.tools.spu_run import main
from spu_ir.zoo.common import GraphBuilder
from spu_ir.zoo.registry import Published, published

DATA = Path(__file__).parent / "data"
TEXT = {
    "vocab_size": 60,
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 96,
}
SMALL: dict[str, dict[str, Any]] = {
    "bert": TEXT,
    "resnet50": {"blocks": (1,), "width": 16, "image": 32, "classes": 10},
    "conformer": {
        **{"d_model": 32, "heads": 2, "ffn": 64, "layers": 1, "kernel": 7},
        **{"height": 32, "width": 64},
    },
}


def small(name: str) -> Published:
    model = published(name)
    return replace(model, config=replace(model.config, **SMALL[name]))


def profiled(model: ModelProto | bytes, level: str = "c", **options: Any) -> CompiledModel:
    """A model whose one library counts, so that it is compiled once only."""
    program, job = api.lower(model, **options)
    libraries = build(program.source, [level], profile=True)
    return CompiledModel.from_program(
        program, libraries, threads=2, stages=job.stages, device="none", profile=True
    )


@cache
def compiled(name: str, precision: str = "int8", padding: str = "compute") -> CompiledModel:
    if name == "digits":
        raw = gzip.decompress((DATA / "digits_cnn_16x.onnx.gz").read_bytes())
        feeds = {"x": digits()[:64]}
        return profiled(raw, calibration=[feeds], shapes={"batch": (1, 64)})
    model = small(name)
    shapes = {"batch": (1, 4), **({"seq": (1, 80)} if "seq" in model.bounds else {})}
    return profiled(
        model.build(ratio=8 if name == "conformer" else 16),
        precision=precision,
        padding=padding,
        shapes=shapes,
        calibration=[model.feeds(2, 9)],
    )


def digits() -> Any:
    with np.load(DATA / "digits.npz") as file:
        return (file["images"] / np.float32(16)).reshape(-1, 1, 8, 8)


def held(model: CompiledModel, feeds: Mapping[str, Any], real: list[int] | None = None) -> Profile:
    """The profile of a run, whose counts must be those of the table at its extents."""
    profile = model.profile(feeds, runs=2)
    steps = model.work.steps(profile.extents, real)
    assert len(steps) == len(profile.steps)
    for step, counted in zip(steps, profile.steps, strict=True):
        assert counted.work == step.work, (step.number, step.op, step.layer)
        assert 0 <= counted.zeros <= counted.work.activations
        assert counted.host_s > 0
    return profile


@pytest.mark.parametrize("precision", ["int8", "bf16", "fp32"])
def test_a_transformer_counts_what_its_table_says(precision: str) -> None:
    model = compiled("bert", precision)
    for batch, seq in ((1, 1), (3, 37), (2, 80)):
        held(model, small("bert").feeds(batch, seq))


def test_skipped_rows_are_not_counted() -> None:
    model = compiled("bert", "int8", "skip")
    totals: list[int] = []
    for batch, seq in ((1, 1), (3, 37), (2, 80)):
        feeds = small("bert").feeds(batch, seq)
        real = feeds["attention_mask.1"].sum(axis=1).tolist()
        totals.append(held(model, feeds, real).total.work.macs)
    assert totals[1] < model.work.total({"batch": 3, "seq": 37}).macs


@pytest.mark.parametrize(
    ("name", "padding"),
    [("resnet50", "compute"), ("conformer", "skip")],
)
def test_networks_of_images_count_what_their_tables_say(name: str, padding: str) -> None:
    model = compiled(name, "int8", padding)
    for batch in (1, 3):
        feeds = small(name).feeds(batch)
        real = (~feeds["src_pad_mask"]).sum(axis=1).tolist() if padding == "skip" else None
        held(model, feeds, real)


def test_a_trained_network_counts_and_sees_the_paper() -> None:
    model = compiled("digits")
    for batch in (1, 3):
        profile = held(model, {"x": digits()[:batch]})
    (first, *_) = (step for step in profile.steps if step.op == "spu.conv")
    # Static scales: paper is 0, and so is what lies around the image.
    image = np.pad(digits()[:3, 0], ((0, 0), (1, 1), (1, 1)))
    scale = np.float32(1) / np.float32(255)
    paper = np.rint(image / scale) == 0
    # A row of the result reads three rows of the image with their ends.
    rows = np.stack([paper[:, y : y + 3] for y in range(8)], axis=1)
    assert (first.work.activations, first.zeros) == (rows.size, rows.sum())


def linear() -> ModelProto:
    graph = GraphBuilder("linear")
    x = graph.input("x", TensorProto.FLOAT, ["batch", 96])
    weight = np.random.default_rng(0).standard_normal((96, 400), np.float32)
    graph.add("MatMul", x, graph.constant("w", weight), name="product", output="y")
    return graph.output("y", TensorProto.FLOAT, ["batch", 400]).model()


def sparse_rows(batch: int) -> Any:
    random = np.random.default_rng(1)
    x = random.standard_normal((batch, 96)).astype(np.float32)
    return np.where(random.random(x.shape) < 0.3, np.float32(0), x)


@pytest.mark.parametrize("precision", ["int8", "bf16", "fp32"])
def test_zeros_are_those_that_numpy_counts(precision: str) -> None:
    level = host_levels()[-1] if precision == "int8" else "c"
    model = profiled(linear(), level, precision=precision, shapes={"batch": (1, 64)})
    for batch in (1, 45):
        x = sparse_rows(batch)
        x[0, :2] = 0.0, -0.0
        profile = held(model, {"x": x})
        (step,) = (each for each in profile.steps if each.op == "spu.matmul")
        zero = x == 0
        if precision == "int8":
            scaled = x * (np.float32(127) / np.abs(x).max(axis=1, keepdims=True))
            zero = np.rint(scaled) == 0
        # Every block of lanes, of which 400 channels are more than one, reads all of x.
        blocks, rest = divmod(step.work.activations, x.size)
        assert (blocks > 1, rest, step.zeros) == (True, 0, blocks * zero.sum())
        assert profile.zero_shares["product"] == pytest.approx(zero.mean())


def test_runs_at_the_same_time_count_by_themselves() -> None:
    model = compiled("bert", "fp32")
    extents = [(1, 20), (2, 33), (3, 7), (1, 80)] * 3

    def run(extent: tuple[int, int]) -> Profile:
        return held(model, small("bert").feeds(*extent))

    with ThreadPoolExecutor(4) as threads:
        profiles = list(threads.map(run, extents))
    assert [tuple(profile.extents.values()) for profile in profiles] == extents


MACROS = re.compile(
    r"^ *SPU_(COUNT|ZEROS|ROWS|BEGIN|END|PROFILED|REGION_\w+|PROFILE_BEGIN)\(.*\n", re.M
)


def test_a_program_that_does_not_count_is_the_same_to_the_byte(tmp_path: Path) -> None:
    program, _ = api.lower(
        small("bert").build(),
        precision="fp32",
        padding="skip",
        shapes={"batch": (1, 4), "seq": (1, 80)},
    )
    source = program.source
    without, removed = MACROS.subn("", source)
    assert removed > 100
    assert "SPU_PROFILED" not in without

    def code(folder: str, text: str, *flags: str) -> bytes:
        # Of one name: the object has the name of its source.
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "program.c").write_text(text)
        command = [*find_compiler().command, *program_flags("c"), "-O1", *flags, f"-I{DEVICE}"]
        subprocess.run(
            [*command, "-c", "program.c", "-o", "program.o"], cwd=tmp_path / folder, check=True
        )
        return (tmp_path / folder / "program.o").read_bytes()

    plain = code("plain", source)
    assert plain == code("without", without)
    assert plain != code("profiled", source, *PROFILE)


def test_a_profile_adds_up(tmp_path: Path) -> None:
    model = compiled("bert", "int8")
    feeds = small("bert").feeds(2, 24)
    profile = model.profile(feeds, target="s30", runs=1)
    assert (profile.target, profile.runs, profile.threads) == ("s30", 1, 2)
    assert profile.extents == {"batch": 2, "seq": 24}
    total = profile.total
    assert total.work == total_work(step.work for step in profile.steps)
    assert total.work == model.work.total(profile.extents)
    assert total.work == total_work(layer.work for layer in profile.layers)
    assert total.zeros == sum(step.zeros for step in profile.steps) > 0
    assert len({layer.layer for layer in profile.layers}) == len(profile.layers)
    estimate = model.estimate("s30", 2, {"seq": 24})
    assert profile.latency_s == estimate.latency_s > 0
    assert all(step.device_s >= 0 for step in profile.steps)
    assert total.device_s == pytest.approx(sum(max(e.busy_s.values()) for e in estimate.layers))
    result = json.loads(json.dumps(profile.to_json()))
    assert result["total"]["skipped"] == total.work.dense_macs - total.work.macs
    assert len(result["steps"]) == len(model.work.steps(profile.extents))
    with pytest.raises(SpuError, match="runs=0"):
        model.profile(feeds, runs=0)


def test_profiles_by_the_api_and_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = spu_ir.compile(linear(), shapes={"batch": (1, 8)}, levels=["c"], profile=True)
    x = sparse_rows(3)
    before = model.run({"x": x})["y"]
    counted = held(model, {"x": x})
    np.testing.assert_array_equal(model.run({"x": x})["y"], before)

    folder = tmp_path / "linear.spu"
    model.save(folder, levels=["c"])
    assert json.loads((folder / "work.json").read_text()) == model.work.to_json()
    loaded = spu_ir.load(folder, profile=True)
    assert loaded.work == model.work
    assert held(loaded, {"x": x}).total.work == counted.total.work

    np.save(tmp_path / "x.npy", x)
    line = [str(folder), "--input", f"x={tmp_path / 'x.npy'}", "--profile", "s10"]
    assert main([*line, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["profile"]
    assert shown["target"] == "s10"
    assert shown["total"]["macs"] == counted.total.work.macs
    assert shown["total"]["activation_zeros"] == counted.total.zeros
    assert main(line) == 0
    table = capsys.readouterr().out
    (row,) = (text.split() for text in table.splitlines() if "spu.matmul" in text)
    assert row[:3] == ["product", "spu.matmul", "int8"]
    assert "s10, modelled" in table.splitlines()[-1]

    (folder / "work.json").write_text("{}")
    with pytest.raises(SpuError, match=r"work\.json.*digest"):
        spu_ir.load(folder)


def test_a_model_of_an_older_package_says_that_it_has_no_table(tmp_path: Path) -> None:
    CompiledModel.from_program(ADD).save(tmp_path / "old.spu", levels=["c"])
    assert not (tmp_path / "old.spu" / "work.json").exists()
    model = spu_ir.load(tmp_path / "old.spu")
    with pytest.raises(SpuError, match=r"no table of its work.*compile the model again"):
        _ = model.work
    feeds = {"left side": np.ones((1, 2), np.float32), "right": np.ones((1, 2), np.float32)}
    with pytest.raises(SpuError, match="no table of its work"):
        model.profile(feeds)
