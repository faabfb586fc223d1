"""`spu-perf estimate`: its tables and JSON, the trace, the shares and the roofline."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.work_tables import network

import spu_ir
from spu_ir import Target
from spu_ir.schedule.estimate import Estimate, estimate
from spu_ir.schedule.options import Options
from spu_ir.schedule.queues import UNITS
from spu_ir.schedule.roofline import roofline
from spu_ir.schedule.shares import alike, kinds, shares
from spu_ir.schedule.trace import trace_of
from spu_ir.tools import perf_estimate
from spu_ir.tools.spu_perf import main
from spu_ir.zoo.linear_model import linear

SHAPES = ("--shapes", "batch=1:16")


def of(batch: int = 12, target: Target | str = "s4", **options: Any) -> Estimate:
    return estimate(network(), Target.load(target), batch, {}, Options(**options))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "linear.onnx"
    onnx.save(linear(256, 128), path)
    return str(path)


@pytest.fixture(scope="module")
def package(model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("package") / "linear.spu"
    shapes = {"batch": (1, 16)}
    compiled = spu_ir.compile(model, sparsity=16, shapes=shapes, levels=["c"], device="none")
    compiled.save(path, levels=["c"])
    return str(path)


def convolution() -> onnx.ModelProto:
    weights = np.linspace(-1, 1, 64 * 3 * 9, dtype=np.float32).reshape(64, 3, 3, 3)
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("Conv", ["x", "w"], ["y"], "conv", pads=[1, 1, 1, 1])],
            "conv",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 64, 8, 8])],
            [numpy_helper.from_array(weights, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["estimate", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_has_what_the_estimate_says(
    model: str, package: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = as_json(capsys, model, *SHAPES, "--sparsity", "16", "--batch", "24", "--wire", "int8")
    compiled = spu_ir.load(package, device="none")
    expected = json.loads(json.dumps(compiled.estimate("s30", 24, wire="int8").to_json()))
    assert {key: found[key] for key in expected} == expected
    assert found["samples_per_joule"] == pytest.approx(1 / expected["energy_j"])
    assert (found["precision"], found["sparsity"], found["calibration"]) == ("int8", 16, None)
    assert (found["tdp_w"], found["sweep"]) == (250, None)
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert sum(group["share"] for group in found["groups"]) == pytest.approx(1)
    # The package says the same, on the card that it was compiled for.
    own = as_json(capsys, package, "--batch", "24", "--wire", "int8")
    assert own["target"] == "s4"
    expected = compiled.estimate("s4", 24, wire="int8").to_json()["layers"]
    assert own["layers"] == json.loads(json.dumps(expected))
    assert (own["precision"], own["sparsity"]) == ("int8", 16)
    assert main(["estimate", package, "--sparsity", "8"]) == 1
    assert "error: --sparsity is for ONNX files" in capsys.readouterr().err


def test_a_package_is_read_without_a_compiler(package: str) -> None:
    script = (
        "import sys; from spu_ir.tools.spu_perf import main\n"
        f"code = main(['estimate', {package!r}, '--json'])\n"
        "print(code, [name for name in ('xdsl', 'onnx') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stderr == "0 []\n"
    assert json.loads(done.stdout)["target"] == "s4"


def test_the_tables(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = "ddr.bandwidth=41e9,82e9"
    found = as_json(capsys, model, *SHAPES, "--batch", "24")
    assert main(["estimate", model, *SHAPES, "--sweep", sweep, "--batch", "24"]) == 0
    text = capsys.readouterr().out
    assert f"{found['throughput']:,.1f} /s" in text
    assert "int8; weights as they are; batch 24 on 3 x 4 cores, 2 a pass" in text
    for unit in UNITS:
        assert re.search(rf"\s{unit}\s+{found['busy'][unit]:.1%}\s", text)
    lines = text.splitlines()
    swept = [line.split()[0] for line in lines if line.strip().startswith(("4.1e+10", "8.2e+10"))]
    assert swept == ["4.1e+10", "8.2e+10"]
    rows = [line.split() for line in lines if "spu.matmul" in line]
    assert len(rows) == 1
    assert main(["estimate", model, *SHAPES, "--layers", "1"]) == 0
    assert "1 of 2 groups of like steps; the others take" in capsys.readouterr().out
    assert main(["estimate", model, *SHAPES, "--layers", "all"]) == 0
    text = capsys.readouterr().out
    assert text.index("vpu.quantise_rows") < text.index("spu.matmul")


def test_a_sweep_is_of_the_figure(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, model, *SHAPES, "--sweep", "chip.clock=4e8,8e8,16e8", "--no-host")
    assert found["sweep"]["figure"] == "chip.clock"
    values = found["sweep"]["values"]
    assert [each["value"] for each in values] == [4e8, 8e8, 16e8]
    assert values[1]["throughput"] == found["throughput"]
    slow, same, fast = (each["latency_s"] for each in values)
    assert slow > same > fast


def test_convolutions_are_int8_with_random_scales(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "conv.onnx"
    onnx.save(convolution(), path)
    found = as_json(capsys, str(path), *SHAPES)
    assert found["calibration"] == "random"
    assert [each["precision"] for each in found["layers"] if each["op"] == "spu.conv"] == ["int8"]
    assert main(["estimate", str(path), *SHAPES]) == 0
    assert "scales are from random inputs" in capsys.readouterr().out
    assert main(["estimate", str(path), *SHAPES, "--precision", "bf16"]) == 0
    assert "random" not in capsys.readouterr().out
    np.savez(tmp_path / "feeds.npz", x=np.ones((1, 3, 8, 8), np.float32))
    given = as_json(capsys, str(path), *SHAPES, "--calibration", str(tmp_path / "feeds.npz"))
    assert given["calibration"] == str(tmp_path / "feeds.npz")
    assert given["layers"] == found["layers"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "s5"], "target='s5' is unknown; one of s4, s10, s30, or a TOML file"),
        (["--sweep", "ddr.speed=1"], "a target has no figure 'ddr.speed'"),
        (["--sweep", "ddr.bandwidth"], "the sweep 'ddr.bandwidth' cannot be read"),
        (["--cores", "all"], "cores='all' is unknown"),
        (["--wire", "int4"], "wire='int4' is unknown"),
        (["--zeros", "2"], "a share must be 0 to 1, got 2.0"),
        (["--batch", "0"], "batch=0 is too small"),
        (["--extents", "seq"], "--extents 'seq' is not name=number"),
        (["--extents", "seq=4"], "the extent 'seq' cannot be given"),
        (["--attention", "int4"], "attention 'int4' is not known"),
        (["--precision", "int4"], "precision 'int4' is not known"),
        (["--trace", "/no/such/folder/t.json"], "'/no/such/folder/t.json' cannot be written"),
    ],
)
def test_one_line_says_what_was_wrong(
    arguments: list[str], message: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["estimate", model, *SHAPES, *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_a_timeline_that_is_too_long_is_not_written(
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(perf_estimate, "EVENTS", 100)
    path = tmp_path / "out"
    arguments = ["estimate", model, *SHAPES, "--batch", "480", "--core-batch", "4"]
    for option in ("--trace", "--html"):
        assert main([*arguments, option, str(path)]) == 1
        assert "error: the timeline of batch 480 has 840 events" in capsys.readouterr().err
    assert main([*arguments, "--json"]) == 0
    assert not path.exists()


def check_trace(trace: dict[str, Any]) -> None:
    """Hold a trace to the rules of the format."""
    threads: dict[tuple[int, int], list[dict[str, Any]]] = {}
    named: set[tuple[int, int]] = set()
    for event in trace["traceEvents"]:
        place = (event["pid"], event["tid"])
        assert isinstance(event["name"], str)
        if event["ph"] == "M":
            named.add(place) if event["name"] == "thread_name" else None
            continue
        assert event["ph"] == "X"
        assert isinstance(event["ts"], float)
        assert isinstance(event["dur"], float)
        assert event["dur"] >= 0
        threads.setdefault(place, []).append(event)
    assert threads.keys() <= named
    assert len({thread for _, thread in named}) == len(named)
    assert all(number > 0 for place in named for number in place)
    for events in threads.values():
        for before, after in pairwise(events):
            assert before["ts"] + before["dur"] <= after["ts"]


@pytest.mark.parametrize("batch", [1, 13, 100])
def test_a_trace_has_every_event_of_the_timeline(batch: int) -> None:
    e = of(batch)
    trace = json.loads(json.dumps(trace_of(e), allow_nan=False))
    check_trace(trace)
    complete = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert len(complete) == len(e.timeline) == e.events
    assert {event["pid"] for event in complete} == set(range(1, 1 + e.chips * e.cores))
    assert max(event["ts"] + event["dur"] for event in complete) == pytest.approx(
        e.latency_s * 1e6, abs=1e-3
    )
    macs = sum(event["args"].get("multiply-accumulates", 0) for event in complete)
    assert macs == sum(event.amount for event in e.timeline if event.unit == "spu")


def test_the_trace_of_the_command(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trace.json"
    assert main(["estimate", model, *SHAPES, "--trace", str(path)]) == 0
    assert f"trace: {path}" in capsys.readouterr().out
    trace = json.loads(path.read_text())
    check_trace(trace)
    names = {event["args"]["name"] for event in trace["traceEvents"] if "name" in event["args"]}
    assert names == {*UNITS, *(f"core {core}" for core in range(12))}


def test_shares_are_of_the_busiest_unit_of_each_step() -> None:
    layers = of(12, host=False).layers
    assert kinds(layers)[:4] == ["VPU", "first layer", "VPU", "other products"]
    assert kinds(layers)[-2:] == ["attention", "VPU"]
    found = shares(layers)
    assert sum(found.values()) == pytest.approx(1)
    assert found["other products"] == pytest.approx(3 * found["first layer"])
    groups = alike(layers)
    assert [len(group.layers) for group in groups if group.first.op == "spu.matmul"] == [4]
    assert [group.seconds for group in groups] == sorted(
        (group.seconds for group in groups), reverse=True
    )
    assert sum(len(group.layers) for group in groups) == len(layers)


@pytest.mark.parametrize("cores", ["batch", "split", "broadcast"])
@pytest.mark.parametrize("changes", [{}, {"ddr.bandwidth": 1e9}, {"l2.bandwidth": 1e9}])
def test_no_point_is_above_its_roof(cores: str, changes: dict[str, float]) -> None:
    found = of(12, Target.load("s4").replace(changes), cores=cores, zeros=0.5)
    line = roofline(found)
    assert len(line.points) == 5
    for point in line.points:
        assert point.macs <= point.roof * (1 + 1e-9)
        for level, per_byte in point.per_byte.items():
            assert point.macs <= per_byte * line.bandwidth[level] * (1 + 1e-9)


def test_ceilings_are_the_card_s_at_the_sparsity_of_its_layers() -> None:
    # Hand-made steps have 16 unpruned multiply-accumulates for each that is done.
    line = roofline(of(12, "s30"))
    peak = 3 * 4 * 8 * 576 * 800e6
    assert {(each.precision, each.ratio): each.macs for each in line.ceilings} == {
        ("bf16", 1): peak / 2,
        ("bf16", 16): 16 * peak / 2,
        ("int8", 1): peak,
        ("int8", 16): 16 * peak,
    }
    assert line.bandwidth == {"l2": 3 * 11.7e12, "ddr": 3 * 82e9}
