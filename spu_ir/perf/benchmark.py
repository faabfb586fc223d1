"""One task from its files to its report: compile, accuracy, difference to FP32, speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spu_ir.errors import SpuError
from spu_ir.quantisation import Precision, Progress
from spu_ir.targets import Target

from .datasets import Array, Dataset, open_dataset
from .difference import differences, relative_error
from .figures import Modelled, host_share, mac_ratio, modelled
from .measure import Timing, measure
from .network import Network, build_network, check_sparsity, compile_network
from .published import RESULTS
from .workloads import ModelInfo, Workload

if TYPE_CHECKING:
    from spu_ir.runtime.model import CompiledModel

REFERENCE_SHARE = 4
"""The FP32 reference may run for so many times as long as a batch size may take."""


@dataclass(frozen=True)
class Settings:
    """What a user chose."""

    model: Path | None = None
    """An ONNX file or weights; None for the file that the model's JSON names, or random weights."""
    data: Path | None = None
    target: str = "s30"
    precision: Precision = "int8"
    sparsity: int | None = None
    threads: int | None = None
    seconds: float = 6.0
    """For the runs of a batch size, once there are enough to tell (see `measure`)."""
    compile_only: bool = False


@dataclass
class Numeric:
    """The model's outputs beside the reference's, on the first samples of the data set."""

    samples: int = 0
    want: list[Array] = field(default_factory=list[Array])
    got: list[Array] = field(default_factory=list[Array])

    def figures(self) -> dict[str, float]:
        """ByteMLPerf's. Empty where nothing was compared."""
        if not self.want:
            return {}
        return differences(*self.arrays())

    def error(self) -> float:
        """The relative L2 error of all outputs together."""
        return relative_error(*self.arrays())

    def arrays(self) -> tuple[Array, Array]:
        """The reference's numbers and the model's, `[n]` each."""
        return np.concatenate(self.want), np.concatenate(self.got)


@dataclass
class Result:
    """All that was found out about a task; `report` makes the report of it."""

    workload: Workload
    info: ModelInfo
    settings: Settings
    network: Network
    dataset: Dataset
    model: CompiledModel
    compile_seconds: float
    mac_ratio: float
    """Multiply-accumulates of the unpruned network over those that run."""
    modelled: Modelled
    """What the chosen card does."""
    card_share: float
    """The share of the card's time that products take, by the device model."""
    accuracy: dict[str, float] = field(default_factory=dict[str, float])
    data_percent: float = 0
    """Of the batches of the data set, that accuracy is over."""
    host_share: float | None = None
    """That of this machine's; None where speed is not measured."""
    numeric: Numeric | None = None
    timings: list[Timing] = field(default_factory=list[Timing])

    @property
    def compile_only(self) -> bool:
        """Whether nothing was measured, as asked for."""
        return self.settings.compile_only or self.workload.compile_only


def run_task(
    workload: Workload,
    info: ModelInfo,
    settings: Settings,
    progress: Progress,
    clock: Callable[[], float] = time.perf_counter,
) -> Result:
    """
    Compile the model of a task and measure what its workload asks for.

    Samples that cannot be read are in the data set's `unreadable` afterwards. Raises SpuError for
    what is wrong with files or settings.
    """
    check_sparsity(settings.sparsity)
    Target.load(settings.target)
    if max(workload.batch_sizes) > info.max_batch:
        raise SpuError(
            f"batch size {max(workload.batch_sizes)} is more than the model's "
            f"max_batch_size, {info.max_batch}"
        )
    progress("read the data", 0, 1)
    dataset = open_dataset(info, settings.data)
    progress("build the model", 0, 1)
    network = build_network(info, settings.model, settings.sparsity)

    def compiled(precision: Precision, on_card: bool) -> CompiledModel:
        return compile_network(
            network,
            info,
            precision,
            calibration=dataset.calibration,
            max_batch=info.max_batch,
            target=settings.target,
            threads=settings.threads,
            on_card=on_card,
            progress=progress,
        )

    start = clock()
    model = compiled(settings.precision, on_card=True)
    seconds = clock() - start
    published = RESULTS.get(workload.model)
    batch = published.batch if published else info.max_batch
    card, share = modelled(model, settings.target, batch)
    result = Result(
        workload,
        info,
        settings,
        network,
        dataset,
        model,
        seconds,
        mac_ratio=mac_ratio(model, batch),
        modelled=card,
        card_share=share,
    )
    if result.compile_only:
        return result
    if workload.test_accuracy or workload.test_numeric:
        reference = compiled("fp32", on_card=False) if workload.test_numeric else None
        _judge(result, reference, progress, clock)
    if workload.test_perf:
        for number, batch in enumerate(workload.batch_sizes):
            progress(f"batch size {batch}", number, len(workload.batch_sizes))
            feeds = dataset.filled(batch)
            result.timings.append(
                measure(
                    lambda feeds=feeds: model.run(feeds),
                    batch,
                    iterations=workload.iterations,
                    seconds=settings.seconds,
                    clock=clock,
                )
            )
        progress("profile", 0, 1)
        result.host_share = host_share(model, dataset.filled(workload.batch_sizes[0]))
    return result


def _judge(
    result: Result,
    reference: CompiledModel | None,
    progress: Progress,
    clock: Callable[[], float],
) -> None:
    """Run the data set through the model, and its first batches through the reference too."""
    dataset, size = result.dataset, result.workload.batch_sizes[0]
    total = dataset.batches(size)
    wanted = max(1, total * result.workload.data_percent // 100)
    numeric = Numeric() if reference is not None else None
    left = REFERENCE_SHARE * result.settings.seconds
    # Fake data has nothing to be right about: what is not compared need not run.
    judged = result.workload.test_accuracy and dataset.judges
    done = 0
    for index in range(wanted):
        compares = reference is not None and left > 0
        if not (judged or compares):
            break
        progress("accuracy" if judged else "difference to FP32", index, wanted)
        batch = dataset.batch(index, size)
        done += 1
        if not batch.keys:
            continue
        outputs = result.model.run(batch.feeds)
        if judged:
            dataset.add(batch, outputs)
        if reference is not None and numeric is not None and compares:
            start = clock()
            want = reference.run(batch.feeds)
            left -= clock() - start
            numeric.samples += len(batch.keys)
            numeric.want.append(dataset.compared(batch, want))
            numeric.got.append(dataset.compared(batch, outputs))
    if result.workload.test_accuracy:
        result.accuracy = dataset.accuracy()
    result.data_percent = result.workload.data_percent if done == wanted else 100 * done / total
    result.numeric = numeric
