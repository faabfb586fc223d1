"""The orientation that a camera left in a JPEG's EXIF data, and images turned by it."""

from __future__ import annotations

import struct
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

ORIENTATION = 0x0112
SHORT = 3
TURNED = (5, 6, 7, 8)
"""Orientations that exchange rows and columns."""


def orientation_of(data: bytes) -> int:
    """
    The EXIF orientation of a JPEG, 1 (as stored) to 8; 1 where it says none, or nonsense.

    EXIF data is an APP1 segment with a TIFF header and a directory of 12-byte entries (CIPA
    DC-008). Only the first directory is read. Never fails: a picture is worth more than its tags.
    """
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA or length < 2:  # the picture itself begins
            return 1
        segment = data[at + 4 : at + 2 + length]
        if marker == 0xE1 and segment[:6] == b"Exif\0\0":
            return _orientation(segment[6:])
        at += 2 + length
    return 1


def _orientation(tiff: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    try:
        if order is None or struct.unpack_from(order + "H", tiff, 2) != (42,):
            return 1
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, values, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if (tag, kind, values) == (ORIENTATION, SHORT, 1):
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def upright(image: Array, orientation: int) -> Array:
    """A view of `image` `[H, W, C]` as it is to be looked at."""
    if orientation in TURNED:
        image = image.swapaxes(0, 1)
    # What is left is to mirror rows, columns, or both.
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image


def quarter_turns(image: Array, degrees: float) -> Array:
    """A view of `image` turned counter-clockwise by a multiple of 90 degrees."""
    return np.rot90(image, round(degrees / 90) % 4)
