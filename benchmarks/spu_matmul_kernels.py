"""The SPU's kernels, alone, in a library of their own, and the layers that they are timed on."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spu_ir.packing.banked import PackedWeight
from spu_ir.packing.windows import Segments
from spu_ir.transforms.tile_sizes import WIDE_ROWS, rows_in_pairs

from .spu_peaks import library

RATIOS: dict[str, int | None] = {"1x": None, "2x": 32, "4x": 16, "8x": 8, "16x": 4, "32x": 2}
"""Slots kept of every bank of 64, None for the dense path."""

L1_BYTES = 24 * 1024
"""Activations of one tile: most of a 32 KB cache, which they share with the quads passing by."""
L2_BYTES = 384 * 1024
"""Packed weights of one block of lanes, used again for every row."""
MAX_ROWS = 14
MAX_RUNS = 200
"""Of one turn."""
FORMATS = {"dense": 0, "banked": 1, "banked2": 2, "paired": 3}


class _Weight(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_void_p) for name in ("index", "value", "offset", "begin", "correction")
    )


class _Tile(ctypes.Structure):
    _fields_ = (
        ("w", ctypes.c_void_p),
        ("group", ctypes.c_int32),
        ("rows", ctypes.c_int32),
        ("lanes", ctypes.c_int32),
        ("x", ctypes.c_void_p),
        ("x_stride", ctypes.c_int64),
        ("scale", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("row_scale", ctypes.c_void_p),
        ("residual", ctypes.c_void_p),
        ("residual_stride", ctypes.c_int64),
        ("residual_scale", ctypes.c_float),
        ("residual_zero", ctypes.c_int32),
        ("out", ctypes.c_void_p),
        ("out_stride", ctypes.c_int64),
        ("out_inv_scale", ctypes.c_float),
        ("out_zero", ctypes.c_int32),
    )


@dataclass(frozen=True)
class Layer:
    """A product of `runs` runs of `run_rows` rows with a weight `[lanes, depth]`."""

    name: str
    lanes: int
    depth: int
    segments: Segments
    starts: Sequence[int]
    run_rows: int
    x_stride: int
    x_bytes: int
    count: int = 1
    """How many such layers the network has that it is of."""

    @staticmethod
    def matmul(rows: int, depth: int, lanes: int) -> Layer:
        """`[rows, depth]` by `[depth, lanes]`."""
        return Layer(
            f"matmul {rows}x{depth}x{lanes}",
            lanes,
            depth,
            [(0, depth)],
            [0],
            rows,
            depth,
            rows * depth,
        )

    @staticmethod
    def conv(
        size: int, channels: int, kernel: int, lanes: int, stride: int = 1, count: int = 1
    ) -> Layer:
        """A convolution with `size` x `size` outputs over an NHWC input with its halo."""
        width = (size - 1) * stride + kernel
        line = width * channels
        step = f"/{stride}" if stride > 1 else ""
        return Layer(
            f"conv {size}x{size}x{channels} {kernel}x{kernel}{step} -> {lanes}",
            lanes,
            kernel * kernel * channels,
            [(y * line, kernel * channels) for y in range(kernel)],
            [y * stride * line for y in range(size)],
            size,
            stride * channels,
            width * line,
            count,
        )

    @property
    def rows(self) -> int:
        """Rows of the whole product."""
        return self.run_rows * len(self.starts)

    @property
    def plain(self) -> bool:
        """Whether it is a product of two matrices, and not a convolution."""
        return self.name.startswith("matmul")


LAYERS = (
    Layer.matmul(384, 768, 768),
    Layer.matmul(384, 3072, 768),
    Layer.matmul(384, 768, 3072),
    Layer.conv(56, 64, 3, 64, count=3),
    Layer.conv(28, 128, 3, 128, stride=2),
    Layer.conv(28, 128, 3, 128, count=3),
    Layer.conv(14, 256, 3, 256, stride=2),
    Layer.conv(14, 256, 3, 256, count=5),
    Layer.conv(7, 512, 3, 512, stride=2),
    Layer.conv(7, 512, 3, 512, count=2),
    Layer.conv(14, 1024, 1, 256, count=5),
)
"""The transformer shapes of BERT-base at 384 tokens; ResNet-50's 3x3 layers, and one of 1x1."""


class Bench:
    """The compiled kernels, at one ISA level."""

    def __init__(self, level: str, folder: Path):
        self._time = library("spu_matmul", level, folder).time_product
        self._time.restype = ctypes.c_double

    def product(self, layer: Layer, packed: PackedWeight) -> Product:
        """A layer with its weight, ready to be timed."""
        return Product(self._time, layer, packed)


class Product:
    """A layer with its weight, inputs and outputs in memory."""

    def __init__(self, time: Any, layer: Layer, packed: PackedWeight):
        rng = np.random.default_rng(1)
        x = _aligned(layer.x_bytes + 64)
        x[:] = rng.integers(0, 256, x.size, dtype=np.uint8)
        out = _aligned(layer.rows * layer.lanes)
        scale = np.full(layer.lanes, 1e-3, dtype=np.float32)
        bias = rng.normal(scale=10, size=layer.lanes).astype(np.float32)
        starts = np.array(layer.starts, dtype=np.int64)
        parts = (packed.index, packed.value, packed.offset, packed.begin, packed.correction)
        kept = [None if array is None else _aligned_copy(array) for array in parts]
        weight = _Weight(*(None if array is None else array.ctypes.data for array in kept))
        tile = _Tile(
            w=ctypes.addressof(weight),
            x=x.ctypes.data,
            x_stride=layer.x_stride,
            scale=scale.ctypes.data,
            bias=bias.ctypes.data,
            out=out.ctypes.data,
            out_stride=layer.lanes,
            out_inv_scale=1.0,
            out_zero=128,
        )
        layout, share, rows = tiling(layer, packed)
        lane_bytes = packed.value.nbytes * (1 if packed.format == "dense" else 2) / layer.lanes
        self._time = time
        self._kept = (x, out, scale, bias, starts, kept, weight, tile)
        self._arguments = (
            ctypes.byref(tile),
            FORMATS[layout],
            share,
            ctypes.c_int64(starts.size),
            ctypes.c_void_p(starts.ctypes.data),
            layer.run_rows,
            rows,
            layer.lanes,
            max(1, int(L2_BYTES / lane_bytes) // (16 * share)) * 16 * share,
        )

    def least_seconds(self, seconds: float) -> float:
        """The fastest of the runs of so many seconds, MAX_RUNS at most."""
        least = self.run(1)
        return min(least, self.run(min(MAX_RUNS, max(1, int(seconds / least)))))

    def run(self, repeats: int) -> float:
        """The fastest of `repeats` runs."""
        return float(self._time(*self._arguments, repeats))


def tiling(layer: Layer, packed: PackedWeight) -> tuple[str, int, int]:
    """Format, lane groups and rows of an instruction, as the tile pass chooses them."""
    share = 2 if packed.format == "dense" else packed.share
    rows = tile_rows(layer, share)
    if not packed.paired or rows > WIDE_ROWS:
        return packed.format, share, rows
    most = WIDE_ROWS
    if layer.plain:
        most = rows_in_pairs(layer.x_stride, round(packed.slots_run), L1_BYTES)
    tiles = -(-layer.run_rows // most)
    return "paired", 2, -(-layer.run_rows // tiles)


def tile_rows(layer: Layer, share: int) -> int:
    """As many rows as fit the registers and the L1 cache, and split the run evenly."""
    limit = MAX_ROWS if share == 1 else 12

    def touched(rows: int) -> int:
        return sum((rows - 1) * layer.x_stride + length for _, length in layer.segments)

    while limit > 4 and touched(limit) > L1_BYTES:
        limit -= 1
    tiles = -(-layer.run_rows // limit)
    return -(-layer.run_rows // tiles)


def _aligned(size: int) -> NDArray[np.uint8]:
    raw = np.zeros(size + 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


def _aligned_copy(array: NDArray[Any]) -> NDArray[np.uint8]:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    copy = _aligned(flat.size)
    copy[:] = flat
    return copy
