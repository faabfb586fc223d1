"""The picture that ByteMLPerf's reports name as `Diff Dist`: how differences are distributed."""

from __future__ import annotations

import io
from importlib import import_module
from typing import Any

import numpy as np

from .datasets import Array

WIDTH, HEIGHT, MARGIN = 400, 300, 40
"""Pixels of one of the three panels, and around its bars."""

BINS = 150


def difference_plot(reference: Array, outputs: Array) -> bytes | None:
    """
    Three histograms side by side, as PNG: reference - output, the reference, the outputs.

    Counts are on a logarithmic scale; the numbers below are the range. None without Pillow.
    """
    try:
        image: Any = import_module("PIL.Image")
        draw: Any = import_module("PIL.ImageDraw")
    except ImportError:
        return None
    want, got = (values.astype(np.float64).reshape(-1) for values in (reference, outputs))
    canvas = image.new("RGB", (3 * WIDTH, HEIGHT), "white")
    pen = draw.Draw(canvas)
    panels = (("difference to FP32", want - got), ("FP32", want), ("output", got))
    for number, (title, values) in enumerate(panels):
        _panel(pen, number * WIDTH, title, values[np.isfinite(values)])
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def _panel(pen: Any, left: int, title: str, values: Array) -> None:
    first, last = left + MARGIN, left + WIDTH - MARGIN
    floor, ceiling = HEIGHT - MARGIN, MARGIN
    pen.text((first, MARGIN // 2), title, fill="black")
    if values.size:
        low, high = float(values.min()), float(values.max())
        counts, _ = np.histogram(values, BINS, (low, high if high > low else low + 1))
        heights = np.log1p(counts) / np.log1p(counts.max()) * (floor - ceiling)
        edges = np.linspace(first, last, BINS + 1)
        for bar, height in enumerate(heights):
            if height:
                box = (round(edges[bar]), floor - round(height), round(edges[bar + 1]), floor)
                pen.rectangle(box, fill="#4c72b0")
        pen.text((first, floor + 5), f"{low:.4g}", fill="black")
        pen.text((last, floor + 5), f"{high:.4g}", fill="black", anchor="ra")
    pen.line((first, floor, last, floor), fill="black")
