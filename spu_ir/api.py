"""Compile a model: ONNX file in, runnable model out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass, PassPipelineCallbackType

from spu_ir.errors import SpuError
from spu_ir.packing.prune import RATIOS
from spu_ir.quantisation import (
    WITHOUT_FEEDS,
    Activations,
    Attention,
    Feeds,
    Precision,
    Progress,
    Quantisation,
    Rounding,
    check,
)
from spu_ir.targets import Target
from spu_ir.targets.target import target_option
from spu_ir.tools.dump import DUMP_VARIABLE, dump_callback

if TYPE_CHECKING:
    from onnx import ModelProto

    from spu_ir.media.image_input import ImageInput
    from spu_ir.runtime.model import CompiledModel
    from spu_ir.runtime.program import Json, Program
    from spu_ir.transforms.sensitivity import SensitivityReport
    from spu_ir.transforms.tile_sizes import Tiling
    from spu_ir.tune_program import Tuner

Padding = Literal["compute", "skip"]
"""Whether padded rows of a batch are computed as any others, or left out."""

PADDINGS: tuple[Padding, ...] = ("compute", "skip")


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
    estimate: float | None = None
    """Of the relative L2 error of the outputs, where `mixed` measured what INT8 costs."""
    tiling: Tiling | None = None
    """The sizes of the tiles, once there are tiles."""
    tuning: dict[str, Json] | None = None
    """What was measured for them, where a tuner was asked."""

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
    quantisation: Quantisation | None = None,
    shapes: Mapping[str, Any] | None = None,
    target: str | os.PathLike[str] | Target = "s4",
    padding: Padding = "compute",
    preprocess: ImageInput | None = None,
    progress: Progress | None = None,
    tiling: Tiling | None = None,
    tuner: Tuner | None = None,
) -> tuple[Program, Compilation]:
    """
    Everything of `compile` up to the C text: the program, and how it came about.

    `quantisation`, when given, says the precision too. `tiling` is by default what the pass has,
    whatever the host; a `tuner` starts from it.
    """
    from spu_ir.codegen.program import emit_program
    from spu_ir.codegen.report import layer_report
    from spu_ir.transforms import pipelines
    from spu_ir.transforms.tile_sizes import Tiling

    quantisation = quantisation or Quantisation(precision)
    precision = quantisation.precision
    card = Target.load(target)
    check("padding", padding, PADDINGS)
    quantisation.check(calibrated=calibration is not None)
    job = _to_tensors(model, precision, sparsity, shapes, progress, padding, preprocess)
    job.estimate = quantisation.prepare(job.module, job.ctx, calibration, job.report)
    job.run(
        "quantised", pipelines.quantise(precision, quantisation.activations, quantisation.attention)
    )
    report = layer_report(job.module)
    settings = (
        f"target {card.name}, precision {precision}, sparsity {sparsity or 'as given'}, "
        f"padding {padding}"
    )
    job.tiling = tiling or Tiling()
    if tuner is None:
        job.run("tiled", (*pipelines.PLAN, *pipelines.tile(job.tiling)))
    else:
        job.run("planned", pipelines.PLAN)
        job.tiling, job.tuning = tuner.choose(
            job.module, job.ctx, job.tiling, settings, partial(job.report, "tune")
        )
        job.run("tiled", pipelines.tile(job.tiling))
    job.report("emit C", 0, 1)
    program = emit_program(job.module, job.ctx, report, job.tiling.after(settings))
    return program, job


def _to_tensors(
    model: str | os.PathLike[str] | ModelProto | bytes,
    precision: Precision,
    sparsity: int | None,
    shapes: Mapping[str, Any] | None,
    progress: Progress | None,
    padding: Padding = "compute",
    preprocess: ImageInput | None = None,
) -> Compilation:
    """A model on tensors, pruned and in f32: what calibration sees."""
    from spu_ir.frontend import import_model
    from spu_ir.transforms import pipelines

    if sparsity is not None:
        check("sparsity", sparsity, RATIOS)
    ctx = new_context()
    job = Compilation(ctx, import_model(model, ctx, shapes=shapes), progress)
    job.run("onnx", ())
    job.run("graph", pipelines.GRAPH)
    images = None if preprocess is None else _images(preprocess)
    passes = (*pipelines.lower(images), *pipelines.padding(padding))
    job.run("tensor", (*passes, *pipelines.sparsify(sparsity, precision)))
    return job


def _images(preprocess: ImageInput) -> ModulePass:
    """The pass that gives a model images for its input."""
    from spu_ir.transforms.preprocess_images import PreprocessImagesPass

    return PreprocessImagesPass(
        height=preprocess.height,
        width=preprocess.width,
        mean=preprocess.mean,
        std=preprocess.std,
        divide=preprocess.divide,
        input=preprocess.input or "",
        layout=preprocess.layout,
        colour=preprocess.colour,
        interpolation=preprocess.interpolation,
        antialias=preprocess.antialias,
        canvas=preprocess.canvas,
    )


def compile(
    model: str | os.PathLike[str] | ModelProto | bytes,
    *,
    target: str | os.PathLike[str] | Target = "s4",
    precision: Precision = "int8",
    sparsity: int | None = None,
    calibration: Iterable[Feeds] | None = None,
    observer: str = "minmax",
    activations: Activations = "auto",
    bias_correction: bool = False,
    smoothing: bool = False,
    rounding: Rounding = "nearest",
    group_size: int | None = None,
    budget: float | None = None,
    tolerance: float | None = None,
    attention: Attention = "auto",
    shapes: Mapping[str, Any] | None = None,
    padding: Padding = "compute",
    preprocess: ImageInput | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    levels: Sequence[str] | None = None,
    device: int | Literal["none"] | None = None,
    profile: bool = False,
    tiling: Tiling | None = None,
    tune: bool = False,
    tune_extents: Mapping[str, int] | None = None,
) -> CompiledModel:
    """
    Compile an ONNX model (a path, a proto, or the bytes of a file) for a card.

    `target` is "s4", "s10", "s30", or a TOML file that describes another (docs/device-model.md);
    what the program computes does not depend on it. `precision` is "fp32", "bf16", "int8" or
    "mixed", which is "int8" but for the layers that it would hurt most. `sparsity` prunes the
    weights to one in 2, 4, 8, 16 or 32; None keeps them, and uses whatever zeros they have.

    Of INT8 (docs/quantisation.md): `calibration` is an iterable of feeds, a generator too, which
    convolutions need. `activations` "dynamic" gives each row of an input a scale at run time,
    "static" the whole input one from calibration, "auto" what suits the network. `observer` says
    how static ranges are chosen: "minmax", "percentile" (99.99, or "percentile:99.9"), "entropy"
    or "mse". `bias_correction` takes the mean error that quantisation adds off the biases;
    `smoothing` moves outlier columns of normalised activations into weights, which transformers
    gain by. `rounding` "second-order" rounds the weights of a layer for what it answers on the
    calibration feeds, and corrects its bias, instead of each to the nearest. `group_size` inputs of
    a matrix product share their scales, a multiple of 64, instead of all of a row.
    `budget` is the largest share of the multiply-accumulates that "mixed" computes in bf16 (by
    default 0.1); with `tolerance` it stops where the estimated relative L2 error of the outputs is
    below that; the model's `options["estimated_error"]` says where it came to.
    `attention` "auto" is INT8 too, but in a model that was quantised before; "int8" and "fp32"
    (slower) say so.

    `shapes` bounds run-time extents, `{"batch": (1, 64)}`, fixes them, `{"batch": 1}`, or gives
    an input's dims, `{"input": [1, 3, 224, 224]}`; `run` then takes any extents within the
    bounds. `padding` "skip" computes the real rows of padded samples only, for models whose
    attention has a padding mask (docs/padding.md); "compute" computes all. `preprocess` makes
    decoded images of any size the input, and resizes and normalises them in the program
    (docs/media.md); calibration then takes such images too. `threads` limits a run's threads
    (default: the processors of this process). `progress(what, done, total)` is called as work
    proceeds. `levels` are the ISA levels to build (default: the host's best).
    `device` is the index of the card of this machine to put the model on, or "none" for no card
    (default: the first that has the target's chip; docs/devices.md). `profile` also builds, now,
    the program that `CompiledModel.profile` runs, which counts what it does (docs/counters.md).
    `tiling` has the sizes of the program's tiles (default: what suits this host's caches); with
    `tune` a few are measured, at `tune_extents` (default: the largest), and the fastest is taken,
    the next time without measuring (docs/tuning.md). Outputs do not depend on them.

    Raises SpuError for anything wrong with the model, the arguments or the machine.
    """
    from spu_ir.runtime.build import build
    from spu_ir.runtime.model import CompiledModel
    from spu_ir.tune_program import Tuner, host_tiling, tiling_options

    if tune and tiling is not None:
        raise SpuError("tune would choose what tiling gives", remedy="leave one of them out")
    if tune_extents and not tune:
        raise SpuError("tune_extents are what tune measures at", remedy="give tune=True")
    tuner = Tuner.of(levels, threads, tune_extents, preprocess) if tune else None
    quantisation = Quantisation(
        precision=precision,
        activations=activations,
        observer=observer,
        bias_correction=bias_correction,
        smoothing=smoothing,
        rounding=rounding,
        budget=budget,
        tolerance=tolerance,
        attention=attention,
        group_size=group_size,
    )
    program, job = lower(
        model,
        sparsity=sparsity,
        calibration=calibration,
        quantisation=quantisation,
        shapes=shapes,
        target=target,
        padding=padding,
        preprocess=preprocess,
        progress=progress,
        tiling=tiling or host_tiling(threads),
        tuner=tuner,
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
            "target": target_option(target),
            **asdict(quantisation),
            "sparsity": sparsity,
            "padding": padding,
            "estimated_error": job.estimate,
            "preprocess": None
            if preprocess is None
            else preprocess.named([port.name for port in program.inputs]).json(),
            **tiling_options(job.tiling, job.tuning),
        },
        device=device,
        name=Path(model).stem if isinstance(model, str | os.PathLike) else "model",
        profile=profile,
    )


def sensitivity(
    model: str | os.PathLike[str] | ModelProto | bytes,
    *,
    calibration: Iterable[Feeds],
    sparsity: int | None = None,
    activations: Activations = "auto",
    observer: str = "minmax",
    smoothing: bool = False,
    shapes: Mapping[str, Any] | None = None,
    padding: Padding = "compute",
    progress: Progress | None = None,
) -> SensitivityReport:
    """
    For each layer of an ONNX model, how much it would change the outputs were it alone in INT8.

    Errors are ||y - f32|| / ||f32|| of the outputs, against f32 of the same weights, pruned if
    `sparsity` says so; the arguments are those of `compile`. Nothing is compiled: the network
    runs in the interpreter, on the first 4 feeds. Raises SpuError for anything wrong with the
    model or the arguments.
    """
    from spu_ir.transforms.sensitivity import FEEDS, report

    quantisation = Quantisation("int8", activations, observer, smoothing=smoothing)
    check("padding", padding, PADDINGS)
    quantisation.check(calibrated=True)
    job = _to_tensors(model, "int8", sparsity, shapes, progress, padding)
    feeds = list(calibration)
    if not feeds:
        raise SpuError("there is no feed to measure with", remedy=WITHOUT_FEEDS)
    quantisation.prepare(job.module, job.ctx, feeds, job.report)
    return report(
        job.module,
        job.ctx,
        feeds[:FEEDS],
        activations,
        lambda done, total: job.report("sensitivity", done, total),
    )
