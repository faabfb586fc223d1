"""The runtime: from a C program to a model that runs, in every thread and process."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.programs import ADD, LOOKUP, add_reference

from spu_ir.errors import SpuError
from spu_ir.runtime import CompiledModel, cpu, load
from spu_ir.runtime.build import DEVICE, WARNINGS, build, find_compiler
from spu_ir.runtime.isa import LEVELS
from spu_ir.runtime.program import Extent, Port, Program, weight_offsets
from spu_ir.runtime.weights import pack_weights

RANDOM = np.random.default_rng(0)


def feeds(batch: int = 5, seq: int = 7) -> dict[str, Any]:
    return {
        "left side": RANDOM.random((batch, seq), np.float32),
        "right": RANDOM.random((batch, seq), np.float32),
    }


def expect_sum(model: CompiledModel, given: dict[str, Any]) -> None:
    outputs = model.run(given)
    expected = add_reference(given["left side"], given["right"])
    np.testing.assert_array_equal(outputs["sum"], expected)
    np.testing.assert_array_equal(outputs["twice"], np.repeat(expected.astype(np.int64), 2, axis=1))


@pytest.fixture(scope="module")
def model() -> CompiledModel:
    return CompiledModel.from_program(ADD, threads=2, stages={"onnx": "as imported"})


@pytest.fixture(scope="module")
def lookup() -> CompiledModel:
    return CompiledModel.from_program(LOOKUP)


@pytest.mark.parametrize("batch", [1, 2, 64])
@pytest.mark.parametrize("seq", [1, 8])
def test_extents_are_those_of_the_inputs(model: CompiledModel, batch: int, seq: int) -> None:
    expect_sum(model, feeds(batch, seq))


def test_inputs_of_any_layout_are_taken(model: CompiledModel) -> None:
    given = feeds(6, 8)
    wide = np.zeros((6, 17), np.float32)
    wide[:, 1::2] = given["left side"]
    given["left side"] = wide[:, 1::2]
    given["right"] = np.asfortranarray(given["right"])
    expect_sum(model, given)
    raw = bytearray(4 * 48 + 1)
    unaligned = np.frombuffer(raw, np.float32, offset=1).reshape(6, 8)
    assert not unaligned.flags.aligned
    unaligned[:] = given["right"]
    expect_sum(model, given | {"right": unaligned})
    given["right"].flags.writeable = False
    expect_sum(model, given)


def test_outputs_are_new_arrays(model: CompiledModel) -> None:
    given = feeds()
    first = model.run(given)["sum"]
    kept = first.copy()
    second = model.run(feeds())["sum"]
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, kept)


def test_no_extents_no_arena_and_bfloat16(lookup: CompiledModel) -> None:
    values = lookup.run({"indices": np.array([1, 3])})["values"]
    assert values.dtype.name == "bfloat16"
    assert values.tolist() == [1.5, 3.5]


def test_a_failed_run_says_why(lookup: CompiledModel) -> None:
    with pytest.raises(SpuError, match="an index among the inputs is outside"):
        lookup.run({"indices": np.array([1, 4])})


X = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"left side": X}, "'right' is missing; the inputs are 'left side' float32 [batch, seq]"),
        ({"left side": X, "right": X, "more": X}, "there is no input 'more'; the inputs are"),
        (
            {"left side": X, "right": X.astype(np.float64)},
            "'right' has the dtype float64; expected 'right' float32 [batch, seq]",
        ),
        ({"left side": X, "right": X.astype(">f4")}, "'right' has the dtype >f4"),
        ({"left side": X, "right": X.tolist()}, "'right' is a list, not an array"),
        ({"left side": X, "right": X[0]}, "'right' has the shape [3]; expected"),
        (
            {"left side": X, "right": X[:1]},
            "the extent 'batch' is 2 in the input 'left side' and 1 in 'right'",
        ),
        (
            {"left side": X[:0], "right": X[:0]},
            "'batch' is 0 in the input 'left side', allowed are 1 to 64; compile",
        ),
        (
            {"left side": np.ones((1, 9), np.float32), "right": np.ones((1, 9), np.float32)},
            "'seq' is 9 in the input 'left side', allowed are 1 to 8",
        ),
    ],
)
def test_wrong_inputs_are_named(model: CompiledModel, given: Any, message: str) -> None:
    with pytest.raises(SpuError) as caught:
        model.run(given)
    assert message in str(caught.value)


def test_a_fixed_extent_must_fit(lookup: CompiledModel) -> None:
    with pytest.raises(SpuError, match=r"'indices' has the shape \[3\]: 3 on axis 0, not 2"):
        lookup.run({"indices": np.array([1, 2, 3])})


def test_the_model_tells_about_itself(model: CompiledModel) -> None:
    assert model.ir() == ADD.ir
    assert model.ir("onnx") == "as imported"
    assert model.ir("c") == ADD.source
    with pytest.raises(SpuError, match="there is no stage 'x'; one of onnx, tiled, c"):
        model.ir("x")
    rows = model.report()
    rows[0]["op"] = "changed"
    assert model.report() == ADD.report
    assert "'left side' float32 [batch, seq]" in repr(model)


def test_every_level_of_this_host_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for level in cpu.host_levels():
        monkeypatch.setenv("SPU_IR_ISA", level)
        forced = CompiledModel.from_program(ADD)
        assert forced.level == level
        expect_sum(forced, feeds())


def test_levels_are_chosen_by_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    def host(features: frozenset[str]) -> None:
        monkeypatch.setattr(cpu, "host_features", lambda: features)
        monkeypatch.setattr(cpu, "architecture_levels", lambda: tuple(LEVELS))

    monkeypatch.delenv("SPU_IR_ISA", raising=False)
    host(LEVELS["avx512vnni"].cpuinfo)
    assert cpu.select_level() == "avx512vnni"
    assert cpu.select_level(["c", "avx512vbmi", "avx2"]) == "avx2"
    with pytest.raises(SpuError, match="built for avx512vbmi, this processor runs c, avx2"):
        cpu.select_level(["avx512vbmi"])
    host(frozenset())
    assert cpu.select_level() == "c"
    for value, message in (
        ("sse9", "is no ISA level; one of c"),
        ("avx2", "is beyond this processor; it runs c"),
    ):
        monkeypatch.setenv("SPU_IR_ISA", value)
        with pytest.raises(SpuError, match=message):
            cpu.select_level()
    monkeypatch.setenv("SPU_IR_ISA", "c")
    with pytest.raises(SpuError, match="was not built into this model; it has avx2"):
        cpu.select_level(["avx2"])


def test_a_library_refuses_a_processor_that_it_is_beyond(tmp_path: Path) -> None:
    """Whatever the list of features says: the library itself asks CPUID, from baseline code."""
    probe = tmp_path / "probe.c"
    probe.write_text(
        '#include <stdio.h>\n#include "host.c"\n'
        'int main(void) { for (int i = -1; i < 6; ++i) printf("%d", spu_cpu_supports(i)); }\n'
    )
    command = [*find_compiler().command, "-std=c11", f"-I{DEVICE}", str(probe), "-pthread"]
    subprocess.run([*command, "-o", str(tmp_path / "probe")], check=True)
    said = subprocess.run([tmp_path / "probe"], capture_output=True, text=True, check=False).stdout
    runs = [isa.number for isa in LEVELS.values() if isa.name in cpu.host_levels()]
    assert said == "0" + "".join("1" if i in runs else "0" for i in range(6))


@pytest.mark.parametrize(
    ("value", "message"), [("0", "0 threads"), ("257", "use 1 to 256"), ("-1", "not a number")]
)
def test_numbers_of_threads_are_checked(
    monkeypatch: pytest.MonkeyPatch, value: str, message: str
) -> None:
    monkeypatch.setenv("SPU_IR_THREADS", value)
    with pytest.raises(SpuError, match=message):
        cpu.default_threads()
    monkeypatch.setenv("SPU_IR_THREADS", "3")
    assert CompiledModel.from_program(ADD).threads == 3
    with pytest.raises(SpuError, match="0 threads were asked for"):
        CompiledModel.from_program(ADD, threads=0)


POISONED = replace(
    LOOKUP,
    source="""
#include "spu_device.h"
int64_t spu_arena_bytes(const int64_t *extents) { return 8 + 0 * (extents != 0); }
void spu_output_shape(int32_t output, const int64_t *extents, int64_t *shape) {
  shape[0] = 2 + 0 * (output + (extents != 0));
}
int32_t spu_run(const spu_context *context, const int64_t *extents, const void *const *inputs,
                void *const *outputs) {
  (void)extents;
  (void)inputs;
  int seen = 0; /* the slack behind the arena is there to be read, and poisoned too */
  for (int i = 0; i < 8 + SPU_SLACK; ++i) seen += context->arena[i] == 0xCD;
  if (seen == 8 + SPU_SLACK) *(uint16_t *)outputs[0] = 1;
  for (int i = 0; i < 8; ++i) context->arena[i] = 0;
  return SPU_OK;
}
""",
)


def test_memory_is_poisoned_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    model = CompiledModel.from_program(POISONED)
    monkeypatch.setenv("SPU_IR_POISON", "1")
    for _ in range(2):
        values = model.run({"indices": np.zeros(2, np.int64)})["values"]
        assert values.view(np.uint16).tolist() == [1, 0xCDCD]


def test_eight_threads_run_at_once(model: CompiledModel) -> None:
    def caller(seed: int) -> int:
        most = 0
        for i in range(50):
            expect_sum(model, feeds(1 + (seed + i) % 64, 1 + i % 8))
            most = max(most, len(os.listdir("/proc/self/task")))
        return most

    before = len(os.listdir("/proc/self/task"))
    with ThreadPoolExecutor(8) as callers:
        most = max(callers.map(caller, range(8)))
    # The pool may not have been there before: one worker for threads=2.
    assert most <= before + 8 + 1


# numpy's own threads would count too.
ALONE = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}

FORK = """
import os, sys, threading, time, warnings
import numpy as np
from spu_ir.runtime import load
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork with threads
model = load(sys.argv[1], threads=2)
x = np.ones((64, 8), np.float32)
def run():
    for _ in range(20):
        assert (model.run({"left side": x, "right": x})["sum"][5] == 2 + np.arange(8)).all()
run()
stop = threading.Event()
def busy():
    while not stop.is_set():
        run()
others = [threading.Thread(target=busy) for _ in range(3)]
for other in others:
    other.start()
for _ in range(5):  # while other threads hold contexts and the pool's lock
    child = os.fork()
    if child == 0:
        run()
        os._exit(0 if len(os.listdir("/proc/self/task")) == 2 else 3)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for other in others:
    other.join()
run()
# A joined thread may still be on its way out; a leaked worker would stay.
limit = time.monotonic() + 20
while len(os.listdir("/proc/self/task")) != 2 and time.monotonic() < limit:
    time.sleep(0.01)
assert os.listdir("/proc/self/task")[2:] == []
print("done")
"""


def test_a_forked_child_runs_a_loaded_model(model: CompiledModel, tmp_path: Path) -> None:
    model.save(tmp_path / "add.spu", levels=["c"])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORK, str(tmp_path / "add.spu")],
        env=ALONE,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_models_share_one_pool(tmp_path: Path) -> None:
    """Different libraries, and still one worker for two threads."""
    for name, program in (("a", ADD), ("b", replace(ADD, source=ADD.source + "/* other */\n"))):
        CompiledModel.from_program(program).save(tmp_path / name, levels=["c"])
    code = """
import os, sys
import numpy as np
from spu_ir.runtime import load
x = np.ones((64, 8), np.float32)
for path in sys.argv[1:]:
    load(path, threads=2).run({"left side": x, "right": x})
print(len(os.listdir("/proc/self/task")))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a"), str(tmp_path / "b")],
        env=ALONE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_libraries_are_built_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPU_IR_CACHE", str(tmp_path))
    first = build(ADD.source, ["c"])["c"]
    stamp = first.stat().st_ino
    assert build(ADD.source, ["c"])["c"] == first
    assert first.stat().st_ino == stamp
    assert build(LOOKUP.source, ["c"])["c"] != first
    whole = first.read_bytes()
    first.write_bytes(whole[:-1])  # A damaged one is made again.
    assert build(ADD.source, ["c"])["c"].read_bytes() == whole
    assert [p.name for p in (tmp_path / "libraries").iterdir() if p.name.startswith(".")] == []


def test_libraries_are_the_same_bytes_in_every_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built: list[bytes] = []
    for name in ("one", "another"):
        monkeypatch.setenv("SPU_IR_CACHE", str(tmp_path / name))
        built.append(build(ADD.source, ["c"])["c"].read_bytes())
    assert built[0] == built[1]


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", str(tmp_path / "gcc-99"))
    with pytest.raises(SpuError, match=r"no C compiler: .*gcc-99 was not found; apt-get install"):
        build(ADD.source, ["c"])
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SpuError, match="no C compiler: gcc, clang or cc was not found"):
        build(ADD.source, ["c"])
    monkeypatch.setenv("CC", shutil.which("false", path="/bin:/usr/bin") or "")
    with pytest.raises(SpuError, match="false --version failed: it said nothing; set CC"):
        build(ADD.source, ["c"])


def test_missing_python_headers_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(SpuError, match=r"Python's C headers .* apt-get install python3\.\d+-dev"):
        build(ADD.source, ["c"])


def test_a_program_that_does_not_compile_leaves_a_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPU_IR_CACHE", str(tmp_path))
    with pytest.raises(SpuError, match=r"failed on the generated C: .*error: .*unknown") as caught:
        build("unknown thing;\n", ["c"])
    assert "\n" not in str(caught.value)
    assert (tmp_path / "failed" / "program.c").read_text() == "unknown thing;\n"
    assert "error:" in (tmp_path / "failed" / "compiler.log").read_text()
    assert list((tmp_path / "libraries").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPU_IR_CACHE", "/proc/none")
    with pytest.raises(SpuError, match=r"cannot make the cache folder .*SPU_IR_CACHE"):
        build(ADD.source, ["c"])


def test_unknown_levels_are_refused() -> None:
    with pytest.raises(SpuError, match="'neon9' is no ISA level of this architecture; one of c"):
        build(ADD.source, ["neon9"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": (*ADD.inputs, ADD.inputs[0])}, "two inputs with the name 'left side'"),
        ({"outputs": (Port("o", "str", ()),)}, "unknown dtype 'str'"),
        ({"outputs": (Port("o", "int8", ("rows",)),)}, "unknown extent 'rows'"),
        ({"inputs": (Port("i", "int8", ("?",)),)}, "no input has an axis of extent 'batch'"),
        ({"extents": (*ADD.extents, Extent("z", 1, 2))}, "no input has an axis of extent 'z'"),
        ({"extents": (Extent("batch", 2, 1), ADD.extents[1])}, "2..1 of extent 'batch'"),
    ],
)
def test_a_program_is_held_to_its_interface(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpuError, match=re.escape(message)):
        CompiledModel.from_program(replace(ADD, **change))


def test_weights_have_their_offsets() -> None:
    weights = {
        "a": np.arange(65, dtype=np.uint8),
        "scalar": np.array(2.5, np.float64),
        "transposed": np.arange(6, dtype=np.int32).reshape(2, 3).T,
        "empty": np.zeros((0, 4), np.float32),
        "last": np.array([True, False]),
    }
    offsets = weight_offsets(weights)
    assert list(offsets.values()) == [0, 128, 192, 256, 256]
    packed = pack_weights(weights)
    assert packed.address() % 4096 == 0
    for name, array in weights.items():
        flat = np.frombuffer(packed.image, array.dtype, array.size, packed.start + offsets[name])
        np.testing.assert_array_equal(flat.reshape(array.shape), array)
    assert len(packed) == packed.start + 256 + 2 + 64
    with pytest.raises(SpuError, match="has the dtype complex64"):
        pack_weights({"w": np.zeros(1, np.complex64)})


@pytest.fixture
def exported(model: CompiledModel, tmp_path: Path) -> Path:
    model.export_c(tmp_path / "c")
    return tmp_path / "c"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_exported_c_runs_without_python(exported: Path) -> None:
    given = feeds(3, 5)
    given["left side"].tofile(exported / "left.bin")
    given["right"].tofile(exported / "right.bin")
    strict = {**os.environ, "MAKEFLAGS": ""}
    subprocess.run(
        ["make", f"CC={find_compiler().command[0]}", f"WARNINGS={' '.join(WARNINGS)}"],
        cwd=exported,
        env=strict,
        check=True,
        capture_output=True,
    )
    arguments = "--extent 0=3 --extent 1=5 --input 0=left.bin --input 1=right.bin --threads 2"
    done = subprocess.run(
        ["./model-c", *arguments.split(), "--output", "0=sum.bin"],
        cwd=exported,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    expected = add_reference(given["left side"], given["right"])
    got = np.fromfile(exported / "sum.bin", np.float32).reshape(3, 5)
    np.testing.assert_array_equal(got, expected)
    assert done.stdout.splitlines()[0].startswith("output 0 sum float32 [3, 5] min ")


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_exported_example_explains_its_errors(exported: Path) -> None:
    subprocess.run(["make"], cwd=exported, check=True, capture_output=True)
    (exported / "short.bin").write_bytes(b"123")
    for arguments, message in (
        ("--extent 0=65", "out of its bounds: extent batch"),
        ("--extent 7=1", "expected NUMBER=, got 7=1"),
        ("--input 0=short.bin", "the wrong number of bytes in short.bin"),
        ("--input 0=none.bin", "No such file or directory none.bin"),
        ("--weights", "expected a value after --weights"),
    ):
        done = subprocess.run(
            ["./model-c", *arguments.split()],
            cwd=exported,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (1, f"error: {message}\n")


def test_an_export_replaces_an_export_only(exported: Path, model: CompiledModel) -> None:
    model.export_c(exported)
    (exported / "ports.h").unlink()
    with pytest.raises(SpuError, match="exists and is not an exported program"):
        model.export_c(exported)


def test_the_makefile_has_the_flags_of_the_runtime() -> None:
    said = (DEVICE / "example" / "Makefile").read_text()
    known = dict(re.findall(r"^(\w+) =(.*)$", said, re.MULTILINE))
    for isa in LEVELS.values():
        flags = known[f"FLAGS_{isa.name}"].replace("$(FLAGS_avx512vnni)", known["FLAGS_avx512vnni"])
        assert tuple(flags.split()) == isa.flags
        assert int(known[f"NUMBER_{isa.name}"]) == isa.number


def test_names_never_reach_c(tmp_path: Path) -> None:
    evil = '"; */ system("x"); /* ??/\n\\'
    program = Program(
        source=ADD.source,
        weights=ADD.weights,
        inputs=(replace(ADD.inputs[0], name=evil), ADD.inputs[1]),
        outputs=ADD.outputs,
        extents=ADD.extents,
        ir=ADD.ir,
        report=ADD.report,
    )
    model = CompiledModel.from_program(program)
    model.export_c(tmp_path / "c")
    text = (tmp_path / "c" / "ports.h").read_text()
    assert text.count('"') == 2 * len(re.findall(r'"[A-Za-z0-9_.:/-]*"', text))
    assert re.search(r'"_+/_system__x__', text)
    model.save(tmp_path / "p", levels=["c"])
    assert load(tmp_path / "p").inputs[0].name == evil
    with pytest.raises(SpuError) as caught:
        model.run({"\n": X})
    assert "\n" not in str(caught.value)


def test_the_example_script_exports_a_package(model: CompiledModel, tmp_path: Path) -> None:
    model.save(tmp_path / "add.spu", levels=["c"])
    script = Path(__file__).parents[1] / "examples" / "c" / "export.py"
    for package, code, said in (("add.spu", 0, "make -C "), ("none.spu", 1, "error: cannot read")):
        done = subprocess.run(
            [sys.executable, str(script), str(tmp_path / package), str(tmp_path / "out")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code
        assert said in done.stdout + done.stderr
    assert (tmp_path / "out" / "program.c").read_text() == ADD.source
