"""Video to pixels: every n-th frame of a file, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spu_ir.errors import SpuError
from spu_ir.media.exif import quarter_turns
from spu_ir.media.image_input import ImageInput
from spu_ir.media.jpeg import MAX_PIXELS, Picture
from spu_ir.media.wheels import pyav

SLACK = 0.25
"""Seconds by which a file without a count of frames may end before its duration."""


def frames(
    path: str | Path,
    images: ImageInput | None = None,
    *,
    every: int = 1,
    max_pixels: int = MAX_PIXELS,
    threads: int = 1,
) -> Iterator[Picture]:
    """
    Frames 0, `every`, 2 * `every`, ... of the first video stream of a file, in RGB, or in grey for
    a model in grey; turned as the file says. They are called `path#number`.

    All frames are decoded, on `threads` threads, because they depend on each other. Raises SpuError
    at the end of a file that ends before it should, at a frame that is damaged, and before the
    first one for what is no video, or has frames of more than `max_pixels`.
    """
    if every < 1:
        raise SpuError(f"every {every} is no step", remedy="use 1 for every frame")
    av = pyav()
    colours = "gray" if images is not None and images.colour == "grey" else "rgb24"
    try:
        container = av.open(str(path), metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise SpuError(f"the video cannot be opened: {_cause(error)}") from error
    number, last = 0, 0.0
    with container:
        if not container.streams.video:
            raise SpuError("the file has no video stream")
        stream = container.streams.video[0]
        if stream.width * stream.height > max_pixels:
            raise SpuError(
                f"the video has {stream.height} x {stream.width} pixels, more than {max_pixels:,}",
                remedy="make it smaller first, or allow more with max_pixels",
            )
        stream.thread_type, stream.codec_context.thread_count = "AUTO", threads
        iterator = container.decode(stream)
        while True:
            try:
                frame = next(iterator, None)
            except (av.error.FFmpegError, OSError, ValueError) as error:
                raise SpuError(f"frame {number} cannot be decoded: {_cause(error)}") from error
            if frame is None:
                break
            if frame.is_corrupt:
                raise SpuError(f"frame {number} is damaged")
            last = frame.time if frame.time is not None else last
            if number % every == 0:
                pixels = frame.to_ndarray(format=colours)
                pixels = pixels.reshape(frame.height, frame.width, -1)
                turned = quarter_turns(pixels, frame.rotation)
                yield Picture(f"{path}#{number}", turned, frame.width * frame.height)
            number += 1
        _check_end(stream, container, number, last)


def _check_end(stream: Any, container: Any, number: int, last: float) -> None:
    """Raises SpuError where there are fewer frames, or seconds, than the file says that it has."""
    if not number:
        raise SpuError("the video has no frame that can be decoded")
    declared: int = stream.frames
    if declared and number < declared:
        raise SpuError(f"the video ends after {number} frames of {declared}")
    length = None if declared else _duration(stream, container)
    if length is not None and last < length - SLACK:
        raise SpuError(f"the video ends after {last:.2f} s of {length:.2f} s")


def _duration(stream: Any, container: Any) -> float | None:
    """Seconds of a stream; None where the file does not say."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    # Matroska has it as a tag of the stream.
    hours, _, rest = str(stream.metadata.get("DURATION", "")).partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        whole = container.duration  # of the longest stream, in microseconds
        return None if whole is None or len(container.streams) > 1 else float(whole) / 1e6


def _cause(error: BaseException) -> str:
    """What a library's error says, without the file's name, which the caller adds."""
    return str(getattr(error, "strerror", None) or error)
