"""The scaling benchmark as SVG: a panel for every sweep and model, with its lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from .compare_plot import COLOURS, label
from .scaling_fit import Fit

Row: TypeAlias = Mapping[str, Any]
Series: TypeAlias = tuple[str, list[float], list[float], Fit | None]
"""A name, places, milliseconds there, and the line through them."""

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 310, 230, 46, 14, 42, 40
TICKS = 4
SEGMENTS = 32
"""Of a curve."""


def panel(x: float, y: float, title: str, axis: str, series: Sequence[Series]) -> list[str]:
    """The parts of one panel whose corner is at `x`, `y`; both axes start at 0."""
    most_x = max(place for _, places, _, _ in series for place in places)
    most_y = max(value for _, _, values, _ in series for value in values)
    step_x, step_y = tick(most_x), tick(most_y)
    top_x, top_y = math.ceil(most_x / step_x) * step_x, math.ceil(most_y / step_y) * step_y
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(place: float, value: float) -> tuple[float, float]:
        return x + LEFT + place / top_x * wide, y + TOP + high - value / top_y * high

    parts = [label(x + LEFT, y + 16, title)]
    for number in range(round(top_x / step_x) + 1):
        across, low = at(number * step_x, 0)
        parts.append(label(across, low + 14, f"{number * step_x:g}", "middle"))
    for number in range(round(top_y / step_y) + 1):
        left, up = at(0, number * step_y)
        parts.append(line([(left, up), (left + wide, up)], "#e5e7eb"))
        parts.append(label(left - 5, up + 4, f"{number * step_y:g}", "end"))
    parts.append(label(x + LEFT + wide / 2, y + HEIGHT - 10, axis, "middle"))
    for number, (name, places, values, fit) in enumerate(series):
        colour = COLOURS[number]
        if fit is not None:
            count = 1 if len(fit.coefficients) == 2 else SEGMENTS
            ends = [max(places) * part / count for part in range(count + 1)]
            parts.append(line([at(place, fit(place)) for place in ends], colour))
        for place, value in zip(places, values, strict=True):
            across, up = at(place, value)
            parts.append(f'<circle cx="{across:.1f}" cy="{up:.1f}" r="3" fill="{colour}"/>')
        if name:
            key = x + LEFT + 90 * number
            parts.append(f'<circle cx="{key + 4:.1f}" cy="{y + 28}" r="3" fill="{colour}"/>')
            parts.append(label(key + 12, y + 32, name))
    return parts


def picture(rows: Sequence[Sequence[tuple[str, str, Sequence[Series]]]]) -> str:
    """Rows of panels, each with its title, the name of its horizontal axis, and its series."""
    parts: list[str] = []
    for down, panels in enumerate(rows):
        for across, (title, axis, series) in enumerate(panels):
            parts += panel(across * WIDTH, 22 + down * HEIGHT, title, axis, series)
    width = WIDTH * max(map(len, rows))
    height = 22 + HEIGHT * len(rows)
    parts.append(label(LEFT, 14, "Milliseconds a run, INT8, 1 thread; dots are measured"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">\n'
        f'<rect width="{width}" height="{height}" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def tick(most: float) -> float:
    """A round distance of ticks, about `TICKS` of them from 0 to `most`."""
    exact = most / TICKS
    unit = 10.0 ** math.floor(math.log10(exact))
    return next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= exact * 0.999)


def line(places: Sequence[tuple[float, float]], colour: str) -> str:
    """A line through places of the picture."""
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline points="{text}" fill="none" stroke="{colour}"/>'
