"""
Useful INT8 multiply-accumulates per second of the SPU's kernels on one thread.

    python -m benchmarks.spu_matmul [--json] [--repeats N] [--write]

Every layer runs at every ratio with random weights pruned to it, through the same device code as
a compiled model, scale, bias and u8 output included. *Useful* counts only what the non-zero
weights need. The two peaks are loops in registers, measured in the same run: the dot product
(vpdpbusd) alone, which bounds the dense path, and the pair of permute and dot product (vpermb +
vpdpbusd), which bounds a sparse one whose permute feeds one dot product. With `share = 2` it
feeds two, so such a layer can exceed the pair's peak. `--write` makes docs/kernels.md of the run.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.spu_matmul_page import goals, write_page
from spu_ir.packing.banked import PackedWeight, pack
from spu_ir.packing.prune import prune_banked
from spu_ir.packing.windows import Segments
from spu_ir.runtime.build import DEVICE, find_compiler, program_flags
from spu_ir.runtime.cpu import select_level

RATIOS: dict[str, int | None] = {"1x": None, "2x": 32, "4x": 16, "8x": 8, "16x": 4, "32x": 2}
"""Slots kept of every bank of 64, None for the dense path."""

L1_BYTES = 24 * 1024
"""Activations of one tile: most of a 32 KB cache, which they share with the quads passing by."""
L2_BYTES = 384 * 1024
"""Packed weights of one block of lanes, used again for every row."""
MAX_ROWS = 14
FORMATS = {"dense": 0, "banked": 1, "banked2": 2}


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
        return self.run_rows * len(self.starts)


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


@dataclass(frozen=True)
class Result:
    """One measured layer. Rates are in MAC/s."""

    layer: str
    count: int
    ratio: str
    share: int
    seconds: float
    useful: float
    equivalent: float
    of_dot_peak: float | None
    of_pair_peak: float | None


class Bench:
    """The compiled kernels, at one ISA level."""

    def __init__(self, level: str, folder: Path):
        library = folder / "spu_matmul.so"
        source = Path(__file__).with_suffix(".c")
        flags = (*program_flags(level), f"-I{DEVICE}", "-shared", "-fPIC")
        subprocess.run(
            [*find_compiler().command, *flags, str(source), "-o", str(library)], check=True
        )
        self._library = ctypes.CDLL(str(library))
        self._time = self._library.time_product
        self._time.restype = ctypes.c_double

    def peak(self, name: str, loops: int = 1_000_000, tries: int = 5) -> float | None:
        """
        The best of `tries` runs of a register loop in MAC/s; None where the ISA has none.

        On a busy machine many short runs find the peak sooner than a few long ones.
        """
        loop = getattr(self._library, name, None)
        if loop is None:
            return None
        loop.restype = ctypes.c_double
        return max(float(loop(ctypes.c_int64(loops))) for _ in range(tries))

    def seconds(self, layer: Layer, packed: PackedWeight, repeats: int) -> float:
        """The fastest of `repeats` runs of `layer`."""
        rng = np.random.default_rng(1)
        x = _aligned(layer.x_bytes + 64)
        x[:] = rng.integers(0, 256, x.size, dtype=np.uint8)
        out = _aligned(layer.rows * layer.lanes)
        scale = np.full(layer.lanes, 1e-4, dtype=np.float32)
        bias = rng.normal(size=layer.lanes).astype(np.float32)
        starts = np.array(layer.starts, dtype=np.int64)
        kept = [
            None if array is None else _aligned_copy(array)
            for array in (
                packed.index,
                packed.value,
                packed.offset,
                packed.begin,
                packed.correction,
            )
        ]
        weight = _Weight(*(None if array is None else array.ctypes.data for array in kept))
        tile = _Tile(
            w=ctypes.addressof(weight),
            x=x.ctypes.data,
            x_stride=layer.x_stride,
            scale=scale.ctypes.data,
            bias=bias.ctypes.data,
            out=out.ctypes.data,
            out_stride=layer.lanes,
            out_inv_scale=10.0,
            out_zero=128,
        )
        share = 2 if packed.format == "dense" else packed.share
        lane_bytes = packed.value.nbytes * (1 if packed.format == "dense" else 2) / layer.lanes
        return float(
            self._time(
                ctypes.byref(tile),
                FORMATS[packed.format],
                share,
                ctypes.c_int64(starts.size),
                ctypes.c_void_p(starts.ctypes.data),
                layer.run_rows,
                tile_rows(layer, share),
                layer.lanes,
                max(1, int(L2_BYTES / lane_bytes) // (16 * share)) * 16 * share,
                repeats,
            )
        )


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


def measure(bench: Bench, layer: Layer, ratio: str, share: int, repeats: int) -> Result:
    """Time one layer at one ratio; fractions are left to `against`."""
    rng = np.random.default_rng(0)
    weight = rng.integers(1, 128, (layer.lanes, layer.depth)).astype(np.int8)
    slots = RATIOS[ratio]
    if slots is not None:
        weight = prune_banked(weight, layer.segments, 64, slots, share)
    encoding = None if slots is None else (64, slots, share)
    packed = pack(weight, segments=layer.segments, encoding=encoding, x_zero=128)
    seconds = bench.seconds(layer, packed, repeats)
    useful = layer.rows * int(np.count_nonzero(weight)) / seconds
    equivalent = layer.rows * weight.size / seconds
    return Result(layer.name, layer.count, ratio, share, seconds, useful, equivalent, None, None)


def run(repeats: int) -> dict[str, Any]:
    """Measure everything; the dictionary that `--json` prints."""
    level = select_level()
    with tempfile.TemporaryDirectory(prefix="spu-ir-benchmark-") as folder:
        bench = Bench(level, Path(folder))
        names = ("peak_dot", "peak_pair")
        peaks = {name: bench.peak(name) for name in names}
        results: list[Result] = []
        for layer in LAYERS:
            for ratio, slots in RATIOS.items():
                for share in (1,) if slots is None else (1, 2):
                    results.append(measure(bench, layer, ratio, share, repeats))
            # The clock drifts during a run: the peaks are the best of the whole run.
            for name in names:
                again = bench.peak(name)
                if again is not None:
                    peaks[name] = max(again, peaks[name] or 0.0)
    dot, pair = (peaks[name] for name in names)
    rows = [
        asdict(result)
        | {
            "of_dot_peak": result.useful / dot if dot else None,
            "of_pair_peak": result.useful / pair if pair else None,
        }
        for result in results
    ]
    return {"level": level, "threads": 1, **peaks, "results": rows}


def show(report: dict[str, Any]) -> None:
    """Print a report as a table."""
    console = Console()
    dot, pair = report["peak_dot"], report["peak_pair"]
    peaks = (
        f"vpdpbusd alone {dot / 1e9:.0f} G MAC/s" if dot else "no vpdpbusd",
        f"vpermb + vpdpbusd {pair / 1e9:.0f} G MAC/s" if pair else "no vpermb",
    )
    title = f"SPU products in G MAC/s, INT8, one thread, {report['level']}"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("layer", no_wrap=True)
    for name in ("ratio", "share", "us", "useful", "dense", "/ dot", "/ pair"):
        table.add_column(name, justify="right", no_wrap=True)
    last = ""
    for row in report["results"]:
        if last and last != row["layer"]:
            table.add_section()
        table.add_row(
            row["layer"] if row["layer"] != last else "",
            row["ratio"],
            str(row["share"]),
            f"{row['seconds'] * 1e6:.0f}",
            f"{row['useful'] / 1e9:.0f}",
            f"{row['equivalent'] / 1e9:.0f}",
            "-" if row["of_dot_peak"] is None else f"{row['of_dot_peak']:.2f}",
            "-" if row["of_pair_peak"] is None else f"{row['of_pair_peak']:.2f}",
        )
        last = row["layer"]
    console.print(table)
    console.print(f"Peaks measured in this run: {peaks[0]}, {peaks[1]}.")
    console.print("Useful: only non-zero weights count. Dense: as if all did.")
    for goal in goals(report):
        console.print(goal.text())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spu_matmul", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parser.add_argument("--repeats", type=int, default=20, help="runs of a layer (default 20)")
    parser.add_argument("--write", action="store_true", help="write docs/kernels.md")
    options = parser.parse_args(arguments)
    report = run(options.repeats)
    if options.write:
        write_page(report, options.repeats)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)


if __name__ == "__main__":
    main()
