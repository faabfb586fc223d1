"""
A compiled model as a folder; docs/package-format.md describes it.

A package contains native code that runs with the rights of whoever loads it. Its digests
detect damage, not malice: load only packages that you would also run as a program.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from spu_ir._version import __version__
from spu_ir.errors import SpuError
from spu_ir.runtime.cache import cache_folder, digest_of
from spu_ir.runtime.fields import Fields, damaged
from spu_ir.runtime.folders import new_folder
from spu_ir.runtime.isa import LEVELS
from spu_ir.runtime.library import LIBRARY_SUFFIX
from spu_ir.runtime.program import Extent, Json, Port, check_ports
from spu_ir.runtime.weights import Weights, map_weights

FORMAT = "spu-package"
VERSION = (1, 2)
"""Major and minor version of the format that this code writes; it reads the same major."""

MANIFEST, SOURCE, IR, WEIGHTS = "manifest.json", "program.c", "program.mlir", "weights.safetensors"
WORK = "work.json"
_LIMIT = 256 << 20  # bytes of a manifest, program or IR that load reads

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)

Verify = Literal["once", "always"]


@dataclass(frozen=True)
class Package:
    """Everything of a compiled model that is stored; `libraries` has a file per ISA level."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    extents: tuple[Extent, ...]
    source: str
    ir: str
    weights: Weights
    libraries: Mapping[str, Path]
    report: list[dict[str, Json]] = field(default_factory=list[dict[str, Json]])
    options: Mapping[str, Json] = field(default_factory=dict[str, Json])
    work: Json = None
    """The JSON of the program's table of work; None in a package from before there was one."""


def is_package(path: Path) -> bool:
    """Whether a folder calls itself a package, whole or damaged."""
    try:
        manifest = Fields.parse(path / MANIFEST, _read(path / MANIFEST))
    except SpuError:
        return False
    return manifest.table.get("format") == FORMAT


def write_package(path: Path, package: Package) -> None:
    """
    Write `package` to the folder `path`, whole or not at all; replaces an older package.

    The weights are read back for their digest, so that `read_package` on this machine need not.
    Raises SpuError if something else is there or the folder cannot be written.
    """
    with new_folder(path, "a package", is_package) as folder:
        texts = {SOURCE: package.source, IR: package.ir}
        if package.work is not None:
            texts[WORK] = json.dumps(package.work, separators=(",", ":"), allow_nan=False) + "\n"
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
        with (folder / WEIGHTS).open("wb") as file:
            file.write(package.weights.image)
        identity = _identity(folder / WEIGHTS)
        (folder / "lib").mkdir()
        libraries: dict[str, Json] = {}
        for level, library in sorted(package.libraries.items()):
            digest = _file_digest(library)
            libraries[level] = digest
            shutil.copyfile(library, folder / _library_name(level, digest))
        digests = {name: _file_digest(folder / name) for name in (*texts, WEIGHTS)}
        manifest: dict[str, Json] = {
            "format": FORMAT,
            "version": list(VERSION),
            "product": {"name": "spu-ir", "version": __version__},
            "host": {"machine": platform.machine(), "system": platform.system()},
            "inputs": [_port_json(port) for port in package.inputs],
            "outputs": [_port_json(port) for port in package.outputs],
            "extents": [
                {"name": e.name, "minimum": e.minimum, "maximum": e.maximum}
                for e in package.extents
            ],
            "options": dict(package.options),
            "files": {**digests},
            "libraries": libraries,
            "report": [*package.report],
        }
        manifest["digest"] = _manifest_digest(manifest)
        text = json.dumps(manifest, indent=2, allow_nan=False) + "\n"
        (folder / MANIFEST).write_text(text, encoding="ascii")
    # What has been read back as it was written counts as verified; a folder's new name changes
    # nothing of the files in it.
    _mark_verified(identity, digests[WEIGHTS])


def read_package(path: Path, verify: Verify = "once") -> Package:
    """
    Read the package at `path`; its weights are mapped, not read.

    The manifest, the program and all libraries are held against their digests every time;
    the weights too with `verify="always"`, else once as long as the file stays untouched.
    Raises SpuError, naming the file, if anything is missing, damaged, or of a version or a
    host that cannot be used here.
    """
    reader = Fields.parse(path / MANIFEST, _read(path / MANIFEST))
    _check_manifest(reader)
    inputs = tuple(_port(entry) for entry in reader.tables("inputs"))
    outputs = tuple(_port(entry) for entry in reader.tables("outputs"))
    extents = tuple(
        Extent(entry.text("name"), entry.number("minimum"), entry.number("maximum"))
        for entry in reader.tables("extents")
    )
    check_ports(inputs, outputs, extents)

    files = reader.fields("files")
    text: dict[str, str] = {}
    for name in (SOURCE, IR, *((WORK,) if WORK in files.table else ())):
        data = _read(path / name)
        if hashlib.sha256(data).hexdigest() != files.text(name):
            raise damaged(path / name, "its digest is not the manifest's")
        text[name] = data.decode("utf-8", errors="replace")
    libraries: dict[str, Path] = {}
    stored = reader.fields("libraries")
    for level in LEVELS:  # Later minor versions may have more.
        if level not in stored.table:
            continue
        digest = stored.text(level)
        if not _DIGEST.fullmatch(digest):
            raise reader.damaged(f"the digest of level {level} is none")
        libraries[level] = library = path / _library_name(level, digest)
        if _file_digest(library) != digest:
            raise damaged(library, "its digest is not the manifest's")
    _verify_weights(path / WEIGHTS, files.text(WEIGHTS), verify)
    return Package(
        inputs=inputs,
        outputs=outputs,
        extents=extents,
        source=text[SOURCE],
        ir=text[IR],
        weights=map_weights(path / WEIGHTS),
        libraries=libraries,
        report=[row.table for row in reader.tables("report")],
        options=reader.fields("options").table,
        work=Fields.parse(path / WORK, text[WORK].encode()).table if WORK in text else None,
    )


def _port(reader: Fields) -> Port:
    shape = reader.items("shape")
    if not all(isinstance(d, int | str) for d in shape):
        raise reader.damaged("a shape is not of numbers and names")
    return Port(reader.text("name"), reader.text("dtype"), tuple(cast(list[int | str], shape)))


def _check_manifest(reader: Fields) -> None:
    """Hold the format, its version, the digest and the host against what is read here."""
    path = reader.path
    if reader.table.get("format") != FORMAT:
        raise SpuError(f"{str(path)!r} is not the manifest of a package")
    version = reader.items("version")
    major = version[0] if version else None
    if major != VERSION[0]:
        newer = isinstance(major, int) and major > VERSION[0]
        raise SpuError(
            f"{str(path)!r} has the format version {version}, this spu-ir reads {VERSION[0]}.x",
            remedy="update spu-ir" if newer else "compile the model again",
        )
    if reader.text("digest") != _manifest_digest(reader.table):
        raise reader.damaged("its digest is not that of its content")
    host = reader.fields("host")
    system, machine = host.text("system"), host.text("machine")
    if (system, machine) != (platform.system(), platform.machine()):
        raise SpuError(
            f"{str(path.parent)!r} was compiled for {system} on {machine}, "
            f"this is {platform.system()} on {platform.machine()}",
            remedy="compile the model on this system",
        )


def _verify_weights(path: Path, digest: str, verify: Verify) -> None:
    """Hold the weights to their digest, unless this very file has been before."""
    identity = _identity(path)
    if verify == "once" and _was_verified(identity, digest):
        return
    if _file_digest(path) != digest:
        raise damaged(path, "its digest is not the manifest's")
    _mark_verified(identity, digest)


def _identity(path: Path) -> tuple[int, ...]:
    """What changes with any write to a file, since that changes its ctime."""
    try:
        status = path.stat()
    except OSError as error:
        raise SpuError(f"cannot read {str(path)!r}: {error.strerror}") from error
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return (status.st_dev, status.st_ino, status.st_size, *times)


def _was_verified(identity: tuple[int, ...], digest: str) -> bool:
    return _mark(identity, digest, Path.exists)


def _mark_verified(identity: tuple[int, ...], digest: str) -> None:
    _mark(identity, digest, lambda mark: mark.touch() is None)


def _mark(identity: tuple[int, ...], digest: str, act: Callable[[Path], bool]) -> bool:
    """Do something with a file's mark in the cache; without a cache nothing was verified."""
    try:
        folder = cache_folder() / "verified"
        folder.mkdir(exist_ok=True)
        return act(folder / digest_of(*map(str, identity), digest))
    except (OSError, SpuError):
        return False


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > _LIMIT:
                raise damaged(path, f"it is larger than {_LIMIT} bytes")
            return file.read()
    except OSError as error:
        raise SpuError(
            f"cannot read {str(path)!r}: {error.strerror}",
            remedy="give the folder that save wrote",
        ) from error


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SpuError(f"cannot read {str(path)!r}: {error.strerror}") from error


def _manifest_digest(manifest: dict[str, Json]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _library_name(level: str, digest: str) -> str:
    # With the digest in its name a path always means the same code: Python and the system's
    # loader keep a library by its path, also when a package is replaced.
    return f"lib/{level}-{digest[:16]}{LIBRARY_SUFFIX}"


def _port_json(port: Port) -> Json:
    return {"name": port.name, "dtype": port.dtype, "shape": [*port.shape]}
