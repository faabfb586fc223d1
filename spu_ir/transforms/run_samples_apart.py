"""Find the programs that run faster sample by sample than layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects import arith, func, tensor
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, StringAttr, TensorType
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.passes import ModulePass

from spu_ir.dialects.antoum import ConstantOp
from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.functions import SAMPLES, argument_attributes, bounds, dim_params
from spu_ir.dialects.spu import ConvOp, EpilogueOp, MatmulOp, encoding_of, integers
from spu_ir.dialects.types import DYNAMIC, element_of, numpy_dtype, shape_of
from spu_ir.dialects.vpu import ConcatOp, PadOp, ReshapeOp, SliceOp

from .tiling_rules import rule_of


@dataclass(frozen=True)
class RunSamplesApartPass(ModulePass):
    """
    Mark functions, on tensors, whose samples need nothing of each other: `spu.samples = "batch"`.

    Code generation runs such a program sample by sample, on every thread another one. So a sample's
    activations stay in the caches from layer to layer, while the weights are fetched for each of
    them: a function is marked where all ops together read and write more bytes of activations a
    sample than the products have bytes of weights, as in networks for images. The extent must be
    the only one, axis 0 of all inputs and outputs, and 1 within its bounds; every op must treat
    the slices along axis 0 alike. Results are the same bits.
    """

    name = "run-samples-apart"
    preserves: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in [o for o in op.ops if isinstance(o, func.FuncOp)]:
            extents = bounds(function)
            if len(extents) != 1:
                continue
            ((name, (low, _)),) = extents.items()
            if low <= 1 and _apart(function, name) and _moved(function) > _weights(function):
                function.attributes[SAMPLES] = StringAttr(name)


def _moving(kind: Attribute) -> bool:
    """Whether a type has samples along axis 0; its other axes are known then."""
    if not isinstance(kind, TensorType):
        return False
    first, *rest = [*kind.get_shape(), 0]
    return first == DYNAMIC and DYNAMIC not in rest


def _known(kind: Attribute) -> bool:
    return not isinstance(kind, TensorType) or DYNAMIC not in kind.get_shape()


def _is_zero(index: SSAValue) -> bool:
    op = index.owner
    if not isinstance(op, arith.ConstantOp) or not isinstance(op.value, IntegerAttr):
        return False
    return op.value.value.data == 0


def _apart(function: func.FuncOp, name: str) -> bool:
    """Whether axis 0 of all that is computed is the samples, each by itself."""
    block = function.body.block
    for value, attributes in zip(block.args, argument_attributes(function), strict=True):
        if not _moving(value.type) or dim_params(attributes) != {0: name}:
            return False
    samples: set[SSAValue] = set()
    for op in block.ops:
        if isinstance(op, func.ReturnOp):
            return all(_moving(value.type) for value in op.operands)
        if isinstance(op, tensor.DimOp):
            if not _moving(op.source.type) or not _is_zero(op.index):
                return False
            samples.add(op.result)
        elif isinstance(op, tensor.EmptyOp):
            if not samples.issuperset(op.dynamic_sizes):
                return False
        elif not isinstance(op, arith.ConstantOp | ConstantOp) and not _each(op):
            return False
        if not all(_moving(r.type) or _known(r.type) for r in op.results):
            return False
    return False


def _each(op: Operation) -> bool:
    """Whether a slice of an op's results needs the same slices of its operands, and no others."""
    if not isinstance(op, DestinationOp) or not all(_moving(r.type) for r in op.results):
        return False
    moving = [_moving(value.type) for value in op.operands]
    rule = rule_of(op)
    if rule is not None:
        follows = [0 in axes for axes in rule.maps]
        leads = [bool(axes) and axes[0] == 0 for axes in rule.maps]
        return 0 in rule.axes and moving == follows == leads
    if isinstance(op, ConvOp | MatmulOp):
        shared = (op.weight, op.scale, op.bias)
        return moving == [value not in shared for value in op.operands]
    if isinstance(op, ConcatOp):
        return all(moving) and op.axis.value.data != 0
    if isinstance(op, SliceOp):
        return all(moving) and integers(op.starts)[0] == 0 and integers(op.steps)[0] == 1
    if isinstance(op, PadOp):
        return moving[0] and integers(op.low)[0] == 0
    return isinstance(op, ReshapeOp) and all(moving)


def _total(function: func.FuncOp, size: Callable[[SSAValue], float], kind: type) -> float:
    return sum(
        size(value)
        for op in function.body.block.ops
        if isinstance(op, kind)
        for value in op.operands
    )


def _moved(function: func.FuncOp) -> float:
    """Bytes of a sample that all ops read and write; every result goes into an operand."""

    def size(value: SSAValue) -> float:
        if not _moving(value.type):
            return 0.0
        return prod(shape_of(value)[1:]) * numpy_dtype(element_of(value)).itemsize

    return _total(function, size, DestinationOp)


def _weights(function: func.FuncOp) -> float:
    """Bytes of the products' weights, as packed: values and their indices."""

    def size(value: SSAValue) -> float:
        if _moving(value.type):
            return 0.0
        values, encoding = prod(shape_of(value)), encoding_of(value)
        itemsize = numpy_dtype(element_of(value)).itemsize
        if encoding is None:
            return values * itemsize
        kept = encoding.slots.data / encoding.bank.data
        return values * kept * (itemsize + 1 / encoding.share.data)

    return _total(function, size, EpilogueOp)
