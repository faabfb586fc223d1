"""How a compiled model takes images: sizes, colours, statistics, and which pixels it needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from spu_ir.errors import SpuError

if TYPE_CHECKING:
    import numpy as np

    from spu_ir.runtime.model import CompiledModel
    from spu_ir.runtime.program import Json

    Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

Crop = Literal["centre", "none"]
Layout = Literal["auto", "NCHW", "NHWC"]
Colour = Literal["rgb", "bgr", "grey"]
Interpolation = Literal["bilinear", "bicubic"]

REDUCTIONS = (8, 4, 2, 1)
"""By what a JPEG can be made smaller while it is decoded, most first."""

_REACH = {"bilinear": 1.0, "bicubic": 2.0}
"""Pixels to each side that an enlargement reads."""


GRAIN = 64
"""A canvas has a multiple of so many rows and columns, so that runs have few extents."""


def _rounded(extent: int, most: int) -> int:
    return min(-(-extent // GRAIN) * GRAIN, most)


def resized_to(short: int, height: int, width: int) -> tuple[int, int]:
    """The (height, width) of an image whose shorter side becomes `short`, as torchvision has it."""
    # The longer side is rounded down.
    if height <= width:
        return short, int(short * width / height)
    return int(short * height / width), short


@dataclass(frozen=True)
class Window:
    """Of one axis of an image: what becomes of it, and the pixels that this takes."""

    extent: int
    resized: int
    """The extent to which all of it is resized."""
    first: int
    """The first position of that which the model sees."""
    start: int
    stop: int
    """The pixels that are read: `start` to `stop - 1` of `extent`."""

    @property
    def numbers(self) -> tuple[int, int, int, int]:
        """The row of the geometry input that says so, with `start` as the first one stored."""
        return (self.extent, self.start, self.resized, self.first)


@dataclass(frozen=True)
class ImageInput:
    """
    Images of any size as a model's input: `compile(..., preprocess=ImageInput(...))`.

    The shorter side becomes `resize` and the other follows (rounded down), then `size` is cut out
    of the middle; with `crop="none"` all of the image is resized to `size`. `size` is a side, or
    (height, width). Bytes are resized as Pillow does (`interpolation` bilinear or bicubic,
    `antialias` or not) to the same bits, then normalised, `(pixel / divide - mean) / std`, with a
    mean and a deviation for each of the model's channels. `colour` is the order of these; with
    grey, images have one channel. `layout` is where the model has its channels (auto: as its shape
    says), `input` the name of its input (None: the only one of that shape), `canvas` the most rows
    and columns of pixels that an image may need.

    The defaults are those of ImageNet models. Raises SpuError for values that go together in no
    way.
    """

    size: int | tuple[int, int] = 224
    resize: int | None = 256
    crop: Crop = "centre"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    divide: float = 255.0
    colour: Colour = "rgb"
    layout: Layout = "auto"
    input: str | None = None
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    canvas: int = 2048

    def __post_init__(self) -> None:
        for what, allowed in (
            ("crop", get_args(Crop)),
            ("colour", get_args(Colour)),
            ("layout", get_args(Layout)),
            ("interpolation", get_args(Interpolation)),
        ):
            if getattr(self, what) not in allowed:
                raise SpuError(
                    f"{what} {getattr(self, what)!r} is not known",
                    remedy=f"use {', '.join(allowed)}",
                )
        channels = self.channels
        for what, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != channels or not all(map(math.isfinite, values)):
                raise SpuError(
                    f"{what} {values} is not {channels} numbers",
                    remedy=f"images in {self.colour} have {channels} channels",
                )
        if not all(value > 0 for value in self.std) or not 0 < self.divide < math.inf:
            raise SpuError("std and divide must be greater than 0")
        sides = (self.height, self.width)
        if min(sides) < 1 or max(sides) > self.canvas:
            raise SpuError(f"size {self.size} is not 1 to {self.canvas}, the most pixels of a side")
        if not 1 <= self.canvas <= 65536:
            raise SpuError(f"canvas {self.canvas} is not 1 to 65536")
        if self.crop == "centre" and (
            self.resize is None or self.resize < max(self.height, self.width)
        ):
            raise SpuError(
                f"{self.height} x {self.width} is not part of a shorter side of {self.resize}",
                remedy="give a resize of at least the size, or crop='none' to resize all of it",
            )

    @property
    def height(self) -> int:
        """Rows that the model takes."""
        return self.size if isinstance(self.size, int) else self.size[0]

    @property
    def width(self) -> int:
        """Columns that the model takes."""
        return self.size if isinstance(self.size, int) else self.size[1]

    @property
    def channels(self) -> int:
        """Channels of an image: 3, or 1 in grey."""
        return 1 if self.colour == "grey" else 3

    def target(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) that an image of `height` x `width` pixels is resized to."""
        if self.crop == "none":
            return self.height, self.width
        assert self.resize is not None
        return resized_to(self.resize, height, width)

    def windows(self, height: int, width: int) -> tuple[Window, Window]:
        """
        What becomes of the rows and the columns of an image of `height` x `width` pixels.

        Raises SpuError for an image whose needed part is larger than the canvas.
        """
        rows, columns = self.target(height, width)
        found = (
            self._window(height, rows, self.height),
            self._window(width, columns, self.width),
        )
        if max(window.stop - window.start for window in found) > self.canvas:
            raise SpuError(
                f"an image of {height} x {width} has more pixels in what is cut out than the "
                f"canvas of {self.canvas} x {self.canvas}",
                remedy="make it smaller first, or compile with a larger canvas",
            )
        return found

    def _window(self, extent: int, resized: int, taken: int) -> Window:
        # As torchvision's CenterCrop: halves to even.
        first = round((resized - taken) / 2)
        scale = extent / resized
        reach = _REACH[self.interpolation] * (max(scale, 1.0) if self.antialias else 1.0)
        # The same arithmetic as that of vpu.resize_taps, so that no tap lies outside.
        start = max(int((first + 0.5) * scale - reach + 0.5), 0)
        stop = min(int((first + taken - 1 + 0.5) * scale + reach + 0.5), extent)
        return Window(extent, resized, first, start, stop)

    def reduction(self, height: int, width: int) -> int:
        """By what a JPEG may be reduced while it is decoded and still cover what is needed."""
        rows, columns = self.target(height, width)
        for factor in REDUCTIONS:
            if -(-height // factor) >= rows and -(-width // factor) >= columns:
                return factor
        return 1

    def feeds(self, images: Sequence[Array]) -> dict[str, Array]:
        """
        The inputs of one run: u8 images `[H, W, C]`, each of a size of its own, as a batch.

        They are put side by side into one canvas `[N, H, W, C]`, only the pixels that are needed,
        beside the geometry i32 `[N, 2, 4]`. Raises SpuError for another type or shape, for an
        image that the canvas cannot hold, and where `input` is not known.
        """
        import numpy as np

        if self.input is None:
            raise SpuError(
                "the name of the input is not known yet",
                remedy="give ImageInput its input, or take ImageInput.of(model)",
            )
        if not images:
            raise SpuError("there is no image to make a batch of")
        for image in images:
            good = image.ndim == 3 and image.shape[2] == self.channels and image.dtype == np.uint8
            if not good or 0 in image.shape:
                raise SpuError(
                    f"an image is {image.dtype} {list(image.shape)}",
                    remedy=f"images are uint8 [height, width, {self.channels}], in {self.colour}"
                    if self.colour == "grey"
                    else "images are uint8 [height, width, 3], in RGB",
                )
        windows = [self.windows(*image.shape[:2]) for image in images]
        rows, columns = (
            _rounded(max(pair[axis].stop - pair[axis].start for pair in windows), self.canvas)
            for axis in (0, 1)
        )
        canvas = np.empty((len(images), rows, columns, self.channels), np.uint8)
        for place, image, (r, c) in zip(canvas, images, windows, strict=True):
            needed = image[r.start : r.stop, c.start : c.stop]
            place[: len(needed), : c.stop - c.start] = needed
        geometry = np.array([[r.numbers, c.numbers] for r, c in windows], np.int32)
        return {self.input: canvas, f"{self.input}.geometry": geometry}

    def json(self) -> dict[str, Json]:
        """As `from_json` reads it, and a package keeps it."""
        result: dict[str, Json] = {}
        for field in fields(self):
            value: Any = getattr(self, field.name)
            result[field.name] = [*value] if isinstance(value, tuple) else value
        return result

    @staticmethod
    def from_json(value: Json) -> ImageInput:
        """What `json` wrote. Raises SpuError for anything else."""
        names = {field.name for field in fields(ImageInput)}
        if not isinstance(value, dict) or not value.keys() <= names:
            raise SpuError("this is no description of an image input", remedy="compile it again")
        given: dict[str, Any] = {}
        for name, each in value.items():
            given[name] = tuple(each) if isinstance(each, list) else each
        try:
            return ImageInput(**given)
        except TypeError as error:
            raise SpuError(
                f"this is no description of an image input: {error}", remedy="compile it again"
            ) from error

    @staticmethod
    def of(model: CompiledModel) -> ImageInput:
        """How a compiled model takes images. Raises SpuError for a model that takes none."""
        kept = model.options.get("preprocess")
        if kept is None:
            raise SpuError(
                "the model takes arrays, not images",
                remedy="compile it with preprocess=ImageInput(...) (spu-compile --images)",
            )
        return ImageInput.from_json(kept)

    def named(self, inputs: Mapping[str, object] | Sequence[str]) -> ImageInput:
        """This, with the name of its input as the compiled model's `inputs` have it."""
        ending = ".geometry"
        (name,) = [each.removesuffix(ending) for each in inputs if each.endswith(ending)]
        return replace(self, input=name)
