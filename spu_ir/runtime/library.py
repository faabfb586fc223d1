"""
A program's shared library behind typed functions: the one place that touches cffi's
untyped objects.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, cast

from spu_ir.errors import SpuError
from spu_ir.runtime.isa import LEVELS

LIBRARY_SUFFIX = ".abi3.so"

MODULE = "_spu_program"
"""The Python name of every program's module; the file's path tells programs apart."""

CDEF = """
typedef void (*spu_body)(void *frame, int64_t index);
typedef void (*spu_parallel_fn)(void *pool, spu_body body, void *frame, int64_t count);
typedef struct {
  const uint8_t *weights;
  uint8_t *arena;
  spu_parallel_fn parallel;
  void *pool;
  int64_t *counters;
  int32_t threads;
} spu_context;
int64_t spu_arena_bytes(const int64_t *extents);
void spu_output_shape(int32_t output, const int64_t *extents, int64_t *shape);
int32_t spu_run(const spu_context *context, const int64_t *extents,
                const void *const *inputs, void *const *outputs);
int32_t spu_cpu_supports(int32_t level);
void *spu_pool_get(int32_t threads);
spu_parallel_fn spu_pool_parallel(void);
"""
"""What Python sees of a library; `context.h` and `host.h` say what it means."""

# cffi's objects have no types: these stand for pointers and arrays in C.
CData = Any


class _Ffi(Protocol):
    def new(self, cdecl: str, init: object = None) -> CData: ...
    def cast(self, cdecl: str, source: object) -> CData: ...


class _Functions(Protocol):
    def spu_arena_bytes(self, extents: CData) -> int: ...
    def spu_output_shape(self, output: int, extents: CData, shape: CData) -> None: ...
    def spu_run(self, context: CData, extents: CData, inputs: CData, outputs: CData) -> int: ...
    def spu_cpu_supports(self, level: int) -> int: ...
    def spu_pool_get(self, threads: int) -> CData: ...
    def spu_pool_parallel(self) -> CData: ...


# The library that was loaded first, whose pool serves all; set by an atomic setdefault.
_first: dict[str, tuple[_Ffi, _Functions]] = {}


@dataclass(frozen=True, slots=True)
class Library:
    """
    One loaded program.

    Calls release the GIL. Addresses are plain integers; whoever passes one keeps the memory
    behind it alive until the call returns.
    """

    ffi: _Ffi
    functions: _Functions
    parallel: int
    pool: int
    threads: int

    def extents(self, values: Sequence[int]) -> CData:
        """The run-time extents as the other functions take them."""
        # One more than needed, so that no extents at all still make a valid pointer.
        return self.ffi.new("int64_t[]", [*values, 0])

    def arena_bytes(self, extents: CData) -> int:
        """Bytes of arena that a run needs."""
        return self.functions.spu_arena_bytes(extents)

    def output_shape(self, output: int, extents: CData, rank: int) -> tuple[int, ...]:
        """The shape of output number `output`."""
        shape = self.ffi.new("int64_t[]", rank + 1)
        self.functions.spu_output_shape(output, extents, shape)
        return tuple(int(shape[axis]) for axis in range(rank))

    def run(
        self,
        weights: int,
        arena: int,
        extents: CData,
        inputs: Sequence[int],
        outputs: Sequence[int],
        counters: int = 0,
    ) -> int:
        """
        One run; 0, or a code of `context.h`.

        `counters` is where a profiled program adds up (`runtime/counters.py`); 0 for nowhere.
        """
        new, pointer = self.ffi.new, self.ffi.cast
        context = new("spu_context *")
        context.weights = pointer("const uint8_t *", weights)
        context.arena = pointer("uint8_t *", arena)
        context.parallel = pointer("spu_parallel_fn", self.parallel)
        context.pool = pointer("void *", self.pool)
        context.counters = pointer("int64_t *", counters)
        if hasattr(context, "threads"):  # Packages before version 1.2 have no such field.
            context.threads = self.threads
        return self.functions.spu_run(
            context,
            extents,
            new(
                "const void *[]",
                [*(pointer("const void *", a) for a in inputs), pointer("void *", 0)],
            ),
            new("void *[]", [*(pointer("void *", a) for a in outputs), pointer("void *", 0)]),
        )


def load_library(path: Path, level: str, threads: int) -> Library:
    """
    Load a program's library of an ISA level, to run on up to `threads` threads.

    All programs of a process share the pool of the library that was loaded first. The
    content of a path must never change: Python keeps what it once loaded from there.
    Raises SpuError if the file does not load or is beyond this processor.
    """
    name = str(path.resolve())
    loader = importlib.machinery.ExtensionFileLoader(MODULE, name)
    spec = importlib.util.spec_from_file_location(MODULE, name, loader=loader)
    if spec is None:
        raise SpuError(f"cannot load the library {name!r}")
    try:
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    except ImportError as error:
        raise SpuError(
            f"cannot load the library {name!r}: {error}",
            remedy="it was built for another system; compile the model on this one",
        ) from error
    ffi = cast(_Ffi, module.ffi)
    functions = cast(_Functions, module.lib)
    if not functions.spu_cpu_supports(LEVELS[level].number):
        raise SpuError(
            f"this processor cannot run the level {level} of {name!r}",
            remedy="set SPU_IR_ISA=c",
        )
    pool_ffi, pool_functions = _first.setdefault("library", (ffi, functions))
    return Library(
        ffi,
        functions,
        parallel=int(pool_ffi.cast("uintptr_t", pool_functions.spu_pool_parallel())),
        pool=int(pool_ffi.cast("uintptr_t", pool_functions.spu_pool_get(threads))),
        threads=threads,
    )


def glue_source() -> str:
    """
    The C of the Python module around a program; the same for every program.

    It keeps to Python's limited ABI, so that one library serves every Python.
    """
    builder: Any = importlib.import_module("cffi").FFI()
    builder.cdef(CDEF)
    # The C compiler holds the declarations above against these headers.
    headers = '#include "context.h"\n#include "host.h"\n'
    # What FFI.emit_c_code calls too, but that would print a line on stdout.
    recompiler: Any = importlib.import_module("cffi.recompiler")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "glue.c"
        recompiler.make_c_source(builder, MODULE, headers, str(path))
        return path.read_text(encoding="utf-8")
