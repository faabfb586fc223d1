"""`RuntimeBackendSPU` for the engine: runs and times what `CompileSide` compiled."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from spu_ir._version import __version__
from spu_ir.errors import SpuError

from .samples import Array, DataLoader, Feeds, feeds_of, match
from .settings import settings_of

if TYPE_CHECKING:
    from spu_ir.runtime.model import CompiledModel

log = logging.getLogger("BackendSPU")


class RuntimeSide:
    """
    What the engine asks of a runtime backend.

    It sets `configs` (what `CompileSide.compile` returned), `workload` and `model_info`, and then
    calls `load`, `get_loaded_batch_size`, `predict` through the accuracy checker, and for every
    batch size `load` and `benchmark`.
    """

    configs: Mapping[str, Any] | None
    workload: Mapping[str, Any] | None
    model_info: Mapping[str, Any] | None

    def __init__(self, folder: Path):
        """`folder` is the backend's, for `spu_ir.json`."""
        super().__init__()
        self.hardware_type = "SPU"
        self.need_reload = False
        self.need_quant = False
        self.folder = folder
        self.configs = self.workload = self.model_info = None
        self._model: CompiledModel | None = None
        self._loaded = ""
        self._batch_size = 0

    def version(self) -> str:
        """That of spu_ir."""
        return __version__

    def load(self, batch_size: int) -> None:
        """
        Get ready for batches of `batch_size`.

        The package is loaded once: one program runs every batch size up to its bound. Raises
        SpuError for a size past that, and as `spu_ir.load` does.
        """
        from spu_ir import load

        configs = self._given("configs", self.configs)
        largest = configs["max_batch_size"]
        if not 1 <= batch_size <= largest:
            raise SpuError(
                f"a batch of {batch_size} is not among the compiled sizes, 1 to {largest}",
                remedy="raise max_batch_size of the model's description, and compile again",
            )
        path = configs["segments"][0]["compiled_model"][0]["compiled_obj"]
        if self._model is None or path != self._loaded:
            threads = settings_of(configs["model"], self.folder).threads
            self._model, self._loaded = load(path, threads=threads), path
        self._batch_size = batch_size

    def get_loaded_batch_size(self) -> int:
        """What `load` was called with last; 0 before."""
        return self._batch_size

    def predict(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """
        Run a batch: arrays by output name, in the order of the task's description.

        `feeds` are lists of lists, arrays or tensors by input name, of a dtype that the model's
        can hold; inputs that the model does not have are left. Raises SpuError for those that do
        not fit, and before `load`.
        """
        model = self._ready()
        return self._run(model, match(feeds, model.inputs))

    def benchmark(self, dataloader: DataLoader) -> dict[str, Any]:
        """
        Time `iterations` batches of the loaded size, one after the other, after a warm-up.

        Samples are the data set's where it fills a batch, and its fake ones where it does not. A
        run is timed from the samples as the data set gives them to arrays of results, by the wall
        clock; the row is made of that as `spu-perf` makes its own (latencies in milliseconds).
        """
        from spu_ir.perf.measure import Timing
        from spu_ir.perf.report import performance

        model = self._ready()
        iterations = int(self._given("workload", self.workload)["iterations"])
        if iterations < 1:
            raise SpuError(f"{iterations} iterations are none to time", remedy="ask for at least 1")
        batches = self._batches(dataloader, min(iterations, 4))
        warm_up = settings_of(self._task(), self.folder).warm_up
        for index in range(warm_up):
            self._run(model, match(batches[index % len(batches)], model.inputs))
        seconds: list[float] = []
        first = end = perf_counter()
        for index in range(iterations):
            start = perf_counter()
            self._run(model, match(batches[index % len(batches)], model.inputs))
            end = perf_counter()
            seconds.append(end - start)
        timing = Timing(self._batch_size, iterations, warm_up, tuple(seconds), end - first)
        report = performance(timing)
        log.info("batch size %d: %s QPS, average %s ms, P99 %s ms", *report.values())
        return report

    def is_qs_mode_supported(self) -> bool:
        """No: the engine's other way to measure does nothing yet."""
        return False

    def generate_qs_config(self) -> None:
        """None, as there is no such mode."""

    def _run(self, model: CompiledModel, feeds: Feeds) -> dict[str, Array]:
        results = model.run(feeds)
        declared = self._given("configs", self.configs)["segments"][0]["output_tensor_map"]
        missing = [name for name in declared.split(",") if name not in results]
        if missing:
            raise SpuError(
                f"the model has no output {missing[0]!r}",
                remedy=f"its description may name {', '.join(results)}",
            )
        return {name: results[name] for name in declared.split(",")}

    def _batches(self, loader: DataLoader, count: int) -> list[Mapping[str, Any]]:
        """Up to `count` batches of the loaded size."""
        loader.rebatch(self._batch_size)
        found = min(loader.get_batch_count(), count)
        if found:
            return [feeds_of(loader.get_samples(index)) for index in range(found)]
        log.warning("the data set has no batch of %d samples: fake ones instead", self._batch_size)
        configs = self._given("configs", self.configs)
        fake: Any = getattr(loader, "get_fake_samples", None)
        if fake is None:
            raise SpuError(
                f"the data set does not fill a batch of {self._batch_size}",
                remedy="use more samples or smaller batches",
            )
        shapes = configs["segments"][0]["input_tensor_map"]
        return [fake(self._batch_size, shapes, configs["input_type"])]

    def _ready(self) -> CompiledModel:
        if self._model is None:
            raise SpuError("no model is loaded", remedy="call load(batch_size) first")
        return self._model

    def _task(self) -> str:
        return self._given("configs", self.configs)["model"]

    def _given(self, name: str, value: Mapping[str, Any] | None) -> Mapping[str, Any]:
        if value is None:
            raise SpuError(f"{name} is not set", remedy="the engine sets it before load")
        return value
