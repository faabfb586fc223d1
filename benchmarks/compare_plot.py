"""A bar chart of the comparison, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from .compare_goals import best, places
from .ratios import title as written

COLOURS = ("#1f4e79", "#d97706", "#6b7280", "#15803d")
"""Of engines, in order."""
LABEL, BAR, GAP, SCALE_WIDTH, RIGHT = 190, 14, 14, 460, 150


def bars(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """
    Milliseconds of every engine's INT8 at the first number of threads and batch, a group of bars
    for every model and ratio, as long as they are multiples of spu-ir's.
    """
    table = [dict(row) for row in rows]
    threads, batch = places(table)[0] if table else (1, 1)
    groups: list[tuple[str, list[tuple[str, float, float]]]] = []
    for model, ratio in dict.fromkeys((row["model"], row["ratio"]) for row in table):
        at = {"model": model, "ratio": ratio, "threads": threads, "batch": batch}
        ours = best(table, "spu", **at)
        if ours is None:
            continue
        found = {name: best(table, name, **at) for name in names}
        lines = [
            (name, row["seconds"] * 1e3, row["seconds"] / ours["seconds"])
            for name, row in found.items()
            if row is not None
        ]
        groups.append((f"{model} {written(ratio)}", lines))
    longest = max((times for _, lines in groups for _, _, times in lines), default=1.0)
    parts: list[str] = []
    y = 50
    for title, lines in groups:
        middle = y + BAR * len(lines) / 2 + 4
        parts.append(label(LABEL - 10, middle, title, "end"))
        for name, milliseconds, times in lines:
            width = times / longest * SCALE_WIDTH
            colour = COLOURS[list(names).index(name)]
            parts.append(
                f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR - 2}" '
                f'fill="{colour}"/>'
            )
            said = f"{milliseconds:.1f} ms" + (f", {times:.2f}x" if name != "spu" else "")
            parts.append(label(LABEL + width + 5, y + BAR - 4, said))
            y += BAR
        y += GAP
    x = float(LABEL)
    for number, name in enumerate(names.values()):
        parts.append(f'<rect x="{x}" y="28" width="10" height="10" fill="{COLOURS[number]}"/>')
        parts.append(label(x + 14, 37, name))
        x += 24 + 7 * len(name)
    where = f"INT8, {threads} thread{'s' * (threads != 1)}, batch {batch}"
    parts.append(label(LABEL, 16, f"Milliseconds a run, and multiples of spu-ir's: {where}"))
    width = LABEL + SCALE_WIDTH + RIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" '
        f'viewBox="0 0 {width} {y}" font-family="sans-serif" font-size="11">\n'
        f'<rect width="{width}" height="{y}" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def label(x: float, y: float, text: str, anchor: str = "start") -> str:
    """A line of text whose baseline is at `y`."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
