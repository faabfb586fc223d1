"""Gradual pruning of a PyTorch model in the banks of the sparse format."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from spu_ir.errors import SpuError

from .banks import BANK
from .magnitude import check_bank
from .report import LayerReport
from .training_export import export_onnx
from .training_layers import TrainedLayer, layers_of, ratios_of, strangers
from .training_masks import BankMask, count_per_bank, take_off
from .training_schedule import Schedule, at_once
from .training_top_k import insert_top_k, remove_top_k


@dataclass(frozen=True)
class _Pruned:
    """A layer with its mask, and what it comes to."""

    layer: TrainedLayer
    mask: BankMask
    ratio: int


class BankPruner:
    """
    Prunes the weights of a model's products and convolutions while it is trained.

    Weights are those of nn.Linear, nn.MultiheadAttention, and the convolutions of one and two
    axes, transposed or not. They are read as the compiler reads them: a row is one output
    channel, its reduction (of a convolution: kernel row, kernel column, channel) is cut in banks
    of `bank` numbers, and of each bank the largest magnitudes stay, fewer and fewer as `schedule`
    says, until one in `ratio` is left. What the compiler leaves dense stays dense here:
    reductions shorter than 64, first and depthwise convolutions. So does a weight that another
    kind of module uses too, as a tied embedding.

    `ratio` is 1, 2, 4, 8, 16 or 32, or a mapping of globs of module names to ratios, in which the
    first match counts and other layers stay dense; `keep` has globs of layers that stay dense.
    `bank` is 64, or 32 for models that are to run in bfloat16. A weight that was pruned never
    comes back, unless `regrow` is set: then its gradient goes on (straight through, with
    `decay`, see `BankMask`) until the schedule's end. `top_k` keeps so many activations of every
    64 channels after every activation module (nn.ReLU, nn.GELU, ...), or by a mapping of globs of
    module names after any; `top_k_axis` is their channels' axis, by default 1 of images
    `[N, C, H, W]` and the last of anything else.

    The model is changed in place: the weights become parametrisations (`torch.nn.utils.
    parametrize`), with the masks as buffers, so optimisers made before or after, deep copies and
    state dicts work as always. Call `step` after every step of the optimiser, and `finalise` at
    the end, which leaves the plain modules of before.

    Raises SpuError for a ratio that the format does not have, a glob that matches nothing, and a
    weight with a parametrisation of its own.
    """

    def __init__(
        self,
        model: nn.Module,
        ratio: int | Mapping[str, int] = 16,
        schedule: Schedule | None = None,
        *,
        keep: Sequence[str] = (),
        bank: int = BANK,
        regrow: bool = False,
        decay: float = 2e-4,
        top_k: int | Mapping[str, int] | None = None,
        top_k_axis: int | None = None,
    ):
        check_bank(bank)
        self.model = model
        self.schedule = at_once() if schedule is None else schedule
        self.bank = bank
        self.steps = 0
        """Steps of the optimiser that were taken."""
        self.finished = False
        self._regrow = regrow
        self._changed: float | None = None
        layers = layers_of(model)
        self._reports = [
            (layer, one, why_not(layer, one, strangers(model, layers)))
            for layer, one in zip(layers, ratios_of(layers, ratio, keep), strict=True)
        ]
        self._pruned: list[_Pruned] = []
        done: dict[int, BankMask] = {}
        for layer, one, reason in self._reports:
            if reason is not None:
                continue
            if parametrize.is_parametrized(layer.module):
                raise SpuError(
                    f"{layer.name!r} has a parametrisation already",
                    remedy="finalise the other pruner or remove the weight norm, or keep it dense",
                )
            weight = layer.weight
            mask = done.setdefault(
                id(weight),
                BankMask(layer.rows, bank, regrow=regrow, decay=decay, device=weight.device),
            )
            self._pruned.append(_Pruned(layer, mask, one))
        for each in self._pruned:
            parametrize.register_parametrization(
                each.layer.module, each.layer.parameter, each.mask, unsafe=True
            )
        if top_k is not None:
            insert_top_k(model, top_k, top_k_axis)
        self._select()

    @torch.no_grad()
    def step(self) -> None:
        """Count a step of the optimiser, after it, and prune as far as the schedule says."""
        if self.finished:
            raise SpuError("the pruner is finished", remedy="make a new one to prune further")
        self.steps += 1
        self._select()

    def slots(self, ratio: int) -> int:
        """How many weights a full bank keeps now, in layers that come to `ratio`."""
        return self.schedule.slots(self.steps, self.bank // ratio, self.bank)

    @property
    def done(self) -> bool:
        """Whether every bank has come to its ratio."""
        return self.steps >= self.schedule.end

    def masks(self) -> dict[str, Tensor]:
        """The masks now, bool of the weights' shapes, by the names of the layers."""
        return {each.layer.name: each.mask.mask for each in self._pruned}

    @torch.no_grad()
    def _select(self) -> None:
        """Choose what stays, when the schedule has moved; with regrowth also when `every` has."""
        part = self.schedule.part(self.steps)
        again = self._regrow and 0 < part < 1 and self.steps % self.schedule.every == 0
        if part == self._changed and not again:
            return
        self._changed = part
        for each in self._pruned:
            weight = each.layer.weight
            each.mask.select(weight.abs(), self.slots(each.ratio))
            if part == 1:
                each.mask.regrow = False
            if not each.mask.regrow:
                weight.mul_(each.mask.mask)

    @torch.no_grad()
    def finalise(self) -> nn.Module:
        """
        Write the zeros into the weights and take the masks off; the model is given back.

        Activations that `top_k` inserted stay. Raises SpuError before the schedule's end.
        """
        if not self.finished:
            self._check_done("finalised")
            take_off(self.model)
            self.finished = True
        return self.model

    def export(
        self,
        path: str | PathLike[str],
        sample: Tensor | tuple[Any, ...] | Mapping[str, Any],
        *,
        dynamic: Mapping[str, Mapping[int, str]] | None = None,
        output_names: Sequence[str] | None = None,
        top_k: Literal["keep", "drop"] = "keep",
    ) -> None:
        """
        Write the model, as it is in evaluation, as an ONNX file that the compiler sees as banked.

        `sample` holds the inputs to trace with: a tensor, a tuple in the order of `forward`'s
        arguments, or a mapping of their names. `dynamic` names extents that stay run-time values,
        `{"x": {0: "batch"}}`, by the names of `forward`'s arguments; the sample's such extents
        must be 2 or more. `top_k="drop"` leaves out what `top_k` inserted. The model in training
        is not touched, whether finalised or not.

        Raises SpuError before the schedule's end.
        """
        self._check_done("exported")
        model = copy.deepcopy(self.model)
        take_off(model)
        if top_k == "drop":
            remove_top_k(model)
        export_onnx(model, path, sample, dynamic, output_names)

    def report(self) -> list[LayerReport]:
        """
        Every layer as it is now: its ratio in the end, its density now, why it stays dense.

        `sparsify.report_table` prints them.
        """
        rows: list[LayerReport] = []
        for layer, ratio, reason in self._reports:
            weight: Tensor = getattr(layer.module, layer.parameter).detach()
            density = float((weight != 0).float().mean())
            shape = tuple(weight.shape)
            kept = 1 if reason is not None else ratio
            rows.append(LayerReport(layer.name, layer.op, shape, kept, density, reason))
        return rows

    def largest_banks(self) -> dict[str, int]:
        """The most numbers other than 0 in any bank of every pruned layer, by their names."""
        return {
            each.layer.name: int(
                count_per_bank(
                    getattr(each.layer.module, each.layer.parameter), each.layer.rows, self.bank
                ).max()
            )
            for each in self._pruned
        }

    def state_dict(self) -> dict[str, Any]:
        """How far the pruning is; the masks are in the model's own state dict."""
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """
        Go on where another pruner was, of a model whose state dict was loaded into this one.

        A finalised model needs no pruner: its state dict is that of the plain model.
        """
        self.steps = int(state["steps"])
        self._changed = self.schedule.part(self.steps)
        for each in self._pruned:
            each.mask.regrow = self._regrow and not self.done

    def _check_done(self, what: str) -> None:
        if not self.done:
            raise SpuError(
                f"the model cannot be {what} after {self.steps} of {self.schedule.end} steps, "
                f"while its banks are too full",
                remedy="call step() after every step of the optimiser, or shorten the schedule",
            )


def why_not(layer: TrainedLayer, ratio: int, others: Mapping[int, str]) -> str | None:
    """Why a layer stays dense, or None."""
    if layer.rows.why_dense is not None:
        return layer.rows.why_dense
    if ratio == 1:
        return "it was asked to stay dense"
    if id(layer.weight) in others:
        return f"its weight is that of {others[id(layer.weight)]} too"
    return None
