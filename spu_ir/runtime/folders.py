"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from spu_ir.errors import SpuError


@contextmanager
def new_folder(path: Path, what: str, replaceable: Callable[[Path], bool]) -> Generator[Path]:
    """
    Give a folder to fill, which becomes `path` at the end of the `with`.

    It is written beside `path` and renamed; after any failure nothing of it is left and
    what was at `path` is as before. An existing `path` is replaced only if it is an empty
    folder or `replaceable` says that it is an older `what`.
    Raises SpuError if it is neither, or the file system refuses.
    """
    path = path.absolute()
    try:
        exists = path.exists() or path.is_symlink()
        if exists and not (path.is_dir() and (not any(path.iterdir()) or replaceable(path))):
            raise SpuError(
                f"{str(path)!r} exists and is not {what}",
                remedy="choose another folder, or remove it yourself",
            )
        with tempfile.TemporaryDirectory(
            prefix=f".{path.name[:64]}.", dir=path.parent, ignore_cleanup_errors=True
        ) as scratch:
            # One level deeper, so that it gets a usual folder's mode, not a private one's.
            fresh, old = Path(scratch) / "new", Path(scratch) / "old"
            fresh.mkdir()
            yield fresh
            if exists:
                path.rename(old)
            try:
                fresh.rename(path)
            except OSError:
                if exists:
                    old.rename(path)
                raise
    except (OSError, shutil.Error) as error:
        raise SpuError(
            f"cannot write {what} to {str(path)!r}: {error}",
            remedy="choose a folder that exists, can be written and has space",
        ) from error


def new_file(path: Path, what: str, text: str) -> None:
    """
    Write `text` to the file `path`, whole or not at all; what is no file, a pipe, is written to.

    Raises SpuError, which calls it `what`, if the file system refuses.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        path = path.resolve()  # A link stays, what it points to is replaced.
        with tempfile.TemporaryDirectory(
            prefix=f".{path.name[:64]}.", dir=path.parent, ignore_cleanup_errors=True
        ) as scratch:
            fresh = Path(scratch) / "new"
            fresh.write_text(text, encoding="utf-8")
            os.replace(fresh, path)
    except OSError as error:
        raise SpuError(
            f"cannot write {what} to {str(path)!r}: {error}",
            remedy="choose a file in a folder that exists, can be written and has space",
        ) from error
