"""`make`, its check of the machine, and the program behind `make run`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
CHECK = ROOT / "requirements" / "check.sh"


def fake_tool(folder: Path, name: str, script: str) -> None:
    tool = folder / name
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


def check(folder: Path, python: str = "python3") -> subprocess.CompletedProcess[str]:
    """Run the check on a machine that has nothing but what is in `folder`."""
    return subprocess.run(
        ["/bin/sh", CHECK, python],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_bare_machine_is_told_every_package(tmp_path: Path) -> None:
    done = check(tmp_path)
    assert done.returncode == 1
    for package in ("python3", "gcc", "make"):
        assert f"apt-get install {package}\n" in done.stderr


def test_an_old_python_is_told(tmp_path: Path) -> None:
    fake_tool(tmp_path, "python3", '[ "$1" = -V ] && echo Python 3.9.2; exit 1')
    done = check(tmp_path)
    assert done.returncode == 1
    assert "Python 3.11 or newer (python3 is Python 3.9.2)" in done.stderr


def test_missing_headers_are_told(tmp_path: Path) -> None:
    fake_tool(tmp_path, "python3", 'case "$2" in *venv*) exit 1;; *print*) echo /nowhere;; esac')
    fake_tool(tmp_path, "gcc", "exit 1")
    fake_tool(tmp_path, "make", "exit 0")
    done = check(tmp_path)
    assert done.returncode == 1
    packages = [line.split()[-1] for line in done.stderr.splitlines()]
    assert packages == ["python3-venv", "python3-dev", "libc6-dev"]


def test_this_machine_has_all() -> None:
    done = subprocess.run([CHECK, sys.executable], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_make_help_lists_both_commands() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = {"run", "test", "slow", "test-export", "test-train", "lint", "bench", "clean"}
    assert wanted <= {line.split()[1] for line in done.stdout.splitlines()}


@pytest.mark.slow
def test_the_lock_meets_what_the_project_asks_for() -> None:
    """The ranges of pyproject.toml, checked by installing nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stdout.splitlines() if line.startswith("spu-ir ")]
    assert ours == []


def search(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / "search.py", *arguments],
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_make_run_answers_its_queries() -> None:
    done = search("--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert all(answer["right"] for answer in result["answers"])
    assert len(result["answers"]) == 3
    assert result["cosine_mean"] >= 0.995
    assert {row["precision"] for row in result["report"]} >= {"int8"}


@pytest.mark.slow
def test_make_run_shows_people_a_report() -> None:
    done = search("--precision", "fp32")
    assert done.returncode == 0, done.stderr
    for needed in ("Products", "espresso", "right", "ms a sentence", "mean 1.0000"):
        assert needed in done.stdout
