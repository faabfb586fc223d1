"""Masks over the weights of PyTorch modules, cut in the banks of the sparse format."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from spu_ir.errors import SpuError

from .banks import BankedRows


class BankMask(nn.Module):
    """
    A parametrisation: a module's weight is its parameter where `mask` is True and 0 elsewhere.

    `mask` is a bool buffer of the weight's shape, so it is part of the model's state dict. What
    the parameter holds under a zero is never seen by the model. Its gradient there is 0; while
    `regrow` is set it is that of the weight instead (straight through), plus `decay` times the
    parameter, so that a weight which is not used shrinks, or grows until it is used again: the
    SR-STE of Zhou et al., "Learning N:M fine-grained structured sparse neural networks from
    scratch" (2021).
    """

    mask: Tensor

    def __init__(
        self, rows: BankedRows, bank: int, *, regrow: bool, decay: float, device: torch.device
    ):
        super().__init__()
        self.rows = rows
        self.bank = bank
        self.regrow = regrow
        self.decay = decay
        everything = torch.ones(rows.shape, dtype=torch.bool, device=device)
        self.register_buffer("mask", everything)

    def forward(self, weight: Tensor) -> Tensor:
        """The masked weight, of the shape and dtype of `weight`."""
        if self.regrow and weight.requires_grad:
            through = cast("Any", _StraightThrough).apply(weight, self.mask, self.decay)
            return cast("Tensor", through)
        return masked(weight, self.mask)

    def select(self, score: Tensor, slots: int) -> None:
        """
        Keep the `slots` largest of `score`, of the weight's shape, in every bank of every row.

        Of equal ones the first stay. What is masked already comes back only while `regrow` is set.
        """
        score = score.detach()
        if not self.regrow:
            score = torch.where(self.mask, score, -torch.inf)
        chosen = select_per_bank(score, self.rows, self.bank, slots)
        self.mask.copy_(chosen if self.regrow else chosen & self.mask)


@torch.no_grad()
def take_off(model: nn.Module) -> None:
    """
    Make the masked weights of a model plain parameters, with the zeros in them.

    The parameters stay the same objects. `parametrize.remove_parametrizations` changes a class
    that deep copies share, and so would break them.
    """
    for module in model.modules():
        masks = _masks_of(module)
        if not masks:
            continue
        values: dict[str, Tensor] = {name: getattr(module, name) for name in masks}
        parameters = {name: parametrisations(module)[name].original for name in masks}
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
        for name, parameter in parameters.items():
            torch.Tensor.copy_(parameter, values[name])
            module.register_parameter(name, parameter)


def parametrisations(module: nn.Module) -> dict[str, Any]:
    """The lists of parametrisations of a module, by the names of its parameters."""
    if not parametrize.is_parametrized(module):
        return {}
    return dict(cast("Any", module.parametrizations).items())


def _masks_of(module: nn.Module) -> dict[str, BankMask]:
    """The masks of a module's parameters. Raises SpuError when there are other parametrisations."""
    chains = {name: list(each) for name, each in parametrisations(module).items()}
    masks = {name: each[0] for name, each in chains.items() if isinstance(each[0], BankMask)}
    if masks and any(len(each) > 1 or name not in masks for name, each in chains.items()):
        raise SpuError(
            f"a masked {type(module).__bases__[0].__name__} got other parametrisations",
            remedy="remove them before the model is finalised or exported",
        )
    return masks


def masked(weight: Tensor, mask: Tensor) -> Tensor:
    """`weight` where `mask` is True, and 0 (never -0 or NaN) elsewhere."""
    return torch.where(mask, weight, torch.zeros((), dtype=weight.dtype, device=weight.device))


class _StraightThrough(torch.autograd.Function):
    """`masked`, whose gradient reaches all weights."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, *inputs: object) -> Tensor:
        weight, mask, decay = inputs
        assert isinstance(weight, Tensor)
        assert isinstance(mask, Tensor)
        assert isinstance(decay, float)
        ctx.save_for_backward(weight, mask)
        cast("Any", ctx).decay = decay
        return masked(weight, mask)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor
    ) -> tuple[Tensor, None, None]:
        saved = cast("Any", ctx)
        weight, mask = saved.saved_tensors
        return gradients[0] + saved.decay * masked(weight, ~mask), None, None


def select_per_bank(score: Tensor, rows: BankedRows, bank: int, slots: int) -> Tensor:
    """
    Where the `slots` largest of `score` are in every bank of every row; bool of its shape.

    `banks.bank_mask` for tensors: of equal ones the first are chosen.
    """
    flat = rows_of(score, rows)
    runs = flat.reshape(len(flat), -1, rows.run)
    short = -rows.run % bank
    padded = functional.pad(runs, (0, short), value=-torch.inf)
    banks = padded.reshape(-1, bank)
    order = torch.sort(banks, dim=-1, descending=True, stable=True).indices[:, :slots]
    chosen = torch.zeros_like(banks, dtype=torch.bool).scatter_(1, order, True)
    return weight_of(chosen.reshape(padded.shape)[..., : rows.run].reshape(flat.shape), rows)


def count_per_bank(weight: Tensor, rows: BankedRows, bank: int) -> Tensor:
    """The numbers other than 0 in every bank of every row: int64 `[N, banks]`."""
    flat = rows_of(weight != 0, rows)
    runs = flat.reshape(len(flat), -1, rows.run)
    padded = functional.pad(runs, (0, -rows.run % bank), value=False)
    return padded.reshape(len(flat), -1, bank).sum(-1)


def rows_of(weight: Tensor, rows: BankedRows) -> Tensor:
    """`BankedRows.rows` for tensors: a weight as `[N, K]`."""
    if rows.kind == "[n, k]":
        return weight
    if rows.kind == "conv transpose":
        inner, outer = rows.shape[0] // rows.groups, rows.shape[1]
        spatial = rows.shape[2:]
        split = weight.reshape(rows.groups, inner, outer, *spatial).transpose(1, 2)
        turned = split.flip(*range(3, split.ndim))
        weight = turned.reshape(rows.groups * outer, inner, *spatial)
    return weight.movedim(1, -1).reshape(-1, rows.depth)


def weight_of(flat: Tensor, rows: BankedRows) -> Tensor:
    """`BankedRows.weight` for tensors: the inverse of `rows_of`."""
    if rows.kind == "[n, k]":
        return flat
    spatial = rows.shape[2:]
    filters = flat.reshape(len(flat), *spatial, -1).movedim(-1, 1)
    if rows.kind == "conv transpose":
        inner, outer = rows.shape[0] // rows.groups, rows.shape[1]
        split = filters.reshape(rows.groups, outer, inner, *spatial).transpose(1, 2)
        filters = split.flip(*range(3, split.ndim)).reshape(rows.shape)
    return filters.contiguous()
