"""
Where a compiled model's time goes: seconds of every layer, on one thread.

The program is the very library that is measured. A model runs its parallel regions through a
function that its host lends it; here that is one that times each of them. The n-th region of a run
is the n-th of the program's IR, which names its layers.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spu_ir.runtime.arena import ArenaPool
from spu_ir.runtime.build import find_compiler
from spu_ir.runtime.cpu import select_level
from spu_ir.runtime.library import load_library
from spu_ir.runtime.package import Package, read_package

from .fidelity_cases import Array

MOST_REGIONS = 1 << 14
REGION = '    "scf.parallel"('
"""How a region of the program starts in the printed IR; the ops in it are indented further."""
_OP = re.compile(r'^ {5,}(?:%\S+ = )?((?:spu|vpu|antoum)\.[\w.]+) (?:.*\{layer = "([^"]*)")?')


@dataclass(frozen=True)
class Region:
    """One parallel region: what it does, for which layers, and the seconds it takes."""

    ops: tuple[str, ...]
    layers: tuple[str, ...]
    seconds: float = 0.0


class _Times(ctypes.Structure):
    _fields_ = (
        ("seconds", ctypes.c_void_p),
        ("limit", ctypes.c_int64),
        ("count", ctypes.c_int64),
    )


def regions_of(ir: str) -> list[Region]:
    """The parallel regions of the `main` function of a tiled module's text, in order."""
    found: list[tuple[list[str], list[str]]] = []
    for line in ir.splitlines():
        if line.startswith("    func.return"):
            break
        if line.startswith(REGION):
            found.append(([], []))
            continue
        match = _OP.match(line)
        if match and found:
            op, layer = match.group(1), match.group(2)
            found[-1][0].append(op)
            if layer:
                found[-1][1].append(layer)
    return [Region(tuple(ops), tuple(dict.fromkeys(layers))) for ops, layers in found]


def profile(path: Path, feeds: Mapping[str, Array], runs: int) -> list[Region] | None:
    """
    The regions of the package at `path` with the least seconds of `runs` runs on `feeds`.

    None if the program does not run one region after the other as its IR has them.
    """
    package = read_package(path)
    expected = regions_of(package.ir)
    with tempfile.TemporaryDirectory(prefix="spu-ir-benchmark-") as folder:
        hook = Path(folder) / "hook.so"
        source = Path(__file__).with_suffix(".c")
        flags = ("-std=c11", "-O2", "-shared", "-fPIC")
        command = [*find_compiler().command, *flags, str(source), "-o", str(hook)]
        subprocess.run(command, check=True)
        library = ctypes.CDLL(str(hook))
    buffer = np.zeros(MOST_REGIONS)
    times = _Times(buffer.ctypes.data, MOST_REGIONS, 0)
    parallel = ctypes.cast(library.timed_parallel, ctypes.c_void_p).value
    assert parallel is not None
    best = np.full(len(expected), np.inf)
    run = _runner(package, feeds, parallel, ctypes.addressof(times))
    run()
    for _ in range(runs):
        times.count = 0
        run()
        if times.count == 0 or times.count % len(expected):
            return None
        # A program that runs its samples apart has all regions of one after those of another.
        seconds = buffer[: times.count].reshape(-1, len(expected)).sum(axis=0)
        best = np.minimum(best, seconds)
    return [
        replace(region, seconds=float(seconds))
        for region, seconds in zip(expected, best, strict=True)
    ]


def _runner(package: Package, feeds: Mapping[str, Array], parallel: int, pool: int) -> Any:
    """A function that runs the package once, its regions through `parallel`."""
    level = select_level(package.libraries)
    library = replace(
        load_library(package.libraries[level], level, 1), parallel=parallel, pool=pool
    )
    arrays = [np.ascontiguousarray(feeds[port.name]) for port in package.inputs]
    sizes: dict[str, int] = {}
    for port, array in zip(package.inputs, arrays, strict=True):
        named = zip(port.shape, array.shape, strict=True)
        sizes |= {dim: size for dim, size in named if isinstance(dim, str)}
    extents = library.extents([sizes[extent.name] for extent in package.extents])
    outputs = [
        np.empty(library.output_shape(number, extents, len(port.shape)), port.numpy_dtype)
        for number, port in enumerate(package.outputs)
    ]
    weights, arenas = package.weights.address(), ArenaPool(1)

    def run() -> None:
        with arenas.borrow() as arena:
            code = library.run(
                weights,
                arena.reserve(library.arena_bytes(extents), poison=False),
                extents,
                [array.ctypes.data for array in arrays],
                [array.ctypes.data for array in outputs],
            )
        if code:
            raise RuntimeError(f"the run failed with code {code}")

    return run
