"""Move what makes the columns of a normalised activation differ in size into the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, f32
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from spu_ir.dialects.spu import MatmulOp
from spu_ir.dialects.types import Array
from spu_ir.dialects.vpu import LayerNormOp
from spu_ir.dialects.weights import WeightStore, store_of
from spu_ir.errors import SpuError
from spu_ir.transforms.calibrate import read_feeds
from spu_ir.transforms.column_balance import Doubles, Gains, balanced
from spu_ir.transforms.error_gains import gains_of
from spu_ir.transforms.quantise import is_quantisable
from spu_ir.transforms.rewriting import (
    after,
    array_of,
    constant_op,
    dims_of,
    empty_of,
    is_constant,
    rebuilt,
)

ROWS = 4096
"""Rows of a normalisation that are looked at; when there are more, every second one is left out."""


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
class SampledRows:
    """Some rows of some ops' results `[..., K]`, evenly out of all: at most `most` an op."""

    ops: frozenset[Operation]
    most: int = ROWS
    rows: dict[Operation, list[Array]] = field(default_factory=dict[Operation, "list[Array]"])
    strides: dict[Operation, int] = field(default_factory=dict[Operation, int])
    seen: dict[Operation, int] = field(default_factory=dict[Operation, int])

    def __call__(self, op: Operation, results: Sequence[Any]) -> None:
        if op not in self.ops:
            return
        rows = np.asarray(results[0], np.float32).reshape(-1, np.shape(results[0])[-1])
        stride, seen = self.strides.get(op, 1), self.seen.get(op, 0)
        self.seen[op] = seen + len(rows)
        rows = rows[-seen % stride :: stride]
        kept = self.rows.setdefault(op, [])
        kept.append(rows[np.isfinite(rows).all(axis=1)].copy())
        while sum(map(len, kept)) > self.most:
            self.strides[op] = stride = 2 * stride
            kept[:] = [np.concatenate(kept)[::2].copy()]

    def of(self, ops: Sequence[Operation]) -> Array:
        """f32 `[R, K]` of some ops together."""
        return np.concatenate([part for op in ops for part in self.rows[op]])


@dataclass
class Smoother:
    """Rewrites normalisations and products; a weight that several products use is scaled once."""

    store: WeightStore
    weights: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])

    def smooth(
        self, group: Group, rows: Array, strength: float, share: float, gains: Gains | None
    ) -> None:
        """Shift and divide the columns of the group's activations, and multiply its weights."""
        arrays = [self.array(product.weight) for product in group.products]
        shifted = all(p.bias is None or is_constant(p.bias) for p in group.products)
        divisors, shifts = balanced(
            rows, arrays, shifted=shifted, share=share, strength=strength, gains=gains
        )
        for product, array in zip(group.products, arrays, strict=True):
            if product.weight not in self.weights:
                constant = constant_op(self.store, array * divisors)
                builder = Builder(after([product.weight]))
                self.weights[product.weight] = builder.insert(constant).result
        for norm in group.norms:
            divided = self.divided(norm, divisors, shifts)
            for product in products_of(norm):
                old = self.array(product.weight)
                product.operands[0] = divided
                product.operands[1] = self.weights[product.weight]
                if shifts.any():
                    self.add_to_bias(product, old.astype(np.float64) @ shifts.astype(np.float64))

    def add_to_bias(self, product: MatmulOp, addend: Doubles) -> None:
        """Give a product, whose bias is a constant or missing, another one."""
        bias = addend if product.bias is None else self.array(product.bias) + addend
        builder = Builder(InsertPoint.before(product))
        constant = builder.insert(constant_op(self.store, bias.astype(np.float32)))
        Rewriter.replace_op(product, rebuilt(product, bias=constant.result))

    def divided(
        self, norm: LayerNormOp, divisors: NDArray[np.float32], shifts: NDArray[np.float32]
    ) -> SSAValue:
        """What `norm` yields, shifted, over `divisors`; other readers go on with `norm`."""
        value = norm.results[0]
        builder = Builder(InsertPoint.after(norm))
        gamma = self.array(norm.gamma) / divisors
        beta = None if norm.beta is None else self.array(norm.beta) / divisors
        if shifts.any():
            beta = (np.float32(0) if beta is None else beta) - shifts / divisors
        new = LayerNormOp(
            norm.x,
            builder.insert(constant_op(self.store, gamma)).result,
            None if beta is None else builder.insert(constant_op(self.store, beta)).result,
            builder.insert(empty_of(value, f32, dims_of(value))).tensor,
            epsilon=norm.epsilon.value.data,
            centre=bool(norm.centre.value.data),
        )
        new.attributes.update(norm.attributes)
        return builder.insert(new).results[0]

    def array(self, value: SSAValue) -> Array:
        """The array of a constant."""
        return array_of(value, self.store)


def smooth_activations(
    module: ModuleOp,
    ctx: Context,
    feeds: Iterable[Mapping[str, Array]],
    strength: float = 0.5,
    progress: Callable[[int], None] | None = None,
    share: float = 1.0,
) -> None:
    """
    Smooth the inputs of products that normalisations yield, in a module on tensors, in f32.

    Column k of x is shifted and divided as `balanced` finds on `feeds`, and column k of the
    weights multiplied, so that an outlier column no longer decides the step of all of a row. It
    begins with Xiao et al. 2023, "SmoothQuant: accurate and efficient post-training quantization
    for large language models"; the shift, whose product is part of the biases, is that of Wei et
    al. 2023, "Outlier suppression+". Both are part of the normalisation's gamma and beta; where
    something else reads its result too, a residual for instance, there are two normalisations.
    What an error costs is what `gains_of` finds, or its part of the product where that is None.
    The less careful weights will be rounded, the more their rounding counts: `share`. Raises
    SpuError when there is no feed, and for a strength that is not from 0 to 1.
    """
    if not 0 <= strength <= 1:
        raise SpuError(
            f"a smoothing strength of {strength:g} is not from 0 to 1",
            remedy="use 0.5, or more to move more into the weights",
        )
    groups = groups_of(module)
    norms = frozenset(norm for group in groups for norm in group.norms)
    seen, felt = SampledRows(norms), SampledRows(norms)
    done = 0

    def one_more() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done)

    products = [product for group in groups for product in group.products]
    gains = gains_of(module, ctx, feeds, products, seen, felt, one_more)
    if not done:
        raise SpuError(
            "there is nothing to smooth activations with",
            remedy="pass at least one feed of every input",
        )
    smoother = Smoother(store_of(ctx))
    for group in groups:
        found = gains and gains.of(
            [norm.results[0] for norm in group.norms],
            [[product] for product in group.products],
            felt.of(group.norms),
        )
        smoother.smooth(group, seen.of(group.norms), strength, share, found)


@dataclass(frozen=True)
class SmoothActivationsPass(ModulePass):
    """
    Move outlier columns of normalised activations into the weights of the products that read them.

    The columns' sizes are measured on the inputs in an `.npz` file, as for `calibrate`, which runs
    after. `strength` is how much of the difference is moved, from 0 to 1; with at least 256 rows
    that is where a search for the best factors and shifts of columns begins. Where something
    else reads a normalisation's result too, a second one is made for the products.
    """

    name = "smooth-activations"
    preserves: ClassVar[str] = "tolerance(1e-4)"

    feeds: str
    strength: float = 0.5

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        smooth_activations(op, ctx, read_feeds(self.feeds), self.strength)
