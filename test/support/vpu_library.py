"""The VPU's instructions as C functions on numpy arrays, at every ISA level of the host."""

from __future__ import annotations

import ctypes
import os
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from spu_ir.runtime.build import find_compiler, program_flags
from spu_ir.runtime.cpu import host_levels

SANITISED = "SPU_TEST_SANITISED"
"""Set (with the sanitiser's runtime preloaded) in the process that runs sanitised builds."""
SANITISERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")
DEVICE = Path(__file__).parents[2] / "spu_ir" / "runtime" / "device"

_C_TYPES = {
    np.dtype(np.float32): ctypes.c_float,
    np.dtype(np.int64): ctypes.c_int64,
    np.dtype(np.int32): ctypes.c_int32,
}

LEVELS = ("c", host_levels()[-1]) if SANITISED in os.environ else host_levels()
"""The levels that the tests run: all that the host has."""


class Device:
    """The library of one level; `call` passes arrays by address, int as i64 and float as f32."""

    def __init__(self, path: Path):
        self.library = ctypes.CDLL(str(path))

    def call(self, name: str, *arguments: Any, returns: type[np.generic] | None = None) -> Any:
        """
        Call `name`. Give numpy scalars (np.int32(3)) where C's parameter is not an int64_t or a
        float, None for NULL, and the numpy type that it `returns`, if any.
        """
        function = self.library[name]
        function.restype = _C_TYPES[np.dtype(returns)] if returns else None
        return function(*[_argument(a) for a in arguments])


def _argument(value: Any) -> Any:
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    if isinstance(value, np.generic):
        return _C_TYPES[value.dtype](value.item())
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int64(value)


@cache
def device(level: str) -> Device:
    """The VPU's instructions, compiled for `level` exactly as programs are."""
    source = Path(__file__).with_name("vpu_kernel.c")
    target = Path(mkdtemp(prefix="spu-vpu-")) / f"{level}.so"
    sanitisers = SANITISERS if SANITISED in os.environ else ()
    subprocess.run(
        [
            *find_compiler().command,
            *program_flags(level),
            *sanitisers,
            "-fPIC",
            "-shared",
            f"-I{DEVICE}",
            str(source),
            "-o",
            str(target),
        ],
        check=True,
    )
    return Device(target)


def assert_same_bits(got: np.ndarray[Any, Any], expected: Any) -> None:
    """Equal bit for bit; any NaN equals any NaN. Names the first element that differs."""
    want = np.asarray(expected)
    assert got.dtype == want.dtype, f"{got.dtype} instead of {want.dtype}"
    assert got.shape == want.shape, f"{got.shape} instead of {want.shape}"
    if got.dtype == np.float32:
        same = (got.view(np.uint32) == np.ascontiguousarray(want).view(np.uint32)) | (
            np.isnan(got) & np.isnan(want)
        )
    else:
        same = got == want
    if not same.all():
        at = tuple(int(i) for i in np.argwhere(~same)[0])
        count = int((~same).sum())
        raise AssertionError(f"{count} differ, first {at}: got {got[at]!r}, not {want[at]!r}")
