"""Whole runs of `spu-perf` on small models: its reports, their figures, and real accuracy."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spu_ir.perf.published import RESULTS
from spu_ir.sparsify.__main__ import main as sparsify
from spu_ir.tools.spu_perf import main
from spu_ir.zoo import BertConfig, published, save

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "digits"

Json = dict[str, Any]

REPORT = {
    "Model": str,
    "Backend": str,
    "Host Info": str,
    "Dataset": str,
    "Instance Count": int,
    "Device Count": int,
    "Graph Compile": {
        "Compile Duration": float,
        "Compile Precision": str,
        "Subgraph Coverage": int,
        "Sparsity Ratio": str,
    },
    "Version": str,
    "Execution Date": str,
    "Accuracy": {
        "Data Percent": int,
        "Top-1": float,
        "Mean Diff": float,
        "Std Diff": float,
        "Max Diff": float,
        "Max Rel-Diff": float,
        "Mean Rel-Diff": float,
        "Diff Dist": str,
    },
    "Performance": {"BS": int, "QPS": float, "AVG Latency": float, "P99 Latency": float},
}
"""ByteMLPerf's keys and types: of its engine, and of the reports in its reports/SPU."""


def types_of(value: Any) -> Any:
    """A report's keys and types; a list is all of one kind, which is shown once."""
    if isinstance(value, dict):
        return {key: types_of(one) for key, one in value.items()}
    if isinstance(value, list):
        first, *others = (types_of(one) for one in value)
        assert all(one == first for one in others)
        return first
    return type(value)


@dataclass(frozen=True)
class Run:
    """What a run printed and wrote."""

    code: int
    printed: str
    errors: str
    report: Json
    folder: Path


def run(arguments: list[str], reports: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    code = main([*arguments, "--reports", str(reports), "--threads", "1"])
    printed, errors = capsys.readouterr()
    paths = list(reports.glob("SPU/*/*.json"))
    assert len(paths) == 1, errors
    path = paths[0]
    return Run(code, printed, errors, json.loads(path.read_text()), path.parent)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's folder of images and models, with the pruned one made as the docs say."""
    folder = tmp_path_factory.mktemp("digits")
    command = [sys.executable, "-W", "error", str(EXAMPLE / "prepare.py"), str(folder)]
    subprocess.run(command, check=True)
    model, pruned = folder / "digits.onnx", folder / "pruned.onnx"
    second_order = ["--method", "second-order", "--calibration", str(folder / "calibration.npz")]
    arguments = ["--ratio", "32", "--keep", "node_linear_1", *second_order]
    assert sparsify([str(model), *arguments, "-o", str(pruned)]) == 0
    return folder


@pytest.fixture(scope="module")
def measured(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The example, once for all tests that look at it."""
    reports = tmp_path_factory.mktemp("reports")
    arguments = [
        *("--workload", str(EXAMPLE / "digits.json")),
        *("--model", str(digits / "pruned.onnx")),
        *("--data", str(digits)),
        *("--iterations", "12"),
        *("--reports", str(reports)),
        *("--threads", "1"),
        "--json",
    ]
    command = [sys.executable, "-W", "error", "-m", "spu_ir.tools.spu_perf", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    path = reports / "SPU" / "digits-cnn" / "result-int8.json"
    report = json.loads(path.read_text())
    return Run(done.returncode, done.stdout, done.stderr, report, path.parent)


def test_sparsify_then_spu_perf_has_real_top_1(measured: Run) -> None:
    assert measured.code == 0, measured.errors
    accuracy = measured.report["Accuracy"]
    assert accuracy["Data Percent"] == 100
    assert accuracy["Top-1"] >= 0.98  # of 719 images that it was not trained on
    assert measured.report["Details"]["Sparsity"]["Weight Sparsity"] > 0.94
    assert "719 images" in measured.report["Details"]["Data"]


def test_reports_have_bytemlperfs_keys_and_types(measured: Run) -> None:
    report = dict(measured.report)
    del report["Details"]
    assert types_of(report) == REPORT
    assert report["Model"] == "DIGITS-CNN"
    assert report["Backend"] == "SPU"
    assert report["Dataset"] == "OPEN_IMAGENET"
    assert datetime.strptime(report["Execution Date"], "%Y-%m-%d %H:%M:%S")
    assert float(report["Graph Compile"]["Sparsity Ratio"]) == pytest.approx(
        measured.report["Details"]["Sparsity"]["Weight Sparsity"], abs=1e-4
    )


def test_figures_are_recomputed_from_the_raw_timings(measured: Run) -> None:
    rows = measured.report["Performance"]
    timings = measured.report["Details"]["Host"]["Timings"]
    assert [row["BS"] for row in rows] == [raw["BS"] for raw in timings] == [1, 16, 64]
    for row, raw in zip(rows, timings, strict=True):
        latencies = raw["Latencies"]
        assert len(latencies) == raw["Iterations"] == raw["Iterations Asked"] == 12
        assert raw["Warm-up"] >= 1
        assert raw["Wall Seconds"] >= sum(latencies)
        assert row["QPS"] == round(raw["BS"] * len(latencies) / raw["Wall Seconds"], 2)
        assert row["AVG Latency"] == round(1e3 * sum(latencies) / len(latencies), 2)
        assert row["P99 Latency"] == round(1e3 * sorted(latencies)[11], 2)


def test_the_difference_is_to_fp32_and_drawn(measured: Run) -> None:
    accuracy, numeric = measured.report["Accuracy"], measured.report["Details"]["Numeric"]
    assert numeric["Samples"] == 719
    assert 0 < numeric["Relative L2 Error"] < 0.1
    assert 0 < accuracy["Mean Diff"] <= accuracy["Max Diff"]
    assert accuracy["Diff Dist"] == "digits-cnn-to-int8.png"
    with Image.open(measured.folder / accuracy["Diff Dist"]) as picture:
        assert picture.size[0] == 1200
        # Three panels with bars.
        pixels = np.asarray(picture.convert("RGB")).reshape(300, 3, 400, 3)
    for panel in range(3):
        assert (pixels[:, panel] == (0x4C, 0x72, 0xB0)).all(-1).sum() > 100


def test_json_is_the_report(measured: Run) -> None:
    assert json.loads(measured.printed) == measured.report


def test_the_three_figures_of_sparsity_are_named_and_differ(measured: Run) -> None:
    found: Mapping[str, float] = measured.report["Details"]["Sparsity"]
    assert set(found) == {
        "Weight Sparsity",
        "Effective MAC Ratio",
        "Matmul Time Share (card, modelled)",
        "Matmul Time Share (this machine)",
    }
    assert 1 < found["Effective MAC Ratio"] < 1 / (1 - found["Weight Sparsity"])
    assert 0 < found["Matmul Time Share (card, modelled)"] <= 1
    assert 0 < found["Matmul Time Share (this machine)"] <= 1


def test_the_card_is_modelled(measured: Run) -> None:
    found = measured.report["Details"]["Modelled"]
    assert found["Card"] == "s30"
    assert found["BS"] == 64
    assert found["TDP"] == 250
    assert 0 < found["Average Power"] <= found["Peak Power"]
    assert found["QPS/W"] == pytest.approx(found["QPS"] / found["Average Power"], rel=1e-3)
    assert measured.report["Details"]["Published"] is None


def test_bad_images_are_named_and_the_rest_is_answered(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "open_imagenet"
    images = folder / "ILSVRC2012_img_val"
    images.mkdir(parents=True)
    lines = (digits / "val_map.txt").read_text().splitlines()[:40]
    for line in lines:
        shutil.copy(digits / "ILSVRC2012_img_val" / line.split()[0], images)
    (folder / "val_map.txt").write_text("\n".join(lines))
    (images / "digit_0003.png").write_text("a text file")
    whole = (images / "digit_0005.png").read_bytes()
    (images / "digit_0005.png").write_bytes(whole[: len(whole) // 2])
    workload = json.loads((EXAMPLE / "digits.json").read_text())
    path = tmp_path / "digits.json"
    path.write_text(json.dumps({**workload, "test_perf": False, "test_numeric": False}))
    shutil.copytree(EXAMPLE / "model_zoo", tmp_path / "model_zoo")
    shutil.copy(digits / "pruned.onnx", tmp_path / "model_zoo" / "digits.onnx")
    done = run(
        ["--workload", str(path), "--data", str(tmp_path), "--batch-sizes", "4"],
        tmp_path / "reports",
        capsys,
    )
    assert done.code == 1
    assert "error: 2 samples could not be read" in done.errors
    for name in ("digit_0003.png", "digit_0005.png"):
        assert name in done.printed
        assert any(name in text for text in done.report["Details"]["Unreadable"])
    assert done.report["Accuracy"]["Top-1"] >= 36 / 38
    assert "Performance" not in done.report
    assert "Mean Diff" not in done.report["Accuracy"]


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workload file of a BERT of 2 layers at the published interface, with its model."""
    folder = tmp_path_factory.mktemp("text")
    config = BertConfig(
        vocab_size=1000,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=64,
    )
    save(replace(published("bert"), config=config).build(ratio=8), folder / "tiny.onnx")
    data = ROOT / "spu_ir" / "perf" / "data"
    info = json.loads((data / "model_zoo" / "bert-torch-fp32.json").read_text())
    info |= {
        "model_path": "../tiny.onnx",
        "input_shape": {name: [1, 48] for name in info["input_shape"]},
        "max_batch_size": 4,
    }
    (folder / "model_zoo").mkdir()
    (folder / "model_zoo" / "bert-torch-fp32.json").write_text(json.dumps(info))
    workload = json.loads((data / "workloads" / "bert-torch-fp32.json").read_text())
    workload |= {"batch_sizes": [1, 4], "iterations": 6}
    (folder / "tiny.json").write_text(json.dumps(workload))
    return folder / "tiny.json"


@pytest.mark.slow
def test_without_data_it_runs_on_fake_data_and_says_so(
    text_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--workload", str(text_model), "--precision", "bf16", "--target", "s4"]
    done = run(arguments, tmp_path, capsys)
    assert done.code == 0
    report, details = done.report, done.report["Details"]
    assert report["Dataset"] == "FAKE_DATASET"
    assert "fake data" in details["Data"]
    assert "accuracy is not measured" in details["Data"]
    assert report["Accuracy"]["Fake Dataset Accuracy"] == 0
    assert report["Accuracy"]["Data Percent"] == 100
    assert details["Numeric"]["Samples"] == 100
    assert done.folder.name == "bert-torch-fp32"
    assert (done.folder / "result-bf16.json").is_file()
    assert details["Modelled"]["Card"] == "s4"
    assert details["Published"]["QPS"] == RESULTS["bert-torch-fp32"].qps
    assert details["Published"]["QPS/W at TDP"] == round(RESULTS["bert-torch-fp32"].qps / 250, 2)
    # What the tables show is what the report has.
    text = " ".join(done.printed.split())
    for row in report["Performance"]:
        assert f"{row['QPS']:,.2f}" in text
    for word in ("fake data", "Weight Sparsity", "Effective MAC Ratio", "Matmul Time Share"):
        assert word in text
    assert "7,738.9" in text


@pytest.mark.slow
def test_questions_have_f1_and_exact_match(
    text_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"word{n}" for n in range(30)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?", ".", *words]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    qas = [
        {"id": str(n), "question": f"word{n}?", "answers": [{"text": word, "answer_start": 0}]}
        for n, word in enumerate(words[:6])
    ]
    paragraphs = [{"context": " ".join(words) + ".", "qas": qas}]
    data = {"version": "1.1", "data": [{"title": "words", "paragraphs": paragraphs}]}
    (tmp_path / "dev-v1.1.json").write_text(json.dumps(data))
    arguments = ["--workload", str(text_model), "--data", str(tmp_path), "--iterations", "2"]
    done = run(arguments, tmp_path / "reports", capsys)
    assert done.code == 0, done.errors
    assert done.report["Dataset"] == "OPEN_SQUAD"
    accuracy = done.report["Accuracy"]
    # Random weights answer with some span: of six questions with one word each, few are met.
    assert 0 <= accuracy["Exact Match"] <= accuracy["F1 Score"] < 100
    assert accuracy["Data Percent"] == 100
    assert done.report["Details"]["Numeric"]["Samples"] == 6
    assert "6 questions in 6 windows" in done.report["Details"]["Data"]


def test_compile_only_measures_nothing(
    text_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--workload", str(text_model), "--compile_only", "--reports", str(tmp_path)]
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "Performance" not in report
    assert "Accuracy" not in report
    assert report["Graph Compile"]["Compile Duration"] > 0
    assert report["Details"]["Modelled"]["QPS"] > 0
    # A report of an earlier run stays, as in ByteMLPerf.
    assert list(tmp_path.rglob("*")) == []
