"""The scaling benchmark: what it varies, its lines, a tiny run, and its page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks import scaling, scaling_page
from benchmarks.compare_cases import Subject, subject
from benchmarks.compare_measure import Plan
from benchmarks.fidelity_cases import Case
from benchmarks.scaling_cases import MODELS, SWEEPS, Point, Sweep, feeds, points
from benchmarks.scaling_fit import least_squares
from benchmarks.scaling_measure import Builder, measure
from benchmarks.scaling_plot import tick
from spu_ir.errors import SpuError
from spu_ir.zoo import BertConfig, ConformerConfig, published

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
CONFIG = BertConfig(
    vocab_size=200,
    hidden_size=64,
    num_hidden_layers=1,
    num_attention_heads=4,
    intermediate_size=128,
)
PLAN = Plan(rounds=2, seconds=0.0)
PRODUCTS = 4 * 64 * 64 + 2 * 64 * 128
"""Elements of all weights of products."""


def tiny() -> Subject:
    case = Case(replace(published("bert"), config=CONFIG), batch=1, seq=24)
    return Subject("bert", case, seq=24)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    builder = Builder(tmp_path_factory.mktemp("scaling"), lambda _: None)
    small: dict[Sweep, Any] = {
        "batch": points("batch", tiny(), batches=(1, 3)),
        "ratio": points("ratio", tiny(), ratios=(2, 16)),
        "padding": points("padding", tiny(), parts=3),
    }
    rows = [
        row
        for sweep, chosen in small.items()
        for row in measure(sweep, tiny(), chosen, PLAN, builder)
    ]
    header = scaling.header(["--models", "bert", "--write", "x.md"], PLAN, quick=True)
    return {**header, "results": rows}


@pytest.mark.slow
def test_a_report_has_everything(report: dict[str, Any]) -> None:
    assert json.loads(json.dumps(report)) == report
    assert report["command"] == "python -m benchmarks.scaling --models bert"
    rows = report["results"]
    found = [(row["sweep"], row["padding"], [p["x"] for p in row["points"]]) for row in rows]
    assert found == [
        ("batch", "compute", [1, 3]),
        ("ratio", "compute", [2, 16]),
        ("padding", "skip", [8, 16, 24]),
        ("padding", "compute", [8, 16, 24]),
    ]
    for row in rows:
        for point in row["points"]:
            assert len(point["rounds"]) == PLAN.rounds <= point["runs"]
            assert 0 < point["least_seconds"] <= point["seconds"]
            assert len(point["package"]) == 64
    assert rows[1]["rest_seconds"] > 0


@pytest.mark.slow
def test_multiply_accumulates_are_those_of_pruned_products(report: dict[str, Any]) -> None:
    by_batch, by_ratio, skip, compute = (
        [point["macs"] for point in row["points"]] for row in report["results"]
    )
    # The head's two outputs take a lane group each, and are pruned too.
    least = PRODUCTS * 24
    assert least / 2 < by_ratio[0] < 1.2 * least / 2
    assert by_ratio[1] * 8 == by_ratio[0]
    assert by_batch[1] == 3 * by_batch[0]
    assert compute == [by_batch[0]] * 3
    assert skip == [by_batch[0] // 3, by_batch[0] * 2 // 3, by_batch[0]]


@pytest.mark.slow
def test_packages_are_made_once(report: dict[str, Any]) -> None:
    by_batch, by_ratio, skip, compute = (
        {point["package"] for point in row["points"]} for row in report["results"]
    )
    assert by_batch == compute < by_ratio
    assert len(by_ratio) == 2
    assert len(skip | compute) == 2


def test_a_point_has_its_padding_on_the_right() -> None:
    found = feeds(tiny(), Point(5, batch=2, real=5))
    assert (found["attention_mask.1"] == (np.arange(24) < 5)).all()
    assert (found["input_ids.1"][:, 5:] == 0).all()
    assert (found["input_ids.1"][:, :5] != 0).all()
    whole = feeds(tiny(), Point(2, batch=2))
    assert (whole["attention_mask.1"] == 1).all()
    assert (found["input_ids.1"][:, :5] == whole["input_ids.1"][:, :5]).all()
    conformer = subject("conformer", quick=True)
    config = conformer.case.model.config
    assert isinstance(config, ConformerConfig)
    assert [point.x for point in points("padding", conformer, parts=2)] == [
        config.time // 2,
        config.time,
    ] * 2
    hidden = feeds(conformer, Point(3, real=3))["src_pad_mask"]
    assert (hidden == (np.arange(config.time) >= 3)).all()
    assert points("padding", subject("resnet50", quick=True)) == []


def test_a_line_is_found_and_judged() -> None:
    line = least_squares([1, 2, 4], [5.0, 7.0, 11.0])
    assert line.coefficients == pytest.approx((3, 2))
    assert (line.r2, line.deviation) == pytest.approx((1, 0))
    assert line(10) == pytest.approx(23)
    off = least_squares([0, 1, 2], [1.0, 1.0, 4.0])
    assert off.coefficients == pytest.approx((0.5, 1.5))
    assert off.r2 == pytest.approx(0.75)
    assert off.deviation == pytest.approx(1)
    square = least_squares([100, 200, 300, 400], [3.0, 6.0, 11.0, 18.0], degree=2)
    assert square.coefficients == pytest.approx((2, 0, 1e-4))
    with pytest.raises(SpuError, match="needs 3 different places, got 2"):
        least_squares([1, 2], [1.0, 2.0], degree=2)


@pytest.mark.parametrize(("most", "wanted"), [(16, 5), (384, 100), (0.31, 0.1), (4.0, 1), (7, 2)])
def test_ticks_are_round(most: float, wanted: float) -> None:
    assert tick(most) == pytest.approx(wanted)


@pytest.mark.slow
def test_the_page_its_json_and_its_drawing(report: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "scaling.md"
    scaling_page.write_page(path, report)
    text = path.read_text()
    assert "{{" not in text
    assert "a trial" in text
    assert text.count("| bert |") == 4 + 10  # lines, and points
    assert json.loads(path.with_suffix(".json").read_text()) == report
    drawn = ElementTree.fromstring(path.with_suffix(".svg").read_text())
    space = "{http://www.w3.org/2000/svg}"
    # Every point, and the two names of the series of the last panel.
    assert len(list(drawn.iter(f"{space}circle"))) == 2 + 2 + 6 + 2
    labels = [each.text for each in drawn.iter(f"{space}text")]
    assert labels.count("bert") == 3
    assert "skip" in labels
    scaling_page.show(report)


def test_the_command_measures_prints_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scaling, "subject", lambda *_, **__: tiny())
    page = tmp_path / "page.md"
    given = ["--models", "bert", "--sweeps", "batch", "--rounds", "1", "--seconds", "0"]
    assert scaling.main([*given, "--quick", "--json", "--write", str(page)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [point["x"] for point in printed["results"][0]["points"]] == [1, 2, 4, 8, 16]
    assert page.read_text() == scaling_page.page(printed, "page.svg")
    assert "Not measured." in page.read_text()
    earlier = tmp_path / "earlier.json"
    kept = {**printed["results"][0], "sweep": "ratio"}
    old = {**printed["results"][0], "points": []}
    earlier.write_text(json.dumps({"command": "before", "results": [kept, old]}))
    # Measured once is enough.
    monkeypatch.setattr(scaling, "measure", lambda *_: printed["results"])
    assert scaling.main([*given, "--quick", "--json", "--from", str(earlier)]) == 0
    both = json.loads(capsys.readouterr().out)
    assert [(row["sweep"], len(row["points"])) for row in both["results"]] == [
        ("ratio", 5),
        ("batch", 5),
    ]
    assert both["command"].startswith("before && python -m benchmarks.scaling")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "gpt"], "resnet50, bert"),
        (["--sweeps", "time"], "batch, ratio, padding"),
        (["--rounds", "0"], "1 or more"),
    ],
)
def test_errors_name_the_remedy(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scaling.main(arguments) == 1
    assert message in capsys.readouterr().err


def test_the_page_is_what_the_benchmark_writes_of_its_json() -> None:
    report = json.loads(PAGE.with_suffix(".json").read_text())
    drawn = PAGE.with_suffix(".svg")
    assert scaling_page.page(report, drawn.name) == PAGE.read_text()
    assert scaling_page.drawing(report) == drawn.read_text()
    assert not report["quick"]
    found = {(row["sweep"], row["model"]) for row in report["results"]}
    wanted = {(sweep, model) for sweep in SWEEPS for model in MODELS} - {("padding", "resnet50")}
    assert found == wanted
