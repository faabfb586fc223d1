"""
ByteMLPerf's workload and model files: those of the five tasks, and a user's own.

A workload names a model and says what is measured; a model file says where the model is, and the
names, shapes and types of its inputs. Both are read as ByteMLPerf writes them; keys that it has
and nothing here needs are left alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from spu_ir.errors import SpuError
from spu_ir.runtime.program import Json

_DATA = Path(__file__).parent / "data"

ELEMENTS: Mapping[str, str] = {
    "FLOAT32": "float32",
    "FLOAT16": "float16",
    "LONG": "int64",
    "INT64": "int64",
    "INT32": "int32",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}
"""ByteMLPerf's names of element types, and numpy's."""


@dataclass(frozen=True)
class Preprocessing:
    """
    How an image becomes an input; the defaults are torchvision's for ImageNet.

    The shorter side is resized to `resize` pixels, the middle `crop` x `crop` is kept, its values
    from 0 to 1 have `mean` subtracted and are divided by `std`, one of each a channel.
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ModelInfo:
    """A model file. Axis 0 of every input is the batch."""

    name: str
    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    """Of one sample, so axis 0 is 1."""
    elements: Mapping[str, str]
    """Input -> its type, by numpy's name."""
    dataset: str | None
    max_batch: int
    preprocessing: Preprocessing = Preprocessing()


@dataclass(frozen=True)
class Workload:
    """A workload file."""

    model: str
    test_perf: bool
    test_accuracy: bool
    test_numeric: bool
    iterations: int
    batch_sizes: tuple[int, ...]
    data_percent: int
    compile_only: bool


def task_names() -> list[str]:
    """The tasks that come with the package, in alphabetical order."""
    return sorted(path.stem for path in (_DATA / "workloads").glob("*.json"))


def read_task(task: str) -> tuple[Workload, ModelInfo]:
    """The files of a task that comes with the package. Raises SpuError for any other."""
    if task not in task_names():
        raise SpuError(
            f"there is no task {task!r}",
            remedy=f"use one of {', '.join(task_names())}, or give --workload FILE",
        )
    return read_workload(_DATA / "workloads" / f"{task}.json")


def read_workload(path: Path) -> tuple[Workload, ModelInfo]:
    """
    A workload file and the file of its model.

    The model's is `model_zoo/<model>.json`, looked for in the workload's folder, beside that
    folder (as ByteMLPerf has them) and in the package. Raises SpuError, naming the file and the
    key, for what is missing or wrong.
    """
    file = _File.read(path)
    batch_sizes = file.integers("batch_sizes", 1)
    if not batch_sizes:
        raise file.wrong("batch_sizes", "has no batch size")
    workload = Workload(
        model=file.text("model"),
        test_perf=file.flag("test_perf", True),
        test_accuracy=file.flag("test_accuracy", True),
        test_numeric=file.flag("test_numeric", True),
        iterations=file.integer("iterations", 1),
        batch_sizes=batch_sizes,
        data_percent=file.integer("data_percent", 1, 100),
        compile_only=file.flag("compile_only", False),
    )
    name = f"{workload.model}.json"
    folders = (path.parent / "model_zoo", path.parent.parent / "model_zoo", _DATA / "model_zoo")
    for folder in folders:
        if (folder / name).is_file():
            return workload, read_model_info(folder / name)
    raise SpuError(
        f"{str(path)!r} is of the model {workload.model!r}, which has no file",
        remedy=f"write {str(folders[0] / name)!r}",
    )


def read_model_info(path: Path) -> ModelInfo:
    """A model file. Raises SpuError, naming the file and the key, for what is missing or wrong."""
    file = _File.read(path)
    inputs = file.names("inputs")
    types = file.names("input_type")
    shapes = _File(path, file.table("input_shape"))
    if len(types) != len(inputs) or not set(types) <= set(ELEMENTS):
        raise file.wrong("input_type", f"is not one of {', '.join(ELEMENTS)} for every input")
    if set(shapes.values) != set(inputs):
        raise file.wrong("input_shape", "has other names than inputs")
    sizes = {name: shapes.integers(name, 1) for name in inputs}
    if any(not shape or shape[0] != 1 for shape in sizes.values()):
        raise file.wrong("input_shape", "has a shape whose axis 0, the batch, is not 1")
    dataset = file.values.get("dataset_name")
    return ModelInfo(
        name=file.text("model"),
        path=_model_path(path, Path(file.text("model_path"))),
        inputs=inputs,
        outputs=file.names("outputs"),
        shapes=sizes,
        elements={name: ELEMENTS[kind] for name, kind in zip(inputs, types, strict=True)},
        dataset=None if dataset is None else file.text("dataset_name"),
        max_batch=file.integer("max_batch_size", 1),
        preprocessing=_preprocessing(file),
    )


def _model_path(info: Path, where: Path) -> Path:
    """`where`, from the model file's folder or, as in ByteMLPerf, from the root of its tree."""
    roots = (info.parent, *info.absolute().parents[2:3])
    return next((root / where for root in roots if (root / where).exists()), info.parent / where)


def _preprocessing(file: _File) -> Preprocessing:
    if "preprocess" not in file.values:
        return Preprocessing()
    given = _File(file.path, file.table("preprocess"))
    crop = given.integer("crop", 1)
    mean, std = given.numbers("mean"), given.numbers("std")
    if not mean or len(mean) != len(std) or min(std) <= 0:
        raise given.wrong("std", "is not a positive number for each of mean")
    return Preprocessing(given.integer("resize", crop), crop, mean, std)


@dataclass(frozen=True)
class _File:
    """Checked access to the fields of a JSON file."""

    path: Path
    values: dict[str, Json]

    @classmethod
    def read(cls, path: Path) -> _File:
        try:
            parsed: object = json.loads(path.read_bytes())
        except OSError as error:
            raise SpuError(f"cannot read {str(path)!r}: {error.strerror}") from None
        except (ValueError, RecursionError):
            raise SpuError(f"{str(path)!r} is not JSON") from None
        if not isinstance(parsed, dict):
            raise SpuError(f"{str(path)!r} is no JSON object")
        return cls(path, cast("dict[str, Json]", parsed))

    def wrong(self, key: str, what: str) -> SpuError:
        return SpuError(f"{str(self.path)!r}: {key!r} {what}")

    def text(self, key: str) -> str:
        value = self.values.get(key)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, "is missing or no text")
        return value

    def names(self, key: str) -> tuple[str, ...]:
        """A text of names with commas between."""
        found = tuple(name.strip() for name in self.text(key).split(","))
        if not all(found):
            raise self.wrong(key, "has an empty name")
        return found

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "is neither true nor false")
        return value

    def integer(self, key: str, least: int, most: int | None = None) -> int:
        return self._integer(key, self.values.get(key), least, most)

    def integers(self, key: str, least: int) -> tuple[int, ...]:
        return tuple(self._integer(key, value, least) for value in self._items(key))

    def numbers(self, key: str) -> tuple[float, ...]:
        values = self._items(key)
        if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            raise self.wrong(key, "is no list of numbers")
        return tuple(float(cast("float", value)) for value in values)

    def table(self, key: str) -> dict[str, Json]:
        value = self.values.get(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "is missing or no JSON object")
        return value

    def _items(self, key: str) -> list[Json]:
        value = self.values.get(key)
        if not isinstance(value, list):
            raise self.wrong(key, "is missing or no list")
        return value

    def _integer(self, key: str, value: Json, least: int, most: int | None = None) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.wrong(key, f"is missing or no whole number from {least}")
        if most is not None and value > most:
            raise self.wrong(key, f"is more than {most}")
        return value
