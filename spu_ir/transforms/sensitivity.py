"""
How much each product, were it alone in INT8, would change the outputs of a network.

The network runs in f32 on sample inputs. At each product the run branches: the product is computed
again with its operands rounded as `quantise` rounds them, and the rest of the network, in f32,
from that. So no number here is an estimate but `SensitivityReport.estimate`, and a network of n
products costs about n / 2 runs for each feed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import sqrt
from typing import Any

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation

from spu_ir.dialects.spu import EpilogueOp
from spu_ir.dialects.types import Array, shape_of, show_shape
from spu_ir.dialects.weights import store_of
from spu_ir.errors import SpuError
from spu_ir.interpreters import interpret
from spu_ir.interpreters.branching import Trunk
from spu_ir.transforms.quantise import QuantisePass
from spu_ir.transforms.rewriting import array_of, layer_of
from spu_ir.transforms.twins import with_twins

FEEDS = 4
"""How many of the calibration's feeds are enough: errors are means over all their elements."""


@dataclass(frozen=True)
class LayerSensitivity:
    """One product, and what quantising it alone would do."""

    layer: str
    op: str
    shape: str
    macs: int
    """Multiply-accumulates by weights that are not zero, in a feed (the mean of the feeds)."""
    share: float
    """Of the multiply-accumulates of all products in the report, 0 to 1."""
    error: float
    """At the network's outputs: ||y - f32|| / ||f32||, the root mean square over outputs."""
    own_error: float
    """At the product's own output, the same."""


@dataclass(frozen=True)
class SensitivityReport:
    """All products that INT8 would have, the most sensitive first."""

    layers: tuple[LayerSensitivity, ...]
    error: float
    """Of the outputs with all of these products in INT8, measured: ||y - f32|| / ||f32||."""
    feeds: int
    """How many feeds were run."""

    @property
    def estimate(self) -> float:
        """What `error` would be if errors were independent: the root of the sum of squares."""
        return sqrt(sum(layer.error**2 for layer in self.layers))

    def json(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return {
            "feeds": self.feeds,
            "error": self.error,
            "estimate": self.estimate,
            "layers": [asdict(layer) for layer in self.layers],
        }


@dataclass
class Difference:
    """The sums over feeds of squared errors and squares of some arrays, by name."""

    errors: dict[str, float] = field(default_factory=dict[str, float])
    norms: dict[str, float] = field(default_factory=dict[str, float])

    def see(self, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        """Take arrays into account, of which those of integers are left out."""
        for name, array in expected.items():
            if array.dtype.kind != "f":
                continue
            finite = np.isfinite(array)
            a, b = got[name][finite].astype(np.float64), array[finite].astype(np.float64)
            self.errors[name] = self.errors.get(name, 0.0) + float(((a - b) ** 2).sum())
            self.norms[name] = self.norms.get(name, 0.0) + float((b**2).sum())

    @property
    def relative(self) -> float:
        """||got - expected|| / ||expected||, the root mean square of the names."""
        shares = [
            error / self.norms[name] if self.norms[name] else float(error > 0)
            for name, error in self.errors.items()
        ]
        return sqrt(sum(shares) / len(shares)) if shares else 0.0


def measure(
    module: ModuleOp,
    ctx: Context,
    feeds: Sequence[Mapping[str, Array]],
    mode: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> dict[EpilogueOp, LayerSensitivity]:
    """
    The sensitivity of each product that `quantise` in `mode` would quantise, in their order.

    `module` is on tensors, in f32, with ranges where `mode` needs them; it stays as it is.
    `feeds` are arrays by the names of inputs. `progress(done, total)` counts products times
    feeds. Raises SpuError without a feed, or when no output is a float.
    """
    if not feeds:
        raise SpuError(
            "there is nothing to measure sensitivity with",
            remedy="pass at least one feed of every input",
        )
    copy, twins = with_twins(module, ctx, mode)
    owns, outputs = ([Difference() for _ in twins] for _ in range(2))
    macs = [0.0] * len(twins)
    exact: dict[Operation, int] = {twin.exact: n for n, twin in enumerate(twins)}
    rounded = {twin.rounded for twin in twins}
    per_output = [macs_per_output(twin.original, ctx) for twin in twins]
    for done, feed in enumerate(feeds):
        trunk = Trunk(copy, ctx, feed)
        branches: dict[int, Mapping[str, Array]] = {}
        twin_array: Any = None
        for op in trunk.run():
            if op in rounded:
                twin_array = trunk.values[op.results[0]]
            elif op in exact:
                n, value = exact[op], op.results[0]
                owns[n].see({"": twin_array}, {"": trunk.values[value]})
                macs[n] += per_output[n] * twin_array.size
                branches[n] = trunk.branch(value, twin_array)
                if progress is not None:
                    progress(done * len(twins) + len(branches), len(feeds) * len(twins))
        for n, branch in branches.items():
            outputs[n].see(branch, trunk.outputs)
    if twins and not outputs[0].errors:
        raise SpuError(
            "no output is a float, so there is no error to measure",
            remedy="compile the model without what follows its last float, an ArgMax for instance",
        )
    total = sum(macs) or 1.0
    return {
        twin.original: LayerSensitivity(
            layer=layer_of(twin.original) or f"product {n}",
            op=twin.original.name,
            shape=show_shape(shape_of(twin.original.weight)),
            macs=round(macs[n] / len(feeds)),
            share=macs[n] / total,
            error=outputs[n].relative,
            own_error=owns[n].relative,
        )
        for n, twin in enumerate(twins)
    }


def macs_per_output(op: EpilogueOp, ctx: Context) -> float:
    """The mean number of weights that are not zero of an output channel."""
    weight = array_of(op.weight, store_of(ctx))
    return float(np.count_nonzero(weight)) / len(weight)


def quantised_error(
    module: ModuleOp, ctx: Context, feeds: Sequence[Mapping[str, Array]], mode: str = "auto"
) -> float:
    """||y - f32|| / ||f32|| of the outputs y when all products are quantised together."""
    copy = module.clone()
    QuantisePass(mode).apply(ctx, copy)
    found = Difference()
    for feed in feeds:
        found.see(interpret(copy, ctx, feed), interpret(module, ctx, feed))
    return found.relative


def report(
    module: ModuleOp,
    ctx: Context,
    feeds: Sequence[Mapping[str, Array]],
    mode: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> SensitivityReport:
    """`measure` as a ranking, with the error of all together. Raises what `measure` does."""
    layers = measure(module, ctx, feeds, mode, progress).values()
    ranked = sorted(layers, key=lambda layer: -layer.error)
    return SensitivityReport(tuple(ranked), quantised_error(module, ctx, feeds, mode), len(feeds))
