"""Distillation: a pruned model learns from the dense one that it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from spu_ir.errors import SpuError


def soft_targets(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """
    How far a student's logits `[..., classes]` are from a teacher's: a scalar, 0 when equal.

    The mean over samples of KL(teacher || student), both softened by `temperature`, times its
    square, so that the gradient's size does not depend on it (Hinton et al., "Distilling the
    knowledge in a neural network", 2015).
    """
    classes = student.shape[-1]
    return temperature**2 * functional.kl_div(
        functional.log_softmax(student.reshape(-1, classes) / temperature, dim=-1),
        functional.log_softmax(teacher.detach().reshape(-1, classes) / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """
    The squared error of hidden states of equal shape, as a part of the teacher's mean square.

    The loss of SquareHead (Kurtic et al., "Sparse fine-tuning for inference acceleration of large
    language models", 2023).
    """
    teacher = teacher.detach()
    scale = teacher.square().mean().clamp_min(torch.finfo(teacher.dtype).tiny)
    return functional.mse_loss(student, teacher) / scale


class Distiller:
    """
    Adds to a task's loss what a student has to learn from its teacher.

    The teacher is put in evaluation mode and its parameters need no gradient any more: give a
    deep copy if it goes on learning. The loss is `(1 - share) * task + share * soft_targets`, and
    with `features`, a mapping from names of the student's modules to names of the teacher's, plus
    `feature_share` times the mean `feature_distance` of their outputs. Models may give tensors,
    objects with `logits`, or tuples of which the logits come first.

    Raises SpuError for a module that is not there.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        temperature: float = 2.0,
        share: float = 0.5,
        features: Mapping[str, str] | None = None,
        feature_share: float = 1.0,
    ):
        if temperature <= 0 or not 0 <= share <= 1:
            raise SpuError(
                f"temperature {temperature} and share {share} are out of range",
                remedy="use a temperature above 0 and a share of 0 to 1",
            )
        self.teacher = teacher.eval().requires_grad_(False)
        self.temperature = temperature
        self.share = share
        self.feature_share = feature_share
        self._seen: list[dict[str, Tensor]] = [{}, {}]
        self._pairs = dict(features or {})
        self._hooks = [
            _module(model, name, whose).register_forward_hook(_keep(self._seen[which], name))
            for which, (model, names, whose) in enumerate(
                (
                    (student, self._pairs.keys(), "student"),
                    (teacher, self._pairs.values(), "teacher"),
                )
            )
            for name in names
        ]

    def loss(self, task: Tensor, output: Any, *inputs: Any, **named: Any) -> Tensor:
        """
        The loss to minimise, a scalar.

        `task` is the task's own loss of `output`, which the student has just given for
        `inputs` and `named`; the teacher is run on the same here.
        """
        with torch.no_grad():
            target = self.teacher(*inputs, **named)
        soft = soft_targets(logits_of(output), logits_of(target), self.temperature)
        total = (1 - self.share) * task + self.share * soft
        if self._pairs:
            student, teacher = self._seen
            distances = [feature_distance(student[a], teacher[b]) for a, b in self._pairs.items()]
            total = total + self.feature_share * torch.stack(distances).mean()
        return total

    def close(self) -> None:
        """Take the hooks off again; nothing is left on either model."""
        for hook in self._hooks:
            hook.remove()
        for seen in self._seen:
            seen.clear()


def logits_of(output: Any) -> Tensor:
    """The logits of what a model gives: a tensor, an object with `logits`, or first of a tuple."""
    if isinstance(output, Tensor):
        return output
    kind = type(output).__name__
    logits = getattr(output, "logits", None)
    if logits is None and isinstance(output, Sequence) and output:
        logits = cast("Sequence[Any]", output)[0]
    if not isinstance(logits, Tensor):
        raise SpuError(
            f"a model that gives {kind} has no logits to learn from",
            remedy="give tensors, objects with `logits`, or tuples whose first is a tensor",
        )
    return logits


def _module(model: nn.Module, name: str, whose: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise SpuError(
            f"the {whose} has no module {name!r}",
            remedy="names are those of model.named_modules()",
        ) from None


def _keep(seen: dict[str, Tensor], name: str) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        if not torch.compiler.is_exporting():
            seen[name] = logits_of(output)

    return hook
