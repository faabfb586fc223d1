"""
A stand-in for ByteMLPerf's engine and data sets, written from its interface.

`checkout` makes the folders that matter to a backend; `run_task` does what the engine does with
one: the same calls in the same order, the same keys read from what comes back.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[Any]

BASES = """
class {0}(object):
    def __init__(self):
        self.hardware_type = 'UnKnown'
        self.need_reload = False
        self.need_quant = False
    def version(self):
        raise NotImplementedError("{0}:version")
"""


def checkout(root: Path) -> Path:
    """The folders of a checkout; returns `general_perf`."""
    general = root / "ByteMLPerf" / "byte_infer_perf" / "general_perf"
    for folder in ("core", "backends/SPU", "workloads", "model_zoo"):
        (general / folder).mkdir(parents=True)
    (general / "core" / "perf_engine.py").write_text("")
    for name in ("CompileBackend", "RuntimeBackend"):
        base = {"CompileBackend": "compile_backend", "RuntimeBackend": "runtime_backend"}[name]
        (general / "backends" / f"{base}.py").write_text(BASES.format(name))
    return general


@contextmanager
def engine_folder(general: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where the engine works, and from where it imports."""
    monkeypatch.chdir(general.parent)
    monkeypatch.syspath_prepend(str(general.parent))
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "general_perf"]:
            del sys.modules[name]


def backend_class(side: str, hardware: str = "SPU") -> Any:
    """The class of a backend by the engine's naming; `side` is compile or runtime."""
    module = f"general_perf.backends.{hardware}.{side}_backend_{hardware.lower()}"
    name = f"{side.capitalize()}Backend{hardware}"
    return getattr(importlib.import_module(module), name)


class Images:
    """Images and labels; batches start at one and hold what fills them."""

    def __init__(self, name: str, images: Array, labels: Sequence[int]):
        self.input, self.images, self.labels = name, images, labels
        self.batch = 1

    def get_batch_count(self) -> int:
        return len(self.images) // self.batch

    def rebatch(self, new_bs: int, skip: bool = True) -> None:
        self.batch = new_bs

    def get_samples(self, sample_id: int) -> tuple[dict[str, Any], list[int]]:
        if not 0 <= sample_id < self.get_batch_count():
            raise ValueError("Your Input ID is out of range")
        rows = slice(sample_id * self.batch, (sample_id + 1) * self.batch)
        return {self.input: self.images[rows]}, list(self.labels[rows])


class Questions:
    """Token lists; before `rebatch` all of them are one batch, as the engine's are."""

    mask_name = "attention_mask.1"

    def __init__(self, features: Mapping[str, Array], floats: Sequence[str] = ()):
        self.features, self.floats = features, floats
        self.items = len(next(iter(features.values())))
        self.batch = self.items

    def get_batch_count(self) -> int:
        return self.items // self.batch

    def rebatch(self, new_bs: int, skip: bool = True) -> None:
        self.batch = new_bs

    def get_samples(self, sample_id: int) -> tuple[dict[str, Any], list[int]]:
        """Lists of lists, but lists of float arrays for what `floats` names."""
        if not 0 <= sample_id < self.get_batch_count():
            raise ValueError("Your Input ID is out of range")
        batch: dict[str, Any] = defaultdict(list)
        for row in range(sample_id * self.batch, (sample_id + 1) * self.batch):
            for name, values in self.features.items():
                one = values[row].astype(float) if name in self.floats else values[row].tolist()
                batch[name].append(one)
        return batch, []


class Noise:
    """Feeds alone, without labels: as many as asked for, by the model's description."""

    def __init__(self, info: Mapping[str, Any]):
        self.info, self.batch = info, 1

    def get_batch_count(self) -> int:
        return 4

    def rebatch(self, new_bs: int, skip: bool = True) -> None:
        self.batch = new_bs

    def get_samples(self, sample_id: int) -> dict[str, Any]:
        random = np.random.default_rng(sample_id)
        feeds: dict[str, Any] = {}
        kinds = self.info["input_type"].split(",")
        for (name, shape), kind in zip(self.info["input_shape"].items(), kinds, strict=True):
            size = (self.batch, *shape[1:])
            feeds[name] = (
                np.zeros(size, bool)
                if kind == "BOOL"
                else (random.random(size) * 2 - 1).astype(np.float32)
            )
        return feeds


@dataclass
class Report:
    """What the engine would write, and the answers that its checkers collected."""

    json: dict[str, Any]
    answers: list[dict[str, Array]] = field(default_factory=list[dict[str, Array]])


def run_task(workload: dict[str, Any], info: dict[str, Any], dataset: Any) -> Report:
    """One task from the classes of the backend on the path, up to the report."""
    compiler, runtime = backend_class("compile")(), backend_class("runtime")()
    configs: dict[str, Any] = {"workload": workload, "model_info": info}
    questions = compiler.get_interact_profile(configs)
    assert len(questions) == 0, "a question would open a dialogue"
    configs["interact_info"] = {}
    configs = compiler.pre_optimize(configs)
    compiler.segment(configs)
    best = compiler.get_best_batch_size()
    if isinstance(best, list):
        configs["workload"]["batch_sizes"] = best
    compiled = compiler.compile(configs, dataset)
    graph = {
        "Compile Precision": compiled["compile_precision"],
        "Subgraph Coverage": compiled["sg_percent"],
        "Optimizations": compiled["optimizations"],
    }
    report = Report(
        {
            "Instance Count": compiled["instance_count"],
            "Device Count": compiled["device_count"],
            "Graph Compile": graph,
        }
    )
    runtime.configs, runtime.workload, runtime.model_info = compiled, workload, info
    runtime.load(workload["batch_sizes"][0])
    dataset.rebatch(runtime.get_loaded_batch_size())
    for number in range(dataset.get_batch_count()):
        sample = dataset.get_samples(number)
        feeds = sample[0] if isinstance(sample, tuple) else sample
        report.answers.append(runtime.predict(feeds))
    assert not runtime.is_qs_mode_supported()
    assert runtime.generate_qs_config() is None
    rows: list[Any] = []
    for size in configs["workload"]["batch_sizes"]:
        runtime.load(size)
        rows.append(runtime.benchmark(dataset))
    report.json["Performance"] = rows
    report.json["File"] = "result-" + compiled["compile_precision"].lower() + ".json"
    report.json = json.loads(json.dumps(report.json))
    return report


def logits(result: Any, framework: str) -> Array:
    """What the checker for images reads: the first output, a column of zeros before it."""
    if framework == "Onnx":
        rows = list(result[0]) if isinstance(result, list) else list(result[next(iter(result))])
    elif isinstance(result, tuple):
        rows = result[0].cpu().numpy()
    else:
        rows = result[next(iter(result))]
    return np.array([np.insert(row, 0, 0) for row in rows])


def spans(result: Any) -> tuple[list[list[float]], list[list[float]]]:
    """What the checker for questions reads: start and end logits, as lists of floats."""
    if isinstance(result, dict):
        starts, ends = result["start_logits"], result["end_logits"]
    else:
        starts, ends = result[0], result[1]
    return _floats(starts), _floats(ends)


def _floats(rows: Any) -> list[list[float]]:
    return [[float(x) for x in row.flat] for row in rows]


def flattened(result: Any) -> list[float]:
    """What the checker for made-up data reads: all outputs in the order of their names."""
    return [float(x) for name in sorted(result) for x in result[name].flatten()]
