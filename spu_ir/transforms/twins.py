"""Networks in which f32 products stand beside themselves as INT8 would compute them."""

from __future__ import annotations

from typing import NamedTuple

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.rewriter import InsertPoint, Rewriter

from spu_ir.dialects.spu import Activation, ActivationAttr, EpilogueOp
from spu_ir.transforms.quantise import QuantisePass, is_quantisable
from spu_ir.transforms.rewriting import rebuilt


class Twin(NamedTuple):
    """A product of a module that `quantise` would quantise, and two ops of the module's copy."""

    original: EpilogueOp
    exact: EpilogueOp
    """The product in the copy, f32; with `plain` another one beside it."""
    rounded: EpilogueOp
    """The same of operands that went through the grids of INT8; it stands before `exact`."""


def with_twins(
    module: ModuleOp, ctx: Context, mode: str, *, plain: bool = False
) -> tuple[ModuleOp, list[Twin]]:
    """
    A copy of a module on tensors that computes the same, and each product as INT8 too.

    What a twin yields is read by nothing. Its operands are rounded by the pass `quantise` in
    `mode`, and are those of the f32 network otherwise: no twin reads another. With `plain`, both
    of a pair end with the bias: they have no residual and no activation.
    """
    copy = module.clone()
    originals = [op for op in module.walk() if isinstance(op, EpilogueOp)]
    copies = [op for op in copy.walk() if isinstance(op, EpilogueOp)]
    pairs = [pair for pair in zip(originals, copies, strict=True) if is_quantisable(pair[0])]
    before = {op: tuple(op.operands) for op in copy.walk()}
    QuantisePass(mode).apply(ctx, copy)
    rounded = {op: rebuilt(op) for _, op in pairs if op.operands[1] is not before[op][1]}
    for op, operands in before.items():
        if tuple(op.operands) != operands:
            op.operands = operands
    found: list[Twin] = []
    for original, exact in pairs:
        if exact not in rounded:
            continue
        twin, place = rounded[exact], exact
        if plain:
            rounded[exact].erase()
            exact, twin = stripped(exact), stripped(twin)
            insert_before(place, exact)
            place = exact
        insert_before(place, twin)
        found.append(Twin(original, exact, twin))
    copy.verify()
    return copy, found


def stripped(op: EpilogueOp) -> EpilogueOp:
    """`op` up to its bias."""
    return rebuilt(op, {"activation": ActivationAttr(Activation.NONE)}, residual=None)


def insert_before(place: Operation, op: Operation) -> None:
    """Put `op` into the block of `place`."""
    Rewriter.insert_op(op, InsertPoint.before(place))
