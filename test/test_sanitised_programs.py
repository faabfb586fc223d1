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
from support.padded import SHAPES as PADDED_SHAPES
from support.padded import encoder, padded_feeds, real_positions

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
    expect_clean(compiled(name, precision, level), feeds(name, 1, BATCH, SEQ), level, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_packed_rows_are_clean(
    precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    level = host_levels()[-1]
    monkeypatch.setenv("SPU_IR_ISA", level)
    model = spu_ir.compile(
        encoder(), precision=precision, padding="skip", shapes=PADDED_SHAPES, levels=[level]
    )
    for number, lengths in enumerate(([0, 0], [SEQ, 2], [0, SEQ])):
        folder = tmp_path / str(number)
        folder.mkdir()
        given = padded_feeds("int64", real_positions(lengths, SEQ))
        expect_clean(model, given, level, folder)


def expect_clean(
    model: CompiledModel, given: dict[str, np.ndarray], level: str, tmp_path: Path
) -> None:
    """The exported program runs under the sanitisers and writes what the model gives."""
    model.export_c(tmp_path / "c")
    build(tmp_path / "c", level)
    extents = {"batch": BATCH, "seq": SEQ}
    arguments: list[str] = []
    for number, extent in enumerate(model.extents):
        arguments += ["--extent", f"{number}={extents[extent.name]}"]
    for number, port in enumerate(model.inputs):
        given[port.name].tofile(tmp_path / f"input{number}")
        arguments += ["--input", f"{number}=../input{number}"]
    for number, _ in enumerate(model.outputs):
        arguments += ["--output", f"{number}=../output{number}"]
    done = subprocess.run(
        [f"./model-{level}", *arguments, "--threads", "2"],
        cwd=tmp_path / "c",
        # What the example allocates lives until it ends.
        env={"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for number, expected in enumerate(model.run(given).values()):
        written = (tmp_path / f"output{number}").read_bytes()
        assert written == np.ascontiguousarray(expected).tobytes()


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
