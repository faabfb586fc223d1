"""A folder of built files that later compilations find again, shared between processes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs
from filelock import FileLock

from spu_ir.errors import SpuError

KEEP = 256
"""So many files of a kind are kept; the longest unused go first."""


def cache_folder() -> Path:
    """
    Where built files are kept: SPU_IR_CACHE, or the user's cache folder.

    Native code is loaded from there, so it is made for its owner alone.
    Raises SpuError if it cannot be made.
    """
    folder = Path(os.environ.get("SPU_IR_CACHE") or platformdirs.user_cache_dir("spu-ir"))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SpuError(
            f"cannot make the cache folder {str(folder)!r}: {error}",
            remedy="set SPU_IR_CACHE to a folder that can be written",
        ) from error
    return folder


def digest_of(*parts: str | bytes) -> str:
    """The SHA-256, in hexadecimal, of a sequence of texts; each part's length counts."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()


def cached(kind: str, key: str, suffix: str, make: Callable[[Path], None]) -> Path:
    """
    The file of a `kind` that `make` writes for a `key` (hexadecimal), made at most once.

    The name carries a digest of the content, which is checked at every use: a damaged file
    is made again, and a path never changes its content. Raises SpuError if the folder
    cannot be written; what `make` raises passes through and leaves nothing behind.
    """
    base = cache_folder()
    folder = base / kind
    try:
        folder.mkdir(exist_ok=True)
        (base / "locks").mkdir(exist_ok=True)
        if (found := _find(folder, key, suffix)) is not None:
            return found
        with FileLock(base / "locks" / f"{kind}-{key[:2]}.lock"):
            if (found := _find(folder, key, suffix)) is not None:
                return found
            with tempfile.TemporaryDirectory(prefix=".making-", dir=folder) as scratch:
                made = Path(scratch) / f"made{suffix}"
                make(made)
                path = folder / f"{key}-{_content_digest(made)}{suffix}"
                os.replace(made, path)
            _prune(folder, suffix)
    except OSError as error:
        raise SpuError(
            f"cannot write the cache folder {str(base)!r}: {error}",
            remedy="set SPU_IR_CACHE to a folder that can be written and has space",
        ) from error
    return path


def _content_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _find(folder: Path, key: str, suffix: str) -> Path | None:
    for path in folder.glob(f"{key}-*{suffix}"):
        if path.name == f"{key}-{_content_digest(path)}{suffix}":
            os.utime(path)  # Last used now, for _prune.
            return path
        path.unlink(missing_ok=True)
    return None


def _prune(folder: Path, suffix: str) -> None:
    paths = sorted(folder.glob(f"*{suffix}"), key=lambda path: path.stat().st_mtime_ns)
    for path in paths[:-KEEP]:
        path.unlink(missing_ok=True)
