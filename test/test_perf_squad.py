"""SQuAD: windows as BERT's reference cuts them, the best span, F1 and exact match."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from spu_ir.errors import SpuError
from spu_ir.perf.datasets import Batch
from spu_ir.perf.squad import (
    LENGTH,
    STRIDE,
    Question,
    SquadDataset,
    Window,
    best_span,
    read_questions,
    read_tokeniser,
    windows,
)
from spu_ir.perf.squad_metrics import exact, f1, normalised, scores
from spu_ir.perf.workloads import ModelInfo, read_task

SEQ = 192


@pytest.mark.parametrize(
    ("answer", "same"),
    [
        ("The Denver Broncos!", "denver broncos"),
        ("  a  cat, an owl & the bat ", "cat owl bat"),
        ("theatre another banana", "theatre another banana"),  # articles are whole words
        ("U.S.", "us"),
        ("$1,000", "1000"),
        ("a", ""),
        ("café—The", "café—"),  # only ASCII punctuation goes
    ],
)
def test_answers_are_normalised_as_the_official_script_does(answer: str, same: str) -> None:
    assert normalised(answer) == same


def test_f1_counts_common_words_as_often_as_both_have_them() -> None:
    assert f1("the cat sat", "cat sat down") == pytest.approx(2 / 3 * 2 * (2 / 2) / (1 + 2 / 3))
    assert f1("dog dog dog", "dog") == pytest.approx(2 * (1 / 3) / (1 + 1 / 3))
    assert f1("bird", "dog") == 0
    assert f1("", "dog") == 0
    assert exact("The Dog", "dog.")
    assert not exact("dogs", "dog")


def test_scores_take_the_best_reference_and_count_what_has_no_answer() -> None:
    references = {
        "1": ["Denver Broncos", "Broncos"],
        "2": ["in Santa Clara, California"],
        "3": ["gold"],
        "4": ["1995"],
    }
    answers = {"1": "the Broncos", "2": "Santa Clara", "3": "silver"}
    found = scores(answers, references)
    # 1 is exact; 2 has both of its words of four, F1 = 2 * 1 * 0.5 / 1.5; 3 is wrong; 4 is missing.
    assert found == {
        "Exact Match": 25.0,
        "F1 Score": round(100 * (1 + 2 * 0.5 / 1.5) / 4, 5),
    }
    assert scores({}, {}) == {}


def tokeniser(words: int = 2000) -> Any:
    """One token a word `w0`, `w1`...; [CLS] question [SEP] passage [SEP], types 0 and 1."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: n for n, word in enumerate([*special, *(f"w{n}" for n in range(words))])}
    result = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    result.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    result.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return result


def words(first: int, last: int) -> str:
    return " ".join(f"w{n}" for n in range(first, last))


def test_a_short_passage_is_one_window() -> None:
    passage = words(100, 110)
    (window,) = windows(tokeniser(), 7, Question("q", words(0, 3), passage, ("w105",)), SEQ)
    ids, mask, types = window.inputs
    assert window.question == 7
    assert ids[:16] == [2, 4, 5, 6, 3, *range(104, 114), 3]
    assert ids[16:] == [0] * (SEQ - 16)
    assert mask == [1] * 16 + [0] * (SEQ - 16)
    assert types == [0] * 5 + [1] * 11 + [0] * (SEQ - 16)
    assert {passage[first:last] for first, last in window.spans.values()} == set(passage.split())
    assert min(window.spans) == 5
    assert window.central == set(window.spans)


def test_a_long_passage_moves_on_by_the_stride_and_each_token_is_central_once() -> None:
    passage = words(0, 500)
    found = list(windows(tokeniser(), 0, Question("q", words(0, 9), passage, ("w1",)), SEQ))
    room = SEQ - 9 - 3
    first = [window.inputs[0][11] - 4 for window in found]
    assert first == [STRIDE * n for n in range(len(found))]
    assert STRIDE * (len(found) - 1) + room >= 500 > STRIDE * (len(found) - 2) + room
    central = [
        passage[slice(*window.spans[place])] for window in found for place in sorted(window.central)
    ]
    assert sorted(central) == sorted(passage.split())
    # Token 150 is 150 from the start of window 0 and 29 from its end; 22 from the start of 1.
    assert "w150" in {passage[slice(*found[0].spans[place])] for place in found[0].central}
    assert "w155" in {passage[slice(*found[1].spans[place])] for place in found[1].central}


def test_a_question_is_cut_at_64_tokens() -> None:
    (window,) = windows(tokeniser(), 0, Question("q", words(0, 90), "w1", ("w1",)), SEQ)
    assert sum(window.inputs[1]) == 64 + 1 + 3


def a_window(places: range, central: range) -> Window:
    return Window(0, ([], [], []), {n: (10 * n, 10 * n + 9) for n in places}, frozenset(central))


def test_the_best_span_is_in_order_central_and_not_too_long() -> None:
    window = a_window(range(5, 60), range(5, 40))
    first, last = np.full(64, -9.0, np.float32), np.full(64, -9.0, np.float32)
    first[3] = 9  # not in the passage
    first[50] = 8  # not central
    first[20], last[10] = 5, 5  # the end before the start
    last[20 + LENGTH] = 7  # one token too many
    last[25] = 3
    assert best_span(window, first, last) == (8.0, (200, 259))
    last[20 + LENGTH - 1] = 6
    assert best_span(window, first, last) == (11.0, (200, 10 * (20 + LENGTH - 1) + 9))


def test_a_window_without_a_possible_span_has_none() -> None:
    flat = np.zeros(64, np.float32)
    assert best_span(a_window(range(50, 60), range(0)), flat, flat) is None


def info(seq: int = SEQ) -> ModelInfo:
    _, bert = read_task("bert-torch-fp32")
    shapes = dict.fromkeys(bert.inputs, (1, seq))
    return replace(bert, shapes=shapes)


def write(folder: Path, questions: list[tuple[str, str, str, list[str]]]) -> Path:
    paragraphs = [
        {
            "context": passage,
            "qas": [
                {
                    "id": name,
                    "question": text,
                    "answers": [{"text": a, "answer_start": 0} for a in answers],
                }
            ],
        }
        for name, text, passage, answers in questions
    ]
    data = {"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}
    (folder / "dev-v1.1.json").write_text(json.dumps(data))
    tokeniser().save(str(folder / "tokenizer.json"))
    return folder


def test_answers_of_a_perfect_model_score_100(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        [
            ("near", words(0, 3), words(100, 120), ["w105 w106"]),
            ("far", words(3, 9), words(200, 700), ["w650"]),
            ("wrong", words(1, 2), words(900, 910), ["w905"]),
        ],
    )
    dataset = SquadDataset(info(), folder)
    starts, ends = ([4 + n for n in tokens] for tokens in ((105, 650, 901), (106, 650, 901)))
    assert dataset.accuracy() == {}
    for index in range(dataset.batches(2)):
        batch = dataset.batch(index, 2)
        ids = batch.feeds["input_ids.1"]
        assert ids.dtype == np.int64
        assert ids.shape[1] == SEQ
        dataset.add(
            batch,
            {
                "start_logits": np.isin(ids, starts).astype(np.float32),
                "end_logits": np.isin(ids, ends).astype(np.float32),
            },
        )
    assert dataset.accuracy() == {
        "Exact Match": round(200 / 3, 5),
        "F1 Score": round(200 / 3, 5),
    }


def test_a_question_with_windows_missing_is_not_counted(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        [("a", "w1", words(100, 110), ["w100"]), ("b", "w2", words(200, 700), ["w200"])],
    )
    dataset = SquadDataset(info(), folder)
    batch = dataset.batch(0, 2)  # all of a, and the first window of b
    zeros = np.zeros((2, SEQ), np.float32)
    first = zeros.copy()
    first[0, 3] = 1  # [CLS] w1 [SEP] w100
    dataset.add(batch, {"start_logits": first, "end_logits": first})
    assert dataset.accuracy() == {"Exact Match": 100.0, "F1 Score": 100.0}


def test_padding_is_not_compared(tmp_path: Path) -> None:
    dataset = SquadDataset(info(), write(tmp_path, [("a", "w1", words(0, 5), ["w1"])]))
    batch: Batch = dataset.batch(0, 1)
    ones = np.ones((1, SEQ), np.float32)
    compared = dataset.compared(batch, {"start_logits": ones, "end_logits": 2 * ones})
    real = 1 + 1 + 1 + 5 + 1
    assert compared.dtype == np.float32
    assert compared.sum() == 3 * real


def test_bert_reads_its_vocabulary(tmp_path: Path) -> None:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "who", "is", "ann", "##a", "?", "."]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    tokens = read_tokeniser(tmp_path, "bert-torch-fp32")
    question = Question("q", "Who is Anna?", "Anna is ANN.", ("Anna",))
    (window,) = windows(tokens, 0, question, 16)
    assert window.inputs[0][:13] == [2, 5, 6, 7, 8, 9, 3, 7, 8, 6, 7, 10, 3]
    assert question.passage[slice(window.spans[7][0], window.spans[8][1])] == "Anna"
    with pytest.raises(SpuError, match="no tokeniser for 'roberta-torch-fp32'"):
        read_tokeniser(tmp_path, "roberta-torch-fp32")


@pytest.mark.parametrize("content", ["{", "[]", '{"data": [{"paragraphs": 3}]}'])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "dev-v1.1.json"
    path.write_text(content)
    with pytest.raises(SpuError, match="no SQuAD file"):
        read_questions(path)
