"""Activations of which a few stay in every bank of channels: the other half of dual sparsity."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn import functional

from spu_ir.errors import SpuError

from .banks import BANK
from .training_layers import modules_of

ACTIVATIONS = (
    nn.ELU,
    nn.GELU,
    nn.Hardswish,
    nn.LeakyReLU,
    nn.Mish,
    nn.PReLU,
    nn.ReLU,
    nn.ReLU6,
    nn.SiLU,
)


class BankTopK(nn.Module):
    """
    Keeps the `k` largest magnitudes of every `bank` channels, and sets the others to 0.

    The channels are axis `axis`, by default 1 of images `[N, C, H, W]` and the last of anything
    else; the last bank may be short. Of magnitudes that equal the k-th
    all stay. The gradient passes straight through, as if everything had stayed, so a channel that
    lost can win again. This is the sparse activation of US 11,429,864, which names training with
    sparse weights and sparse activations together.

    An export holds it as comparisons and maxima that the compiler knows (`k` rounds of them, so
    `k` should be small); it computes the same numbers, and does not run faster for the zeros.
    """

    def __init__(self, k: int, axis: int | None = None, bank: int = BANK):
        super().__init__()
        if not 1 <= k <= bank:
            raise SpuError(
                f"of a bank of {bank} channels {k} cannot stay", remedy=f"use 1 to {bank}"
            )
        self.k = k
        self.axis = axis
        self.bank = bank

    def forward(self, x: Tensor) -> Tensor:
        """A float tensor of any rank, and its like with zeros."""
        axis = (1 if x.ndim == 4 else -1) if self.axis is None else self.axis
        axis %= x.ndim
        channels = x.shape[axis]
        short = -channels % self.bank if channels > self.bank else 0
        bank = min(self.bank, channels)
        if self.k >= bank:
            return x
        padded = functional.pad(x, (0, 0) * (x.ndim - 1 - axis) + (0, short)) if short else x
        banks = padded.reshape(*x.shape[:axis], -1, bank, *x.shape[axis + 1 :])
        size = banks.abs()
        if torch.compiler.is_exporting():
            least = _kth_by_maxima(size, self.k, axis + 1)
            kept = torch.where(size >= least, banks, 0.0)
        else:
            largest = torch.topk(size, self.k, dim=axis + 1).values
            least = largest.narrow(axis + 1, self.k - 1, 1)
            sparse = torch.where(size >= least, banks, 0.0)
            kept = banks + (sparse - banks).detach()
        return kept.flatten(axis, axis + 1).narrow(axis, 0, channels)

    def extra_repr(self) -> str:
        return f"k={self.k}, axis={self.axis}, bank={self.bank}"


def _kth_by_maxima(size: Tensor, k: int, axis: int) -> Tensor:
    """The k-th largest along `axis`, which stays with one element, of numbers from 0."""
    least = size.amax(axis, keepdim=True)
    for _ in range(k - 1):
        smaller = torch.where(size < least, size, -1.0).amax(axis, keepdim=True)
        enough = (size >= least).to(size.dtype).sum(axis, keepdim=True) >= k
        least = torch.where(enough, least, smaller)
    return least


class SparseActivation(nn.Sequential):
    """A module of the model, and the `BankTopK` that was put after it."""


def insert_top_k(model: nn.Module, k: int | Mapping[str, int], axis: int | None) -> None:
    """
    Put a `BankTopK` after every activation module, or with a mapping after every module whose
    name matches a glob (the first counts).

    A module at several places of the model gets one. Raises SpuError when there is no place.
    """
    chosen = {
        name: _k_of(name, k)
        for name, module in modules_of(model)
        if name and (isinstance(k, Mapping) or isinstance(module, ACTIVATIONS))
    }
    unmatched = (
        [g for g in k if not any(fnmatchcase(n, g) for n in chosen)]
        if isinstance(k, Mapping)
        else []
    )
    if unmatched or not chosen:
        raise SpuError(
            f"{unmatched[0]!r} is the name of no module"
            if unmatched
            else "the model has no activation modules",
            remedy="name modules, or put a BankTopK where functions are used as activations",
        )
    made: dict[int, SparseActivation] = {}
    for path, parent in modules_of(model, again=True):
        for name, module in list(parent.named_children()):
            keep = chosen.get(f"{path}.{name}" if path else name)
            if id(module) in made or keep is not None:
                if id(module) not in made:
                    made[id(module)] = SparseActivation(module, BankTopK(keep or 0, axis))
                setattr(parent, name, made[id(module)])


def remove_top_k(model: nn.Module) -> None:
    """Undo `insert_top_k`."""
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, SparseActivation):
                setattr(parent, name, module[0])


def _k_of(name: str, k: int | Mapping[str, int]) -> int | None:
    if isinstance(k, int):
        return k
    return next((one for glob, one in k.items() if fnmatchcase(name, glob)), None)
