"""The flags of `spu-perf --task`, which are those of ByteMLPerf's launch.py and some more."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spu_ir.errors import SpuError
from spu_ir.tools.command import exit_code, progress_bar

from .workloads import ModelInfo, Workload, read_task, read_workload, task_names

HARDWARE = ("SPU",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `spu-perf --task`; 0, or 1 after an error or where some samples could not be read."""
    options = _parser().parse_args(arguments)
    unreadable: list[str] = []
    code = exit_code(lambda: unreadable.extend(_run(options)))
    if unreadable:
        print(f"error: {len(unreadable)} samples could not be read", file=sys.stderr)
    return code or int(bool(unreadable))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spu-perf",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run a ByteMLPerf task: compile its model, measure its speed on this machine,\n"
        "its accuracy and its difference to FP32, and write ByteMLPerf's report.",
        epilog="other commands, each with --help:\n"
        "  spu-perf estimate           what a model would take on a card\n"
        "  spu-perf install-backend    put the backend SPU into a checkout of ByteMLPerf",
    )
    parser.add_argument("--task", default="", metavar="NAME", help="see --show_task_list")
    parser.add_argument("--hardware_type", default="SPU", metavar="NAME", help="SPU (default)")
    parser.add_argument("--compile_only", action="store_true", help="stop once it is compiled")
    parser.add_argument("--show_task_list", action="store_true", help="print the tasks")
    parser.add_argument("--show_hardware_list", action="store_true", help="print SPU")
    group = parser.add_argument_group("not in launch.py")
    group.add_argument(
        "--workload", type=Path, metavar="FILE", help="a workload file of your own, for --task"
    )
    group.add_argument(
        "--model",
        type=Path,
        metavar="FILE",
        help="the model as .onnx or TorchScript (.pt), or its weights as .safetensors (default: "
        "the file that its JSON names if it is there, else random weights)",
    )
    group.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="the data set (default: fake data, so no accuracy): ImageNet with val_map.txt, or "
        "SQuAD's dev-v1.1.json with a tokenizer.json or vocab.txt",
    )
    group.add_argument(
        "--reports", type=Path, default=Path("reports"), metavar="DIR", help="default: reports"
    )
    group.add_argument("--target", default="s30", metavar="CARD", help="s4, s10 or s30 (default)")
    group.add_argument("--precision", metavar="P", help="int8 (default), mixed, bf16 or fp32")
    group.add_argument(
        "--sparsity",
        type=int,
        metavar="N",
        help="prune to one weight in N by magnitude (default: a file's weights as they are, random "
        "ones as published)",
    )
    group.add_argument("--batch-sizes", metavar="A,B", help="instead of the workload's")
    group.add_argument("--iterations", type=int, metavar="N", help="instead of the workload's")
    group.add_argument(
        "--seconds",
        type=float,
        default=6.0,
        metavar="S",
        help="stop a batch size's runs after so long, if there were 5 (default 6)",
    )
    group.add_argument("--threads", type=int, metavar="N", help="most threads of a run")
    group.add_argument("--json", action="store_true", help="print the report instead of tables")
    return parser


def _run(options: argparse.Namespace) -> list[str]:
    """Do what the options say; the samples that could not be read."""
    if options.show_task_list:
        print("\n".join(task_names()))
    if options.show_hardware_list:
        print("\n".join(HARDWARE))
    if not options.task and options.workload is None:
        if not (options.show_task_list or options.show_hardware_list):
            raise SpuError("there is no task", remedy="give --task NAME; --show_task_list has them")
        return []
    if options.hardware_type not in HARDWARE:
        raise SpuError(
            f"the hardware {options.hardware_type!r} is not known",
            remedy=f"use --hardware_type {HARDWARE[0]}",
        )
    workload, info = _files(options)
    return _benchmark(options, workload, info)


def _files(options: argparse.Namespace) -> tuple[Workload, ModelInfo]:
    """The workload and model files, with the changes that the options make."""
    if options.workload is not None:
        if options.task and options.task != options.workload.stem:
            raise SpuError("--task and --workload name different tasks", remedy="leave --task out")
        workload, info = read_workload(options.workload)
    else:
        workload, info = read_task(options.task)
    if options.batch_sizes is not None:
        workload = replace(workload, batch_sizes=_batch_sizes(options.batch_sizes))
    if options.iterations is not None:
        if options.iterations < 1:
            raise SpuError(
                f"--iterations {options.iterations} runs nothing", remedy="use 1 or more"
            )
        workload = replace(workload, iterations=options.iterations)
    return workload, info


def _batch_sizes(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch("0*[1-9][0-9]{0,8}", part) for part in parts):
        raise SpuError(f"--batch-sizes {text!r} are no numbers", remedy="as in 1,4,8")
    return tuple(int(part) for part in parts)


def _benchmark(options: argparse.Namespace, workload: Workload, info: ModelInfo) -> list[str]:
    from spu_ir.quantisation import PRECISIONS, check

    from .benchmark import Settings, run_task
    from .report import save_report
    from .table import print_report

    precision = options.precision or "int8"
    check("precision", precision, PRECISIONS)
    if not options.seconds > 0:
        raise SpuError(f"--seconds {options.seconds:g} is no time", remedy="use more than 0")
    settings = Settings(
        model=options.model,
        data=options.data,
        target=options.target,
        precision=precision,
        sparsity=options.sparsity,
        threads=options.threads,
        seconds=options.seconds,
        compile_only=options.compile_only,
    )
    with progress_bar(quiet=options.json) as progress:
        result = run_task(workload, info, settings, progress)
    report, path = save_report(options.reports, result)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print_report(report, None if path is None else str(path))
    return result.dataset.unreadable
