"""
Every command and every Python example of the README and docs/ runs, in the order of the page.

In a page, blocks of `sh` and `python` are run; a block of `<language> output` after one is what it
prints, where a line `...` stands for any lines, and `...` in a line for any text. Other blocks are
for reading only.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TOOLS = ("spu-opt", "spu-compile", "spu-run", "spu-perf", "spu-smi")

FENCE = re.compile(r"^```(\w*) *(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")


@dataclass(frozen=True)
class Block:
    """One fenced block, and what it is said to print."""

    line: int
    language: str
    text: str
    output: str | None


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page that are run."""
    blocks: list[Block] = []
    for found in FENCE.finditer(page):
        language, role, text = found.groups()
        line = page.count("\n", 0, found.start()) + 1
        if role == "output":
            last = blocks.pop()
            blocks.append(Block(last.line, last.language, last.text, text))
        elif language in ("sh", "python"):
            blocks.append(Block(line, language, text, None))
    return blocks


def matches(expected: str, printed: str) -> bool:
    """Whether a text is as expected: a line `...` is any lines, and `...` in one anything."""
    parts = [
        "(?:.*\n)*?"
        if line.strip() == "..."
        else ".*?".join(re.escape(part) for part in line.split("...")) + "\n"
        for line in expected.splitlines()
    ]
    lines = "".join(f"{line.rstrip()}\n" for line in printed.rstrip().splitlines())
    return re.fullmatch("".join(parts), lines) is not None


def shell(text: str) -> str:
    """
    A block as it is run here: the project's own `make` only shows what it would do, for this is
    one of its targets, and nothing is cloned or entered.
    """
    lines = [line for line in text.splitlines() if not line.startswith(("git clone", "cd "))]
    return "\n".join(re.sub(r"^make (?=\w)", "make --dry-run ", line) for line in lines)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder that looks like the checkout, in which commands may write."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for entry in ROOT.iterdir():
        if not entry.name.startswith((".git", ".venv", "build")):
            (folder / entry.name).symlink_to(entry)
    scripts = tmp_path / "bin"
    scripts.mkdir()
    modules = {tool: f"-m spu_ir.tools.{tool.replace('-', '_')}" for tool in TOOLS}
    for name, module in {"python": "", **modules}.items():
        script = scripts / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        script.chmod(0o755)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_run(page: Path, workplace: Path) -> None:
    path = f"{workplace.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "100"}
    for block in blocks_of(page.read_text()):
        command = (
            ["bash", "-euo", "pipefail", "-c", shell(block.text)]
            if block.language == "sh"
            else [sys.executable, "-W", "error", "-c", block.text]
        )
        done = subprocess.run(
            command,
            cwd=workplace,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        place = f"{page.name}:{block.line}"
        assert done.returncode == 0, f"{place}\n{done.stdout}\n{done.stderr}"
        if block.output is not None:
            assert matches(block.output, done.stdout), f"{place} prints\n{done.stdout}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"])
def test_links_lead_somewhere(page: Path) -> None:
    targets = [target for target, _ in LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_readme_shows_both_commands_and_all_tools() -> None:
    commands = "\n".join(block.text for block in blocks_of(PAGES[0].read_text()))
    for needed in ("make run", "make test", *TOOLS):
        assert needed in commands


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    missing = [page.name for page in PAGES[1:] if f"({page.name})" not in index]
    assert missing == ["README.md"]


def test_blocks_outputs_and_wildcards() -> None:
    page = "a\n```sh\necho 1\n```\n```text output\n1\n...\n```\n```c\nx\n```\n```python\ny\n```\n"
    assert blocks_of(page) == [
        Block(2, "sh", "echo 1\n", "1\n...\n"),
        Block(12, "python", "y\n", None),
    ]
    assert matches("1\n...\n", "1\n2\n3\n")
    assert matches("1\n...\n", "1\n")
    assert not matches("1\n...\n4\n", "1\n2\n3\n")
    assert matches("a ... c\n", "a b c\n")
    assert not matches("a ... c\n", "a b\nc c\n")
    assert not matches("1\n", "2\n")
    assert shell("cd x\nmake run\nmake -C y\n") == "make --dry-run run\nmake -C y"
