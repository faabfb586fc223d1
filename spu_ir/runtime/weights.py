"""
The weights of a program as one safetensors image: what a package's file holds, and what a
program reads, mapped into memory.

The header is padded so that data starts at a multiple of 4096, and U8 tensors named
`.pad.N` fill the gaps between weights (safetensors allows no holes) and end the file
with the slack that programs may read.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from spu_ir.errors import SpuError
from spu_ir.runtime.program import DTYPES, WEIGHT_ALIGNMENT, Array, weight_offsets

PAGE = 4096
SLACK = 64  # SPU_SLACK of context.h
MAX_HEADER = 64 << 20
PAD = ".pad."

_NAMES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "float16": "F16",
    "bfloat16": "BF16",
    "uint32": "U32",
    "int32": "I32",
    "float32": "F32",
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
}
_SIZES = {name: DTYPES[dtype].itemsize for dtype, name in _NAMES.items()}


@dataclass(frozen=True)
class Weights:
    """A whole safetensors image in memory: `bytes` of it, the data from `start` on."""

    image: mmap.mmap
    start: int

    def address(self) -> int:
        """The address of the first weight; a multiple of 4096, valid while `self` lives."""
        base: int = np.frombuffer(self.image, np.uint8).__array_interface__["data"][0]
        return base + self.start

    def __len__(self) -> int:
        return len(self.image)


def pack_weights(weights: Mapping[str, Array]) -> Weights:
    """
    Lay `weights` out in an image of their own, as `weight_offsets` says.

    Raises SpuError if a name or dtype cannot be stored, or memory is short.
    """
    entries: list[tuple[str, str, list[int], int, int]] = []  # name, dtype, shape, begin, end
    offsets = weight_offsets(weights)
    end = 0

    def pad(to: int) -> None:
        nonlocal end
        if to > end:
            entries.append((f"{PAD}{len(entries)}", "U8", [to - end], end, to))
            end = to

    for name, array in weights.items():
        dtype = _NAMES.get(array.dtype.name)
        if dtype is None or not array.dtype.isnative:
            raise SpuError(f"weight {name!r} has the dtype {array.dtype}, which no package holds")
        if name.startswith(PAD) or name == "__metadata__":
            raise SpuError(f"no weight can have the name {name!r}")
        pad(offsets[name])
        entries.append((name, dtype, list(array.shape), end, end + array.nbytes))
        end += array.nbytes
    pad(end + SLACK)

    header = json.dumps(
        {n: {"dtype": d, "shape": s, "data_offsets": [b, e]} for n, d, s, b, e in entries},
        separators=(",", ":"),
    ).encode()
    start = 8 + len(header)
    start += -start % PAGE
    image = anonymous_memory(start + end)
    image[:8] = (start - 8).to_bytes(8, "little")
    image[8:start] = header.ljust(start - 8)
    data = np.frombuffer(image, np.uint8, offset=start)
    for name, array in weights.items():
        # Through a view of the bytes, since bfloat16 has no buffer protocol.
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        data[offsets[name] : offsets[name] + array.nbytes] = flat
    return Weights(image, start)


def map_weights(path: Path) -> Weights:
    """
    Map a package's weights read-only; processes that map the same file share its memory.

    Raises SpuError if the file cannot be read or is not laid out as `pack_weights` does.
    """
    try:
        with path.open("rb") as file:
            image = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise SpuError(f"cannot read the weights {str(path)!r}: {error}") from error
    start = _check_layout(image, path)
    return Weights(image, start)


def anonymous_memory(size: int) -> mmap.mmap:
    """`size` zero bytes, aligned to a page. Raises SpuError where memory is short."""
    try:
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, ValueError, OverflowError) as error:
        raise SpuError(f"cannot allocate {size} bytes: {error}") from error


def _check_layout(image: mmap.mmap, path: Path) -> int:
    """The offset of the data; SpuError unless the tensors are contiguous and in bounds."""

    def broken(what: str) -> SpuError:
        return SpuError(f"the weights {str(path)!r} are damaged: {what}", remedy="save them again")

    start = 8 + int.from_bytes(image[:8], "little")
    if len(image) < 8 or start > len(image) or start > MAX_HEADER:
        raise broken("the header is longer than the file")
    if start % PAGE:
        raise broken(f"the data does not start at a multiple of {PAGE}")
    try:
        parsed: object = json.loads(image[8:start])
    except (ValueError, RecursionError) as error:
        raise broken("the header is not JSON") from error
    if not isinstance(parsed, dict):
        raise broken("the header is not a table")
    end = 0
    for name, entry in cast(dict[str, Any], parsed).items():
        try:
            shape = [int(d) for d in entry["shape"]]
            begin, stop = (int(offset) for offset in entry["data_offsets"])
            size = _SIZES[entry["dtype"]]
        except (KeyError, TypeError, ValueError) as error:
            raise broken(f"the entry {name!r} is incomplete") from error
        for d in shape:
            size *= d
        if begin != end or stop - begin != size or min(shape, default=0) < 0:
            raise broken(f"the tensor {name!r} is not where its shape says")
        if begin % WEIGHT_ALIGNMENT and not name.startswith(PAD):
            raise broken(f"the tensor {name!r} is not aligned to {WEIGHT_ALIGNMENT}")
        end = stop
    if start + end != len(image):
        raise broken(f"{len(image)} bytes where the header describes {start + end}")
    return start
