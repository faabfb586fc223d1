"""Scale the columns of activations that no normalisation scales, when their rows are quantised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, f32, i32
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from spu_ir.dialects.spu import EpilogueOp, MatmulOp
from spu_ir.dialects.types import Array
from spu_ir.dialects.vpu import BinaryFn, BinaryOp, LayerNormOp
from spu_ir.dialects.weights import WeightStore, store_of
from spu_ir.errors import SpuError
from spu_ir.transforms.calibrate import read_feeds
from spu_ir.transforms.column_factors import balanced_factors
from spu_ir.transforms.error_gains import ErrorGains, gains_of
from spu_ir.transforms.quantise import is_candidate, is_quantisable, is_static_network, label
from spu_ir.transforms.rewriting import (
    after,
    array_of,
    constant_op,
    dims_of,
    empty_of,
    is_constant,
)
from spu_ir.transforms.row_zeros import ROW_ZERO, row_zero
from spu_ir.transforms.smooth_activations import SampledRows

ROWS = 2048
"""Rows of an activation that are looked at; when there are more, every second one is left out."""

WORTH = 0.9
"""What is left of a product's squared error must be less: a factor is a multiplication a number."""


@dataclass
class Sharers:
    """Activations whose products share weights, and so must share their columns' factors."""

    values: list[SSAValue] = field(default_factory=list[SSAValue])
    products: list[MatmulOp] = field(default_factory=list[MatmulOp])


def sharers_of(module: ModuleOp) -> list[Sharers]:
    """
    The activations that products of constant weights read, unless `smooth-activations` sees them.

    Left out are those of which a weight is also used otherwise, and inputs of the network.
    """
    found: list[Sharers] = []
    for op in module.walk():
        if not (isinstance(op, MatmulOp) and is_quantisable(op)):
            continue
        joined = Sharers([op.x], [op])
        for each in [e for e in found if op.x in e.values or shares_weight(e, op)]:
            found.remove(each)
            values = dict.fromkeys(each.values + joined.values)
            joined = Sharers(list(values), each.products + joined.products)
        found.append(joined)
    return [each for each in found if is_free(each)]


def shares_weight(sharers: Sharers, op: MatmulOp) -> bool:
    """Whether `op` has the weight of one of the products."""
    return any(product.weight is op.weight for product in sharers.products)


def is_free(sharers: Sharers) -> bool:
    """Whether columns can be scaled: nothing else uses the weights, and no norm takes factors."""
    users = {use.operation for product in sharers.products for use in product.weight.uses}
    return users <= set(sharers.products) and not any(
        not isinstance(value.owner, Operation)
        or (isinstance(value.owner, LayerNormOp) and is_constant(value.owner.gamma))
        for value in sharers.values
    )


@dataclass
class Scaler:
    """Multiplies activations and divides weights; a weight that several products use once."""

    store: WeightStore

    def scale(
        self,
        sharers: Sharers,
        seen: SampledRows,
        felt: SampledRows,
        gains: ErrorGains | None,
        share: float,
    ) -> bool:
        """Scale the columns of activations if that is worth it; whether it was."""
        zeros = {row_zero(value) for value in sharers.values}
        if len(zeros) > 1:
            return False
        weights = dict.fromkeys(product.weight for product in sharers.products)
        arrays = {weight: self.array(weight) for weight in weights}
        owners = [owner_of(value) for value in sharers.values]
        known = gains and gains.of(
            sharers.values,
            [[op for op in sharers.products if op.weight is weight] for weight in weights],
            felt.of(owners),
        )
        found = balanced_factors(
            seen.of(owners),
            list(arrays.values()),
            zeros.pop(),
            share=1.0 if known is None else share,
            gains=known,
        )
        if found is None or found.left >= WORTH:
            return False
        for weight, array in arrays.items():
            new = (array.astype(np.float64) / found.factors).astype(np.float32)
            constant = Builder(after([weight])).insert(constant_op(self.store, new)).result
            for product in sharers.products:
                if product.weight is weight:
                    product.operands[1] = constant
        for value in sharers.values:
            scaled = self.scaled(value, found.factors, found.zero)
            for product in sharers.products:
                if product.x is value:
                    product.operands[0] = scaled
        return True

    def scaled(self, value: SSAValue, factors: NDArray[np.float32], zero: int) -> SSAValue:
        """`value` times `factors`; its rows are to be quantised around `zero`."""
        dims = dims_of(value)
        builder = Builder(after([value, *dims]))
        factor = builder.insert(constant_op(self.store, factors)).result
        empty = builder.insert(empty_of(value, f32, dims)).tensor
        op = BinaryOp(BinaryFn.MUL, value, factor, empty)
        op.attributes[ROW_ZERO] = IntegerAttr(zero, i32)
        label(owner_of(value), op)
        return builder.insert(op).results[0]

    def array(self, value: SSAValue) -> Array:
        """The array of a constant."""
        array = array_of(value, self.store)
        return array


def owner_of(value: SSAValue) -> Operation:
    """The op that yields `value`."""
    assert isinstance(value.owner, Operation)
    return value.owner


def scale_columns(
    module: ModuleOp,
    ctx: Context,
    feeds: Iterable[Mapping[str, Array]],
    mode: str = "auto",
    progress: Callable[[int], None] | None = None,
    share: float = 1.0,
) -> int:
    """
    Scale columns of what products read, where rounding then errs less; how many groups were.

    `module` is on tensors, in f32, and stays the same network: an activation that no
    normalisation yields, a GELU's or an attention's, is multiplied by constants `[K]`, and columns
    of the weights are divided by them. `quantise` makes the multiplication part of
    `vpu.quantise_rows`. The factors are those of `balanced_factors` on `feeds`, with the gains that
    `gains_of` finds and `share` for the rounding of weights; where it finds none, with a share of
    1: then it is not known that what weights add does not average out over rows. Nothing changes
    where `quantise` in `mode` has static scales. Raises SpuError when there is no feed.
    """
    candidates = [op for op in module.walk() if isinstance(op, EpilogueOp) and is_candidate(op)]
    groups = [] if is_static_network(candidates, mode, calibrated=True) else sharers_of(module)
    owners = frozenset(owner_of(value) for each in groups for value in each.values)
    seen, felt = SampledRows(owners, ROWS), SampledRows(owners, ROWS)
    done = 0

    def one_more() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done)

    gains: ErrorGains | None = None
    if groups:
        products = [product for each in groups for product in each.products]
        gains = gains_of(module, ctx, feeds, products, seen, felt, one_more)
    else:
        for _ in feeds:
            one_more()
    if not done:
        raise SpuError(
            "there is nothing to scale columns with",
            remedy="pass at least one feed of every input",
        )
    scaler = Scaler(store_of(ctx))
    return sum(scaler.scale(group, seen, felt, gains, share) for group in groups)


@dataclass(frozen=True)
class ScaleColumnsPass(ModulePass):
    """
    Scale columns of GELUs and attentions where their rows then lose less when they are quantised.

    How much they lose is measured on the inputs in an `.npz` file, as for `calibrate`, which runs
    after. Columns of the weights are divided by the same factors: the network stays what it is.
    `quantise`, in the same `mode`, makes the factors operands of `vpu.quantise_rows`. Products
    with static scales, and those that read a normalisation, are left alone.
    """

    name = "scale-columns"
    preserves: ClassVar[str] = "tolerance(1e-4)"

    feeds: str
    mode: str = "auto"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        scale_columns(op, ctx, read_feeds(self.feeds), self.mode)
