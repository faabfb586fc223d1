"""
Programs built into shared libraries: cffi's module around the generated C, compiled by the
system's C compiler, one library an ISA level, and kept in a cache.

A library has three parts: the program, compiled for its level; `host.c` (thread pool,
processor check) and cffi's glue, compiled for the architecture's baseline so that they can
refuse a processor that the program is beyond. The compiler is called directly: setuptools
would add the flags with which Python itself was built.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from spu_ir.errors import SpuError
from spu_ir.runtime.cache import cache_folder, cached, digest_of
from spu_ir.runtime.cpu import default_threads, select_level
from spu_ir.runtime.isa import LEVELS, architecture_levels
from spu_ir.runtime.library import LIBRARY_SUFFIX, glue_source

DEVICE = Path(__file__).parent / "device"
"""The C headers that implement the instructions, and `host.c`."""

WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-Wno-unused-function")
ARITHMETIC = ("-std=c11", "-O3", "-ffp-contract=off", "-fno-strict-aliasing")
"""What keeps results the same on every level: see the numerics contract."""

# -mtune changes the order of instructions, never which ones: results and reach stay.
_TUNING = ("-mtune=native",) if "avx2" in architecture_levels() else ()
_SHARED = ("-fPIC", "-fvisibility=hidden")

PROFILE = ("-DSPU_PROFILE", "-D_POSIX_C_SOURCE=200809L")
"""What makes a program count and time itself; its text is the same. See device/counters.h."""


@dataclass(frozen=True)
class Compiler:
    """A C compiler: how it is called, and what it says of itself."""

    command: tuple[str, ...]
    version: str


def find_compiler() -> Compiler:
    """
    The C compiler of $CC, else gcc, clang or cc.

    Raises SpuError, naming the package to install, if there is none.
    """
    chosen = os.environ.get("CC")
    try:
        commands = [tuple(shlex.split(chosen))] if chosen else [("gcc",), ("clang",), ("cc",)]
    except ValueError as error:
        raise SpuError(f"CC is {chosen!r}: {error}", remedy="set CC to gcc or clang") from error
    for command in commands:
        if command and shutil.which(command[0]):
            return _probe(command)
    raise SpuError(
        f"there is no C compiler: {chosen if chosen else 'gcc, clang or cc'} was not found",
        remedy="apt-get install gcc libc6-dev" + (", or unset CC" if chosen else ""),
    )


@cache
def _probe(command: tuple[str, ...]) -> Compiler:
    asked = subprocess.run(
        [*command, "--version"], capture_output=True, text=True, errors="replace", check=False
    )
    if asked.returncode != 0:
        raise SpuError(
            f"{shlex.join(command)} --version failed: {_first_line(asked.stderr)}",
            remedy="set CC to gcc or clang",
        )
    return Compiler(command, asked.stdout)


def build(
    source: str, levels: Iterable[str] | None = None, *, profile: bool = False
) -> dict[str, Path]:
    """
    The libraries of a program for ISA `levels` (default: the best that this host runs).

    With `profile` those that count and time what they do.

    Levels that are not in the cache are compiled at the same time, on as many processors
    as this process may use. Raises SpuError if a level is not one of this architecture,
    the compiler or Python's headers are missing, or the compiler fails.
    """
    wanted = [select_level()] if levels is None else list(levels)
    for level in wanted:
        if level not in architecture_levels():
            raise SpuError(
                f"{level!r} is no ISA level of this architecture",
                remedy=f"one of {', '.join(architecture_levels())}",
            )
    compiler = find_compiler()
    headers = _headers()
    shared = _build_host(compiler, headers)

    def build_one(level: str) -> Path:
        flags = (*program_flags(level), *(PROFILE if profile else ()), *_SHARED)
        return _build_program(compiler, headers, shared, source, flags)

    with ThreadPoolExecutor(max(1, min(len(wanted), default_threads()))) as workers:
        return dict(zip(wanted, workers.map(build_one, wanted), strict=True))


def program_flags(level: str) -> tuple[str, ...]:
    """The compiler's flags for a generated program at an ISA level."""
    return (*ARITHMETIC, *WARNINGS, *_TUNING, *LEVELS[level].flags)


def _headers() -> str:
    """A digest of every file in `device/`."""
    files = sorted(path for path in DEVICE.iterdir() if path.suffix in (".h", ".c"))
    return digest_of(*(part for path in files for part in (path.name, path.read_bytes())))


def _build_program(
    compiler: Compiler, headers: str, shared: Path, source: str, flags: tuple[str, ...]
) -> Path:
    key = digest_of(compiler.version, *compiler.command, headers, shared.name, source, *flags)

    def make(path: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="spu-ir-") as folder:
            text, compiled = Path(folder) / "program.c", Path(folder) / "program.o"
            text.write_text(source, encoding="utf-8")
            _compile(compiler, flags, text, compiled)
            link = ["-shared", "-o", str(path), str(compiled), str(shared), "-lm", "-pthread"]
            _call(compiler, link, text)

    return cached("libraries", key[:32], LIBRARY_SUFFIX, make)


def _build_host(compiler: Compiler, headers: str) -> Path:
    """The object that every library shares: `host.c` and cffi's glue."""
    include = _python_headers()
    glue = _glue()
    strict = (*ARITHMETIC, *WARNINGS, *_SHARED, "-pthread")
    # The glue is not ours to keep free of warnings.
    lenient = ("-std=gnu11", "-O2", "-w", *_SHARED, f"-I{include}")
    key = digest_of(
        compiler.version, *compiler.command, headers, glue, sys.version, *strict, *lenient
    )

    def make(path: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="spu-ir-") as folder:
            text = Path(folder) / "glue.c"
            text.write_text(glue, encoding="utf-8")
            parts = [Path(folder) / "host.o", Path(folder) / "glue.o"]
            _compile(compiler, strict, DEVICE / "host.c", parts[0])
            # cffi's assertions name the file: without the folder, which is another one each time.
            same = f"-fmacro-prefix-map={folder}/="
            _compile(compiler, (*lenient, same), text, parts[1])
            _call(compiler, ["-r", "-nostdlib", "-o", str(path), *map(str, parts)], text)

    return cached("host", key[:32], ".o", make)


@cache
def _glue() -> str:
    return glue_source()


def _python_headers() -> str:
    include = sysconfig.get_path("include")
    if not (Path(include) / "Python.h").is_file():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SpuError(
            f"Python's C headers are missing: there is no {include}/Python.h",
            remedy=f"apt-get install python{version}-dev",
        )
    return include


def _compile(compiler: Compiler, flags: Sequence[str], source: Path, compiled: Path) -> None:
    _call(
        compiler,
        [*flags, f"-I{DEVICE}", "-c", str(source), "-o", str(compiled)],
        source,
    )


def _call(compiler: Compiler, arguments: Sequence[str], source: Path) -> None:
    """Run the compiler; SpuError with its first complaint if it fails."""
    command = [*compiler.command, *arguments]
    ran = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    if ran.returncode == 0:
        return
    # What is needed to look into it, or to report it, stays; the user's program is theirs.
    kept = cache_folder() / "failed"
    kept.mkdir(exist_ok=True)
    shutil.copyfile(source, kept / "program.c")
    log = kept / "compiler.log"
    log.write_text(f"{shlex.join(command)}\n{ran.stderr}", encoding="utf-8")
    complaint = next((line for line in ran.stderr.splitlines() if "error" in line), ran.stderr)
    raise SpuError(
        f"{shlex.join(compiler.command)} failed on the generated C: {_first_line(complaint)}",
        remedy=f"see {log} beside the program",
    )


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0] if lines else "it said nothing"
