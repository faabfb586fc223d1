"""The device model beside published throughput: held-out figures, the fit, and the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import published, published_page
from benchmarks.published_cases import CASES, ROWS, Row
from spu_ir.targets import Target

PAGE = Path(__file__).parents[1] / "docs" / "device-model.md"


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    return published.stored()


@pytest.fixture(scope="module")
def results(tables: dict[str, Any]) -> list[published.Result]:
    return published.results(tables)


def only(results: list[published.Result], workload: str, card: str = "s30") -> published.Result:
    return next(r for r in results if (r.row.workload, r.row.card) == (workload, card))


def test_every_held_out_figure_is_within_its_limit(results: list[published.Result]) -> None:
    held = {(r.row.workload, r.row.card): r for r in results if r.row.role == "held out"}
    assert {key: r.row.limit for key, r in held.items()} == {
        ("ResNet-50 Offline", "s10"): 0.10,
        ("ResNet-50 Offline", "s4"): 0.10,
        ("ALBERT", "s30"): 0.15,
        ("RoBERTa", "s30"): 0.15,
    }
    for r in held.values():
        assert r.error is not None
        assert abs(r.error) <= r.row.limit
        assert r.verdict == "holds"


def test_two_figures_are_fitted_each_to_a_row_of_its_own(
    tables: dict[str, Any], results: list[published.Result]
) -> None:
    target = Target.load("s30")
    fitted = {name: f.value for name, f in target.figures().items() if f.status == "fitted"}
    assert fitted == published.fit(tables)
    assert [
        (r.row.workload, r.row.card, r.row.source) for r in results if r.row.role == "fitted"
    ] == [
        ("ResNet-50 Offline", "s30", "MLPerf v2.1"),
        ("BERT", "s30", "ByteMLPerf, July 2023"),
    ]
    for r in results:
        if r.row.role == "fitted":
            assert r.error == pytest.approx(0, abs=0.002)


def test_cards_scale_as_published(results: list[published.Result]) -> None:
    one, two, three = (
        only(results, "ResNet-50 Offline", card).estimate.throughput
        for card in ("s4", "s10", "s30")
    )
    assert two / one == pytest.approx(2.07, rel=0.05)
    assert three / one == pytest.approx(3.02, rel=0.05)


def test_fp32_pictures_fill_the_host_link_and_bytes_do_not(
    results: list[published.Result],
) -> None:
    fp32, int8 = only(results, "ResNet-50, FP32 input"), only(results, "ResNet-50 Offline")
    assert fp32.estimate.bottleneck == "host in"
    assert fp32.estimate.busy["host in"] == pytest.approx(1, abs=0.01)
    assert fp32.estimate.throughput == pytest.approx(31.508e9 / 602_112, rel=0.01)
    assert int8.estimate.bottleneck == "spu"
    assert int8.estimate.busy["host in"] < 0.6


def test_no_card_draws_more_than_it_may(results: list[published.Result]) -> None:
    for r in results:
        assert r.estimate.power_w < r.estimate.target.card.tdp.value


def test_shares_of_a_model_say_what_limits_its_gain(results: list[published.Result]) -> None:
    for case in ("bert", "albert", "roberta"):
        layers = next(r.estimate.layers for r in results if r.row.case == case)
        share = published_page.shares(layers)
        assert sum(share.values()) == pytest.approx(1)
        assert max(share, key=lambda kind: share[kind]) == "attention"
    share = published_page.shares(only(results, "ResNet-50 Offline").estimate.layers)
    assert share["attention"] == 0
    assert 0.02 < share["first layer"] < 0.3


def test_int8_attention_is_faster_than_published_arithmetic(
    results: list[published.Result],
) -> None:
    bert, int8 = only(results, "BERT"), only(results, "BERT, INT8 attention")
    assert bert.estimate.throughput < 5_947 < int8.estimate.throughput < 9_336


def test_the_page_is_what_the_benchmark_writes(
    tables: dict[str, Any], results: list[published.Result]
) -> None:
    """After a change: `python -m benchmarks.published --write docs/device-model.md`."""
    assert PAGE.read_text() == published_page.page(results, published.what_if(tables))


def test_the_command_prints_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    stored = published.STORED.read_bytes()
    kept = tmp_path / published.STORED.name
    kept.write_bytes(stored)
    monkeypatch.setattr(published, "STORED", kept)
    page = tmp_path / "page.md"
    assert published.main(["--stored", "--json", "--write", str(page)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["workload"] for row in rows] == [row.workload for row in ROWS]
    assert page.read_text() == PAGE.read_text()
    assert published.stored().keys() == CASES.keys()
    assert kept.read_bytes() == stored
    assert published.main(["--stored"]) == 0
    assert "holds (15%)" in capsys.readouterr().out
    assert published.main(["--stored", "--fit"]) == 0
    assert capsys.readouterr().out.startswith("spu.epilogue = ")


def test_a_missed_limit_is_an_error_of_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    wrong = Row("ResNet-50 Offline", "resnet50", "s4", 9_000, "MLPerf v2.1", "held out", limit=0.1)
    monkeypatch.setattr(published, "ROWS", (wrong,))
    assert published.main(["--stored"]) == 1
    assert "misses (10%)" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_stored_tables_are_those_of_the_compiler(case: str, tables: dict[str, Any]) -> None:
    """After a change of passes or counts: `python -m benchmarks.published --write ...`."""
    assert json.loads(json.dumps(CASES[case].table())) == tables[case]
