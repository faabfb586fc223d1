"""`spu-smi`: what it prints, of cards at rest, of made-up load, and of processes that run."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.programs import ADD

from spu_ir.errors import SpuError
from spu_ir.runtime import CompiledModel
from spu_ir.runtime.cards import device
from spu_ir.runtime.cards_folder import Process
from spu_ir.runtime.cards_layout import Row
from spu_ir.runtime.cards_placement import Need, Placement
from spu_ir.runtime.cards_reader import Published
from spu_ir.runtime.cards_state import HEAT_SECONDS, Cost, publisher
from spu_ir.tools import spu_smi
from spu_ir.tools.smi_fields import FIELDS
from spu_ir.tools.smi_state import AMBIENT, HOTTEST, Reading, state

ROOT = Path(__file__).parents[1]
SMI = [sys.executable, "-W", "error", "-m", "spu_ir.tools.spu_smi"]


pytestmark = pytest.mark.usefixtures("cards_folder")


def smi(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SMI, *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert spu_smi.main([*arguments, "--window", "0.01"]) == 0
    out = capsys.readouterr()
    assert out.err == ""
    return out.out


# What it prints


def test_it_is_installed_under_two_names() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["spu-smi"] == scripts["mf-smi"] == "spu_ir.tools.spu_smi:main"


def test_cards_are_listed() -> None:
    done = smi("-L")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Card 0: s30 (3 chips, 60 GB, 250 W)\nCard 1: s4 (1 chip, 20 GB, 70 W)\n"


def test_cards_at_rest(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys)
    lines = [line.split() for line in text.splitlines()]
    idle = [f"{device(n).target.card.idle.value:.0f}/{watts}" for n, watts in ((0, 250), (1, 70))]
    assert lines[4][:7] == ["0", "s30", "0", *lines[4][3:5], idle[0], "W"]
    assert lines[4][7:] == ["0", "B", "/", "20.0", "GB", "0.00%", "0.00%", "0.00%"]
    assert [line[0] for line in lines[5:7]] == ["1", "2"]
    assert "No running programs." in text
    assert "Simulated: temperature, power and utilisation" in text


def test_memory_used_is_one_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "--memory-used") == "0\n"
    first = Placement(device(0), "a", Need(1000, 200, 30))
    second = Placement(device(1), "b", Need(7, 0, 0))
    assert printed(capsys, "--memory-used") == f"{3 * 1230 + 7}\n"
    assert printed(capsys, "--memory-used", "-i", "0") == "3690\n"
    assert printed(capsys, "-i", "1", "--memory-used") == "7\n"
    first.close()
    second.close()


def test_csv_and_json_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    placement = Placement(device(1), "b", Need(7, 0, 0))
    placement.count(3, Cost(spu_s=0.5, energy_j=1.5))
    fixed = [name for name, field in FIELDS.items() if not field.rate and name != "temperature"]
    query = f"--query={','.join(fixed)}"
    table = list(csv.DictReader(io.StringIO(printed(capsys, query))))
    assert list(csv.DictReader(io.StringIO(printed(capsys, query, "--format=csv")))) == table
    document: list[dict[str, Any]] = json.loads(printed(capsys, query, "--format=json"))
    assert [{k: str(v) for k, v in row.items()} for row in document] == table
    assert list(document[0]) == fixed
    assert [row["samples"] for row in document] == [0, 3]
    assert [row["energy"] for row in document] == [0, 1.5]
    whole = json.loads(printed(capsys, "--json"))
    assert [{name: card[name] for name in fixed} for card in whole["cards"]] == document
    assert set(FIELDS) | {"running"} == set(whole["cards"][0])
    assert [one["model"] for one in whole["cards"][1]["running"]] == ["b"]
    placement.close()


def test_every_field_is_listed_and_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    listed = [line.split()[0] for line in printed(capsys, "--help-query").splitlines()]
    assert listed == list(FIELDS)
    for name in listed:
        head, *rows = printed(capsys, f"--query={name}").splitlines()
        assert (head, len(rows)) == (name, 2)


def test_everything_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    placement = Placement(device(0), "some model", Need(1_500_000_000, 0, 0))
    text = printed(capsys, "-q")
    assert re.findall(r"^Card (.*)$", text, re.MULTILINE) == ["0: s30", "1: s4"]
    assert text.count("of 20.0 GB used") == 4
    assert f"Model some model of process {os.getpid()}" in text
    assert re.search(r"memory.used +4500000000 ", text)
    assert "Simulated" in text
    assert "Card 0" not in printed(capsys, "-q", "-i", "1")
    placement.close()


def test_names_are_no_markup_and_drive_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    placement = Placement(device(0), "[red]x\x1b[2J", Need(1, 0, 0))
    assert "[red]x\\x1b[2J" in printed(capsys, "-q")
    assert "[red]" in printed(capsys)
    placement.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-i", "2"], "there is no device 2; there are: 0, 1"),
        (["-i", "x", "-L"], "'x' is no device index; spu-smi -L lists them"),
        (["--query=index,heat"], "there is no field 'heat'; spu-smi --help-query lists all"),
        (["--query="], "there is no field ''"),
        (["--format=json"], "--format is of --query"),
        (["-l", "0"], "--loop '0' is no time"),
        (["--window", "nan"], "--window 'nan' is no time"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert spu_smi.main(arguments) == 1
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.startswith(f"error: {message}")


def test_wrong_cards_are_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPU_IR_DEVICES", "s31")
    assert spu_smi.main(["-L"]) == 1
    assert "entry 0 of SPU_IR_DEVICES='s31'" in capsys.readouterr().err


def test_without_a_folder_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPU_IR_RUNTIME", str(tmp_path / "file"))
    assert "No processes can be seen: cannot use the folder" in " ".join(printed(capsys).split())
    assert "cannot use the folder" in json.loads(printed(capsys, "--json"))["problem"]


def test_models_on_cards_of_other_lists_are_mentioned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    placement = Placement(device(0), "a", Need(1000, 0, 0))
    monkeypatch.setenv("SPU_IR_DEVICES", "s4")
    text = " ".join(printed(capsys).split())
    assert "No running programs." in text
    assert "Not shown, since SPU_IR_DEVICES lists no such card here: 1 on device 0 (s30)." in text
    assert printed(capsys, "--memory-used") == "0\n"
    assert len(json.loads(printed(capsys, "--json"))["elsewhere"]) == 1
    placement.close()


def test_no_compiler_is_imported() -> None:
    """It answers at once only as long as it loads neither xDSL nor numpy."""
    code = """
import sys
from spu_ir.tools.spu_smi import main
assert main(["--window", "0.01"]) == 0
heavy = {"xdsl", "numpy", "onnx", "cffi", "torch"}
found = heavy & {name.split(".")[0] for name in sys.modules}
assert not found, found
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_has_enough_is_no_error() -> None:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", '"$@" | head -n 1', "_", *SMI, "-l", "0.05", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)["cards"]) == 2


# Rates, power and temperature

THIS = Process(10, 20, 30)


def reading(at: float, **counters: Any) -> Reading:
    row: dict[str, Any] = {
        "identity": 1,
        "device": 1,
        "card": "s4",
        "name": "m",
        "memory": 10,
        "runs": 0,
        "samples": 0,
        "modelled": 0,
        "spu_s": 0.0,
        "vpu_s": 0.0,
        "codec_s": 0.0,
        "energy_j": 0.0,
        "heat_j": 0.0,
        "heat_at": at,
        "placed": 0.0,
    }
    return Reading(at, (Published(THIS, "p", 0.0, (Row(**row | counters),)),))


def test_rates_are_over_the_time_between_two_readings() -> None:
    before = reading(100, runs=5, samples=50, spu_s=1.0, vpu_s=2.0, codec_s=3.0, energy_j=10.0)
    now = reading(102, runs=9, samples=90, spu_s=2.0, vpu_s=2.5, codec_s=3.2, energy_j=50.0)
    found = state(before, now)
    card = found.only(1).cards[0]
    idle = card.device.target.card.idle.value
    assert found.window == 2
    assert card.utilisation("spu") == pytest.approx(0.5)
    assert card.utilisation("vpu") == pytest.approx(0.25)
    assert card.utilisation("codec") == pytest.approx(0.1)
    assert card.power == pytest.approx(idle + 20)
    assert (card.models[0].runs_rate, card.models[0].samples_rate) == (2, 20)
    other = found.only(0).cards[0]
    assert (other.models, other.power) == ((), other.device.target.card.idle.value)


def test_a_model_that_is_new_began_at_nothing() -> None:
    before = Reading(100, ())
    card = state(before, reading(101, runs=3, spu_s=0.25)).cards[1]
    assert (card.models[0].runs_rate, card.utilisation("spu")) == (3, 0.25)
    # The same number of another model: it is not that one's difference.
    before = reading(100, identity=2, runs=100, spu_s=50.0)
    card = state(before, reading(101, runs=3, spu_s=0.25)).cards[1]
    assert (card.models[0].runs_rate, card.utilisation("spu")) == (3, 0.25)


def test_a_card_does_no_more_than_it_can() -> None:
    card = state(reading(100), reading(101, spu_s=7.0, energy_j=1e4, heat_j=1e6)).cards[1]
    assert card.utilisation("spu") == 1
    assert card.power == card.power_cap == 70
    assert card.temperature == HOTTEST


def test_temperature_follows_power_with_one_time_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    """The closed form of a first-order system under constant power from a cold start."""
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    placement = Placement(device(1), "m", Need(1, 0, 0))
    card = device(1).target.card
    watts, step = 40.0, 0.01

    def temperature() -> float:
        (row,) = (row.row() for row in publisher().rows)
        now = Reading(clock[0], (Published(THIS, "p", 0.0, (row,)),))
        return state(None, now).cards[1].temperature

    def degrees(power: float) -> float:
        return AMBIENT + (HOTTEST - AMBIENT) * power / card.tdp.value

    assert temperature() == pytest.approx(degrees(card.idle.value))
    for seconds in (30, 60, 300):
        while clock[0] < 1000 + seconds:
            clock[0] += step
            placement.count(1, Cost(energy_j=watts * step))
        share = 1 - np.exp(-seconds / HEAT_SECONDS)
        wanted = degrees(card.idle.value + watts * share)
        assert temperature() == pytest.approx(wanted, abs=0.01)
    clock[0] += HEAT_SECONDS
    wanted = degrees(card.idle.value + watts * (1 - np.exp(-5)) * np.exp(-1))
    assert temperature() == pytest.approx(wanted, abs=0.01)
    placement.close()


def test_only_a_card_that_there_is() -> None:
    with pytest.raises(SpuError, match="there is no device 5"):
        state(None, reading(1)).only(5)


# Processes that run

RUN = """
import sys
import numpy as np
from spu_ir.runtime import load
model = load(sys.argv[1], threads=1, device=int(sys.argv[2]))
x = np.ones((4, 8), np.float32)
model.run({"left side": x, "right": x})
print("running", flush=True)
stop = len(sys.argv) > 3
while True:
    model.run({"left side": x, "right": x})
    if stop and sys.stdin.readline() == "stop\\n":
        break
"""


def start(package: Path, index: int, *more: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, package, str(index), *more],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    return process


def end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


class Loop:
    """`spu-smi -l SECONDS --json`: a document a look."""

    def __init__(self, *arguments: str):
        self.process = subprocess.Popen(
            [*SMI, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def until(self, names: set[str]) -> dict[str, Any]:
        """The next look at which exactly these models are seen."""
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            found = json.loads(self.line())
            if {one["model"] for card in found["cards"] for one in card["running"]} == names:
                return found
        raise AssertionError(f"never were {names or 'no models'} seen")


def test_a_loop_shows_two_processes_and_neither_when_they_are_gone(
    tmp_path: Path, cards_folder: Path
) -> None:
    model = CompiledModel.from_program(ADD)
    model.save(tmp_path / "first.spu", levels=["c"])
    model.save(tmp_path / "second.spu", levels=["c"])
    model.close()
    first = start(tmp_path / "first.spu", 0, "until told")
    second = start(tmp_path / "second.spu", 1)
    loop = Loop("-l", "1", "--json")
    try:
        found = loop.until({"first", "second"})
        pids = [[one["pid"] for one in card["running"]] for card in found["cards"]]
        assert pids == [[first.pid], [second.pid]]
        assert [card["processes"] for card in found["cards"]] == [1, 1]
        assert found["cards"][1]["running"][0]["runs.rate"] > 0
        assert found["cards"][1]["running"][0]["samples"] % 4 == 0
        done = smi()
        rows = [line.split() for line in done.stdout.splitlines()]
        assert ["0", str(first.pid)] in [row[:2] for row in rows]
        assert ["1", str(second.pid)] in [row[:2] for row in rows]

        assert first.stdin is not None
        first.stdin.write("stop\n")
        first.stdin.flush()
        assert first.wait() == 0
        loop.until({"second"})
        assert len(list(cards_folder.glob("*.cards"))) == 1
        second.send_signal(signal.SIGKILL)  # Nobody waits for it yet.
        found = loop.until(set())
        assert [card["memory.used"] for card in found["cards"]] == [0, 0]
        assert list(cards_folder.glob("*.cards")) == []
        assert "No running programs." in smi().stdout
        loop.process.send_signal(signal.SIGINT)
        _, errors = loop.process.communicate(timeout=60)
        assert (loop.process.returncode, errors) == (0, "")
    finally:
        end(first, second)
        if loop.process.poll() is None:
            end(loop.process)


def test_a_loop_of_csv_has_one_head() -> None:
    loop = Loop("-l", "0.05", "--query=index,name")
    try:
        lines = [loop.line() for _ in range(5)]
    finally:
        loop.process.send_signal(signal.SIGINT)
        loop.process.communicate(timeout=60)
    assert lines == ["index,name\n", "0,s30\n", "1,s4\n", "0,s30\n", "1,s4\n"]
