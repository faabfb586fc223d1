"""Models on the cards of this machine: which card, how much memory, and what is published."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.cards import mine, tiny_card
from support.models import MODELS, feeds
from support.programs import ADD, LOOKUP

import spu_ir
from spu_ir.errors import SpuError
from spu_ir.runtime import CompiledModel, cards_placement, cards_state, load
from spu_ir.runtime.cards import Device, device, devices
from spu_ir.runtime.cards_codec import record_codec
from spu_ir.runtime.cards_folder import folder_path, usable_folder
from spu_ir.runtime.cards_layout import (
    FIRST_ROWS,
    Row,
)
from spu_ir.runtime.cards_placement import Need, Placement
from spu_ir.runtime.cards_reader import read_all
from spu_ir.runtime.cards_state import Cost, LiveRow, publisher
from spu_ir.targets import Target

ROOT = Path(__file__).parents[1]
FEEDS = {"left side": np.ones((2, 3), np.float32), "right": np.ones((2, 3), np.float32)}


pytestmark = pytest.mark.usefixtures("cards_folder")


# Cards and placement


def test_the_cards_are_those_that_are_listed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert [(one.index, one.name, one.chips) for one in devices()] == [(0, "s30", 3), (1, "s4", 1)]
    monkeypatch.setenv("SPU_IR_DEVICES", f" s10 , {tiny_card(tmp_path, 5000)}")
    assert [(one.name, one.chip_memory) for one in devices()] == [
        ("s10", 20_000_000_000),
        ("tiny", 5000),
    ]
    monkeypatch.setenv("SPU_IR_DEVICES", "none")
    assert devices() == ()
    monkeypatch.delenv("SPU_IR_DEVICES")
    assert [one.name for one in devices()] == ["s4"]


@pytest.mark.parametrize("given", ["s30,x9", "s30,,s4", "no/such.toml"])
def test_a_card_that_there_is_not_is_named(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPU_IR_DEVICES", given)
    with pytest.raises(SpuError, match=f"entry . of SPU_IR_DEVICES='{given}'"):
        devices()


@pytest.mark.parametrize("index", [2, -1])
def test_a_device_that_there_is_not_is_refused(index: int) -> None:
    with pytest.raises(SpuError, match=rf"no device {index}; .* lists 0 \(s30\), 1 \(s4\)"):
        device(index)


def test_a_model_is_on_the_card_that_was_asked_for(tmp_path: Path) -> None:
    model = CompiledModel.from_program(ADD, device=1)
    assert model.device == 1
    assert CompiledModel.from_program(ADD).device == 0
    model.save(tmp_path / "add.spu", levels=["c"])
    assert load(tmp_path / "add.spu").device == 0
    again = load(tmp_path / "add.spu", device=1)
    assert again.device == 1
    assert [row.name for row in mine().models if row.device == 1] == ["model", "add"]
    with pytest.raises(SpuError, match="there is no device 2"):
        load(tmp_path / "add.spu", device=2)


def test_without_cards_models_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPU_IR_DEVICES", "none")
    model = CompiledModel.from_program(ADD)
    assert model.device is None
    model.run(FEEDS)
    assert read_all(folder_path()) == []
    with pytest.raises(SpuError, match="there is no device 0; SPU_IR_DEVICES lists none"):
        CompiledModel.from_program(ADD, device=0)
    monkeypatch.delenv("SPU_IR_DEVICES")
    assert CompiledModel.from_program(ADD, device="none").device is None


def test_a_model_is_for_the_chip_of_its_target(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Target.load("s4").replace({"spu.count": 16}).to_json() | {"name": "wide"}
    model = CompiledModel.from_program(ADD, options={"target": other})
    assert model.device is None
    model.run(FEEDS)
    with pytest.raises(SpuError, match=r"for the chip of 'wide', and device 1 \(s4\) has another"):
        CompiledModel.from_program(ADD, options={"target": other}, device=1)
    # Cards of one chip run each other's models.
    assert CompiledModel.from_program(ADD, options={"target": "s10"}, device=1).device == 1


def test_a_card_s_name_is_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as a target's can be: by it a model is known to be on the card."""
    monkeypatch.setenv("SPU_IR_DEVICES", tiny_card(tmp_path, 100, "n" * 64))
    placement = Placement(device(0), "m", Need(60, 0, 0))
    assert mine().models[0].card == "n" * 64
    with pytest.raises(SpuError, match="40 of 100 are free"):
        Placement(device(0), "m", Need(60, 0, 0))
    placement.close()


def test_a_model_needs_weights_arena_and_ports_at_its_largest_extents() -> None:
    """By hand: on three chips, each has 22 of at most 64 samples."""
    weights = 64 + 32  # `unused` and `bias`, each from a multiple of 64
    weights += 64  # slack behind the last
    for index, batch in ((0, 22), (1, 64)):
        model = CompiledModel.from_program(ADD, device=index)
        arena = 4 * batch * 8
        ports = 2 * 4 * batch * 8 + 4 * batch * 8 + 8 * batch * 16
        row = mine().models[-1]
        assert (row.device, row.memory) == (index, weights + arena + ports)
        model.close()


def test_a_model_without_a_batch_is_whole_on_every_chip() -> None:
    model = CompiledModel.from_program(LOOKUP, device=0)
    (row,) = mine().models
    other = CompiledModel.from_program(LOOKUP, device=1)
    assert row.memory == mine().models[1].memory
    assert (model.device, other.device) == (0, 1)


def test_a_full_card_is_refused_with_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = 64 + 32 + 64 + 4 * 512 + (3 * 4 * 512 + 8 * 1024)
    monkeypatch.setenv("SPU_IR_DEVICES", tiny_card(tmp_path, need + 1000))
    first = CompiledModel.from_program(ADD, name="first")
    with pytest.raises(SpuError) as error:
        CompiledModel.from_program(ADD, name="second")
    assert str(error.value).startswith(
        f"device 0 (tiny) is full: the model 'second' needs {need} bytes (weights 160, arena 2048, "
        f"ports 14336), 1000 of {need + 1000} are free; held by: process {os.getpid()} ("
    )
    assert f") 'first' {need}; " in str(error.value)
    first.run(FEEDS)
    assert [row.name for row in mine().models] == ["first"]
    first.close()
    CompiledModel.from_program(ADD, name="second").run(FEEDS)


def test_memory_comes_back_when_a_model_is_closed_or_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPU_IR_DEVICES", tiny_card(tmp_path, 17_000))
    for _ in range(3):
        model = CompiledModel.from_program(ADD)
        model.run(FEEDS)
        del model
        gc.collect()
        assert read_all(usable_folder()) == []
    model = CompiledModel.from_program(ADD)
    model.close()
    model.close()
    assert model.device is None
    with pytest.raises(SpuError, match="was closed; load or compile it again"):
        model.run(FEEDS)


HOLD = """
import sys
from spu_ir.runtime import load
model = load(sys.argv[1], device=int(sys.argv[2]))
print("placed", flush=True)
sys.stdin.read()
"""


def test_memory_is_accounted_over_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPU_IR_DEVICES", f"s4,{tiny_card(tmp_path, 20_000)}")
    package = tmp_path / "add.spu"
    CompiledModel.from_program(ADD).save(package, levels=["c"])
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, package, "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "placed\n"
        with pytest.raises(SpuError, match=rf"held by: process {other.pid} \(.*\) 'add' \d+;"):
            load(package, device=1)
        assert load(package, device=0).device == 0
        other.stdin.close()
        assert other.wait() == 0
        assert load(package, device=1).device == 1


def test_placements_at_one_time_never_take_the_same_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPU_IR_DEVICES", tiny_card(tmp_path, 350))
    card = device(0)

    def try_to(number: int) -> Placement | None:
        try:
            return Placement(card, str(number), Need(100, 0, 0))
        except SpuError:
            return None

    with ThreadPoolExecutor(8) as threads:
        taken = [one for one in threads.map(try_to, range(16)) if one is not None]
    assert len(taken) == 3
    assert sum(row.memory for row in mine().models) == 300
    for one in taken:
        one.close()


# Counting


def wait_for(row: LiveRow, modelled: int) -> Row:
    limit = time.monotonic() + 20
    while row.row().modelled < modelled and time.monotonic() < limit:
        time.sleep(0.005)
    return row.row()


def test_runs_are_counted_and_published() -> None:
    model = CompiledModel.from_program(ADD, name="add")
    for _ in range(3):
        model.run(FEEDS)
    (row,) = mine().models
    assert (row.name, row.card, row.device, row.runs, row.samples) == ("add", "s30", 0, 3, 6)
    with pytest.raises(SpuError, match="missing"):
        model.run({})
    assert mine().models[0].runs == 3


def test_the_cost_of_runs_is_found_once_for_all_of_the_same_extents() -> None:
    asked: list[tuple[int, ...]] = []

    def cost_of(extents: tuple[int, ...]) -> Cost:
        asked.append(extents)
        time.sleep(0.01)  # Other runs come in meanwhile.
        return Cost(spu_s=extents[0], vpu_s=2.0, energy_j=0.5)

    placement = Placement(device(0), "m", Need(1, 0, 0), cost_of)
    with ThreadPoolExecutor(4) as threads:
        for _ in threads.map(lambda n: placement.record((n % 2 + 1,), 1), range(100)):
            pass
    (live,) = publisher().rows
    row = wait_for(live, 100)
    assert (row.runs, row.samples, row.modelled) == (100, 100, 100)
    assert (row.spu_s, row.vpu_s, row.energy_j) == (150.0, 200.0, 50.0)
    assert set(asked) == {(1,), (2,)}
    placement.record((1,), 1)
    assert mine().models[0].spu_s == 151.0
    placement.close()


def test_the_cost_of_a_run_is_the_schedule_model_s() -> None:
    """Added up from the timeline, task by task, over the cores of the whole card."""
    shapes = {"batch": (1, 20), "seq": (1, 8)}
    model = spu_ir.compile(
        MODELS["perceptron"](), precision="bf16", shapes=shapes, levels=["c"], device=0
    )
    (live,) = publisher().rows
    cores = 3 * 4
    spu = vpu = energy = 0.0
    for count, batch in enumerate((1, 14), 1):
        model.run(feeds("perceptron", 0, batch, 2))
        events = model.estimate("s30", batch, {"seq": 2}).timeline
        spu += sum(e.end_s - e.start_s for e in events if e.unit == "spu") / cores
        vpu += sum(e.end_s - e.start_s for e in events if e.unit == "vpu") / cores
        energy += model.estimate("s30", batch, {"seq": 2}).dynamic_aj * 1e-18
        row = wait_for(live, count)
        assert (row.runs, row.modelled) == (count, count)
        assert row.spu_s == pytest.approx(spu, rel=1e-9)
        assert row.vpu_s == pytest.approx(vpu, rel=1e-9)
        assert row.energy_j == pytest.approx(energy, rel=1e-9)
    assert min(spu, vpu, energy) > 0
    model.close()


def test_runs_whose_cost_cannot_be_told_are_still_runs() -> None:
    placement = Placement(device(0), "m", Need(1, 0, 0), lambda extents: None)
    for _ in range(5):
        placement.record((1,), 2)
    (row,) = mine().models
    assert (row.runs, row.samples, row.modelled, row.spu_s) == (5, 10, 0, 0.0)
    placement.close()


def test_finding_costs_takes_a_bounded_share_of_a_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a clock of the test's own: 20 sets of extents that take 0.4 s each."""
    clock = {"processor": 0.0, "wall": 100.0}

    def cost_of(extents: tuple[int, ...]) -> Cost:
        clock["processor"] += 0.4
        clock["wall"] += 0.4
        return Cost(spu_s=1.0)

    def sleep(seconds: float) -> None:
        clock["wall"] += seconds

    fake = SimpleNamespace(
        thread_time=lambda: clock["processor"], monotonic=lambda: clock["wall"], sleep=sleep
    )
    monkeypatch.setattr(cards_placement, "time", fake)
    placement = Placement(device(0), "m", Need(1, 0, 0), cost_of)
    (live,) = publisher().rows
    for number in range(20):
        placement.record((number,), 1)
        assert wait_for(live, number + 1).modelled == number + 1
    placement.close()
    assert clock["processor"] == pytest.approx(8.0)
    spent = clock["wall"] - 100
    assert spent >= (8.0 - cards_placement.CREDIT - 0.4) / cards_placement.SHARE
    assert spent <= 8.0 / cards_placement.SHARE


def test_threads_lose_no_run() -> None:
    placement = Placement(device(0), "m", Need(1, 0, 0))

    def many() -> None:
        for _ in range(500):
            placement.count(2, Cost(spu_s=1.0))

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (row,) = mine().models
    assert (row.runs, row.samples, row.spu_s) == (2000, 4000, 2000.0)
    placement.close()


def test_codecs_are_counted_beside_models() -> None:
    record_codec(1, frames=16, busy_s=0.5, energy_j=2.0)
    record_codec(1, frames=8, busy_s=0.25)
    record_codec(1, frames=1, busy_s=0.125, name="video")
    rows = {row.name: row for row in mine().models}
    assert rows["codec"].memory == 0
    assert (rows["codec"].samples, rows["codec"].codec_s, rows["codec"].energy_j) == (24, 0.75, 2)
    assert (rows["video"].device, rows["video"].codec_s) == (1, 0.125)
    with pytest.raises(SpuError, match="there is no device 2"):
        record_codec(2, 1, 1.0)
    for frames, busy, energy in ((-1, 1.0, 0.0), (1, -1.0, 0.0), (1, float("nan"), 0.0)):
        with pytest.raises(SpuError, match="impossible"):
            record_codec(0, frames, busy, energy)


def test_more_models_than_rows_make_the_file_larger() -> None:
    placements = [
        Placement(device(0), f"m{number}", Need(number, 0, 0)) for number in range(3 * FIRST_ROWS)
    ]
    assert [row.memory for row in mine().models] == list(range(3 * FIRST_ROWS))
    for placement in placements[::2]:
        placement.close()
    again = Placement(device(1), "again", Need(7, 0, 0))
    assert [row.memory for row in mine().models] == [*range(1, 3 * FIRST_ROWS, 2), 7]
    for placement in (*placements, again):
        placement.close()
    assert read_all(usable_folder()) == []


def test_models_that_cannot_be_published_are_accounted_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPU_IR_DEVICES", tiny_card(tmp_path, FIRST_ROWS + 2))
    monkeypatch.setattr(cards_state, "MAX_ROWS", FIRST_ROWS)
    placements = [Placement(device(0), "m", Need(1, 0, 0)) for _ in range(FIRST_ROWS + 2)]
    assert len(mine().models) == FIRST_ROWS
    with pytest.raises(SpuError, match=f"0 of {FIRST_ROWS + 2} are free"):
        Placement(device(0), "m", Need(1, 0, 0))
    placements[-1].count(1, Cost())
    for placement in placements:
        placement.close()


def test_a_device_says_what_it_is() -> None:
    card = Device(4, Target.load("s30"))
    assert (card.name, card.chips, card.chip_memory) == ("s30", 3, 20_000_000_000)
    assert card.runs(Target.load("s4"))
    assert not card.runs(Target.load("s4").replace({"chip.cores": 5}))
