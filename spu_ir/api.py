"""Compile a model: ONNX file in, runnable model out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass, PassPipelineCallbackType

from spu_ir.errors import SpuError
from spu_ir.tools.dump import DUMP_VARIABLE, dump_callback

if TYPE_CHECKING:
    from onnx import ModelProto

    from spu_ir.runtime.model import CompiledModel
    from spu_ir.runtime.program import Program

Array = np.ndarray[Any, np.dtype[Any]]
Feeds = Mapping[str, Array]
Precision = Literal["fp32", "bf16", "int8"]
Activations = Literal["auto", "dynamic", "static"]
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

TARGETS = ("s4", "s10", "s30")
RATIOS = (1, 2, 4, 8, 16, 32)
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
ACTIVATIONS: tuple[Activations, ...] = ("auto", "dynamic", "static")


def new_context() -> Context:
    """An xDSL context with every dialect that the stages use, loaded on demand."""
    from xdsl.dialects import get_all_dialects

    from spu_ir.universe import SPU_UNIVERSE

    ctx = Context()
    for table in (get_all_dialects(), SPU_UNIVERSE.all_dialects):
        for name, load in table.items():
            ctx.register_dialect(name, load)
    return ctx


@dataclass
class Compilation:
    """One model on its way from ONNX to C: the module, and the text of every stage so far."""

    ctx: Context
    module: ModuleOp
    progress: Progress | None = None
    stages: dict[str, str] = field(default_factory=dict[str, str])
    dump: PassPipelineCallbackType | None = None

    def __post_init__(self) -> None:
        folder = os.environ.get(DUMP_VARIABLE)
        if folder:
            self.dump = dump_callback(Path(folder))
            self.dump(None, self.module, None)

    def run(self, stage: str, passes: Sequence[ModulePass]) -> None:
        """Run passes and keep the module's text as `stage`."""
        for number, each in enumerate(passes):
            self.report(each.name, number, len(passes))
            each.apply(self.ctx, self.module)
            if self.dump is not None:
                self.dump(each, self.module, None)
        self.module.verify()
        self.stages[stage] = str(self.module) + "\n"

    def report(self, what: str, done: int, total: int) -> None:
        """Tell the caller where the compilation is."""
        if self.progress is not None:
            self.progress(what, done, total)


def lower(
    model: str | os.PathLike[str] | ModelProto | bytes,
    *,
    precision: Precision = "int8",
    sparsity: int | None = None,
    calibration: Iterable[Feeds] | None = None,
    observer: str = "minmax",
    activations: Activations = "auto",
    shapes: Mapping[str, Any] | None = None,
    target: str = "s4",
    progress: Progress | None = None,
) -> tuple[Program, Compilation]:
    """Everything of `compile` up to the C text: the program, and how it came about."""
    from spu_ir.codegen.program import emit_program
    from spu_ir.codegen.report import layer_report
    from spu_ir.frontend import import_model
    from spu_ir.transforms import pipelines
    from spu_ir.transforms.calibrate import calibrate
    from spu_ir.transforms.observers import observer_called

    _check("target", target, TARGETS)
    _check("precision", precision, PRECISIONS)
    _check("activations", activations, ACTIVATIONS)
    observer_called(observer)
    if sparsity is not None:
        _check("sparsity", sparsity, RATIOS)
    ctx = new_context()
    job = Compilation(ctx, import_model(model, ctx, shapes=shapes), progress)
    job.run("onnx", ())
    job.run("graph", pipelines.GRAPH)
    job.run("tensor", (*pipelines.LOWER, *pipelines.sparsify(sparsity, precision)))
    if calibration is not None and precision == "int8":
        total = len(calibration) if isinstance(calibration, Sized) else 0
        calibrate(
            job.module,
            ctx,
            calibration,
            lambda done: job.report("calibrate", done, total),
            observer,
        )
    job.run("quantised", pipelines.quantise(precision, activations))
    report = layer_report(job.module)
    job.run("tiled", pipelines.MEMORY)
    job.report("emit C", 0, 1)
    settings = f"target {target}, precision {precision}, sparsity {sparsity or 'as given'}"
    program = emit_program(job.module, ctx, report, settings)
    return program, job


def compile(
    model: str | os.PathLike[str] | ModelProto | bytes,
    *,
    target: str = "s4",
    precision: Precision = "int8",
    sparsity: int | None = None,
    calibration: Iterable[Feeds] | None = None,
    observer: str = "minmax",
    activations: Activations = "auto",
    shapes: Mapping[str, Any] | None = None,
    padding: str = "compute",
    threads: int | None = None,
    progress: Progress | None = None,
    levels: Sequence[str] | None = None,
) -> CompiledModel:
    """
    Compile an ONNX model (a path, a proto, or the bytes of a file) for a card.

    `target` is one of "s4", "s10", "s30". `precision` "int8" quantises products dynamically by
    row, convolutions statically (then `calibration`, an iterable of feeds, is needed); "bf16" and
    "fp32" need none. `activations` "dynamic" or "static" asks for one of the two for all products
    ("auto" is static for both in a calibrated network with convolutions), and `observer` is how
    static ranges are chosen: "minmax", "percentile" (99.99, or "percentile:99.9"), "entropy" or
    "mse". `sparsity` prunes the weights to one in 2, 4, 8, 16 or 32; None keeps them,
    and uses whatever zeros they have. `shapes` bounds run-time extents, `{"batch": (1, 64)}`,
    fixes them, `{"batch": 1}`, or gives an input's dims, `{"input": [1, 3, 224, 224]}`; `run`
    then takes any extents within the bounds. `padding` must be "compute". `threads` limits a
    run's threads (default: the processors of this process). `progress(what, done, total)` is
    called as work proceeds. `levels` are the ISA levels to build (default: the host's best).

    Raises SpuError for anything wrong with the model, the arguments or the machine.
    """
    from spu_ir.runtime.build import build
    from spu_ir.runtime.model import CompiledModel

    _check("padding", padding, ("compute",))
    program, job = lower(
        model,
        precision=precision,
        sparsity=sparsity,
        calibration=calibration,
        observer=observer,
        activations=activations,
        shapes=shapes,
        target=target,
        progress=progress,
    )
    if progress is not None:
        progress("compile C", 0, 1)
    libraries = build(program.source, levels)
    if progress is not None:
        progress("done", 1, 1)
    return CompiledModel.from_program(
        program,
        libraries,
        threads=threads,
        stages=job.stages,
        options={
            "target": target,
            "precision": precision,
            "sparsity": sparsity,
            "observer": observer,
            "activations": activations,
            "padding": padding,
        },
    )


def _check(what: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        raise SpuError(
            f"{what} {value!r} is not known", remedy=f"use {', '.join(map(str, allowed))}"
        )
