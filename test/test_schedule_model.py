"""Estimates of models: extents, samples of a pass, targets and options, and of a compiled one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.padded import SHAPES, encoder
from support.work_tables import BATCH, Program, network

import spu_ir
from spu_ir import SpuError, Target
from spu_ir.api import Padding, lower
from spu_ir.schedule.estimate import Estimate
from spu_ir.schedule.of_model import estimate_model
from spu_ir.schedule.work import WorkTable
from spu_ir.zoo.linear_model import linear


@dataclass(frozen=True)
class Port:
    name: str = "x"
    dtype: str = "float32"
    shape: tuple[int | str, ...] = (BATCH, 50_000)


def of(batch: int = 12, target: Any = "s4", extents: Any = None, **more: Any) -> Estimate:
    bounds = {BATCH: (1, 4)}
    return estimate_model(network(), target, batch, extents, bounds=bounds, inputs=[Port()], **more)


def test_a_pass_has_no_more_samples_than_the_program_takes() -> None:
    assert of(64, host=False).core_batch == 4
    assert of(64, host=False, core_batch=2).core_batch == 2
    assert of(64, host=False, core_batch=100).core_batch == 4


def test_a_pass_has_no_fewer_samples_than_the_program_takes() -> None:
    def few(batch: int, **more: Any) -> Estimate:
        bounds = {BATCH: (3, 8)}
        return estimate_model(network(), "s4", batch, None, bounds=bounds, inputs=[Port()], **more)

    assert (few(3).core_batch, few(3).cores) == (3, 1)
    assert (few(12, core_batch=1).core_batch, few(12).cores) == (3, 4)
    assert (few(28).core_batch, few(28).cores) == (7, 4)
    with pytest.raises(SpuError, match="batch=2 is too small; at least 3"):
        few(2)


def test_floats_are_narrowed_on_the_wire() -> None:
    assert of(wire="int8").bytes["host"] == 12 * (50_000 + 4_000)
    assert of().bytes["host"] == 12 * (200_000 + 4_000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"extents": {"batch": 2}}, "the extent 'batch' cannot be given; leave extents out"),
        ({"extents": {"seq": 2}}, "the extent 'seq' cannot be given"),
        ({"speed": 3}, "an estimate has no option 'speed'; one of cores, core_batch, zeros"),
        ({"cores": "none"}, "cores='none' is unknown"),
        ({"target": "s5"}, "target='s5' is unknown"),
        ({"batch": 0}, "batch=0 is too small"),
    ],
)
def test_what_cannot_be_asked_for(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SpuError, match=message):
        of(**arguments)


def test_other_extents_are_the_largest_unless_given() -> None:
    table = network()
    bounds = {BATCH: (1, 4), "seq": (1, 384)}
    asked: list[Any] = [None, {"seq": 16}]
    got = [
        estimate_model(table, "s4", 4, extents, bounds=bounds, inputs=[Port()]).extents
        for extents in asked
    ]
    assert got == [{BATCH: 1, "seq": 384}, {BATCH: 1, "seq": 16}]
    with pytest.raises(SpuError, match="the extent 'seq' is 385, allowed are 1 to 384"):
        estimate_model(table, "s4", 4, {"seq": 385}, bounds=bounds, inputs=[Port()])
    with pytest.raises(SpuError, match="the extent 'batch' cannot be given; give seq"):
        estimate_model(table, "s4", 4, {"batch": 2}, bounds=bounds, inputs=[Port()])


def test_a_fixed_batch_is_what_a_pass_has() -> None:
    def table(samples: int | str) -> WorkTable:
        program = Program(samples=samples).input(64).step("spu.matmul", macs=3_686_400, out=8)
        return program.table()

    fixed = Port(shape=(8, 64))
    whole, partly = (
        estimate_model(table(8), "s4", batch, None, bounds={}, inputs=[fixed], host=False)
        for batch in (32, 20)
    )
    assert (whole.core_batch, whole.batch, whole.cores) == (8, 32, 4)
    free = estimate_model(
        table(BATCH), "s4", 32, None, bounds={BATCH: (1, 8)}, inputs=[Port()], host=False
    )
    assert whole.throughput == pytest.approx(free.throughput)
    assert whole.energy_j == pytest.approx(free.energy_j)
    # 20 samples are three passes, of which the last is half empty.
    assert (partly.batch, partly.cores) == (20, 3)
    assert partly.latency_s == pytest.approx(whole.latency_s)
    assert partly.throughput == pytest.approx(20 / partly.period_s)
    assert partly.power_w * partly.period_s == pytest.approx(20 * partly.energy_j)


def test_a_compiled_model_and_its_package(tmp_path: Path) -> None:
    model = spu_ir.compile(linear(256, 128), shapes={"batch": (1, 16)}, target="s10", device="none")
    e = model.estimate()
    assert (e.target.name, e.batch) == ("s10", 64)
    assert model.estimate("s30", 64).target == Target.load("s30")
    model.save(tmp_path / "model.spu")
    loaded = spu_ir.load(tmp_path / "model.spu", device="none")
    assert loaded.estimate().to_json() == e.to_json()
    # One sample for each of 4 cores: the product's slots, lanes and lists, at 4608 a cycle.
    one = model.estimate("s4", 4, host=False)
    product = next(layer for layer in one.layers if layer.op == "spu.matmul")
    assert product.busy_s["spu"] >= product.work.macs / (8 * 576 * 800e6)


def test_a_card_of_one_s_own_is_kept_with_the_model(tmp_path: Path) -> None:
    card = tmp_path / "mine.toml"
    card.write_text('name = "mine"\nextends = "s10"\n[chip]\nclock = 1e9\n')
    model = spu_ir.compile(linear(64, 32), shapes={"batch": (1, 4)}, target=card, device="none")
    assert model.estimate().target == Target.load(card)
    model.save(tmp_path / "model.spu")
    card.unlink()
    loaded = spu_ir.load(tmp_path / "model.spu", device="none")
    assert loaded.estimate().target.chip.clock.value == 1e9
    assert loaded.estimate().to_json() == model.estimate().to_json()


def test_skipped_padding_is_faster_by_the_rows_it_skips() -> None:
    def of_program(padding: Padding, real: float | None) -> Estimate:
        program, _ = lower(encoder(), padding=padding, shapes=SHAPES)
        return estimate_model(
            WorkTable.from_json(program.work),
            "s4",
            4,
            {"seq": 64},
            bounds={each.name: (each.minimum, each.maximum) for each in program.extents},
            inputs=program.inputs,
            host=False,
            real=real,
        )

    def macs(e: Estimate) -> int:
        return next(x.work.macs for x in e.layers if x.op == "spu.matmul")

    full, all_real, half, few = (
        of_program(padding, real)
        for padding, real in (("compute", None), ("skip", 1.0), ("skip", 0.5), ("skip", 0.125))
    )
    assert macs(full) == macs(all_real) == 2 * macs(half) == 8 * macs(few) > 0
    for more, fewer in pairwise((all_real, half, few)):
        assert fewer.throughput > more.throughput
        assert fewer.energy_j < more.energy_j
