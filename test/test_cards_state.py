"""The files in which processes publish what they run on cards, and who reads them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cards import WRITE, tiny_card
from support.programs import ADD

from spu_ir.errors import SpuError
from spu_ir.runtime import CompiledModel
from spu_ir.runtime.cards_folder import Process, folder_path, usable_folder
from spu_ir.runtime.cards_layout import (
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
from spu_ir.runtime.cards_reader import read_all, read_file

ROOT = Path(__file__).parents[1]
FEEDS = {"left side": np.ones((2, 3), np.float32), "right": np.ones((2, 3), np.float32)}


pytestmark = pytest.mark.usefixtures("cards_folder")


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


def test_the_folder_and_the_file_are_the_owner_s_alone(cards_folder: Path) -> None:
    model = CompiledModel.from_program(ADD)
    assert cards_folder.stat().st_mode & 0o777 == 0o700
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
