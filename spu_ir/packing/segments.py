"""How the reduction of a product lies over its activations: the segments that are banked."""

from __future__ import annotations

from ..dialects.spu import ConvOp, EpilogueOp, integers
from ..dialects.types import element_of, numpy_dtype, shape_of


def segments_of(
    op: EpilogueOp, *, line: int | None = None, pixel: int | None = None
) -> list[tuple[int, int]]:
    """
    The (byte offset, length in elements) of every segment of `op`'s reduction, in the order of K.

    The lengths are `op.segments`. Offsets count from the pixel under the first tap; `line` and
    `pixel` are the bytes between lines and between pixels of x, by default those of a contiguous
    x without a halo.
    """
    x, weight = shape_of(op.x), shape_of(op.weight)
    if not isinstance(op, ConvOp):
        return [(0, weight[-1])]
    height = weight[1]
    down, right = integers(op.dilations)
    pixel = pixel if pixel is not None else x[3] * numpy_dtype(element_of(op.x)).itemsize
    line = line if line is not None else x[2] * pixel
    across = len(op.segments) // height
    taps = [(y, x) for y in range(height) for x in range(across)]
    places = [y * down * line + x * right * pixel for y, x in taps]
    return list(zip(places, op.segments, strict=True))


def groups_of(op: EpilogueOp) -> int:
    """How many groups of equally many output channels there are, each with its own channels."""
    return op.groups.value.data if isinstance(op, ConvOp) else 1
