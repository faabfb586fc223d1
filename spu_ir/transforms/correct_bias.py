"""Take the mean error that quantisation adds to each output channel off the bias."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from spu_ir.dialects.spu import EpilogueOp
from spu_ir.dialects.types import Array
from spu_ir.dialects.weights import store_of
from spu_ir.errors import SpuError
from spu_ir.interpreters import interpret
from spu_ir.transforms.calibrate import read_feeds
from spu_ir.transforms.rewriting import constant_of, constant_op, rebuilt
from spu_ir.transforms.twins import with_twins

Doubles: TypeAlias = NDArray[np.float64]


@dataclass
class ChannelMeans:
    """Sums and counts over the elements of each channel, the last axis, of some ops' results."""

    ops: frozenset[Operation]
    sums: dict[Operation, Doubles] = field(default_factory=dict[Operation, Doubles])
    counts: dict[Operation, int] = field(default_factory=dict[Operation, int])

    def __call__(self, op: Operation, results: Sequence[Any]) -> None:
        if op not in self.ops:
            return
        rows = np.asarray(results[0]).reshape(-1, np.shape(results[0])[-1])
        self.sums[op] = self.sums.get(op, np.zeros(rows.shape[1])) + rows.sum(axis=0, dtype=float)
        self.counts[op] = self.counts.get(op, 0) + len(rows)

    def of(self, op: Operation) -> Doubles:
        """The mean of each channel of the result of `op`; zeros if there was no element."""
        return self.sums[op] / max(self.counts[op], 1)


def mean_errors(
    module: ModuleOp,
    ctx: Context,
    feeds: Iterable[Mapping[str, Array]],
    mode: str = "auto",
    progress: Callable[[int], None] | None = None,
) -> dict[EpilogueOp, Doubles]:
    """
    For each product that `quantise` in `mode` would quantise, E[quantised] - E[f32], f64 [N].

    The means are over everything but channels in all feeds, before residual and activation, with
    the inputs that the product has in the f32 network.
    """
    copy, twins = with_twins(module, ctx, mode, plain=True)
    means = ChannelMeans(frozenset(op for twin in twins for op in (twin.exact, twin.rounded)))
    done = 0
    for feed in feeds:
        interpret(copy, ctx, feed, listener=means)
        done += 1
        if progress is not None:
            progress(done)
    if not done:
        raise SpuError(
            "there is nothing to correct biases with",
            remedy="pass at least one feed of every input",
        )
    return {twin.original: means.of(twin.rounded) - means.of(twin.exact) for twin in twins}


def correct_bias(
    module: ModuleOp,
    ctx: Context,
    feeds: Iterable[Mapping[str, Array]],
    mode: str = "auto",
    progress: Callable[[int], None] | None = None,
) -> None:
    """
    Subtract `mean_errors` from the biases of a module on tensors, in f32, before `quantise`.

    This is the empirical form (section 4.2, appendix D) of Nagel et al. 2019, "Data-free
    quantization through weight equalization and bias correction", with the f32 network's inputs
    to every product, so that one pass over the feeds does. A product without a bias gets one; one
    whose bias is not a constant is left. Raises SpuError when there is no feed.
    """
    store = store_of(ctx)
    for op, error in mean_errors(module, ctx, feeds, mode, progress).items():
        bias = np.zeros(len(error)) if op.bias is None else constant_of(op.bias, store)
        if bias is None:
            continue
        corrected = (bias.astype(np.float64) - error).astype(np.float32)
        point = InsertPoint.before(op)
        constant = Builder(point).insert(constant_op(store, corrected))
        Rewriter.replace_op(op, rebuilt(op, bias=constant.result))


@dataclass(frozen=True)
class CorrectBiasPass(ModulePass):
    """
    Take the mean error that INT8 will add to each output channel off the products' biases.

    The means are over the inputs in an `.npz` file, as for `calibrate`, which runs before where
    activations are quantised statically; `quantise` in the same `mode` comes after. The outputs
    of the f32 network move by about the error that is then corrected.
    """

    name = "correct-bias"
    preserves: ClassVar[str] = "tolerance(0.05)"

    feeds: str
    mode: str = "auto"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        correct_bias(op, ctx, read_feeds(self.feeds), self.mode)
