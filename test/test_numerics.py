"""The accuracy that docs/numerics.md promises, and the corners of the golden arithmetic."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from spu_ir.interpreters import numerics
from spu_ir.packing.banked import check_accumulator, is_balanced, pack, slots_needed
from spu_ir.packing.prune import prune_banked

DOC = Path(__file__).parents[1] / "docs" / "numerics.md"


def promised(name: str) -> tuple[float, bool]:
    """The documented largest error of a function, and whether it is in units of the last place."""
    row = re.search(rf"^\| `{name}` \|.*\| ([0-9.e-]+)( ulp)? \|$", DOC.read_text(), re.M)
    assert row is not None
    return float(row[1]), row[2] is not None


@pytest.mark.parametrize(
    ("name", "exact", "low", "high"),
    [
        ("exp", math.exp, -87.0, 88.0),
        ("log", math.log, 1e-37, 1e30),
        ("erf", math.erf, -6.0, 6.0),
        ("tanh", math.tanh, -10.0, 10.0),
    ],
)
def test_functions_are_as_accurate_as_documented(
    name: str, exact: Callable[[float], float], low: float, high: float
) -> None:
    rng = np.random.default_rng(3)
    x = rng.uniform(low, high, 40000)
    if name == "log":
        x = np.exp(rng.uniform(math.log(low), math.log(high), 40000))
    x = np.concatenate([x, rng.uniform(max(low, -1.0) if name != "log" else 0.5, 1.5, 40000)])
    x = x.astype(np.float32)
    expected = np.array([exact(float(v)) for v in x])
    error = np.abs(getattr(numerics, name)(x) - expected)
    limit, in_ulp = promised(name)
    if in_ulp:
        error = error / np.spacing(np.abs(expected).astype(np.float32))
    assert limit / 2 < error.max() <= limit


def test_functions_at_their_ends() -> None:
    inf, nan = np.inf, np.nan
    x = np.array([-inf, inf, nan, 0.0, 89.5, -150.0, -1.0], dtype=np.float32)
    np.testing.assert_array_equal(numerics.exp(x)[:6], [0, inf, nan, 1, inf, 0])
    np.testing.assert_array_equal(numerics.log(x)[:4], [nan, inf, nan, -inf])
    assert np.isnan(numerics.log(x)[6])
    np.testing.assert_array_equal(numerics.tanh(x)[:4].round(5), [-1, 1, nan, 0])
    np.testing.assert_array_equal(numerics.sigmoid(x)[:4], [0, 1, nan, 0.5])


def test_bfloat16_rounds_as_ml_dtypes_does() -> None:
    bits = np.random.default_rng(5).integers(0, 2**32, 100000, dtype=np.uint64)
    x = bits.astype(np.uint32).view(np.float32)
    x = x[~np.isnan(x)]
    expected = x.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(numerics.to_bf16(x), expected.view(np.uint16))
    np.testing.assert_array_equal(numerics.from_bf16(numerics.to_bf16(x)), expected)


def test_quantisation_at_its_ends() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.5, 1.5, 2.5, -0.5], dtype=np.float32)
    got = numerics.quantise(x, np.float32(1.0), 7, "uint8")
    assert got.tolist() == [7, 255, 0, 7, 9, 9, 7]
    assert numerics.quantise(x, np.float32(1.0), -7, "int8").tolist()[:3] == [-7, 127, -128]


def test_rows_are_quantised_around_128() -> None:
    q, scale = numerics.quantise_rows(np.array([[0.0, 0.0], [-2.0, 1.0]], dtype=np.float32))
    assert q.tolist() == [[128, 128], [1, 192]]
    np.testing.assert_array_equal(scale, np.array([1.0, 2.0 / 127.0], dtype=np.float32))


def test_rows_are_quantised_around_another_zero_point() -> None:
    x = np.array([[0.0, 0.0], [-0.17, 2.15], [-2.0, 0.1], [np.nan, 215.0]], dtype=np.float32)
    q, scale = numerics.quantise_rows(x, 40)
    assert q.tolist() == [[40, 40], [23, 255], [0, 42], [40, 255]]
    np.testing.assert_allclose(scale, [1.0, 0.01, 0.05, 1.0], rtol=1e-6)
    q, scale = numerics.quantise_rows(np.array([[-1.0, 0.5, 2.55]], dtype=np.float32), 0)
    assert q.tolist() == [[0, 50, 255]]
    np.testing.assert_allclose(scale, [0.01], rtol=1e-6)


def test_reductions_follow_the_fixed_tree() -> None:
    """1e8 and -1e8 meet only in the last step of the tree, so the ones beside them are lost."""
    x = np.zeros(40, dtype=np.float32)
    x[[0, 16, 1, 17]] = [1e8, 1.0, -1e8, -1.0]
    assert numerics.sum_lanes(x) == 0.0
    x[[8, 24]] = [3e7, 4.0]  # lane 8: added to lane 0 at once
    assert numerics.sum_lanes(x) == np.float32(1e8) + np.float32(3e7 + 4.0) - np.float32(1e8)


def test_the_accumulator_bound_is_sharp() -> None:
    depth = 2**31 // (255 * 127)
    weight = np.full((2, depth), 127, dtype=np.int8)
    weight[0] = 1
    check_accumulator(weight, 0)
    with pytest.raises(ValueError, match=r"row 1 may reach 2147514120, beyond int32's 2147483647"):
        check_accumulator(np.pad(weight, ((0, 0), (0, 1)), constant_values=127), 0)
    with pytest.raises(ValueError, match="row 1 may reach"):
        pack(weight, segments=[(0, depth)], encoding=None, x_zero=128)


def test_pruning_keeps_the_largest_of_every_bank_and_the_first_of_equals() -> None:
    weight = np.zeros((1, 130), dtype=np.int8)
    weight[0, [3, 5, 9, 63, 64, 129]] = [7, -9, 7, 7, 1, 1]
    kept = prune_banked(weight, [(0, 130)], 64, 2)
    assert np.nonzero(kept[0])[0].tolist() == [3, 5, 64, 129]
    assert is_balanced(kept, [(0, 130)], 64, 2)
    assert slots_needed(weight, [(0, 130)], 64) == 4
    with pytest.raises(ValueError, match="lane 0 of block 0 has 4 non-zeros in bank 0, more than"):
        pack(weight, segments=[(0, 130)], encoding=(64, 2, 1))


def test_shared_pruning_gives_rows_sixteen_apart_one_pattern() -> None:
    weight = np.random.default_rng(0).normal(size=(40, 100)).astype(np.float32)
    kept = prune_banked(weight, [(0, 100)], 64, 4, share=2)
    np.testing.assert_array_equal(kept[:8] != 0, kept[16:24] != 0)
    assert np.count_nonzero(kept[0]) == 8


def test_empty_banks_cost_nothing() -> None:
    weight = np.zeros((32, 640), dtype=np.int8)
    weight[3, 200] = 1
    packed = pack(weight, segments=[(0, 640)], encoding=(64, 0, 1))
    assert packed.begin.tolist() == [0, 1, 1]
    assert packed.offset.tolist() == [192]
    assert packed.slots_run == 4 / 20
    assert not packed.paired


def test_blocks_of_a_pair_have_the_same_windows() -> None:
    """A quad more for a bank that only the neighbour uses; the third of a group has none."""
    weight = np.zeros((2 * 48, 640), dtype=np.int8)
    weight[3, 200] = weight[16, [0, 1, 2, 3, 4]] = 1
    weight[48 + 32, 639] = 1
    packed = pack(weight, segments=[(0, 640)], encoding=(64, 8, 1), groups=2, group_bytes=640)
    assert packed.paired
    assert packed.begin.tolist() == [0, 3, 6, 6, 6, 6, 7]
    assert packed.offset.tolist() == [0, 0, 192, 0, 0, 192, 640 + 576]
    assert not pack(weight, segments=[(0, 640)], encoding=(64, 8, 2)).paired


@pytest.mark.parametrize(
    ("shape", "segments", "groups", "message"),
    [
        ((4, 8), [(0, 7)], 1, "segments hold 7 elements, but the weight has 8"),
        ((4, 8), [(2**31 - 4, 8)], 1, "out of range"),
        ((4, 8), [(0, 8)], 3, "4 rows cannot be split into 3 groups"),
        ((8,), [(0, 8)], 1, r"must be \[N, K\]"),
    ],
)
def test_packing_refuses_what_does_not_fit(
    shape: tuple[int, ...], segments: list[tuple[int, int]], groups: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pack(np.ones(shape, dtype=np.int8), segments=segments, encoding=None, groups=groups)
