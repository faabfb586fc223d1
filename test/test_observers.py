"""Observers of static ranges: properties on any data, and what each is for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from spu_ir.dialects.types import Array
from spu_ir.errors import SpuError
from spu_ir.transforms.observers import (
    BINS,
    Clipping,
    Histogram,
    MinMax,
    Mse,
    Observer,
    Percentile,
    observer_called,
)

NAMES = ("minmax", "percentile", "percentile:99", "entropy", "mse")
CLIPPING = NAMES[1:]

FLOATS = st.floats(allow_nan=True, allow_infinity=True, width=32)
ARRAYS = nps.arrays(np.float32, st.integers(0, 60), elements=FLOATS)
PLAIN = nps.arrays(
    np.float32,
    st.integers(1, 200),
    elements=st.floats(-1e4, 1e4, width=32) | st.floats(-1, 1, width=32),
)


def seen(name: str, *arrays: Array) -> Observer:
    observer = observer_called(name)()
    for array in arrays:
        observer.see(array)
    return observer


def tailed(outlier: float, size: int = 20_000) -> Array:
    """Normal numbers, one of them far out."""
    x = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    x[7] = outlier
    return x


# ---- properties


@pytest.mark.parametrize("name", NAMES)
@given(arrays=st.lists(ARRAYS, max_size=3))
def test_a_range_holds_zero_and_stays_within_what_was_seen(name: str, arrays: list[Array]) -> None:
    low, high = seen(name, *arrays).range()
    finite = np.concatenate([np.zeros(1, np.float32), *arrays])
    finite = finite[np.isfinite(finite)]
    assert float(finite.min()) <= low <= 0 <= high <= float(finite.max())


@pytest.mark.parametrize("name", NAMES)
@given(array=ARRAYS, cuts=st.lists(st.integers(0, 60), max_size=4), seed=st.integers(0, 99))
def test_the_cut_and_the_order_of_the_data_change_nothing(
    name: str, array: Array, cuts: list[int], seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(array))
    parts = np.split(array[order], sorted(min(cut, len(array)) for cut in cuts))
    assert seen(name, array).range() == seen(name, *parts).range()


@given(arrays=st.lists(PLAIN, min_size=1, max_size=3))
def test_every_element_is_in_its_bin(arrays: list[Array]) -> None:
    histogram = Histogram()
    for array in arrays:
        histogram.add(array)
    x = np.concatenate(arrays).astype(np.float64)
    expected = np.histogram(np.abs(x[x > 0]), BINS, (0, BINS * histogram.width))[0]
    np.testing.assert_array_equal(histogram.positive, expected)
    expected = np.histogram(np.abs(x[x < 0]), BINS, (0, BINS * histogram.width))[0]
    np.testing.assert_array_equal(histogram.negative, expected)
    assert histogram.zeros == np.count_nonzero(x == 0)
    peak = np.abs(x).max()
    assert peak < BINS * histogram.width
    assert peak == 0 or BINS // 2 * histogram.width <= peak or peak < 2.0**-80


@given(array=PLAIN)
def test_mse_is_no_worse_than_min_and_max(array: Array) -> None:
    observer = seen("mse", array)
    assert isinstance(observer, Mse)
    error = observer.histogram.squared_error
    assert error(*map(np.array, observer.range())) <= error(
        np.array(observer.low), np.array(observer.high)
    )


@given(array=PLAIN, percentile=st.sampled_from([60.0, 90.0, 99.0, 100.0]))
def test_a_percentile_cuts_off_no_more_than_it_says(array: Array, percentile: float) -> None:
    observer = Percentile(percentile=percentile)
    observer.see(array)
    low, high = observer.range()
    allowed = len(array) * (100 - percentile) / 200 + 1e-9
    assert np.count_nonzero(array < low) <= allowed
    assert np.count_nonzero(array > high) <= allowed


# ---- what each is for


@pytest.mark.parametrize(
    ("name", "outlier"), [("percentile", 40.0), ("percentile:99", 40.0), ("entropy", 40.0)]
)
def test_an_outlier_is_clipped(name: str, outlier: float) -> None:
    low, high = seen(name, tailed(outlier)).range()
    assert 2 < high < 6
    assert -6 < low < -2
    assert seen("minmax", tailed(outlier)).range()[1] == outlier


@pytest.mark.parametrize("name", CLIPPING)
def test_what_is_evenly_spread_is_kept(name: str) -> None:
    x = np.linspace(0, 1, 50_000, dtype=np.float32)
    low, high = seen(name, x).range()
    assert low == 0
    assert 0.98 < high <= 1


@pytest.mark.parametrize("name", CLIPPING)
def test_zeros_do_not_drown_the_rest(name: str) -> None:
    x = np.abs(np.random.default_rng(1).standard_normal(10_000)).astype(np.float32)
    _, high = seen(name, x, np.zeros(5_000, np.float32)).range()
    assert 2 < high <= x.max()


def test_the_least_squared_error_is_that_of_the_data() -> None:
    x = tailed(8.0, 400_000)
    errors: dict[str, float] = {}
    for name in NAMES:
        low, high = seen(name, x).range()
        scale = (high - low) / 255
        zero = np.rint(-low / scale)
        errors[name] = float(
            ((np.clip(np.rint(x / scale), -zero, 255 - zero) * scale - x) ** 2).mean()
        )
    assert min(errors, key=errors.__getitem__) == "mse"
    assert errors["mse"] < 0.8 * errors["minmax"]


def test_the_histogram_s_error_is_the_data_s() -> None:
    x = tailed(5.0)
    observer = seen("mse", x)
    assert isinstance(observer, Clipping)
    scale, zero = np.float64(10 / 255), np.rint(4 / (10 / 255))
    exact = (np.clip(np.rint(x / scale), -zero, 255 - zero) * scale - x) ** 2
    estimate = observer.histogram.squared_error(np.array(-4.0), np.array(6.0))
    assert abs(float(estimate) / exact.sum() - 1) < 0.02


def test_nothing_and_what_is_not_finite_are_ignored() -> None:
    for name in NAMES:
        assert seen(name).range() == (0.0, 0.0)
        assert seen(name, np.zeros(3, np.float32)).range() == (0.0, 0.0)
    observer = MinMax()
    observer.see(np.array([3, np.inf, -np.inf, np.nan], np.float32))
    observer.see(np.array([], np.float32))
    assert observer.range() == (0.0, 3.0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("best", "no observer 'best'; it is one of minmax, percentile, entropy, mse"),
        ("mse:3", "no observer 'mse:3'"),
        ("percentile:50", "'50' is not a percentile .* above 50"),
        ("percentile:x", "'x' is not a percentile"),
        ("percentile:", "'' is not a percentile"),
    ],
)
def test_a_wrong_name_is_explained(name: str, message: str) -> None:
    with pytest.raises(SpuError, match=message):
        observer_called(name)
