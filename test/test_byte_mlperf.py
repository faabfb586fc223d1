"""The backend for ByteMLPerf, driven as its engine drives it, on small models of three kinds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from support.byte_mlperf import (
    Images,
    Noise,
    Questions,
    Report,
    checkout,
    engine_folder,
    flattened,
    logits,
    run_task,
    spans,
)
from support.published import SEQ, run_onnx, small

from spu_ir import SpuError, zoo
from spu_ir.contrib.byte_mlperf import runtime_side
from spu_ir.contrib.byte_mlperf.compile_side import BUILD, CompileSide
from spu_ir.contrib.byte_mlperf.install import install
from spu_ir.contrib.byte_mlperf.pruning import density_of, pruned_at
from spu_ir.contrib.byte_mlperf.runtime_side import RuntimeSide
from spu_ir.contrib.byte_mlperf.samples import array_of, first_rows, match
from spu_ir.contrib.byte_mlperf.settings import FILE, Settings, published_settings, settings_of
from spu_ir.runtime.program import Port
from spu_ir.sparsify import magnitude

Array = NDArray[Any]

BATCHES = [2, 3, 5]
"""Of the workload: the first one for accuracy, all for performance."""

KEYS = {
    "model",
    "framework",
    "compile_precision",
    "compile_status",
    "sg_percent",
    "optimizations",
    "instance_count",
    "device_count",
    "input_type",
    "max_batch_size",
    "segments",
    "sparsity_ratio",
    "interact_info",
}


def workload(name: str) -> dict[str, Any]:
    return {
        "model": name,
        "test_perf": True,
        "test_accuracy": True,
        "test_numeric": True,
        "clients": 3,
        "iterations": 4,
        "batch_sizes": list(BATCHES),
        "data_percent": 100,
        "compile_only": False,
    }


def described(model: zoo.Published, path: Path, seq: int = SEQ) -> dict[str, Any]:
    """The model's description, as in the engine's model_zoo."""
    types = {"float32": "FLOAT32", "int64": "LONG", "bool": "BOOL"}
    feeds = model.feeds(1, seq)
    return {
        "model": model.task,
        "model_path": str(path),
        "framework": "Onnx",
        "framework_version": "1.6",
        "model_format": "onnx",
        "model_precision": "FP32",
        "inputs": ",".join(feeds),
        "outputs": ",".join(model.outputs),
        "input_shape": {name: list(value.shape) for name, value in feeds.items()},
        "input_type": ",".join(types[str(value.dtype)] for value in feeds.values()),
        "dataset_name": None,
        "max_batch_size": 4,
    }


@pytest.fixture
def general(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`general_perf` of a checkout with the backend in it, and the engine's working folder."""
    folder = checkout(tmp_path)
    install(folder)
    with engine_folder(folder, monkeypatch):
        yield folder


def task(
    general: Path, name: str, settings: dict[str, Any], built: onnx.ModelProto
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The workload and the description of a small model, at a path relative to the engine's."""
    model = small(name)
    (general / "backends" / "SPU" / FILE).write_text(json.dumps({model.task: settings}))
    path = Path("general_perf") / "model_zoo" / f"{name}.onnx"
    zoo.save(built, path)
    return workload(model.task), described(model, path)


def check_report(report: Report, precision: str) -> None:
    """Keys, types and plausible numbers of what the engine writes."""
    graph = report.json["Graph Compile"]
    assert graph["Compile Precision"] == precision
    assert graph["Subgraph Coverage"] == 100
    assert report.json["Instance Count"] == report.json["Device Count"] == 1
    assert "/" not in report.json["File"]
    rows = report.json["Performance"]
    assert [row["BS"] for row in rows] == BATCHES
    for row in rows:
        assert list(row) == ["BS", "QPS", "AVG Latency", "P99 Latency"]
        assert row["QPS"] > 0
        assert row["P99 Latency"] >= row["AVG Latency"] * 0.99 > 0


def distance(got: Array, want: Array) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def test_images(general: Path) -> None:
    model = small("resnet50")
    built = model.build(ratio=4)
    # Float64, as some pipelines leave it.
    images = model.feeds(8)["input_1.1"].astype(np.float64)
    want = run_onnx(built, {"input_1.1": images.astype(np.float32)})["softmax_tensor:0"]
    job, info = task(general, "resnet50", {"sparsity": 4}, built)
    report = run_task(job, info, Images("input_1.1", images, want.argmax(1).tolist()))
    check_report(report, "INT8")
    note = report.json["Graph Compile"]["Optimizations"]["pruning"]
    assert note.startswith("none: the model came with 70.8%")
    got = np.concatenate([logits(answer, "Onnx") for answer in report.answers])
    assert got.shape == (8, 11)
    assert distance(got[:, 1:], want) < 0.1
    for framework in ("Onnx", "Pytorch"):
        assert np.array_equal(logits(report.answers[0], framework), got[:2])


def test_questions(general: Path) -> None:
    model = small("roberta")
    built = model.build()
    feeds = model.feeds(7, SEQ)
    job, info = task(general, "roberta", {"sparsity": 2}, built)
    # The engine's token types of RoBERTa are zeros of float.
    report = run_task(job, info, Questions(feeds, floats=("token_type_ids.1",)))
    check_report(report, "INT8")
    optimizations = report.json["Graph Compile"]["Optimizations"]
    assert optimizations["pruning"].startswith("by magnitude to 1 in 2, without training")
    assert 0.49 < optimizations["weight sparsity"] <= 0.5
    want = run_onnx(magnitude(built, 2), feeds)
    starts, ends = zip(*(spans(answer) for answer in report.answers), strict=True)
    # Seven samples are three batches of two; what is left over is left.
    assert distance(np.concatenate(starts), want["start_logits"][:6]) < 0.06
    assert distance(np.concatenate(ends), want["end_logits"][:6]) < 0.06


@pytest.mark.slow
def test_made_up_data_in_mixed_precision(general: Path) -> None:
    model = small("conformer")
    built = model.build()
    job, info = task(general, "conformer", {"sparsity": 1, "precision": "mixed"}, built)
    report = run_task(job, info, Noise(info))
    check_report(report, "MixInt8bf16")
    data = Noise(info)
    data.rebatch(BATCHES[0])
    want = np.concatenate(
        [run_onnx(built, data.get_samples(i))["memory"].flatten() for i in range(4)]
    )
    got = np.concatenate([flattened(answer) for answer in report.answers])
    assert distance(got, want) < 0.06


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A small BERT's compile_info, and the backend's folder."""
    folder = tmp_path_factory.mktemp("compiled")
    model = small("bert")
    path = folder / "bert.onnx"
    zoo.save(model.build(), path)
    info = described(model, path, seq=16)
    (folder / FILE).write_text('{"*": {"precision": "fp32", "sparsity": 4, "warm_up": 0}}')
    configs = {"workload": workload(model.task), "model_info": info, "interact_info": {}}
    return CompileSide(folder).compile(configs), folder


def loaded(compiled: tuple[dict[str, Any], Path]) -> RuntimeSide:
    runtime = RuntimeSide(compiled[1])
    runtime.configs = compiled[0]
    runtime.workload = workload("bert-torch-fp32")
    runtime.model_info = {}
    runtime.load(2)
    return runtime


def test_compile_info_has_all_that_is_read(compiled: tuple[dict[str, Any], Path]) -> None:
    info, folder = compiled
    assert info.keys() >= KEYS
    assert info["compile_status"] == "success"
    assert info["compile_precision"] == "FP32"
    assert info["max_batch_size"] == 5  # the workload's largest, past the description's 4
    assert info["input_type"] == ["LONG", "LONG", "LONG"]
    assert 0.7 < info["sparsity_ratio"] <= 0.75
    (segment,) = info["segments"]
    assert segment["input_tensor_map"]["input_ids.1"] == [1, 16]
    assert segment["output_tensor_map"] == "start_logits,end_logits"
    package = Path(segment["compiled_model"][0]["compiled_obj"])
    assert package.is_absolute()
    assert package.is_relative_to(folder / BUILD / "bert-torch-fp32")
    json.dumps(info)


def test_a_batch_size_is_reloaded_without_loading_the_model(
    compiled: tuple[dict[str, Any], Path],
) -> None:
    runtime = loaded(compiled)
    feeds = small("bert").feeds(5, 16)
    first = runtime.predict({name: value[:2] for name, value in feeds.items()})
    model = runtime._model  # pyright: ignore[reportPrivateUsage]
    for size in (5, 1, 2):
        runtime.load(size)
        assert runtime.get_loaded_batch_size() == size
        assert runtime._model is model  # pyright: ignore[reportPrivateUsage]
        answer = runtime.predict({name: value[:size] for name, value in feeds.items()})
        assert list(answer) == ["start_logits", "end_logits"]
        assert answer["start_logits"].shape == (size, 16)
        same = min(size, 2)
        assert np.array_equal(answer["start_logits"][:same], first["start_logits"][:same])
    with pytest.raises(SpuError, match=r"a batch of 6 is not among the compiled sizes, 1 to 5"):
        runtime.load(6)


def test_lists_and_arrays_are_the_same_feeds(compiled: tuple[dict[str, Any], Path]) -> None:
    runtime = loaded(compiled)
    feeds = small("bert").feeds(2, 16)
    want = runtime.predict(feeds)
    lists = {name: value.tolist() for name, value in feeds.items()}
    for others in (
        lists,
        {**lists, "unknown": ["left"]},
        {name: value.astype(np.int32) for name, value in feeds.items()},
        {name: [row.astype(float) for row in value] for name, value in feeds.items()},
    ):
        got = runtime.predict(others)
        assert all(np.array_equal(got[name], want[name]) for name in want)


def test_feeds_that_do_not_fit(compiled: tuple[dict[str, Any], Path]) -> None:
    runtime = loaded(compiled)
    feeds: dict[str, Any] = dict(small("bert").feeds(2, 16))
    with pytest.raises(SpuError, match=r"'input_ids.1' is missing; the samples have 'attention"):
        runtime.predict({k: v for k, v in feeds.items() if k != "input_ids.1"})
    with pytest.raises(SpuError, match=r"'input_ids.1' is no array"):
        runtime.predict({**feeds, "input_ids.1": [[1, 2], [3]]})
    with pytest.raises(SpuError, match=r"float64 numbers that int64 cannot hold"):
        runtime.predict({**feeds, "input_ids.1": feeds["input_ids.1"] + 0.5})
    with pytest.raises(SpuError, match=r"'input_ids.1' has the dtype <U5"):
        runtime.predict({**feeds, "input_ids.1": [["token"] * 16] * 2})


def test_what_is_asked_before_load(tmp_path: Path) -> None:
    runtime = RuntimeSide(tmp_path)
    assert runtime.get_loaded_batch_size() == 0
    with pytest.raises(SpuError, match="no model is loaded"):
        runtime.predict({})
    with pytest.raises(SpuError, match="configs is not set"):
        runtime.load(1)


class Counting(RuntimeSide):
    """Counts the runs."""

    runs = 0

    def _run(self, model: Any, feeds: Any) -> Any:
        self.runs += 1
        return super()._run(model, feeds)


def test_the_warm_up_is_not_among_the_iterations(
    compiled: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    (tmp_path / FILE).write_text('{"bert-torch-fp32": {"warm_up": 3}}')
    runtime = Counting(tmp_path)
    runtime.configs, runtime.workload = compiled[0], workload("bert-torch-fp32")
    runtime.load(2)
    row = runtime.benchmark(Questions(small("bert").feeds(4, 16)))
    assert runtime.runs == 3 + 4
    assert row["BS"] == 2
    runtime.workload["iterations"] = 0
    with pytest.raises(SpuError, match="0 iterations"):
        runtime.benchmark(Questions(small("bert").feeds(4, 16)))


def test_too_few_samples_for_a_batch(compiled: tuple[dict[str, Any], Path]) -> None:
    runtime = loaded(compiled)
    features = small("bert").feeds(1, 16)
    with pytest.raises(SpuError, match="does not fill a batch of 2"):
        runtime.benchmark(Questions(features))
    asked: list[Any] = []

    class Faked(Questions):
        def get_fake_samples(
            self, size: int, shapes: dict[str, list[int]], types: list[str]
        ) -> dict[str, Array]:
            asked.append((size, shapes, types))
            return {name: np.zeros((size, *dims[1:]), np.int64) for name, dims in shapes.items()}

    assert runtime.benchmark(Faked(features))["BS"] == 2
    assert asked[0][0] == 2
    assert asked[0][1]["input_ids.1"] == [1, 16]
    assert asked[0][2] == ["LONG"] * 3


def test_a_row_is_made_of_the_wall_times(
    compiled: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = loaded(compiled)
    # Two readings a run and one before: three runs of 10, 30 and 20 ms, 5 ms between them.
    readings = iter([0.0, 0.0, 0.01, 0.015, 0.045, 0.05, 0.07])
    runtime.workload = {"iterations": 3}
    monkeypatch.setattr(runtime_side, "perf_counter", lambda: next(readings))
    assert runtime.benchmark(Questions(small("bert").feeds(4, 16))) == {
        "BS": 2,
        "QPS": round(6 / 0.07, 2),
        "AVG Latency": 20.0,
        "P99 Latency": 30.0,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"framework": "Tensorflow"}, "is a model of Tensorflow; use one of Pytorch or Onnx"),
        ({"model_path": "nowhere.onnx"}, "the model nowhere.onnx is missing"),
    ],
)
def test_models_that_are_no_models(tmp_path: Path, change: dict[str, str], message: str) -> None:
    path = tmp_path / "m.onnx"
    zoo.save(zoo.linear(), path)
    info = {"model": "m", "model_path": str(path), "framework": "Onnx", **change}
    with pytest.raises(SpuError, match=message):
        CompileSide(tmp_path).pre_optimize({"model_info": info})


def test_the_published_settings() -> None:
    for name in ("resnet50", "bert", "albert", "roberta"):
        assert published_settings(f"{name}-torch-fp32") == Settings("int8", 16)
    assert published_settings("conformer-encoder-onnx-fp32") == Settings("int8", 8)
    assert published_settings("another") == Settings("int8", 1)
    assert [Settings(one).calibration for one in ("int8", "mixed")] == [8, 1]
    assert Settings("mixed", samples=3).calibration == 3


def test_the_settings_of_a_task_come_after_those_of_all(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"*": {"sparsity": 2, "threads": 3}, "a": {"sparsity": 8}}')
    assert settings_of("a", tmp_path) == Settings("int8", 8, threads=3)
    assert settings_of("b", tmp_path) == Settings("int8", 2, threads=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "is not an object"),
        ('{"*": 3}', "'\\*' is not an object"),
        ('{"*": {"colour": 3}}', "there is no setting 'colour'; use precision, sparsity"),
        ('{"*": {"precision": "int4"}}', "precision is 'int4'; use one of fp32"),
        ('{"*": {"sparsity": 3}}', "sparsity is 3; use one of 1, 2, 4"),
        ('{"*": {"padding": "drop"}}', "padding is 'drop'; use compute or skip"),
        ('{"*": {"budget": "half"}}', "budget is 'half'; use a share"),
        ('{"*": {"samples": 0}}', "samples is 0; use a whole number from 1"),
        ('{"*": {"warm_up": true}}', "warm_up is True; use a whole number from 0"),
        ('{"*": {"threads": 0.5}}', "threads is 0.5; use a whole number from 1"),
    ],
)
def test_settings_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(SpuError, match=message):
        settings_of("a", tmp_path)


def test_a_pruned_model_is_not_pruned_again() -> None:
    dense = zoo.linear()
    pruned = pruned_at(dense, 8, "int8")
    assert density_of(pruned.model) == pytest.approx(0.125)
    assert pruned.sparsity == pytest.approx(0.875)
    again = pruned_at(pruned.model, 16, "int8")
    assert again.model == pruned.model
    assert again.note == "none: the model came with 87.5% of its weights zero"
    assert pruned_at(dense, 1, "int8").model == dense
    # Banks of 32 are kept where a layer may be computed in BF16.
    assert pruned_at(dense, 8, "mixed").model == magnitude(dense, 8, bank=32)


def test_rows_are_cut_off_whatever_batches_there_are() -> None:
    feeds = {"a": np.arange(10).reshape(5, 2)}
    kinds = {"a": np.float32}
    for batch, wanted in ((5, 3), (1, 3), (2, 3), (2, 9)):
        data = Questions(feeds)
        data.rebatch(batch)
        rows = list(first_rows(data, kinds, wanted))
        assert len(rows) == min(wanted, 5 // batch * batch)
        assert all(row["a"].shape == (1, 2) and row["a"].dtype == np.float32 for row in rows)
        assert np.array_equal(np.concatenate([row["a"] for row in rows]), feeds["a"][: len(rows)])
        assert data.batch == batch
    with pytest.raises(SpuError, match="have no 'b'; they have 'a'"):
        next(first_rows(Questions(feeds), {"b": np.float32}, 1))
    empty = Questions(feeds)
    empty.rebatch(6)
    with pytest.raises(SpuError, match="the data set has no sample"):
        next(first_rows(empty, kinds, 1))


def test_ranks_are_matched_by_axes_of_one() -> None:
    port = Port("x", "float32", ("batch", 3))
    for shape in ((2, 3), (2, 1, 3), (2, 3, 1), (2, 1, 3, 1)):
        assert match({"x": np.ones(shape)}, [port])["x"].shape == (2, 3)
    deep = Port("x", "float32", ("batch", 1, 3))
    assert match({"x": np.ones((1, 3))}, [deep])["x"].shape == (1, 1, 3)
    # What does not fit is left for the model to name.
    assert match({"x": np.ones((2, 2, 3))}, [port])["x"].shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("value", "kind"), [([300], "int8"), ([-1], "uint8"), ([2], "bool"), ([np.nan], "int64")]
)
def test_numbers_that_a_dtype_cannot_hold(value: list[Any], kind: str) -> None:
    with pytest.raises(SpuError, match=f"that {kind} cannot hold"):
        array_of("x", value, kind)


def test_numbers_that_it_can() -> None:
    for value, kind in (
        ([1.0, 0.0], "bool"),
        ([True], "int64"),
        ([7], "uint8"),
        ([0.1], "float32"),
    ):
        got = array_of("x", value, kind)
        assert got.dtype == kind
        assert np.array_equal(got, np.array(value, kind))
