"""Training on scikit-learn's handwritten digits: data, augmentation, and one loop for all runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from spu_ir.sparsify.training import BankPruner, Distiller, cubic

# scikit-learn has no types to check.
datasets: Any = import_module("sklearn.datasets")
model_selection: Any = import_module("sklearn.model_selection")

TEST_PART = 0.4
BATCH = 64
LEARNING_RATE = 2e-3
HEAD = "head"
"""The last layer stays dense: it is 1 % of the weights, and the most sensitive."""


@dataclass(frozen=True)
class Digits:
    """Images f32 `[N, 1, 8, 8]` of 0 to 1, and their classes int64 `[N]`."""

    images: Tensor
    labels: Tensor


def load() -> tuple[Digits, Digits]:
    """1078 images to train with and 719 to test with, every class in both alike; always these."""
    images, labels = datasets.load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    parts = model_selection.train_test_split(
        images, labels, test_size=TEST_PART, random_state=0, stratify=labels, shuffle=True
    )
    train_x, test_x, train_y, test_y = (torch.tensor(part) for part in parts)
    return Digits(train_x, train_y), Digits(test_x, test_y)


def distorted(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images turned and sheared by up to 0.15 rad, scaled and moved by up to 8 %."""
    count = len(images)

    def within(limit: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * limit

    turn, shear = within(0.15), within(0.15)
    across, down = 1 + within(0.08), 1 + within(0.08)
    first = torch.stack([turn.cos() * across, shear - turn.sin(), within(0.08)], dim=1)
    second = torch.stack([turn.sin(), turn.cos() * down, within(0.08)], dim=1)
    matrix = torch.stack([first, second], dim=1)
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def steps_of(data: Digits, epochs: int) -> int:
    """How many steps of the optimiser so many epochs take."""
    return epochs * math.ceil(len(data.images) / BATCH)


def prune_of(model: nn.Module, ratio: int, steps: int) -> BankPruner:
    """A pruner that falls to `ratio` in the first half of `steps`, and leaves the rest to mend."""
    return BankPruner(model, ratio, cubic(0, steps // 2, every=4), keep=[HEAD])


def train(
    model: nn.Module,
    data: Digits,
    epochs: int,
    seed: int,
    pruner: BankPruner | None = None,
    distiller: Distiller | None = None,
) -> None:
    """AdamW with one cycle of the learning rate; the same for dense and pruned models."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, steps_of(data, epochs), pct_start=0.1
    )
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(data.images), generator=generator)
        for chosen in torch.split(order, BATCH):
            images = distorted(data.images[chosen], generator)
            logits = model(images)
            loss = functional.cross_entropy(logits, data.labels[chosen])
            if distiller is not None:
                loss = distiller.loss(loss, logits, images)
            optimiser.zero_grad()
            cast("Any", loss).backward()
            cast("Any", optimiser).step()
            rate.step()
            if pruner is not None:
                pruner.step()
    model.eval()
