"""Find the programs that run faster sample by sample than layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, prod
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects import arith, func, tensor
from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, ModuleOp, i64
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from spu_ir.dialects.antoum import ConstantOp
from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.functions import SAMPLES, argument_attributes, bounds, dim_params
from spu_ir.dialects.spu import (
    AttentionOp,
    ConvOp,
    EpilogueOp,
    MatmulOp,
    PackedAttentionOp,
    PackKeysOp,
    PackValuesOp,
    encoding_of,
    integers,
)
from spu_ir.dialects.types import DYNAMIC, element_of, numpy_dtype, shape_of
from spu_ir.dialects.vpu import ConcatOp, PadOp, ReshapeOp, SliceOp

from .extents import constant_index, evaluate
from .tiling_rules import rule_of

WORTH = 8
"""
How many times a sample's activations have the bytes of the weights, where it runs by itself.

Weights come from the last level of cache then, for every sample: at 8 times that is a small part.
"""


@dataclass(frozen=True)
class RunSamplesApartPass(ModulePass):
    """
    Mark functions, on tensors, whose samples need nothing of each other: `{batch = 64}`.

    Code generation runs such a program sample by sample, on every thread another one, where the
    product of all other extents is at least the number (1 where there are none). So a sample's
    activations stay in the caches from layer to layer, while the weights are fetched for each of
    them: from that number on all ops together read and write 8 times as many bytes of a sample's
    activations as the products have bytes of weights. The extent must be axis 0 of all inputs and
    outputs, and 1 within its bounds; every op must treat the slices along axis 0 alike. Results
    are the same bits.
    """

    name = "run-samples-apart"
    preserves: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in [o for o in op.ops if isinstance(o, func.FuncOp)]:
            for name, (low, _) in bounds(function).items():
                samples = _Samples(function, name)
                if low > 1 or not samples.apart():
                    continue
                worth = samples.worth()
                if worth is not None:
                    least = IntegerAttr(worth, i64)
                    function.attributes[SAMPLES] = DictionaryAttr({name: least})
                    break


@dataclass
class _Samples:
    """A function whose axis 0 may be the samples that the extent `name` counts."""

    function: func.FuncOp
    name: str
    counts: set[SSAValue] = field(default_factory=set[SSAValue])
    """Index values that are the number of samples."""
    moving: dict[SSAValue, tuple[SSAValue | int, ...]] = field(
        default_factory=dict[SSAValue, "tuple[SSAValue | int, ...]"]
    )
    """Tensors of one slice a sample, and the extents of a slice."""
    fixed: set[SSAValue] = field(default_factory=set[SSAValue])
    """What is the same for every sample: tensors and index values."""

    def apart(self) -> bool:
        """Whether axis 0 of all that is computed is the samples, each by itself."""
        block = self.function.body.block
        for value, attributes in zip(block.args, argument_attributes(self.function), strict=True):
            names = dim_params(attributes)
            dynamic = [axis for axis, d in enumerate(shape_of(value)) if d == DYNAMIC]
            if names.get(0) != self.name or list(names.values()).count(self.name) != 1:
                return False
            if sorted(names) != dynamic:
                return False
            # Extents of a slice by their largest value, which is what `worth` needs.
            high = self.high()
            self.moving[value] = tuple(
                high[names[axis]] if axis in names else d
                for axis, d in enumerate(shape_of(value))
                if axis
            )
        for op in block.ops:
            if isinstance(op, func.ReturnOp):
                return all(value in self.moving for value in op.operands)
            if not self._op(op):
                return False
        return False

    def high(self) -> Mapping[str, int]:
        """The largest value of every extent."""
        return {name: upper for name, (_, upper) in bounds(self.function).items()}

    def _op(self, op: Operation) -> bool:
        """Take account of an op; whether it leaves samples apart."""
        if isinstance(op, tensor.DimOp):
            first = constant_index(op.index) == 0 and op.source in self.moving
            (self.counts if first else self.fixed).add(op.result)
            return constant_index(op.index) is not None
        if isinstance(op, tensor.EmptyOp):
            return self._empty(op)
        if isinstance(op, DestinationOp):
            return self._computed(op)
        self.fixed.update(op.results)
        if isinstance(op, arith.ConstantOp | ConstantOp):
            return True
        return op.dialect_name() == "arith" and self.fixed.issuperset(op.operands)

    def _empty(self, op: tensor.EmptyOp) -> bool:
        sizes = list(op.dynamic_sizes)
        if not sizes or sizes[0] not in self.counts:
            self.fixed.add(op.tensor)
            return self.fixed.issuperset(sizes)
        rest = iter(sizes[1:])
        first, *shape = shape_of(op.tensor)
        self.moving[op.tensor] = tuple(next(rest) if d == DYNAMIC else d for d in shape)
        return first == DYNAMIC and self.fixed.issuperset(sizes[1:])

    def _computed(self, op: DestinationOp) -> bool:
        inits = list(op.inits)
        if all(value in self.moving for value in inits):
            for result, init in zip(op.results, inits, strict=True):
                self.moving[result] = self.moving[init]
            return self._each(op)
        self.fixed.update(op.results)
        return not any(value in self.moving for value in op.operands)

    def _each(self, op: DestinationOp) -> bool:
        """Whether a slice of an op's results needs the same slices of its operands, no others."""
        moving = [value in self.moving for value in op.operands]
        rule = rule_of(op)
        if rule is not None:
            follows = [0 in axes for axes in rule.maps]
            leads = [bool(axes) and axes[0] == 0 for axes in rule.maps]
            return 0 in rule.axes and moving == follows == leads
        if isinstance(op, ConvOp | MatmulOp):
            shared = (op.weight, op.scale, op.bias)
            return moving == [value not in shared for value in op.operands]
        if isinstance(op, AttentionOp | PackedAttentionOp):
            # One mask may serve all samples.
            return all(
                there or (value is op.mask and shape_of(value)[0] == 1)
                for value, there in zip(op.operands, moving, strict=True)
            )
        if isinstance(op, PackKeysOp | PackValuesOp):
            return all(moving)
        if isinstance(op, ConcatOp):
            return all(moving) and op.axis.value.data != 0
        if isinstance(op, SliceOp):
            return all(moving) and integers(op.starts)[0] == 0 and integers(op.steps)[0] == 1
        if isinstance(op, PadOp):
            return moving[0] and integers(op.low)[0] == 0
        return isinstance(op, ReshapeOp) and all(moving)

    def worth(self) -> int | None:
        """The least product of all other extents at which it pays; None if it never does."""
        high = self.high()
        largest = prod(upper for name, upper in high.items() if name != self.name)
        moved = weights = 0.0
        for op in self.function.body.block.ops:
            if isinstance(op, DestinationOp):
                moved += sum(self._slice_bytes(v, high) for v in op.operands if v in self.moving)
            if isinstance(op, EpilogueOp):
                weights += _weight_bytes(op.weight)
        least = max(1, ceil(WORTH * weights * largest / max(moved, 1)))
        return least if least <= largest else None

    def _slice_bytes(self, value: SSAValue, high: Mapping[str, int]) -> int:
        """Bytes of a sample, at the largest extents; every result goes into an operand."""
        sizes = [evaluate(self.function, extent, high) for extent in self.moving[value]]
        return prod(sizes) * numpy_dtype(element_of(value)).itemsize


def _weight_bytes(weight: SSAValue) -> float:
    """Bytes of a product's weight, as packed: values and their indices."""
    values, encoding = prod(shape_of(weight)), encoding_of(weight)
    itemsize = numpy_dtype(element_of(weight)).itemsize
    if encoding is None:
        return values * itemsize
    kept = encoding.slots.data / encoding.bank.data
    return values * kept * (itemsize + 1 / encoding.share.data)
