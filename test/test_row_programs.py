"""Programs whose normalised, activated and gated rows become bytes, against the interpreter."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray
from support.models import Graph
from xdsl.parser import Parser

from spu_ir import api
from spu_ir.dialects.vpu import NORM_ROW
from spu_ir.interpreters import interpret
from spu_ir.runtime.build import DEVICE, build
from spu_ir.runtime.cpu import host_levels
from spu_ir.runtime.model import CompiledModel
from spu_ir.runtime.program import Program


@pytest.mark.parametrize("axes", [1, 2])
def test_rows_give_the_same_bits_at_every_level(axes: int) -> None:
    """1024 features are rows with a gap between them; 17 or 2 x 17 rows are tiles of all sorts."""
    g = Graph(7)
    shape: list[int | str] = ["batch", 17, 64] if axes == 2 else ["batch", 64]
    x = g.input("x", shape)
    norm = g.op("LayerNormalization", x, g.weight((64,)), g.weight((64,)), axis=-1)
    inner = g.op("MatMul", norm, g.weight((64, 1024)))
    active = g.op("Mul", inner, g.op("Sigmoid", inner))
    y = g.op("Add", x, g.op("MatMul", active, g.weight((1024, 64))))
    norm = g.op("LayerNormalization", y, g.weight((64,)), g.weight((64,)), axis=-1)
    gate = g.op("Sigmoid", g.op("MatMul", norm, g.weight((64, 64))))
    gated = g.op("Mul", g.op("MatMul", norm, g.weight((64, 64))), gate)
    z = g.op("MatMul", gated, g.weight((64, 40)))
    feeds = {"x": np.random.default_rng(8).standard_normal((2, 17, 64)[-axes - 1 :])}
    feeds = {"x": feeds["x"].astype(np.float32)}
    bounds = {"batch": (1, 17)}
    model = g.model(z=(z, [*shape[:-1], 40]))
    program, job = api.lower(model, precision="int8", shapes=bounds, calibration=[feeds])
    assert program.source.count("vpu_layer_norm_rows_f32(") == 2
    assert ".out_stride = 4160" in program.source
    compare(program, job, feeds)


def test_products_give_the_same_bits_at_every_level() -> None:
    g = Graph(9)
    shape: list[int | str] = ["batch", 22, 3, 40]
    x = g.op("Mul", g.input("a", shape), g.input("b", shape))
    y = g.op("Conv", x, g.weight((22, 1, 1, 5)), group=22, pads=[0, 2, 0, 2])
    random = np.random.default_rng(10)
    feeds = {n: random.standard_normal((2, 22, 3, 40)).astype(np.float32) for n in "ab"}
    model = g.model(y=(y, shape))
    program, job = api.lower(model, precision="int8", shapes={"batch": (1, 2)}, calibration=[feeds])
    call = re.search(r"vpu_quantise_run\(\w+, (\w+),", program.source)
    assert call is not None
    assert call.group(1) != "NULL"
    compare(program, job, feeds)


def compare(program: Program, job: api.Compilation, feeds: dict[str, NDArray[np.float32]]) -> None:
    """The program's outputs are the interpreter's, at every level, on one and two threads."""
    stage = Parser(job.ctx, job.stages["quantised"]).parse_module()
    expected = interpret(stage, job.ctx, feeds, exact_f32=True)
    for level in host_levels():
        libraries = build(program.source, [level])
        for threads in (1, 2):
            compiled = CompiledModel.from_program(program, libraries, threads=threads)
            for name, got in compiled.run(feeds).items():
                np.testing.assert_array_equal(got, expected[name], err_msg=f"{level} {threads}")


def test_the_device_normalises_rows_as_long_as_the_dialect_allows() -> None:
    header = (DEVICE / "vpu_rows.h").read_text()
    assert re.findall(r"\bVPU_NORM_ROW = (\d+)", header) == [str(NORM_ROW)]
