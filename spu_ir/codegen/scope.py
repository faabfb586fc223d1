"""C text with names that come from numbering: scopes, captured values, functions made once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from xdsl.dialects import arith
from xdsl.dialects.builtin import IntegerAttr
from xdsl.ir import Attribute, SSAValue

Expr: TypeAlias = int | str
"""An integer known now, or the name of a C variable of type int64_t."""

_NAME = re.compile(r"\b[vc]\d+\b")


@dataclass(frozen=True)
class View:
    """A memref in C: a pointer, and its shape and strides (in elements) as expressions."""

    pointer: str
    element: Attribute
    dims: tuple[Expr, ...]
    strides: tuple[Expr, ...]


@dataclass(frozen=True)
class _Declaration:
    name: str
    type: str
    value: str

    def text(self) -> str:
        space = "" if self.type.endswith("*") else " "
        return f"{self.type}{space}{self.name} = {self.value};"


@dataclass(frozen=True)
class _Profiled:
    """A line that a program has only when it is profiled."""

    text: str


_Line: TypeAlias = "str | _Declaration | _Profiled"


@dataclass(frozen=True)
class Text:
    """A scope's lines, and the outer names that it captures, in the order of its own for them."""

    lines: list[str]
    outer: list[str]
    """Captured as c0, c1, ..."""
    profiled: list[str]
    """Captured as p0, p1, ... where only a profiled program needs them; p also numbers its own."""


@dataclass
class Scope:
    """
    The body of one C function being written.

    Values of an outer scope are captured on first use, as members of the function's frame. A
    declared variable that nothing uses is dropped when the text is taken.

    Statements added by `profiled` are macros that expand to nothing in a program that is not
    profiled. What only they use is declared inside `SPU_PROFILED(...)`, so that the other program
    has not even the variable.
    """

    parent: Scope | None = None
    values: dict[SSAValue, Expr | View] = field(default_factory=dict[SSAValue, "Expr | View"])
    types: dict[str, str] = field(default_factory=dict[str, str])
    captured: dict[str, str] = field(default_factory=dict[str, str])
    """Local name -> the outer scope's name, in order of capture."""
    _lines: list[tuple[int, _Line]] = field(default_factory=list[tuple[int, "_Line"]])
    _depth: int = 1

    def line(self, text: str) -> None:
        """Add a statement as it is."""
        self._lines.append((self._depth, text))

    def profiled(self, text: str) -> None:
        """Add a statement that is a macro without any text unless the program is profiled."""
        self._lines.append((self._depth, _Profiled(text)))

    def open(self, text: str) -> None:
        """Add the head of a block; what follows is inside it until `close`."""
        self.line(f"{text} {{" if text else "{")
        self._depth += 1

    def close(self) -> None:
        self._depth -= 1
        self.line("}")

    def declare(self, ctype: str, value: str) -> str:
        """A new variable with a value; returns its name."""
        name = f"v{len(self.types)}"
        self.types[name] = ctype
        self._lines.append((self._depth, _Declaration(name, ctype, value)))
        return name

    def counter(self) -> str:
        """A new name for a loop's int64_t counter, which the caller declares in the loop."""
        name = f"v{len(self.types)}"
        self.types[name] = "int64_t "
        return name

    def let(self, value: str) -> str:
        """A new int64_t variable."""
        return self.declare("const int64_t", value)

    def capture(self, name: str) -> str:
        """The local name of a variable of the outer scope."""
        for local, outer in self.captured.items():
            if outer == name:
                return local
        assert self.parent is not None
        local = f"c{len(self.captured)}"
        self.captured[local] = name
        self.types[local] = self.parent.types[name]
        return local

    @property
    def root(self) -> Scope:
        """The outermost scope, the program's own function."""
        return self if self.parent is None else self.parent.root

    def name_of_root(self, name: str) -> str:
        """The local name of a variable of the outermost scope."""
        return name if self.parent is None else self.capture(self.parent.name_of_root(name))

    def import_expr(self, expr: Expr) -> Expr:
        return self.capture(expr) if isinstance(expr, str) else expr

    def index(self, value: SSAValue) -> Expr:
        """The expression of an index value."""
        owner = value.owner
        if isinstance(owner, arith.ConstantOp) and isinstance(owner.value, IntegerAttr):
            return owner.value.value.data
        found = self.lookup(value)
        assert isinstance(found, int | str)
        return found

    def view(self, value: SSAValue) -> View:
        """The view that a memref value is."""
        found = self.lookup(value)
        assert isinstance(found, View)
        return found

    def lookup(self, value: SSAValue) -> Expr | View:
        if value not in self.values:
            assert self.parent is not None, f"no C value for {value}"
            outer = self.parent.lookup(value)
            if isinstance(outer, View):
                self.values[value] = View(
                    self.capture(outer.pointer),
                    outer.element,
                    tuple(self.import_expr(e) for e in outer.dims),
                    tuple(self.import_expr(e) for e in outer.strides),
                )
            else:
                self.values[value] = self.import_expr(outer)
        return self.values[value]

    # Arithmetic that happens now where it can.

    def add(self, a: Expr, b: Expr) -> Expr:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if a == 0 or b == 0:
            return b if a == 0 else a
        return self.let(f"{a} + {b}")

    def multiply(self, a: Expr, b: Expr) -> Expr:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if a in (0, 1) or b in (0, 1):
            return 0 if 0 in (a, b) else b if a == 1 else a
        return self.let(f"{a} * {b}")

    def product(self, factors: Sequence[Expr]) -> Expr:
        total: Expr = 1
        for factor in factors:
            total = self.multiply(total, factor)
        return total

    def text(self) -> Text:
        """The lines that matter, and the outer names that they capture, renamed in order."""
        needed = self._used(profiled=False)
        wanted = self._used(profiled=True)
        kept: list[tuple[int, str, bool]] = []
        for depth, line in self._lines:
            if isinstance(line, _Profiled):
                kept.append((depth, line.text, False))
            elif isinstance(line, str):
                kept.append((depth, line, True))
            elif line.name in needed:
                kept.append((depth, line.text(), True))
            elif line.name in wanted:
                kept.append((depth, f"SPU_PROFILED({line.text()})", False))
        names: dict[str, str] = {}
        outer: list[str] = []
        profiled: list[str] = []
        for plain in (True, False):
            for name in (n for _, line, p in kept if p == plain for n in _NAME.findall(line)):
                if name in names:
                    continue
                captured = self.captured.get(name)
                if not plain:
                    # Captured names come first: those of the frame are numbered by their place.
                    if captured is not None:
                        names[name] = f"p{len(profiled)}"
                        profiled.append(captured)
                elif captured is not None:
                    names[name] = f"c{len(outer)}"
                    outer.append(captured)
                else:
                    names[name] = f"v{len(names) - len(outer)}"
        own = len(profiled)
        for name in (n for _, line, _ in kept for n in _NAME.findall(line)):
            if name not in names:
                names[name] = f"p{own}"
                own += 1

        lines = [
            "  " * depth + _NAME.sub(lambda match: names[match.group()], line)
            for depth, line, _ in kept
        ]
        return Text(lines, outer, profiled)

    def _used(self, *, profiled: bool) -> set[str]:
        """The names that lines use, those of profiled statements too or not."""
        used: set[str] = set()
        for _, line in reversed(self._lines):
            if isinstance(line, _Declaration):
                if line.name not in used:
                    continue
                line = line.text()
            elif isinstance(line, _Profiled):
                if not profiled:
                    continue
                line = line.text
            used.update(_NAME.findall(line))
        return used


@dataclass
class Functions:
    """Functions of the program, each distinct text emitted once, in order of first use."""

    texts: dict[str, str] = field(default_factory=dict[str, str])

    def name(self, prefix: str, text: str) -> str:
        """The name of the function with this text, in which `@` stands for the name."""
        if text not in self.texts:
            self.texts[text] = f"{prefix}{len(self.texts)}"
        return self.texts[text]

    def definitions(self) -> list[str]:
        return [text.replace("@", name) for text, name in self.texts.items()]


def c_float(value: float) -> str:
    """A float literal with just this value; raises ValueError unless it is finite."""
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"not a finite number: {value}")
    return f"{float(value).hex()}f"
