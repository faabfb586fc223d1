"""What became of every layer that has a constant weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .layers import Layer

if TYPE_CHECKING:
    from rich.table import Table

    from .banks import Array


@dataclass(frozen=True)
class LayerReport:
    """One layer, pruned or not."""

    layer: str
    op: str
    shape: tuple[int, ...]
    """The weight's, in ONNX's layout."""
    ratio: float
    """What it was pruned to; 1 when it was left dense."""
    density: float
    """The part of its weights that are not zero."""
    reason: str | None
    """Why it was left dense, or pruned by magnitude where another method was asked for."""
    error: float | None = None
    """||X W - X' W'|| / ||X W|| over the calibration feeds, when there were any."""
    magnitude_error: float | None = None
    """The same of the largest weights, unchanged, for comparison."""

    @property
    def relative_error(self) -> float | None:
        """The error as a part of that of magnitude pruning: below 1 is better."""
        if self.error is None or not self.magnitude_error:
            return None
        return self.error / self.magnitude_error

    def json(self) -> dict[str, Any]:
        """For `json.dumps`; `relative_error` included."""
        return {**asdict(self), "shape": list(self.shape), "relative_error": self.relative_error}


Report: TypeAlias = Callable[[LayerReport], None]
"""Called with every layer when it is finished; `rows.append` collects them."""


def layer_report(
    layer: Layer, weight: Array, ratio: float, reason: str | None, **errors: float | None
) -> LayerReport:
    """The report of a layer that now has `weight`."""
    density = np.count_nonzero(weight) / max(1, weight.size)
    return LayerReport(layer.name, layer.op, layer.weight.shape, ratio, density, reason, **errors)


def report_table(rows: Sequence[LayerReport]) -> Table:
    """A table for people, for `rich.console.Console().print`."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for name in ("layer", "op", "shape", "ratio", "density", "error", "of magnitude's", "reason"):
        number = name in ("ratio", "density", "error", "of magnitude's")
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        # Names come from the model, so control characters are escaped.
        name = row.layer.encode("unicode_escape").decode()
        relative = row.relative_error
        table.add_row(
            escape(name),
            row.op,
            "x".join(map(str, row.shape)),
            f"{row.ratio:g}",
            f"{row.density:.1%}",
            "-" if row.error is None else f"{row.error:.4f}",
            "-" if relative is None else f"{relative:.3f}",
            row.reason or "-",
        )
    return table
