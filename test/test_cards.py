"""Models on the cards of this machine: which card, how much memory, and what is published."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import MODELS, feeds
from support.programs import ADD, LOOKUP

import spu_ir
from spu_ir.errors import SpuError
from spu_ir.runtime import CompiledModel, cards_codec, cards_placement, cards_state, load
from spu_ir.runtime.cards import Device, device, devices, record_codec
from spu_ir.runtime.cards_folder import Process, folder_path, usable_folder
from spu_ir.runtime.cards_layout import (
    FIRST_ROWS,
    HEADER_BYTES,
    MAX_BYTES,
    ROW_BYTES,
    SLOT_BYTES,
    Header,
    Row,
    pack_header,
    pack_slot,
    text_bytes,
    unpack_header,
    unpack_row,
)
from spu_ir.runtime.cards_placement import Need, Placement
from spu_ir.runtime.cards_reader import Published, read_all, read_file
from spu_ir.runtime.cards_state import Cost, LiveRow, Publisher, publisher
from spu_ir.targets import Target

ROOT = Path(__file__).parents[1]
FEEDS = {"left side": np.ones((2, 3), np.float32), "right": np.ones((2, 3), np.float32)}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder of the test's own, and two cards."""
    path = tmp_path / "runtime"
    monkeypatch.setenv("SPU_IR_RUNTIME", str(path))
    monkeypatch.setenv("SPU_IR_DEVICES", "s30,s4")
    # As in a new process, whatever models and codecs other tests keep.
    monkeypatch.setattr(cards_state, "_current", [Publisher()])
    monkeypatch.setattr(cards_codec, "_placements", {})
    yield path
    publisher().close()


def tiny_card(folder: Path, size: int, name: str = "tiny") -> str:
    """The file of a card of one chip with so many bytes."""
    path = folder / f"{name}.toml"
    path.write_text(f'extends = "s4"\nname = "{name}"\n[ddr]\nsize = {size}\n')
    return str(path)


def mine() -> Published:
    """What this process publishes."""
    found = [one for one in read_all(usable_folder()) if one.process == Process.this()]
    assert len(found) == 1
    return found[0]


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


# The file

HEADER = Header(pid=12, start=34, namespace=56, started=78.5, program="a program")


def slot(sequence: int, runs: int, *, used: bool = True, device: int = 3) -> bytes:
    sums = (0.5, 0.25, 0.125, 4.0, 3.0, 1000.0, 2000.0)
    return pack_slot(sequence, 9, 100, runs, 2 * runs, runs, sums, device, used, b"m", b"s4")


ROW = Row(
    identity=9,
    device=3,
    card="s4",
    name="m",
    memory=100,
    runs=5,
    samples=10,
    modelled=5,
    spu_s=0.5,
    vpu_s=0.25,
    codec_s=0.125,
    energy_j=4.0,
    heat_j=3.0,
    heat_at=1000.0,
    placed=2000.0,
)


def test_the_layout_is_that_of_its_version() -> None:
    """Other processes read these bytes: whoever changes them has to raise VERSION."""
    assert unpack_header(pack_header(HEADER)) == HEADER
    assert unpack_row(slot(2, 5) + bytes(SLOT_BYTES)) == ROW
    assert sys.byteorder == "little"
    assert sha256(pack_header(HEADER) + slot(2, 5)).hexdigest()[:16] == "50cad5d45379d834"


def test_an_update_is_seen_whole_or_not_at_all() -> None:
    """Whatever part of the slot has arrived, the row is the one before or the one after."""
    before, old, new = slot(7, 7), slot(6, 6), slot(8, 8)
    for done in range(SLOT_BYTES + 1):
        row = unpack_row(new[:done] + old[done:] + before)
        assert row is not None
        assert row.runs == (8 if new[:done] + old[done:] == new else 7)
    # In any order too.
    places = list(range(SLOT_BYTES))
    random.Random(0).shuffle(places)
    torn = bytearray(old)
    for place in places:
        torn[place] = new[place]
        row = unpack_row(bytes(torn) + before)
        assert row is not None
        assert row.runs == (8 if torn == new else 7)


def test_a_row_that_is_written_twice_while_it_is_read_is_read_again() -> None:
    torn = bytearray(slot(2, 5))
    torn[40] ^= 1
    with pytest.raises(ValueError, match="no slot"):
        unpack_row(bytes(torn) + bytes(torn))


def test_free_and_senseless_rows_are_none() -> None:
    assert unpack_row(bytes(ROW_BYTES)) is None
    assert unpack_row(slot(2, 5, used=False) + bytes(SLOT_BYTES)) is None
    assert unpack_row(slot(2, 5, device=-1) + bytes(SLOT_BYTES)) is None
    for wrong in (float("nan"), float("inf"), -1.0):
        sums = (0.5, 0.25, wrong, 4.0, 3.0, 1000.0, 2000.0)
        packed = pack_slot(2, 9, 100, 5, 10, 5, sums, 3, True, b"m", b"s4")
        assert unpack_row(packed + bytes(SLOT_BYTES)) is None


def test_names_drive_no_terminal_and_are_cut_between_letters() -> None:
    assert text_bytes("aä" * 40, 64) == ("aä" * 21).encode() + b"a"
    named = replace(HEADER, program="\x1b[2Jü")
    header = unpack_header(pack_header(named))
    assert header is not None
    assert header.program == "\\x1b[2Jü"


WRITE = """
import sys
from spu_ir.runtime.cards import device
from spu_ir.runtime.cards_placement import Need, Placement
from spu_ir.runtime.cards_state import Cost
placement = Placement(device(0), "w", Need(1, 0, 0))
print("placed", flush=True)
cost = Cost(spu_s=1.0, vpu_s=2.0, codec_s=3.0, energy_j=4.0)
while True:
    placement.count(3, cost)
"""


def test_a_reader_beside_a_writer_sees_no_torn_row() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITE], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "placed\n"
        last = 0
        seen = set[int]()
        try:
            for _ in range(3000):
                (one,) = read_all(usable_folder())
                (row,) = one.models
                runs = row.runs
                assert (row.samples, row.modelled) == (3 * runs, runs)
                assert (row.spu_s, row.vpu_s) == (runs, 2 * runs)
                assert (row.codec_s, row.energy_j) == (3 * runs, 4 * runs)
                assert runs >= last
                last = runs
                seen.add(runs)
        finally:
            writer.kill()
        writer.wait()
    assert len(seen) > 100
    assert read_all(usable_folder()) == []


# Other files, and processes that are gone


def this_file() -> Path:
    return usable_folder() / Process.this().file


def test_the_folder_and_the_file_are_the_owner_s_alone(folder: Path) -> None:
    model = CompiledModel.from_program(ADD)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert this_file().stat().st_mode & 0o7777 == 0o1600
    model.close()
    assert not this_file().exists()


@given(data=st.binary(max_size=3 * ROW_BYTES), keep=st.integers(0, HEADER_BYTES + 2 * ROW_BYTES))
def test_a_file_of_anything_is_no_harm(data: bytes, keep: int) -> None:
    process = Process.this()
    good = pack_header(Header(process.pid, process.start, process.namespace, 1.0, "p"))
    good += slot(2, 5) + bytes(SLOT_BYTES)
    path = usable_folder() / process.file
    path.write_bytes(good)
    found = read_file(path, process)
    assert found is not None
    assert found.models == (ROW,)
    path.write_bytes(good[:keep] + data)
    found = read_file(path, process)
    assert found is None or all(row.memory >= 0 for row in found.models)


def test_what_is_no_state_file_is_passed_over(tmp_path: Path) -> None:
    folder, process = usable_folder(), Process.this()
    good = pack_header(Header(process.pid, process.start, process.namespace, 1.0, "p"))
    good += slot(2, 5) + bytes(SLOT_BYTES)
    others = {
        "of another process": pack_header(HEADER) + slot(2, 5) + bytes(SLOT_BYTES),
        "of another version": good.replace(b"SPUCARDS\1", b"SPUCARDS\2"),
        "not whole": good[:-1],
        "empty": b"",
    }
    path = folder / process.file
    for what, data in others.items():
        path.write_bytes(data)
        assert read_all(folder) == [], what
    path.write_bytes(good)
    with path.open("r+b") as file:
        file.truncate(MAX_BYTES + ROW_BYTES)
    assert read_all(folder) == []
    path.unlink()
    (tmp_path / "elsewhere").write_bytes(good)
    path.symlink_to(tmp_path / "elsewhere")
    assert read_all(folder) == []
    path.unlink()
    os.mkfifo(path)
    assert read_all(folder) == []
    path.unlink()
    path.mkdir()
    assert read_all(folder) == []
    path.rmdir()
    (folder / "notes.txt").write_text("mine")
    path.write_bytes(good)
    assert [one.models for one in read_all(folder)] == [(ROW,)]
    assert (folder / "notes.txt").exists()
    path.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_user_s_file_is_passed_over() -> None:
    folder, process = usable_folder(), Process.this()
    path = folder / process.file
    path.write_bytes(pack_header(Header(process.pid, process.start, process.namespace, 1.0, "p")))
    assert len(read_all(folder)) == 1
    os.chown(path, 12345, 12345)
    assert read_all(folder) == []
    dead = folder / replace(process, start=process.start + 1).file
    dead.write_bytes(b"")
    os.chown(dead, 12345, 12345)
    assert read_all(folder) == []
    assert dead.exists()
    path.unlink()
    dead.unlink()


def test_files_of_the_dead_are_removed() -> None:
    folder, this = usable_folder(), Process.this()
    reused = replace(this, start=this.start + 1)  # the number is used again
    gone = Process(2**31 - 1, 5, this.namespace)
    elsewhere = replace(gone, namespace=this.namespace + 1)  # in another container
    for process in (reused, gone, elsewhere):
        (folder / process.file).write_bytes(b"anything")
    assert read_all(folder) == []
    assert [path.name for path in folder.glob("*.cards")] == [elsewhere.file]


def test_a_killed_process_that_nobody_waited_for_is_dead() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITE], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "placed\n"
        (one,) = read_all(usable_folder())
        assert not one.process.is_dead()
        writer.kill()
        limit = time.monotonic() + 20
        while not one.process.is_dead() and time.monotonic() < limit:
            time.sleep(0.005)
        os.kill(writer.pid, 0)  # It is a zombie: its number is still taken.
        assert read_all(usable_folder()) == []
        assert list(usable_folder().glob("*.cards")) == []


FORK = """
import os, sys, warnings
import numpy as np
from spu_ir.runtime import load
from spu_ir.runtime.cards_folder import Process, usable_folder
from spu_ir.runtime.cards_reader import read_all
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork with threads
model = load(sys.argv[1])
x = np.ones((1, 1), np.float32)
def run(times):
    for _ in range(times):
        model.run({"left side": x, "right": x})
def runs():
    found = read_all(usable_folder())
    return {one.process.pid: [row.runs for row in one.models] for one in found}
run(2)
parent = os.getpid()
child = os.fork()
if child == 0:
    assert runs() == {parent: [2]}, runs()  # No row of its own before it runs.
    run(3)
    assert runs() == {parent: [2], os.getpid(): [3]}, runs()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
run(1)
assert runs() == {parent: [3]}, runs()
files = list(usable_folder().glob("*.cards"))
assert [file.name for file in files] == [Process.this().file], files
child = os.fork()
if child == 0:
    try:
        os.environ["SPU_IR_DEVICES"] = "none"
        run(1)  # It stays on the card that it was put on.
        model.close()
        assert runs() == {parent: [3]}, runs()
    finally:
        os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("done")
"""


def test_a_forked_child_has_a_file_of_its_own(tmp_path: Path) -> None:
    CompiledModel.from_program(ADD).save(tmp_path / "add.spu", levels=["c"])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORK, str(tmp_path / "add.spu")],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("done\n", "")
    assert list(usable_folder().glob("*.cards")) == []


FORK_WHILE_BUSY = """
import itertools, os, threading, time, warnings
from spu_ir.runtime.cards import device
from spu_ir.runtime.cards_placement import Need, Placement
from spu_ir.runtime.cards_state import Cost, publisher
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork with threads
inside = threading.Lock()  # as imports and cached properties have them
def cost_of(extents):
    with inside:
        time.sleep(0.02)
    return Cost(spu_s=1.0)
placement = Placement(device(0), "m", Need(1, 0, 0), cost_of)
numbers = itertools.count()
def record():
    placement.begin()
    placement.record((next(numbers),), 1)
for _ in range(20):
    record()
    time.sleep(0.005)
    child = os.fork()
    if child == 0:
        record()
        limit = time.monotonic() + 20
        while publisher().rows[0].row().modelled == 0 and time.monotonic() < limit:
            time.sleep(0.001)
        os._exit(1 - publisher().rows[0].row().modelled)
    assert os.waitpid(child, 0)[1] == 0
print("done")
"""


def test_a_child_forked_while_a_cost_is_found_finds_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORK_WHILE_BUSY],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


@pytest.mark.parametrize("kind", ["a file", "open to others"])
def test_models_run_without_a_folder(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "other"
    if kind == "a file":
        path.write_text("")
    else:
        path.mkdir()
        path.chmod(0o777)
    monkeypatch.setenv("SPU_IR_RUNTIME", str(path))
    monkeypatch.setenv("SPU_IR_DEVICES", tiny_card(tmp_path, 20_000))
    with pytest.raises(SpuError, match="cannot use the folder of the cards' state"):
        usable_folder()
    model = CompiledModel.from_program(ADD)
    model.run(FEEDS)
    # What this process itself holds is accounted all the same.
    with pytest.raises(SpuError, match=f"held by: process {os.getpid()} 'model'"):
        CompiledModel.from_program(ADD)
    model.close()
    CompiledModel.from_program(ADD).run(FEEDS)


def test_the_default_folder_is_the_user_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPU_IR_RUNTIME")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/somebody")
    assert folder_path() == Path("/run/somebody/spu-ir")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert folder_path().name == f"spu-ir-{os.getuid()}"


def test_a_device_says_what_it_is() -> None:
    card = Device(4, Target.load("s30"))
    assert (card.name, card.chips, card.chip_memory) == ("s30", 3, 20_000_000_000)
    assert card.runs(Target.load("s4"))
    assert not card.runs(Target.load("s4").replace({"chip.cores": 5}))
