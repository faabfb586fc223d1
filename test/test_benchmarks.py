"""The benchmarks run, and what they print for machines is complete."""

from __future__ import annotations

import json

import pytest

from benchmarks import spu_matmul
from spu_ir.runtime.cpu import select_level


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
