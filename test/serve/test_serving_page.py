"""The examples of docs/serving.md run, in the order of the page, and print what it says."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from spu_ir.tools.spu_serve import _parser  # pyright: ignore[reportPrivateUsage]

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
BLOCK = re.compile(r"^```(py|bash|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_examples_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_home: None
) -> None:
    blocks = BLOCK.findall(PAGE.read_text())
    code = "".join(text for language, text in blocks if language == "py")
    printed = "".join(text for language, text in blocks if language == "text")
    commands = [text for language, text in blocks if language == "bash"]
    assert code.count("import") > 3
    assert printed.count("\n") == 9

    server = tmp_path / "bin" / "spu-serve"
    server.parent.mkdir()
    server.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m spu_ir.tools.spu_serve "$@"\n')
    server.chmod(0o755)
    monkeypatch.setenv("PATH", f"{server.parent}:/usr/bin:/bin")
    # Ray listens where others reach it, except so.
    local = "import ray._private.ray_constants as ray\nray.ENABLE_RAY_CLUSTER = False\n"
    port = free_port()
    done = subprocess.run(
        [sys.executable, "-c", local + code.replace("8080", str(port))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed.replace("8080", str(port))
    for command in commands:
        name, *arguments = shlex.split(command)
        assert name == "spu-serve"
        _parser().parse_args(arguments)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]
