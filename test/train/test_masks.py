"""Masks: which weights stay, and that nothing that happens in training brings others back."""

from __future__ import annotations

import copy
import importlib
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from spu_ir.errors import SpuError
from spu_ir.sparsify.banks import BankedRows, bank_mask, conv_rows, linear_rows
from spu_ir.sparsify.training import BankPruner, at_once, cubic
from spu_ir.sparsify.training_masks import count_per_bank, rows_of, select_per_bank, weight_of

nets: Any = importlib.import_module("train.nets")

ROWS = {
    "linear": linear_rows((24, 200)),
    "conv": conv_rows((24, 64, 3, 3)),
    "conv of 80 channels": conv_rows((24, 80, 3, 3)),
    "1d": conv_rows((24, 48, 5)),
    "dilated": conv_rows((24, 80, 3, 3), dilation=2),
    "grouped": conv_rows((24, 32, 3, 3), groups=2),
    "transposed": conv_rows((64, 24, 2, 2), transpose=True),
    "transposed 1d, grouped": conv_rows((64, 12, 3), groups=2, transpose=True),
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_banks_are_those_of_the_compiler(rows: BankedRows) -> None:
    weight = np.random.default_rng(0).normal(size=rows.shape).astype(np.float32)
    tensor = torch.tensor(weight)
    assert np.array_equal(rows_of(tensor, rows).numpy(), rows.rows(weight))
    assert torch.equal(weight_of(rows_of(tensor, rows), rows), tensor)
    for ratio in (4, 16, 32):
        chosen = select_per_bank(tensor.abs(), rows, 64, 64 // ratio)
        assert np.array_equal(chosen.numpy(), bank_mask(weight, rows, ratio))
        assert count_per_bank(tensor * chosen, rows, 64).max() == 64 // ratio


def test_of_equal_magnitudes_the_first_stay() -> None:
    rows = linear_rows((1, 64))
    chosen = select_per_bank(torch.ones(1, 64), rows, 64, 4)
    assert chosen[0].nonzero().flatten().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("regrow", [False, True])
@pytest.mark.parametrize("ratio", [16, 32])
def test_every_bank_is_balanced_at_every_step(ratio: int, regrow: bool) -> None:
    model = nets.SmallCNN()
    # Momentum and weight decay, made before the pruner: both move weights without a gradient.
    optimiser = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=0.01)
    pruner = BankPruner(model, ratio, cubic(2, 12), keep=["head"], regrow=regrow)
    images, labels = torch.randn(16, 3, 8, 8), torch.randint(0, 10, (16,))
    for step in range(1, 16):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
        before = pruner.slots(ratio)
        assert all(most <= before for most in pruner.largest_banks().values()), "before step()"
        pruner.step()
        slots = pruner.slots(ratio)
        assert slots == pruner.schedule.slots(step, 64 // ratio, 64)
        assert pruner.largest_banks() == {"conv": slots, "hidden": slots}
    assert pruner.done
    densities = {row.layer: row.density for row in pruner.report()}
    assert densities["hidden"] == 1 / ratio
    reasons = {row.layer: row.reason for row in pruner.report()}
    assert reasons == {
        "first": "a convolution of 3 input channels is not pruned",
        "depthwise": "a depthwise convolution is not pruned",
        "conv": None,
        "hidden": None,
        "head": "it was asked to stay dense",
    }


def train_one(regrow: bool) -> list[set[int]]:
    """What stays after every step of a product whose gradients are large and random."""
    model = nn.Linear(64, 1, bias=False)
    pruner = BankPruner(model, 16, cubic(0, 8), regrow=regrow)
    optimiser = torch.optim.SGD(model.parameters(), 1.0)
    kept: list[set[int]] = []
    for _ in range(12):
        optimiser.zero_grad()
        model(torch.randn(4, 64)).sum().backward()
        optimiser.step()
        pruner.step()
        kept.append(set(model.weight[0].nonzero().flatten().tolist()))
    return kept


def test_what_was_pruned_comes_back_only_with_regrowth() -> None:
    kept = train_one(regrow=False)
    assert all(after <= before for before, after in pairwise(kept))
    kept = train_one(regrow=True)
    assert any(not after <= before for before, after in pairwise(kept))
    assert kept[7] == kept[-1], "the masks are fixed at the schedule's end"


def test_the_straight_through_gradient_has_the_decay() -> None:
    model = nn.Linear(64, 1, bias=False)
    pruner = BankPruner(model, 16, cubic(0, 8), regrow=True, decay=0.5)
    for _ in range(4):
        pruner.step()
    x = torch.randn(1, 64)
    model(x).sum().backward()
    original = model.parametrizations.weight.original
    mask = pruner.masks()[""]
    assert not mask.all()
    expected = x + 0.5 * torch.where(mask, 0.0, original)
    assert torch.equal(original.grad, expected)


def test_masked_weights_get_no_gradient() -> None:
    model = nn.Linear(64, 3, bias=False)
    pruner = BankPruner(model, 16)
    model(torch.randn(5, 64)).square().sum().backward()
    gradient = model.parametrizations.weight.original.grad
    assert torch.equal(gradient != 0, pruner.masks()[""])


def test_a_masked_nan_is_not_seen() -> None:
    model = nn.Linear(64, 1)
    pruner = BankPruner(model, 16)
    with torch.no_grad():
        model.parametrizations.weight.original[~pruner.masks()[""]] = torch.nan
    assert torch.isfinite(model(torch.ones(1, 64))).all()


def test_finalise_leaves_plain_modules_and_the_same_parameters() -> None:
    model = nets.mlp()
    parameters = {id(each) for each in model.parameters()}
    keys = set(model.state_dict())
    types = [type(each) for each in model.modules()]
    pruner = BankPruner(model, {"0": 8, "2": 32})
    twin = copy.deepcopy(model)
    expected = model(torch.ones(2, 64))
    assert pruner.finalise() is model
    assert torch.equal(model(torch.ones(2, 64)), expected)
    assert torch.equal(twin(torch.ones(2, 64)), expected), "a copy made before works on"
    assert {id(each) for each in model.parameters()} == parameters
    assert set(model.state_dict()) == keys
    assert [type(each) for each in model.modules()] == types
    density = [
        (each.weight != 0).float().mean().item() for each in model if hasattr(each, "weight")
    ]
    assert density == [1 / 8, 1 / 32, 1.0]
    with pytest.raises(SpuError, match="make a new one"):
        pruner.step()


def test_a_run_goes_on_from_its_state_dicts() -> None:
    x, y = torch.randn(8, 64), torch.randint(0, 10, (8,))

    def steps(model: nn.Module, pruner: BankPruner, optimiser: Any, count: int) -> None:
        for _ in range(count):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimiser.step()
            pruner.step()

    def start() -> tuple[nn.Module, BankPruner, Any]:
        torch.manual_seed(1)
        model = nets.mlp()
        pruner = BankPruner(model, 16, cubic(0, 8), keep=["4"], regrow=True)
        return model, pruner, torch.optim.Adam(model.parameters(), 0.01)

    whole = start()
    steps(*whole, count=12)
    first = start()
    steps(*first, count=5)
    state = [copy.deepcopy(part.state_dict()) for part in first]
    second = start()
    for part, saved in zip(second, state, strict=True):
        part.load_state_dict(saved)
    assert second[1].largest_banks() == first[1].largest_banks()
    steps(*second, count=7)
    ours, expected = second[0].state_dict(), whole[0].state_dict()
    assert all(torch.equal(ours[name], value) for name, value in expected.items())


def test_attention_is_pruned_and_tied_embeddings_are_not() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(10, 64)
            self.attention = nn.MultiheadAttention(64, 2)
            self.head = nn.Linear(64, 10, bias=False)
            self.head.weight = self.embed.weight
            self.twins = nn.ModuleList([nn.Linear(64, 64) for _ in range(2)])
            self.twins[1].weight = self.twins[0].weight

    model = Tied()
    pruner = BankPruner(model)
    rows = {row.layer: row for row in pruner.report()}
    assert rows["attention.in_proj_weight"].density == 1 / 16
    assert rows["attention.out_proj"].density == 1 / 16
    assert rows["head"].reason == "its weight is that of embed.weight too"
    assert rows["twins.0"].density == rows["twins.1"].density == 1 / 16
    x = torch.randn(3, 2, 64)
    expected = model.attention(x, x, x)[0]
    pruner.finalise()
    assert torch.equal(model.attention(x, x, x)[0], expected)
    assert model.twins[0].weight is model.twins[1].weight
    assert model.head.weight is model.embed.weight


def test_bad_arguments_are_named() -> None:
    with pytest.raises(SpuError, match=r"ratio 10 is not one of the sparse format's"):
        BankPruner(nets.mlp(), 10)
    with pytest.raises(SpuError, match=r"'nothing\*' is the name of no layer.*'0', '2', '4'"):
        BankPruner(nets.mlp(), keep=["nothing*"])
    with pytest.raises(SpuError, match="there is no bank of 16"):
        BankPruner(nets.mlp(), bank=16)
    model = nets.mlp()
    pruner = BankPruner(model, 16, at_once(3), keep=["4"])
    with pytest.raises(SpuError, match="finalised after 0 of 3 steps"):
        pruner.finalise()
    with pytest.raises(SpuError, match="'0' has a parametrisation already"):
        BankPruner(model, 16)
    assert pruner.largest_banks() == {"0": 64, "2": 64}, "a refusal changes nothing"
