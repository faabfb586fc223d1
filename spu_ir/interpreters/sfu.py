"""
The special function unit: activations as 32 parabolas, chosen by the input (docs/numerics.md).

`python -m spu_ir.interpreters.sfu` prints the tables as the device's header, sfu_tables.h.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import cos, erf, exp, pi, sqrt, tanh

import numpy as np

from .numerics import F32, maximum, minimum

PIECES = 32


def _gelu(x: float) -> float:
    return x / 2 * (1 + erf(x / sqrt(2)))


def _gelu_tanh(x: float) -> float:
    return x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))


def _silu(x: float) -> float:
    return x / (1 + exp(-x))


def _sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


@dataclass(frozen=True)
class Table:
    """
    A function that is 0 far below and x, or 1, far above, by parabolas on pieces of equal width.

    Piece i starts at `(i - 16) / step`, a power of two; the first piece is 0, and the last one x
    or 1, without end. A parabola meets the function at the three Chebyshev nodes of its piece.
    """

    function: Callable[[float], float]
    step: float
    slope: float = 1
    """That of the last piece: 1 for x, 0 for 1."""

    @cached_property
    def coefficients(self) -> F32:
        """f32 `[3, PIECES]`: of 1, x and x^2."""
        table = np.zeros((3, PIECES), np.float32)
        table[:2, -1] = 1 - self.slope, self.slope
        for piece in range(1, PIECES - 1):
            centre = (piece - 15.5) / self.step
            a, b, c = (centre + cos(pi * k / 6) / (2 * self.step) for k in (5, 3, 1))
            fa, fb, fc = (self.function(x) for x in (a, b, c))
            slope = (fb - fa) / (b - a)
            curve = ((fc - fb) / (c - b) - slope) / (c - a)
            table[:, piece] = fa - a * slope + a * b * curve, slope - (a + b) * curve, curve
        return table

    def __call__(self, x: F32) -> F32:
        """The function of every element of x."""
        with np.errstate(all="ignore"):
            place = x * np.float32(self.step)
            place = minimum(maximum(place, np.float32(-PIECES // 2)), np.float32(PIECES // 2 - 1))
            piece = np.floor(place).astype(np.int32) + PIECES // 2
            constant, slope, curve = (row[piece] for row in self.coefficients)
            return (curve * x + slope) * x + constant


TABLES: dict[str, Table] = {
    "sfu_gelu": Table(_gelu, 4.0),
    "sfu_gelu_tanh": Table(_gelu_tanh, 4.0),
    "sfu_silu": Table(_silu, 2.0),
    "sfu_sigmoid": Table(_sigmoid, 2.0, slope=0),
}
"""The activations of the special function unit, by their names in the IR."""


def header() -> str:
    """The text of runtime/device/sfu_tables.h."""
    lines = [
        "/* Made by `python -m spu_ir.interpreters.sfu`: coefficients of 1, x and x^2 by piece. */",
        "#ifndef SPU_SFU_TABLES_H",
        "#define SPU_SFU_TABLES_H",
        "",
    ]
    for name, table in TABLES.items():
        lines.append(f"#define {name.upper()}_STEP {table.step!r}f")
        lines.append(f"static const float spu_{name}_table[3][{PIECES}] = {{")
        for row in table.coefficients:
            numbers = [f"{float(number)!r}f" for number in row]
            lines.append("    {")
            for first in range(0, PIECES, 4):
                lines.append("        " + ", ".join(numbers[first : first + 4]) + ",")
            lines.append("    },")
        lines += ["};", ""]
    return "\n".join([*lines, "#endif", ""])


if __name__ == "__main__":
    print(header(), end="")
