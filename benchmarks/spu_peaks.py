"""The rates that the processor's registers allow: loops without memory, in a library alone."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

from spu_ir.runtime.build import DEVICE, find_compiler, program_flags


def library(name: str, level: str, folder: Path) -> ctypes.CDLL:
    """NAME.c of this folder, compiled in `folder` as programs of an ISA level are."""
    compiled = folder / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.c")
    flags = (*program_flags(level), f"-I{DEVICE}", "-shared", "-fPIC")
    subprocess.run([*find_compiler().command, *flags, str(source), "-o", str(compiled)], check=True)
    return ctypes.CDLL(str(compiled))


class Peaks:
    """The loops at one ISA level: `peak_dot` of vpdpbusd, `peak_pair` of vpermb and vpdpbusd."""

    def __init__(self, level: str, folder: Path):
        self._library = library("spu_peaks", level, folder)

    def rate(self, name: str, loops: int = 20_000, tries: int = 500) -> float | None:
        """
        The best of `tries` runs of a loop in MAC/s; None where the ISA has none.

        On a busy machine many short runs find the peak sooner than a few long ones.
        """
        loop = getattr(self._library, name, None)
        if loop is None:
            return None
        loop.restype = ctypes.c_double
        return max(float(loop(ctypes.c_int64(loops))) for _ in range(tries))
