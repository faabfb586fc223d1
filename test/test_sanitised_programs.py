"""Whole generated programs: no warnings, nothing for the sanitisers to report, the same bytes."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from support.device import SANITISERS
from support.models import MODELS, SHAPES, feeds

import spu_ir
from spu_ir.api import Precision
from spu_ir.runtime import CompiledModel
from spu_ir.runtime.build import ARITHMETIC, DEVICE, find_compiler, program_flags
from spu_ir.runtime.cpu import host_levels

BATCH, SEQ = 2, 5


@cache
def compiled(name: str, precision: Precision, level: str) -> CompiledModel:
    return spu_ir.compile(
        MODELS[name](),
        precision=precision,
        calibration=[feeds(name, seed, 2, 9) for seed in range(3)],
        shapes=SHAPES[name],
        levels=[level],
    )


def build(folder: Path, level: str) -> None:
    """Make the exported example, all of it instrumented, and as strict as the runtime is."""
    strict = [flag for flag in program_flags(level) if flag.startswith("-W")]
    optimisation = [flag for flag in SANITISERS if flag != "-O0"] + ["-O1"]
    done = subprocess.run(
        [
            "make",
            f"ISA={level}",
            f"CC={find_compiler().command[0]} {' '.join(optimisation)}",
            f"CFLAGS={' '.join(flag for flag in ARITHMETIC if flag != '-O3')}",
            f"WARNINGS={' '.join(strict)}",
        ],
        cwd=folder,
        env={**os.environ, "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("level", sorted({"c", host_levels()[-1]}))
@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize("name", MODELS)
def test_the_exported_program_is_clean(
    name: str, precision: Precision, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPU_IR_ISA", level)
    model = compiled(name, precision, level)
    model.export_c(tmp_path / "c")
    build(tmp_path / "c", level)
    given = feeds(name, 1, BATCH, SEQ)
    extents = {"batch": BATCH, "seq": SEQ}
    arguments: list[str] = []
    for number, extent in enumerate(model.extents):
        arguments += ["--extent", f"{number}={extents[extent.name]}"]
    for number, port in enumerate(model.inputs):
        given[port.name].tofile(tmp_path / f"input{number}")
        arguments += ["--input", f"{number}=../input{number}"]
    done = subprocess.run(
        [f"./model-{level}", *arguments, "--output", "0=../output0", "--threads", "2"],
        cwd=tmp_path / "c",
        # What the example allocates lives until it ends.
        env={"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    (expected,) = model.run(given).values()
    assert (tmp_path / "output0").read_bytes() == np.ascontiguousarray(expected).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "fp32", "bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_the_generated_c_has_no_warnings(
    name: str, precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every level, with `-Wall -Wextra -Werror` among the flags."""
    monkeypatch.setenv("SPU_IR_ISA", "c")
    (tmp_path / "program.c").write_text(compiled(name, precision, "c").ir("c"))
    compiler = find_compiler().command
    for level in host_levels():
        flags = [flag for flag in program_flags(level) if flag != "-O3"]
        done = subprocess.run(
            [*compiler, *flags, "-fsyntax-only", f"-I{DEVICE}", "program.c"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), level
