"""Real text and real files that every Python installation has, chosen the same way every time."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from spu_ir.errors import SpuError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_PROSE = re.compile(r"[A-Z][A-Za-z ,;:'()*\"-]+[.!?]")
"""No digits, code or tables."""

_LEFT_OUT = {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test"}


def sentences(count: int) -> list[str]:
    """
    `count` different sentences of prose from the language reference that ships with Python.

    In the order of their digests, so that neighbours in the list are not neighbours in a text.
    Raises SpuError when there are not so many.
    """
    topics: dict[str, str] = import_module("pydoc_data.topics").topics
    found = {sentence for text in topics.values() for sentence in _sentences_of(text)}
    if len(found) < count:
        raise SpuError(f"Python's documentation has {len(found)} sentences, {count} are needed")
    return sorted(found, key=_digest)[:count]


def _sentences_of(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        for sentence in _SENTENCE.split(" ".join(paragraph.split())):
            if 8 <= len(sentence.split()) <= 40 and _PROSE.fullmatch(sentence):
                yield sentence


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def installed_files(count: int, *, of_a_kind: int = 200) -> list[Path]:
    """
    `count` files of the Python installation, `of_a_kind` with one suffix before there are more.

    From the standard library and the headers, in the order of the digests of their names. Without
    caches, links, what was installed later, tests (not every installation has them, and their
    data is broken on purpose), and files below 8 bytes, which magika does not look into.
    Raises SpuError when there are not so many.
    """
    roots = dict.fromkeys(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "include"))
    candidates = [
        (_digest(path.relative_to(root).as_posix()), path)
        for root in roots
        for path in _below(root)
    ]
    kinds: Counter[str] = Counter()
    chosen: list[Path] = []
    common: list[Path] = []
    for _, path in sorted(candidates):
        if path.is_symlink() or path.stat().st_size < 8:
            continue
        kinds[path.suffix] += 1
        (chosen if kinds[path.suffix] <= of_a_kind else common).append(path)
    chosen = (chosen + common)[:count]
    if len(chosen) == count:
        return chosen
    raise SpuError(f"the Python installation has {len(chosen)} such files, {count} are needed")


def _below(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        yield from (Path(folder) / name for name in names)


@dataclass(frozen=True)
class Magika:
    """Google's magika, which names the content type of a file: its model and its features."""

    model: Path
    labels: tuple[str, ...]
    first: int
    last: int
    block: int
    padding: int

    @staticmethod
    def installed() -> Magika:
        """From the package `magika`, whose code is not run. Raises SpuError without it."""
        spec = find_spec("magika")
        folders = [] if spec is None else spec.submodule_search_locations or []
        for folder in folders:
            for model in sorted(Path(folder).glob("models/standard_*/model.onnx")):
                config: dict[str, Any] = json.loads(
                    (model.parent / "config.min.json").read_text(encoding="utf-8")
                )
                return Magika(
                    model=model,
                    labels=tuple(config["target_labels_space"]),
                    first=config["beg_size"],
                    last=config["end_size"],
                    block=config["block_size"],
                    padding=config["padding_token"],
                )
        raise SpuError("magika is not installed", remedy="run `pip install --no-deps magika`")

    def features(self, content: bytes) -> Array:
        """
        i32 `[first + last]`: the bytes at both ends of a file, without white space there.

        As magika's own code has it (version 2 of its features): at most `block` bytes of an end
        are looked at; what is missing is the padding token, after the first and before the last.
        """
        head = content[: self.block].lstrip()[: self.first]
        tail = content[-self.block :].rstrip()[-self.last :]
        row = np.full(self.first + self.last, self.padding, np.int32)
        row[: len(head)] = np.frombuffer(head, np.uint8)
        if tail:
            row[len(row) - len(tail) :] = np.frombuffer(tail, np.uint8)
        return row
