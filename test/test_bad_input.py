"""
Bad input: one `error:` line that names the node, the cause and the remedy, exit code 1, and
nothing half-written, through every command and the API.
"""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import spu_ir
from spu_ir.frontend.extents import clean_name
from spu_ir.tools import spu_compile, spu_opt, spu_run

ROOT = Path(__file__).parents[1]
FLOAT = TensorProto.FLOAT
WEIGHT = np.eye(8, dtype=np.float32)
SHAPES = ("--shapes", "batch=1:4")
EVIL = 'a\n\x1b[2J"; */ ../../b'
"""A name that breaks a line, drives a terminal, ends a C string and a comment, and climbs."""

Array = NDArray[Any]
Main = Callable[[Sequence[str]], int]
node = helper.make_node
product = node("MatMul", ["x", "w"], ["y"], name="product")


def model(
    *nodes: NodeProto,
    weights: Mapping[str, Array] | None = None,
    names: tuple[str, str, str] = ("x", "batch", "y"),
) -> ModelProto:
    """A model of one product, or of `nodes`; `names` of the input, its extent and the output."""
    source, extent, result = names
    graph = helper.make_graph(
        list(nodes) or [product],
        "test",
        [helper.make_tensor_value_info(source, FLOAT, [extent, 8])],
        [helper.make_tensor_value_info(result, FLOAT, [extent, 8])],
        [
            numpy_helper.from_array(value, name)
            for name, value in ({"w": WEIGHT} if weights is None else weights).items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a test works; temporary files of the commands would be in `temp` beside `work`."""
    (tmp_path / "work").mkdir()
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def tree(folder: Path) -> dict[str, bytes]:
    """Every path below a folder's parent, and what is in the files."""
    return {
        str(path.relative_to(folder.parent)): path.read_bytes() if path.is_file() else b""
        for path in folder.parent.rglob("*")
    }


def refused(
    capsys: pytest.CaptureFixture[str], folder: Path, main: Main, *arguments: object
) -> str:
    """What a command says of bad input, when it says it as it should and leaves nothing behind."""
    before = tree(folder)
    assert main([str(argument) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines(keepends=True)
    assert line.startswith("error: ")
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert tree(folder) == before
    return line.removeprefix("error: ").rstrip("\n")


# ---- models


def whole_product() -> bytes:
    return model().SerializeToString()


def outside() -> bytes:
    """A weight in a file that exists, but not in the model's folder."""
    Path("../secret.bin").write_bytes(WEIGHT.tobytes())
    made = model()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    return made.SerializeToString()


def with_weight(value: float) -> ModelProto:
    weight = WEIGHT.copy()
    weight[2, 3] = value
    return model(weights={"w": weight})


CYCLE = (
    node("Add", ["x", "b"], ["a"], name="one"),
    node("Relu", ["a"], ["b"], name="two"),
    node("Relu", ["b"], ["y"], name="three"),
)
MODELS: dict[str, tuple[Callable[[], bytes | ModelProto], Sequence[str], Sequence[str]]] = {
    "truncated": (lambda: whole_product()[:-7], SHAPES, ["truncated", "export it again"]),
    "empty": (lambda: b"", SHAPES, ["has no graph", "the file is empty"]),
    "text": (lambda: b"import this\n", SHAPES, ["is no ONNX model", "export it again"]),
    "cyclic": (
        lambda: model(*CYCLE),
        SHAPES,
        ["node 'one' (Add)", "cycle: 'one' -> 'two' -> 'one'", "break the cycle"],
    ),
    "unknown op": (
        lambda: model(node("Frobnicate", ["x"], ["y"], name="odd")),
        SHAPES,
        ["node 'odd' (Frobnicate)", "unknown operator"],
    ),
    "op of another domain": (
        lambda: model(node("FusedGelu", ["x"], ["y"], name="odd", domain="com.microsoft")),
        SHAPES,
        ["node 'odd' (FusedGelu)", "'com.microsoft'", "export the model without"],
    ),
    "missing initializer": (
        lambda: model(weights={}),
        SHAPES,
        ["node 'product' (MatMul)", "input 'w'", "initializer is missing", "export the model"],
    ),
    "external data outside": (
        outside,
        SHAPES,
        ["initializer 'w'", "'../secret.bin' is outside the model's folder", "relative path"],
    ),
    "dynamic shape": (
        model,
        (),
        ["input 'x'", "extent 'batch' without a bound", "shapes={'batch': (1, 64)}"],
    ),
    "nan": (
        lambda: with_weight(np.nan),
        SHAPES,
        ["node 'product' (MatMul)", "weight 'w' is not finite: nan at [2, 3]", "damaged"],
    ),
    "infinity": (
        lambda: with_weight(-np.inf),
        SHAPES,
        ["node 'product' (MatMul)", "weight 'w' is not finite: -inf at [2, 3]"],
    ),
    "no lowering": (
        lambda: model(node("Det", ["x"], ["y"], name="minor")),
        SHAPES,
        ["node 'minor' (Det)", "no lowering", "docs/onnx-support.md"],
    ),
    "shapes that do not fit": (
        lambda: model(weights={"w": WEIGHT[:7]}),
        SHAPES,
        ["product", "MatMul", "Incompatible dimensions", "check the shapes"],
    ),
    "name of a node": (
        lambda: model(node("Det", ["x"], ["y"], name=EVIL)),
        SHAPES,
        [r"node 'a\n\x1b[2J", "(Det)", "no lowering"],
    ),
    "name of an operator": (
        lambda: model(node(EVIL, ["x"], ["y"], name="odd")),
        SHAPES,
        [r"node 'odd' (a\n\x1b[2J", "unknown operator"],
    ),
    "name of a value": (
        lambda: model(node("Relu", [EVIL], ["y"], name="first")),
        SHAPES,
        ["node 'first' (Relu)", r"input 'a\n\x1b[2J"],
    ),
    "name of an extent": (
        lambda: model(names=("x", EVIL, "y")),
        (),
        ["input 'x'", r"extent 'a\n\x1b[2J", "without a bound"],
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_bad_model(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, shapes, words = MODELS[name]
    made = make()
    path = folder / "model.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    output = ("-o", "m.spu", "--export-c", "m_c", "--precision", "fp32")
    compiling = refused(capsys, folder, spu_compile.main, path, *output, *shapes)
    passes = ("-p", "graph,lower,quantise-fp32,memory", "-t", "c", "--weights", "weights")
    optimising = refused(capsys, folder, spu_opt.main, path, *passes, "-o", "m.c", *shapes)
    with pytest.raises(spu_ir.SpuError) as raised:
        spu_ir.compile(path, precision="fp32", shapes={"batch": (1, 4)} if shapes else None)
    assert compiling == optimising == str(raised.value)
    assert [word for word in words if word not in compiling] == []


def test_the_command_itself_says_one_line_and_fails(folder: Path) -> None:
    (folder / "m.onnx").write_bytes(whole_product()[:-7])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "spu_ir.tools.spu_compile", "m.onnx", "-o", "m.spu"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: the file is no ONNX model")
    assert done.stderr.count("\n") == 1
    assert os.listdir() == ["m.onnx"]


def counting() -> list[NodeProto]:
    """Adds up all numbers below 2^33."""
    bounds = [
        node("Constant", [], [name], value=helper.make_tensor(name, TensorProto.INT64, [], [value]))
        for name, value in (("first", 0), ("limit", 1 << 33), ("step", 1))
    ]
    return [
        *bounds,
        node("Range", ["first", "limit", "step"], ["numbers"], name="count"),
        node("Cast", ["numbers"], ["floats"], to=FLOAT, name="cast"),
        node("ReduceSum", ["floats"], ["sum"], keepdims=0, name="sum"),
        node("Add", ["x", "sum"], ["y"], name="add"),
    ]


def doubling() -> list[NodeProto]:
    """Four numbers, and 40 times all so far with all of their opposites."""
    start = helper.make_tensor("v0", TensorProto.INT64, [4], [1, 2, 3, 4])
    doubles = [
        [
            node("Neg", [f"v{i}"], [f"n{i}"], name=f"neg{i}"),
            node("Concat", [f"v{i}", f"n{i}"], [f"v{i + 1}"], axis=0, name=f"double{i}"),
        ]
        for i in range(40)
    ]
    return [
        node("Constant", [], ["v0"], value=start),
        *(made for pair in doubles for made in pair),
        node("Cast", ["v40"], ["floats"], to=FLOAT),
        node("ReduceSum", ["floats"], ["sum"], keepdims=0),
        node("Add", ["x", "sum"], ["y"]),
    ]


@pytest.mark.parametrize(("make", "word"), [(counting, "elements"), (doubling, "absurd")])
def test_no_few_nodes_take_all_memory(
    make: Callable[[], list[NodeProto]], word: str, folder: Path
) -> None:
    (folder / "m.onnx").write_bytes(model(*make(), weights={}).SerializeToString())
    done = subprocess.run(
        [sys.executable, "-m", "spu_ir.tools.spu_compile", "m.onnx", "-o", "m.spu", *SHAPES],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: node '")
    assert word in done.stderr
    assert os.listdir() == ["m.onnx"]


# ---- files and the machine


@pytest.fixture
def product_file(folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(whole_product())
    return path


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The product, compiled; its libraries are in the cache from now on."""
    path = tmp_path_factory.mktemp("package")
    compiled = spu_ir.compile(model(), precision="fp32", shapes={"batch": (1, 4)}, levels=["c"])
    compiled.save(path / "m.spu", levels=["c"])
    return path / "m.spu"


@contextmanager
def full() -> Generator[None]:
    """As if the disk were full after 64 bytes of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the file system were mounted read-only; root may write whatever the mode says."""

    def refuse(path: object, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(os, "mkdir", refuse)


OUTPUTS = {
    "package": (("-o", "m.spu"), "cannot write a package to '"),
    "program": (("--export-c", "m_c"), "cannot write an exported program to '"),
}


@pytest.mark.parametrize("where", ["full", "read-only"])
@pytest.mark.parametrize("what", OUTPUTS)
def test_an_output_folder_that_cannot_be_written(
    what: str,
    where: str,
    product_file: Path,
    package: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert package.exists(), "so that no compiler writes"
    monkeypatch.setenv("SPU_IR_ISA", "c")
    output, message = OUTPUTS[what]
    disk: AbstractContextManager[None] = full() if where == "full" else nullcontext()
    if where == "read-only":
        # Temporary folders of the compiler's are elsewhere, and nothing needs compiling.
        read_only(monkeypatch)
    arguments = (product_file, "--precision", "fp32", *SHAPES, "--levels", "c", *output)
    with disk:
        said = refused(capsys, folder, spu_compile.main, *arguments)
    assert message in said
    assert ("File too large" if where == "full" else "Read-only file system") in said
    assert "choose a folder that exists, can be written and has space" in said


def test_a_full_cache(
    product_file: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cache = folder.parent.parent / "cache"
    monkeypatch.setenv("SPU_IR_CACHE", str(cache))
    with full():
        said = refused(capsys, folder, spu_compile.main, product_file, "-o", "m.spu", *SHAPES)
    assert f"cannot write the cache folder {str(cache)!r}" in said
    assert "set SPU_IR_CACHE" in said
    assert [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_spu_opt_writes_a_file_whole_or_not_at_all(
    product_file: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "m.mlir").write_text("older\n")
    arguments = (product_file, *SHAPES, "-o", "m.mlir")
    with full():
        said = refused(capsys, folder, spu_opt.main, *arguments)
    assert "cannot write the output to" in said
    assert "has space" in said
    said = refused(capsys, folder, spu_opt.main, *arguments[:-1], "missing/m.mlir")
    assert "cannot write the output to" in said
    (folder / "link.mlir").symlink_to("m.mlir")
    assert spu_opt.main([*map(str, arguments[:-1]), "link.mlir"]) == 0
    assert "onnx.MatMul" in (folder / "m.mlir").read_text()
    assert spu_opt.main([*map(str, arguments[:-1]), "/dev/null"]) == 0
    assert Path("/dev/null").is_char_device()


def test_weights_and_dumps_that_cannot_be_written(
    product_file: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "weights").mkdir()
    with full():
        said = refused(capsys, folder, spu_opt.main, product_file, *SHAPES, "--weights", "weights")
    assert "cannot write the weights to 'weights'" in said
    (folder / "file").touch()
    monkeypatch.setenv("SPU_IR_DUMP", "file/stages")
    for main in (spu_opt.main, spu_compile.main):
        output = ("-o", "out") if main is spu_compile.main else ("-p", "cse")
        said = refused(capsys, folder, main, product_file, *SHAPES, *output)
        assert "cannot write the IR to 'file/stages'" in said
        assert "set SPU_IR_DUMP" in said


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        ("/nowhere/gcc", "no C compiler: /nowhere/gcc was not found; apt-get install gcc"),
        ("false", "false --version failed: it said nothing; set CC to gcc or clang"),
        ("'gcc", """CC is "'gcc": No closing quotation; set CC"""),
    ],
)
def test_no_c_compiler(
    compiler: str,
    message: str,
    product_file: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CC", compiler)
    arguments = (product_file, "-o", "m.spu", "--precision", "fp32", *SHAPES)
    said = refused(capsys, folder, spu_compile.main, *arguments)
    assert message in said
    with pytest.raises(spu_ir.SpuError) as raised:
        spu_ir.compile(product_file, precision="fp32", shapes={"batch": (1, 4)})
    assert str(raised.value) == said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model.onnx",), "nothing would be written; give --output or --export-c"),
        (("none.onnx", "-o", "m"), "cannot read the model 'none.onnx': No such file"),
        (("no\nne.onnx", "-o", "m"), r"cannot read the model 'no\nne.onnx'"),
        ((".", "-o", "m"), "cannot read the model '.': Is a directory"),
        (
            ("model.onnx", "-o", "model.onnx", "--levels", "c"),
            "model.onnx' exists and is not a package",
        ),
        (("model.onnx", "-o", "m", "--levels", "z9"), "'z9' is no ISA level"),
        (("model.onnx", "-o", "m", "--shapes", "batch"), "'batch' is not name=value"),
        (("model.onnx", "-o", "m", "--shapes", "batch=0:4"), "has the bound 0 to 4"),
        (("model.onnx", "-o", "m", "--shapes", "rows=4"), "extent 'batch' without a bound"),
        (("model.onnx", "-o", "m", "--shapes", "batch=4,rows=4"), "'rows', which is no extent"),
        (("model.onnx", "-o", "m", "--budget", "2"), "a budget of 2 is not a share"),
        (("model.onnx", "-o", "m", "--budget", "0.2"), "budget is for precision 'mixed'"),
        (("model.onnx", "-o", "m", "--tolerance", "0.1"), "is for precision 'mixed'"),
        (("model.onnx", "-o", "m", "--calibration", "none.npz"), "'none.npz' cannot be read"),
        (("model.onnx", "-o", "m", "--calibration", "bad.npz"), "'bad.npz' cannot be read"),
        (("model.onnx", "-o", "m", "--calibration", "one.npy"), "'one.npy' is one array"),
        (("model.onnx", "-o", "m", "--calibration", "z.npz"), "'z' is not an input; the inputs"),
    ],
)
def test_bad_arguments(
    arguments: Sequence[str],
    message: str,
    product_file: Path,
    package: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert package.exists(), "so that no compiler runs"
    monkeypatch.setenv("SPU_IR_ISA", "c")
    (folder / "bad.npz").write_bytes(b"PK\x03\x04 but no archive")
    np.save(folder / "one.npy", WEIGHT)
    np.savez(folder / "z.npz", z=WEIGHT)
    bounds = () if "--shapes" in arguments else SHAPES
    precision = () if "--calibration" in arguments else ("--precision", "fp32")
    said = refused(capsys, folder, spu_compile.main, *arguments, *bounds, *precision)
    assert message in said
    assert product_file.read_bytes() == whole_product()


# ---- running


FEEDS: dict[str, tuple[str, Array, str]] = {
    "name": ("other", np.zeros((2, 8), np.float32), "there is no input 'other'; the inputs are"),
    "evil name": (EVIL, np.zeros((2, 8), np.float32), r"no input 'a\n\x1b[2J"),
    "dtype": ("x", np.zeros((2, 8)), "'x' has the dtype float64; expected"),
    "rank": ("x", np.zeros(8, np.float32), "'x' has the shape [8]; expected"),
    "shape": ("x", np.zeros((2, 7), np.float32), "[2, 7]: 7 on axis 1, not 8; expected"),
    "extent": ("x", np.zeros((5, 8), np.float32), "allowed are 1 to 4; compile the model with"),
}


@pytest.mark.parametrize("what", FEEDS)
def test_a_wrong_input(
    what: str, package: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, array, message = FEEDS[what]
    np.save(folder / "array.npy", array)
    arguments = (package, "--input", f"{name}=array.npy", "--output", "results")
    said = refused(capsys, folder, spu_run.main, *arguments)
    assert message in said
    with pytest.raises(spu_ir.SpuError) as raised:
        spu_ir.load(package).run({name: array})
    assert str(raised.value) == said


def test_results_that_cannot_be_written(
    package: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "results").mkdir()
    arguments = (package, "--random", "--output", "results")
    with full():
        said = refused(capsys, folder, spu_run.main, *arguments)
    assert "cannot write outputs to 'results'" in said
    read_only(monkeypatch)
    said = refused(capsys, folder, spu_run.main, *arguments)
    assert "Read-only file system" in said
    assert "choose a folder that can be written and has space" in said


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 but no archive", b"\x93NUMPY\x01\x00v"])
def test_a_damaged_input_file(
    content: bytes, package: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "x.npy").write_bytes(content)
    said = refused(capsys, folder, spu_run.main, package, "--input", "x=x.npy")
    assert "cannot read 'x.npy' for the input 'x'" in said
    assert "give a file that numpy.save wrote" in said


def test_evil_names_compile_and_stay_inside(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPU_IR_ISA", "c")
    result = EVIL + "y"
    made = model(node("MatMul", [EVIL, "w"], [result], name=EVIL), names=(EVIL, EVIL + "n", result))
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    shapes = ("--shapes", f"{clean_name(EVIL + 'n')}=1:4")
    arguments = [path, "-o", "m.spu", "--precision", "fp32", "--levels", "c", *shapes]
    assert spu_compile.main([str(argument) for argument in arguments]) == 0
    assert spu_run.main(["m.spu", "--random", "--output", "results"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert all(line.isprintable() for line in out.splitlines())
    assert "\x1b" not in out
    (file,) = (folder / "results").iterdir()
    assert file.parent == folder / "results"
    assert np.load(file).shape == (1, 8)
