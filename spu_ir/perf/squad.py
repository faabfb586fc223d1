"""
SQuAD 1.1's development set, tokenised as BERT's reference does it.

A question of at most 64 tokens and a window of its passage make a sample of `seq` tokens; long
passages have several windows, each 128 tokens further on. A token counts in the window where it
has most context on both sides, and the best pair of first and last token over all windows of a
question is its answer. The tokeniser is a Hugging Face `tokenizer.json`, or a BERT `vocab.txt`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from spu_ir.errors import SpuError
from spu_ir.extras import extra_module

from .datasets import CALIBRATION, Array, Batch, Dataset, Feeds, Outputs
from .squad_metrics import scores
from .workloads import ModelInfo

QUERY, STRIDE = 64, 128
"""Tokens of a question, and from one window to the next."""

LENGTH = 30
"""Most tokens of an answer."""

BEST = 20
"""First and last tokens that are looked at."""


@dataclass(frozen=True)
class Question:
    """A question of the data set."""

    id: str
    text: str
    passage: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Window:
    """A sample: one window on the passage of a question."""

    question: int
    inputs: tuple[list[int], list[int], list[int]]
    """Ids, mask and token types of `seq` tokens."""
    spans: dict[int, tuple[int, int]]
    """Of the tokens an answer may start or end at: the characters of the passage they cover."""
    central: frozenset[int]
    """Of these, the ones that have their most context in this window."""


class SquadDataset(Dataset):
    """Windows for a network with three inputs (ids, mask, types) and two outputs of logits."""

    name = "OPEN_SQUAD"
    MARK = "dev-v1.1.json"

    def __init__(self, info: ModelInfo, folder: Path):
        super().__init__()
        shapes = set(info.shapes.values())
        if len(info.inputs) != 3 or len(shapes) != 1 or len(info.outputs) != 2:
            raise SpuError(f"the model {info.name!r} answers no questions: 3 inputs, 2 outputs")
        self._info = info
        self._questions = read_questions(folder / self.MARK)
        tokeniser = read_tokeniser(folder, info.name)
        seq = next(iter(shapes))[1]
        self._windows = [
            window
            for number, question in enumerate(self._questions)
            for window in windows(tokeniser, number, question, seq)
        ]
        self._found: dict[int, tuple[float, str]] = {}
        self._seen: dict[int, int] = {}
        self.about = (
            f"{len(self._questions)} questions in {len(self._windows)} windows of {str(folder)!r}"
        )

    def batches(self, size: int) -> int:
        return -(-len(self._windows) // size)

    def batch(self, index: int, size: int) -> Batch:
        keys = range(index * size, min((index + 1) * size, len(self._windows)))
        feeds: Feeds = {}
        for number, name in enumerate(self._info.inputs):
            rows = [self._windows[key].inputs[number] for key in keys]
            feeds[name] = np.array(rows, self._info.elements[name])
        return Batch(feeds, tuple(keys))

    def calibration(self) -> list[Feeds]:
        """The first windows: they are measured too."""
        found = self.batch(0, CALIBRATION)
        return [
            {name: array[row : row + 1] for name, array in found.feeds.items()}
            for row in range(len(found.keys))
        ]

    def add(self, batch: Batch, outputs: Outputs) -> None:
        first, last = (outputs[name] for name in self._info.outputs)
        for row, key in enumerate(batch.keys):
            window = self._windows[key]
            self._seen[window.question] = self._seen.get(window.question, 0) + 1
            best = best_span(window, first[row], last[row])
            if best is not None:
                score, (start, end) = best
                if score > self._found.get(window.question, (-np.inf, ""))[0]:
                    text = self._questions[window.question].passage[start:end]
                    self._found[window.question] = score, text

    def accuracy(self) -> dict[str, float]:
        """Over the questions all of whose windows were added."""
        wanted: dict[int, int] = {}
        for window in self._windows:
            wanted[window.question] = wanted.get(window.question, 0) + 1
        whole = [number for number, count in self._seen.items() if count == wanted[number]]
        return scores(
            {self._questions[n].id: self._found[n][1] for n in whole if n in self._found},
            {self._questions[n].id: self._questions[n].answers for n in whole},
        )

    def compared(self, batch: Batch, outputs: Outputs) -> Array:
        """The logits of real tokens; those of padding mean nothing and are 0."""
        real = batch.feeds[self._info.inputs[1]] != 0
        return super().compared(
            batch, {name: np.where(real, outputs[name], 0) for name in self._info.outputs}
        )


def best_span(window: Window, first: Array, last: Array) -> tuple[float, tuple[int, int]] | None:
    """
    The best answer of a window from its logits, f32 `[seq]` each: their sum, and its characters.

    None if none of the `BEST` first and last tokens make one: in the passage, in order, of at most
    `LENGTH` tokens, the first with most of its context here.
    """
    best: tuple[float, tuple[int, int]] | None = None
    lasts = [int(n) for n in np.argsort(-last, kind="stable")[:BEST] if int(n) in window.spans]
    for number in np.argsort(-first, kind="stable")[:BEST]:
        start = int(number)
        if start not in window.central:
            continue
        for end in lasts:
            score = float(first[start]) + float(last[end])
            if start <= end < start + LENGTH and (best is None or score > best[0]):
                best = score, (window.spans[start][0], window.spans[end][1])
    return best


def windows(tokeniser: Any, number: int, question: Question, seq: int) -> Iterator[Window]:
    """The samples of one question, its `number` in the data set."""
    query = tokeniser.encode(question.text, add_special_tokens=False)
    query.truncate(QUERY)
    passage = tokeniser.encode(question.passage, add_special_tokens=False)
    total = len(passage.ids)
    room = seq - len(query.ids) - tokeniser.num_special_tokens_to_add(True)
    if room <= STRIDE and total > room:
        raise SpuError(f"inputs of {seq} tokens are too short for questions with a passage")
    # The overlap, so that each window starts STRIDE tokens after the one before.
    passage.truncate(room, stride=max(room - STRIDE, 0))
    parts = [passage, *passage.overflowing]
    starts = [STRIDE * part for part in range(len(parts))]
    ends = [start + len(part.ids) for start, part in zip(starts, parts, strict=True)]
    for part, encoded in enumerate(parts):
        sample = tokeniser.post_process(query, encoded)
        places = [place for place, which in enumerate(sample.sequence_ids) if which == 1]
        spans = {place: cast("tuple[int, int]", sample.offsets[place]) for place in places}
        central = frozenset(
            place
            for token, place in enumerate(places, starts[part])
            if _most_context(token, starts, ends) == part
        )
        sample.pad(seq, pad_id=_padding(tokeniser), pad_type_id=0)
        inputs = (list(sample.ids), list(sample.attention_mask), list(sample.type_ids))
        yield Window(number, inputs, spans, central)


def _most_context(token: int, starts: list[int], ends: list[int]) -> int:
    """The window in which the smaller of a token's contexts, before and behind it, is largest."""
    inside = [n for n in range(len(starts)) if starts[n] <= token < ends[n]]
    # A longer window wins between equals, as in BERT's reference, and then the earlier one.
    return max(
        inside,
        key=lambda n: min(token - starts[n], ends[n] - 1 - token) + 0.01 * (ends[n] - starts[n]),
    )


def read_questions(path: Path) -> list[Question]:
    """The questions of a file of SQuAD 1.1. Raises SpuError for any other file."""
    try:
        articles = cast("dict[str, Any]", json.loads(path.read_bytes()))["data"]
        return [
            Question(
                str(qa["id"]),
                str(qa["question"]),
                str(paragraph["context"]),
                tuple(str(answer["text"]) for answer in qa["answers"]) or ("",),
            )
            for article in articles
            for paragraph in article["paragraphs"]
            for qa in paragraph["qas"]
        ]
    except OSError as error:
        raise SpuError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise SpuError(f"{str(path)!r} is no SQuAD file of version 1.1") from None


def read_tokeniser(folder: Path, model: str) -> Any:
    """
    The tokeniser in `folder/<model>/` or `folder`: `tokenizer.json`, or else BERT's `vocab.txt`.

    `vocab.txt` suits uncased BERT only. Raises SpuError if there is neither.
    """
    library = extra_module("tokenizers", "reading of questions", "perf")
    for place in (folder / model, folder):
        try:
            if (place / "tokenizer.json").is_file():
                tokeniser = library.Tokenizer.from_file(str(place / "tokenizer.json"))
                tokeniser.no_truncation()
                tokeniser.no_padding()
                return tokeniser
            if (place / "vocab.txt").is_file() and model.startswith("bert"):
                return library.BertWordPieceTokenizer(str(place / "vocab.txt"), lowercase=True)
        # The library raises Exception itself for a file that it cannot read.
        except Exception as error:
            raise SpuError(f"cannot read the tokeniser in {str(place)!r}: {error}") from None
    raise SpuError(
        f"{str(folder)!r} has no tokeniser for {model!r}",
        remedy=f"put its tokenizer.json in {str(folder / model)!r}"
        + (", or its vocab.txt" if model.startswith("bert") else ""),
    )


def _padding(tokeniser: Any) -> int:
    found = (tokeniser.token_to_id(token) for token in ("[PAD]", "<pad>"))
    return next((token for token in found if token is not None), 0)
