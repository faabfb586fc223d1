"""
How near a pruned all-MiniLM-L6-v2 stays to the dense one, by method and ratio.

    python -m benchmarks.sparsify [--json] [--write docs] [--ratios 2,4] [--calibration N]

The real weights are pruned by magnitude and by the second-order method, the pruned models are
compiled to INT8, and their sentence embeddings are compared with those of the dense model in
FP32: the mean cosine, and how often the nearest other sentence is the same. All text ships with
Python: sentences of the standard library's docstrings. The method is calibrated on some modules
and tested on others; the example's corpus, which has nothing to do with them, is tested too.
`--write docs` puts the table into docs/sparsity.md.
"""

from __future__ import annotations

import argparse
import ast
import json
import platform
import random
import re
import sys
import sysconfig
import time
from collections.abc import Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from rich.console import Console
from rich.markdown import Markdown
from tokenizers import Tokenizer

import spu_ir
from spu_ir import zoo
from spu_ir.api import Precision
from spu_ir.runtime.cpu import processor_name
from spu_ir.sparsify import LayerReport, magnitude, second_order

METHODS = ("magnitude", "second-order")
RATIOS = (2, 4, 8, 16, 32)
TESTED = 256
CALIBRATION = 512
CORPUS = Path(__file__).parents[1] / "examples" / "corpus.txt"
PAGE = "sparsity.md"
MARKS = ("<!-- made by benchmarks.sparsify -->\n", "<!-- end -->\n")
MAX_TOKENS = 128

Array = NDArray[Any]
Feeds = dict[str, Array]


def docstrings(file: Path) -> list[str]:
    """The plain sentences of 6 to 40 words in a module's docstrings."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found: list[str] = []
    for node in ast.walk(tree):
        text = ast.get_docstring(node) if isinstance(node, kinds) else None
        for paragraph in re.split(r"\n\s*\n", text or ""):
            joined = " ".join(paragraph.split())
            found.extend(s for s in re.split(r"(?<=[.!?]) (?=[A-Z])", joined) if _is_plain(s))
    return found


def _is_plain(sentence: str) -> bool:
    letters = sum(c.isalpha() or c == " " for c in sentence)
    return (
        6 <= len(sentence.split()) <= 40
        and sentence[0].isupper()
        and sentence.endswith(".")
        and letters > 0.93 * len(sentence)
    )


@cache
def sentences() -> tuple[list[str], list[str]]:
    """Sentences to calibrate with and sentences to test with, of different modules, shuffled."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    skipped = {"site-packages", "dist-packages", "test", "tests", "idlelib"}
    files = [f for f in sorted(folder.rglob("*.py")) if not skipped & set(f.parts)]
    order = random.Random(0)
    order.shuffle(files)
    parts = (files[len(files) // 4 :], files[: len(files) // 4])
    calibration, test = (
        list(dict.fromkeys(s for file in part for s in docstrings(file))) for part in parts
    )
    known = set(test)
    calibration = [s for s in calibration if s not in known]
    order.shuffle(calibration)
    order.shuffle(test)
    return calibration, test


def tokenise(texts: Sequence[str]) -> tuple[list[Feeds], list[int]]:
    """Feeds without padding, sentences of one length together, and whose embeddings they give."""
    tokenizer: Any = Tokenizer.from_str(zoo.minilm_tokenizer())
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    encoded = [one.ids for one in tokenizer.encode_batch(list(texts))]
    by_length: dict[int, list[int]] = {}
    for index, ids in enumerate(encoded):
        by_length.setdefault(len(ids), []).append(index)
    feeds: list[Feeds] = []
    order: list[int] = []
    for length in sorted(by_length):
        for first in range(0, len(by_length[length]), 64):
            chosen = by_length[length][first : first + 64]
            ids = np.array([encoded[i] for i in chosen], np.int64)
            ones, zeros = np.ones_like(ids), np.zeros_like(ids)
            feeds.append({"input_ids": ids, "attention_mask": ones, "token_type_ids": zeros})
            order.extend(chosen)
    return feeds, order


def embed(model: onnx.ModelProto, precision: Precision, texts: Sequence[str]) -> Any:
    """The compiled model, and its embeddings f32 `[sentences, 384]`."""
    shapes = {"batch": (1, 64), "seq": (1, MAX_TOKENS)}
    compiled = spu_ir.compile(model, precision=precision, shapes=shapes)
    feeds, order = tokenise(texts)
    parts = [compiled.run(feed)["embedding"] for feed in feeds]
    return compiled, np.concatenate(parts)[np.argsort(order)]


def nearest(embeddings: Array) -> Array:
    """Which other sentence is nearest to each."""
    scores = embeddings @ embeddings.T
    np.fill_diagonal(scores, -np.inf)
    return scores.argmax(axis=1)


def compare(got: Array, wanted: Array) -> dict[str, float]:
    """The mean cosine, and the part of sentences whose nearest neighbour is the same."""
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(wanted, axis=1)
    cosines = (got * wanted).sum(axis=1) / lengths
    same = nearest(got) == nearest(wanted)
    return {"cosine": float(cosines.mean()), "neighbour": float(same.mean())}


def measure(ratios: Sequence[int], calibration: int) -> dict[str, Any]:
    """Everything in the result can be written as JSON."""
    dense = zoo.minilm()
    learn, test = sentences()
    test = test[:TESTED]
    corpus = CORPUS.read_text(encoding="utf-8").split("\n")
    texts = [*test, *(line for line in corpus if line.strip())]
    feeds, _ = tokenise(learn[:calibration])
    _, wanted = embed(dense, "fp32", texts)
    rows: list[dict[str, Any]] = []

    def add(method: str, ratio: int, model: onnx.ModelProto, seconds: float, error: float) -> None:
        compiled, got = embed(model, "int8", texts)
        products = [row for row in compiled.report() if row["op"] == "spu.matmul"]
        rows.append(
            {
                "method": method,
                "ratio": ratio,
                "docstrings": compare(got[: len(test)], wanted[: len(test)]),
                "corpus": compare(got[len(test) :], wanted[len(test) :]),
                "relative_error": error,
                "seconds": seconds,
                "formats": sorted({str(row["format"]) for row in products}),
            }
        )
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)

    add("dense", 1, dense, 0.0, 0.0)
    for ratio in ratios:
        start = time.perf_counter()
        pruned = magnitude(dense, ratio)
        add("magnitude", ratio, pruned, time.perf_counter() - start, 1.0)
        layers: list[LayerReport] = []
        start = time.perf_counter()
        pruned = second_order(dense, ratio, feeds, report=layers.append)
        seconds = time.perf_counter() - start
        errors = [row.relative_error for row in layers if row.relative_error is not None]
        add("second-order", ratio, pruned, seconds, float(np.mean(errors)))
    return {
        "model": "all-MiniLM-L6-v2",
        "machine": f"{processor_name()}, Python {platform.python_version()}",
        "date": date.today().isoformat(),
        "calibration_sentences": calibration,
        "calibration_tokens": int(sum(feed["input_ids"].size for feed in feeds)),
        "test_sentences": len(test),
        "corpus_sentences": len(texts) - len(test),
        "results": rows,
    }


def table(report: dict[str, Any], command: str) -> str:
    """The result as Markdown."""
    lines = [
        "| ratio | method | cosine | same neighbour | corpus: cosine | corpus: same neighbour |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in report["results"]:
        docs, corpus = row["docstrings"], row["corpus"]
        lines.append(
            f"| {row['ratio']}x | {row['method']} | {docs['cosine']:.4f} | "
            f"{docs['neighbour']:.1%} | {corpus['cosine']:.4f} | {corpus['neighbour']:.1%} |"
        )
    said = (
        f"{report['model']}, INT8 against dense FP32: {report['test_sentences']} sentences of "
        f"docstrings, {report['corpus_sentences']} of the example's corpus; calibrated on "
        f"{report['calibration_sentences']} other sentences of docstrings "
        f"({report['calibration_tokens']} tokens). Made by `{command}` on {report['date']}; "
        f"{report['machine']}."
    )
    return "\n".join(lines) + f"\n\n{said}\n"


def write(folder: Path, text: str) -> Path:
    """Put the table between the marks of the page."""
    page = folder / PAGE
    before, mark, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not mark or not end:
        raise SystemExit(f"error: {page} has no place for the table")
    page.write_text(f"{before}{mark}\n{text}\n{end}{after}", encoding="utf-8")
    return page


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sparsify", description="Methods of pruning, on MiniLM."
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--write", type=Path, metavar="docs", help="the folder with sparsity.md")
    parser.add_argument("--ratios", default=",".join(map(str, RATIOS)), help="such as 2,4,8")
    parser.add_argument("--calibration", type=int, default=CALIBRATION, help="sentences")
    options = parser.parse_args(arguments)
    ratios = [int(ratio) for ratio in options.ratios.split(",")]
    report = measure(ratios, options.calibration)
    command = "python -m benchmarks.sparsify"
    if tuple(ratios) != RATIOS:
        command += f" --ratios {options.ratios}"
    if options.calibration != CALIBRATION:
        command += f" --calibration {options.calibration}"
    text = table(report, f"{command} --write docs")
    if options.write is not None:
        write(options.write, text)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        Console().print(Markdown(text))


if __name__ == "__main__":
    main()
