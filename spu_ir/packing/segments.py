"""How the reduction of a product lies over its activations: the segments that are banked."""

from __future__ import annotations

from ..dialects.spu import ConvOp, EpilogueOp, integers
from ..dialects.types import element_of, numpy_dtype, shape_of


def segments_of(
    op: EpilogueOp, *, line: int | None = None, pixel: int | None = None
) -> list[tuple[int, int]]:
    """
    The (byte offset, length in elements) of every segment of `op`'s reduction, in the order of K.

    Within a segment consecutive weights of a row meet consecutive elements of the activations. A
    matrix product has one, of K. A convolution has one a kernel row when neighbouring taps are
    neighbours in memory (no dilation along the width, one group), else one a tap. Offsets count
    from the pixel under the first tap; `line` and `pixel` are the bytes between lines and between
    pixels of x, by default those of a contiguous x without a halo.
    """
    x, weight = shape_of(op.x), shape_of(op.weight)
    if not isinstance(op, ConvOp):
        return [(0, weight[-1])]
    _, height, width, channels = weight
    down, right = integers(op.dilations)
    pixel = pixel if pixel is not None else x[3] * numpy_dtype(element_of(op.x)).itemsize
    line = line if line is not None else x[2] * pixel
    if right == 1 and op.groups.value.data == 1:
        return [(y * down * line, width * channels) for y in range(height)]
    taps = ((y, x) for y in range(height) for x in range(width))
    return [(y * down * line + x * right * pixel, channels) for y, x in taps]


def groups_of(op: EpilogueOp) -> int:
    """How many groups of equally many output channels there are, each with its own channels."""
    return op.groups.value.data if isinstance(op, ConvOp) else 1
