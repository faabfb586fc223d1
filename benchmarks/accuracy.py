"""
What INT8 does to answers: two networks with their real weights, on real data.

    python -m benchmarks.accuracy [--json] [--sentences 500] [--files 500]

all-MiniLM-L6-v2 embeds sentences of Python's documentation: INT8's embeddings against FP32's, and
whether a sentence keeps its nearest neighbour among the others. magika names the content type of
files of the Python installation: whether INT8 gives FP32's label. The FP32 answers are ONNX
Runtime's. The exit code is 1 when a line is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import onnx
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

import spu_ir
from spu_ir import zoo
from spu_ir.errors import SpuError
from spu_ir.runtime.model import CompiledModel
from spu_ir.zoo.minilm_model import MAX_TOKENS

from .accuracy_data import Array, Magika, installed_files, sentences
from .fidelity_ort import dynamic_settings, quantised, session

Report = dict[str, Any]
Compile = Callable[..., CompiledModel]

COSINE, NEIGHBOURS, LABELS = 0.995, 0.98, 0.99
"""The lines: mean cosine, share of sentences with the same neighbour, of files with one label."""

BATCH = 20
CALIBRATION_FILES, CALIBRATION_SENTENCES = 16, 128


VARIANTS: dict[str, dict[str, Any]] = {
    "int8": {},
    "int8, smoothing": {"smoothing": True},
    "int8, smoothing, second order": {"smoothing": True, "rounding": "second-order"},
    "int8, smoothing, second order, groups of 128": {
        "smoothing": True,
        "rounding": "second-order",
        "group_size": 128,
    },
    "mixed, smoothing, second order": {
        "precision": "mixed",
        "budget": 0.25,
        "smoothing": True,
        "rounding": "second-order",
    },
}
"""How MiniLM is compiled; docs/quantisation.md explains the options."""


def measure_minilm(
    count: int, variants: Sequence[str] = tuple(VARIANTS), *, compile: Compile = spu_ir.compile
) -> list[Report]:
    """
    Embeddings of `count` sentences in INT8 against FP32, a row for each of `variants`, then
    ONNX Runtime's INT8. What needs calibration sees 128 sentences that are not measured, one at a
    time and so without padding.
    """
    model = zoo.minilm()
    texts = sentences(count + CALIBRATION_SENTENCES)
    feeds, seen = tokenised(texts[:count]), tokenised(texts[count:], batch=1)

    def embeddings(run: Callable[[dict[str, Array]], Array]) -> Array:
        return np.concatenate([run(feed) for feed in feeds])

    reference = session(model)
    want = embeddings(lambda feed: reference.run(["embedding"], feed)[0])
    rows: list[Report] = []
    for name in variants:
        options: dict[str, Any] = {"precision": "int8", **VARIANTS[name]}
        if VARIANTS[name]:
            options["calibration"] = seen
        compiled = compile(
            model, shapes={"batch": (1, BATCH), "seq": (1, MAX_TOKENS)}, threads=1, **options
        )
        rows.append(
            compared(name, embeddings(lambda feed, m=compiled: m.run(feed)["embedding"]), want)
        )
    setting = next(one for one in dynamic_settings() if one.name == "per_channel, products only")
    theirs = session(quantised(model, "dynamic", setting, []))
    rows.append(
        compared(
            "ONNX Runtime int8", embeddings(lambda feed: theirs.run(["embedding"], feed)[0]), want
        )
    )
    return rows


def compared(name: str, got: Array, want: Array) -> Report:
    """One row: how near embeddings `[n, d]` are, and how many keep their nearest neighbour."""
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
    cosine = (got * want).sum(axis=1) / lengths
    same, mean = float((nearest(got) == nearest(want)).mean()), float(cosine.mean())
    return {
        "model": "all-MiniLM-L6-v2",
        "compiled": name,
        "sentences": len(want),
        "mean_cosine": mean,
        "least_cosine": float(cosine.min()),
        "same_neighbour": same,
        "verdict": "holds" if mean >= COSINE and same >= NEIGHBOURS else "miss",
    }


def tokenised(texts: Sequence[str], batch: int = BATCH) -> list[dict[str, Array]]:
    """The model's inputs, int64 `[up to batch, longest]`, in batches."""
    tokenizer: Any = cast("Any", Tokenizer).from_str(zoo.minilm_tokenizer())
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()
    feeds: list[dict[str, Array]] = []
    for first in range(0, len(texts), batch):
        encoded = tokenizer.encode_batch(list(texts[first : first + batch]))
        feeds.append(
            {
                "input_ids": np.array([one.ids for one in encoded], np.int64),
                "attention_mask": np.array([one.attention_mask for one in encoded], np.int64),
                "token_type_ids": np.array([one.type_ids for one in encoded], np.int64),
            }
        )
    return feeds


def nearest(embeddings: Array) -> Array:
    """For each of `[n, d]` which other one has the largest cosine."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    return similarity.argmax(axis=1)


def measure_magika(count: int, *, compile: Compile = spu_ir.compile) -> Report:
    """Labels of `count` files in INT8 against FP32; ranges are calibrated on 16 other files."""
    magika = Magika.installed()
    paths = installed_files(count + CALIBRATION_FILES)
    rows = np.stack([magika.features(path.read_bytes()) for path in paths])
    measured, seen = rows[:count], rows[count:]
    proto = onnx.ModelProto.FromString(magika.model.read_bytes())
    (port,) = proto.graph.input
    batch = port.type.tensor_type.shape.dim[0].dim_param
    reference = session(proto)
    compiled = compile(
        proto,
        precision="int8",
        shapes={batch: (1, BATCH)},
        calibration=[{port.name: seen}],
        threads=1,
    )
    output = proto.graph.output[0].name
    want = labels_of(lambda feeds: reference.run([output], feeds)[0], port.name, measured)
    got = labels_of(lambda feeds: compiled.run(feeds)[output], port.name, measured)
    same = float((got == want).mean())
    kinds = Counter(magika.labels[int(label)] for label in want)
    products = [row for row in compiled.report() if str(row["op"]).startswith("spu.")]
    return {
        "model": "magika",
        "files": count,
        "kinds": len(kinds),
        "commonest": dict(kinds.most_common(8)),
        "same_label": same,
        "int8_products": sum(row["precision"] == "int8" for row in products),
        "products": len(products),
        "changed": [
            [str(paths[n].name), magika.labels[int(want[n])], magika.labels[int(got[n])]]
            for n in np.flatnonzero(got != want)
        ],
        "verdict": "holds" if same >= LABELS else "miss",
    }


def labels_of(run: Callable[[dict[str, Array]], Array], name: str, rows: Array) -> Array:
    """The index of the likeliest label of every row, run in batches."""
    batches = [run({name: rows[at : at + BATCH]}) for at in range(0, len(rows), BATCH)]
    return np.concatenate(batches).argmax(axis=1)


def show(report: Report) -> None:
    """Print a report as a table."""
    table = Table(title="INT8 against FP32, real weights", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("model", "compiled", "data", "figure", "line", "measured", "verdict"):
        table.add_column(name)

    def line(
        row: Report, compiled: str, data: str, figure: str, least: float, value: float
    ) -> None:
        verdict = "holds" if value >= least else "miss"
        cells = (row["model"], compiled, data, figure, f">= {least}", f"{value:.4f}", verdict)
        table.add_row(*cells)

    for row in report["minilm"]:
        data = f"{row['sentences']} sentences"
        line(row, row["compiled"], data, "mean cosine", COSINE, row["mean_cosine"])
        line(row, row["compiled"], data, "same neighbour", NEIGHBOURS, row["same_neighbour"])
    magika = report["magika"]
    line(magika, "int8", f"{magika['files']} files", "same label", LABELS, magika["same_label"])
    console = Console()
    console.print(table)
    for name, want, got in magika["changed"]:
        console.print(f"{name}: {want} in FP32, {got} in INT8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parser.add_argument("--sentences", type=int, default=500)
    parser.add_argument("--files", type=int, default=500)
    options = parser.parse_args(arguments)
    try:
        report: Report = {
            "minilm": measure_minilm(options.sentences),
            "magika": measure_magika(options.files),
        }
    except SpuError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        show(report)
    ours = [row for row in report["minilm"] if row["compiled"] in VARIANTS]
    return int(any(row["verdict"] == "miss" for row in (*ours, report["magika"])))


if __name__ == "__main__":
    sys.exit(main())
