"""Programs that run their samples apart: the bits of one sample at a time, on any threads."""

from __future__ import annotations

import re

import numpy as np
import pytest

import spu_ir
from spu_ir.api import Precision
from spu_ir.dialects.functions import SAMPLES
from spu_ir.runtime.program import Array
from spu_ir.transforms import run_samples_apart

from .support.models import block, convolutions, feeds


def images(count: int) -> Array:
    rng = np.random.default_rng(3)
    return rng.normal(size=(count, 3, 19, 17)).astype(np.float32)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_samples_have_nothing_in_common(
    precision: Precision, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Poison in one sample's scratch memory would show in another's.
    monkeypatch.setenv("SPU_IR_POISON", "1")
    monkeypatch.setattr(run_samples_apart, "WORTH", 1)  # The model is small.
    model = spu_ir.compile(
        convolutions(),
        precision=precision,
        calibration=[{"x": images(2)}],
        shapes={"batch": (1, 8)},
        threads=threads,
        device="none",
    )
    assert f"{SAMPLES} = {{batch = 1 : i64}}" in model.ir()
    x = images(8)
    want = np.concatenate([model.run({"x": x[i : i + 1]})["y"] for i in range(8)])
    # Fewer than threads; divided by them; and some left over.
    for count in (1, 2, 3, 5, 8):
        got = model.run({"x": x[:count]})["y"]
        assert got.tobytes() == want[:count].tobytes(), count


@pytest.mark.parametrize("threads", [1, 2])
def test_long_samples_run_apart_and_short_ones_together(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPU_IR_POISON", "1")
    model = spu_ir.compile(
        block(),
        precision="int8",
        shapes={"batch": (1, 5), "seq": (1, 64)},
        threads=threads,
        device="none",
    )
    marked = re.search(rf"{SAMPLES} = {{batch = (\d+) : i64}}", model.ir())
    assert marked is not None
    least = int(marked.group(1))
    assert 1 < least < 64
    for seq in (1, least - 1, least, 64):
        given = feeds("block", 7, 5, seq)
        alone = [{name: array[i : i + 1] for name, array in given.items()} for i in range(5)]
        want = np.concatenate([model.run(one)["y"] for one in alone])
        got = model.run(given)["y"]
        assert got.tobytes() == want.tobytes(), seq
