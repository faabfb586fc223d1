"""
Batch jobs past one machine: a Ray Data predictor over files or tensors; docs/serving.md.

    results = predict_files(["photos/1.jpg", ...], "resnet50.spu", actors=8)
    for row in results.iter_rows():
        print(row["id"], row["error"] or row["softmax_tensor:0"].argmax())
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.lib.format import read_array

from spu_ir.contrib.ray_package import Ship, Shipped, ray, ship
from spu_ir.contrib.rows import Array, Feeds, Interface, Rows, run_together, signature
from spu_ir.errors import SpuError
from spu_ir.runtime.model import load
from spu_ir.runtime.package import read_package

if TYPE_CHECKING:
    from spu_ir.media import ImageInput

Columns: TypeAlias = dict[str, Array]
ID, ERROR = "id", "error"
JPEG = (".jpg", ".jpeg")


class Predictor:
    """
    A callable class for `Dataset.map_batches`, whose actors each keep one loaded model.

    `shipped` is what `ray_package.ship` made; a run uses `threads` threads. Rows have an `id` and,
    for each input, a column of its name with an array without the batch axis. What comes out has,
    for each row that came in: the `id`, the columns named in `keep`, an `error` (empty if all is
    well), and a column for each output. Of a bad row these are empty arrays, or null where an
    output is one number.

    Override `feeds` for rows of another kind: texts to be tokenised, files of another format.
    """

    def __init__(self, shipped: Shipped, threads: int = 1, keep: Sequence[str] = ()):
        self.model = load(shipped.folder(), threads=threads)
        self.keep = tuple(keep)
        self.rows = _checked(self.model, self.keep)

    def feeds(self, row: Mapping[str, Any]) -> Feeds:
        """
        The model's inputs, without their batch axis, of a row of the dataset.

        Raises SpuError for a row that has none; it is the row's answer.
        """
        missing = [port.name for port in self.model.inputs if port.name not in row]
        if missing:
            raise SpuError(f"the row has no column {missing[0]!r}")
        return {port.name: np.asarray(row[port.name]) for port in self.model.inputs}

    def __call__(self, batch: Columns) -> Columns:
        """Answer a batch of rows."""
        columns = {name: batch[name] for name in batch}
        for name in (ID, *self.keep):
            if name not in columns:
                raise SpuError(f"the dataset has no column {name!r}")
        count = len(columns[ID])
        answers: list[dict[str, Array] | SpuError] = []
        requests: dict[int, Feeds] = {}
        for number in range(count):
            try:
                feeds = self.feeds({name: column[number] for name, column in columns.items()})
                requests[number] = self._with_batch(feeds)
                answers.append({})
            except SpuError as error:
                answers.append(error)
        for group in self._groups(requests):
            run = run_together(self.model, self.rows, [requests[number] for number in group])
            for number, answer in zip(group, run, strict=True):
                answers[number] = answer
        texts = [str(each) if isinstance(each, SpuError) else "" for each in answers]
        result: Columns = {name: columns[name] for name in (ID, *self.keep)}
        result[ERROR] = np.array(texts, object)
        for port in self.model.outputs:
            found = [None if isinstance(each, SpuError) else each[port.name][0] for each in answers]
            result[port.name] = _column(found, len(port.shape) - 1, port.numpy_dtype)
        return result

    def _with_batch(self, feeds: Feeds) -> Feeds:
        """A row's arrays with their batch axis, in the dtypes of the model, checked."""
        result: dict[str, Array] = {}
        names = {port.name: port for port in self.model.inputs}
        for name, array in feeds.items():
            port = names.get(name)
            # Arrow has no bfloat16.
            if port is not None and port.dtype == "bfloat16" and array.dtype == np.float32:
                array = array.astype(port.numpy_dtype)
            # As many rows as the model takes at least, so that it can check them.
            result[name] = np.broadcast_to(array, (self.rows.minimum, *array.shape))
        self.model.check(result)
        return {name: array[:1] for name, array in result.items()}

    def _groups(self, requests: Mapping[int, Feeds]) -> list[list[int]]:
        """The numbers of the rows that run together."""
        alike: dict[Any, list[int]] = {}
        for number, feeds in requests.items():
            alike.setdefault(signature(self.model, feeds), []).append(number)
        most = self.rows.maximum
        return [
            group[start : start + most]
            for group in alike.values()
            for start in range(0, len(group), most)
        ]


class FilePredictor(Predictor):
    """
    A predictor of files: the `id` of a row is a path that the node can read.

    JPEGs are decoded for a model that was compiled with `preprocess=ImageInput(...)`. A .npy file
    has the array of a model with one input, an .npz file one for each input by its name; neither
    has the batch axis.
    """

    def feeds(self, row: Mapping[str, Any]) -> Feeds:
        """The content of the row's file."""
        path = Path(str(row[ID]))
        suffix = path.suffix.lower()
        if suffix in JPEG:
            return self._jpeg(path)
        if suffix not in (".npy", ".npz"):
            raise SpuError(
                f"a file {suffix or 'without an ending'!r} cannot be read",
                remedy="give .jpg, .jpeg, .npy or .npz",
            )
        try:
            with path.open("rb") as file:
                if suffix == ".npy":
                    return {self._only_input(): read_array(file, allow_pickle=False)}
                if not zipfile.is_zipfile(file):
                    raise SpuError("the file is no npz: it is no zip")
                file.seek(0)
                with np.load(file, allow_pickle=False) as arrays:
                    return {name: cast(Array, arrays[name]) for name in arrays.files}
        except OSError as error:
            raise SpuError(f"the file cannot be read: {error.strerror or error}") from error
        except (ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
            raise SpuError(f"the file is no {suffix[1:]} of arrays: {error}") from error

    def _only_input(self) -> str:
        if len(self.model.inputs) != 1:
            raise SpuError(
                f"the model has {len(self.model.inputs)} inputs, the file one array",
                remedy="give .npz files with an array for each input",
            )
        return self.model.inputs[0].name

    @cached_property
    def _images(self) -> ImageInput:
        """How the model takes images. Raises SpuError for one that takes none."""
        from spu_ir.media import ImageInput

        return ImageInput.of(self.model)

    def _jpeg(self, path: Path) -> Feeds:
        from spu_ir.media.jpeg import decode_jpeg

        images = self._images
        try:
            data = path.read_bytes()
        except OSError as error:
            raise SpuError(f"the file cannot be read: {error.strerror or error}") from error
        feeds = images.feeds([decode_jpeg(data, images, name=str(path)).pixels])
        return {name: array[0] for name, array in feeds.items()}


def predict(
    dataset: Any,
    package: str | os.PathLike[str],
    *,
    predictor: type[Predictor] = Predictor,
    keep: Sequence[str] = (),
    actors: int | tuple[int, int] = 2,
    cpus: int = 1,
    batch: int | None = None,
    how: Ship = "object",
) -> Any:
    """
    Run a model on a Ray dataset, on `actors` actors (or from, to) with `cpus` processors each.

    Gives a lazy `ray.data.Dataset`, whose rows are described at `Predictor`, in no order. `dataset`
    has a column `id`, and those that `predictor` reads. An actor gets `batch` rows at once
    (default: what the model takes). With `how="object"` the package goes through the object store
    into each node's cache folder; with "path" it is on a file system that the nodes share.

    A row that cannot be answered has an error and does not fail the job. When an actor or its node
    dies, what it had not delivered is computed again by another one; every row that came in comes
    out once. Raises SpuError as `load`, for a model without a batch, for columns that would have
    the same name, and where Ray is missing. Where the actors cannot load the model, or a column
    `id` or of `keep` is missing, Ray raises when the dataset is consumed.
    """
    if cpus < 1:
        raise SpuError(f"an actor with {cpus} processors runs nothing", remedy="use 1 or more")
    data = ray("ray.data")
    rows = _checked(read_package(Path(package)), keep)
    if batch is None:
        batch = rows.maximum
    size = actors if isinstance(actors, tuple) else (actors, actors)
    return dataset.map_batches(
        predictor,
        fn_constructor_args=(ship(package, how), cpus, tuple(keep)),
        batch_size=batch,
        batch_format="numpy",
        zero_copy_batch=True,
        num_cpus=cpus,
        compute=data.ActorPoolStrategy(min_size=size[0], max_size=size[1]),
    )


def predict_files(
    paths: Sequence[str | os.PathLike[str]], package: str | os.PathLike[str], **options: Any
) -> Any:
    """
    Run a model on JPEG, .npy and .npz files that all nodes can read; `options` as `predict`.

    The `id` of a row is its path as given. Raises SpuError as `predict`, and for no files.
    """
    if not paths:
        raise SpuError("there are no files")
    data = ray("ray.data")
    options.setdefault("predictor", FilePredictor)
    dataset = data.from_items([{ID: os.fspath(path)} for path in paths])
    return predict(dataset, package, **options)


def _checked(model: Interface, keep: Sequence[str]) -> Rows:
    """The batch of a model that can answer rows. Raises SpuError for another one."""
    rows = Rows.of(model)
    if not rows.shared:
        raise SpuError(
            "the model has no batch: axis 0 of its inputs and outputs is not one extent",
            remedy="compile it with a batch, as shapes={'batch': (1, 8)}",
        )
    names = [ID, ERROR, *keep, *(port.name for port in model.outputs)]
    for name in names:
        if names.count(name) > 1:
            raise SpuError(
                f"two columns of the results would be called {name!r}",
                remedy="rename the column of the dataset, or the model's output",
            )
    return rows


def _column(values: Sequence[Array | None], axes: int, dtype: np.dtype[Any]) -> Array:
    """An output's column: numbers or null, or arrays, which are empty for bad rows."""
    if dtype.name == "bfloat16":  # Arrow has none.
        values = [None if value is None else value.astype(np.float32) for value in values]
        dtype = np.dtype(np.float32)
    whole = [value for value in values if value is not None]
    if len(whole) == len(values) and len({value.shape for value in whole}) == 1:
        return np.stack(whole)
    column = np.empty(len(values), object)
    for number, value in enumerate(values):
        column[number] = np.empty((0,) * axes, dtype) if value is None and axes else value
    return column
