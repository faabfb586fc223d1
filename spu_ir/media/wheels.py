"""The decoders' libraries, loaded when the first file is decoded."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np

from spu_ir.extras import extra_module

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


class SimpleJpeg(Protocol):
    """What is used of `simplejpeg`, which brings its own libjpeg-turbo and releases the GIL."""

    def decode_jpeg_header(self, data: bytes, *, strict: bool = True) -> tuple[int, int, str, str]:
        """Height, width, colour space and subsampling."""
        ...

    def decode_jpeg(
        self,
        data: bytes,
        colorspace: str = "RGB",
        *,
        min_height: int = 0,
        min_width: int = 0,
        strict: bool = True,
    ) -> Array:
        """u8 `[H, W, C]`, reduced as far as its sides stay at least the given ones."""
        ...


def simplejpeg() -> SimpleJpeg:
    """The library that decodes JPEGs. Raises SpuError, naming the extra, where it is missing."""
    return extra_module("simplejpeg", "decoding of JPEGs", "media")


def pyav() -> Any:
    """PyAV, the library that decodes video. Raises SpuError where it is missing."""
    return extra_module("av", "decoding of video", "media")
