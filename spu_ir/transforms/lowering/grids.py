"""
Integer tensors whose elements follow from their places: what exporters index and mask with.

A `Grid` is `offset + sum of steps[k] * index[k]`, of numbers and run-time extents: a range,
unsqueezed, expanded, scaled, added to another one. One whose steps are all 0 is *uniform*: the
same number, or the same truth value, everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from spu_ir.dialects.types import Array

from .dims import Dim, Extents, add, multiply, product, subtract

Dims: TypeAlias = tuple[Dim, ...]

LARGEST = 1 << 31
"""Constants with larger numbers are no indices, and int64 could not count in them."""

SAMPLE = 1024
"""So many elements of a constant are looked at before all of it."""


@dataclass(frozen=True)
class Grid:
    """`offset + sum of steps[k] * index[k]`; a step is 0 along an axis of extent 1."""

    dims: Dims
    offset: Dim | bool
    steps: Dims

    @property
    def uniform(self) -> Dim | bool | None:
        """The one value of all elements, None where they differ."""
        return None if any(self.steps) else self.offset

    @property
    def axes(self) -> list[int]:
        """The axes along which elements differ."""
        return [axis for axis, step in enumerate(self.steps) if step != 0]

    def placed(self, dims: Sequence[Dim], axes: Sequence[int]) -> Grid:
        """With `dims`, own axis k as their axis `axes[k]`, and repeated along the others."""
        steps: list[Dim] = [0] * len(dims)
        for axis, step in zip(axes, self.steps, strict=True):
            steps[axis] = step
        return make(dims, self.offset, steps)

    def broadcast(self, dims: Sequence[Dim]) -> Grid:
        """With `dims`, to which its own broadcast as numpy's do."""
        missing = len(dims) - len(self.dims)
        return self.placed(dims, range(missing, len(dims)))

    def fixed(self, axis: int, index: int) -> Grid:
        """Without `axis`, at `index` of it."""
        keep = [k for k in range(len(self.dims)) if k != axis]
        offset = self.offset
        if self.steps[axis] != 0:
            offset = add(offset, multiply(self.steps[axis], index))
        return make([self.dims[k] for k in keep], offset, [self.steps[k] for k in keep])


def make(dims: Sequence[Dim], offset: Dim | bool, steps: Sequence[Dim]) -> Grid:
    """A grid, its steps 0 along axes of extent 1."""
    kept = [0 if dim == 1 else step for dim, step in zip(dims, steps, strict=True)]
    return Grid(tuple(dims), offset, tuple(kept))


def filled(dims: Sequence[Dim], value: Dim | bool) -> Grid:
    """The uniform grid of `value`."""
    return make(dims, value, [0] * len(dims))


def of_items(items: np.ndarray[Any, np.dtype[np.object_]]) -> Grid | None:
    """The grid of an object array of int, bool and `Extent`, None where it is none."""
    if not items.size:
        return None
    first = items.reshape(-1)[0]
    if isinstance(first, bool):
        return filled(items.shape, first) if all(x is first for x in items.reshape(-1)) else None
    steps: list[Dim] = []
    for axis, extent in enumerate(items.shape):
        place = [0] * items.ndim
        place[axis] = min(1, extent - 1)
        steps.append(subtract(items[tuple(place)], first))
    found = make(items.shape, first, steps)
    for index in np.ndindex(items.shape):
        if items[index] is True or items[index] is False or items[index] != _at(found, index):
            return None
    return found


def _at(grid: Grid, index: Sequence[int]) -> Dim:
    total = grid.offset
    for step, place in zip(grid.steps, index, strict=True):
        total = add(total, multiply(step, place))
    return total


def of_array(array: Array) -> Grid | None:
    """The grid of a constant of integers or truth values, None where it is none."""
    if array.dtype.kind not in "biu" or not array.size:
        return None
    first = array.reshape(-1)[0]
    if array.dtype.kind == "b":
        return filled(array.shape, bool(first)) if (array == first).all() else None
    steps = [
        int(np.take(array, min(1, extent - 1), axis).reshape(-1)[0]) - int(first)
        for axis, extent in enumerate(array.shape)
    ]
    if array.dtype.kind != "i" or max(map(abs, (int(first), *steps))) > LARGEST:
        return None
    # A table of integers is large, and its first numbers tell already.
    head = array.reshape(-1)[:SAMPLE].astype(np.int64)
    places = np.unravel_index(np.arange(head.size), array.shape) if array.ndim else ()
    told = int(first) + sum(step * place for step, place in zip(steps, places, strict=True))
    if not np.array_equal(np.broadcast_to(told, head.shape), head):
        return None
    total = np.full((), int(first), np.int64)
    for axis, step in enumerate(steps):
        column = np.arange(array.shape[axis], dtype=np.int64) * step
        total = total + column.reshape(-1, *[1] * (array.ndim - 1 - axis))
    same = np.array_equal(np.broadcast_to(total, array.shape), array)
    return make(array.shape, int(first), steps) if same else None


def combined(a: Grid, b: Grid, dims: Sequence[Dim], sign: int) -> Grid:
    """`a + sign * b`, both broadcast to `dims`."""
    a, b = a.broadcast(dims), b.broadcast(dims)
    steps = [add(x, multiply(y, sign)) for x, y in zip(a.steps, b.steps, strict=True)]
    return make(dims, add(a.offset, multiply(b.offset, sign)), steps)


def scaled(grid: Grid, factor: Dim) -> Grid:
    """`grid * factor`."""
    steps = [multiply(step, factor) for step in grid.steps]
    return make(grid.dims, multiply(grid.offset, factor), steps)


def is_row_major(grid: Grid) -> bool:
    """Whether the elements count up by one step in row-major order, from whatever start."""
    axes = [axis for axis, dim in enumerate(grid.dims) if dim != 1]
    return all(grid.steps[a] == multiply(grid.steps[b], grid.dims[b]) for a, b in pairwise(axes))


def reshaped(grid: Grid, dims: Sequence[Dim]) -> Grid | None:
    """The same elements in order, None where they are no grid in the new shape."""
    old = [axis for axis, dim in enumerate(grid.dims) if dim != 1]
    new = [axis for axis, dim in enumerate(dims) if dim != 1]
    steps: list[Dim] = [0] * len(dims)
    if [grid.dims[axis] for axis in old] == [dims[axis] for axis in new]:
        for a, b in zip(old, new, strict=True):
            steps[b] = grid.steps[a]
        return make(dims, grid.offset, steps)
    if grid.uniform is not None:
        return filled(dims, grid.offset)
    if not is_row_major(grid):
        return None
    step = grid.steps[old[-1]]
    for axis in reversed(new):
        steps[axis] = step
        step = multiply(step, dims[axis])
    return make(dims, grid.offset, steps)


def span(extents: Extents, grid: Grid) -> tuple[Dim, Dim] | None:
    """The least and the greatest element, None where the sign of a step is not known."""
    low = high = grid.offset
    for dim, step in zip(grid.dims, grid.steps, strict=True):
        reach = multiply(subtract(dim, 1), step)
        if extents.at_most(0, step):
            high = add(high, reach)
        elif extents.at_most(step, 0):
            low = add(low, reach)
        else:
            return None
    return low, high


def within(extents: Extents, grid: Grid, extent: Dim) -> bool:
    """Whether every element certainly is an index of an axis of `extent`, none negative."""
    ends = span(extents, grid)
    if ends is None:
        return False
    return extents.at_most(0, ends[0]) and extents.at_most(add(ends[1], 1), extent)


def counts(grid: Grid, extent: Dim) -> bool:
    """Whether the elements are 0, 1, ..., extent - 1 in row-major order."""
    axes = [axis for axis, dim in enumerate(grid.dims) if dim != 1]
    if grid.offset != 0 or product(grid.dims) != extent:
        return False
    return not axes or (grid.steps[axes[-1]] == 1 and is_row_major(grid))
