"""
Semantic search on real input: `make run`.

Builds all-MiniLM-L6-v2 as an ONNX model from its real weights, compiles it to INT8, embeds
`corpus.txt`, and answers three queries. It prints what every layer became, the time per sentence
and how near the embeddings are to FP32's, and exits with 1 if an answer is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from rich import box
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

import spu_ir
from spu_ir import zoo
from spu_ir.api import Precision
from spu_ir.zoo.minilm_model import MAX_TOKENS

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Feeds: TypeAlias = dict[str, Array]

CORPUS = Path(__file__).with_name("corpus.txt")
BATCH = 64

QUERIES = {
    "Why does my espresso taste so harsh?": "Letting coffee brew for too long",
    "How can I make a deep learning model smaller and quicker?": "Removing small weights",
    "Why are roads gritted in winter?": "Salt lowers the freezing point",
}
"""Query -> how the sentence that answers it begins."""


def tokenise(tokenizer: Tokenizer, sentences: Sequence[str]) -> Feeds:
    """The model's inputs, int64 `[sentences, longest]`."""
    encoded = tokenizer.encode_batch(list(sentences))
    return {
        "input_ids": np.array([one.ids for one in encoded], np.int64),
        "attention_mask": np.array([one.attention_mask for one in encoded], np.int64),
        "token_type_ids": np.array([one.type_ids for one in encoded], np.int64),
    }


def reference(model: onnx.ModelProto) -> tuple[str, Callable[[Feeds], Array]]:
    """Who computes the FP32 embedding, and how: ONNX Runtime if installed, else ONNX itself."""
    if find_spec("onnxruntime") is not None:
        runtime: Any = import_module("onnxruntime")
        session = runtime.InferenceSession(model.SerializeToString())
        return "ONNX Runtime", lambda feeds: session.run(["embedding"], feeds)[0]
    evaluator: Any = ReferenceEvaluator(model)
    return "ONNX's reference", lambda feeds: evaluator.run(["embedding"], feeds)[0]


def seconds(run: Callable[[], object], repeat: int = 5) -> float:
    """The least wall-clock time of several runs."""
    times: list[float] = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def search(precision: Precision, threads: int | None) -> dict[str, Any]:
    """Compile, embed, answer and measure; everything in the result can be written as JSON."""
    tokenizer: Any = Tokenizer.from_str(zoo.minilm_tokenizer())
    # The file's own settings pad every sentence to 128 tokens: pad to the longest instead.
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()
    model = zoo.minilm()

    start = time.perf_counter()
    compiled = spu_ir.compile(
        model,
        precision=precision,
        shapes={"batch": (1, BATCH), "seq": (1, MAX_TOKENS)},
        threads=threads,
    )
    compile_seconds = time.perf_counter() - start

    sentences = CORPUS.read_text().splitlines()
    feeds = tokenise(tokenizer, sentences)
    embeddings = compiled.run(feeds)["embedding"]
    name, run_reference = reference(model)
    expected = run_reference(feeds)
    cosines = (embeddings * expected).sum(1) / np.linalg.norm(embeddings, axis=1)

    answers: list[dict[str, Any]] = []
    for query, begins in QUERIES.items():
        scores = embeddings @ compiled.run(tokenise(tokenizer, [query]))["embedding"][0]
        best = int(scores.argmax())
        answers.append(
            {
                "query": query,
                "answer": sentences[best],
                "score": float(scores[best]),
                "right": sentences[best].startswith(begins),
            }
        )
    one = tokenise(tokenizer, sentences[:1])
    return {
        "model": "all-MiniLM-L6-v2",
        "precision": precision,
        "sentences": len(sentences),
        "tokens": int(feeds["attention_mask"].sum()),
        "compile_seconds": compile_seconds,
        "seconds_per_sentence": seconds(lambda: compiled.run(feeds)) / len(sentences),
        "seconds_one_sentence": seconds(lambda: compiled.run(one)),
        "reference": name,
        "cosine_mean": float(cosines.mean()),
        "cosine_min": float(cosines.min()),
        "answers": answers,
        "report": compiled.report(),
    }


def layer_table(rows: Sequence[dict[str, Any]]) -> Table:
    """What the products became: one line for those of equal shape, precision and format."""
    table = Table(
        title="Products, by shape", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for column in ("layers", "op", "shape", "precision", "format", "density", "KiB"):
        number = column in ("layers", "density", "KiB")
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = tuple(str(row[name]) for name in ("op", "shape", "precision", "format"))
        groups.setdefault(key, []).append(row)
    for key, members in groups.items():
        densities = [row["density"] for row in members if row["density"] is not None]
        density = f"{sum(densities) / len(densities):.3f}" if densities else ""
        kibibytes = sum(row["bytes"] for row in members) / 1024
        table.add_row(str(len(members)), *key, density, f"{kibibytes:.0f}")
    return table


def counted(values: Iterable[str]) -> str:
    """`3 a, 1 b`: how often each value that is not empty occurs."""
    return ", ".join(f"{count} {value}" for value, count in Counter(filter(None, values)).items())


def show(result: dict[str, Any], console: Console) -> None:
    """Print a result for people."""
    report: list[dict[str, Any]] = result["report"]
    products = [row for row in report if row["op"].startswith("spu.")]
    console.print(layer_table(products))
    others = counted(row["op"] for row in report if row not in products)
    console.print(f"Vector ops: {others}", highlight=False, soft_wrap=True)
    reasons = counted(row["reason"] for row in products)
    console.print(f"Not sparse because: {reasons}\n" if reasons else "", highlight=False)
    for answer in result["answers"]:
        mark = "[green]right[/]" if answer["right"] else "[red]wrong[/]"
        console.print(f"[bold]{answer['query']}[/]")
        console.print(f"  {answer['score']:.3f}  {answer['answer']}  {mark}", soft_wrap=True)
    console.print()
    console.print(
        f"compiled in {result['compile_seconds']:.1f} s; "
        f"{result['seconds_per_sentence'] * 1e3:.2f} ms a sentence "
        f"({result['sentences']} at once, {result['tokens']} tokens), "
        f"{result['seconds_one_sentence'] * 1e3:.2f} ms for one alone",
        soft_wrap=True,
    )
    console.print(
        f"cosine similarity to {result['reference']} in FP32: mean {result['cosine_mean']:.5f}, "
        f"least {result['cosine_min']:.5f}",
        soft_wrap=True,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Semantic search with all-MiniLM-L6-v2.")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--precision", choices=("fp32", "bf16", "int8"), default="int8")
    parser.add_argument("--threads", type=int, help="default: one a core")
    options = parser.parse_args(arguments)
    try:
        result = search(options.precision, options.threads)
    except spu_ir.SpuError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        # A pipe has no width of its own, and the table needs more than the usual 80 columns.
        show(result, Console(width=None if sys.stdout.isatty() else 100))
    return 0 if all(answer["right"] for answer in result["answers"]) else 1


if __name__ == "__main__":
    sys.exit(main())
