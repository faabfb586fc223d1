"""The fidelity benchmark measures what it says: on a small model, a broken one, and its page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spu_ir
from benchmarks import fidelity, fidelity_layers, fidelity_page
from benchmarks.fidelity_cases import NAMES, PRECISIONS, RATIOS, SPEECH_NAME, Case, case, relative
from benchmarks.fidelity_ort import dynamic_settings, static_settings
from spu_ir.api import lower
from spu_ir.errors import SpuError
from spu_ir.runtime.model import CompiledModel
from spu_ir.transforms import quantise
from spu_ir.zoo import BertConfig, ResNetConfig, published

PAGE = Path(__file__).parents[1] / "docs" / "fidelity.md"

BERT = BertConfig(
    vocab_size=200,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=128,
)


def tiny(name: str, config: Any) -> Case:
    return Case(replace(published(name), config=config), batch=2, seq=24)


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return fidelity.measure(tiny("bert", BERT), 1, layers=True)


def test_a_report_has_everything(measured: dict[str, Any]) -> None:
    assert json.loads(json.dumps(measured)) == measured
    assert measured["ours"].keys() == measured["verdicts"].keys() == set(PRECISIONS)
    assert measured["ours"]["fp32"] <= 1e-5 < measured["ours"]["bf16"] < measured["ours"]["int8"]
    assert measured["ort_settings"].keys() == {one.name for one in dynamic_settings()}
    assert measured["ort_int8"] == min(measured["ort_settings"].values())
    assert measured["ort_settings"][measured["ort_best"]] == measured["ort_int8"]
    digests = list(measured["packages"].values())
    assert len(set(digests)) == len(PRECISIONS)
    assert all(len(digest) == 64 for digest in digests)


def test_layers_are_compared_with_the_same_places(measured: dict[str, Any]) -> None:
    rows = measured["layers"]
    names = [row["layer"] for row in rows]
    assert sum("query" in name for name in names) == BERT.num_hidden_layers
    assert all(0 < row["ours"] < 0.1 for row in rows)
    # ONNX Runtime keeps every product of a transformer that it quantises at run time.
    compared = [row for row in rows if row["ort"] is not None]
    assert len(compared) >= len(rows) - 2
    assert all(0 < row["ort"] < 0.1 for row in compared)
    summary = measured["layer_summary"]
    assert summary["first"]["layer"] == names[0]
    assert summary["worst"]["ours"] == max(row["ours"] for row in rows)
    assert summary["compared"] == len(compared)


def test_a_broken_quantiser_is_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of a fifth of the levels: FP32 and BF16 hold, INT8 does not."""

    def broken(weight: Any) -> tuple[Any, Any]:
        scale = np.abs(weight).max(axis=1) / np.float32(12)
        return np.rint(weight / scale[:, None]).astype(np.int8), scale

    monkeypatch.setattr(quantise, "quantised_weight", broken)
    report = fidelity.measure(tiny("bert", BERT), 1)
    assert report["verdicts"] == {"fp32": "holds", "bf16": "holds", "int8": "miss"}
    assert fidelity_page.verdict_of(report) == "miss: INT8"
    assert fidelity_page.misses({"results": [report]}) == [("bert", "int8")]


def test_the_command_of_a_page_names_no_files_of_results() -> None:
    given = ["--quick", "--from", "a.json", "--models", "bert", "--from", "b.json"]
    assert fidelity.command_of(given) == "python -m benchmarks.fidelity --quick --models bert"


def test_verdicts() -> None:
    def of(fp32: float, bf16: float, int8: float) -> list[str]:
        found = fidelity.verdicts({"fp32": fp32, "bf16": bf16, "int8": int8}, 0.02)
        return list(found.values())

    assert of(1e-4, 1e-2, 0.02) == ["holds"] * 3
    assert of(1.1e-4, 1.1e-2, 0.0201) == ["miss"] * 3
    assert of(float("nan"), float("inf"), float("nan")) == ["miss"] * 3


def test_an_error_that_is_not_finite_is_infinite() -> None:
    one = np.ones(3, np.float32)
    assert relative(one, one) == 0
    assert relative(2 * one, one) == 1
    assert relative(np.array([1, np.nan, 1], np.float32), one) == np.inf
    assert relative(one, np.zeros(3, np.float32)) == 1


def test_a_package_is_the_same_every_time() -> None:
    """So that a speed can be shown to be that of a package accepted here."""
    one = tiny("bert", replace(BERT, num_hidden_layers=1))
    digests = {
        fidelity.digest_of(spu_ir.compile(one.build(16), threads=1, **one.options("int8")))
        for _ in range(2)
    }
    assert len(digests) == 1


def test_static_layers_of_a_cnn_are_read_from_their_grids() -> None:
    config = ResNetConfig(blocks=(1, 1), width=16, image=32, classes=10)
    one = tiny("resnet50", config)
    model, feeds = one.build(1), one.feeds()
    want = fidelity.outputs_of(model, feeds)
    assert [setting.name for setting in static_settings()] == ["QDQ, min-max", "QDQ, entropy"]
    ready, found, best = fidelity.ort_int8(one, model, feeds, want, lambda _: None)
    assert 0 < found["settings"][found["best"]] < 0.2
    _, job = lower(model, **one.options("int8"))
    rows = fidelity_layers.layer_errors(job, ready, best, feeds)
    assert len(rows) == 10  # the stem, two bottlenecks with a projection each, the classifier
    assert all(0 < row.ours < 0.1 for row in rows)
    theirs = [row.ort for row in rows if row.ort is not None]
    assert len(theirs) >= 8
    assert all(0 < error < 0.1 for error in theirs)


def test_padding_is_not_measured() -> None:
    one = tiny("bert", BERT)
    feeds = one.feeds()
    real = one.real(feeds)
    assert real is not None
    assert not real.all()
    want = {name: np.ones(real.shape, np.float32) for name in one.model.outputs}
    got = {name: np.where(real, array, np.float32(9)) for name, array in want.items()}
    assert one.error(got, want, feeds) == 0
    assert one.error({name: -array for name, array in got.items()}, want, feeds) == 2


def test_every_published_model_is_measured() -> None:
    assert [case(name).name for name in NAMES] == list(NAMES)
    for name in NAMES:
        full, quick = case(name), case(name, quick=True)
        assert quick.model.config != full.model.config
        assert bool(full.calibration()) == (name in ("resnet50", "conformer", SPEECH_NAME))
        assert ("calibration" in full.options("int8")) == bool(full.calibration())
    with pytest.raises(SpuError, match="model 'vgg' is not known"):
        case("vgg")


def test_what_is_measured_was_not_calibrated_on() -> None:
    one = case("resnet50", quick=True)
    (measured,) = one.feeds().values()
    for feed in one.calibration():
        (seen,) = feed.values()
        assert not np.array_equal(measured[:1], seen)


def test_results_of_earlier_runs_are_taken_as_they_are(
    measured: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier, page = tmp_path / "earlier.json", tmp_path / "page.md"
    missed = {**measured, "ratio": 8, "verdicts": {**measured["verdicts"], "int8": "miss"}}
    earlier.write_text(json.dumps({"command": "one command", "results": [missed, measured]}))
    given = ["--models", "bert", "--ratios", "1,8", "--from", str(earlier)]
    assert fidelity.main([*given, "--write", str(page)]) == 2
    printed = capsys.readouterr().out
    assert "holds" in printed
    assert "/encoder.layer.0.attention.self.query" in printed
    report = json.loads(page.with_suffix(".json").read_text())
    assert [row["ratio"] for row in report["results"]] == [1, 8]
    assert page.read_text() == fidelity_page.page(report)
    assert report["command"] == "one command"
    assert fidelity.main([*given, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["lines"] == fidelity.LINES


def test_the_page_is_what_the_benchmark_writes_of_its_json() -> None:
    report = json.loads(PAGE.with_suffix(".json").read_text())
    assert PAGE.read_text() == fidelity_page.page(report)


def test_the_page_says_where_when_and_how() -> None:
    report = json.loads(PAGE.with_suffix(".json").read_text())
    for key in ("machine", "level", "date", "command", "version", "onnxruntime"):
        assert report[key]
        assert report[key].replace(" && ", "\n") in PAGE.read_text()
    assert report["lines"] == fidelity.LINES
    cells = {(row["model"], row["ratio"]) for row in report["results"]}
    banked = [ratio for ratio in RATIOS if isinstance(ratio, int)]
    published = {(name, ratio) for name in NAMES for ratio in banked if name != SPEECH_NAME}
    assert published | {(SPEECH_NAME, 1), (SPEECH_NAME, 16)} <= cells
    extra = {("bert", "16x share 2")}
    assert cells <= {(name, ratio) for name in NAMES for ratio in RATIOS} | extra
    # Whole networks, layer by layer.
    assert {row["size"] for row in report["results"]} == {"full"}
    assert all(row["layer_summary"]["compared"] for row in report["results"])
    for row in report["results"]:
        assert row["verdicts"] == fidelity.verdicts(row["ours"], row["ort_int8"])
        assert row["packages"].keys() == set(PRECISIONS)


def test_every_miss_on_the_page_is_explained() -> None:
    report = json.loads(PAGE.with_suffix(".json").read_text())
    missed = fidelity_page.misses(report)
    assert set(missed) == fidelity_page.EXPLAINED.keys(), "explain each miss, and only those"


def test_a_model_can_be_broken_on_purpose(measured: dict[str, Any]) -> None:
    """`compile` is what is measured: answers that are not a number miss every line."""

    class Broken:
        def __init__(self, model: CompiledModel):
            self.model, self.level, self.save = model, model.level, model.save

        def run(self, feeds: Any) -> dict[str, Any]:
            return {name: value * np.nan for name, value in self.model.run(feeds).items()}

    one = tiny("bert", replace(BERT, num_hidden_layers=1))
    compiled = spu_ir.compile(one.build(1), threads=1, **one.options("fp32"))
    report = fidelity.measure(one, 1, compile=lambda *_, **__: Broken(compiled))
    assert set(report["verdicts"].values()) == {"miss"}
