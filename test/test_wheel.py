"""A wheel is built, installed in a fresh environment, and used outside the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

USE = """
import numpy as np, sys
import spu_ir
from spu_ir import zoo

assert spu_ir.__file__.startswith(sys.prefix), spu_ir.__file__
config = zoo.BertConfig(vocab_size=50, hidden_size=64, num_hidden_layers=1, num_attention_heads=4,
                        intermediate_size=128, max_position_embeddings=16)
model = spu_ir.compile(zoo.bert(config), precision="int8", shapes={"batch": (1, 2), "seq": (1, 16)})
feeds = {"input_ids": np.array([[1, 2, 3]]), "attention_mask": np.ones((1, 3), np.int64),
         "token_type_ids": np.zeros((1, 3), np.int64)}
hidden = model.run(feeds)["last_hidden_state"]
model.save("saved")
again = spu_ir.load("saved").run(feeds)["last_hidden_state"]
assert hidden.shape == (1, 3, 64) and np.array_equal(hidden, again)
print(spu_ir.__version__)
"""


def run(*command: str | Path, cwd: Path) -> str:
    """The standard output of a command that must succeed."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # setuptools leaves its build/ folder beside pyproject.toml, so it gets a copy of the files.
    source = folder / "source"
    rubbish = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "spu_ir", source / "spu_ir", ignore=rubbish)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("codegen", "dialects", "runtime"):
        (source / name).symlink_to(f"spu_ir/{name}")
    run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
        "--wheel-dir", folder, source, cwd=folder,
    )  # fmt: skip
    (found,) = folder.glob("*.whl")
    return found


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"spu_ir"}
    assert "spu_ir/runtime/device/spu_device.h" in names
    assert "spu_ir/py.typed" in names
    assert "spu_ir/perf/data/workloads/bert-torch-fp32.json" in names
    assert "spu_ir/schedule/page_timeline.js" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_wheel_is_used_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel, cwd=tmp_path)
    # Its dependencies are those of this environment, found after its own packages.
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    printed = run(python, "-W", "error", "-c", USE, cwd=tmp_path)
    assert printed.splitlines()[-1] == wheel.name.split("-")[1]
    for tool in ("spu-opt", "spu-compile", "spu-run", "spu-perf"):
        assert "usage" in run(environment / "bin" / tool, "--help", cwd=tmp_path)
    listed = run(python, "-m", "xdsl.tools.xdsl_opt", "--help", cwd=tmp_path)
    assert "fuse-gelu" in listed
