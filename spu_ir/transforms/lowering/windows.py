"""Windows over an image: the attributes that convolutions and pooling share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.ir import SSAValue

from spu_ir.dialects.onnx import OnnxOp

from .context import Lowering


@dataclass(frozen=True)
class Window:
    """Kernel, strides, dilations (height, width) and pads (top, left, bottom, right)."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]

    @property
    def reach(self) -> tuple[int, int]:
        """Positions from the first to the last that a kernel touches."""
        height, width = (d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True))
        return height, width


def _pair(values: Sequence[int], filler: int) -> tuple[int, int]:
    """(height, width) of one or two values; a one-dimensional image has height 1."""
    first, second = (filler, values[0]) if len(values) == 1 else (values[0], values[1])
    return first, second


def read_window(ctx: Lowering, op: OnnxOp, kernel: Sequence[int], size: Sequence[int]) -> Window:
    """
    The window of a Conv or a pool over an image of `size` (height, width).

    `kernel` has one or two numbers. Raises SpuError for attributes of another length.
    """
    rank = len(kernel)
    strides = op.ints_value("strides") or (1,) * rank
    dilations = op.ints_value("dilations") or (1,) * rank
    pads = op.ints_value("pads") or (0,) * (2 * rank)
    if (len(strides), len(dilations), len(pads)) != (rank, rank, 2 * rank):
        raise ctx.error(f"strides, dilations and pads must be for {rank} spatial axes")
    if min(*strides, *dilations, *kernel) < 1 or min(pads) < 0:
        raise ctx.error("kernel, strides and dilations must be positive, pads not negative")
    low, high = _pair(pads[:rank], 0), _pair(pads[rank:], 0)
    window = Window(_pair(kernel, 1), _pair(strides, 1), _pair(dilations, 1), (*low, *high))
    mode = op.str_value("auto_pad")
    if mode == "NOTSET":
        return window
    if mode == "VALID":
        return Window(window.kernel, window.strides, window.dilations, (0, 0, 0, 0))
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise ctx.error(f"auto_pad {mode!r} does not exist")
    low_pads: list[int] = []
    high_pads: list[int] = []
    for extent, stride, reach in zip(size, window.strides, window.reach, strict=True):
        total = max((-(-extent // stride) - 1) * stride + reach - extent, 0)
        more, less = (total + 1) // 2, total // 2
        low_pads.append(less if mode == "SAME_UPPER" else more)
        high_pads.append(more if mode == "SAME_UPPER" else less)
    top, left, bottom, right = *low_pads, *high_pads
    return Window(window.kernel, window.strides, window.dilations, (top, left, bottom, right))


def to_channels_last(ctx: Lowering, x: SSAValue) -> SSAValue:
    """[N, C, L] or [N, C, H, W] as [N, 1, L, C] or [N, H, W, C]. SpuError for other ranks."""
    dims = ctx.dims(x)
    if len(dims) == 4:
        return ctx.transpose(x, (0, 2, 3, 1))
    if len(dims) == 3:
        return ctx.reshape(ctx.transpose(x, (0, 2, 1)), (dims[0], 1, dims[2], dims[1]))
    raise ctx.error(f"images must have one or two spatial axes, this one has {len(dims) - 2}")


def to_channels_first(ctx: Lowering, x: SSAValue, rank: int) -> SSAValue:
    """The inverse of `to_channels_last`, to `rank` axes."""
    if rank == 4:
        return ctx.transpose(x, (0, 3, 1, 2))
    batch, _, length, channels = ctx.dims(x)
    return ctx.transpose(ctx.reshape(x, (batch, length, channels)), (0, 2, 1))


def image_size(ctx: Lowering, x: SSAValue) -> tuple[int, int]:
    """(height, width) of a channels-last image; both must be known at compile time."""
    _, height, width, _ = ctx.dims(x)
    if not isinstance(height, int) or not isinstance(width, int):
        raise ctx.error(
            "the height and width of an image must be known at compile time",
            "fix them with shapes={'name': number}; only the batch may vary",
        )
    return height, width
