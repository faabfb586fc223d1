"""What `spu-perf` reads, times and compares, piece by piece."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spu_ir.errors import SpuError
from spu_ir.perf.datasets import FakeDataset
from spu_ir.perf.difference import differences, relative_error
from spu_ir.perf.fake import BATCHES, fake_batch
from spu_ir.perf.figures import covered
from spu_ir.perf.measure import LEAST, WARM_UP, Timing, measure
from spu_ir.perf.network import build_network, needs_calibration
from spu_ir.perf.published import RESULTS
from spu_ir.perf.workloads import read_model_info, read_task, read_workload, task_names
from spu_ir.schedule.estimate import LayerEstimate
from spu_ir.schedule.work import Work
from spu_ir.tools.spu_perf import SUBCOMMANDS, main
from spu_ir.zoo import MODELS

ROOT = Path(__file__).parents[1]
DATA = ROOT / "spu_ir" / "perf" / "data"

TASKS = [
    "albert-torch-fp32",
    "bert-torch-fp32",
    "conformer-encoder-onnx-fp32",
    "resnet50-torch-fp32",
    "roberta-torch-fp32",
]

WORKLOAD_KEYS = {
    "model": str,
    "test_perf": bool,
    "test_accuracy": bool,
    "test_numeric": bool,
    "clients": int,
    "iterations": int,
    "batch_sizes": list,
    "data_percent": int,
    "compile_only": bool,
}


def test_the_tasks_are_those_that_are_published() -> None:
    assert task_names() == TASKS
    assert sorted(RESULTS) == TASKS
    assert sorted(model.task for model in MODELS.values()) == TASKS
    for model in MODELS.values():
        assert RESULTS[model.task].sparsity == model.sparsity
        assert RESULTS[model.task].precision == model.precision


@pytest.mark.parametrize("task", TASKS)
def test_workload_files_have_the_keys_and_types_of_bytemlperf(task: str) -> None:
    found: dict[str, Any] = json.loads((DATA / "workloads" / f"{task}.json").read_text())
    assert {key: type(value) for key, value in found.items()} == WORKLOAD_KEYS


@pytest.mark.parametrize("task", TASKS)
def test_model_files_name_the_ports_of_the_zoo(task: str) -> None:
    workload, info = read_task(task)
    (model,) = (model for model in MODELS.values() if model.task == task)
    feeds = model.feeds(1)
    assert workload.model == info.name == task
    assert {name: array.shape for name, array in feeds.items()} == dict(info.shapes)
    assert {name: array.dtype.name for name, array in feeds.items()} == dict(info.elements)
    assert set(info.outputs) == set(model.outputs)
    assert max(workload.batch_sizes) <= info.max_batch == model.bounds["batch"][1]


def write(path: Path, **fields: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fields))
    return path


WORKLOAD: dict[str, object] = {
    "model": "mine",
    "iterations": 3,
    "batch_sizes": [1, 2],
    "data_percent": 100,
}
MODEL: dict[str, object] = {
    "model": "mine",
    "model_path": "mine.onnx",
    "inputs": "a,mask",
    "outputs": "y",
    "input_shape": {"a": [1, 4], "mask": [1, 2]},
    "input_type": "FLOAT32,INT32",
    "dataset_name": None,
    "max_batch_size": 2,
}


def test_a_users_model_file_is_found_where_bytemlperf_has_it(tmp_path: Path) -> None:
    path = write(tmp_path / "general_perf" / "workloads" / "t.json", **WORKLOAD)
    with pytest.raises(SpuError, match="which has no file"):
        read_workload(path)
    model = write(tmp_path / "general_perf" / "model_zoo" / "mine.json", **MODEL)
    _, info = read_workload(path)
    assert info.path == model.parent / "mine.onnx"
    # As in ByteMLPerf, a path from the root of its tree.
    write(model, **{**MODEL, "model_path": "general_perf/model_zoo/regular/mine.onnx"})
    target = model.parent / "regular" / "mine.onnx"
    target.parent.mkdir()
    target.write_bytes(b"")
    assert read_model_info(model).path == target


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_sizes": []}, "'batch_sizes' has no batch size"),
        ({"batch_sizes": [0]}, "'batch_sizes' is missing or no whole number from 1"),
        ({"batch_sizes": "1,2"}, "'batch_sizes' is missing or no list"),
        ({"iterations": True}, "'iterations' is missing or no whole number"),
        ({"data_percent": 101}, "'data_percent' is more than 100"),
        ({"test_perf": 1}, "'test_perf' is neither true nor false"),
        ({"model": None}, "'model' is missing or no text"),
    ],
)
def test_a_wrong_workload_is_named(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(SpuError, match=said):
        read_workload(write(tmp_path / "t.json", **{**WORKLOAD, **changes}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input_type": "FLOAT32"}, "'input_type' is not one of"),
        ({"input_type": "FLOAT32,STRING"}, "'input_type' is not one of"),
        ({"input_shape": {"a": [1, 4]}}, "'input_shape' has other names"),
        ({"input_shape": {"a": [1, 4], "mask": [2, 2]}}, "axis 0, the batch, is not 1"),
        ({"inputs": "a,,mask"}, "'inputs' has an empty name"),
        ({"dataset_name": 3}, "'dataset_name' is missing or no text"),
        ({"preprocess": {"crop": 8, "mean": [0], "std": [0]}}, "'std' is not a positive number"),
    ],
)
def test_a_wrong_model_file_is_named(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(SpuError, match=said):
        read_model_info(write(tmp_path / "mine.json", **{**MODEL, **changes}))


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(SpuError, match="JSON"):
        read_workload(path)


def test_fake_data_is_that_of_bytemlperf(tmp_path: Path) -> None:
    given = {
        **MODEL,
        "inputs": "a,mask,ids,token_type_ids.1,flags",
        "input_type": "FLOAT32,INT32,LONG,LONG,BOOL",
        "input_shape": {
            "a": [1, 4],
            "mask": [1, 2],
            "ids": [1, 5],
            "token_type_ids.1": [1, 5],
            "flags": [1, 3],
        },
    }
    found = fake_batch(read_model_info(write(tmp_path / "mine.json", **given)), 7, 3)
    np.random.seed(7)
    random = np.random
    want = {
        "a": (random.random(size=[3, 4]) * 2 - 1).astype(np.float32),
        "mask": random.randint(low=0, high=2, size=[3, 2]).astype(np.int32),
        "ids": random.randint(low=0, high=1000, size=[3, 5]),
        "token_type_ids.1": np.zeros((3, 5), np.int64),
        "flags": np.zeros((3, 3), np.bool_),
    }
    assert list(found) == list(want)
    for name, array in want.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_fake_calibration_is_not_what_is_measured(tmp_path: Path) -> None:
    info = read_model_info(write(tmp_path / "mine.json", **MODEL))
    dataset = FakeDataset(info, "for the test")
    measured = [dataset.batch(index, 1).feeds["a"] for index in range(dataset.batches(1))]
    assert len(measured) == BATCHES
    for feeds in dataset.calibration():
        assert not any(np.array_equal(feeds["a"], array) for array in measured)


class Clock:
    """Time that only passes while the model runs: `costs` seconds a run, the last for ever."""

    def __init__(self, *costs: float):
        self.now = 0.0
        self.runs = 0
        self._costs: Iterator[float] = iter(costs)
        self._last = costs[-1]

    def __call__(self) -> float:
        return self.now

    def run(self) -> None:
        self.runs += 1
        self.now += next(self._costs, self._last)


def test_figures_are_completed_samples_over_wall_clock() -> None:
    clock = Clock(*[9.0] * 1, *[0.25, 0.5, 0.125, 0.125])
    timing = measure(clock.run, 8, iterations=4, seconds=10, clock=clock)
    assert timing.warm_up == 1  # which took 9 seconds, more than its share
    assert timing.latencies == (0.25, 0.5, 0.125, 0.125)
    assert timing.wall == 1.0
    assert timing.qps == 32
    assert timing.average == 0.25
    assert timing.p99 == 0.5


def test_p99_of_a_hundred_runs_is_the_slowest_and_of_more_is_not() -> None:
    times = [*[0.001] * 99, 1.0]
    assert Timing(1, 100, 1, tuple(times), 2.0).p99 == 1.0
    assert Timing(1, 200, 1, tuple([0.001] * 198 + [1.0, 2.0]), 5.0).p99 == 1.0


@pytest.mark.parametrize(
    ("cost", "iterations", "seconds", "runs"),
    [
        (0.5, 100, 8.0, 16),  # stops at the budget
        (4.0, 100, 8.0, LEAST),  # but not before there are enough
        (4.0, 3, 8.0, 3),  # or as many as were asked for
        (0.001, 100, 8.0, 100),
    ],
)
def test_a_batch_size_has_a_budget(cost: float, iterations: int, seconds: float, runs: int) -> None:
    clock = Clock(cost)
    timing = measure(clock.run, 1, iterations=iterations, seconds=seconds, clock=clock)
    assert len(timing.latencies) == runs
    assert clock.runs == runs + timing.warm_up
    assert 1 <= timing.warm_up <= WARM_UP


def test_differences_are_by_bytemlperfs_formulas() -> None:
    want = np.array([1.0, -2.0, 0.0, np.nan, 4.0], np.float32)
    got = np.array([1.5, -1.0, 0.25, 3.0, np.inf], np.float32)
    absolute = np.array([0.5, 1.0, 0.25, 3.0, 4.0])  # what is not finite is 0
    relative = np.array([0.5, 0.5, 0.25, 3.0, 1.0])  # where the reference is 0, by 1
    assert differences(want, got) == {
        "Mean Diff": round(absolute.mean(), 5),
        "Std Diff": round(absolute.std(), 5),
        "Max Diff": 4.0,
        "Max Rel-Diff": 3.0,
        "Mean Rel-Diff": round(relative.mean(), 5),
    }
    assert relative_error(np.array([3.0, 4.0]), np.array([3.0, 3.0])) == 0.2
    assert relative_error(np.zeros(2), np.ones(2)) == 1


def layer(unit: str, start: float, end: float) -> LayerEstimate:
    return LayerEstimate("l", "op", unit, "int8", start, end, "", {}, Work(), {}, 0.0)


def test_the_share_of_products_counts_overlap_once() -> None:
    layers = (layer("spu", 1, 4), layer("vpu", 3, 9), layer("spu", 2, 6), layer("spu", 8, 11))
    assert covered(layers, "spu") == (5 + 3) / 10
    assert covered((), "spu") == 0


def test_random_weights_are_pruned_as_published_and_say_so(tmp_path: Path) -> None:
    _, info = read_task("albert-torch-fp32")
    network = build_network(info, None, None)
    assert "random weights from a seed" in network.about
    assert "16x" in network.about
    assert 0.93 < network.weight_sparsity < 0.9376  # the head stays dense
    assert not needs_calibration(network.model, "int8")
    path = tmp_path / "weights.bin"
    path.write_bytes(b"")
    with pytest.raises(SpuError, match="neither ONNX, TorchScript nor safetensors"):
        build_network(info, path, None)
    with pytest.raises(SpuError, match="give --model FILE"):
        build_network(replace(info, name="mine"), None, None)


@pytest.mark.export
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TorchScript itself is
def test_torchscript_is_exported(tmp_path: Path) -> None:
    import torch

    given = {"inputs": "a", "input_type": "FLOAT32", "input_shape": {"a": [1, 64]}}
    info = read_model_info(write(tmp_path / "mine.json", **{**MODEL, **given}))
    network = torch.nn.Linear(64, 8)
    path = tmp_path / "mine.pt"
    torch.jit.trace(network, torch.zeros(2, 64)).save(str(path))
    found = build_network(info, path, 8)
    assert [node.name for node in found.model.graph.input] == ["a"]
    assert [node.name for node in found.model.graph.output] == ["y"]
    assert found.weight_sparsity == 7 / 8
    with pytest.raises(SpuError, match="there is no file"):
        build_network(info, tmp_path / "other.pt", None)


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_sub_commands_have_a_main(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(import_module(SUBCOMMANDS[name]).main)
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    assert f"spu-perf {name}" in capsys.readouterr().out


def test_lists_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--show_task_list", "--show_hardware_list"]) == 0
    assert capsys.readouterr().out.split() == [*TASKS, "SPU"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "there is no task"),
        (["--task", "x"], "there is no task 'x'"),
        (["--task", TASKS[0], "--hardware_type", "GPU"], "the hardware 'GPU' is not known"),
        (["--task", TASKS[0], "--batch-sizes", "1,x"], "--batch-sizes '1,x'"),
        (["--task", TASKS[0], "--batch-sizes", "65"], "batch size 65 is more than"),
        (["--task", TASKS[0], "--iterations", "0"], "--iterations 0 runs nothing"),
        (["--task", TASKS[0], "--precision", "int4"], "int4"),
        (["--task", TASKS[0], "--target", "s31"], "s31"),
        (["--task", TASKS[0], "--batch-sizes", "1" * 5000], "are no numbers"),
        (["--task", TASKS[0], "--sparsity", "3"], "sparsity 3 is not known"),
        (["--task", TASKS[0], "--seconds", "0"], "--seconds 0 is no time"),
        (["--workload", "/no/such.json"], "cannot read '/no/such.json'"),
        (["--workload", "/no/such.json", "--task", "x"], "name different tasks"),
    ],
)
def test_wrong_flags_are_one_error(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1
