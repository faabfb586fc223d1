"""Data sets: what is measured on, by batches, and what the answers are worth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from spu_ir.errors import SpuError

from .workloads import ModelInfo

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Feeds: TypeAlias = dict[str, Array]
Outputs: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True)
class Batch:
    """Some samples as inputs of a model; `keys` are their numbers in the data set, in order."""

    feeds: Feeds
    keys: tuple[int, ...]


class Dataset(ABC):
    """
    Samples in batches, and the accuracy of the outputs that were added for them.

    `name` is ByteMLPerf's, `about` says in words what the samples are.
    """

    name: str
    about: str

    judges = True
    """Whether an answer can be right or wrong."""

    def __init__(self) -> None:
        self.unreadable: list[str] = []
        """Samples that could not be read, each with the cause; they are in no batch."""

    @abstractmethod
    def batches(self, size: int) -> int:
        """How many batches of `size` samples there are; the last may be smaller."""

    @abstractmethod
    def batch(self, index: int, size: int) -> Batch:
        """Batch `index` of those of `size`; without what cannot be read, so it may be empty."""

    @abstractmethod
    def calibration(self) -> list[Feeds]:
        """A few samples to choose INT8 ranges on, one a feed."""

    @abstractmethod
    def add(self, batch: Batch, outputs: Outputs) -> None:
        """Take the model's outputs for a batch into the accuracy."""

    @abstractmethod
    def accuracy(self) -> dict[str, float]:
        """The metrics over all that was added, by ByteMLPerf's names. Empty without any sample."""

    def compared(self, batch: Batch, outputs: Outputs) -> Array:
        """The numbers of all outputs that are compared with the reference's, f32 `[n]`."""
        del batch
        return np.concatenate([outputs[name].reshape(-1) for name in sorted(outputs)]).astype(
            np.float32
        )

    def filled(self, size: int) -> Feeds:
        """Inputs of exactly `size` samples to time; samples are repeated if there are too few."""
        for index in range(self.batches(size)):
            batch = self.batch(index, size)
            if batch.keys:
                return {name: _repeated(array, size) for name, array in batch.feeds.items()}
        raise SpuError(f"no sample of {self.name} can be read", remedy="look at its files")


class FakeDataset(Dataset):
    """ByteMLPerf's fake data (see `fake`): nothing is right or wrong about it."""

    name = "FAKE_DATASET"
    judges = False

    def __init__(self, info: ModelInfo, why: str):
        super().__init__()
        self.about = f"fake data, {why}"
        self._info = info

    def batches(self, size: int) -> int:
        from .fake import BATCHES

        return BATCHES

    def batch(self, index: int, size: int) -> Batch:
        from .fake import fake_batch

        first = index * size
        return Batch(fake_batch(self._info, index, size), tuple(range(first, first + size)))

    def calibration(self) -> list[Feeds]:
        from .fake import BATCHES, fake_batch

        return [fake_batch(self._info, BATCHES + number, 1) for number in range(CALIBRATION)]

    def add(self, batch: Batch, outputs: Outputs) -> None:
        raise TypeError("no answer to fake data is right or wrong")

    def accuracy(self) -> dict[str, float]:
        return {"Fake Dataset Accuracy": 0}


CALIBRATION = 8
"""Samples that INT8 ranges are chosen on."""


def open_dataset(info: ModelInfo, folder: Path | None) -> Dataset:
    """
    The data set of a model below `folder`; fake data where it has none or none is there.

    Its files are looked for in `folder` and in `folder/<dataset_name>`. Raises SpuError if a
    folder was given that does not have them, and for a data set that is not known.
    """
    from .images import ImageDataset
    from .squad import SquadDataset

    kinds = {"open_imagenet": ImageDataset, "open_squad": SquadDataset}
    if info.dataset is None or info.dataset == "fake_dataset":
        return FakeDataset(info, "the task has no other")
    if info.dataset not in kinds:
        raise SpuError(
            f"the data set {info.dataset!r} is not known", remedy=f"use one of {', '.join(kinds)}"
        )
    kind = kinds[info.dataset]
    if folder is None:
        return FakeDataset(info, f"because no --data has {info.dataset}: accuracy is not measured")
    for place in (folder / info.dataset, folder):
        if (place / kind.MARK).is_file():
            return kind(info, place)
    raise SpuError(
        f"{str(folder)!r} has no {kind.MARK}",
        remedy=f"put {info.dataset} there, or leave --data out to run on fake data",
    )


def _repeated(array: Array, size: int) -> Array:
    return np.ascontiguousarray(array[np.arange(size) % len(array)])
