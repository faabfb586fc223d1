"""A planned module's tile sizes measured on this host: what `compile(tune=True)` does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from spu_ir._version import __version__
from spu_ir.dialects.functions import bounds
from spu_ir.errors import SpuError
from spu_ir.interpreters import main_of
from spu_ir.runtime.cache import digest_of
from spu_ir.runtime.caches import host_caches
from spu_ir.runtime.cpu import default_threads, select_level
from spu_ir.runtime.program import Array, Json, Port, Program
from spu_ir.transforms.tile_sizes import Tiling, suited
from spu_ir.tune import Choice, Emitted, Report, Run, remembered, search

if TYPE_CHECKING:
    from spu_ir.media.image_input import ImageInput
    from spu_ir.quantisation import Feeds
    from spu_ir.runtime.model import CompiledModel

SEED = 0

clock = time.perf_counter
"""What runs on several threads are timed with, in seconds."""

thread_clock = time.thread_time
"""
What runs on one thread are timed with: its processor time, in seconds. Those are on the thread that
calls, and what else the machine does takes less of this than of the time of day.
"""


def host_tiling(threads: int | None = None) -> Tiling:
    """What suits the caches of this host, for runs on `threads` (default: as many as it has)."""
    caches = host_caches()
    return suited(caches.l1d, caches.l2, default_threads() if threads is None else threads)


def tiling_options(tiling: Tiling | None, tuning: dict[str, Json] | None) -> dict[str, Json]:
    """What a package says of its tiles: sizes that are not the defaults, and how they came."""
    options: dict[str, Json] = {}
    if tiling is not None and str(tiling):
        options["tiling"] = dict(asdict(tiling))
    if tuning is not None:
        options["tuning"] = dict(tuning)
    return options


@dataclass(frozen=True)
class Tuner:
    """
    How a program is measured: `level`, `threads`, and the run-time `extents` by name.

    An extent that is not given is the largest that the program takes. Floats of the feeds are
    normal, bytes uniform, masks 1 and other integers 0, from a fixed seed; a program that takes
    images gets ones of the size that it resizes to.
    """

    level: str
    threads: int
    extents: Mapping[str, int]
    images: ImageInput | None = None

    @staticmethod
    def of(
        levels: Sequence[str] | None,
        threads: int | None,
        extents: Mapping[str, int] | None,
        images: ImageInput | None,
    ) -> Tuner:
        """With what `compile` was given. Raises SpuError if no level of `levels` runs here."""
        return Tuner(
            select_level(levels),
            default_threads() if threads is None else threads,
            dict(extents or {}),
            images,
        )

    def choose(
        self, module: ModuleOp, ctx: Context, start: Tiling, settings: str, report: Report
    ) -> tuple[Tiling, dict[str, Json]]:
        """
        The sizes for a module that is planned but not tiled, and what was measured of them.

        `module` stays as it is. Raises SpuError for an extent that the program does not have or
        a value outside its bounds, and as `build`.
        """
        processor, caches = _processor(), host_caches()
        sizes = self._sizes(module)
        key = digest_of(
            str(module),
            processor,
            repr(caches),
            self.level,
            str(self.threads),
            repr(sorted(sizes.items())),
            repr(start),
            repr(self.images),
            __version__,
        )

        def emit(tiling: Tiling) -> Emitted:
            program = _tiled(module, ctx, tiling, settings)
            return Emitted(program.ir, lambda: self._start(program, sizes))

        def measure() -> Choice:
            return search(start, emit, report)

        choice = remembered(key, measure)
        return choice.tiling, {
            "processor": processor,
            "caches": dict(asdict(caches)),
            "level": self.level,
            "threads": self.threads,
            "extents": dict(sizes),
            "chosen": dict(asdict(choice.tiling)),
            **choice.measured,
        }

    def _sizes(self, module: ModuleOp) -> dict[str, int]:
        """The run-time extents that are measured at."""
        limits = bounds(main_of(module))
        for name in self.extents.keys() - limits.keys():
            raise SpuError(
                f"tune_extents: there is no extent {name!r}",
                remedy=f"one of {', '.join(limits)}" if limits else "the model has none",
            )
        sizes = {name: self.extents.get(name, high) for name, (_, high) in limits.items()}
        for name, (low, high) in limits.items():
            if not low <= sizes[name] <= high:
                raise SpuError(f"tune_extents: {name}={sizes[name]} is outside {low} to {high}")
        return sizes

    def _start(self, program: Program, sizes: Mapping[str, int]) -> Run:
        from spu_ir.runtime.build import build
        from spu_ir.runtime.model import CompiledModel

        feeds = self._feeds(program.inputs, sizes)
        model = CompiledModel.from_program(
            program, build(program.source, [self.level]), threads=self.threads, device="none"
        )
        return _timed(model, feeds)

    def _feeds(self, inputs: Sequence[Port], sizes: Mapping[str, int]) -> Feeds:
        random = np.random.default_rng(SEED)
        feeds: dict[str, Array] = {}
        if self.images is not None:
            images = self.images.named([port.name for port in inputs])
            side = images.resize or max(images.height, images.width)
            batch = sizes[str(inputs[0].shape[0])] if isinstance(inputs[0].shape[0], str) else 1
            shape = (batch, side, side, images.channels)
            feeds = images.feeds(list(random.integers(0, 256, shape, np.uint8)))
        for port in inputs:
            if port.name not in feeds:
                shape = tuple(d if isinstance(d, int) else sizes[d] for d in port.shape)
                feeds[port.name] = _random(random, port, shape)
        return feeds


def _tiled(module: ModuleOp, ctx: Context, tiling: Tiling, settings: str) -> Program:
    from spu_ir.codegen.program import emit_program
    from spu_ir.transforms import pipelines

    copy = module.clone()
    for each in pipelines.tile(tiling):
        each.apply(ctx, copy)
    return emit_program(copy, ctx, (), tiling.after(settings), work=False)


def _timed(model: CompiledModel, feeds: Feeds) -> Run:
    now = thread_clock if model.threads == 1 else clock

    def run() -> float:
        begin = now()
        model.run(feeds)
        return now() - begin

    return run


def _random(random: np.random.Generator, port: Port, shape: tuple[int, ...]) -> Array:
    kind = port.numpy_dtype
    if kind == np.uint8:
        return random.integers(0, 256, shape, np.uint8)
    if kind.kind in "iub":
        return np.full(shape, "mask" in port.name.lower(), kind)
    return random.standard_normal(shape, np.float32).astype(kind)


def _processor() -> str:
    """The processor's name and model, as Linux lists them of the first one; `-` elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "-"
    wanted = ("model name", "cpu family", "model", "CPU implementer", "CPU part")
    found: dict[str, str] = {}
    for line in text.partition("\n\n")[0].splitlines():
        name, _, value = (part.strip() for part in line.partition(":"))
        if name in wanted:
            found[name] = value
    return ", ".join(found[name] for name in wanted if name in found) or "-"
