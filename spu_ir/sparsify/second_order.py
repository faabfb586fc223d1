"""Second-order pruning: the weights that stay make up for those that go, on calibration feeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import onnx
from xdsl.ir import SSAValue

from spu_ir.errors import SpuError

from .banks import BANK
from .files import Model, read_model
from .layers import Layer, Ratio, Replacer, layers_of, ratios_of, why_not
from .magnitude import check_bank, pruned_weight
from .moments import F32, Moments
from .network import Feeds, Inputs, Network, Product
from .reconstruct import Problem, reconstruct
from .report import Report, layer_report

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with the layer that is being pruned, how many are done, and how many there are."""

MEMORY = 8 << 30
"""Bytes that the activations of all feeds may take, and so many again the sums of a layer."""

DAMPING = 0.01
"""Added to the diagonal of a Hessian, as a part of its mean."""


def second_order(
    model: Model,
    ratio: Ratio,
    calibration: Iterable[Feeds],
    *,
    bank: int = BANK,
    keep: Sequence[str] = (),
    inputs: Inputs = "pruned",
    damping: float = DAMPING,
    memory: int = MEMORY,
    progress: Progress | None = None,
    report: Report | None = None,
) -> onnx.ModelProto:
    """
    A copy of `model`, a proto or a path, in the same banks as `magnitude` but with mended weights.

    Each layer is pruned so that on the feeds of `calibration` (input name -> array) it answers
    nearly as the dense layer does; see `reconstruct`. With `inputs="pruned"` layers are taken in
    the order in which they are computed, each sees what the layers pruned before it give, and
    aims at what the dense layer gave in the dense model. With "dense" every layer sees the
    inputs that it has in the dense model. A weight that several layers use is pruned once, for
    all the inputs that it meets. Convolutions with groups are pruned by magnitude.

    `ratio`, `bank` and `keep` are those of `magnitude`. `damping` is added to the diagonal of
    each layer's Hessian, as a part of its mean. `memory` bounds, in bytes, the activations of
    all feeds at one time, and the sums of a layer. The model runs in numpy, in FP32, on all
    feeds at once: some hundreds of sentences, some tens of images. Every position of an input
    counts, padding too, so feeds are best given without.

    The result depends on nothing but the arguments (and on the machine's BLAS in the last bits).
    Raises SpuError for a ratio that the format does not have, a pattern without a layer, a model
    that cannot be compiled, feeds that do not fit it or are not finite, and too little `memory`.
    """
    check_bank(bank)
    if inputs not in ("pruned", "dense"):
        raise SpuError(f"inputs {inputs!r} is not known", remedy="use pruned or dense")
    if not 0 < damping < 1:
        raise SpuError(f"damping {damping} is not between 0 and 1")
    pruned = read_model(model)
    layers = layers_of(pruned.graph)
    ratios = [int(one) for one in ratios_of(layers, ratio, keep)]
    weights: dict[object, _Weight] = {}
    for layer, one in zip(layers, ratios, strict=True):
        if why_not(layer, one) is None:
            key = (*layer.key, one)
            weights.setdefault(key, _Weight(layer, one, bank)).layers.append(layer)
    if weights:
        feeds = list(calibration)
        job = _Job(Network(pruned, feeds), list(weights.values()), inputs, damping, memory)
        job.attach({id(node): number for number, node in enumerate(pruned.graph.node)})
        job.run(progress or (lambda _what, _done, _total: None))
    replacer = Replacer(pruned)
    for layer, one in zip(layers, ratios, strict=True):
        reason = why_not(layer, one)
        found = weights.get((*layer.key, one))
        if reason is None and found is not None:
            replacer.replace(layer, layer.rows.weight(found.result), one)
            reason = found.reason
        if report is not None:
            report(
                layer_report(
                    layer,
                    layer.weight if found is None else layer.rows.weight(found.result),
                    1 if found is None else one,
                    reason,
                    error=None if found is None else found.error,
                    magnitude_error=None if found is None else found.magnitude_error,
                )
            )
    replacer.finish()
    return pruned


@dataclass(eq=False)
class _Weight:
    """One weight that is to be pruned, and all who use it."""

    first: Layer
    ratio: int
    bank: int
    layers: list[Layer] = field(default_factory=list[Layer])
    products: list[Product] = field(default_factory=list[Product])
    reason: str | None = None
    """Why it was pruned by magnitude instead."""
    error: float | None = None
    magnitude_error: float | None = None

    def __post_init__(self) -> None:
        weight = self.first.weight.astype(np.float32)
        self.rows: F32 = self.first.rows.rows(weight)
        kept = pruned_weight(weight, self.first.rows, self.ratio, bank=self.bank)
        self.largest: F32 = self.first.rows.rows(kept)
        """`rows` pruned by magnitude, `[N, K]`."""
        self.result: F32 = self.largest

    def set(self, rows: F32) -> None:
        """Let everything that is computed from now on use `rows`."""
        self.result = rows
        for product in self.products:
            product.pruned = rows * _scale(product.weight, self.rows)[:, None]

    def solve(self, problem: Problem) -> None:
        """Prune it, for the inputs that `problem` is about."""
        lengths, slots = self.first.rows.lengths, self.bank // self.ratio
        rows = reconstruct(self.rows, self.largest, problem, lengths, self.bank, slots)
        self.error = problem.moments.error(self.rows, rows)
        self.magnitude_error = problem.moments.error(self.rows, self.largest)
        self.set(rows)


def _scale(rows: F32, original: F32) -> F32:
    """The factor of every row by which `rows` is `original`: a batch normalisation's, folded."""
    power = (original * original).sum(axis=1)
    return (rows * original).sum(axis=1) / np.where(power > 0, power, 1)


def _is_scaled(rows: F32, original: F32) -> bool:
    if rows.shape != original.shape:
        return False
    scaled = original * _scale(rows, original)[:, None]
    return bool(np.abs(rows - scaled).max(initial=0) <= 1e-5 * np.abs(rows).max(initial=0))


@dataclass
class _Job:
    """Runs the network as often as it takes to prune every weight."""

    network: Network
    weights: list[_Weight]
    inputs: Inputs
    damping: float
    memory: int

    def attach(self, numbers: dict[int, int]) -> None:
        """Find the products of every weight; `numbers` gives the place of a node by its id."""
        made = {product.node: product for product in self.network.products.values()}
        self.of: dict[Product, _Weight] = {}
        for weight in self.weights:
            found = [made.get(numbers[id(layer.node)]) for layer in weight.layers]
            weight.products = [product for product in found if product is not None]
            if not weight.products:
                weight.reason = "by magnitude: the compiler makes no product of it"
            elif not all(_is_scaled(p.weight, weight.rows) for p in weight.products):
                weight.reason = "by magnitude: the compiler reads it in another order"
                weight.products = []
            elif any(product.grouped for product in weight.products):
                weight.reason = "by magnitude: a convolution with groups"
                weight.set(weight.largest)
            else:
                self.check_memory(weight)
                self.of.update(dict.fromkeys(weight.products, weight))

    def check_memory(self, weight: _Weight) -> None:
        """Raise SpuError when the sums and factors of a layer would not fit."""
        depth = weight.rows.shape[1]
        needed = Moments.nbytes(depth) + Problem.nbytes(depth)
        if needed > self.memory:
            raise SpuError(
                f"the second-order step of {depth} inputs takes {needed >> 20} MiB, more than the "
                f"{self.memory >> 20} MiB allowed",
                node=weight.first.name,
                op=weight.first.op,
                remedy="leave it dense with keep, or allow more memory",
            )

    def run(self, progress: Progress) -> None:
        """
        Prune everything that is attached.

        Weights that are used once are pruned as the run comes past. One that is used more often
        can only be pruned when all its inputs have been seen, at the end of a run; with inputs of
        the pruned model, what comes after its first use then waits for the next run.
        """
        self.todo = list({id(weight): weight for weight in self.of.values()}.values())
        total = len(self.todo)

        def show(what: str) -> None:
            progress(what, total - len(self.todo), total)

        self.progress = show
        while self.todo:
            self.progress("run")
            self.shared: dict[int, tuple[_Weight, Moments]] = {}
            self.frontier: SSAValue | None = None
            self.latest: tuple[SSAValue, Problem] | None = None
            self.network.run(self.visit, inputs=self.inputs, limit=self.memory)
            for weight, moments in self.shared.values():
                self.finish(weight, Problem(moments, self.damping))
        progress("done", total, total)

    def finish(self, weight: _Weight, problem: Problem) -> None:
        """Prune one weight for good."""
        self.progress(weight.first.name)
        weight.solve(problem)
        self.todo.remove(weight)

    def visit(self, product: Product, x: list[F32], dense: list[F32]) -> bool:
        """Look at the inputs of one product; False when the rest of the run is of no use."""
        weight = self.of.get(product)
        if weight is None or weight not in self.todo:
            return True
        source = product.op.x
        waits = self.frontier not in (None, source) and self.inputs == "pruned"
        if len(weight.products) > 1:
            # Those that read the same input, as a query, key and value do, are of one run.
            if id(weight) not in self.shared and not waits:
                self.frontier = source
                self.shared[id(weight)] = weight, Moments(weight.rows.shape[1])
            if id(weight) in self.shared:
                self.see(self.shared[id(weight)][1], product, x, dense)
        elif not waits:
            if self.latest is None or self.latest[0] is not source:
                moments = Moments(weight.rows.shape[1])
                self.see(moments, product, x, dense)
                self.latest = source, Problem(moments, self.damping)
            self.finish(weight, self.latest[1])
        return bool(self.todo)

    @staticmethod
    def see(moments: Moments, product: Product, x: list[F32], dense: list[F32]) -> None:
        """Add the inputs of a product on every feed."""
        for one, other in zip(x, dense, strict=True):
            if one is other:
                for rows in product.inputs(one):
                    moments.add(rows)
            else:
                pairs = zip(product.inputs(one), product.inputs(other), strict=True)
                for rows, wanted in pairs:
                    moments.add(rows, wanted)
