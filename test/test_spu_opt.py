"""`spu-opt` as a command: what it reads and writes, how it fails, and how fast it starts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from xdsl.universe import XDSL_UNIVERSE

from spu_ir.tools import spu_opt
from spu_ir.universe import PASSES, SPU_UNIVERSE

MODULE = "func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> { func.return %x : tensor<4xf32> }\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model with a run-time batch and a weight that is too large to print."""
    weight = np.arange(64, dtype=np.float32).reshape(8, 8)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


def test_reads_onnx_with_bounds(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert spu_opt.main([str(model), "--shapes", "batch=1:64"]) == 0
    out = capsys.readouterr().out
    assert "spu.extents = {batch = [1 : i64, 64 : i64]}" in out
    assert '"onnx.MatMul"(%x, %w) {onnx_node_name = "product"' in out


def test_weights_go_to_a_folder_and_come_back(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "weights"
    assert spu_opt.main([str(model), "--shapes", "batch=2", "--weights", str(folder)]) == 0
    assert len(list(folder.iterdir())) == 1
    printed = tmp_path / "model.mlir"
    printed.write_text(capsys.readouterr().out)
    # Transposing the weight needs its bytes.
    text = printed.read_text().replace(
        '"onnx.MatMul"(%x, %w)',
        '"onnx.MatMul"(%x, %t)',
    )
    transpose = '%t = "onnx.Transpose"(%w) : (tensor<8x8xf32>) -> tensor<8x8xf32>\n'
    head, mark, tail = text.partition("    %0 =")
    printed.write_text(head + "    " + transpose + mark + tail)
    arguments = [str(printed), "-p", "fold-constants"]
    assert spu_opt.main([*arguments, "--weights", str(folder)]) == 0
    assert "onnx.Transpose" not in capsys.readouterr().out
    assert len(list(folder.iterdir())) == 2
    assert spu_opt.main(arguments) == 1
    assert re.search(r"^error: weights sha256:[0-9a-f]{64} are not in", capsys.readouterr().err)


def test_dumps_the_module_after_every_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "m.mlir"
    source.write_text(MODULE)
    folder = tmp_path / "stages"
    monkeypatch.setenv("SPU_IR_DUMP", str(folder))
    assert spu_opt.main([str(source), "-p", "canonicalize,cse"]) == 0
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["00-input.mlir", "01-canonicalize.mlir", "02-cse.mlir"]
    assert (folder / "02-cse.mlir").read_text().strip() == capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("func.func @main(", [], "error: "),
        ('%x = "onnx.Nothing"() : () -> tensor<1xf32>', [], "onnx.Nothing is not registered"),
        ('%x = "onnx.Relu"() : () -> tensor<1xf32>', [], "onnx.Relu: expected 1 operands"),
        (MODULE, ["-p", "no-such-pass"], "no-such-pass"),
        (MODULE, ["-p", "fold-constants{limit="], "error: "),
        ("builtin.module {}", ["-p", "infer-shapes"], "no function @main"),
    ],
)
def test_errors_are_one_message_and_exit_1(
    source: str,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "m.mlir"
    path.write_text(source)
    assert spu_opt.main([str(path), *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_a_bad_model_is_an_error(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert spu_opt.main([str(model)]) == 1
    assert "extent 'batch' without a bound" in capsys.readouterr().err
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(model.read_bytes()[:-5])
    assert spu_opt.main([str(broken)]) == 1
    assert "truncated" in capsys.readouterr().err
    assert spu_opt.main([str(tmp_path / "absent.onnx")]) == 1
    assert "absent.onnx" in capsys.readouterr().err


def test_help_names_our_options() -> None:
    command = [sys.executable, "-m", "spu_ir.tools.spu_opt", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(name in done.stdout.replace("\n", "") for name in ("--shapes", "--weights"))


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys; from spu_ir.tools.spu_opt import SpuOpt; SpuOpt(args=[])\n"
        "print([name for name in ('onnx', 'cffi', 'spu_ir.frontend', 'spu_ir.interpreters')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_loads_and_has_its_files_name(name: str) -> None:
    found = SPU_UNIVERSE.all_passes[name]()
    assert found.name == name
    assert found.__module__ == "spu_ir.transforms." + name.replace("-", "_")
    assert found.__doc__


def test_names_do_not_clash_with_xdsl() -> None:
    for mine, theirs in (
        (SPU_UNIVERSE.all_dialects, XDSL_UNIVERSE.all_dialects),
        (SPU_UNIVERSE.all_passes, XDSL_UNIVERSE.all_passes),
        (SPU_UNIVERSE.all_targets, XDSL_UNIVERSE.all_targets),
    ):
        assert mine
        assert not mine.keys() & theirs.keys()
    for name, load in SPU_UNIVERSE.all_dialects.items():
        assert load().name == name
