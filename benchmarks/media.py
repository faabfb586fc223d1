"""
From JPEG files to classes: decoding, preprocessing and inference beside each other.

    python -m benchmarks.media [--jpeg FILE ...] [--pictures 400] [--batch 8] [--decoders 1]
        [--threads 1] [--rounds 5] [--json] [--model MODEL.spu]

ResNet-50 at 16x in INT8 (random weights), which resizes and normalises in the program, on real
photographs: those given, or the two that scikit-learn brings, over and over. Three rates are
measured in turns, so that all see the same machine:

- decode alone: the pipeline's decoders, and no model;
- inference alone: the model with the preprocessing in it, on batches that were decoded before;
- end to end: files in, classes out.

"Alone" is with the threads that a stage has in the pipeline, one each by default: on two
processors the stages then share none, and end to end can reach the slower of the two. With more
threads than processors it cannot, whatever the pipeline does: the bound printed beside it is what
the processors allow. The exit code is 1 when end to end is below 0.9 of the slower.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import spu_ir
from spu_ir import zoo
from spu_ir.errors import SpuError
from spu_ir.media import ImageInput
from spu_ir.media.codec import decode_seconds
from spu_ir.media.jpeg import Picture, decode_jpeg
from spu_ir.media.pipeline import MediaPipeline
from spu_ir.runtime.model import CompiledModel
from spu_ir.targets import Target

LINE = 0.9
"""The least share of the slower stage that end to end must reach."""

NAME = "input_1.1"


def photographs() -> list[Path]:
    """The photographs that scikit-learn brings. Raises SpuError where it is not installed."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise SpuError("scikit-learn, which has two photographs, is missing", remedy="give --jpeg")
    return sorted((Path(found.origin).parent / "datasets" / "images").glob("*.jpg"))


def compiled(paths: Sequence[Path], batch: int, threads: int) -> CompiledModel:
    """ResNet-50 at 16x in INT8, calibrated on the photographs, for up to `batch` of them."""
    images = ImageInput(input=NAME)
    pictures = [decode_jpeg(path.read_bytes(), images).pixels for path in paths[:8]]
    return spu_ir.compile(
        zoo.published("resnet50").build(ratio=16),
        precision="int8",
        shapes={"batch": (1, batch)},
        calibration=[images.feeds(pictures)],
        preprocess=images,
        threads=threads,
    )


class Stages:
    """The three things that are timed, each over the same pictures."""

    def __init__(self, pipeline: MediaPipeline, paths: Sequence[Path]):
        self.pipeline, self.paths = pipeline, paths
        known = {path: decode_jpeg(path.read_bytes(), pipeline.images) for path in set(paths)}
        self.pictures: list[Picture] = [known[path] for path in paths]

    def decode(self) -> None:
        """Every file, by as many threads as the pipeline has for it; nothing is kept."""
        for picture in self.pipeline.decoded(self.paths):
            assert picture.pixels.size

    def infer(self) -> None:
        """Every batch, of pictures that are in memory: putting them together is part of it."""
        size = self.pipeline.batch
        for start in range(0, len(self.pictures), size):
            pixels = [picture.pixels for picture in self.pictures[start : start + size]]
            self.pipeline.model.run(self.pipeline.images.feeds(pixels))

    def end_to_end(self) -> None:
        """Every file, and its answer."""
        answers = list(self.pipeline.jpegs(self.paths))
        assert len(answers) == len(self.paths)
        assert not any(answer.error for answer in answers)


def measure(stages: Stages, rounds: int) -> dict[str, float]:
    """
    Pictures a second of each stage, and milliseconds of processor time a picture.

    Both are medians of `rounds`, in which the stages take turns.
    """
    runs: dict[str, Callable[[], None]] = {
        "decode": stages.decode,
        "inference": stages.infer,
        "end_to_end": stages.end_to_end,
    }
    count = len(stages.paths)
    figures: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start, processors = time.perf_counter(), time.process_time()
            run()
            seconds, used = time.perf_counter() - start, time.process_time() - processors
            # The first round warms caches and memory up.
            if number:
                figures.setdefault(f"{name}_per_s", []).append(count / seconds)
                figures.setdefault(f"{name}_cpu_ms", []).append(used / count * 1e3)
    return {name: median(values) for name, values in figures.items()}


def report(options: argparse.Namespace) -> dict[str, Any]:
    """All figures, as `--json` prints them."""
    files = [Path(each) for each in options.jpeg] if options.jpeg else photographs()
    if options.model is None:
        model = compiled(files, options.batch, options.threads)
    else:
        model = spu_ir.load(options.model, threads=options.threads)
    pipeline = MediaPipeline(model, batch=options.batch, decoders=options.decoders)
    paths = list(islice(cycle(files), options.pictures))
    stages = Stages(pipeline, paths)
    rates = measure(stages, options.rounds)
    pixels = sum(picture.coded for picture in stages.pictures)
    slower = min(rates["decode_per_s"], rates["inference_per_s"])
    needed = (rates["decode_cpu_ms"] + rates["inference_cpu_ms"]) / 1e3
    return {
        "files": [str(path) for path in files],
        "pictures": len(paths),
        "batch": options.batch,
        "decoders": options.decoders,
        "threads": options.threads,
        "processors": len(os.sched_getaffinity(0)),
        "level": model.level,
        **rates,
        "of_the_slower": rates["end_to_end_per_s"] / slower,
        "processors_allow_per_s": len(os.sched_getaffinity(0)) / needed,
        "codec_of_an_s30_per_s": len(paths)
        / decode_seconds(Target.load("s30"), jpeg_pixels=pixels),
    }


def show(figures: dict[str, Any]) -> None:
    """A table of the rates."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("stage")
    table.add_column("threads", justify="right")
    table.add_column("pictures/s", justify="right")
    table.add_column("CPU ms/picture", justify="right")
    both = figures["decoders"] + figures["threads"]
    for stage, threads, key in (
        ("decode alone", figures["decoders"], "decode_per_s"),
        ("inference alone, with preprocessing", figures["threads"], "inference_per_s"),
        ("end to end", both, "end_to_end_per_s"),
        ("what the processors allow", both, "processors_allow_per_s"),
        ("decoding by the codecs of an S30 (model)", "-", "codec_of_an_s30_per_s"),
    ):
        used = figures.get(key.replace("_per_s", "_cpu_ms"))
        text = "-" if used is None else f"{used:.2f}"
        table.add_row(stage, str(threads), f"{figures[key]:.1f}", text)
    console = Console()
    console.print(table)
    console.print(
        f"end to end is {figures['of_the_slower']:.3f} of the slower stage "
        f"({figures['processors']} processors, {figures['level']}, batch {figures['batch']})",
        highlight=False,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when end to end misses its line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.media")
    parser.add_argument("--jpeg", nargs="+", metavar="FILE", help="photographs to decode")
    parser.add_argument("--model", type=Path, help="a package with preprocessing")
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--decoders", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        figures = report(options)
    except SpuError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures)
    return 0 if figures["of_the_slower"] >= LINE else 1


if __name__ == "__main__":
    sys.exit(main())
