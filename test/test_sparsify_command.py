"""`python -m spu_ir.sparsify`: what it writes, says and refuses; and the benchmark's table."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks import sparsify as benchmark
from spu_ir.sparsify import magnitude, second_order
from spu_ir.sparsify.__main__ import main
from spu_ir.zoo import common, linear

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(linear().SerializeToString())
    return path


@pytest.fixture
def feeds(tmp_path: Path) -> Path:
    path = tmp_path / "feeds.npz"
    random = np.random.default_rng(0)
    mixed = random.standard_normal((128, 128)).astype(np.float32)
    shapes = {"0/x": (60, 128), "1/x": (30, 128)}
    np.savez(
        path,
        **{key: random.standard_normal(s).astype(np.float32) @ mixed for key, s in shapes.items()},
    )
    return path


def test_magnitude_is_the_default(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = model.with_name("pruned.onnx")
    assert main([str(model), "--ratio", "8", "-o", str(output)]) == 0
    assert onnx.load(output) == magnitude(linear(), 8)
    printed = capsys.readouterr()
    assert "12.5%" in printed.out
    assert printed.err == ""


def test_second_order_reports_its_errors_as_json(
    model: Path, feeds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = model.with_name("pruned.onnx")
    arguments = ["--method", "second-order", "--calibration", str(feeds), "--json"]
    assert main([str(model), "--ratio", "4", *arguments, "-o", str(output)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["method"] == "second-order"
    (layer,) = report["layers"]
    assert layer["density"] == 0.25
    assert 0 < layer["error"] < layer["magnitude_error"]
    assert 0 < layer["relative_error"] < 1
    with np.load(feeds) as arrays:
        given = [{"x": arrays["0/x"]}, {"x": arrays["1/x"]}]
        assert onnx.load(output) == second_order(linear(), 4, given)


def test_unstructured_and_ratios_by_name(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "pruned.onnx"
    arguments = [str(model), "-o", str(output), "--ratio"]
    assert main([*arguments, "12.5", "--method", "unstructured"]) == 0
    assert density_of(output) == pytest.approx(0.08, abs=1e-3)
    assert main([*arguments, "nothing=2", "--ratio", "*=16"]) == 1
    assert main([*arguments, "*=16"]) == 0
    assert density_of(output) == 1 / 16
    assert main([*arguments, "16", "--keep", "*"]) == 0
    assert density_of(output) == 1


def density_of(path: Path) -> float:
    (weight,) = [t for t in onnx.load(path).graph.initializer if len(t.dims) == 2]
    array = numpy_helper.to_array(weight)
    return np.count_nonzero(array) / array.size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ratio", "3"], "ratio 3 is not one of the sparse format's"),
        (["--ratio", "many"], "--ratio 'many' is neither N nor GLOB=N"),
        (["--ratio", "0"], "--ratio '0' is neither N nor GLOB=N"),
        (["--ratio", "=4"], "--ratio '=4' is neither N nor GLOB=N"),
        (["--ratio", "8", "--ratio", "a=4"], "--ratio '8' is for all layers"),
        (["--ratio", "8", "--keep", "zz"], "'zz' is the name of no layer"),
        (["--ratio", "8", "--bank", "16"], "there is no bank of 16"),
        (["--ratio", "8", "--method", "second-order"], "second-order, and no other method"),
        (["--ratio", "8", "--calibration", "x.npz"], "second-order, and no other method"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_written(
    arguments: list[str], message: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = model.with_name("pruned.onnx")
    assert main([str(model), "-o", str(output), *arguments]) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert [path.name for path in model.parent.iterdir()] == ["model.onnx"]


def test_files_that_cannot_be_read_or_written(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "pruned.onnx"
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model at all")
    for given, target, message in (
        (tmp_path / "missing.onnx", output, "error: cannot read the model"),
        (broken, output, "error: "),
        (model, tmp_path / "no" / "pruned.onnx", "error: cannot write"),
    ):
        assert main([str(given), "-o", str(target), "--ratio", "8"]) == 1
        assert capsys.readouterr().err.startswith(message)
    assert not output.exists()


def test_a_failed_write_leaves_what_was_there(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = model.read_bytes()

    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main([str(model), "-o", str(model), "--ratio", "8"]) == 1
    assert capsys.readouterr().err.endswith("No space left on device\n")
    assert model.read_bytes() == before
    assert [path.name for path in model.parent.iterdir()] == ["model.onnx"]


def test_large_models_keep_their_weights_beside_them(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = model.with_name("pruned.onnx")
    monkeypatch.setattr(common, "EXTERNAL_BYTES", 100)
    assert main([str(model), "-o", str(output), "--ratio", "8"]) == 0
    assert output.with_name("pruned.onnx.data").exists()
    assert density_of(output) == 1 / 8
    # The path alone is enough for the functions, too.
    assert len(magnitude(output, 8).graph.initializer) == len(onnx.load(output).graph.initializer)


def test_the_table_of_the_documentation_is_the_benchmarks() -> None:
    page = (DOCS / benchmark.PAGE).read_text(encoding="utf-8")
    _, _, rest = page.partition(benchmark.MARKS[0])
    text, end, _ = rest.partition(benchmark.MARKS[1])
    assert end
    header = benchmark.table(
        {"results": [], "date": "", "machine": "", "model": ""}
        | dict.fromkeys(("test_sentences", "corpus_sentences"), 0)
        | dict.fromkeys(("calibration_sentences", "calibration_tokens"), 0),
        "",
    ).splitlines()[:2]
    lines = text.strip().splitlines()
    assert lines[:2] == header
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:-2]]
    command = re.search(
        r"Made by `python -m ([\w.]+)(?: --ratios ([\d,]+))? --write docs` on \d{4}-\d\d-\d\d",
        lines[-1],
    )
    assert command is not None
    assert find_spec(command[1]) is not None
    ratios = [int(r) for r in command[2].split(",")] if command[2] else list(benchmark.RATIOS)
    wanted = [("1x", "dense")]
    wanted += [(f"{ratio}x", method) for ratio in ratios for method in benchmark.METHODS]
    assert [(row[0], row[1]) for row in rows] == wanted
    cosine = {(row[0], row[1]): float(row[2]) for row in rows}
    for ratio in ("2x", "4x", "8x"):
        assert cosine[ratio, "second-order"] > cosine[ratio, "magnitude"]


def test_the_benchmark_writes_only_its_part_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / benchmark.PAGE
    page.write_text("before\n" + "old\n".join(benchmark.MARKS) + "after\n")
    benchmark.write(tmp_path, "| new |\n")
    assert page.read_text() == "before\n" + "\n| new |\n\n".join(benchmark.MARKS) + "after\n"
    page.write_text("no place\n")
    with pytest.raises(SystemExit, match="has no place for the table"):
        benchmark.write(tmp_path, "")


@pytest.mark.slow
def test_calibration_and_test_sentences_are_different() -> None:
    """Of all docstrings of the standard library, which take their time to read."""
    calibration, test = benchmark.sentences()
    assert len(calibration) > benchmark.CALIBRATION
    assert len(test) > benchmark.TESTED
    assert not set(calibration) & set(test)
