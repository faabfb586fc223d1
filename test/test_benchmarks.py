"""The benchmark of the kernels runs, and what it prints for machines is its page."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import spu_matmul, spu_matmul_page
from benchmarks.compare_process import EngineError
from benchmarks.spu_matmul_gemm import PEERS, TINY, Gemm
from benchmarks.spu_matmul_page import goals
from spu_ir.runtime.cpu import select_level

PAGE = Path(__file__).parents[1] / "docs" / "kernels.md"
SMALL = ["--rounds", "1", "--seconds", "0"]


@pytest.fixture
def nowhere(tmp_path: Path) -> list[str]:
    """Options under which only ONNX Runtime, which the tests need anyway, is installed."""
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho \"No module named '$3'\" >&2\nexit 1\n")
    script.chmod(0o755)
    return ["--python", f"torch={script}", "--python", f"openvino={script}"]


@pytest.mark.slow
def test_every_ratio_of_every_layer_is_measured(
    nowhere: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "kernels.md"
    given = [*SMALL, *nowhere, "--json", "--write", str(path)]
    assert spu_matmul.main(given) == 0
    report = json.loads(capsys.readouterr().out)
    rows = report["results"]
    chosen = [layer.name for layer in spu_matmul.LAYERS]
    assert {(row["layer"], row["ratio"]) for row in rows} == {
        (layer, ratio) for layer in chosen for ratio in spu_matmul.RATIOS
    }
    ratios = {(row["ratio"], row["macs"] / row["useful_macs"]) for row in rows}
    assert ratios == {(name, float(name.removesuffix("x"))) for name in spu_matmul.RATIOS}
    assert all(row["seconds"] > 0 for row in [*rows, *report["dense"]])
    if select_level() == "avx512vbmi":
        assert 0 < report["peak_pair"] < report["peak_dot"]
    # Only plain products have peers.
    assert [(row["layer"], row["library"]) for row in report["dense"]] == [
        (layer, "ONNX Runtime") for layer in chosen if layer.startswith("matmul")
    ]
    reasons = {row["library"]: row["reason"] for row in report["missing"]}
    assert reasons.keys() == {"oneDNN", "OpenVINO"}
    assert "No module named 'torch'" in reasons["oneDNN"]
    assert report["command"].startswith("python -m benchmarks.spu_matmul --rounds 1")
    assert path.read_text() == spu_matmul_page.page(report)
    assert json.loads(path.with_suffix(".json").read_text()) == report
    assert "| - | OpenVINO | MatMul |" in path.read_text()
    spu_matmul_page.show(report)
    printed = capsys.readouterr().out
    assert all(layer in printed for layer in chosen)


def row(layer: str, count: int, useful: float, share: int = 1, ratio: int = 16) -> dict[str, Any]:
    """A measurement of a second."""
    return {
        "layer": layer,
        "count": count,
        "ratio": f"{ratio}x",
        "share": share,
        "seconds": 1.0,
        "useful_macs": useful,
        "macs": ratio * useful,
    }


def report_of(rows: list[dict[str, Any]], dense: list[dict[str, Any]]) -> dict[str, Any]:
    return {"peak_dot": 200.0, "peak_pair": 100.0, "results": rows, "dense": dense, "missing": []}


def test_goals_are_weighted_by_work() -> None:
    rows = [
        row("matmul 1x2x3", 1, 60.0),
        row("matmul 1x2x3", 1, 90.0, share=2),
        row("conv 4x4x4 3x3 -> 4", 3, 80.0),
        row("conv 2x2x4 3x3/2 -> 4", 1, 40.0),
    ]
    found = {goal.name: goal for goal in goals(report_of(rows, []))}
    assert found["16x, matmul 1x2x3, of the pair"].value == pytest.approx(0.6)
    assert found["16x, matmul 1x2x3, of the pair"].verdict == "missed"
    # Work is 240 and 40.
    mean = found["16x, ResNet-50's 3x3, of the pair"]
    assert mean.value == pytest.approx((240 * 0.8 + 40 * 0.4) / 280)
    assert mean.verdict == "missed"
    assert found["16x, transformer, share 2 over share 1"].value == pytest.approx(1.5)


def test_the_best_dense_product_of_the_same_shape_counts() -> None:
    def dense(layer: str, library: str, seconds: float, macs: float) -> dict[str, Any]:
        about = {"form": "", "version": "1", "call_seconds": 0.0}
        return {"layer": layer, "library": library, "seconds": seconds, "macs": macs} | about

    rows = [
        row("matmul 1x2x3", 1, 100.0, ratio=1),
        row("matmul 1x2x3", 1, 60.0),
        row("matmul 3x2x1", 1, 300.0, ratio=1),
        row("matmul 3x2x1", 1, 60.0),
    ]
    theirs = [
        dense("matmul 1x2x3", "A", 2.0, 160.0),
        dense("matmul 1x2x3", "B", 1.0, 160.0),
        dense("matmul 3x2x1", "A", 1.0, 100.0),
    ]
    report = report_of(rows, theirs)
    found = {goal.name: goal for goal in goals(report)}
    sparse = found["16x share 1, matmul 1x2x3, dense over the GEMM"]
    assert (sparse.value, sparse.verdict, sparse.of_dot) == (960 / 160, "missed", 960 / 200)
    other = found["16x share 1, matmul 3x2x1, dense over the GEMM"]
    assert (other.value, other.verdict) == (960 / 100, "holds")
    mean = found["1x, transformer, of the GEMM"]
    assert mean.value == pytest.approx((100 * 100 / 160 + 300 * 300 / 100) / 400)
    lines = spu_matmul_page.dense_table(report)[1]
    assert [(line[1], line[6], line[-1]) for line in lines] == [
        ("A 1", "0.40", ""),
        ("B 1", "0.80", "best"),
        ("A 1", "0.50", "best"),
    ]


def test_without_a_dense_product_goals_beside_it_are_not_measured() -> None:
    rows = [row("matmul 1x2x3", 1, 1e6), row("matmul 1x2x3", 1, 1e6, ratio=1)]
    found = [goal for goal in goals(report_of(rows, [])) if "GEMM" in goal.name]
    assert [goal.verdict for goal in found] == ["not measured"] * 2
    assert all(goal.of_dot for goal in found)


def test_a_peer_with_wrong_answers_is_refused(tmp_path: Path) -> None:
    peer = next(peer for peer in PEERS if peer.engine == "onnxruntime")
    with ExitStack() as stack:
        gemm = Gemm(peer, Path(sys.executable), 0, "normal", tmp_path, stack)
        assert gemm.overhead > 0
        with pytest.raises(EngineError, match="its answers are wrong by"):
            gemm.check(np.full((TINY[0], TINY[2]), 1 << 20), quantised=False)


@pytest.mark.parametrize("given", [["--layers", "nothing"], ["--rounds", "0"]])
def test_nothing_to_measure_is_an_error(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert spu_matmul.main(given) == 1
    assert "nothing to measure" in capsys.readouterr().err


def test_the_page_is_what_the_benchmark_writes_of_its_json() -> None:
    report = json.loads(PAGE.with_suffix(".json").read_text())
    assert spu_matmul_page.page(report) == PAGE.read_text()
    assert {row["layer"] for row in report["results"]} == {x.name for x in spu_matmul.LAYERS}
