"""Evaluate what does not depend on the inputs, and drop ops that pass their operand through."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, NoneType
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from spu_ir.dialects.onnx import NON_DETERMINISTIC, OnnxOp, Yield
from spu_ir.dialects.types import DYNAMIC, Array, element_of, numpy_dtype, shape_of
from spu_ir.dialects.weights import WeightStore, store_of
from spu_ir.interpreters.onnx import OpEvaluator

from .infer_shapes import InferShapesPass
from .onnx_patterns import (
    constant,
    dims_of,
    erase_dead,
    is_constant,
    make_constant,
    scalar,
    size_of,
)
from .symbolic_shapes import symbolic_ints

KEPT = frozenset({"DequantizeLinear"})
"""Operators that stay on constants: a quantised weight must stay quantised."""

ROUNDS = 16
"""How often folding and shape inference may open the way for each other."""


@dataclass(frozen=True)
class FoldConstantsPass(ModulePass):
    """
    Evaluate ops on constants with ONNX's reference implementation, and infer shapes again.

    Sizes and shapes that are static count as constants, through the `Shape`, `Gather`, `Slice`
    and `Concat` that exporters compute with them. An op is folded when its inferred result has
    at most `limit` elements or no more than its operands, and while all results together
    have not added more than `total` elements, so that a tiny file cannot allocate gigabytes.
    `DequantizeLinear` is not folded, nor is anything random. `Identity`, `Dropout` and casts to
    the same type disappear, and so does an `If` on a constant.
    """

    name = "fold-constants"
    preserves: ClassVar[str] = "exact"

    limit: int = 1 << 22
    total: int = 1 << 26

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        store = store_of(ctx)
        folder = _Folder(store, OpEvaluator(store), self.limit, [self.total])
        for _ in range(ROUNDS):
            if not folder.sweep(op):
                break
            erase_dead(op)
            InferShapesPass().apply(ctx, op)
        erase_dead(op)


@dataclass
class _Folder:
    store: WeightStore
    evaluator: OpEvaluator
    limit: int
    left: list[int] = field(default_factory=list[int])
    """Elements that results may still add, in a list of one."""

    def sweep(self, module: ModuleOp) -> bool:
        """Fold every op once, in order; whether anything changed."""
        changed = False
        for op in list(module.walk()):
            if isinstance(op, OnnxOp) and op.schema_name != "Constant" and op.parent:
                changed |= self.fold(op)
        return changed

    def fold(self, op: OnnxOp) -> bool:
        if op.schema_name == "If":
            return self.inline_if(op)
        passed = self.passed_through(op)
        if passed is not None:
            op.results[0].replace_all_uses_with(passed)
            Rewriter.erase_op(op)
            return True
        arrays = self.evaluate(op)
        if arrays is None:
            return False
        names = [op.node_name] if len(arrays) == 1 else [None] * len(arrays)
        new = [
            make_constant(self.store, array, name)
            for array, name in zip(arrays, names, strict=True)
        ]
        Rewriter.replace_op(op, new, [constant_op.results[0] for constant_op in new])
        return True

    def passed_through(self, op: OnnxOp) -> SSAValue | None:
        """The operand that is the op's only used result, if there is one."""
        if not op.operands or any(result.uses for result in op.results[1:]):
            return None
        operand = op.operands[0]
        same = operand.type == op.results[0].type
        match op.schema_name:
            case "Identity":
                return operand
            case "Dropout":
                training = op.input(2) if op.is_newest or op.since_version >= 12 else None
                off = training is None or scalar(training, self.store) == 0
                return operand if off else None
            case "Cast" | "Reshape" | "Expand" | "Flatten":
                # With one dynamic extent at most, equal types are equal shapes.
                dims = dims_of(operand)
                known = dims is not None and dims.count(DYNAMIC) <= 1
                return operand if same and (known or op.schema_name == "Cast") else None
            case _:
                return None

    def evaluate(self, op: OnnxOp) -> list[Array] | None:
        """The results of an op that may be folded, None for any other op."""
        known = symbolic_ints(op.results[0], self.store) if len(op.results) == 1 else None
        if known is not None and all(isinstance(size, int) for size in known):
            dtype = numpy_dtype(element_of(op.results[0]))
            return [np.array(known, dtype).reshape(shape_of(op.results[0]))]
        if op.regions or op.schema_name in KEPT | NON_DETERMINISTIC:
            return None
        present = [value for value in op.operands if not isinstance(value.type, NoneType)]
        if not all(is_constant(value) for value in present):
            return None
        sizes = [size_of(result) for result in op.results]
        made = sum(size or 0 for size in sizes)
        distinct = {value: size_of(value) or 0 for value in present}
        if None in sizes or (made > sum(distinct.values()) and made > self.limit):
            return None
        # What others still use stays: a chain of `Concat(x, Neg(x))` doubles with every step.
        last = sum(size for v, size in distinct.items() if all(u.operation is op for u in v.uses))
        if made - last > self.left[0]:
            return None
        results = self.evaluator.run(op, [constant(value, self.store) for value in op.operands])
        arrays = [result for result in results if isinstance(result, np.ndarray)]
        if len(arrays) != len(op.results):
            return None
        self.left[0] -= max(made - last, 0)
        return arrays

    def inline_if(self, op: OnnxOp) -> bool:
        """Replace an `If` on a constant by the branch that is taken."""
        condition = scalar(op.operands[0], self.store)
        if condition is None:
            return False
        block = op.regions[0 if condition else 1].block
        terminator = block.last_op
        assert isinstance(terminator, Yield), "the op has been verified"
        results = list(terminator.operands)
        parent = op.parent_block()
        assert parent is not None
        for inner in list(block.ops):
            if inner is not terminator:
                inner.detach()
                parent.insert_op_before(inner, op)
        for old, new in zip(op.results, results, strict=True):
            old.replace_all_uses_with(new)
        Rewriter.erase_op(op)
        return True
