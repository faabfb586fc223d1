"""
Run-time extents as polynomials, so that two of them can be proven equal.

A dim is an int or an `Extent`: a polynomial with integer coefficients over *atoms*, which are the
run-time dims of the inputs and the quotients that do not divide evenly. Equal polynomials share
one SSA value, so a later pass that compares values sees what the lowering proved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

from xdsl.dialects import arith
from xdsl.dialects.builtin import IndexType, IntegerAttr
from xdsl.ir import Operation, SSAValue

from spu_ir.errors import SpuError

Monomial: TypeAlias = tuple[int, ...]
"""The numbers of the atoms that are multiplied, sorted; `()` for a constant."""


MAX_DEGREE = 32
"""Of an extent: with more factors than this it would not fit an int64 anyway."""

MAX_TERMS = 1024
"""Of an extent; those of networks have a few."""


@dataclass(frozen=True)
class Extent:
    """A polynomial that is not constant: (monomial, coefficient), sorted by monomial."""

    terms: tuple[tuple[Monomial, int], ...]


Dim: TypeAlias = int | Extent
Bound: TypeAlias = tuple[int, int | None]
"""Least and greatest value; None where there is no greatest one."""


def _terms(dim: Dim) -> dict[Monomial, int]:
    if isinstance(dim, int):
        return {(): dim} if dim else {}
    return dict(dim.terms)


def _dim(terms: Mapping[Monomial, int]) -> Dim:
    kept = sorted((m, c) for m, c in terms.items() if c)
    if all(m == () for m, _ in kept):
        return kept[0][1] if kept else 0
    return Extent(tuple(kept))


def add(a: Dim, b: Dim) -> Dim:
    """a + b."""
    total = _terms(a)
    for monomial, factor in _terms(b).items():
        total[monomial] = total.get(monomial, 0) + factor
    return _dim(total)


def multiply(a: Dim, b: Dim) -> Dim:
    """a * b. Raises SpuError where the polynomial gets longer than any model needs."""
    total: dict[Monomial, int] = {}
    for m, x in _terms(a).items():
        for n, y in _terms(b).items():
            monomial = tuple(sorted(m + n))
            total[monomial] = total.get(monomial, 0) + x * y
    if len(total) > MAX_TERMS or any(len(monomial) > MAX_DEGREE for monomial in total):
        raise SpuError(
            "an extent is too long a polynomial of the run-time extents",
            remedy="fix some of them in shapes, as in shapes={'batch': 1}",
        )
    return _dim(total)


def subtract(a: Dim, b: Dim) -> Dim:
    """a - b."""
    return add(a, multiply(b, -1))


def product(dims: Sequence[Dim]) -> Dim:
    """The product of all dims; 1 of none."""
    return reduce(multiply, dims, 1)


def exact_quotient(a: Dim, b: Dim) -> Dim | None:
    """The polynomial q with q * b == a, None when there is none."""
    if b == 0:
        return None
    lead, factor = _leading(b)
    quotient: Dim = 0
    rest = a
    while rest != 0:
        monomial, value = _leading(rest)
        left = _without(monomial, lead)
        if left is None or value % factor:
            return None
        step = _dim({left: value // factor})
        quotient, rest = add(quotient, step), subtract(rest, multiply(step, b))
    return quotient


def _leading(dim: Dim) -> tuple[Monomial, int]:
    # By degree first: an order that multiplying by a monomial keeps, so that division ends.
    return max(_terms(dim).items(), key=lambda term: (len(term[0]), term[0]))


def _without(monomial: Monomial, divisor: Monomial) -> Monomial | None:
    left = list(monomial)
    for atom in divisor:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)


class Extents:
    """The atoms of one function, and the SSA values of its extents."""

    def __init__(self, insert: Callable[[Operation], Operation]):
        self._insert = insert
        self._atoms: list[SSAValue] = []
        self._bounds: list[Bound] = []
        self._quotients: dict[tuple[Dim, Dim], Extent] = {}
        self._values: dict[Dim, SSAValue] = {}

    def atom(self, value: SSAValue, bound: Bound = (1, None)) -> Extent:
        """A new atom whose run-time value is the index `value`, within `bound`."""
        self._atoms.append(value)
        self._bounds.append(bound)
        extent = Extent((((len(self._atoms) - 1,), 1),))
        self._values[extent] = value
        return extent

    def divide(self, a: Dim, b: Dim) -> Dim:
        """a // b for positive values; an atom of its own where it does not divide evenly."""
        exact = exact_quotient(a, b)
        if exact is not None:
            return exact
        if isinstance(a, int) and isinstance(b, int):
            return a // b
        if (a, b) not in self._quotients:
            value = self._result(arith.DivUIOp(self.value(a), self.value(b)))
            low, high = self.bound(a)
            least, most = self.bound(b)
            bound = (
                0 if most is None else low // most,
                None if high is None else high // max(least, 1),
            )
            self._quotients[a, b] = self.atom(value, bound)
        return self._quotients[a, b]

    def bound(self, dim: Dim) -> Bound:
        """The least and greatest value of a dim."""
        low, high = 0, 0
        for monomial, factor in _terms(dim).items():
            least: int = factor
            most: int | None = factor
            for atom in monomial:
                bottom, top = self._bounds[atom]
                least *= bottom
                most = None if most is None or top is None else most * top
            if factor < 0:
                # The larger the atoms, the smaller the term; without a bound there is no least.
                if most is None:
                    return -(1 << 62), None
                least, most = most, least
            low += least
            high = None if high is None or most is None else high + most
        return low, high

    def minimum(self, a: Dim, b: Dim) -> Dim | None:
        """The smaller dim, None where the bounds do not tell."""
        return a if self.at_most(a, b) else b if self.at_most(b, a) else None

    def at_most(self, a: Dim, b: Dim) -> bool:
        """Whether a <= b can be proven."""
        return self.bound(subtract(b, a))[0] >= 0

    def value(self, dim: Dim) -> SSAValue:
        """The index value of a dim; ops for it are made at the first use."""
        if dim not in self._values:
            self._values[dim] = self._make(dim)
        return self._values[dim]

    def _make(self, dim: Dim) -> SSAValue:
        if isinstance(dim, int):
            return self._result(arith.ConstantOp(IntegerAttr(dim, IndexType())))
        total: SSAValue | None = None
        # Constants last, so that `n + 1` reads as it is written.
        for monomial, factor in reversed(dim.terms):
            term = self._term(monomial, factor)
            total = term if total is None else self._result(arith.AddiOp(total, term))
        assert total is not None
        return total

    def _term(self, monomial: Monomial, factor: int) -> SSAValue:
        factors = [self._atoms[atom] for atom in monomial]
        if factor != 1 or not factors:
            factors.append(self.value(factor))
        return reduce(lambda a, b: self._result(arith.MuliOp(a, b)), factors)

    def _result(self, op: Operation) -> SSAValue:
        return self._insert(op).results[0]
