"""
Destination-passing style: what the ops of `spu` and `vpu` share.

An op names its output as an operand, the *init*. On tensors it yields the new value of its init
as a result; on memrefs it writes the init in place and has no result. So one op serves before
and after bufferisation, and on a whole buffer as well as on the view of one tile, as in MLIR's
`DestinationStyleOpInterface`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from xdsl.dialects.builtin import MemRefType, TensorType
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.irdl import IRDLOperation
from xdsl.traits import EffectInstance, MemoryEffect, MemoryEffectKind
from xdsl.utils.exceptions import VerifyException

from .types import element_of, same_shape, shape_of, shaped, show_shape


def result_type(init: SSAValue) -> TensorType[Attribute] | None:
    """The type of the result for an init: its own if it is a tensor, none for a memref."""
    kind = shaped(init)
    return kind if isinstance(kind, TensorType) else None


class DestinationOp(IRDLOperation, ABC):
    """An op in destination-passing style. Subclasses add `verify_meaning`."""

    @property
    @abstractmethod
    def inits(self) -> Sequence[SSAValue]:
        """The operands that the op writes, in the order of its results."""

    @property
    def inputs(self) -> Sequence[SSAValue]:
        """The operands that the op only reads."""
        inits = self.inits
        first = len(self.operands) - len(inits)
        return self.operands[:first]

    @property
    def on_tensors(self) -> bool:
        """Whether the op is on tensors, as before bufferisation."""
        return isinstance(self.inits[0].type, TensorType)

    def verify_(self) -> None:
        kind = TensorType if self.on_tensors else MemRefType
        word = "tensor" if self.on_tensors else "memref"
        for operand in self.operands:
            if not isinstance(operand.type, kind):
                raise VerifyException(
                    f"{self.name}: every operand must be a {word} as the init is, "
                    f"got {operand.type}"
                )
        expected = [init.type for init in self.inits] if self.on_tensors else []
        if [result.type for result in self.results] != expected:
            raise VerifyException(
                f"{self.name}: on tensors the results have the types of the inits, on memrefs "
                f"there are none; expected ({', '.join(map(str, expected))}), "
                f"got ({', '.join(str(r.type) for r in self.results)})"
            )
        self.verify_meaning()

    @abstractmethod
    def verify_meaning(self) -> None:
        """Check shapes and element types; raise VerifyException saying what would be right."""

    def require(self, holds: bool, message: str) -> None:
        """Raise a VerifyException with the op's name unless `holds`."""
        if not holds:
            raise VerifyException(f"{self.name}: {message}")

    def require_shape(self, what: str, value: SSAValue, shape: Sequence[int]) -> None:
        """`value` must be able to have `shape`."""
        self.require(
            same_shape(shape_of(value), shape),
            f"{what} must have shape {show_shape(shape)}, got {show_shape(shape_of(value))}",
        )

    def require_element(self, what: str, value: SSAValue, *elements: Attribute) -> None:
        """`value`'s element type must be one of `elements`."""
        self.require(
            element_of(value) in elements,
            f"{what} must have element type {' or '.join(map(str, elements))}, "
            f"got {element_of(value)}",
        )


class DestinationEffects(MemoryEffect):
    """On tensors no effect; on memrefs it reads its inputs and writes its inits."""

    @classmethod
    def get_effects(cls, op: Operation) -> set[EffectInstance]:
        if not isinstance(op, DestinationOp) or op.on_tensors:
            return set()
        reads = {EffectInstance(MemoryEffectKind.READ, value) for value in op.inputs}
        writes = {EffectInstance(MemoryEffectKind.WRITE, value) for value in op.inits}
        return reads | writes
