"""The benchmarks run, and what they print for machines is complete."""

from __future__ import annotations

import json

import pytest

from benchmarks import spu_matmul
from benchmarks.spu_matmul_page import goals, page
from spu_ir.runtime.cpu import select_level


@pytest.mark.slow
def test_spu_matmul_prints_every_ratio_of_every_layer(capsys: pytest.CaptureFixture[str]) -> None:
    spu_matmul.main(["--json", "--repeats", "1"])
    report = json.loads(capsys.readouterr().out)
    rows = report["results"]
    assert {(row["layer"], row["ratio"]) for row in rows} == {
        (layer.name, ratio) for layer in spu_matmul.LAYERS for ratio in spu_matmul.RATIOS
    }
    assert all(row["useful"] > 0 and row["seconds"] > 0 for row in rows)
    if select_level() == "avx512vbmi":
        assert report["peak_dot"] > 0
        assert all(row["of_pair_peak"] > 0 for row in rows)
    spu_matmul.show(report)
    printed = capsys.readouterr().out
    assert all(layer.name in printed for layer in spu_matmul.LAYERS)


def test_goals_are_weighted_by_work() -> None:
    def row(layer: str, count: int, useful: float, share: int = 1) -> dict[str, object]:
        return {
            "layer": layer,
            "count": count,
            "ratio": "16x",
            "share": share,
            "seconds": 1.0,
            "useful": useful,
            "equivalent": 16 * useful,
            "of_dot_peak": useful / 200,
            "of_pair_peak": useful / 100,
        }

    report = {
        "level": "avx512vbmi",
        "peak_dot": 200.0,
        "peak_pair": 100.0,
        "results": [
            row("matmul 1x2x3", 1, 60.0),
            row("matmul 1x2x3", 1, 90.0, share=2),
            row("conv 4x4x4 3x3 -> 4", 3, 80.0),
            row("conv 2x2x4 3x3/2 -> 4", 1, 40.0),
        ],
    }
    found = {goal.name: goal for goal in goals(report)}
    assert found["16x, matmul 1x2x3, of the pair"].value == pytest.approx(0.6)
    assert found["16x, matmul 1x2x3, of the pair"].verdict == "missed"
    # Work is 240 and 40.
    mean = found["16x, ResNet-50's 3x3, of the pair"]
    assert mean.value == pytest.approx((240 * 0.8 + 40 * 0.4) / 280)
    assert mean.verdict == "missed"
    assert found["16x, transformer, share 2 over share 1"].value == pytest.approx(1.5)
    assert found["16x, matmul 1x2x3, dense over the dot product"].value == pytest.approx(4.8)
    assert "| 16x, transformer, share 2 over share 1 | 1.2 | 1.50 | holds |" in page(report, 20)
