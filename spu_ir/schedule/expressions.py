"""
Small arithmetic over the run-time extents, which evaluates in Python and is stored as JSON.

An expression is a number, the name of a symbol, or a `Node`. The functions of this module build
nodes and compute at once what is known. All values are integers; division is by positive ones.

A symbol is an extent (`batch`), or belongs to a mask whose padding is skipped: `rows:0` is how
many rows all samples of mask 0 have, and `sample:0`, inside a `samples:0` node, how many the sample
at hand has. A `samples` node adds its operand up over the samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, cast

from spu_ir.errors import SpuError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

SAMPLES, SAMPLE, ROWS = "samples:", "sample:", "rows:"
"""What the names of nodes and symbols of a mask begin with; the mask's number follows."""


class Node:
    """An operation on expressions. Equal nodes are equal whatever made them."""

    __slots__ = ("_hash", "args", "op")

    def __init__(self, op: str, args: tuple[Expr, ...]):
        self.op = op
        self.args = args
        self._hash = hash((op, args))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Node) or self._hash != other._hash:
            return False
        return self.op == other.op and self.args == other.args

    def __repr__(self) -> str:
        return f"{self.op}({', '.join(map(str, self.args))})"


Expr: TypeAlias = int | str | Node

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "ceildiv": lambda a, b: -(-a // b),
    "min": min,
    "max": max,
}
"""The operations of two numbers."""


def add(a: Expr, b: Expr) -> Expr:
    """a + b."""
    if isinstance(a, int) and not isinstance(b, int):
        a, b = b, a
    if isinstance(b, int):
        if isinstance(a, int):
            return a + b
        if b == 0:
            return a
        if isinstance(a, Node) and a.op == "add" and isinstance(a.args[1], int):
            return add(a.args[0], a.args[1] + b)
    return Node("add", (a, b))


def subtract(a: Expr, b: Expr) -> Expr:
    """a - b."""
    if isinstance(b, int):
        return add(a, -b)
    return 0 if a == b else Node("sub", (a, b))


def multiply(a: Expr, b: Expr) -> Expr:
    """a * b."""
    if isinstance(a, int) and not isinstance(b, int):
        a, b = b, a
    if isinstance(b, int):
        if isinstance(a, int):
            return a * b
        if b in (0, 1):
            return a if b else 0
        if isinstance(a, Node) and a.op == "mul" and isinstance(a.args[1], int):
            return multiply(a.args[0], a.args[1] * b)
    return Node("mul", (a, b))


def floor_divide(a: Expr, b: Expr) -> Expr:
    """a / b, rounded down."""
    return _divide("floordiv", a, b)


def ceil_divide(a: Expr, b: Expr) -> Expr:
    """a / b, rounded up."""
    return _divide("ceildiv", a, b)


def _divide(op: str, a: Expr, b: Expr) -> Expr:
    if b == 1:
        return a
    if isinstance(a, int) and isinstance(b, int):
        return OPERATIONS[op](a, b)
    return Node(op, (a, b))


def minimum(a: Expr, b: Expr) -> Expr:
    """The smaller of both."""
    return _extreme("min", a, b)


def maximum(a: Expr, b: Expr) -> Expr:
    """The larger of both."""
    return _extreme("max", a, b)


def _extreme(op: str, a: Expr, b: Expr) -> Expr:
    if a == b:
        return a
    if isinstance(a, int) and isinstance(b, int):
        return OPERATIONS[op](a, b)
    # A buffer's size is the extreme of many that are mostly the same: chains must stay short.
    one = a
    while isinstance(one, Node) and one.op == op:
        if b in one.args:
            return a
        one = one.args[0]
    return Node(op, (a, b))


def total(parts: Sequence[Expr]) -> Expr:
    """The sum of `parts`, whose multiples of one expression become one, in a shallow tree."""
    multiples: Counter[Expr] = Counter()
    number = 0
    for part in parts:
        if isinstance(part, int):
            number += part
        elif isinstance(part, Node) and part.op == "mul" and isinstance(part.args[1], int):
            multiples[part.args[0]] += part.args[1]
        else:
            multiples[part] += 1
    level = [multiply(expr, times) for expr, times in multiples.items()]
    while len(level) > 1:
        paired = [add(*level[i : i + 2]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(paired) * 2 :]
    return add(level[0], number) if level else number


def product(factors: Sequence[Expr]) -> Expr:
    """The product of `factors`; numbers are multiplied first."""
    number = 1
    result: Expr | None = None
    for factor in factors:
        if isinstance(factor, int):
            number *= factor
        else:
            result = factor if result is None else multiply(result, factor)
    return number if result is None else multiply(result, number)


def over_samples(mask: int, body: Expr) -> Expr:
    """The sum of `body` over the samples of a mask."""
    return body if body == 0 else Node(f"{SAMPLES}{mask}", (body,))


class Evaluation:
    """The values of expressions for given symbols and samples; shared parts are computed once."""

    def __init__(self, symbols: Mapping[str, int], samples: Mapping[int, Sequence[int]]):
        """`samples` has, for each mask, how many rows every sample has."""
        self._symbols = dict(symbols)
        self._samples = samples
        for mask, rows in samples.items():
            self._symbols[f"{ROWS}{mask}"] = sum(rows)
        self._known: dict[Node, int] = {}

    def __call__(self, expr: Expr) -> int:
        """The value. Raises SpuError for a symbol without a value."""
        if isinstance(expr, int):
            return expr
        if isinstance(expr, str):
            if expr not in self._symbols:
                raise SpuError(f"the extent {expr!r} is not given")
            return self._symbols[expr]
        found = self._known.get(expr)
        if found is None:
            found = self._known[expr] = self._node(expr)
        return found

    def _node(self, node: Node) -> int:
        if node.op.startswith(SAMPLES):
            mask = int(node.op.removeprefix(SAMPLES))
            counted = Counter(self._samples.get(mask, ()))
            return sum(
                count * Evaluation({**self._symbols, f"{SAMPLE}{mask}": rows}, {})(node.args[0])
                for rows, count in counted.items()
            )
        return OPERATIONS[node.op](*(self(arg) for arg in node.args))


class Pool:
    """Expressions as JSON: every distinct node once, `[op, operand, ...]`, operands before."""

    def __init__(self) -> None:
        self.nodes: list[Json] = []
        self._numbers: dict[Node, int] = {}

    def put(self, expr: Expr) -> Json:
        """An operand: a number, a symbol's name, or `[n]` for node number n of the pool."""
        if not isinstance(expr, Node):
            return expr
        if expr not in self._numbers:
            operands = [self.put(arg) for arg in expr.args]
            self._numbers[expr] = len(self.nodes)
            self.nodes.append([expr.op, *operands])
        return [self._numbers[expr]]


def read_pool(value: Json) -> Callable[[Json], Expr]:
    """
    What reads a pool's operands back. Raises SpuError for anything but what `Pool` writes.

    The nodes come from a file that anybody may have written: names, kinds and references are
    checked here, so that evaluation can trust them.
    """
    if not isinstance(value, list):
        raise _damaged("its expressions are no list")
    nodes: list[Node] = []

    def operand(item: Json) -> Expr:
        if isinstance(item, int | str) and not isinstance(item, bool):
            return item
        number = item[0] if isinstance(item, list) and len(item) == 1 else None
        if isinstance(number, int) and 0 <= number < len(nodes):
            return nodes[number]
        raise _damaged(f"{item!r} is no operand")

    for item in value:
        if not isinstance(item, list) or not item or not isinstance(item[0], str):
            raise _damaged(f"{item!r} is no node")
        op, args = item[0], tuple(operand(each) for each in cast("list[Json]", item[1:]))
        number = op.removeprefix(SAMPLES)
        wanted = 1 if op.startswith(SAMPLES) and number.isdecimal() else 2
        if len(args) != wanted or (wanted == 2 and op not in OPERATIONS):
            raise _damaged(f"there is no operation {op!r} of {len(args)} operands")
        if op.endswith("div") and not (isinstance(args[1], int) and args[1] > 0):
            raise _damaged("a divisor is not a positive number")
        nodes.append(Node(op, args))
    return operand


def _damaged(what: str) -> SpuError:
    return SpuError(f"the table of work is damaged: {what}", remedy="compile the model again")
