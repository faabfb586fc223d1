"""Tile sizes: what suits which caches, what a search chooses, and what stays of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from support.models import MODELS, SHAPES, feeds

import spu_ir
from spu_ir import api, tune, tune_program
from spu_ir.errors import SpuError
from spu_ir.media import ImageInput
from spu_ir.runtime.caches import L1D, L2, Caches, host_caches
from spu_ir.runtime.cpu import select_level
from spu_ir.tools.spu_compile import main as spu_compile
from spu_ir.transforms.tile_sizes import Tiling, suited
from spu_ir.tune import Choice, Emitted, remembered, search
from spu_ir.tune_program import Tuner

KB, MB = 1 << 10, 1 << 20


@pytest.mark.parametrize(
    ("l1d", "l2", "threads", "expected"),
    [
        (32 * KB, 1 * MB, 1, ""),
        (32 * KB, 1 * MB, 14, ""),
        (48 * KB, 2 * MB, 2, "tile_bytes=36864,elements=12288"),
        (32 * KB, 256 * KB, 2, "lanes_a_block=96,channels_a_block=32"),
        (32 * KB, 512 * KB, 2, "lanes_a_block=192,channels_a_block=96"),
        (32 * KB, 1 * MB, 32, "lanes_a_block=160,channels_a_block=96"),
        (16 * KB, 1, 256, "tile_bytes=12288,lanes_a_block=32,channels_a_block=32,elements=4096"),
    ],
)
def test_sizes_follow_the_caches(l1d: int, l2: int, threads: int, expected: str) -> None:
    tiling = suited(l1d, l2, threads)
    assert str(tiling) == expected
    assert Tiling.parse(expected) == tiling


def list_caches(system: Path, cpu: int, *levels: tuple[str, str, str, str]) -> None:
    for number, texts in enumerate(levels):
        folder = system / f"cpu{cpu}" / "cache" / f"index{number}"
        folder.mkdir(parents=True)
        for name, text in zip(("level", "type", "size", "shared_cpu_list"), texts, strict=True):
            (folder / name).write_text(text + "\n")


@pytest.fixture
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 5}, raising=False)


@pytest.mark.usefixtures("two_processors")
def test_caches_are_those_of_one_core(tmp_path: Path) -> None:
    """Two cores of two processors each share the second level; the other core is smaller."""
    code = ("1", "Instruction", "64K", "0-1")
    list_caches(
        tmp_path, 0, ("1", "Data", "48K", "0-1"), code, ("2", "Unified", "2M", "0-2,7"),
        ("3", "Unified", "32768K", "0-63"),
    )  # fmt: skip
    list_caches(tmp_path, 5, ("1", "Data", "32K", "5"), ("2", "Unified", "4096K", "5"))
    assert host_caches(tmp_path) == Caches(32 * KB, 1 * MB)


@pytest.mark.usefixtures("two_processors")
@pytest.mark.parametrize("size", ["", "0K", "many", "-4K"])
def test_unknown_caches_have_a_fall_back(tmp_path: Path, size: str) -> None:
    list_caches(tmp_path, 0, ("1", "Data", size, "0"), ("x", "Unified", "4M", "0"))
    list_caches(tmp_path, 5)
    assert host_caches(tmp_path) == Caches(L1D, L2)


@pytest.mark.parametrize(
    "text", ["rows=3", "elements", "elements=", "elements=1.5", "elements=0", "elements=999999999"]
)
def test_bad_sizes_are_named(text: str) -> None:
    with pytest.raises(SpuError, match="tiling: "):
        Tiling.parse(text)


ODD = Tiling(tile_bytes=300, rows_a_block=33, lanes_a_block=40, channels_a_block=17, elements=70)


@pytest.mark.parametrize("sparsity", [None, 8])
@pytest.mark.parametrize(
    "name",
    ["convolutions", *(pytest.param(n, marks=pytest.mark.slow) for n in ("block", "depthwise"))],
)
def test_outputs_do_not_depend_on_sizes(name: str, sparsity: int | None) -> None:
    calibration = [feeds(name, seed, 2, 9) for seed in range(2)]
    models = [
        spu_ir.compile(
            MODELS[name](),
            calibration=calibration,
            shapes=SHAPES[name],
            tiling=tiling,
            threads=2,
            sparsity=sparsity,
        )
        for tiling in (Tiling(), ODD)
    ]
    for batch, seq in ((1, 1), (3, 33)):
        inputs = feeds(name, 5, batch, seq)
        usual, odd = (model.run(inputs)["y"] for model in models)
        assert np.array_equal(odd.view(np.uint32), usual.view(np.uint32))
    assert models[0].ir("tiled") != models[1].ir("tiled")
    if name != "depthwise":
        assert ("lane_pairs" in models[1].ir("tiled")) == (sparsity is not None)


def test_sizes_are_in_the_program_and_its_options() -> None:
    usual, other = (
        spu_ir.compile(
            MODELS["perceptron"](), shapes=SHAPES["perceptron"], tiling=tiling, precision="fp32"
        )
        for tiling in (Tiling(), Tiling(elements=4096))
    )
    assert "tiling" not in usual.options
    assert " tiling " not in usual.ir("c")
    assert other.options["tiling"] == json.loads(json.dumps(vars(Tiling(elements=4096))))
    assert "padding compute, tiling elements=4096\n" in other.ir("c")


def test_a_compilation_takes_what_suits_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_program, "host_caches", lambda: Caches(48 * KB, 512 * KB))
    model = spu_ir.compile(
        MODELS["perceptron"](), shapes=SHAPES["perceptron"], precision="fp32", threads=2
    )
    assert model.options["tiling"] == vars(suited(48 * KB, 512 * KB, 2))


def timed(seconds: Callable[[Tiling], float], runs: list[Tiling]) -> Callable[[Tiling], Emitted]:
    """Programs that pretend to take some time."""

    def emit(tiling: Tiling) -> Emitted:
        def run() -> float:
            runs.append(tiling)
            return seconds(tiling)

        return Emitted(str(tiling), lambda: run)

    return emit


def test_a_search_finds_what_is_faster() -> None:
    def seconds(tiling: Tiling) -> float:
        return 1e-3 * (1 - 0.2 * (tiling.elements < 8192) - 0.1 * (tiling.rows_a_block == 28))

    runs: list[Tiling] = []
    told: list[tuple[int, int]] = []
    choice = search(Tiling(), timed(seconds, runs), lambda *done: told.append(done))
    assert choice.tiling == Tiling(rows_a_block=28, elements=4096)
    assert len(set(runs)) == 11
    assert told == [(done, 11) for done in range(1, 12)]
    final: Any = choice.measured["final"]
    assert final["ms"]["median"] == pytest.approx(0.7)
    assert final["start_ms"]["median"] == pytest.approx(1.0)


@pytest.mark.parametrize("gain", [0.0, 0.015, -0.5])
def test_the_start_stays_where_nothing_is_much_faster(gain: float) -> None:
    runs: list[Tiling] = []
    choice = search(
        Tiling(), timed(lambda t: 1e-3 * (1 - gain * (t != Tiling())), runs), lambda *_: None
    )
    assert choice.tiling == Tiling()
    assert len(set(runs)) == 11
    if gain < 0:
        # Hopeless ones are not measured for long: once to warm up, then the fewest rounds.
        assert all(runs.count(t) == 1 + tune.LEAST for t in set(runs) - {Tiling()})


def test_noise_in_the_median_alone_is_no_gain() -> None:
    turns = [0]

    def seconds(tiling: Tiling) -> float:
        turns[0] += 1
        return 1e-3 if tiling != Tiling() or turns[0] % 4 == 1 else 1.5e-3

    assert search(Tiling(), timed(seconds, []), lambda *_: None).tiling == Tiling()


def test_programs_that_are_alike_run_once() -> None:
    runs: list[Tiling] = []
    emit = timed(lambda _: 1e-3, runs)

    def only_elements(tiling: Tiling) -> Emitted:
        return Emitted(str(tiling.elements), emit(tiling).start)

    choice = search(Tiling(), only_elements, lambda *_: None)
    assert {t.elements for t in runs} == {4096, 8192, 16384}
    assert len(set(runs)) == 3
    candidates = choice.measured["candidates"]
    assert isinstance(candidates, list)
    assert len(candidates) == 2


KEY = "0123456789abcdef" * 4


def chooser(counted: list[Choice]) -> Callable[[], Choice]:
    def choose() -> Choice:
        counted.append(Choice(Tiling(elements=64 * (1 + len(counted))), {"candidates": []}))
        return counted[-1]

    return choose


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("SPU_IR_CACHE", str(tmp_path))
    return tmp_path / "tuning"


def test_a_choice_is_kept(folder: Path) -> None:
    counted: list[Choice] = []
    assert [remembered(KEY, chooser(counted)) for _ in range(3)] == [counted[0]] * 3
    assert len(counted) == 1
    assert remembered(KEY[::-1], chooser(counted)) == counted[1]
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("}\n", ""),
        ("{", "["),
        ("tuning 1", "tuning 0"),
        ('"elements"', '"element"'),
        ("14", "-14"),
        ("14", '"14"'),
        (KEY, KEY[::-1]),
        ('"measured"', '"measures"'),
    ],
)
@pytest.mark.parametrize("named", [False, True], ids=["damaged", "foreign"])
def test_any_other_file_is_replaced(folder: Path, old: str, new: str, named: bool) -> None:
    """Damaged ones do not have the digest of their name, foreign ones do."""
    counted: list[Choice] = []
    remembered(KEY, chooser(counted))
    (path,) = folder.iterdir()
    kept = path.read_text()
    assert old in kept
    changed = kept.replace(old, new).encode()
    path.write_bytes(changed)
    if named:
        path.rename(folder / f"{KEY}-{hashlib.sha256(changed).hexdigest()[:32]}.json")
    assert remembered(KEY, chooser(counted)) == counted[1]
    assert remembered(KEY, chooser(counted)) == counted[1]
    assert len(counted) == 2
    (path,) = folder.iterdir()
    assert json.loads(path.read_bytes())["key"] == KEY


def test_a_search_that_fails_leaves_nothing(folder: Path) -> None:
    def fail() -> Choice:
        raise SpuError("no compiler")

    with pytest.raises(SpuError, match="no compiler"):
        remembered(KEY, fail)
    assert list(folder.iterdir()) == []


def tuned(**options: Any) -> spu_ir.CompiledModel:
    usual: dict[str, Any] = {"threads": 2, "tune_extents": {"batch": 1, "seq": 9}}
    return spu_ir.compile(
        MODELS["perceptron"](), shapes=SHAPES["perceptron"], tune=True, **{**usual, **options}
    )


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of two programs, since each has to be compiled."""
    monkeypatch.setattr(tune, "GRID", (("elements", (0.5,)),))


@pytest.mark.usefixtures("few", "folder")
@pytest.mark.slow
def test_the_second_compilation_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def progress(what: str, _done: int, _total: int) -> None:
        told.append(what)

    first = tuned(progress=progress)
    assert "tune" in told
    what: Any = first.options["tuning"]
    assert what["level"] == select_level()
    assert (what["threads"], what["extents"]) == (2, {"batch": 1, "seq": 9})
    assert [c["tiling"]["elements"] for c in what["candidates"]] == [4096]
    assert all(c["ms"]["rounds"] >= tune.LEAST for c in what["candidates"])

    def no_clock() -> float:
        raise AssertionError("it measured")

    monkeypatch.setattr(tune_program, "clock", no_clock)
    second = tuned()
    assert second.options == first.options
    assert second.ir("c") == first.ir("c")
    with pytest.raises(AssertionError, match="it measured"):
        tuned(sparsity=4)


@pytest.mark.usefixtures("few")
def test_the_faster_program_is_what_is_compiled(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """With a clock that runs slower for other programs than the first that was started."""
    started: list[object] = []

    def pretend(model: object, _: object) -> Callable[[], float]:
        started.append(model)
        seconds = 1.0 / len(started)
        return lambda: seconds

    monkeypatch.setattr(tune_program, "_timed", pretend)
    model = tuned()
    assert model.options["tiling"] == vars(Tiling(elements=4096))
    assert len(started) == 2
    # What was measured is what runs: it is not compiled a third time.
    assert len(list((folder.parent / "libraries").glob("*.so"))) == 2
    inputs = feeds("perceptron", 1, 2, 7)
    plain, _ = api.lower(MODELS["perceptron"](), shapes=SHAPES["perceptron"])
    expected = spu_ir.CompiledModel.from_program(plain).run(inputs)["y"]
    assert np.array_equal(model.run(inputs)["y"], expected)


@pytest.mark.usefixtures("few", "folder")
def test_what_goes_together_in_no_way_is_said() -> None:
    for options, said in (
        ({"tiling": Tiling()}, "tune would choose"),
        ({"tune_extents": {"rows": 1}}, "no extent 'rows'; one of batch, seq"),
        ({"tune_extents": {"batch": 0}}, "batch=0 is outside"),
    ):
        with pytest.raises(SpuError, match=said):
            tuned(**options)
    with pytest.raises(SpuError, match="give tune=True"):
        spu_ir.compile(MODELS["perceptron"](), tune_extents={"batch": 1})


@pytest.mark.usefixtures("few", "folder")
def test_images_are_made_for_a_program_that_takes_them() -> None:
    shape = "float[batch, 3, 16, 16]"
    text = f"g ({shape} x) => ({shape} y) {{ y = Sigmoid(x) }}"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    tuner = Tuner(select_level(), 1, {}, ImageInput(size=16, resize=24))
    _, job = api.lower(
        model,
        shapes={"batch": (1, 3)},
        precision="fp32",
        preprocess=tuner.images,
        tuner=tuner,
    )
    assert job.tuning is not None
    extents: Any = job.tuning["extents"]
    assert extents["batch"] == 3
    assert job.tiling == spu_ir.Tiling() or job.tiling == spu_ir.Tiling(elements=4096)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "perceptron.onnx"
    path.write_bytes(MODELS["perceptron"]().SerializeToString())
    return path


SHAPE_OPTIONS = ("--shapes", "batch=1:4,seq=1:48")


@pytest.mark.usefixtures("few", "folder")
def test_the_command_tunes(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "tuned.spu")
    level = select_level()
    line = [str(file), "-o", out, *SHAPE_OPTIONS, "--levels", level]
    assert spu_compile([*line, "--tune", "--tune-extents", "batch=2,seq=5"]) == 0
    model = spu_ir.load(out)
    tuning: Any = model.options["tuning"]
    assert tuning["extents"] == {"batch": 2, "seq": 5}
    chosen = str(Tiling.from_json(tuning["chosen"])) or "the default"
    assert f"tiling: {chosen}\n" in capsys.readouterr().out


def test_the_command_takes_sizes(file: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "sized.spu")
    line = [str(file), "-o", out, *SHAPE_OPTIONS, "--levels", select_level()]
    assert spu_compile([*line, "--tiling", "elements=512,lanes_a_block=64"]) == 0
    sizes = Tiling(elements=512, lanes_a_block=64)
    assert spu_ir.load(out).options["tiling"] == vars(sizes)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tiling", "elements=x"), "tiling: 'elements=x' is not name=number"),
        (("--tune", "--tiling", "elements=64"), "leave one of them out"),
        (("--tune", "--tune-extents", "batch=1:2"), "batch is no number"),
        (("--tune-extents", "batch=1"), "give tune=True"),
    ],
)
def test_errors_of_the_command_are_one_line(
    file: Path, tmp_path: Path, options: tuple[str, ...], said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    line = [str(file), "-o", str(tmp_path / "x"), *SHAPE_OPTIONS, *options]
    assert spu_compile(line) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("threads", "expected"), [(1, 2.0), (2, 30.0)])
def test_one_thread_is_measured_by_its_processor_time(
    threads: int, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, start, end in (("thread_clock", 1.0, 3.0), ("clock", 10.0, 40.0)):
        monkeypatch.setattr(tune_program, name, iter((start, end)).__next__)
    model: Any = SimpleNamespace(threads=threads, run=lambda _: {})
    timed_run = vars(tune_program)["_timed"]
    assert timed_run(model, {})() == expected
