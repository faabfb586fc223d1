"""Compile C on the device headers for a test, at any ISA level that this host can run."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from filelock import FileLock

from spu_ir.runtime.build import DEVICE, program_flags
from spu_ir.runtime.cpu import host_levels

SANITISERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1", "-O0")


@cache
def levels_of_host() -> tuple[str, ...]:
    """The levels that this host can run, the most general first."""
    return host_levels()


@cache
def _folder() -> Path:
    # The session's cache, so that test processes on other cores find what one has built.
    root = os.environ.get("SPU_IR_CACHE") or tempfile.mkdtemp(prefix="spu-ir-test-")
    folder = Path(root) / "test-support"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@cache
def build(
    source: Path,
    level: str,
    *,
    sanitise: bool = False,
    shared: bool = True,
    optimise: str | None = None,
) -> Path:
    """
    The shared library (or executable) of `source` at `level`, as strict as generated programs.

    `optimise`, "-O1", replaces the level of optimisation that programs have.
    Built once for the same bytes of the source, the headers and the flags.
    """
    compiler = shutil.which(os.environ.get("CC", "gcc")) or "gcc"
    flags = [*program_flags(level), f"-I{DEVICE}"]
    flags += SANITISERS if sanitise else ()
    flags += (optimise,) if optimise and not sanitise else ()
    flags += ("-shared", "-fPIC") if shared else ()
    texts = [source, *sorted(DEVICE.glob("*.h"))]
    key = hashlib.sha256(" ".join([compiler, *flags]).encode())
    for text in texts:
        key.update(text.read_bytes())
    target = _folder() / f"{source.stem}-{level}-{key.hexdigest()[:16]}{'.so' if shared else ''}"
    # One process builds, the others wait for what it makes.
    with FileLock(f"{target}.lock"):
        if not target.exists():
            part = target.with_suffix(".part")
            command = [compiler, *flags, str(source), "-o", str(part), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise AssertionError(f"{' '.join(command)}\n{done.stderr}")
            part.replace(target)
    return target
