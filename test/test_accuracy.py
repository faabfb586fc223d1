"""INT8 with real weights on real data, and the data: sentences and files that Python brings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spu_ir
from benchmarks import accuracy
from benchmarks.accuracy_data import Magika, installed_files, sentences
from spu_ir import zoo
from spu_ir.errors import SpuError
from spu_ir.sparsify import magnitude
from spu_ir.transforms import pipelines
from spu_ir.transforms.encode import EncodePass


def test_sentences_are_different_and_always_the_same() -> None:
    chosen = sentences(500)
    assert len(set(chosen)) == len(chosen) == 500
    assert chosen == sentences(500)
    assert chosen[:20] == sentences(20)
    assert all(sentence[0].isupper() and sentence[-1] in ".!?" for sentence in chosen)
    assert all(8 <= len(sentence.split()) <= 40 for sentence in chosen)
    with pytest.raises(SpuError, match="sentences, 1000000 are needed"):
        sentences(1_000_000)


def test_files_are_different_and_of_several_kinds() -> None:
    chosen = installed_files(600)
    assert len(set(chosen)) == 600
    assert chosen == installed_files(600)
    assert len({path.suffix for path in chosen}) >= 4
    assert all(path.is_file() and path.stat().st_size >= 8 for path in chosen)


def test_features_are_the_two_ends_without_white_space() -> None:
    magika = Magika(Path("model"), ("a", "b"), first=4, last=3, block=8, padding=256)
    assert magika.features(b"  ab  ").tolist() == [97, 98, 32, 32, 32, 97, 98]
    assert magika.features(b"\n\n").tolist() == [256] * 7
    assert magika.features(b"abcdefghijkl").tolist() == [*b"abcd", *b"jkl"]
    # Only a block of each end is looked at, however much of it is white space.
    assert magika.features(b" " * 9 + b"xyz").tolist() == [256] * 4 + [*b"xyz"]
    assert magika.features(b"x").tolist() == [120, 256, 256, 256, 256, 256, 120]


def test_the_nearest_is_another_one() -> None:
    rows = np.array([[1, 0], [2, 0.1], [0, 1], [0.1, 3]], np.float32)
    assert accuracy.nearest(rows).tolist() == [1, 0, 3, 2]


@pytest.mark.slow
def test_magika_gives_the_same_labels() -> None:
    report = accuracy.measure_magika(500)
    assert report["int8_products"] == report["products"] == 3
    assert report["kinds"] >= 4
    assert report["same_label"] >= accuracy.LABELS, report["changed"]
    assert report["verdict"] == "holds"


GROUPS = "int8, smoothing, second order, groups of 128"
ALL_INT8 = ("int8", "int8, smoothing", "int8, smoothing, second order", GROUPS)


@pytest.fixture(scope="module")
def embedded() -> dict[str, dict[str, Any]]:
    rows = accuracy.measure_minilm(500, ALL_INT8)
    return {row["compiled"]: row for row in rows}


@pytest.mark.slow
def test_sentences_keep_their_meaning(embedded: dict[str, dict[str, Any]]) -> None:
    theirs = embedded["ONNX Runtime int8"]
    for name in ALL_INT8:
        assert embedded[name]["mean_cosine"] >= accuracy.COSINE
        assert embedded[name]["mean_cosine"] > theirs["mean_cosine"]
        assert embedded[name]["same_neighbour"] > theirs["same_neighbour"]
    cosines = [embedded[name]["mean_cosine"] for name in ALL_INT8]
    assert cosines == sorted(cosines)


@pytest.mark.slow
def test_sentences_keep_their_neighbours(embedded: dict[str, dict[str, Any]]) -> None:
    assert embedded[GROUPS]["same_neighbour"] >= accuracy.NEIGHBOURS
    assert embedded[GROUPS]["verdict"] == "holds"


@pytest.mark.slow
@pytest.mark.parametrize(("ratio", "most"), [(10, 16.0), (20, 10.0)])
def test_unstructured_weights_are_packed_without_loss(
    ratio: int, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """90 % and 95 % of MiniLM's weights pruned anywhere: the bits of the same weights dense."""
    model = magnitude(zoo.minilm(), ratio, structure="unstructured")
    options: dict[str, Any] = {"precision": "int8", "shapes": {"batch": (1, 8), "seq": (1, 64)}}
    (feeds,) = accuracy.tokenised(sentences(8))
    feeds = {name: array[:, :64] for name, array in feeds.items()}
    ragged = spu_ir.compile(model, threads=1, **options)
    rows = [row for row in ragged.report() if row["op"] == "spu.matmul"]
    assert len(rows) == 36
    run: list[float] = []
    for row in rows:
        assert float(str(row["density"])) == pytest.approx(1 / ratio, abs=0.002)
        form, _, slots = str(row["format"]).partition(" ")
        assert form == "ragged"
        # The effective ratio is 64 / slots.
        run.append(float(slots.removesuffix("/64")))
    assert 64 / ratio < np.mean(run) <= most
    assert max(run) < 32
    monkeypatch.setattr(pipelines, "EncodePass", lambda: EncodePass(format="dense"))
    dense = spu_ir.compile(model, threads=1, **options)
    assert {row["format"] for row in dense.report() if row["op"] == "spu.matmul"} == {"dense"}
    assert dense.run(feeds)["embedding"].tobytes() == ragged.run(feeds)["embedding"].tobytes()
