"""The real all-MiniLM-L6-v2: accuracy on sentences, one answer at every level, fork, threads."""

from __future__ import annotations

import os
import resource
import threading
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

import spu_ir
from spu_ir import zoo
from spu_ir.api import Precision, lower
from spu_ir.runtime.build import build
from spu_ir.runtime.cpu import host_levels
from spu_ir.runtime.model import CompiledModel
from spu_ir.sparsify import magnitude

pytestmark = pytest.mark.slow

Array = NDArray[Any]
SHAPES = {"batch": (1, 64), "seq": (1, 256)}
CORPUS = Path(__file__).parents[1] / "examples" / "corpus.txt"


@cache
def sentences() -> dict[str, Array]:
    """The corpus of the example, tokenised and padded."""
    tokenizer = cast("Any", Tokenizer).from_str(zoo.minilm_tokenizer())
    lines = CORPUS.read_text(encoding="utf-8").split("\n")
    encoded = tokenizer.encode_batch([line for line in lines if line.strip()][:64])
    return {
        "input_ids": np.array([one.ids for one in encoded], np.int64),
        "attention_mask": np.array([one.attention_mask for one in encoded], np.int64),
        "token_type_ids": np.array([one.type_ids for one in encoded], np.int64),
    }


@cache
def model(sparsity: int | None) -> onnx.ModelProto:
    dense = zoo.minilm()
    return dense if sparsity is None else magnitude(dense, sparsity)


@cache
def expected(sparsity: int | None) -> Array:
    """ONNX Runtime's FP32 embeddings with just these weights."""
    text = model(sparsity).SerializeToString()
    session = onnxruntime.InferenceSession(text, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["embedding"], sentences())[0])


@cache
def compiled(precision: Precision, sparsity: int | None) -> CompiledModel:
    return spu_ir.compile(model(sparsity), precision=precision, shapes=SHAPES, threads=2)


def cosines(got: Array, want: Array) -> Array:
    return (got * want).sum(-1) / np.linalg.norm(got, axis=-1) / np.linalg.norm(want, axis=-1)


def test_fp32_is_onnx_runtimes() -> None:
    got = compiled("fp32", None).run(sentences())["embedding"]
    assert np.abs(got - expected(None)).max() <= 1e-4


def test_int8_keeps_the_meaning() -> None:
    got = compiled("int8", None).run(sentences())["embedding"]
    assert cosines(got, expected(None)).mean() >= 0.995


def test_int8_at_16x_keeps_the_pruned_meaning() -> None:
    got = compiled("int8", 16).run(sentences())["embedding"]
    assert cosines(got, expected(16)).min() >= 0.99
    formats = {row["format"] for row in compiled("int8", 16).report() if row["op"] == "spu.matmul"}
    assert formats == {"banked 4/64"}


def test_six_attentions_and_no_onnx_left() -> None:
    text = compiled("int8", None).ir("quantised")
    assert text.count("spu.packed_attention ") == 6
    assert "spu.attention" not in text
    assert '"onnx.' not in text


@pytest.mark.parametrize("sparsity", [None, 16])
def test_int8_has_the_same_bits_at_every_level(
    sparsity: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, _ = lower(model(sparsity), precision="int8", shapes=SHAPES)
    libraries = build(program.source, host_levels())
    feeds = {name: array[:8] for name, array in sentences().items()}
    monkeypatch.setenv("SPU_IR_POISON", "1")
    answers: dict[str, Array] = {}
    for level in host_levels():
        monkeypatch.setenv("SPU_IR_ISA", level)
        answers[level] = CompiledModel.from_program(program, libraries).run(feeds)["embedding"]
    first = next(iter(answers.values()))
    for level, answer in answers.items():
        assert answer.tobytes() == first.tobytes(), level


def test_a_row_does_not_depend_on_its_batch() -> None:
    whole = compiled("int8", 16).run(sentences())["embedding"]
    for rows in (slice(0, 1), slice(3, 10)):
        part = {name: array[rows] for name, array in sentences().items()}
        assert compiled("int8", 16).run(part)["embedding"].tobytes() == whole[rows].tobytes()


def test_skipped_padding_changes_no_bit() -> None:
    feeds = sentences()
    lengths = feeds["attention_mask"].sum(axis=1)
    assert len(set(lengths)) >= 8
    assert lengths.min() < lengths.max() / 2
    ready = spu_ir.compile(model(16), precision="int8", padding="skip", shapes=SHAPES, threads=2)
    products = [row for row in ready.report() if str(row["op"]).startswith("spu.")]
    assert {str(row["op"]) for row in products} >= {"spu.matmul", "spu.packed_attention"}
    assert {row["padding"] for row in products} == {"skip"}
    for rows in (slice(None), slice(0, 1), slice(5, 9)):
        part = {name: array[rows] for name, array in feeds.items()}
        want = compiled("int8", 16).run(part)["embedding"]
        assert ready.run(part)["embedding"].tobytes() == want.tobytes()


def test_eight_threads_and_a_forked_child() -> None:
    ready = compiled("int8", 16)
    feeds = {name: array[:4] for name, array in sentences().items()}
    want = ready.run(feeds)["embedding"].tobytes()
    wrong: list[int] = []

    def caller(number: int) -> None:
        for _ in range(5):
            if ready.run(feeds)["embedding"].tobytes() != want:
                wrong.append(number)

    callers = [threading.Thread(target=caller, args=(number,)) for number in range(8)]
    for thread in callers:
        thread.start()
    # The pool of a two-thread model has one worker: callers do the rest of the work themselves.
    busy = len(list(Path("/proc/self/task").iterdir()))
    for thread in callers:
        thread.join()
    assert not wrong
    assert busy <= threading.active_count() + 8 + 2 + _foreign_threads()
    child = os.fork()
    if child == 0:
        same = ready.run(feeds)["embedding"].tobytes() == want
        os._exit(0 if same else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def _foreign_threads() -> int:
    """Threads that numpy's BLAS and ONNX Runtime keep; there are at most two each a processor."""
    return 4 * (os.cpu_count() or 1)


def test_a_saved_model_is_the_model(tmp_path: Path) -> None:
    ready = compiled("int8", 16)
    ready.save(tmp_path / "minilm.spu", levels=[ready.level])
    loaded = spu_ir.load(tmp_path / "minilm.spu")
    feeds = {name: array[:4] for name, array in sentences().items()}
    assert loaded.run(feeds)["embedding"].tobytes() == ready.run(feeds)["embedding"].tobytes()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20  # KiB
