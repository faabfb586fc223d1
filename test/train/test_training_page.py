"""The examples of docs/training.md run, in the order of the page, and the benchmark does."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
BLOCK = re.compile(r"^```py\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Found late: xDSL installs a package of that name too.
digits: Any = importlib.import_module("benchmarks.digits")


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall(PAGE.read_text())
    assert len(blocks) >= 3
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    formats = [row["format"] for row in names["compiled"].report() if row["op"] == "spu.matmul"]
    assert formats == ["banked 4/64", "banked 4/64", "dense"]


def test_the_benchmark_prints_all_it_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(digits, "EPOCHS", {"cnn": (1, 2)})
    monkeypatch.setattr(digits, "RATIOS", (16,))
    digits.main(["--json", "--distil", "--fixture", str(tmp_path)])
    report = json.loads(capsys.readouterr().out)
    dense, pruned = report["results"]
    assert (dense["ratio"], pruned["ratio"]) == (1, 16)
    assert pruned["prunable"] > 0.9
    assert [layer["effective_ratio"] for layer in pruned["layers"]] == [1, 16, 16, 16, 1]
    assert [layer["effective_ratio"] for layer in dense["layers"]] == [1] * 5
    assert 0 < pruned["int8_error"] < 0.1
    assert 10 < pruned["int8"] <= 100
    assert report["loss"]["cnn 16x"] == pytest.approx(dense["fp32"] - pruned["int8"])
    assert {path.name for path in tmp_path.iterdir()} == {"digits.npz", "digits_cnn_16x.onnx.gz"}
    digits.show(report)
    assert "INT8 loses" in capsys.readouterr().out
