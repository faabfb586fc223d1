"""What the codecs of the cards do, which is beside any model."""

from __future__ import annotations

from spu_ir.errors import SpuError
from spu_ir.runtime.cards import device
from spu_ir.runtime.cards_placement import Need, Placement
from spu_ir.runtime.cards_state import Cost, publisher

_placements: dict[tuple[int, str], Placement] = {}


def record_codec(
    index: int, frames: int, busy_s: float, energy_j: float = 0.0, *, name: str = "codec"
) -> None:
    """
    Count `frames` that codecs of the card of a device index decoded or encoded.

    `busy_s` is for how many seconds this would keep all codecs of the card busy: frames by the
    card's frames a second. `energy_j` is joules above idle. `spu-smi` shows it in a row of this
    process called `name`, from the first call until the process ends; it takes no memory. Raises
    SpuError if there is no such device, or for a negative number.
    """
    if frames < 0 or not 0 <= busy_s < float("inf") or not 0 <= energy_j < float("inf"):
        raise SpuError(f"codec work of {frames} frames, {busy_s} s, {energy_j} J is impossible")
    placement = _placements.get((index, name))
    if placement is None:
        found = device(index)
        with publisher().lock:
            placement = _placements.get((index, name))
            if placement is None:
                placement = _placements[index, name] = Placement(found, name, Need(0, 0, 0))
    placement.begin()
    placement.count(frames, Cost(codec_s=busy_s, energy_j=energy_j))
