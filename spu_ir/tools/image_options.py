"""`spu-compile --images`: an image input said in a line, and calibration with JPEGs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spu_ir.errors import SpuError

if TYPE_CHECKING:
    import numpy as np

    from spu_ir.media.image_input import ImageInput

    Feeds = Mapping[str, np.ndarray[Any, np.dtype[Any]]]

SETTINGS = (
    "size=224 or 480x640, resize=256, crop=centre or none, mean=0.485:0.456:0.406, "
    "std=0.229:0.224:0.225, divide=255, colour=rgb, bgr or grey, layout=NCHW or NHWC, input=NAME, "
    "interpolation=bilinear or bicubic, antialias=yes or no, canvas=2048"
)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(":")))


def _size(text: str) -> int | tuple[int, int]:
    if "x" not in text:
        return int(text)
    height, width = text.split("x")
    return int(height), int(width)


def _choice(text: str) -> bool:
    return {"yes": True, "no": False}[text]


_READ: dict[str, Callable[[str], Any]] = {
    "size": _size,
    "resize": int,
    "crop": str,
    "mean": _numbers,
    "std": _numbers,
    "divide": float,
    "colour": str,
    "layout": str,
    "input": str,
    "interpolation": str,
    "antialias": _choice,
    "canvas": int,
}


def parse_images(text: str) -> ImageInput:
    """
    The image input that `size=224,resize=256` describes; an empty text is the defaults.

    Raises SpuError for what it cannot read, and as ImageInput.
    """
    from spu_ir.media.image_input import ImageInput

    given: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, _, value = part.partition("=")
        try:
            given[key] = _READ[key](value)
        except (KeyError, ValueError) as error:
            raise SpuError(
                f"--images has {part!r}, which cannot be read", remedy=f"use {SETTINGS}"
            ) from error
    if given.get("crop") == "none":
        given.setdefault("resize", None)
    return ImageInput(**given)


def with_input(images: ImageInput, model: Path) -> ImageInput:
    """`images` with the name of the model's only input, where it has none yet."""
    import onnx
    from google.protobuf.message import DecodeError

    if images.input is not None:
        return images
    try:
        graph = onnx.ModelProto.FromString(model.read_bytes()).graph
    except (OSError, DecodeError):
        # What is wrong with it the compiler will say, and better.
        return images
    constants = {each.name for each in graph.initializer}
    names = [each.name for each in graph.input if each.name not in constants]
    return replace(images, input=names[0]) if len(names) == 1 else images


def jpeg_feeds(images: ImageInput, given: str) -> Iterator[Feeds]:
    """
    A feed of each JPEG that a file, folder or pattern stands for.

    Raises SpuError, naming the file, for one that cannot be decoded.
    """
    from spu_ir.media.jpeg import decode_jpeg
    from spu_ir.tools.run_media import find_files

    for path in find_files([given]):
        try:
            picture = decode_jpeg(path.read_bytes(), images)
            feed = images.feeds([picture.pixels])
        except (SpuError, OSError) as error:
            raise SpuError(f"{str(path)!r} cannot be calibrated with: {error}") from error
        yield feed
