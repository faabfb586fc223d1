"""JPEGs to pixels: as small as what is wanted allows, upright, in the model's colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from spu_ir.errors import SpuError
from spu_ir.media.exif import TURNED, orientation_of, upright
from spu_ir.media.image_input import ImageInput
from spu_ir.media.wheels import simplejpeg

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

MAX_PIXELS = 100_000_000
"""The most pixels that a picture may declare, before anything is allocated for it."""

SIGNATURES = (
    (b"\x89PNG", "a PNG"),
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (b"\xff\x0a", "a JPEG XL"),
)


@dataclass(frozen=True)
class Picture:
    """Pixels of one picture or frame, and how many pixels its codec had to go through."""

    name: str
    pixels: Array
    """u8 `[H, W, C]`, in RGB or grey."""
    coded: int
    """Pixels of the file or frame, before any reduction."""


def decode_jpeg(
    data: bytes,
    images: ImageInput | None = None,
    *,
    name: str = "",
    max_pixels: int = MAX_PIXELS,
    reduce: bool = True,
    orient: bool = True,
) -> Picture:
    """
    Decode a JPEG.

    With `images`, and unless `reduce` is False, it is reduced by 2, 4 or 8 while it is decoded (in
    the frequencies, as libjpeg does) as far as it still covers what `images` resizes it to; and it
    is decoded in grey for a model in grey. CMYK and YCCK, which are inverted as Adobe's are,
    become RGB. EXIF orientation is obeyed with `orient`; colour profiles are not.

    Raises SpuError for what is no JPEG, is damaged or cut off, or has more than `max_pixels`.
    """
    _check_signature(data)
    library = simplejpeg()
    try:
        height, width, space, _ = library.decode_jpeg_header(data)
    except ValueError as error:
        raise SpuError(f"the JPEG's header cannot be read: {_cause(error)}") from error
    if height * width > max_pixels:
        raise SpuError(
            f"the JPEG has {height} x {width} pixels, more than {max_pixels:,}",
            remedy="make it smaller first, or allow more with max_pixels",
        )
    orientation = orientation_of(data) if orient else 1
    factor = 1
    if images is not None and reduce:
        shown = (width, height) if orientation in TURNED else (height, width)
        factor = images.reduction(*shown)
    grey = images is not None and images.colour == "grey"
    try:
        pixels = library.decode_jpeg(
            data,
            "GRAY" if grey else "RGB",
            min_height=-(-height // factor),
            min_width=-(-width // factor),
        )
    except ValueError as error:
        raise SpuError(f"the JPEG ({space}) is damaged: {_cause(error)}") from error
    return Picture(name, upright(pixels, orientation), height * width)


def _check_signature(data: bytes) -> None:
    """Raises SpuError, saying what it seems to be, for a file that is no JPEG."""
    if data[:3] == b"\xff\xd8\xff":
        return
    if not data:
        raise SpuError("the file is empty")
    found = next((what for mark, what in SIGNATURES if data.startswith(mark)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        found = "a WebP"
    if data[4:8] == b"ftyp":
        found = "a HEIC or AVIF"
    if found is not None:
        raise SpuError(f"the file is {found}, not a JPEG", remedy="convert it to JPEG")
    raise SpuError(f"the file is no JPEG: it begins with {data[:12]!r}")


def _cause(error: ValueError) -> str:
    """A decoder's message without the names of its functions."""
    text = str(error)
    return text.partition("(): ")[2] or text
