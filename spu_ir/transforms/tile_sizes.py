"""The sizes that the tile pass cuts by: a value of their own, and what suits some caches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from spu_ir.errors import SpuError

LIMIT = 1 << 24
"""No size is larger."""

CACHE_LINE = 64
LANES_A_STEP = 32
"""Two lane groups, which instructions of dense weights take at a time."""

MOST_LANES = 384
"""24 lane groups read a tile's rows, which makes fetching them negligible: more gain nothing."""

LANE_BYTES = 2048
"""Weights of a lane that a block is sized for: 2048 dense inputs in INT8, 16384 at 16x."""

PIXEL_LANE_BYTES = 4096
"""The same of a convolution, whose windows have more: 3 x 3 x 455 inputs."""

BLOCKS_A_CORE = 4
"""Blocks that a core should have of a usual op, so that the last one to end is waited for little"""

PRODUCT = (28, 768)
"""Row blocks and lanes of a usual product: BERT-base's at 384 tokens."""

IMAGE = (14, 1024)
"""Rows and channels of a usual convolution: ResNet-50's third group, one image."""

QUAD_SLOTS = 4
"""INT8 slots of a lane in a quad; fewer a bank, and a quad has two windows."""

WIDE_ROWS = 12
"""Rows whose accumulators fit the registers where a row has two lane groups, beside a step's."""

WAY_BYTES, WAYS = 4096, 8
"""Of an L1 cache: rows so far apart fall into the same sets, and no more of them than ways stay."""


def rows_in_pairs(row_bytes: int, slots: int, tile_bytes: int) -> int:
    """
    Rows of a tile whose lane groups go in pairs past each window of `row_bytes` a row.

    What is read feeds two lane groups, so it may come from L2, and `tile_bytes` do not count. But
    with 4 `slots` a window feeds one quad of each, which is as much as L2 gives: 8 rows or more
    that `tile_bytes` hold are preferred then.
    """
    if row_bytes % WAY_BYTES == 0:
        return WAYS
    held = tile_bytes // row_bytes
    return held if slots <= QUAD_SLOTS and WAYS <= held < WIDE_ROWS else WIDE_ROWS


@dataclass(frozen=True)
class Tiling:
    """
    The five options of the tile pass; the defaults are its own.

    `tile_bytes` of x are the rows of one tile of a product, unless its lane groups go in pairs;
    `rows_a_block` rows and `lanes_a_block` lanes are what a core takes of a product at a time,
    `channels_a_block` lanes of a convolution, `elements` those of a tile of any other op. Outputs
    do not depend on them.
    `str` is `lanes_a_block=192,elements=4096`: what differs from the defaults, as `parse` reads it.
    Raises SpuError for a size that is not within 1..2^24.
    """

    tile_bytes: int = 24 << 10
    rows_a_block: int = 14
    lanes_a_block: int = MOST_LANES
    channels_a_block: int = MOST_LANES // 2
    elements: int = 8192

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            # bool is an int, and True no size.
            if type(value) is not int or not 1 <= value <= LIMIT:
                raise SpuError(
                    f"tiling: {name} is {value!r}", remedy=f"sizes are whole numbers, 1 to {LIMIT}"
                )

    def __str__(self) -> str:
        ours, defaults = asdict(self), asdict(Tiling())
        return ",".join(f"{name}={ours[name]}" for name in ours if ours[name] != defaults[name])

    def after(self, settings: str) -> str:
        """`settings`, of the head of a program's text, with the sizes that are not the defaults."""
        return f"{settings}, tiling {self}" if str(self) else settings

    @staticmethod
    def parse(text: str) -> Tiling:
        """Read `lanes_a_block=192,elements=4096`; the others are the defaults. Raises SpuError."""
        given: dict[str, int] = {}
        for item in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = (part.strip() for part in item.partition("="))
            if not (value.isascii() and value.isdigit()):
                raise SpuError(f"tiling: {item!r} is not name=number", remedy="as in elements=4096")
            given[name] = int(value)
        return Tiling.from_json(given)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Tiling:
        """Sizes by name; what is not given is the default. Raises SpuError for an unknown name."""
        names = [field.name for field in fields(Tiling)]
        for name in value:
            if name not in names:
                raise SpuError(f"tiling: there is no {name!r}", remedy=f"one of {', '.join(names)}")
        return Tiling(**value)


def suited(l1d: int, l2: int, threads: int = 1) -> Tiling:
    """
    The sizes for a core with `l1d` and `l2` bytes of cache, and `threads` that share a run.

    tile_bytes = 3/4 l1d: a tile's rows stay while all lane groups pass over them; the rest is for
    weights on their way and for what is written. elements = l1d / 4: a tile of bytes and three
    more, or one of f32 by the time that the next pass reads it. lanes_a_block and
    channels_a_block: the weights of a block take 3/4 of l2, so that they are there still when the
    core comes to its next rows, but each core has 4 blocks of a usual op, and no more lanes
    than gain. rows_a_block is what registers hold, not caches. 32 KiB, 1 MiB and up to 14 threads
    give the defaults.
    """

    def lanes(most: int, lane_bytes: int, usual: tuple[int, int]) -> int:
        blocks, width = usual
        balanced = blocks * width // (BLOCKS_A_CORE * threads)
        held = l2 * 3 // 4 // lane_bytes
        return _down(min(most, held, balanced), LANES_A_STEP)

    default = Tiling()
    return Tiling(
        tile_bytes=_down(min(l1d * 3 // 4, LIMIT), CACHE_LINE),
        rows_a_block=default.rows_a_block,
        lanes_a_block=lanes(MOST_LANES, LANE_BYTES, PRODUCT),
        channels_a_block=lanes(MOST_LANES // 2, PIXEL_LANE_BYTES, IMAGE),
        elements=_down(min(l1d // 4, LIMIT), CACHE_LINE),
    )


def _down(value: int, step: int) -> int:
    """The largest multiple of `step` that is not above `value`, but one at least."""
    return max(value // step, 1) * step
