"""Packages: what save writes, load reads, and damaged or foreign ones are refused."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.programs import ADD, LOOKUP, add_reference

from spu_ir.errors import SpuError
from spu_ir.runtime import CompiledModel, load
from spu_ir.runtime.isa import architecture_levels
from spu_ir.runtime.package import read_package
from spu_ir.runtime.program import weight_offsets

LEFT = np.arange(12, dtype=np.float32).reshape(3, 4)
FEEDS = {"left side": LEFT, "right": LEFT * LEFT}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "add.spu"
    CompiledModel.from_program(ADD, options={"target": "s4"}).save(path)
    return path


@pytest.fixture
def package(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "copy.spu"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_saved_model_is_loaded_again(saved: Path) -> None:
    model = load(saved, threads=2)
    assert (model.inputs, model.outputs, model.extents) == (ADD.inputs, ADD.outputs, ADD.extents)
    assert model.report() == ADD.report
    assert model.options == {"target": "s4"}
    assert (model.ir(), model.ir("c")) == (ADD.ir, ADD.source)
    np.testing.assert_array_equal(
        model.run(FEEDS)["sum"], add_reference(FEEDS["left side"], FEEDS["right"])
    )


def test_the_folder_is_what_the_format_says(saved: Path) -> None:
    assert names(saved) == [
        "lib",
        "manifest.json",
        "program.c",
        "program.mlir",
        "weights.safetensors",
    ]
    levels = {name.split("-")[0] for name in names(saved / "lib")}
    assert levels == set(architecture_levels())
    manifest = json.loads((saved / "manifest.json").read_text())
    assert manifest["version"] == [1, 2]
    assert manifest["inputs"][0] == {
        "name": "left side",
        "dtype": "float32",
        "shape": ["batch", "seq"],
    }


def test_weights_are_aligned_and_readable_by_others(saved: Path) -> None:
    raw = (saved / "weights.safetensors").read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    assert start % 4096 == 0
    entries = json.loads(raw[8:start])
    for name, offset in weight_offsets(ADD.weights).items():
        assert entries[name]["data_offsets"][0] == offset
        assert offset % 64 == 0
    tensors = load_file(saved / "weights.safetensors")
    for name, array in ADD.weights.items():
        np.testing.assert_array_equal(tensors[name], array)


def test_two_saves_are_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    load(saved).save(tmp_path / "again.spu")
    for path in saved.rglob("*"):
        if path.is_file():
            assert (tmp_path / "again.spu" / path.relative_to(saved)).read_bytes() == (
                path.read_bytes()
            ), path


def test_levels_can_be_chosen(saved: Path, tmp_path: Path) -> None:
    load(saved).save(tmp_path / "c.spu", levels=["c"])
    model = load(tmp_path / "c.spu")
    assert model.level == "c"
    assert len(names(tmp_path / "c.spu" / "lib")) == 1
    with pytest.raises(SpuError, match="at least one ISA level"):
        model.save(tmp_path / "none.spu", levels=[])


def test_loading_and_running_need_no_compiler_and_no_cache(saved: Path) -> None:
    code = f"""
import numpy as np
from spu_ir.runtime import load
x = np.ones((2, 3), np.float32)
print(load({str(saved)!r}).run({{"left side": x, "right": x}})["sum"][1].tolist())
"""
    env = {**os.environ, "PATH": "/nowhere", "CC": "none", "SPU_IR_CACHE": "/proc/none"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("[2.0, 3.0, 4.0]\n", "")


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("verify", ["once", "always"])
@pytest.mark.parametrize(
    "name", ["manifest.json", "program.c", "program.mlir", "weights.safetensors", "lib/c-*"]
)
@pytest.mark.parametrize(
    "damage", [flip_last_byte, Path.unlink, lambda path: path.write_bytes(b"")]
)
def test_damage_is_found_and_named(
    package: Path, name: str, damage: Callable[[Path], Any], verify: Any
) -> None:
    load(package)
    (path,) = package.glob(name)
    damage(path)
    with pytest.raises(SpuError) as caught:
        load(package, verify=verify)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_are_verified_once_or_always(package: Path, monkeypatch: Any) -> None:
    hashed: list[str] = []
    real = sys.modules["spu_ir.runtime.package"]._file_digest

    def counting(path: Path) -> str:
        hashed.append(path.name)
        return real(path)

    monkeypatch.setattr("spu_ir.runtime.package._file_digest", counting)
    for verify in ("once", "once", "always", "once"):
        read_package(package, verify)
    assert hashed.count("weights.safetensors") == 2
    os.utime(package / "weights.safetensors")
    read_package(package)
    assert hashed.count("weights.safetensors") == 3
    assert hashed.count(next((package / "lib").glob("c-*")).name) == 5
    with pytest.raises(SpuError, match="verify='never' is unknown"):
        load(package, verify="never")  # pyright: ignore[reportArgumentType]


def test_saving_verifies_the_weights(saved: Path, tmp_path: Path, monkeypatch: Any) -> None:
    model = load(saved)
    hashed: list[str] = []
    real = sys.modules["spu_ir.runtime.package"]._file_digest

    def counting(path: Path) -> str:
        hashed.append(path.name)
        return real(path)

    monkeypatch.setattr("spu_ir.runtime.package._file_digest", counting)
    model.save(tmp_path / "model.spu")
    hashed.clear()
    read_package(tmp_path / "model.spu")
    assert "weights.safetensors" not in hashed
    weights = tmp_path / "model.spu" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(SpuError, match="its digest is not the manifest's"):
        read_package(tmp_path / "model.spu")


def rewrite(package: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest and give it a digest that fits."""
    manifest = json.loads((package / "manifest.json").read_text())
    change(manifest)
    manifest["digest"] = sys.modules["spu_ir.runtime.package"]._manifest_digest(manifest)
    (package / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format="other"), "is not the manifest of a package"),
        (lambda m: m.update(version=[2, 0]), r"version \[2, 0\].*reads 1.x; update spu-ir"),
        (lambda m: m.update(version=[0, 9]), r"reads 1.x; compile the model again"),
        (lambda m: m.update(version=[]), "reads 1.x"),
        (lambda m: m["host"].update(machine="pdp11"), "compiled for Linux on pdp11"),
        (lambda m: m.pop("inputs"), "'inputs' is missing"),
        (lambda m: m.update(inputs=[7]), "a table is missing"),
        (lambda m: m["inputs"][0].update(dtype="object"), "unknown dtype 'object'"),
        (lambda m: m["inputs"][0].update(shape=[-1]), "impossible extent -1"),
        (lambda m: m["inputs"][0].update(shape=[1.5]), "a shape is not of numbers and names"),
        (lambda m: m["inputs"][0].update(shape=["?"]), "unknown extent"),
        (lambda m: m["inputs"][1].update(name="left side"), "two inputs with the name"),
        (lambda m: m["extents"][0].update(maximum=True), "'maximum' is missing or no whole"),
        (lambda m: m["extents"][0].update(minimum=100), "are no range"),
        (lambda m: m["libraries"].update(c="../../evil"), "the digest of level c is none"),
        (lambda m: m["libraries"].update(c="0" * 64), "c-0000000000000000"),
        (lambda m: m.update(libraries={}), "built for no level"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(
    package: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    rewrite(package, change)
    with pytest.raises(SpuError, match=message):
        load(package)


def test_levels_of_later_minor_versions_are_skipped(package: Path) -> None:
    rewrite(package, lambda m: (m["libraries"].update(avx99="?"), m.update(version=[1, 7])))
    assert load(package).run(FEEDS)["sum"].shape == (3, 4)


@pytest.mark.parametrize("text", ["", "[]", "{", "nul", '{"a": ' * 100_000])
def test_a_manifest_that_is_no_table_is_refused(package: Path, text: str) -> None:
    (package / "manifest.json").write_text(text)
    with pytest.raises(SpuError, match=r"manifest\.json' is damaged"):
        load(package)


def with_header(header: str, data: int = 64) -> bytes:
    text = header.encode().ljust(4088)
    return len(text).to_bytes(8, "little") + text + bytes(data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x10", "longer than the file"),
        (b"\xff" * 4096, "longer than the file"),
        ((92).to_bytes(8, "little") + b"{}".ljust(92), "multiple of 4096"),
        (with_header("[]"), "not a table"),
        (with_header("{"), "not JSON"),
        (with_header('{"a": {"dtype": "F32"}}'), "incomplete"),
        (with_header('{"a": {"dtype": "X", "shape": [], "data_offsets": [0, 4]}}'), "incomplete"),
        (with_header('{"a": {"dtype": "U8", "shape": [9], "data_offsets": [0, 64]}}'), "shape"),
        (with_header('{"a": {"dtype": "U8", "shape": [64], "data_offsets": [1, 65]}}'), "shape"),
        (
            with_header(
                '{"a": {"dtype": "U8", "shape": [-8, -8], "data_offsets": [0, 64]}}',
            ),
            "shape",
        ),
        (
            with_header(
                '{"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},'
                ' "b": {"dtype": "U8", "shape": [60], "data_offsets": [4, 64]}}'
            ),
            "aligned",
        ),
        (
            with_header('{"a": {"dtype": "U8", "shape": [640], "data_offsets": [0, 640]}}'),
            "describes",
        ),
    ],
)
def test_weights_out_of_place_are_refused(package: Path, content: bytes, message: str) -> None:
    """Even with digests that fit: offsets and sizes decide what memory is read."""
    path = package / "weights.safetensors"
    path.write_bytes(content)
    digest = sys.modules["spu_ir.runtime.package"]._file_digest(path)
    rewrite(package, lambda m: m["files"].update({path.name: digest}))
    with pytest.raises(SpuError, match=rf"weights\.safetensors' are damaged: .*{message}"):
        load(package)


def test_an_older_package_is_replaced_and_nothing_else(package: Path) -> None:
    other = CompiledModel.from_program(LOOKUP)
    other.save(package, levels=["c"])
    assert load(package).inputs == LOOKUP.inputs
    assert names(package.parent) == [package.name]

    folder = package.parent / "photos"
    folder.mkdir()
    other.save(folder, levels=["c"])  # An empty folder is fine.
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "holiday.jpg").touch()
    with pytest.raises(SpuError, match="exists and is not a package; choose another"):
        other.save(folder)
    (package.parent / "file").touch()
    with pytest.raises(SpuError, match="exists and is not a package"):
        other.save(package.parent / "file")
    assert names(folder) == ["holiday.jpg"]


def test_a_model_in_use_survives_being_replaced(package: Path) -> None:
    model = load(package)
    CompiledModel.from_program(LOOKUP).save(package, levels=["c"])
    replaced = load(package)
    assert model.run(FEEDS)["sum"].shape == (3, 4)
    assert replaced.run({"indices": np.array([3, 0])})["values"].tolist() == [3.5, 0.5]


@contextmanager
def small_disk() -> Iterator[None]:
    """As if the disk were full after 4 KB of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_nothing_behind(package: Path) -> None:
    model = load(package)
    for path in (package.parent / "new.spu", package):
        with small_disk(), pytest.raises(SpuError, match=r"cannot write a package.*has space"):
            model.save(path)
    with small_disk(), pytest.raises(SpuError, match="cannot write an exported program"):
        model.export_c(package.parent / "c")
    assert names(package.parent) == [package.name]
    assert load(package).run(FEEDS)["sum"].shape == (3, 4)


@pytest.mark.parametrize("where", ["/proc/new.spu", "missing/new.spu"])
def test_a_folder_that_cannot_be_written_is_an_error(
    saved: Path, tmp_path: Path, where: str
) -> None:
    with pytest.raises(SpuError, match="cannot write a package to"):
        load(saved).save(tmp_path / where)
    assert names(tmp_path) == []


def test_a_missing_package_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpuError, match=r"cannot read .*manifest\.json.*give the folder that save"):
        load(tmp_path / "none.spu")
