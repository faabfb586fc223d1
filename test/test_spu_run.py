"""`spu-run`: what it reads, prints and writes, and how it explains what it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.programs import ADD, LOOKUP, add_reference

from spu_ir.runtime import CompiledModel
from spu_ir.tools.spu_run import main

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spu-run")
    CompiledModel.from_program(ADD).save(folder / "add.spu", levels=["c"])
    CompiledModel.from_program(LOOKUP).save(folder / "lookup.spu", levels=["c"])
    np.save(folder / "x.npy", X)
    np.save(folder / "indices.npy", np.array([3, 0]))
    np.save(folder / "bad.npy", np.array([4, 0]))
    np.save(folder / "pickled.npy", np.array([{}, 1], object), allow_pickle=True)
    np.savez(folder / "two.npz", a=X, b=X)
    (folder / "text.npy").write_text("no array")
    return folder


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> int:
    monkeypatch.chdir(folder)
    return main(line.split("|" if "|" in line else " "))


def test_a_run_from_files_is_shown_and_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "add.spu|--input|left side=x.npy|--input|right=x.npy|--output|out/deep|--threads|1"
    assert run(folder, monkeypatch, line) == 0
    shown, complaints = capsys.readouterr()
    assert complaints == ""
    (row,) = (text.split() for text in shown.splitlines() if text.strip().startswith("sum "))
    assert row == ["sum", "float32", "[2,", "3]", "0", "6", "12"]
    assert "median of 1: " in shown
    assert shown.splitlines()[-1].endswith(" threads")
    files = sorted(path.name for path in (folder / "out/deep").iterdir())
    assert files == ["0-sum.npy", "1-twice.npy"]
    np.testing.assert_array_equal(np.load(folder / "out/deep/0-sum.npy"), add_reference(X, X))


def test_json_is_for_machines(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "lookup.spu --input indices=indices.npy --repeat 3 --json --output values"
    assert run(folder, monkeypatch, line) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["level"], result["runs"]) == ("c", 3)
    assert result["median_ms"] > 0
    assert result["outputs"] == [
        {"name": "values", "dtype": "bfloat16", "shape": [2], "min": 0.5, "mean": 2.0, "max": 3.5}
    ]
    assert np.load(folder / "values/0-values.npy").tolist() == [3.5, 0.5]


def test_random_inputs_are_the_same_every_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs: list[dict[str, object]] = []
    for line in (
        "add.spu --random --json --extent batch=64 --extent seq=8",
        "add.spu --random --json --extent batch=64 --extent seq=8",
        "add.spu --random --json",
        "add.spu --random --json --input right=x.npy",
        "lookup.spu --random --json",
    ):
        assert run(folder, monkeypatch, line) == 0
        outputs.append(json.loads(capsys.readouterr().out)["outputs"][0])
    assert outputs[0] == outputs[1]
    assert [output["shape"] for output in outputs] == [[64, 8], [64, 8], [1, 1], [2, 3], [2]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("none.spu", "cannot read 'none.spu/manifest.json'"),
        ("add.spu", "is missing; the inputs are"),
        ("add.spu --input right", "--input 'right' is not NAME=VALUE"),
        ("add.spu --input right=x.npy --input right=x.npy", "gives 'right' twice"),
        ("add.spu --input other=x.npy --random", "there is no input 'other'"),
        ("add.spu --input right=none.npy", "cannot read 'none.npy' for the input 'right'"),
        ("add.spu --input right=pickled.npy", "cannot read 'pickled.npy'"),
        ("add.spu --input right=text.npy", "cannot read 'text.npy'"),
        ("add.spu --input right=two.npz", "'two.npz' has several arrays"),
        ("add.spu --input right=indices.npy --random", "'right' has the dtype int64"),
        ("add.spu --random --extent batch=65", "--extent batch=65 is out of bounds; use 1 to 64"),
        ("add.spu --random --extent batch=x", "out of bounds"),
        ("add.spu --random --extent rows=2", "no extent 'rows'; it has batch, seq"),
        ("add.spu --extent batch=2", "--extent shapes random inputs only"),
        ("add.spu --random --repeat 0", "--repeat 0 runs nothing"),
        ("add.spu --random --threads 0", "0 threads were asked for"),
        ("add.spu --random --output x.npy", "cannot write outputs to 'x.npy'"),
        ("lookup.spu --input indices=bad.npy", "the run failed: an index"),
    ],
)
def test_errors_are_one_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    message: str,
) -> None:
    assert run(folder, monkeypatch, line) == 1
    shown, complaints = capsys.readouterr()
    assert shown == ""
    assert complaints.startswith("error: ")
    assert complaints.count("\n") == 1
    assert message in complaints


def test_what_is_not_finite_is_null_in_json(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(folder / "odd.npy", np.array([[np.inf, -np.inf, np.nan]], np.float32))
    np.save(folder / "zero.npy", np.zeros((1, 3), np.float32))
    line = "add.spu|--input|left side=odd.npy|--input|right=zero.npy"
    assert run(folder, monkeypatch, f"{line}|--json") == 0
    row = json.loads(capsys.readouterr().out)["outputs"][0]
    assert (row["min"], row["mean"], row["max"]) == (None, None, None)
    assert run(folder, monkeypatch, line) == 0
    assert "-" in capsys.readouterr().out.split("[1, 3]")[1].splitlines()[0].split()
