"""`spu-perf install-backend`: into a checkout and out again, with nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.byte_mlperf import backend_class, checkout, engine_folder

from spu_ir import SpuError
from spu_ir.contrib.byte_mlperf.compile_side import BUILD, CompileSide
from spu_ir.contrib.byte_mlperf.install import BACKUP, FILES, general_perf_of, install, uninstall
from spu_ir.contrib.byte_mlperf.runtime_side import RuntimeSide
from spu_ir.tools import spu_perf

THEIRS = {
    "compile_backend_spu.py": "# their compile backend\n",
    "runtime_backend_spu.py": "# their runtime backend\n",
    "requirements.txt": "tensorflow==2.8.4\n",
    "base_compile.py": "# stays\n",
}


@pytest.fixture
def backend(tmp_path: Path) -> Path:
    """`backends/SPU` of a checkout, with the files of the former backend."""
    folder = checkout(tmp_path) / "backends" / "SPU"
    for name, text in THEIRS.items():
        (folder / name).write_text(text)
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_in_and_out(backend: Path) -> None:
    done = install(backend.parents[3])
    assert [line.split(":")[0] for line in done] == ["backed up"] * 3 + ["written"] * 2
    saved = {f"{BACKUP}/{name}": THEIRS[name] for name in (*FILES, "requirements.txt")}
    there = {**FILES, "base_compile.py": THEIRS["base_compile.py"], **saved}
    assert contents(backend) == there

    assert install(backend.parents[3]) == []
    assert contents(backend) == there

    (backend / BUILD / "task").mkdir(parents=True)
    (backend / BUILD / "task" / "model.onnx").write_text("made")
    (backend / "spu_ir.json").write_text("{}")
    done = uninstall(backend.parents[3])
    assert [line.split(":")[0] for line in done] == [
        *("removed", "restored") * 2,
        "restored",
        "removed",
    ]
    assert contents(backend) == {**THEIRS, "spu_ir.json": "{}"}
    assert not (backend / BACKUP).exists()
    assert uninstall(backend.parents[3]) == []


@pytest.mark.parametrize("name", ["ByteMLPerf", "byte_infer_perf", "general_perf"])
def test_where_it_is_found(tmp_path: Path, name: str) -> None:
    general = checkout(tmp_path)
    path = next(folder for folder in (general, *general.parents) if folder.name == name)
    assert general_perf_of(path) == general


def test_a_checkout_without_a_backend_is_left_without_one(tmp_path: Path) -> None:
    general = checkout(tmp_path)
    (general / "backends" / "SPU").rmdir()
    assert len(install(general)) == 2
    assert sorted(contents(general / "backends" / "SPU")) == sorted(FILES)
    assert len(uninstall(general)) == 2
    assert not (general / "backends" / "SPU").exists()


def test_an_earlier_backup_is_never_written_over(backend: Path) -> None:
    general = backend.parents[1]
    install(general)
    # An update of the checkout brings files of its own back, one of them changed.
    (backend / "compile_backend_spu.py").write_text("# a newer compile backend\n")
    (backend / "requirements.txt").write_text(THEIRS["requirements.txt"])
    done = install(general)
    assert [line.split(":")[0] for line in done] == ["backed up", "written"]
    kept = contents(backend / BACKUP)
    assert kept["compile_backend_spu.py"] == THEIRS["compile_backend_spu.py"]
    assert kept["compile_backend_spu.py.2"] == "# a newer compile backend\n"
    assert not (backend / "requirements.txt").exists()

    uninstall(general)
    assert (backend / "compile_backend_spu.py").read_text() == "# a newer compile backend\n"
    assert (backend / "requirements.txt").read_text() == THEIRS["requirements.txt"]
    assert contents(backend / BACKUP) == {"compile_backend_spu.py": "# their compile backend\n"}


def test_the_files_of_another_version_are_renewed_and_not_kept(backend: Path) -> None:
    install(backend.parents[1])
    target = backend / "compile_backend_spu.py"
    target.write_text(FILES[target.name] + "# older\n")
    assert install(backend.parents[1]) == [f"written: {target}"]
    assert len(contents(backend / BACKUP)) == 3


def test_what_others_put_in_its_place_stays(backend: Path) -> None:
    install(backend.parents[1])
    for name, text in THEIRS.items():
        (backend / name).write_text(text)
    (backend / "runtime_backend_spu.py").write_text("# by somebody else\n")
    assert uninstall(backend.parents[1]) == []
    assert contents(backend) == {
        **THEIRS,
        "runtime_backend_spu.py": "# by somebody else\n",
        f"{BACKUP}/runtime_backend_spu.py": THEIRS["runtime_backend_spu.py"],
    }


def test_the_engine_finds_the_classes(backend: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(backend.parents[1])
    with engine_folder(backend.parents[1], monkeypatch):
        compiler, runtime = backend_class("compile")(), backend_class("runtime")()
        bases = {base.__module__ for base in type(compiler).__mro__}
        assert "general_perf.backends.compile_backend" in bases
    assert isinstance(compiler, CompileSide)
    assert isinstance(runtime, RuntimeSide)
    for one in (compiler, runtime):
        assert one.hardware_type == "SPU"
        assert one.folder == backend
        assert one.version()[0].isdigit()


def test_the_command(backend: Path, capsys: pytest.CaptureFixture[str]) -> None:
    general = str(backend.parents[1])
    assert spu_perf.main(["install-backend", general]) == 0
    assert "written: " in capsys.readouterr().out
    assert spu_perf.main(["install-backend", general]) == 0
    assert capsys.readouterr().out == "nothing to do\n"
    assert spu_perf.main(["install-backend", general, "--uninstall"]) == 0
    assert "restored: " in capsys.readouterr().out
    assert contents(backend) == THEIRS


@pytest.mark.parametrize("made", [False, True])
def test_no_checkout(tmp_path: Path, made: bool, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "elsewhere"
    if made:
        path.mkdir()
    assert spu_perf.main(["install-backend", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path} is no checkout of ByteMLPerf: ")
    assert ("there is no general_perf in it" if made else "it does not exist") in error
    assert error.count("\n") == 1


def test_a_folder_that_cannot_be_written(backend: Path) -> None:
    (backend / BACKUP).write_text("a file in the way")
    with pytest.raises(SpuError, match="the backend cannot be installed: "):
        install(backend.parents[1])
    there = contents(backend)
    assert {name: there[name] for name in THEIRS} == THEIRS
