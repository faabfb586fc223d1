"""The speed comparison: what it reports of a tiny model, and of engines that fail or lie."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest

from benchmarks import compare, compare_measure, compare_page
from benchmarks.compare_cases import Subject, subject, unpadded
from benchmarks.compare_engines import REMEDIES, missing, python_of
from benchmarks.compare_goals import GOALS, faster, limits, verdicts
from benchmarks.compare_integer import between_activations, products, with_integer_products
from benchmarks.compare_measure import Group, Plan, accepted, best_variants, reference
from benchmarks.compare_onnx import at_extents, at_opset_13
from benchmarks.compare_process import EngineError, Process, one_line
from benchmarks.compare_profile import profile, regions_of
from benchmarks.compare_recipes import Maker, Variant, variants
from benchmarks.compare_roofline import Ceilings, useful
from benchmarks.fidelity_cases import NAMES, Case, relative
from benchmarks.fidelity_ort import outputs_of
from benchmarks.ratios import Ratio
from spu_ir.errors import SpuError
from spu_ir.runtime.cpu import select_level
from spu_ir.zoo import AlbertConfig, BertConfig, published

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"

SIZES: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
ENGINES = ("spu", "onnxruntime")
PLAN = Plan(rounds=2, seconds=0.0)


def tiny(name: str = "bert") -> Subject:
    config = BertConfig(**SIZES) if name == "bert" else AlbertConfig(**SIZES)
    case = Case(replace(published(name), config=config), batch=2, seq=24)
    return Subject(name, case, seq=24)


def quiet(_: str) -> None:
    pass


def maker_of(folder: Path, batches: tuple[int, ...] = (1,)) -> Maker:
    pythons = {name: python_of(name, {}) for name in REMEDIES}
    return Maker(tiny(), 16, folder, batches, pythons)


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return maker_of(tmp_path_factory.mktemp("compare"), (1, 2))


@pytest.fixture(scope="module")
def ceilings(tmp_path_factory: pytest.TempPathFactory) -> Ceilings:
    return Ceilings(select_level(), tmp_path_factory.mktemp("ceilings"))


@pytest.fixture(scope="module")
def report(maker: Maker, ceilings: Ceilings) -> dict[str, Any]:
    rows = compare.measure(maker, ENGINES, (1,), PLAN, ceilings, quiet, references=True)
    header = compare.header(["--models", "bert"], PLAN, ceilings, quick=True)
    reasons: dict[str, str | None] = {"spu": None, "onnxruntime": None, "openvino": "not here"}
    found = {
        engine: {"available": reason is None, "reason": reason}
        for engine, reason in reasons.items()
    }
    return {**header, "engines": found, "earlier": [], "results": compare.merged(rows, [])}


MEASURED = {
    "model", "ratio", "batch", "threads", "engine", "form", "format", "settings", "versions",
    "python", "affinity", "import_seconds", "load_seconds", "first_seconds", "error", "wrong",
    "rounds", "peak_bytes", "baseline_bytes", "runs", "seconds", "least_seconds", "throughput",
    "loadavg",
}  # fmt: skip
OURS = {"package", "padding", "compile_seconds", "accepted", "roofline"}


def test_a_report_has_everything(report: dict[str, Any]) -> None:
    assert json.loads(json.dumps(report)) == report
    wanted = {"machine", "processors", "level", "date", "command", "version", "quick", "rounds"}
    wanted |= {"round_seconds", "policy", "padding", "lines", "ceilings", "loadavg"}
    assert wanted <= report.keys()
    assert report["command"] == "python -m benchmarks.compare --models bert"
    for row in report["results"]:
        assert row.keys() == MEASURED | (OURS if row["engine"] == "spu" else set())
        assert len(row["rounds"]) == PLAN.rounds <= row["runs"]
        assert row["least_seconds"] <= row["seconds"]
        assert row["throughput"] == pytest.approx(row["batch"] / row["seconds"])
        assert row["affinity"] == [PLAN.processors[0]]
        assert 0 < row["baseline_bytes"] < row["peak_bytes"]


def test_the_first_group_has_every_form_and_later_ones_the_fastest(report: dict[str, Any]) -> None:
    first = [row for row in report["results"] if row["batch"] == 1]
    later = [row for row in report["results"] if row["batch"] == 2]
    forms = [(row["engine"], row["form"]) for row in first]
    assert forms == [(v.engine, v.form) for name in ENGINES for v in variants(name, tiny())]
    assert [row["engine"] for row in later] == list(ENGINES)
    ort = [row for row in first if row["engine"] == "onnxruntime" and row["format"] == "int8"]
    assert later[1]["form"] == min(ort, key=lambda row: row["seconds"])["form"]


def test_answers_agree_and_precision_shows(report: dict[str, Any]) -> None:
    for row in report["results"]:
        assert not row["wrong"]
        if row["format"] == "fp32":
            assert row["error"] < 1e-5
        else:
            assert 1e-4 < row["error"] < 0.1


def test_every_product_has_its_part_of_the_roofline(
    report: dict[str, Any], ceilings: Ceilings
) -> None:
    row = report["results"][0]
    assert row["engine"] == "spu"
    layers = row["roofline"]["layers"]
    names = [layer["layer"] for layer in layers]
    assert sum(".query" in name for name in names) == SIZES["num_hidden_layers"]
    assert all(layer["seconds"] > 0 for layer in layers)
    hidden, tokens = SIZES["hidden_size"], 24
    query = next(layer for layer in layers if ".query" in layer["layer"])
    # 4 of 64: the weight is one bank deep.
    assert query["useful_macs"] == hidden * 4 * tokens
    attention = next(layer for layer in layers if layer["op"] == "spu.packed_attention")
    assert attention["useful_macs"] == 2 * tokens * tokens * hidden
    _, lines = compare_page.time_by_op(report)
    shares = {line[2]: float(line[4].rstrip("%")) for line in lines if line[:2] == ["bert", "16x"]}
    assert {"spu.matmul", "spu.packed_attention"} <= set(shares)
    assert sum(shares.values()) <= 101
    if ceilings.pair is not None:
        least = query["useful_macs"] / ceilings.pair
        assert query["of_ceiling"] <= least / query["seconds"] * 1.5
        assert 0 < row["roofline"]["of_run"] < 1
    else:
        assert query["of_ceiling"] is None


def test_regions_are_those_of_the_program(maker: Maker, report: dict[str, Any]) -> None:
    path = Path(maker.package["path"])
    named = regions_of((path / "program.mlir").read_text())
    source = (path / "program.c").read_text()
    assert len(named) == source.count("context->parallel(context->pool")
    timed = profile(path, tiny().feeds(1), runs=1)
    assert timed is not None
    assert [region.layers for region in timed] == [region.layers for region in named]
    assert report["results"][0]["package"] in (path / "manifest.json").read_text()


def test_an_ir_that_is_not_the_programs_is_seen(maker: Maker, monkeypatch: Any) -> None:
    from benchmarks import compare_profile

    fewer = regions_of((Path(maker.package["path"]) / "program.mlir").read_text())[:-1]
    monkeypatch.setattr(compare_profile, "regions_of", lambda _: fewer)
    assert profile(Path(maker.package["path"]), tiny().feeds(1), runs=1) is None


def test_wrong_answers_are_flagged_and_compared_with_nobody(
    maker: Maker, report: dict[str, Any], tmp_path: Path
) -> None:
    def broken(_: Maker) -> str:
        model = onnx.ModelProto()
        model.CopyFrom(maker.proto)
        for node in model.graph.node:
            if node.op_type == "Gelu":
                node.op_type = "Relu"
                del node.attribute[:]
        path = tmp_path / "broken.onnx"
        onnx.save(model, path)
        return str(path)

    variant = Variant("onnxruntime", "broken", "fp32", broken)
    (row,) = Group(maker, 1, 1, PLAN, quiet).measure([variant], reference(maker, 1))
    assert row["wrong"]
    assert row["error"] > 1e-2
    rows = [report["results"][0], {**row, "format": "int8"}]
    at = {"model": "bert", "ratio": 16, "threads": 1, "batch": 1}
    assert faster(rows, "onnxruntime", **at) is None
    assert faster([rows[0], {**rows[1], "wrong": False}], "onnxruntime", **at) is not None
    page = compare_page.page({**report, "results": rows}, "x.svg")
    assert "**wrong answers**" in page


def test_answers_of_another_shape_are_wrong(maker: Maker) -> None:
    want = reference(maker, 1)
    feeds = tiny().feeds(1)
    assert compare_measure.agreement(maker, want, want, feeds) == 0
    cut = {name: array[:, :-1] for name, array in want.items()}
    assert compare_measure.agreement(maker, cut, want, feeds) == float("inf")
    assert compare_measure.agreement(maker, {}, want, feeds) == float("inf")


def test_a_refused_model_is_a_finding(maker: Maker, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.onnx"
    nonsense.write_bytes(b"nonsense")

    def raises(_: Maker) -> str:
        raise ValueError("quantisers\nraise what they like")

    found = Group(maker, 1, 1, PLAN, quiet).measure(
        [
            Variant("onnxruntime", "nonsense", "int8", lambda _: str(nonsense)),
            Variant("onnxruntime", "refused", "int8", raises),
            Variant("onnxruntime", "FP32", "fp32", lambda maker: str(maker.source())),
        ],
        reference(maker, 1),
    )
    assert "nonsense.onnx" in found[0]["unavailable"]
    assert found[1]["unavailable"] == "raise what they like"
    assert found[2]["seconds"] > 0
    assert best_variants(found, variants("onnxruntime", tiny())[:3]) == []


def test_a_missing_engine_is_reported_with_its_remedy(
    report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "bin" / "python"
    reason = missing("deepsparse", nowhere)
    assert reason is not None
    assert str(nowhere) in reason
    assert "make bench-deepsparse" in reason
    assert missing("onnxruntime", Path(sys.executable)) is None
    absent = missing("deepsparse", Path(sys.executable))
    assert absent is not None
    assert absent.startswith("ModuleNotFoundError")
    assert "OpenVINO: not available: not here" in compare_page.page(report, "x.svg")
    compare_page.show(report)
    assert "OpenVINO: not available: not here" in capsys.readouterr().out


def test_a_worker_that_ends_says_why() -> None:
    with Process(Path(sys.executable), "onnxruntime", PLAN.processors[:1]) as process:
        with pytest.raises(EngineError, match="KeyError"):
            process.ask("load")
        assert process.ask("memory")["peak_bytes"] > 0
        process.child.kill()
        with pytest.raises(EngineError, match="ended by signal 9"):
            process.ask("memory")
    with (
        Process(Path(sys.executable), "nothing", PLAN.processors[:1]) as process,
        pytest.raises(EngineError, match="ended with 1: KeyError: 'nothing'"),
    ):
        process.ask("memory")


def test_only_the_engine_whose_turn_it_is_runs() -> None:
    def state(process: Process) -> str:
        return Path(f"/proc/{process.child.pid}/stat").read_text().rpartition(")")[2].split()[0]

    with Process(Path(sys.executable), "onnxruntime", PLAN.processors[:1]) as process:
        process.ask("memory")
        assert state(process) == "T"


def test_the_telling_line_of_a_complaint() -> None:
    assert one_line("a\nAssertion at x.cpp:1\n\nBacktrace:\n0# b") == "Assertion at x.cpp:1"
    assert one_line("first\nlast\n") == "last"
    assert one_line("") == "no reason given"
    assert len(one_line("x" * 1000)) == 200


@pytest.mark.parametrize("name", ["bert", "albert"])
def test_a_model_at_opset_13_computes_the_same(name: str) -> None:
    model, feeds = tiny(name).build(1), tiny(name).feeds(2)
    old = at_opset_13(model)
    assert [each.version for each in old.opset_import] == [13]
    fixed = at_extents(old, tiny(name).extents(2))
    onnx.checker.check_model(fixed, full_check=True)
    want, got = outputs_of(model, feeds), outputs_of(fixed, feeds)
    assert all(relative(got[key], want[key]) < 1e-5 for key in want)


def test_an_operator_that_opset_13_writes_otherwise_is_refused() -> None:
    node = onnx.helper.make_node("ReduceMean", ["x", "axes"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [], [])
    with pytest.raises(SpuError, match="ReduceMean"):
        at_opset_13(onnx.helper.make_model(graph))


@pytest.mark.parametrize("attention", [False, True])
def test_integer_products_are_near_and_in_integers(attention: bool) -> None:
    model = at_opset_13(tiny().build(1))
    feeds = tiny().feeds(1)
    integer = with_integer_products(model, tiny().calibration(), attention=attention)
    onnx.checker.check_model(integer, full_check=True)
    assert products(integer) == []
    left = 0 if attention else 2 * SIZES["num_hidden_layers"]
    assert len(between_activations(integer)) == left
    ops = [node.op_type for node in integer.graph.node]
    wanted = len(products(model)) + len(between_activations(model)) - left
    assert ops.count("MatMulInteger") == wanted
    want, got = outputs_of(model, feeds), outputs_of(integer, feeds)
    assert all(1e-5 < relative(got[key], want[key]) < 0.1 for key in want)


def test_inputs_have_no_padding() -> None:
    feeds = published("bert").feeds(4, 32, seed=1)
    ids, mask = feeds["input_ids.1"], feeds["attention_mask.1"]
    assert (mask == 0).any()
    found = unpadded(feeds)
    assert (found["attention_mask.1"] == 1).all()
    assert np.array_equal(found["input_ids.1"][mask == 1], ids[mask == 1])
    assert (found["input_ids.1"] != 0).all()
    frames = unpadded({"src_pad_mask": np.array([[False, True]])})
    assert not frames["src_pad_mask"].any()


def test_packages_are_those_that_fidelity_accepted(tmp_path: Path) -> None:
    page = tmp_path / "fidelity.json"
    assert accepted("a", "bert", 16, page) == "docs/fidelity.json is not there"
    row = {"model": "bert", "ratio": 16, "packages": {"int8": "a"}, "verdicts": {"int8": "holds"}}
    page.write_text(json.dumps({"results": [row]}))
    assert accepted("a", "bert", 16, page) == "yes"
    assert accepted("b", "bert", 16, page) == "fidelity was measured of another build"
    assert accepted("a", "bert", 1, page) == "not measured there"
    row["verdicts"] = {"int8": "miss"}
    page.write_text(json.dumps({"results": [row]}))
    assert accepted("a", "bert", 16, page) == "fidelity's line is missed"


def measured_row(engine: str, model: str, seconds: float, ratio: Ratio = 16) -> dict[str, Any]:
    return {
        "engine": engine,
        "model": model,
        "seconds": seconds,
        "ratio": ratio,
        "threads": 1,
        "batch": 1,
        "format": "int8",
        "wrong": False,
    }


def test_goals_hold_at_their_factor_and_not_below() -> None:
    rows = [measured_row("spu", name, 1.0) for name in ("bert", "conformer")]
    rows += [measured_row("openvino", "bert", 3.9), measured_row("openvino", "conformer", 3.0)]
    found = {(v.goal.engine, v.model): v for v in verdicts(rows) if v.goal.ratio == 16}
    assert found["openvino", "bert"].holds is False
    assert found["openvino", "conformer"].holds is True
    assert found["deepsparse", "bert"].holds is None
    assert {goal.ratio for goal in GOALS} == {1, 16, "95%"}
    assert all(v.goal.ratio == 16 for v in verdicts(rows))
    rows = [measured_row(name, "bert", s, "95%") for name, s in (("spu", 1.0), ("openvino", 2.0))]
    (found_95,) = verdicts(rows)
    assert (found_95.goal.title, found_95.holds) == ("95%, openvino", True)
    report = {"results": rows, "engines": {"spu": {}, "openvino": {}}}
    assert compare_page.reading(report) == [
        "1 thread, batch 1: 95% against OpenVINO holds for bert (2.00)."
    ]
    assert compare_page.latency(report, 1, 1)[1][0][:2] == ["bert", "95%"]


def test_limits_are_those_of_the_worst() -> None:
    def row(engine: str, model: str, compiles: float, loads: float, peak: int) -> dict[str, Any]:
        took = {"compile_seconds": compiles} if engine == "spu" else {}
        return measured_row(engine, model, 1.0) | {"load_seconds": loads, "peak_bytes": peak} | took

    rows = [row("spu", "bert", 31.0, 0.1, 50), row("spu", "albert", 8.0, 0.02, 99)]
    found = {each.what: each for each in limits(rows)}
    assert (found["compile, s"].where, found["compile, s"].holds) == ("bert 16x", False)
    assert found["load a package, s"].holds is True
    assert found["peak memory, of OpenVINO's"].holds is None
    rows += [row("openvino", "bert", 0.0, 3.0, 90), row("openvino", "albert", 0.0, 3.0, 90)]
    memory = {each.what: each for each in limits(rows)}["peak memory, of OpenVINO's"]
    assert (memory.found, memory.holds) == (pytest.approx(50 / 90), False)
    _, lines = compare_page.limited({"results": rows})
    assert lines[0] == ["compile, s", "30", "31", "bert 16x", "missed"]


@pytest.mark.parametrize(
    ("op", "shape", "density", "wanted"),
    [
        ("spu.matmul", "[768, 768] -> [?, ?, 768]", 0.0625, 768 * 48 * 2 * 24),
        ("spu.conv", "[64, 7, 7, 3] -> [?, 112, 112, 64]", 1.0, 64 * 147 * 2 * 112 * 112),
        ("spu.packed_attention", "[?, ?, 768]", None, 2 * 24 * 24 * 768 * 2),
        ("vpu.layernorm", "[?, ?, 768]", None, None),
        ("spu.matmul", "[768, 768] -> [?, ?, 768]", None, None),
    ],
)
def test_useful_work(op: str, shape: str, density: float | None, wanted: int | None) -> None:
    layer = {"op": op, "shape": shape, "density": density}
    assert useful(layer, {"batch": 2, "seq": 24}) == wanted


def test_the_page_its_json_and_its_picture(report: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    compare_page.write_page(path, report)
    text = path.read_text()
    for needed in ("## Goals", "## Roofline", "## Packages", "performance.svg", "a trial"):
        assert needed in text
    assert json.loads(path.with_suffix(".json").read_text()) == report
    picture = ElementTree.fromstring(path.with_suffix(".svg").read_text())
    labels = [each.text for each in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "bert 16x" in labels


def test_earlier_results_stay_where_nothing_is_newer() -> None:
    old = [measured_row("spu", "bert", 2.0), measured_row("spu", "albert", 2.0)]
    new = [measured_row("spu", "bert", 1.0)]
    assert [(r["model"], r["seconds"]) for r in compare.merged(new, old)] == [
        ("bert", 1.0),
        ("albert", 2.0),
    ]


def test_fidelity_is_asked_again_of_earlier_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"model": "bert", "ratio": 16, "packages": {"int8": "a"}, "verdicts": {"int8": "holds"}}
    (tmp_path / "fidelity.json").write_text(json.dumps({"results": [row]}))
    monkeypatch.setattr(compare, "FIDELITY", tmp_path / "fidelity.json")
    old = {**measured_row("spu", "bert", 2.0), "package": "a", "accepted": "not measured there"}
    (found,) = compare.merged([], [old])
    assert found["accepted"] == "yes"


def test_results_are_sorted_by_ratio_whatever_its_kind() -> None:
    rows = [measured_row("spu", "bert", 1.0, ratio) for ratio in ("95%", 16, "90%")]
    old = [measured_row("spu", "bert", 1.0, 1), measured_row("spu", "bert", 2.0, "95%")]
    found = [(row["ratio"], row["seconds"]) for row in compare.merged(rows, old)]
    assert found == [(1, 1.0), (16, 1.0), ("90%", 1.0), ("95%", 1.0)]


def test_engines_of_earlier_reports_stay() -> None:
    there, gone = {"available": True, "reason": None}, {"available": False, "reason": "old"}
    earlier = [{"engines": {"openvino": there, "deepsparse": gone, "spu": gone}}]
    found = compare.with_earlier({"spu": None, "openvino": "not here"}, earlier)
    assert found == {"spu": there, "openvino": there, "deepsparse": gone}


def test_the_command_names_no_places_of_the_machine() -> None:
    given = ["--models", "bert", "--cache", "/x", "--python", "spu=/y", "--from=/z", "--json"]
    assert compare.recorded(given, "compare") == "python -m benchmarks.compare --models bert --json"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "gpt"], "resnet50, bert"),
        (["--engines", "tvm"], "spu, openvino"),
        (["--threads", "10000"], "fewer --threads"),
    ],
)
def test_errors_name_the_remedy(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main(arguments) == 1
    assert message in capsys.readouterr().err


def test_all_models_have_a_subject() -> None:
    assert [subject(name, quick=True).name for name in NAMES] == list(NAMES)
    speech = subject("conformer-speech")
    assert speech.feeds(1)["src"].shape == (1, 1, 80, 1000)
    assert subject("bert").feeds(1)["input_ids.1"].shape == (1, 384)


def test_the_page_is_what_the_benchmark_writes_of_its_json() -> None:
    report = json.loads(PAGE.with_suffix(".json").read_text())
    assert compare_page.page(report, PAGE.with_suffix(".svg").name) == PAGE.read_text()
    assert not report["quick"]
