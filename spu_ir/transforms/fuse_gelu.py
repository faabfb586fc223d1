"""Find GELU, exact or by tanh, in the primitive operators that exporters spell it with."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import isclose, pi, sqrt
from typing import ClassVar, TypeAlias

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import PatternRewriter, PatternRewriteWalker, RewritePattern

from spu_ir.dialects.onnx import OnnxOp, newest
from spu_ir.dialects.weights import WeightStore, store_of

from .onnx_patterns import erase_dead, producer, scalar

Polynomial: TypeAlias = dict[tuple[int, int], float]
"""Powers of x and of the erf (tanh) -> coefficient."""

GELU: Polynomial = {(1, 0): 0.5, (1, 1): 0.5}
"""`0.5 * x + 0.5 * x * t`, where `t` is the erf or tanh."""

ERF_ARGUMENT: Polynomial = {(1, 0): sqrt(0.5)}
TANH_ARGUMENT: Polynomial = {(1, 0): sqrt(2 / pi), (3, 0): 0.044715 * sqrt(2 / pi)}

MAX_DEGREE = 4
MAX_OPS = 12
"""Ops of the largest spelling, with some to spare."""


@dataclass(frozen=True)
class FuseGeluPass(ModulePass):
    """
    `0.5 * x * (1 + erf(x / sqrt(2)))` and its tanh approximation -> `onnx.Gelu`.

    Sums, products, powers and quotients by constants are multiplied out and compared as
    polynomials in x and the erf (tanh), so that every order of the factors is found. Values
    that something else uses are left alone. Matches the newest versions of the operators.
    """

    name = "fuse-gelu"
    preserves: ClassVar[str] = "tolerance(1e-5)"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        PatternRewriteWalker(_FuseGelu(store_of(ctx))).rewrite_module(op)
        erase_dead(op)


@dataclass(frozen=True)
class _FuseGelu(RewritePattern):
    store: WeightStore

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter) -> None:
        if not isinstance(op, OnnxOp) or op.schema_name not in ("Erf", "Tanh"):
            return
        argument = ERF_ARGUMENT if op.schema_name == "Erf" else TANH_ARGUMENT
        for x in self.candidates(op.operands[0]):
            inner = _Expansion(self.store, x, None)
            if not _equal(inner.expand(op.operands[0]), argument):
                continue
            root = self.root(op, x, inner.seen)
            if root is not None:
                approximate = "none" if op.schema_name == "Erf" else "tanh"
                gelu = newest("Gelu").make(
                    [x], [x.type], {"approximate": approximate}, node_name=root.node_name
                )
                rewriter.replace(root, gelu)
                return

    def candidates(self, value: SSAValue) -> list[SSAValue]:
        """What may be x in the argument of the erf (tanh): the values that it is computed of."""
        found: dict[SSAValue, None] = {value: None}
        pending = [value]
        while pending and len(found) < MAX_OPS:
            op = producer(pending.pop(), "Add", "Mul", "Div", "Pow")
            for operand in op.operands if op is not None else ():
                if operand not in found and producer(operand, "Constant") is None:
                    found[operand] = None
                    pending.append(operand)
        return list(found)

    def root(self, op: OnnxOp, x: SSAValue, inner: set[Operation]) -> OnnxOp | None:
        """The op above the erf (tanh) that is the GELU of x, if nothing else uses its parts."""
        value: SSAValue = op.results[0]
        for _ in range(4):
            current = value.get_user_of_unique_use()
            if not isinstance(current, OnnxOp) or current.results[0].type != x.type:
                return None
            value = current.results[0]
            outer = _Expansion(self.store, x, op.results[0])
            if _equal(outer.expand(value), GELU):
                parts = {op, *inner, *outer.seen} - {current}
                users = {use.operation for part in parts for use in part.results[0].uses}
                return current if users <= parts | {current} else None
        return None


@dataclass
class _Expansion:
    """Multiplies an expression out, as a polynomial in x and t."""

    store: WeightStore
    x: SSAValue
    t: SSAValue | None
    seen: set[Operation] = field(default_factory=set[Operation])
    """The ops of the expression, without constants."""

    def expand(self, value: SSAValue) -> Polynomial | None:
        if value is self.x:
            return {(1, 0): 1.0}
        if value is self.t:
            return {(0, 1): 1.0}
        number = scalar(value, self.store)
        if number is not None:
            return {(0, 0): number}
        op = producer(value, "Add", "Mul", "Div", "Pow")
        if op is None or len(self.seen) >= MAX_OPS:
            return None
        self.seen.add(op)
        a = self.expand(op.operands[0])
        if a is None:
            return None
        if op.schema_name in ("Div", "Pow"):
            number = scalar(op.operands[1], self.store)
            return None if number is None else _by_number(op.schema_name, a, number)
        b = self.expand(op.operands[1])
        if b is None:
            return None
        if op.schema_name == "Mul":
            return _product(a, b)
        return dict(Counter(a) + Counter(b)) if _positive(a) and _positive(b) else None


def _by_number(name: str, a: Polynomial, number: float) -> Polynomial | None:
    if name == "Div":
        return {power: c / number for power, c in a.items()} if number else None
    if number not in (2, 3):
        return None
    result: Polynomial | None = a
    for _ in range(int(number) - 1):
        result = _product(result, a) if result is not None else None
    return result


def _product(a: Polynomial, b: Polynomial) -> Polynomial | None:
    result: Polynomial = {}
    for (i, j), c in a.items():
        for (k, m), d in b.items():
            if i + j + k + m > MAX_DEGREE:
                return None
            result[i + k, j + m] = result.get((i + k, j + m), 0.0) + c * d
    return result


def _positive(a: Polynomial) -> bool:
    """GELU has positive coefficients only, and a `Counter` keeps no others."""
    return all(c > 0 for c in a.values())


def _equal(a: Polynomial | None, b: Polynomial) -> bool:
    # Exporters write the constants with six digits or more; coarser ones would be another function.
    return (
        a is not None
        and a.keys() == b.keys()
        and all(isclose(a[power], b[power], rel_tol=1e-5) for power in b)
    )
