"""
`spu-perf install-backend PATH`: put the backend SPU into a checkout of ByteMLPerf, or take it out.

    spu-perf install-backend ~/ByteMLPerf
    spu-perf install-backend ~/ByteMLPerf --uninstall
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from spu_ir.errors import SpuError
from spu_ir.tools.command import exit_code

from .compile_side import BUILD

BACKUP = "spu_ir_backup"
"""In the backend's folder: what the files that were replaced or set aside used to be."""

MARK = "written by `spu-perf install-backend`"
"""By which our files are known, those of other versions too."""

ASIDE = ("requirements.txt",)
"""
Set aside while the backend is installed.

Where there is one, the engine makes a virtual environment for the backend, by a call that
virtualenv has not had since version 20, and installs what the former backend needed.
"""

_COMPILE = '''\
"""The compile backend of spu_ir, written by `spu-perf install-backend`: changes here are lost."""

from pathlib import Path

from general_perf.backends import compile_backend
from spu_ir.contrib.byte_mlperf.compile_side import CompileSide


class CompileBackendSPU(CompileSide, compile_backend.CompileBackend):
    def __init__(self):
        super().__init__(Path(__file__).parent)
'''

_RUNTIME = '''\
"""The runtime backend of spu_ir, written by `spu-perf install-backend`: changes here are lost."""

from pathlib import Path

from general_perf.backends import runtime_backend
from spu_ir.contrib.byte_mlperf.runtime_side import RuntimeSide


class RuntimeBackendSPU(RuntimeSide, runtime_backend.RuntimeBackend):
    def __init__(self):
        super().__init__(Path(__file__).parent)
'''

FILES = {"compile_backend_spu.py": _COMPILE, "runtime_backend_spu.py": _RUNTIME}
"""What is put into `backends/SPU`, by name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `spu-perf install-backend`; 0, or 1 after one `error:` line for what was given."""
    parser = argparse.ArgumentParser(
        prog="spu-perf install-backend",
        description="Put the backend SPU into a checkout of ByteMLPerf, or take it out.",
    )
    parser.add_argument(
        "path", type=Path, help="the checkout, or its byte_infer_perf or general_perf"
    )
    parser.add_argument(
        "--uninstall", action="store_true", help="take it out, and restore what was there"
    )
    options = parser.parse_args(arguments)

    def run() -> None:
        done = (uninstall if options.uninstall else install)(options.path)
        for line in done or ["nothing to do"]:
            print(line)

    return exit_code(run)


def general_perf_of(path: Path) -> Path:
    """
    The folder `general_perf` in, at or below `path`.

    Raises SpuError where there is none, or where it has no `backends` as the engine does.
    """
    for folder in (path, path / "general_perf", path / "byte_infer_perf" / "general_perf"):
        if (folder / "core" / "perf_engine.py").is_file() and (folder / "backends").is_dir():
            return folder
    raise SpuError(
        f"{path} is no checkout of ByteMLPerf: "
        + ("there is no general_perf in it" if path.exists() else "it does not exist"),
        remedy="give the folder that holds byte_infer_perf, or general_perf itself",
    )


def install(path: Path) -> list[str]:
    """
    Put the backend in; what was there is kept in a backup. Returns what was done, a line each.

    Installing again changes nothing, or renews the files of an older spu_ir. A file that is not
    ours is backed up before it is replaced, beside earlier backups of its name and never over
    them. Raises SpuError as `general_perf_of` does, and for what cannot be read or written.
    """
    folder = general_perf_of(path) / "backends" / "SPU"
    done: list[str] = []
    try:
        folder.mkdir(exist_ok=True)
        for name in (*FILES, *ASIDE):
            done += _back_up(folder / name, folder / BACKUP)
        for name in ASIDE:
            (folder / name).unlink(missing_ok=True)
        for name, text in FILES.items():
            target = folder / name
            if not target.exists() or target.read_text(encoding="utf-8") != text:
                _write(target, text)
                done.append(f"written: {target}")
    except (OSError, UnicodeDecodeError) as error:
        raise SpuError(f"the backend cannot be installed: {error}") from error
    return done


def uninstall(path: Path) -> list[str]:
    """
    Take the backend out and restore what it replaced last; returns what was done, a line each.

    What it exported and compiled goes too; reports and `spu_ir.json` stay, and so does a file
    that somebody else has put in its place. Raises SpuError as `install` does.
    """
    folder = general_perf_of(path) / "backends" / "SPU"
    backup = folder / BACKUP
    done: list[str] = []
    try:
        for name in (*FILES, *ASIDE):
            target = folder / name
            if _is_ours(target):
                target.unlink()
                done.append(f"removed: {target}")
            kept = _kept(backup, name)
            if kept and not target.exists():
                os.replace(kept[-1], target)
                done.append(f"restored: {target}")
            elif kept and kept[-1].read_bytes() == target.read_bytes():
                kept[-1].unlink()
        if (folder / BUILD).exists():
            shutil.rmtree(folder / BUILD)
            done.append(f"removed: {folder / BUILD}")
        for emptied in (backup, folder):
            if emptied.exists() and not any(emptied.iterdir()):
                emptied.rmdir()
    except (OSError, UnicodeDecodeError) as error:
        raise SpuError(f"the backend cannot be taken out: {error}") from error
    return done


def _back_up(target: Path, backup: Path) -> list[str]:
    """Copy a file that is not ours, unless the newest copy of its name is the same."""
    if not target.exists() or _is_ours(target):
        return []
    kept = _kept(backup, target.name)
    if kept and kept[-1].read_bytes() == target.read_bytes():
        return []
    backup.mkdir(exist_ok=True)
    copy = backup / (f"{target.name}.{len(kept) + 1}" if kept else target.name)
    part = copy.with_name(copy.name + ".part")
    shutil.copy2(target, part)
    os.replace(part, copy)
    return [f"backed up: {target} to {copy}"]


def _kept(backup: Path, name: str) -> list[Path]:
    """The copies of a file, the oldest first: `name`, `name.2`, `name.3`."""
    numbered = [copy for copy in backup.glob(f"{name}.*") if copy.suffix[1:].isdigit()]
    first = [backup / name] if (backup / name).exists() else []
    return [*first, *sorted(numbered, key=lambda copy: int(copy.suffix[1:]))]


def _is_ours(path: Path) -> bool:
    return path.name in FILES and path.exists() and MARK in path.read_text(encoding="utf-8")


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


if __name__ == "__main__":
    sys.exit(main())
