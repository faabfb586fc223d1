"""Puts a compiled model on a card: which one, how many bytes it takes there, what a run costs."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from spu_ir.errors import SpuError
from spu_ir.runtime.cards import VARIABLE, Device, device, devices
from spu_ir.runtime.cards_placement import CostOf, Need, Placement
from spu_ir.runtime.cards_state import Cost
from spu_ir.runtime.library import Library
from spu_ir.runtime.package import Package
from spu_ir.runtime.program import Port
from spu_ir.targets import Target

if TYPE_CHECKING:
    from spu_ir.runtime.model import CompiledModel


def place(
    model: CompiledModel,
    package: Package,
    library: Library,
    index: int | Literal["none"] | None,
    name: str,
) -> Placement | None:
    """
    Put `model` on the card of a device index, or, for None, on the first that has the chip that
    it was compiled for. The result is None if none has, or "none" was asked for.

    Raises SpuError if there is no such device, it has another chip, or lacks the memory.
    """
    if index == "none":
        return None
    option = package.options.get("target")
    # A program that was not compiled from a model, as tests have them, is for any chip.
    target = None if option is None else Target.of_option(option)
    if index is None:
        chosen = next((one for one in devices() if target is None or one.runs(target)), None)
        if chosen is None:
            return None
    else:
        chosen = device(index)
        if target is not None and not chosen.runs(target):
            raise SpuError(
                f"the model {name!r} was compiled for the chip of {target.name!r}, and device "
                f"{index} ({chosen.name}) has another",
                remedy=f"compile it for {chosen.name!r}, or list its target in {VARIABLE}",
            )
    need = need_of(package, library, chosen.chips)
    # A package of an older spu-ir, or a program written by hand, does not tell its work.
    costs = None if package.work is None else cost_of(model, chosen)
    placement = Placement(chosen, name, need, costs)
    weakref.finalize(model, placement.close)
    return placement


def need_of(package: Package, library: Library, chips: int) -> Need:
    """
    The bytes that a model takes on each of the `chips` of a card at its largest extents.

    Weights are on every chip. The samples of a run are shared out, so that arena and ports are
    for a chip's share, where all inputs have one run-time extent as their first axis; else every
    chip can hold a whole run.
    """
    sizes = {extent.name: extent.maximum for extent in package.extents}
    first = {port.shape[0] if port.shape else None for port in package.inputs}
    for extent in package.extents:
        if first == {extent.name}:
            sizes[extent.name] = max(extent.minimum, math.ceil(extent.maximum / chips))
    extents = library.extents(list(sizes.values()))
    ports = sum(_port_bytes(port, sizes) for port in package.inputs)
    for number, port in enumerate(package.outputs):
        shape = library.output_shape(number, extents, len(port.shape))
        ports += math.prod(shape) * port.numpy_dtype.itemsize
    weights = len(package.weights) - package.weights.start
    return Need(weights, library.arena_bytes(extents), ports)


def _port_bytes(port: Port, sizes: Mapping[str, int]) -> int:
    shape = (sizes[d] if isinstance(d, str) else d for d in port.shape)
    return math.prod(shape) * port.numpy_dtype.itemsize


def cost_of(model: CompiledModel, chosen: Device) -> CostOf:
    """What a run at given extents costs on a device: `CompiledModel.estimate`."""
    # Weakly, or a placed model would keep itself alive.
    reference = weakref.ref(model)

    def of(extents: tuple[int, ...]) -> Cost | None:
        alive = reference()
        try:
            return None if alive is None else _estimated(alive, chosen, extents)
        except SpuError:
            return None  # A run of no samples, say.

    return of


def _estimated(model: CompiledModel, chosen: Device, extents: tuple[int, ...]) -> Cost:
    """Raises SpuError where no estimate can be made."""
    # On first use: most of what loads a model never asks.
    from spu_ir.schedule.energy import ATTO
    from spu_ir.schedule.of_model import take_batch

    others = dict(zip((extent.name for extent in model.extents), extents, strict=True))
    batch = take_batch(others, model.inputs)
    # A program of a fixed batch is given to one core.
    programs = batch if len(others) < len(extents) else 1
    found = model.estimate(chosen.target, batch, others)
    cores = chosen.chips * int(chosen.target.chip.cores.value)
    # Shares of time are means over the cores in use: as many as there are samples to give out.
    seconds = found.period_s * min(programs, cores) / cores
    return Cost(
        spu_s=seconds * found.busy["spu"],
        vpu_s=seconds * found.busy["vpu"],
        energy_j=found.dynamic_aj * ATTO,
    )
