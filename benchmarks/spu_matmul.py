"""
Useful INT8 multiply-accumulates per second of the SPU's kernels on one thread.

    python -m benchmarks.spu_matmul [--rounds 10] [--seconds 0.05] [--realtime] [--layers matmul]
        [--json] [--write docs/kernels.md] [--python openvino=PATH]

Every layer runs at every ratio with random weights pruned to it, through the same device code as
a compiled model, scale, bias and u8 output included. *Useful* counts only what the non-zero
weights need. The two peaks are loops in registers, measured in the same run: the dot product
(vpdpbusd) alone, which bounds the dense path, and the pair of permute and dot product (vpermb +
vpdpbusd), which bounds a sparse one whose permute feeds one dot product. With `share = 2` it
feeds two, so such a layer can exceed the pair's peak. Dense INT8 products of oneDNN, ONNX Runtime
and OpenVINO, those of them that are installed, take turns with ours. docs/kernels.md has a run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from spu_ir import __version__
from spu_ir.errors import SpuError
from spu_ir.packing.banked import PackedWeight, pack
from spu_ir.packing.prune import prune_banked
from spu_ir.runtime.cpu import processor_name, select_level

from .compare_process import EngineError, Policy, check_realtime
from .options import add_pythons, add_timing, command_line, recorded
from .spu_matmul_gemm import ENGINES, PEERS, Gemm, python_of
from .spu_matmul_kernels import LAYERS, RATIOS, Bench, Layer
from .spu_matmul_page import show, write_page
from .spu_peaks import Peaks

Report: TypeAlias = dict[str, Any]
Row: TypeAlias = dict[str, Any]
PEAKS = ("peak_dot", "peak_pair")


class Alone:
    """One processor for what is timed, which nothing interrupts under the policy `realtime`."""

    def __init__(self, policy: Policy):
        self.policy: Policy = policy
        self.processor = min(os.sched_getaffinity(0))

    @contextmanager
    def __call__(self) -> Generator[None]:
        """What is timed in this process."""
        processors, policy = os.sched_getaffinity(0), os.sched_getscheduler(0)
        parameters = os.sched_getparam(0)
        os.sched_setaffinity(0, {self.processor})
        if self.policy == "realtime":
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        try:
            yield
        finally:
            os.sched_setscheduler(0, policy, parameters)
            os.sched_setaffinity(0, processors)


def packed_weight(layer: Layer, ratio: str, share: int) -> tuple[PackedWeight, int]:
    """Random weights of a layer, pruned, and how many of them are not zero."""
    rng = np.random.default_rng(0)
    weight = rng.integers(1, 128, (layer.lanes, layer.depth)).astype(np.int8)
    slots = RATIOS[ratio]
    if slots is not None:
        weight = prune_banked(weight, layer.segments, 64, slots, share)
    encoding = None if slots is None else (64, slots, share)
    packed = pack(weight, segments=layer.segments, encoding=encoding, x_zero=128)
    return packed, int(np.count_nonzero(weight))


class Run:
    """The kernels and the peers of a run, and the peaks that it has seen."""

    def __init__(
        self, level: str, folder: Path, gemms: Sequence[Gemm], alone: Alone, plan: tuple[int, float]
    ):
        self.bench, self.loops = Bench(level, folder), Peaks(level, folder)
        self.gemms, self.alone = gemms, alone
        self.rounds, self.turn = plan
        self.peaks: dict[str, float | None] = dict.fromkeys(PEAKS)

    def measure(self, layer: Layer) -> tuple[list[Row], list[Row]]:
        """Rows of our kernels and, if the layer is a plain product, of the peers', by turns."""
        kernels: list[Row] = []
        products: list[tuple[Row, Any]] = []
        for ratio, slots in RATIOS.items():
            for share in (1,) if slots is None else (1, 2):
                packed, useful = packed_weight(layer, ratio, share)
                row = {"layer": layer.name, "count": layer.count, "ratio": ratio, "share": share}
                row |= {"useful_macs": layer.rows * useful}
                row |= {"macs": layer.rows * layer.lanes * layer.depth}
                kernels.append(row)
                products.append((row, self.bench.product(layer, packed)))
        dense: list[Row] = []
        for gemm in self.gemms if layer.plain else ():
            row = {"layer": layer.name, "library": gemm.peer.library, "form": gemm.peer.form}
            row |= {"version": gemm.version, "call_seconds": gemm.overhead}
            dense.append(row | {"macs": kernels[0]["macs"]})
            gemm.load((layer.rows, layer.depth, layer.lanes))
            products.append((dense[-1], gemm))
        for number in range(self.rounds):
            # Each round starts with another one: none always follows the same one.
            first = number * len(products) // self.rounds
            for row, product in products[first:] + products[:first]:
                if isinstance(product, Gemm):
                    found = product.least_seconds(self.turn) - product.overhead
                else:
                    with self.alone():
                        found = product.least_seconds(self.turn)
                row["seconds"] = min(found, row.get("seconds", found))
            self.see_peaks()
        return kernels, dense

    def see_peaks(self) -> None:
        """Measure the peaks again: the clock drifts, and the best of a whole run counts."""
        for name in PEAKS:
            with self.alone():
                again = self.loops.rate(name, tries=100)
            if again is not None:
                self.peaks[name] = max(again, self.peaks[name] or 0.0)


def peers(
    pythons: dict[str, Path], alone: Alone, folder: Path, stack: ExitStack
) -> tuple[list[Gemm], list[Row]]:
    """The peers that are installed, started, and why others are not measured."""
    found: list[Gemm] = []
    missing: list[Row] = []
    for peer in PEERS:
        try:
            python = python_of(peer.engine, pythons)
            found.append(Gemm(peer, python, alone.processor, alone.policy, folder, stack))
        except EngineError as error:
            reason = str(error).replace(f"{folder}/", "")
            missing.append({"library": peer.library, "form": peer.form, "reason": reason})
    return found, missing


def run(
    layers: Sequence[Layer],
    rounds: int,
    seconds: float,
    policy: Policy,
    pythons: dict[str, Path],
) -> Report:
    """Measure everything; the dictionary that `--json` prints, without its command."""
    level = select_level()
    alone = Alone(policy)
    results: list[Row] = []
    dense: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="spu-ir-benchmark-") as name, ExitStack() as stack:
        folder = Path(name)
        gemms, missing = peers(pythons, alone, folder, stack)
        measuring = Run(level, folder, gemms, alone, (rounds, seconds))
        for layer in layers:
            print(layer.name, file=sys.stderr, flush=True)
            ours, theirs = measuring.measure(layer)
            results += ours
            dense += theirs
    return {
        "machine": processor_name(),
        "level": level,
        "date": date.today().isoformat(),
        "version": __version__,
        "threads": 1,
        "rounds": rounds,
        "round_seconds": seconds,
        "policy": policy,
        **measuring.peaks,
        "results": results,
        "dense": dense,
        "missing": missing,
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = command_line("spu_matmul", __doc__)
    add_timing(found, rounds=10, seconds=0.05)
    add_pythons(found, ENGINES)
    found.add_argument("--layers", default="", metavar="TEXT", help="those whose name has it")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 after an error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    chosen = [layer for layer in LAYERS if options.layers in layer.name]
    policy: Policy = "realtime" if options.realtime else "normal"
    try:
        if not chosen or options.rounds < 1:
            raise SpuError(
                "there is nothing to measure",
                remedy="ask for 1 or more --rounds, and for --layers such as matmul or 3x3",
            )
        if options.realtime:
            check_realtime()
        report = run(chosen, options.rounds, options.seconds, policy, dict(options.python))
    except SpuError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report = {"command": recorded(given, "spu_matmul"), **report}
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        show(report)
    if options.write is not None:
        write_page(options.write, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
