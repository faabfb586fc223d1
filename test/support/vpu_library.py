"""The VPU's instructions as C functions on numpy arrays, at every ISA level of the host."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.device import build

from spu_ir.runtime.cpu import host_levels

Array = NDArray[Any]

SANITISED = "SPU_TEST_SANITISED"
"""Set (with the sanitiser's runtime preloaded) in the process that runs sanitised builds."""
DEVICE = Path(__file__).parents[2] / "spu_ir" / "runtime" / "device"

_C_TYPES = {
    np.dtype(np.float32): ctypes.c_float,
    np.dtype(np.int64): ctypes.c_int64,
    np.dtype(np.int32): ctypes.c_int32,
}

LEVELS = ("c", host_levels()[-1]) if SANITISED in os.environ else host_levels()
"""The levels that the tests run: all that the host has."""


# fmt: off
SPECIAL = np.array([
    0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -3.5, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 3e38, -3e38,
    88.0, 89.5, -87.5, -104.5, 2147483648.0, -2147483904.0, 127.5, 255.5, 8388609.0,
], np.float32)
# fmt: on


def floats(seed: int, *shape: int, special: bool = True, scale: float = 3.0) -> Array:
    """Normal numbers, every fifth a special value where those are wanted."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(shape) * scale).astype(np.float32)
    if special:
        x = np.where(rng.random(shape) < 0.2, rng.choice(SPECIAL, shape), x)
    return x


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
    return Device(build(source, level, sanitise=SANITISED in os.environ))


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
