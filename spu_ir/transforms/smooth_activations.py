"""Move what makes the columns of a normalised activation differ in size into the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, f32
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from spu_ir.dialects.spu import MatmulOp
from spu_ir.dialects.types import Array
from spu_ir.dialects.vpu import LayerNormOp
from spu_ir.dialects.weights import WeightStore, store_of
from spu_ir.errors import SpuError
from spu_ir.interpreters import interpret
from spu_ir.transforms.calibrate import read_feeds
from spu_ir.transforms.quantise import is_quantisable
from spu_ir.transforms.rewriting import (
    after,
    constant_of,
    constant_op,
    dims_of,
    empty_of,
    is_constant,
)

Doubles: TypeAlias = NDArray[np.float64]

LARGEST = 1024.0
"""Of the factors: columns that are nearly zeros must not decide what the others are scaled by."""


@dataclass
class Group:
    """Normalisations whose products share weights, and so must share their columns' factors."""

    norms: list[LayerNormOp] = field(default_factory=list[LayerNormOp])
    products: list[MatmulOp] = field(default_factory=list[MatmulOp])


def groups_of(module: ModuleOp) -> list[Group]:
    """
    The normalisations that products of constant weights read, in groups.

    Left out are those of which a weight is also used otherwise: it would be needed twice.
    """
    groups: list[Group] = []
    for op in module.walk():
        if not (isinstance(op, LayerNormOp) and is_constant(op.gamma)):
            continue
        if op.beta is not None and not is_constant(op.beta):
            continue
        readers = products_of(op)
        if not readers:
            continue
        weights = {product.weight for product in readers}
        joined = Group([op], readers)
        for group in [g for g in groups if weights & {p.weight for p in g.products}]:
            groups.remove(group)
            joined = Group(group.norms + joined.norms, group.products + joined.products)
        groups.append(joined)
    return [group for group in groups if owns_its_weights(group)]


def products_of(norm: LayerNormOp) -> list[MatmulOp]:
    """The products of constant weights whose x a normalisation is."""
    users = [use.operation for use in norm.results[0].uses if use.index == 0]
    return [op for op in users if isinstance(op, MatmulOp) and is_quantisable(op)]


def owns_its_weights(group: Group) -> bool:
    """Whether only the group's products use its weights."""
    users = {use.operation for product in group.products for use in product.weight.uses}
    return users <= set(group.products)


@dataclass
class ColumnPeaks:
    """The largest finite magnitude of each column of some ops' results."""

    ops: frozenset[Operation]
    peaks: dict[Operation, Doubles] = field(default_factory=dict[Operation, Doubles])

    def __call__(self, op: Operation, results: Sequence[Any]) -> None:
        if op not in self.ops:
            return
        magnitude = np.abs(np.asarray(results[0], np.float64)).reshape(-1, np.shape(results[0])[-1])
        peak = np.where(np.isfinite(magnitude), magnitude, 0).max(axis=0, initial=0)
        self.peaks[op] = np.maximum(peak, self.peaks.get(op, 0.0))


def factors(peaks: Doubles, weights: Sequence[Array], strength: float) -> NDArray[np.float32]:
    """
    What each column k of x is divided by, f32 [K]: `max|x_k|^a / max|w_k|^(1 - a)`, mean 1.

    The maximum of w is over all rows of all `weights [N, K]`, the mean is geometric. A column of
    zeros, of x or of w, has 1, and none has more than LARGEST or less than its inverse.
    """
    columns = np.max([np.abs(weight).max(axis=0) for weight in weights], axis=0).astype(np.float64)
    used = (peaks > 0) & (columns > 0)
    logs = strength * np.log(np.where(used, peaks, 1.0))
    logs -= (1 - strength) * np.log(np.where(used, columns, 1.0))
    logs -= logs[used].mean() if used.any() else 0.0
    logs = np.clip(logs, -np.log(LARGEST), np.log(LARGEST))
    return np.where(used, np.exp(logs), 1.0).astype(np.float32)


@dataclass
class Smoother:
    """Rewrites normalisations and products; a weight that several products use is scaled once."""

    store: WeightStore
    weights: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])

    def smooth(self, group: Group, peaks: Doubles, strength: float) -> None:
        """Divide the columns of the group's activations by factors, and multiply its weights."""
        arrays = [self.array(product.weight) for product in group.products]
        divisors = factors(peaks, arrays, strength)
        for product, array in zip(group.products, arrays, strict=True):
            if product.weight not in self.weights:
                constant = constant_op(self.store, array * divisors)
                builder = Builder(after([product.weight]))
                self.weights[product.weight] = builder.insert(constant).result
        for norm in group.norms:
            divided = self.divided(norm, divisors)
            for product in products_of(norm):
                product.operands[0] = divided
                product.operands[1] = self.weights[product.weight]

    def divided(self, norm: LayerNormOp, divisors: NDArray[np.float32]) -> SSAValue:
        """What `norm` yields, over `divisors`; whatever else reads it goes on with `norm`."""
        value = norm.results[0]
        builder = Builder(InsertPoint.after(norm))
        constants = [
            None
            if operand is None
            else builder.insert(constant_op(self.store, self.array(operand) / divisors)).result
            for operand in (norm.gamma, norm.beta)
        ]
        gamma, beta = constants
        assert gamma is not None
        new = LayerNormOp(
            norm.x,
            gamma,
            beta,
            builder.insert(empty_of(value, f32, dims_of(value))).tensor,
            epsilon=norm.epsilon.value.data,
            centre=bool(norm.centre.value.data),
        )
        new.attributes.update(norm.attributes)
        return builder.insert(new).results[0]

    def array(self, value: SSAValue) -> Array:
        """The array of a constant."""
        array = constant_of(value, self.store)
        assert array is not None
        return array


def smooth_activations(
    module: ModuleOp,
    ctx: Context,
    feeds: Iterable[Mapping[str, Array]],
    strength: float = 0.5,
    progress: Callable[[int], None] | None = None,
) -> None:
    """
    Smooth the inputs of products that normalisations yield, in a module on tensors, in f32.

    Xiao et al. 2023, "SmoothQuant: accurate and efficient post-training quantization for large
    language models": column k of x is divided by `factors`, measured on `feeds`, and column k of
    the weights multiplied, so that an outlier column no longer decides the step of all of a row.
    The division is part of the normalisation's gamma and beta; where something else reads its
    result too, a residual for instance, there are two normalisations. Raises SpuError when there
    is no feed, and for a strength that is not from 0 to 1.
    """
    if not 0 <= strength <= 1:
        raise SpuError(
            f"a smoothing strength of {strength:g} is not from 0 to 1",
            remedy="use 0.5, or more to move more into the weights",
        )
    groups = groups_of(module)
    seen = ColumnPeaks(frozenset(norm for group in groups for norm in group.norms))
    done = 0
    for feed in feeds:
        interpret(module, ctx, feed, listener=seen)
        done += 1
        if progress is not None:
            progress(done)
    if not done:
        raise SpuError(
            "there is nothing to smooth activations with",
            remedy="pass at least one feed of every input",
        )
    smoother = Smoother(store_of(ctx))
    for group in groups:
        peaks = np.max([seen.peaks[norm] for norm in group.norms], axis=0)
        smoother.smooth(group, peaks, strength)


@dataclass(frozen=True)
class SmoothActivationsPass(ModulePass):
    """
    Move outlier columns of normalised activations into the weights of the products that read them.

    The columns' sizes are measured on the inputs in an `.npz` file, as for `calibrate`, which runs
    after. `strength` is how much of the difference is moved, from 0 to 1. Where something else
    reads a normalisation's result too, a second one is made for the products.
    """

    name = "smooth-activations"
    preserves: ClassVar[str] = "tolerance(1e-4)"

    feeds: str
    strength: float = 0.5

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        smooth_activations(op, ctx, read_feeds(self.feeds), self.strength)
