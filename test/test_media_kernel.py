"""Resizing of images: the golden model is Pillow's, and C has its bits at every level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from support.vpu_library import LEVELS, Device, assert_same_bits, device

from spu_ir.dialects.vpu import ResizeFilter
from spu_ir.errors import SpuError
from spu_ir.interpreters import numerics_image as golden
from spu_ir.interpreters import numerics_vpu

Array = NDArray[Any]

extents = st.integers(1, 70)
seeds = st.integers(0, 2**31)
FILTERS = {
    ResizeFilter.BILINEAR: Image.Resampling.BILINEAR,
    ResizeFilter.BICUBIC: Image.Resampling.BICUBIC,
}
NUMBERS = {ResizeFilter.BILINEAR: 0, ResizeFilter.BICUBIC: 1}
"""What C calls them."""
MOST = 300
"""Taps for any reduction of the tests."""


@pytest.fixture(params=LEVELS, scope="module")
def c(request: pytest.FixtureRequest) -> Device:
    """The library of each level that this host runs."""
    return device(request.param)


def noise(seed: int, *shape: int) -> Array:
    """Bytes of every value, the ends often."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, shape, np.uint8)
    return np.where(rng.random(shape) < 0.3, rng.choice([0, 255], shape), x).astype(np.uint8)


def axis(extent: int, resized: int, first: int, stored: int = 0) -> Array:
    """One row of a geometry."""
    return np.array([[extent, stored, resized, first]], np.int32)


def by_pillow(image: Array, height: int, width: int, filter: ResizeFilter) -> Array:
    """Columns, then rows: whichever Pillow of these versions would begin with."""
    picture = Image.fromarray(image)
    narrow = picture.resize((width, picture.height), FILTERS[filter])
    return np.asarray(narrow.resize((width, height), FILTERS[filter]))


@pytest.mark.parametrize("filter", FILTERS)
@given(h=extents, w=extents, height=extents, width=extents, seed=seeds)
def test_the_golden_model_resizes_as_pillow(
    filter: ResizeFilter, h: int, w: int, height: int, width: int, seed: int
) -> None:
    image = noise(seed, h, w, 3)
    rows = golden.resize_taps(axis(h, height, 0), height, MOST, filter, antialias=True)
    columns = golden.resize_taps(axis(w, width, 0), width, MOST, filter, antialias=True)
    got = golden.resize(image[None], rows, columns)[0]
    assert_same_bits(got, by_pillow(image, height, width, filter))


def test_without_antialias_two_pixels_make_one() -> None:
    taps, weights = golden.resize_taps(
        axis(100, 10, 0), 10, 3, ResizeFilter.BILINEAR, antialias=False
    )
    # The centre of ten pixels is between the fifth and the sixth of them.
    assert [list(pair) for pair in taps[0, :2]] == [[4, 2], [14, 2]]
    assert weights[0, 0].tolist() == [1 << 21, 1 << 21, 0]


def c_taps(
    c: Device, geometry: Array, count: int, filter: ResizeFilter, *, antialias: bool, most: int
) -> tuple[int, Array, Array]:
    taps = np.full((1, count, 2), -1, np.int32)
    weights = np.full((1, count, most), -1, np.int32)
    failed = c.call(
        "test_vpu_resize_taps",
        geometry,
        count,
        most,
        taps,
        weights,
        NUMBERS[filter],
        int(antialias),
        returns=np.int32,
    )
    return failed, taps, weights


@pytest.mark.parametrize("filter", FILTERS)
@given(
    extent=st.integers(1, 5000),
    resized=st.integers(1, 600),
    part=st.floats(0, 1),
    antialias=st.booleans(),
    stored=st.floats(0, 1),
)
def test_taps(
    c: Device, filter: ResizeFilter, extent: int, resized: int, part: float, antialias: bool,
    stored: float,
) -> None:  # fmt: skip
    count = max(1, round(part * resized))
    first = (resized - count) // 2
    geometry = axis(extent, resized, first, int(stored * extent))
    most = 2 * extent + 5
    options = {"antialias": antialias, "most": most}
    failed, taps, weights = c_taps(c, geometry, count, filter, **options)
    expected = golden.resize_taps(geometry, count, most, filter, antialias=antialias)
    assert failed == 0
    assert_same_bits(taps, expected[0])
    assert_same_bits(weights, expected[1])


IMPOSSIBLE = {
    "no pixels": axis(0, 8, 0),
    "no positions": axis(8, 0, 0),
    "negative": axis(-5, 8, 0),
    "before": axis(8, 8, -1),
    "behind": axis(8, 8, 5),
    "stored behind": axis(8, 8, 0, 9),
    "stored before": axis(8, 8, 0, -1),
    "too many taps": axis(2**31 - 1, 4, 0),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_an_impossible_geometry_is_refused(c: Device, what: str) -> None:
    geometry = IMPOSSIBLE[what]
    failed, taps, _ = c_taps(c, geometry, 4, ResizeFilter.BILINEAR, antialias=True, most=9)
    assert failed == 1
    if what != "too many taps":
        assert not taps.any()
    with pytest.raises(SpuError, match="geometry is impossible"):
        golden.resize_taps(geometry, 4, 9, ResizeFilter.BILINEAR, antialias=True)


def c_resize(
    c: Device, x: Array, rows: tuple[Array, Array], columns: tuple[Array, Array]
) -> tuple[int, Array]:
    _, h, w, channels = x.shape
    height, width = rows[0].shape[1], columns[0].shape[1]
    y = np.full((1, height, width, channels), 77, np.uint8)
    failed = c.call(
        "test_vpu_resize_u8", x, h, w, w * channels,
        *rows, rows[1].shape[2], *columns, columns[1].shape[2],
        y, width * channels, height, width, channels, returns=np.int32,
    )  # fmt: skip
    return failed, y


@given(
    h=extents,
    w=extents,
    height=extents,
    width=extents,
    channels=st.integers(1, 4),
    filter=st.sampled_from(list(FILTERS)),
    seed=seeds,
)
def test_resize(
    c: Device, h: int, w: int, height: int, width: int, channels: int, filter: ResizeFilter,
    seed: int,
) -> None:  # fmt: skip
    x = noise(seed, 1, h, w, channels)
    rows = golden.resize_taps(axis(h, height, 0), height, MOST, filter, antialias=True)
    columns = golden.resize_taps(axis(w, width, 0), width, MOST, filter, antialias=True)
    failed, got = c_resize(c, x, rows, columns)
    assert failed == 0
    assert_same_bits(got, golden.resize(x, rows, columns))


def test_a_row_as_wide_as_there_can_be(c: Device) -> None:
    """Sums of one row at a time, and of more than one block of rows."""
    for width, height in ((4096, 3), (512, 40)):
        x = noise(1, 1, 5, 9, 3)
        rows = golden.resize_taps(
            axis(5, height, 0), height, 9, ResizeFilter.BICUBIC, antialias=True
        )
        columns = golden.resize_taps(
            axis(9, width, 0), width, 9, ResizeFilter.BICUBIC, antialias=True
        )
        failed, got = c_resize(c, x, rows, columns)
        assert failed == 0
        assert_same_bits(got, golden.resize(x, rows, columns))


@pytest.mark.parametrize("change", [(0, -1), (0, 60), (1, 40), (1, -1)])
@pytest.mark.parametrize("which", [0, 1])
def test_taps_outside_the_image_are_refused(c: Device, change: tuple[int, int], which: int) -> None:
    x = noise(2, 1, 20, 30, 3)
    taps = [
        golden.resize_taps(axis(extent, 8, 0), 8, 9, ResizeFilter.BILINEAR, antialias=True)
        for extent in (20, 30)
    ]
    taps[which][0][0, 5, change[0]] = change[1]
    failed, got = c_resize(c, x, taps[0], taps[1])
    assert failed == 1
    assert not got.any()
    with pytest.raises(SpuError, match="outside the pixels"):
        golden.resize(x, taps[0], taps[1])


@given(pixels=st.integers(0, 130), channels=st.integers(1, 4), seed=seeds)
def test_a_table_for_each_channel(c: Device, pixels: int, channels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (pixels, channels), np.uint8)
    entries = rng.integers(0, 256, (channels, 256), np.uint8)
    for table, name in ((entries, "u8"), (rng.standard_normal((channels, 256)), "f32")):
        table = table.astype(np.uint8 if name == "u8" else np.float32)
        y = np.empty(x.shape, table.dtype)
        c.call(f"test_vpu_table_channels_{name}", table, x, y, pixels, channels)
        assert_same_bits(y, numerics_vpu.table(table, x))
    flat = x.reshape(-1)
    y = np.empty(flat.shape, np.float32)
    numbers = rng.standard_normal(256).astype(np.float32)
    c.call("test_vpu_table_f32", numbers, flat, y, flat.size)
    assert_same_bits(y, numbers[flat])
