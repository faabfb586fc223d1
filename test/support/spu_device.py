"""The SPU's kernels as a process that answers requests (spu_server.c), and cases to send."""

from __future__ import annotations

import os
import struct
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from support.device import build, levels_of_host

from spu_ir.dialects.types import bfloat16
from spu_ir.interpreters import numerics, numerics_spu
from spu_ir.packing.banked import PackedWeight, pack

TYPES = {"i8": 0, "bf16": 1, "f32": 2}
FORMATS = {"dense": 0, "banked": 1, "banked2": 2, "paired": 3}
RESIDUALS = {None: 0, "float32": 1, "bfloat16": 2, "uint8": 3, "int8": 4}
ACTIVATIONS = {None: 0, "relu": 1, "gelu": 2, "gelu_tanh": 3, "tanh": 4, "sigmoid": 5, "silu": 6}
OUTPUTS = {"float32": 0, "bfloat16": 1, "uint8": 2, "int8": 3, "int32": 4}
SIZES = {"float32": 4, "bfloat16": 2, "uint8": 1, "int8": 1, "int32": 4}

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Epilogue:
    """What follows the sums: arrays of the whole product, in logical order."""

    scale: Array | None = None  # f32 [N]
    row_scale: Array | None = None  # f32 [M]
    bias: Array | None = None  # f32 [N]
    residual: Array | None = None  # [M, N], bfloat16 as uint16 bits
    residual_dtype: str | None = None
    residual_scale: float = 1.0
    residual_zero: int = 0
    activation: str | None = None
    out: str = "float32"
    out_scale: float = 1.0
    out_zero: int = 0

    def added(self) -> Array | None:
        """The residual as float32."""
        if self.residual is None or self.residual_dtype == "float32":
            return self.residual
        if self.residual_dtype == "bfloat16":
            return numerics.from_bf16(self.residual)
        scale = np.float32(self.residual_scale)
        return numerics.dequantise(self.residual, scale, self.residual_zero)

    def golden(self, acc: Array) -> Array:
        """The interpreter's outputs, bfloat16 as uint16 bits."""
        if self.out == "int32":
            return acc
        v = numerics_spu.epilogue(
            acc,
            scale=self.scale,
            row_scale=self.row_scale,
            bias=self.bias,
            residual=self.added(),
            activation=self.activation,
        )
        return numerics_spu.store(v, self.out, self.out_scale, self.out_zero)


@dataclass(frozen=True)
class Product:
    """Runs of rows of activations in one buffer, and the weight that all of them meet."""

    x: Array  # any shape, contiguous
    starts: Array  # int64 [runs] bytes from x to the first row of every run
    run_rows: int
    x_stride: int  # bytes
    weight: Array  # [N, K]
    segments: list[tuple[int, int]]
    encoding: tuple[int, int, int] | None = None
    x_zero: int = 0
    groups: int = 1
    group_bytes: int = 0
    tile_rows: int = 14
    tile_share: int = 1  # of a dense weight
    tile_blocks: int = 1  # of `share` lane groups
    tile_pairs: bool = False  # of lane groups, if the weight has them

    def pack(self) -> PackedWeight:
        return pack(
            self.weight,
            segments=self.segments,
            encoding=self.encoding,
            x_zero=self.x_zero,
            groups=self.groups,
            group_bytes=self.group_bytes,
        )

    def gathered(self) -> list[Array]:
        """For every group the `[M, K]` activations that its rows meet, straight from the bytes."""
        flat = self.x.reshape(-1).view(np.uint8)
        size = self.weight.itemsize if self.weight.dtype != np.int8 else 1
        rows = self.starts[:, None] + np.arange(self.run_rows)[None] * self.x_stride
        bytes_of_k = np.concatenate(
            [start + size * np.arange(length) for start, length in self.segments]
        )
        found: list[Array] = []
        for group in range(self.groups):
            at = rows.reshape(-1, 1, 1) + bytes_of_k[:, None] + np.arange(size)
            taken = flat[at + group * self.group_bytes]
            found.append(taken.reshape(*taken.shape[:1], -1).view(self.x.dtype))
        return found

    def golden(self) -> Array:
        """The interpreter's accumulators `[M, N]`."""
        per_group = self.weight.shape[0] // self.groups
        sums: list[Array] = []
        for group, x in enumerate(self.gathered()):
            w = self.weight[group * per_group : (group + 1) * per_group]
            if w.dtype == np.int8:
                sums.append(numerics_spu.matmul_i8(x, w, self.x_zero))
            elif w.dtype == bfloat16:
                lengths = [length for _, length in self.segments]
                values = (numerics.from_bf16(a.view(np.uint16)) for a in (x, w))
                sums.append(numerics_spu.matmul_bf16(*values, lengths, self.encoding))
            else:
                sums.append(numerics_spu.matmul_f32(x, w))
        return np.concatenate(sums, axis=1)


def server(level: str, sanitise: bool) -> Path:
    """The server at a level; built once."""
    source = Path(__file__).parent / "spu_server.c"
    # It has every kernel that there is, which takes GCC a minute at -O3; programs, of the
    # few that they need, are tested at -O3.
    return build(source, level, sanitise=sanitise, shared=False, optimise="-O1")


@cache
def build_ahead() -> None:
    """
    Build the servers that take longest while tests of the first run.

    Only where tests have several processes: these come to a level at the same time, and all but
    one would wait for it.
    """

    def work() -> None:
        for level in reversed(levels_of_host()):
            # What is wrong with it the test says that needs it.
            with suppress(AssertionError):
                server(level, sanitise=False)

    if "PYTEST_XDIST_WORKER" in os.environ:
        threading.Thread(target=work, daemon=True).start()


class Device:
    """One server process at one level."""

    def __init__(self, level: str, sanitise: bool):
        build_ahead()
        self.process = subprocess.Popen(
            [server(level, sanitise)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def close(self) -> None:
        self.process.communicate()

    def run(self, product: Product, epilogue: Epilogue) -> Array:
        """The device's outputs `[M, N]`; raises AssertionError with a sanitiser's report."""
        packed = product.pack()
        layout = packed.format
        share = product.tile_share if layout == "dense" else packed.share
        if product.tile_pairs and packed.paired:
            layout, share = "paired", 2
        rows, lanes = product.starts.size * product.run_rows, product.weight.shape[0]
        size = SIZES[epilogue.out]
        out = np.full((rows, lanes * size), 0xA5, dtype=np.uint8)
        residual_size = SIZES.get(epilogue.residual_dtype or "", 0)
        bits = sum(
            bit
            for bit, array in ((1, epilogue.scale), (2, epilogue.row_scale), (4, epilogue.bias))
            if array is not None
        )
        if epilogue.out in ("uint8", "int8"):
            bits |= 8 * (epilogue.out_scale != 1.0) | 16 * (epilogue.out_zero != 0)
        head = struct.pack(
            "<13i2fi7q",
            TYPES[packed.kind],
            FORMATS[layout],
            share,
            bits,
            RESIDUALS[epilogue.residual_dtype],
            ACTIVATIONS[epilogue.activation],
            OUTPUTS[epilogue.out],
            product.tile_rows,
            product.groups,
            packed.lane_groups,
            lanes // product.groups,
            epilogue.residual_zero,
            epilogue.out_zero,
            epilogue.residual_scale,
            np.float32(1.0) / np.float32(epilogue.out_scale),
            product.tile_blocks,
            product.starts.size,
            product.run_rows,
            product.x_stride,
            lanes * residual_size,
            lanes * size,
            size,
            residual_size,
        )
        arrays = (
            packed.index,
            packed.value,
            packed.offset,
            packed.begin,
            packed.correction,
            product.x,
            product.starts,
            epilogue.scale,
            epilogue.bias,
            epilogue.row_scale,
            epilogue.residual,
            out,
        )
        parts = [head]
        for array in arrays:
            data = b"" if array is None else array.tobytes()
            parts += [struct.pack("<q", len(data)), data]
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(b"".join(parts))
            stdin.flush()
        except BrokenPipeError:
            pass
        answer = stdout.read(out.nbytes)
        if len(answer) != out.nbytes:
            _, report = self.process.communicate()
            raise AssertionError(f"the device stopped:\n{report.decode(errors='replace')}")
        dtype = np.uint16 if epilogue.out == "bfloat16" else np.dtype(epilogue.out)
        return np.frombuffer(answer, dtype=dtype).reshape(rows, lanes)


@cache
def device(level: str, sanitise: bool) -> Device:
    """The server of a level, started once."""
    return Device(level, sanitise)


def assert_same_bits(got: Array, expected: Array) -> None:
    """Equal bit for bit, where all NaN count as one; names the first that differs."""
    assert got.shape == expected.shape
    unsigned = np.dtype(f"uint{8 * got.itemsize}")
    differ = got.view(unsigned) != np.ascontiguousarray(expected).view(unsigned)
    if got.dtype == np.float32:
        differ &= ~(np.isnan(got) & np.isnan(expected))
    elif got.dtype == np.uint16:
        differ &= ~(((got & 0x7FFF) > 0x7F80) & ((expected & 0x7FFF) > 0x7F80))
    if differ.any():
        at = tuple(int(i) for i in np.argwhere(differ)[0])
        raise AssertionError(
            f"{int(differ.sum())} of {differ.size} differ, first at {at}: "
            f"expected {expected[at]!r}, got {got[at]!r}"
        )
