"""How a package comes to the nodes of a Ray cluster, once to each."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from filelock import FileLock

from spu_ir.errors import SpuError
from spu_ir.extras import extra_module
from spu_ir.runtime.cache import cache_folder
from spu_ir.runtime.fields import Fields
from spu_ir.runtime.folders import new_folder
from spu_ir.runtime.package import MANIFEST, is_package, read_package

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Ship = Literal["object", "path"]

# Names that `save` writes: nothing else is put on a node, and nothing outside its folder.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)?", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


def ray(module: str = "ray") -> Any:
    """Ray, or a module of it. Raises SpuError, naming the extra, where it is missing."""
    return extra_module(module, "a batch job", "ray")


@dataclass(frozen=True)
class OnPath:
    """A package on a file system that all nodes share."""

    path: str
    digest: str

    def folder(self) -> Path:
        """Where it is. Raises SpuError where this node has none there, or another one."""
        found = digest_of_package(Path(self.path))
        if found != self.digest:
            raise SpuError(
                f"the package at {self.path!r} on this node is another one than the job began with",
                remedy="share one folder between the nodes, or use ship='object'",
            )
        return Path(self.path)


@dataclass(frozen=True)
class InStore:
    """A package in Ray's object store: `files` refers to its content, u8 arrays by name."""

    files: Any
    digest: str

    def folder(self) -> Path:
        """
        The package in this node's cache folder; the first process of a node puts it there.

        Raises SpuError where the cache cannot be written, or what came is not what was sent.
        """
        if not _DIGEST.fullmatch(self.digest):
            raise SpuError("the digest of the package is none")
        return unpack(lambda: ray().get(self.files), self.digest)


Shipped: TypeAlias = "OnPath | InStore"


def ship(package: str | os.PathLike[str], how: Ship) -> Shipped:
    """
    Make the package ready for the nodes: read into the object store, or by its path only.

    All digests are checked here first. Raises SpuError as `load`.
    """
    path = Path(package).resolve()
    if how not in ("object", "path"):
        raise SpuError(f"ship={how!r} is unknown", remedy="use 'object' or 'path'")
    read_package(path)
    digest = digest_of_package(path)
    if how == "path":
        return OnPath(str(path), digest)
    return InStore(ray().put(pack(path)), digest)


def digest_of_package(path: Path) -> str:
    """The digest in a package's manifest, which stands for all of its files."""
    try:
        data = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise SpuError(
            f"cannot read {str(path / MANIFEST)!r}: {error.strerror}",
            remedy="with ship='path' every node needs the package there; else use ship='object'",
        ) from error
    return Fields.parse(path / MANIFEST, data).text("digest")


def pack(path: Path) -> dict[str, Array]:
    """The files of a package as u8 arrays by their name relative to it."""
    files: dict[str, Array] = {}
    for file in sorted(path.rglob("*")):
        if stat.S_ISREG(file.stat().st_mode):
            files[file.relative_to(path).as_posix()] = np.fromfile(file, np.uint8)
    return files


def unpack(files: Any, digest: str) -> Path:
    """
    The folder in the cache with the package of this digest; `files()` is called where it is not.

    It appears complete or not at all, and its content is verified before any process loads it.
    Raises SpuError if it is not that of the digest, or the cache cannot be written.
    """
    try:
        packages = cache_folder() / "packages"
        packages.mkdir(mode=0o700, exist_ok=True)
        place = packages / f"{digest}.spu"
        with FileLock(packages / f"{digest[:16]}.lock"):
            if _is_whole(place, digest):
                return place
            content: Mapping[str, Array] = files()
            with new_folder(place, "a package", is_package) as folder:
                for name, data in content.items():
                    if not _NAME.fullmatch(name):
                        raise SpuError(f"{name!r} is no file of a package")
                    (folder / name).parent.mkdir(exist_ok=True)
                    (folder / name).write_bytes(data.data)
                read_package(folder, "always")
                if digest_of_package(folder) != digest:
                    raise SpuError("the package that came is not the one that was sent")
            return place
    except OSError as error:
        raise SpuError(
            f"cannot write the cache folder: {error}",
            remedy="set SPU_IR_CACHE to a folder that can be written and has space",
        ) from error


def _is_whole(place: Path, digest: str) -> bool:
    try:
        read_package(place)
        return digest_of_package(place) == digest
    except SpuError:
        return False
