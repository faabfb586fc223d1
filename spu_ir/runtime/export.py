"""A compiled model as a folder of C with a Makefile: builds and runs without Python."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from spu_ir.runtime.build import DEVICE
from spu_ir.runtime.folders import new_folder
from spu_ir.runtime.package import Package
from spu_ir.runtime.program import Extent, Port

_MARK = "/* spu-ir export: the ports of program.c */\n"


def export_package(folder: Path, package: Package) -> None:
    """
    Write `program.c`, `weights.bin`, the device headers, `ports.h`, an example `main.c`
    and a `Makefile` to `folder`, whole or not at all; replaces an older export.

    Raises SpuError if something else is there or the folder cannot be written.
    """
    with new_folder(folder, "an exported program", _is_export) as fresh:
        (fresh / "program.c").write_text(package.source, encoding="utf-8", newline="\n")
        (fresh / "ports.h").write_text(_ports_header(package), encoding="ascii")
        with (fresh / "weights.bin").open("wb") as file:
            file.write(memoryview(package.weights.image)[package.weights.start :])
        for source in (*DEVICE.glob("*.[ch]"), *(DEVICE / "example").iterdir()):
            shutil.copyfile(source, fresh / source.name)


def _is_export(folder: Path) -> bool:
    try:
        with (folder / "ports.h").open(encoding="ascii", errors="replace") as file:
            return file.readline() == _MARK
    except OSError:
        return False


def _ports_header(package: Package) -> str:
    lines = [
        _MARK,
        "#include <stdint.h>\n\n",
        "typedef struct {\n  const char *name;\n  int64_t minimum, maximum;\n} spu_extent;\n\n",
        "/* An entry of shape is an extent; -1 - i is run-time extent number i; an output's */\n",
        "/* shape is what spu_output_shape says. */\n",
        "typedef struct {\n  const char *name, *dtype;\n  int32_t bytes; /* of an element */\n"
        "  int32_t rank;\n  const int64_t *shape;\n} spu_port;\n\n",
    ]
    numbers = {extent.name: -1 - i for i, extent in enumerate(package.extents)}
    # C has no empty arrays: each has one entry more than its count.
    lines += [f"enum {{ SPU_EXTENTS = {len(package.extents)} }};\n"]
    lines += ["static const spu_extent spu_extents[SPU_EXTENTS + 1] = {\n"]
    lines += [_extent_row(extent) for extent in package.extents] + ['    {"", 0, 0}};\n\n']
    for kind, ports in (("input", package.inputs), ("output", package.outputs)):
        lines.append(f"enum {{ SPU_{kind.upper()}S = {len(ports)} }};\n")
        for i, port in enumerate(ports):
            shape = [str(numbers.get(d, 0)) if isinstance(d, str) else str(d) for d in port.shape]
            lines.append(
                f"static const int64_t spu_{kind}_shape_{i}[] = {{{', '.join([*shape, '0'])}}};\n"
            )
        lines.append(f"static const spu_port spu_{kind}s[SPU_{kind.upper()}S + 1] = {{\n")
        lines += [_port_row(port, f"spu_{kind}_shape_{i}") for i, port in enumerate(ports)]
        lines.append('    {"", "", 0, 0, 0}};\n\n')
    return "".join(lines)


def _extent_row(extent: Extent) -> str:
    return f'    {{"{_plain(extent.name)}", {extent.minimum}, {extent.maximum}}},\n'


def _port_row(port: Port, shape: str) -> str:
    name, size = _plain(port.name), port.numpy_dtype.itemsize
    return f'    {{"{name}", "{port.dtype}", {size}, {len(port.shape)}, {shape}}},\n'


def _plain(name: str) -> str:
    """A name for humans in a C string: whatever could mean something to C becomes `_`."""
    return re.sub(r"[^A-Za-z0-9_.:/-]", "_", name)[:200]
