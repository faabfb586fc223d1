"""The weights of a program, in file order: packed for the SPU, or as they are for the VPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from xdsl.dialects import memref
from xdsl.ir import Attribute, Operation, SSAValue

from spu_ir.dialects.antoum import ConstantOp
from spu_ir.dialects.spu import encoding_of
from spu_ir.dialects.types import Array
from spu_ir.dialects.weights import BankedAttr, WeightStore, constant_array
from spu_ir.errors import SpuError
from spu_ir.packing.banked import PackedWeight, pack
from spu_ir.packing.depthwise import pack_depthwise
from spu_ir.runtime.program import weight_offsets

Segments = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Placed:
    """A packed weight in the file."""

    number: int
    packed: PackedWeight
    offsets: dict[str, int]
    """Field of `spu_weight` -> byte offset; fields that are NULL are left out."""


class _Key(NamedTuple):
    """What a packed weight depends on."""

    value: Attribute
    encoding: BankedAttr | None
    segments: Segments
    x_zero: int
    groups: int
    depthwise: bool


@dataclass
class WeightFile:
    """Collects constants; equal ones are kept once."""

    store: WeightStore
    arrays: dict[str, Array] = field(default_factory=dict[str, Array])
    _plain: dict[Attribute, int] = field(default_factory=dict[Attribute, int])
    _packed: dict[_Key, Placed] = field(default_factory=dict["_Key", Placed])
    _end: int = 0

    def _add(self, name: str, array: Array) -> int:
        flat = np.ascontiguousarray(array)
        self.arrays[name] = flat
        start = weight_offsets({"before": np.zeros(self._end, np.uint8), name: flat})[name]
        self._end = start + flat.nbytes
        return start

    def plain(self, value: Attribute) -> int:
        """The byte offset of a constant, as it is."""
        if value not in self._plain:
            array = constant_array(self.store, value)
            self._plain[value] = self._add(f"constant{len(self._plain)}", array)
        return self._plain[value]

    def packed(
        self,
        constant: ConstantOp,
        segments: Segments,
        x_zero: int,
        groups: int,
        layer: str,
        *,
        depthwise: bool = False,
    ) -> Placed:
        """A product's weight, packed for activations whose segments lie as given."""
        encoding = encoding_of(constant.result)
        key = _Key(constant.value, encoding, segments, x_zero, groups, depthwise)
        if key not in self._packed:
            array = constant_array(self.store, constant.value)
            rows = array.reshape(array.shape[0], -1)
            numbers = (
                None
                if encoding is None
                else (encoding.bank.data, encoding.slots.data, encoding.share.data)
            )
            try:
                if depthwise:
                    packed = pack_depthwise(rows, segments, x_zero)
                else:
                    packed = pack(
                        rows, segments=segments, encoding=numbers, x_zero=x_zero, groups=groups
                    )
            except ValueError as error:
                raise SpuError(
                    str(error), node=layer or None, remedy="run the encode pass on these weights"
                ) from error
            number = len(self._packed)
            fields = ("index", "value", "offset", "begin", "correction")
            arrays = {name: getattr(packed, name) for name in fields}
            offsets = {
                name: self._add(f"weight{number}.{name}", value)
                for name, value in arrays.items()
                if value is not None
            }
            self._packed[key] = Placed(number, packed, offsets)
        return self._packed[key]

    def bytes_of(self) -> dict[Attribute, int]:
        """A packed constant's value -> the bytes of all that it was packed to."""
        totals: dict[Attribute, int] = {}
        for key, placed in self._packed.items():
            totals[key.value] = totals.get(key.value, 0) + placed.packed.nbytes
        return totals


def constant_of(weight: SSAValue) -> tuple[ConstantOp, SSAValue | int]:
    """The constant that a product's weight is part of, and the row where the part starts."""
    row: SSAValue | int = 0
    owner = weight.owner
    if isinstance(owner, memref.SubviewOp):
        static = owner.static_offsets.get_values()
        dynamic = list(owner.offsets)
        row = dynamic[0] if dynamic else int(static[0])
        owner = owner.source.owner
    if not isinstance(owner, ConstantOp):
        name = owner.name if isinstance(owner, Operation) else "a function argument"
        raise SpuError(f"a product's weight must be a constant, got {name}")
    return owner, row
