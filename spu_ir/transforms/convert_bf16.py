"""Turn f32 products of constant weights into bf16 products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeGuard

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, bf16, f32
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from spu_ir.dialects.spu import EpilogueOp
from spu_ir.dialects.types import bfloat16, element_of
from spu_ir.dialects.vpu import CastOp
from spu_ir.dialects.weights import WeightStore, store_of
from spu_ir.transforms.rewriting import (
    after,
    array_of,
    constant_op,
    dims_of,
    empty_of,
    is_constant,
    is_kept_bf16,
    rebuilt,
    users_of,
)


@dataclass
class Converter:
    """Casts activations and weights; what several products use is cast once."""

    store: WeightStore

    def __post_init__(self) -> None:
        self.activations: dict[SSAValue, CastOp] = {}
        self.weights: dict[SSAValue, SSAValue] = {}

    def convert(self, op: EpilogueOp) -> None:
        """Make `op` a product of bf16 with an f32 epilogue."""
        x, weight = op.x, op.weight
        if x not in self.activations:
            dims = dims_of(x)
            builder = Builder(after([x, *dims]))
            empty = builder.insert(empty_of(x, bf16, dims))
            cast = builder.insert(CastOp(x, empty.tensor))
            if isinstance(x.owner, Operation) and (layer := x.owner.attributes.get("layer")):
                cast.attributes["layer"] = layer
            self.activations[x] = cast
        if weight not in self.weights:
            array = array_of(weight, self.store)
            constant = constant_op(self.store, array.astype(bfloat16))
            self.weights[weight] = Builder(after([weight])).insert(constant).result
        op.operands[0] = self.activations[x].results[0]
        op.operands[1] = self.weights[weight]

    def store_bf16(self) -> None:
        """Let a product whose only users are casts store bf16 itself, which rounds the same."""
        for value, cast in self.activations.items():
            op = value.owner
            if not isinstance(op, EpilogueOp) or users_of(value) != [cast]:
                continue
            dims = dims_of(value)
            builder = Builder(InsertPoint.before(op))
            empty = builder.insert(empty_of(value, bf16, dims))
            new = builder.insert(rebuilt(op, init=empty.tensor))
            cast.results[0].replace_all_uses_with(new.results[0])
            for dead in (cast, op):
                dead.detach()
                dead.erase()


@dataclass(frozen=True)
class ConvertBf16Pass(ModulePass):
    """
    Round activations and weights of f32 products to bf16; sums and epilogues stay f32.

    With `chain`, an activation that only products read is stored as bf16 by the product that
    yields it: one rounding either way. With `marked`, only the products that `choose-precision`
    marked are converted.
    """

    name = "convert-bf16"
    preserves: ClassVar[str] = "lossy(1e-3)"

    chain: bool = True
    marked: bool = False

    def converts(self, op: Operation) -> TypeGuard[EpilogueOp]:
        """Whether `op` becomes a product of bf16."""
        return (
            isinstance(op, EpilogueOp)
            and element_of(op.x) == f32
            and is_constant(op.weight)
            and (is_kept_bf16(op) or not self.marked)
        )

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        converter = Converter(store_of(ctx))
        for each in op.walk():
            if self.converts(each):
                converter.convert(each)
        if self.chain:
            converter.store_bf16()

    def reference(self, ctx: Context, module: ModuleOp) -> ModuleOp:
        """`module` with the operands of its products rounded, all arithmetic in f32."""
        from spu_ir.transforms.references import f32_products, round_products_bf16

        products = [op for op in f32_products(module) if self.converts(op)]
        round_products_bf16(products, store_of(ctx))
        return module
