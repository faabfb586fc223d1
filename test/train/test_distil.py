"""Distillation: the losses' values, and that a student comes nearer to its teacher."""

from __future__ import annotations

import copy
import importlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from spu_ir.errors import SpuError
from spu_ir.sparsify.training import (
    BankPruner,
    Distiller,
    cubic,
    feature_distance,
    soft_targets,
)

nets: Any = importlib.import_module("train.nets")


def test_soft_targets_are_the_divergence_of_softened_classes() -> None:
    student, teacher = torch.randn(6, 5), torch.randn(6, 5)
    p, q = (teacher / 3).softmax(-1), (student / 3).softmax(-1)
    expected = 9 * (p * (p / q).log()).sum(-1).mean()
    assert torch.isclose(soft_targets(student, teacher, 3.0), expected, rtol=1e-5)
    assert soft_targets(teacher, teacher).abs() < 1e-6
    # Tokens are samples too.
    tokens = soft_targets(student.reshape(2, 3, 5), teacher.reshape(2, 3, 5), 3.0)
    assert torch.isclose(tokens, expected, rtol=1e-5)


def test_feature_distance_is_relative_to_the_teacher() -> None:
    teacher = torch.randn(4, 8)
    assert torch.isclose(feature_distance(2 * teacher, teacher), torch.tensor(1.0))
    assert torch.isclose(feature_distance(20 * teacher, 10 * teacher), torch.tensor(1.0))
    assert torch.isfinite(feature_distance(teacher, torch.zeros(4, 8)))


def distance_after(share: float, features: dict[str, str] | None) -> tuple[float, float]:
    """How far a pruned student's logits and hidden states are from its teacher's in the end."""
    torch.manual_seed(0)
    teacher = nets.mlp()
    student = copy.deepcopy(teacher)
    pruner = BankPruner(student, 16, cubic(0, 10))
    distiller = Distiller(student, teacher, share=share, features=features)
    optimiser = torch.optim.Adam(student.parameters(), 0.003)
    x = torch.randn(64, 64)
    labels = torch.randint(0, 10, (64,))  # of no use: only the teacher has something to say
    for _ in range(60):
        logits = student(x)
        loss = distiller.loss(functional.cross_entropy(logits, labels), logits, x)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        pruner.step()
    distiller.close()
    with torch.no_grad():
        hidden = feature_distance(student[:2](x), teacher[:2](x)).item()
        return soft_targets(student(x), teacher(x)).item(), hidden


def test_a_student_comes_nearer_to_its_teacher() -> None:
    alone, hidden_alone = distance_after(0.0, None)
    taught, hidden_taught = distance_after(1.0, None)
    _, hidden_shown = distance_after(1.0, {"1": "1"})
    assert taught < alone / 10
    assert hidden_taught < hidden_alone
    assert hidden_shown < 0.8 * hidden_taught


def test_the_teacher_is_left_alone_and_hooks_come_off() -> None:
    teacher, student = nets.mlp().train(), nets.mlp()
    distiller = Distiller(student, teacher, features={"0": "0", "2": "2"})
    x = torch.randn(3, 64)
    logits = student(x)
    distiller.loss(logits.square().mean(), logits, x).backward()
    assert not teacher.training
    assert all(each.grad is None for each in teacher.parameters())
    assert all(each.grad is not None for each in student.parameters())
    distiller.close()
    assert not any(each._forward_hooks for each in (*student.modules(), *teacher.modules()))


@pytest.mark.parametrize("wrap", [lambda x: (x, None), lambda x: SimpleNamespace(logits=x)])
def test_models_may_give_tuples_or_objects(wrap: Any) -> None:
    class Wrapped(nn.Linear):
        def forward(self, input: torch.Tensor) -> Any:
            return wrap(super().forward(input))

    student, teacher = Wrapped(4, 3), Wrapped(4, 3)
    x = torch.randn(2, 4)
    loss = Distiller(student, teacher, share=1.0).loss(torch.tensor(5.0), student(x), x)
    plain = [functional.linear(x, each.weight, each.bias) for each in (student, teacher)]
    assert torch.isclose(loss, soft_targets(*plain))


def test_bad_arguments_are_named() -> None:
    with pytest.raises(SpuError, match="the teacher has no module '9'"):
        Distiller(nets.mlp(), nets.mlp(), features={"0": "9"})
    with pytest.raises(SpuError, match="temperature 0 and share"):
        Distiller(nets.mlp(), nets.mlp(), temperature=0)
    student = nets.mlp()
    distiller = Distiller(student, nets.mlp())
    with pytest.raises(SpuError, match="gives str has no logits"):
        distiller.loss(torch.tensor(0.0), "logits", torch.zeros(1, 64))
