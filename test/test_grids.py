"""Grids, integer tensors that are known by their steps, against the arrays that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects import arith
from xdsl.dialects.builtin import IndexType, IntegerAttr
from xdsl.ir import Operation

from spu_ir.dialects.types import Array
from spu_ir.transforms.lowering import grids
from spu_ir.transforms.lowering.dims import Extents, add, multiply
from spu_ir.transforms.lowering.grids import Grid


@st.composite
def any_grid(draw: st.DrawFn) -> Grid:
    """Up to four axes; every second one counts through its elements in row-major order."""
    dims = draw(st.lists(st.integers(1, 4), max_size=4))
    offset = draw(st.integers(-5, 5))
    if draw(st.booleans()):
        step = draw(st.integers(1, 3))
        steps = [step * int(np.prod(dims[axis + 1 :])) for axis in range(len(dims))]
    else:
        steps = [draw(st.integers(-4, 4)) for _ in dims]
    return grids.make(dims, offset, steps)


def array(grid: Grid) -> Array:
    """The elements of a grid of numbers."""
    shape = [dim for dim in grid.dims if isinstance(dim, int)]
    places = np.indices(shape)
    total = np.full(shape, grid.offset, np.int64)
    for step, place in zip(grid.steps, places, strict=True):
        total += step * place
    return total


@given(grid=any_grid())
def test_a_constant_is_recognised(grid: Grid) -> None:
    assert grids.of_array(array(grid)) == grid
    assert grids.of_items(array(grid).astype(object)) == grid


@given(grid=any_grid(), place=st.integers(0, 255))
def test_a_constant_with_one_other_number_is_none(grid: Grid, place: int) -> None:
    values = array(grid)
    bent = values.reshape(-1)
    bent[place % bent.size] += 1
    found = grids.of_array(values)
    assert found is None or np.array_equal(array(found), values)
    assert grids.of_items(values.astype(object)) == found


@pytest.mark.parametrize(
    "values", [np.zeros((0, 3), np.int64), np.array([True, False]), np.array([1.5]), np.uint8([1])]
)
def test_what_is_no_grid(values: Array) -> None:
    assert grids.of_array(np.asarray(values)) is None


def test_truth_values_are_uniform() -> None:
    found = grids.of_array(np.ones((2, 3), np.bool_))
    assert found is not None
    assert found.uniform is True


def test_numbers_that_int64_cannot_count_in_are_left() -> None:
    ends = np.array([np.iinfo(np.int64).min, np.iinfo(np.int64).max])
    assert grids.of_array(ends) is None


@given(grid=any_grid(), data=st.data())
def test_reshaping(grid: Grid, data: st.DataObject) -> None:
    values = array(grid)
    cuts = [d for d in range(1, values.size + 1) if values.size % d == 0]
    first = data.draw(st.sampled_from(cuts))
    second = data.draw(st.sampled_from([d for d in cuts if values.size // first % d == 0]))
    shape = (first, 1, second, values.size // first // second)
    found = grids.reshaped(grid, shape)
    if found is not None:
        np.testing.assert_array_equal(array(found), values.reshape(shape))
    else:
        assert grids.of_array(values.reshape(shape)) is None or not grids.is_row_major(grid)


@given(a=any_grid(), factor=st.integers(-3, 3))
def test_arithmetic(a: Grid, factor: int) -> None:
    wide = (2, *a.dims)
    b = grids.make(wide, 3, [1] * len(wide))
    np.testing.assert_array_equal(array(grids.scaled(a, factor)), array(a) * factor)
    for sign in (1, -1):
        total = grids.combined(a, b, wide, sign)
        np.testing.assert_array_equal(array(total), array(a) + sign * array(b))
    for axis, dim in enumerate(a.dims):
        assert isinstance(dim, int)
        taken = a.fixed(axis, dim - 1)
        np.testing.assert_array_equal(array(taken), np.take(array(a), dim - 1, axis))


@given(grid=any_grid(), extent=st.integers(1, 40))
def test_ends(grid: Grid, extent: int) -> None:
    values = array(grid)
    extents = Extents(lambda op: op)
    assert grids.span(extents, grid) == (values.min(), values.max())
    inside = values.min() >= 0 and values.max() < extent
    assert grids.within(extents, grid, extent) == inside
    counted = np.array_equal(values.reshape(-1), np.arange(extent))
    assert grids.counts(grid, extent) == counted


def test_run_time_extents() -> None:
    """[batch, seq] with steps (seq, 1) counts through batch * seq places."""

    def inserted(op: Operation) -> Operation:
        return op

    extents = Extents(inserted)
    batch, seq = (
        extents.atom(arith.ConstantOp(IntegerAttr(0, IndexType())).result, (1, 8)) for _ in range(2)
    )
    places = grids.make((batch, 1, seq), 0, (seq, 0, 1))
    assert grids.counts(places, multiply(batch, seq))
    assert grids.within(extents, places, multiply(batch, seq))
    assert not grids.within(extents, places, 64 - 1)
    assert grids.within(extents, places, 64)
    flat = grids.reshaped(places, [multiply(batch, seq)])
    assert flat == grids.make([multiply(batch, seq)], 0, [1])
    shifted = grids.make((seq,), add(seq, -1), (-1,))
    assert grids.span(extents, shifted) == (0, add(seq, -1))
