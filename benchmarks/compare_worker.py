"""
One engine with one model, in a process of its own.

Started by compare_process.py with the Python of the engine's environment, so it needs numpy and
that engine only. Orders come as lines of JSON on stdin, answers go as lines of JSON to what was
stdout; what engines print goes to stderr. It ends with its parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Feeds: TypeAlias = dict[str, Array]
Order: TypeAlias = dict[str, Any]

PR_SET_PDEATHSIG = 1
MAX_RUNS = 200
"""Most runs of one round."""


def module(name: str) -> Any:
    # None of the engines has type information, and only one of them is installed here.
    return import_module(name)


class Engine(Protocol):
    """What the orders are carried out by; `load` comes first and gives the settings chosen."""

    def load(self, order: Order, feeds: Feeds) -> dict[str, Any]: ...
    def run(self) -> dict[str, Array]: ...
    def throughput(self) -> float: ...


class Plain(ABC):
    """Answers one batch after the other."""

    @abstractmethod
    def run(self) -> dict[str, Array]:
        """The outputs of one batch, by name."""

    def throughput(self) -> float:
        """The seconds that a batch takes when many are waiting."""
        start = time.perf_counter()
        self.run()
        return time.perf_counter() - start


class Spu(Plain):
    """A package that `CompiledModel.save` wrote."""

    def load(self, order: Order, feeds: Feeds) -> dict[str, Any]:
        self.feeds = feeds
        self.model = module("spu_ir").load(order["model"], threads=order["threads"])
        return {"level": self.model.level, "threads": self.model.threads}

    def run(self) -> dict[str, Array]:
        return self.model.run(self.feeds)


class OnnxRuntime(Plain):
    """An ONNX file in ONNX Runtime, with its dims fixed."""

    def load(self, order: Order, feeds: Feeds) -> dict[str, Any]:
        runtime = module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = order["threads"]
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        for name, value in order["extents"].items():
            options.add_free_dimension_override_by_name(name, value)
        self.session = runtime.InferenceSession(
            order["model"], options, providers=["CPUExecutionProvider"]
        )
        self.names: list[str] = [output.name for output in self.session.get_outputs()]
        self.feeds = feeds
        return {"intra_op_num_threads": order["threads"], "optimisation": "all"}

    def run(self) -> dict[str, Array]:
        return dict(zip(self.names, self.session.run(self.names, self.feeds), strict=True))


class OpenVino:
    """An OpenVINO IR, with its shapes fixed, under the performance hint that suits the batch."""

    def load(self, order: Order, feeds: Feeds) -> dict[str, Any]:
        openvino = module("openvino")
        core = openvino.Core()
        model = core.read_model(order["model"])
        model.reshape({name: list(array.shape) for name, array in feeds.items()})
        self.hint: str = order["hint"]
        config = {
            "PERFORMANCE_HINT": self.hint.upper(),
            "INFERENCE_NUM_THREADS": order["threads"],
            **order["options"],
        }
        self.feeds = feeds
        self.model = core.compile_model(model, "CPU", config)
        self.request = self.model.create_infer_request()
        self.names: list[str] = [output.any_name for output in self.model.outputs]
        self.requests = int(self.model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self.queue = openvino.AsyncInferQueue(self.model, self.requests)
        asked = ("PERFORMANCE_HINT", "NUM_STREAMS", "INFERENCE_NUM_THREADS")
        found = {name: str(self.model.get_property(name)) for name in asked}
        precision = self.model.get_property("INFERENCE_PRECISION_HINT")
        return {**found, "INFERENCE_PRECISION_HINT": precision.get_type_name()}

    def run(self) -> dict[str, Array]:
        results = self.request.infer(self.feeds)
        return {name: np.array(results[name]) for name in self.names}

    def throughput(self) -> float:
        """With as many requests in flight as it asks for."""
        if self.requests == 1:
            start = time.perf_counter()
            self.request.infer(self.feeds)
            return time.perf_counter() - start
        count = 2 * self.requests
        start = time.perf_counter()
        for _ in range(count):
            self.queue.start_async(self.feeds)
        self.queue.wait_all()
        return (time.perf_counter() - start) / count


class DeepSparse(Plain):
    """An ONNX file in DeepSparse's engine, on its scheduler for one request at a time."""

    def load(self, order: Order, feeds: Feeds) -> dict[str, Any]:
        deepsparse = module("deepsparse")
        self.engine = deepsparse.Engine(
            order["model"], batch_size=order["batch"], num_cores=order["threads"]
        )
        self.names: list[str] = list(self.engine.output_names)
        self.inputs = [np.ascontiguousarray(feeds[name]) for name in self.engine.input_names]
        return {
            "num_cores": int(self.engine.num_cores),
            "scheduler": str(self.engine.scheduler),
            "fraction_of_supported_ops": float(self.engine.fraction_of_supported_ops),
        }

    def run(self) -> dict[str, Array]:
        return dict(zip(self.names, self.engine.run(self.inputs), strict=True))


ENGINES: dict[str, Callable[[], Engine]] = {
    "spu": Spu,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "deepsparse": DeepSparse,
}
"""Engines by the name that the first argument gives."""

PACKAGES = {
    "spu": ("spu-ir",),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino", "nncf"),
    "deepsparse": ("deepsparse",),
}
"""The packages whose versions a report names."""

MODULES = {"spu": "spu_ir.runtime.model"}
"""The module with all that an engine imports, where it has not its own name."""


def versions(engine: str) -> dict[str, str]:
    """The versions of an engine's packages, without those that are not there."""
    found: dict[str, str] = {}
    for name in PACKAGES.get(engine, (engine,)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if engine == "spu":
        found.setdefault("spu-ir", str(module("spu_ir").__version__))
    return found


def peak_memory() -> int:
    """Bytes of the most memory that this process has had resident (VmHWM)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")


class Worker:
    """Carries out orders, each a method of the same name."""

    def __init__(self, name: str, engine: Engine):
        self.name = name
        self.engine = engine
        self.baseline = peak_memory()

    def load(self, order: Order) -> dict[str, Any]:
        """Load the model and answer once; importing the engine is timed apart."""
        with np.load(order["feeds"]) as archive:
            feeds = {key: archive[key] for key in archive.files}
        start = time.perf_counter()
        module(MODULES.get(self.name, self.name))
        imported = time.perf_counter()
        settings = self.engine.load(order, feeds)
        loaded = time.perf_counter()
        self.engine.run()
        answered = time.perf_counter()
        return {
            "settings": settings,
            "versions": versions(self.name),
            "python": sys.version.split()[0],
            "affinity": sorted(os.sched_getaffinity(0)),
            "import_seconds": imported - start,
            "load_seconds": loaded - imported,
            "first_seconds": answered - loaded,
        }

    def run(self, order: Order) -> dict[str, Any]:
        """Run once and write the outputs to a file."""
        with Path(order["outputs"]).open("wb") as file:
            np.savez(file, allow_pickle=False, **self.engine.run())
        return {}

    def time(self, order: Order) -> dict[str, Any]:
        """Seconds of runs until `seconds` have passed, one at least, after a run to warm up."""
        self.engine.run()
        end = time.perf_counter() + order["seconds"]
        found: list[float] = []
        while not found or (time.perf_counter() < end and len(found) < MAX_RUNS):
            if order["hint"] == "throughput":
                found.append(self.engine.throughput())
                continue
            start = time.perf_counter()
            self.engine.run()
            found.append(time.perf_counter() - start)
        return {"seconds": found}

    def memory(self, _: Order) -> dict[str, Any]:
        """Peak memory, and that of Python and numpy alone."""
        return {"peak_bytes": peak_memory(), "baseline_bytes": self.baseline}


def main(engines: Mapping[str, Callable[[], Engine]] = ENGINES) -> None:
    """Carry out the orders of stdin with one of `engines`."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    name, processors, policy = sys.argv[1:4]
    os.sched_setaffinity(0, {int(number) for number in processors.split(",")})
    if policy == "realtime":
        # Threads that the engine makes inherit it. Equals take turns: one may wait for another.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    worker = Worker(name, engines[name]())
    for line in sys.stdin:
        order: Order = json.loads(line)
        try:
            answer = getattr(worker, order["do"])(order)
        except Exception as error:
            # Whatever an engine refuses a model with is a finding, told to the parent.
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
