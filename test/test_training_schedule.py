"""The schedules of gradual pruning, and that PyTorch is asked for where it is needed only."""

from __future__ import annotations

import subprocess
import sys

import pytest

from spu_ir.errors import SpuError
from spu_ir.sparsify.training_schedule import at_once, cubic, linear


@pytest.mark.parametrize("ratio", [2, 4, 8, 16, 32])
def test_slots_fall_from_all_to_the_ratio(ratio: int) -> None:
    schedule = cubic(10, 110)
    slots = [schedule.slots(step, 64 // ratio, 64) for step in range(130)]
    assert slots[:11] == [64] * 11
    assert slots[110:] == [64 // ratio] * 20
    assert slots == sorted(slots, reverse=True)


def test_cubic_is_the_published_one() -> None:
    # s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3 with s_i = 0, t_0 = 100, n dt = 400
    schedule = cubic(100, 500)
    for step in (100, 137, 300, 499, 500):
        expected = 1 - (1 - (step - 100) / 400) ** 3
        assert schedule.part(step) == pytest.approx(expected, abs=1e-12)
    assert schedule.slots(300, 4, 64) == round(64 * (1 - 0.9375 * 0.875)) == 12


def test_linear_and_at_once() -> None:
    assert [linear(0, 4).slots(step, 32, 64) for step in range(6)] == [64, 56, 48, 40, 32, 32]
    assert [at_once(2).slots(step, 4, 64) for step in range(4)] == [64, 64, 4, 4]


def test_it_changes_every_so_many_steps_and_ends_on_time() -> None:
    parts = [cubic(3, 13, every=4).part(step) for step in range(15)]
    changes = [step for step in range(1, 15) if parts[step] != parts[step - 1]]
    assert changes == [7, 11, 13]
    assert parts[13] == 1.0


@pytest.mark.parametrize("wrong", [(-1, 4, 1), (5, 4, 1), (0, 4, 0)])
def test_a_wrong_schedule_is_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(SpuError, match="use 0 <= begin <= end, every >= 1"):
        cubic(*wrong)


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_pytorch_the_remedy_is_named() -> None:
    code = (
        "import importlib.util\n"
        "importlib.util.find_spec = lambda name: None\n"
        "from spu_ir.errors import SpuError\n"
        "try:\n"
        "    import spu_ir.sparsify.training\n"
        "except SpuError as error:\n"
        "    print(error)\n"
    )
    assert run(code) == "training needs PyTorch, which is not there; pip install spu-ir[train]\n"


def test_nothing_else_imports_pytorch() -> None:
    code = "import sys, spu_ir, spu_ir.sparsify, spu_ir.zoo; print('torch' in sys.modules)"
    assert run(code) == "False\n"
