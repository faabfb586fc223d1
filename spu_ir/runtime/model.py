"""A compiled model: run it, save it, load it, look into it."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from spu_ir.errors import SpuError
from spu_ir.runtime.arena import POISON, ArenaPool
from spu_ir.runtime.cards_model import place
from spu_ir.runtime.cpu import check_threads, default_threads, select_level
from spu_ir.runtime.isa import architecture_levels
from spu_ir.runtime.library import Library, load_library
from spu_ir.runtime.package import Package, Verify, read_package, write_package
from spu_ir.runtime.program import Array, Extent, Json, Port, Program, check_ports
from spu_ir.runtime.weights import pack_weights
from spu_ir.targets import Target

if TYPE_CHECKING:
    from spu_ir.schedule.estimate import Estimate
    from spu_ir.schedule.profile import Profile
    from spu_ir.schedule.work import WorkTable

LAST_STAGE = "tiled"
"""The name of the stage that a package keeps: tiled and scheduled, printed to C as it is."""

_FAILURES = {
    1: "an extent is outside the bounds that the program was compiled for",
    2: "an index among the inputs is outside the axis that it selects from",
    3: "an image's geometry among the inputs is impossible, or reaches outside the image",
}


class CompiledModel:
    """
    A model that is ready to run; `run` may be called from any number of threads.

    Made by `from_program` or `load`.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    extents: tuple[Extent, ...]
    level: str
    """The ISA level that it runs at."""
    threads: int
    """Most threads that one run uses."""

    def __init__(
        self,
        package: Package,
        *,
        threads: int | None = None,
        stages: Mapping[str, str] | None = None,
        save_levels: Iterable[str] = (),
        device: int | Literal["none"] | None = None,
        name: str = "model",
        profile: bool = False,
    ):
        """
        Load the best library in `package` for this host, to run on `threads` threads.

        `stages` has the texts of `ir` by name; `save_levels` are the levels that `save`
        writes unless told otherwise. `device` is the card that it is put on, or "none", by
        default the first that has its chip; `name` is what `spu-smi` calls it. `profile` builds
        now what `profile` runs. Raises SpuError as `select_level`, `load_library` and `build`,
        and if the card cannot take the model.
        """
        self.inputs = package.inputs
        self.outputs = package.outputs
        self.extents = package.extents
        self.threads = default_threads() if threads is None else check_threads(threads)
        self.level = select_level(package.libraries)
        self._package = package
        self._stages = {**(stages or {}), LAST_STAGE: package.ir, "c": package.source}
        self._save_levels = tuple(save_levels) or tuple(package.libraries)
        self._library = load_library(package.libraries[self.level], self.level, self.threads)
        self._profiled = self._build_profiled() if profile else None
        self._weights = package.weights.address()
        # As many runs at once as threads are useful.
        self._arenas = ArenaPool(max(self.threads, default_threads()))
        self._closed = False
        self._placement = place(self, package, self._library, device, name)

    @classmethod
    def from_program(
        cls,
        program: Program,
        libraries: Mapping[str, Path] | None = None,
        *,
        threads: int | None = None,
        stages: Mapping[str, str] | None = None,
        options: Mapping[str, Json] | None = None,
        device: int | Literal["none"] | None = None,
        name: str = "model",
        profile: bool = False,
    ) -> CompiledModel:
        """
        The model of a program just compiled.

        `libraries` are what `build` made of it (default: built now, for this host's best
        level). `options` say how it was compiled and are kept in its package. `device`, `name`
        and `profile` are as `compile` has them.
        """
        check_ports(program.inputs, program.outputs, program.extents)
        package = Package(
            inputs=program.inputs,
            outputs=program.outputs,
            extents=program.extents,
            source=program.source,
            ir=program.ir,
            weights=pack_weights(program.weights),
            libraries=_build(program.source) if libraries is None else dict(libraries),
            report=copy.deepcopy(program.report),
            options=dict(options or {}),
            work=program.work,
        )
        return cls(
            package,
            threads=threads,
            stages=stages,
            save_levels=architecture_levels(),
            device=device,
            name=name,
            profile=profile,
        )

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """
        Run the model once: arrays by input name in, new arrays by output name out.

        The GIL is released while it computes, and no compiler is ever started. With
        SPU_IR_POISON=1 in the environment, scratch memory and outputs are filled with 0xCD
        first. Raises SpuError if an input is missing, unknown, or has the wrong dtype or
        shape, if an extent is out of bounds or not the same in all inputs, or memory is
        short, the model was closed, or it runs in a forked child for the first time and its card
        is full.
        """
        return self._run(feeds, self._library)

    def check(self, feeds: Mapping[str, Array]) -> dict[str, int]:
        """
        The run-time extents of `feeds` by name; nothing runs.

        Raises SpuError for names, dtypes, shapes and extents that `run` does not take.
        """
        values = self._extents_of(self._match(feeds))
        return {extent.name: n for extent, n in zip(self.extents, values, strict=True)}

    def _run(
        self, feeds: Mapping[str, Array], library: Library, counters: Array | None = None
    ) -> dict[str, Array]:
        """`run` by a library; a profiled one adds to `counters`."""
        if self._closed:
            raise SpuError("the model was closed", remedy="load or compile it again")
        arrays = self._match(feeds)
        placement = self._placement
        if placement is not None:
            placement.begin()
        values = self._extents_of(arrays)
        extents = library.extents(values)
        poison = os.environ.get("SPU_IR_POISON") == "1"
        results: list[Array] = []
        for number, port in enumerate(self.outputs):
            shape = library.output_shape(number, extents, len(port.shape))
            try:
                result = np.empty(shape, port.numpy_dtype)
            except MemoryError as error:
                raise SpuError(f"no memory for the output {port.name!r}, {error}") from error
            if poison:
                result.reshape(-1).view(np.uint8).fill(POISON)
            results.append(result)
        with self._arenas.borrow() as arena:
            code = library.run(
                self._weights,
                arena.reserve(library.arena_bytes(extents), poison=poison),
                extents,
                [_address(array) for array in arrays],
                [_address(array) for array in results],
                0 if counters is None else _address(counters),
            )
        if code != 0:
            raise SpuError(f"the run failed: {_FAILURES.get(code, f'code {code}')}")
        if placement is not None:
            samples = arrays[0].shape[0] if arrays and arrays[0].ndim else 1
            placement.record(tuple(values), samples)
        return {port.name: array for port, array in zip(self.outputs, results, strict=True)}

    def save(self, path: str | os.PathLike[str], *, levels: Iterable[str] | None = None) -> None:
        """
        Write the model to the folder `path`, from which `load` reads it.

        `levels` are the ISA levels to include; by default all of this architecture for a
        model just compiled, and those that it has for a loaded one. Missing ones are built.
        Raises SpuError as `build` does, and if `path` is something else than an older
        package or cannot be written; then nothing is left behind.
        """
        wanted = self._save_levels if levels is None else tuple(levels)
        if not wanted:
            raise SpuError("a package needs at least one ISA level")
        libraries = {k: v for k, v in self._package.libraries.items() if k in wanted}
        missing = [level for level in wanted if level not in libraries]
        if missing:
            libraries |= _build(self._package.source, missing)
        write_package(Path(path), replace(self._package, libraries=libraries))

    @cached_property
    def work(self) -> WorkTable:
        """
        What every step of the program does at any extents: docs/counters.md.

        Raises SpuError for a package that was written before there was such a table.
        """
        from spu_ir.schedule.work import WorkTable

        if self._package.work is None:
            raise SpuError(
                "the package has no table of its work: an older spu-ir wrote it",
                remedy="compile the model again",
            )
        return WorkTable.from_json(self._package.work)

    def estimate(
        self,
        target: str | os.PathLike[str] | Target | None = None,
        batch: int = 64,
        extents: Mapping[str, int] | None = None,
        **options: Any,
    ) -> Estimate:
        """
        What batches of `batch` samples would take on a card: docs/device-model.md.

        `target` is a name, a TOML file or a Target, by default what the model was compiled for.
        `extents` are those beside the batch, by default the largest that the model takes.
        `options` say how the work is laid out and what is skipped (`spu_ir.schedule.options`):
        cores, core_batch, zeros, real, wire, host. Nothing runs.

        Raises SpuError for a target, an extent or an option that there is not, and as `work`.
        """
        from spu_ir.schedule.of_model import estimate_model

        return estimate_model(
            self.work,
            Target.of_option(self.options.get("target")) if target is None else target,
            batch,
            extents,
            bounds={extent.name: (extent.minimum, extent.maximum) for extent in self.extents},
            inputs=self.inputs,
            **options,
        )

    def profile(
        self,
        feeds: Mapping[str, Array],
        *,
        target: str | os.PathLike[str] | Target | None = None,
        runs: int = 3,
    ) -> Profile:
        """
        Run the model `runs` times, and say for each step what it did and how long it took.

        Counted work, and zeros among the activations, are those of one run; the host's time is
        the median of the runs, with counting, after one that is not counted. `target` is the
        card whose time is modelled beside it (docs/device-model.md), by default the one that the
        model was compiled for.

        The first call compiles the counting program, unless `profile=True` made it when the model
        was compiled or loaded: that needs a C compiler. Raises SpuError as `run`, `build` and
        `work`.
        """
        from spu_ir.runtime.profiling import profile

        if self._profiled is None:
            self._profiled = self._build_profiled()
        library = self._profiled
        extents = self.check(feeds)

        def run(counters: Array) -> None:
            self._run(feeds, library, counters)

        card = Target.of_option(self.options.get("target")) if target is None else target
        return profile(self, run, extents, target=Target.load(card), runs=runs)

    def _build_profiled(self) -> Library:
        built = _build(self._package.source, [self.level], profile=True)
        return load_library(built[self.level], self.level, self.threads)

    def export_c(self, folder: str | os.PathLike[str]) -> None:
        """
        Write the model to `folder` as C: the program, the headers, the weights, an example
        that runs it, and a Makefile. Needs no Python to build and run.

        Raises SpuError if `folder` is something else than an older export or cannot be
        written; then nothing is left behind.
        """
        from spu_ir.runtime.export import export_package

        export_package(Path(folder), self._package)

    @property
    def device(self) -> int | None:
        """The device index of the card that it is on (docs/devices.md); None without one."""
        return None if self._placement is None else self._placement.device.index

    def close(self) -> None:
        """Take the model off its card; it does not run any more. More than once does nothing."""
        self._closed = True
        placement, self._placement = self._placement, None
        if placement is not None:
            placement.close()

    def report(self) -> list[dict[str, Json]]:
        """How each layer was compiled, one row a layer; a copy."""
        return copy.deepcopy(self._package.report)

    def ir(self, stage: str = LAST_STAGE) -> str:
        """
        The text of a stage of the compilation. A loaded model has only `tiled` and `c`.

        Raises SpuError, listing the stages there are, for an unknown one.
        """
        if stage not in self._stages:
            raise SpuError(
                f"there is no stage {stage!r}", remedy=f"one of {', '.join(self._stages)}"
            )
        return self._stages[stage]

    @property
    def options(self) -> dict[str, Json]:
        """How the model was compiled; a copy."""
        return dict(self._package.options)

    def __repr__(self) -> str:
        ports = ", ".join(map(str, self.inputs))
        results = ", ".join(map(str, self.outputs))
        return f"<CompiledModel {ports} -> {results}; {self.level}, {self.threads} threads>"

    def _match(self, feeds: Mapping[str, Array]) -> list[Array]:
        """The inputs in order, contiguous and aligned, of the right dtype and rank."""
        given = cast(Mapping[str, object], feeds)  # By the annotation; by callers, who knows.
        names = {port.name for port in self.inputs}
        for name in given.keys() - names:
            raise SpuError(f"there is no input {name!r}", remedy=self._expected())
        for name in names - given.keys():
            raise SpuError(f"the input {name!r} is missing", remedy=self._expected())
        arrays: list[Array] = []
        for port in self.inputs:
            value = given[port.name]
            if not isinstance(value, np.ndarray | np.generic):
                raise SpuError(
                    f"the input {port.name!r} is a {type(value).__name__}, not an array",
                    remedy=f"expected {port}",
                )
            array: Array = np.asarray(cast(object, value))
            if array.dtype != port.numpy_dtype:
                raise SpuError(
                    f"the input {port.name!r} has the dtype {array.dtype}",
                    remedy=f"expected {port}",
                )
            if array.ndim != len(port.shape):
                raise SpuError(
                    f"the input {port.name!r} has the shape {list(array.shape)}",
                    remedy=f"expected {port}",
                )
            if not (array.flags.c_contiguous and array.flags.aligned):
                array = np.require(array, requirements=["C", "A"])
            arrays.append(array)
        return arrays

    def _expected(self) -> str:
        return "the inputs are " + "; ".join(map(str, self.inputs))

    def _extents_of(self, arrays: list[Array]) -> list[int]:
        """The run-time extents in order, as all inputs agree on them."""
        values: dict[str, tuple[int, str]] = {}
        for port, array in zip(self.inputs, arrays, strict=True):
            for axis, (d, size) in enumerate(zip(port.shape, array.shape, strict=True)):
                if isinstance(d, int):
                    if size != d:
                        raise SpuError(
                            f"the input {port.name!r} has the shape {list(array.shape)}: "
                            f"{size} on axis {axis}, not {d}",
                            remedy=f"expected {port}",
                        )
                    continue
                first, where = values.setdefault(d, (size, port.name))
                if first != size:
                    raise SpuError(
                        f"the extent {d!r} is {first} in the input {where!r} and {size} in "
                        f"{port.name!r}",
                        remedy=self._expected(),
                    )
        result: list[int] = []
        for extent in self.extents:
            value, where = values[extent.name]
            if not extent.minimum <= value <= extent.maximum:
                raise SpuError(
                    f"the extent {extent.name!r} is {value} in the input {where!r}, "
                    f"allowed are {extent.minimum} to {extent.maximum}",
                    remedy="compile the model with bounds that include it",
                )
            result.append(value)
        return result


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    verify: Verify = "once",
    device: int | Literal["none"] | None = None,
    profile: bool = False,
) -> CompiledModel:
    """
    Load the model that `save` wrote to the folder `path`. Needs no compiler.

    `threads` bounds the threads of one run (default: SPU_IR_THREADS, else the processors of
    this process). `verify` is when the weights are held against their digest: "once" as long
    as the file is untouched, or "always"; code always is. A package contains native code, and
    digests detect damage, not malice. `device` is the index of the card to put it on, or "none"
    (default: the first with its chip; docs/devices.md). `profile` builds now what
    `CompiledModel.profile` runs, which does need a compiler. Raises SpuError, naming the file, for
    a package that is incomplete, damaged, of another version or for another processor, and, with
    the numbers, for a full card.
    """
    if verify not in ("once", "always"):
        raise SpuError(f"verify={verify!r} is unknown", remedy="use 'once' or 'always'")
    name = Path(path).resolve().stem
    package = read_package(Path(path), verify)
    return CompiledModel(package, threads=threads, device=device, name=name, profile=profile)


def _build(
    source: str, levels: Iterable[str] | None = None, *, profile: bool = False
) -> dict[str, Path]:
    """`build`, imported on first use: loading starts no compiler."""
    from spu_ir.runtime.build import build

    return build(source, levels, profile=profile)


def _address(array: Array) -> int:
    return array.__array_interface__["data"][0]
