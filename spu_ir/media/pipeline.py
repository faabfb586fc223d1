"""Decoding, preprocessing and inference, one behind the other and at the same time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from spu_ir.errors import SpuError
from spu_ir.media.image_input import ImageInput
from spu_ir.media.jpeg import MAX_PIXELS, Picture, decode_jpeg
from spu_ir.media.video import frames

if TYPE_CHECKING:
    from spu_ir.runtime.model import CompiledModel

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

BATCHES = 2
"""Batches that may wait for inference, beside the one that runs; as many pictures are decoded."""


@dataclass(frozen=True)
class Answer:
    """What became of one picture or frame: the model's outputs, or why there are none."""

    name: str
    outputs: dict[str, Array]
    """By output name, the part of this picture (without the batch axis); none if it is bad."""
    error: str | None = None


@dataclass
class Work:
    """What a pipeline has done so far."""

    pictures: int = 0
    bad: int = 0
    coded_pixels: int = 0
    """Pixels that codecs went through."""
    decode_s: float = 0.0
    """Seconds that threads spent reading and decoding, added up; the processor may be shared."""
    run_s: float = 0.0
    """Seconds in runs of the model."""
    _lock: Lock = field(default_factory=Lock, repr=False)

    def decoded(self, picture: Picture, seconds: float) -> None:
        """Count a picture; called by any thread."""
        with self._lock:
            self.coded_pixels += picture.coded
            self.decode_s += seconds


Job: TypeAlias = Callable[[], Picture | None]
"""Decodes one picture; None: there is no more. Raises SpuError for a bad one."""


class MediaPipeline:
    """
    A compiled model behind decoders: files in, answers in their order out.

    `model` was compiled with `preprocess=ImageInput(...)`. `decoders` threads decode ahead of a
    thread that runs the model on batches of `batch` (default: 8, or what the model is bound to);
    at most `BATCHES` batches wait, so memory is bounded however many files there are. `work` says
    what has been done. A picture that is bad is answered with its error, and the rest of its batch
    without it. Raises SpuError for a model that takes no images.
    """

    def __init__(
        self,
        model: CompiledModel,
        *,
        batch: int | None = None,
        decoders: int = 1,
        max_pixels: int = MAX_PIXELS,
        reduce: bool = True,
        orient: bool = True,
    ):
        self.images = ImageInput.of(model)
        self.model = model
        self.batch, self.fixed = _batch(model, batch)
        if decoders < 1:
            raise SpuError(f"{decoders} decoders decode nothing", remedy="use 1 or more")
        self.decoders = decoders
        self.max_pixels, self.reduce, self.orient = max_pixels, reduce, orient
        self.work = Work()

    def jpegs(self, paths: Iterable[str | Path]) -> Iterator[Answer]:
        """Answers for JPEG files, in their order."""
        jobs = ((str(path), self._jpeg_job(Path(path))) for path in paths)
        return self._answers(jobs, self.decoders, "jpeg")

    def decoded(self, paths: Iterable[str | Path]) -> Iterator[Picture]:
        """
        JPEG files decoded as `jpegs` does it, in their order, and no model run.

        Raises SpuError at the first bad one.
        """
        waiting: deque[Future[Picture]] = deque()
        with ThreadPoolExecutor(self.decoders, "spu-decode") as decode:
            try:
                for path in paths:
                    waiting.append(decode.submit(self._jpeg_job(Path(path))))
                    if len(waiting) > self.batch * BATCHES:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def video(self, path: str | Path, *, every: int = 1) -> Iterator[Answer]:
        """
        Answers for every `every`-th frame of a video, named `path#number`.

        What is wrong with the file, or where it ends too early, is the last answer's error.
        """
        pictures = frames(
            path, self.images, every=every, max_pixels=self.max_pixels, threads=self.decoders
        )

        def job() -> Picture | None:
            start = time.perf_counter()
            picture = next(pictures, None)
            if picture is not None:
                self.work.decoded(picture, time.perf_counter() - start)
            return picture

        def jobs() -> Iterator[tuple[str, Job]]:
            while True:
                yield str(path), job

        # Frames depend on each other: their decoder has threads of its own.
        return self._answers(jobs(), 1, "video")

    def _jpeg_job(self, path: Path) -> Callable[[], Picture]:
        def job() -> Picture:
            start = time.perf_counter()
            try:
                data = path.read_bytes()
            except OSError as error:
                raise SpuError(f"the file cannot be read: {error.strerror or error}") from error
            picture = decode_jpeg(
                data,
                self.images,
                name=str(path),
                max_pixels=self.max_pixels,
                reduce=self.reduce,
                orient=self.orient,
            )
            self.images.windows(*picture.pixels.shape[:2])
            self.work.decoded(picture, time.perf_counter() - start)
            return picture

        return job

    def _answers(
        self, jobs: Iterator[tuple[str, Job]], decoders: int, kind: str
    ) -> Iterator[Answer]:
        ahead = self.batch * BATCHES + decoders
        decoding: deque[tuple[str, Future[Picture | None]]] = deque()
        running: deque[tuple[list[Answer], list[Picture], Future[dict[str, Array]] | None]]
        running = deque()
        with (
            ThreadPoolExecutor(decoders, "spu-decode") as decode,
            ThreadPoolExecutor(1, "spu-run") as run,
        ):
            try:
                ended = False
                while True:
                    # Bad pictures have places among the answers, and none in the batch.
                    places: list[Answer] = []
                    pictures: list[Picture] = []
                    while len(pictures) < self.batch:
                        while not ended and len(decoding) < ahead:
                            found = next(jobs, None)
                            if found is None:
                                ended = True
                            else:
                                decoding.append((found[0], decode.submit(found[1])))
                        if not decoding:
                            break
                        name, future = decoding.popleft()
                        try:
                            picture = future.result()
                        except SpuError as error:
                            places.append(Answer(name, {}, str(error)))
                            continue
                        if picture is None:
                            ended = True
                            continue
                        places.append(Answer(picture.name, {}))
                        pictures.append(picture)
                    if pictures or places:
                        job = run.submit(self._run, pictures) if pictures else None
                        running.append((places, pictures, job))
                    while running and (len(running) > BATCHES or not (pictures or places)):
                        yield from self._finished(*running.popleft(), kind)
                    if not running and not decoding and ended:
                        return
            finally:
                for _, future in decoding:
                    future.cancel()
                for *_, future in running:
                    if future is not None:
                        future.cancel()

    def _run(self, pictures: Sequence[Picture]) -> dict[str, Array]:
        pixels = [picture.pixels for picture in pictures]
        if self.fixed:
            pixels += [pixels[-1]] * (self.batch - len(pixels))
        feeds = self.images.feeds(pixels)
        start = time.perf_counter()
        outputs = self.model.run(feeds)
        self.work.run_s += time.perf_counter() - start
        return outputs

    def _finished(
        self,
        places: list[Answer],
        pictures: list[Picture],
        future: Future[dict[str, Array]] | None,
        kind: str,
    ) -> Iterator[Answer]:
        outputs = future.result() if future is not None else {}
        self._record(pictures, kind)
        row = 0
        for place in places:
            self.work.pictures += 1
            if place.error is not None:
                self.work.bad += 1
                yield place
                continue
            yield Answer(place.name, {name: array[row] for name, array in outputs.items()})
            row += 1

    def _record(self, pictures: Sequence[Picture], kind: str) -> None:
        """Count the pictures for the codecs of the card that the model is on."""
        from spu_ir.media.codec import decode_seconds
        from spu_ir.runtime import cards_codec
        from spu_ir.runtime.cards import device

        index = self.model.device
        if index is None or not pictures:
            return
        pixels = sum(picture.coded for picture in pictures)
        target = device(index).target
        if kind == "jpeg":
            seconds = decode_seconds(target, jpeg_pixels=pixels)
        else:
            seconds = decode_seconds(target, video_pixels=pixels)
        cards_codec.record_codec(index, len(pictures), seconds)


def _batch(model: CompiledModel, wanted: int | None) -> tuple[int, bool]:
    """How many pictures a run takes, and whether it takes just so many."""
    extent = model.inputs[0].shape[0]
    for port in model.inputs:
        if port.name.endswith(".geometry"):
            extent = port.shape[0]
    if isinstance(extent, int):
        if wanted not in (None, extent):
            raise SpuError(
                f"the model takes {extent} pictures at a time, not {wanted}",
                remedy=f"leave the batch out, or compile with shapes={{'batch': (1, {wanted})}}",
            )
        return extent, True
    (bounds,) = [each for each in model.extents if each.name == extent]
    batch = min(8, bounds.maximum) if wanted is None else wanted
    if not max(bounds.minimum, 1) <= batch <= bounds.maximum:
        raise SpuError(
            f"a batch of {batch} is outside what the model takes",
            remedy=f"use {max(bounds.minimum, 1)} to {bounds.maximum}",
        )
    # The last batch may be smaller, unless the model takes no less.
    return batch, bounds.minimum > 1
