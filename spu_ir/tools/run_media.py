"""`spu-run --jpeg` and `--video`: what a model sees in pictures, the most likely classes first."""

from __future__ import annotations

import argparse
import glob
import json
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spu_ir.errors import SpuError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from spu_ir.media.pipeline import Answer, MediaPipeline
    from spu_ir.runtime.program import Json

TOP = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `spu-run` for pictures and films."""
    group = parser.add_argument_group("pictures (docs/media.md)")
    group.add_argument(
        "--jpeg",
        nargs="+",
        metavar="FILE",
        help="JPEG files, folders of them, or patterns as 'photos/*.jpg'",
    )
    group.add_argument("--video", metavar="FILE", help="a video file")
    group.add_argument(
        "--every", type=int, default=1, metavar="N", help="every N-th frame of it (default 1)"
    )
    group.add_argument(
        "--labels", type=Path, metavar="FILE", help="names of the classes, one a line"
    )
    group.add_argument("--batch", type=int, metavar="N", help="pictures of a run (default 8)")
    group.add_argument(
        "--full-size",
        action="store_true",
        help="do not reduce JPEGs while they are decoded: slower, and exactly what was in them",
    )
    group.add_argument(
        "--decoders", type=int, default=1, metavar="N", help="threads that decode (default 1)"
    )


@dataclass
class _Bar:
    progress: Progress
    task: TaskID

    def advance(self, answer: Answer) -> None:
        self.progress.advance(self.task)
        if answer.error is not None:
            # Above the bar, and at once: a long run should say early what is wrong.
            self.progress.console.print(
                f"bad: {answer.name}: {answer.error}", markup=False, highlight=False, style="red"
            )


def run(options: argparse.Namespace) -> None:
    """
    Answer the pictures that `options` names, and print the answers.

    Raises SpuError for what cannot be begun, and in the end if any picture was bad.
    """
    from spu_ir.media.pipeline import MediaPipeline
    from spu_ir.runtime import load

    if options.jpeg and options.video:
        raise SpuError("--jpeg and --video are two runs", remedy="give one of them")
    _refuse(options)
    model = load(options.model, threads=options.threads, device=options.device)
    pipeline = MediaPipeline(
        model, batch=options.batch, decoders=options.decoders, reduce=not options.full_size
    )
    labels = None if options.labels is None else read_labels(options.labels)
    if options.video:
        total, answers = None, pipeline.video(options.video, every=options.every)
    else:
        paths = find_files(options.jpeg)
        total, answers = len(paths), pipeline.jpegs(paths)
    start = time.perf_counter()
    with _progress(total, quiet=options.json) as bar:
        rows = [_row(answer, labels) for answer in _shown(answers, bar)]
    seconds = time.perf_counter() - start
    if options.json:
        print(json.dumps(_report(options, pipeline, rows, seconds), indent=2))
    else:
        _print(rows)
        count = pipeline.work.pictures
        print(
            f"{count} pictures in {seconds:.2f} s, {count / seconds:.1f}/s; "
            f"{model.level}, {model.threads} threads, {pipeline.decoders} decoding, "
            f"batch {pipeline.batch}"
        )
    bad, count = pipeline.work.bad, pipeline.work.pictures
    if bad:
        raise SpuError(f"{bad} of {count} pictures are bad: {rows_with_error(rows)}")


def _refuse(options: argparse.Namespace) -> None:
    """Raises SpuError for options of arrays, which pictures make no use of."""
    for name in ("input", "random", "extent", "output"):
        if getattr(options, name):
            raise SpuError(f"--{name} is for arrays, not pictures", remedy="leave it out")
    if options.repeat != 1:
        raise SpuError("--repeat is for arrays, not pictures", remedy="leave it out")


def rows_with_error(rows: Sequence[dict[str, Json]]) -> str:
    """The names of the first bad pictures."""
    names = [str(row["name"]) for row in rows if "error" in row]
    return ", ".join(repr(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def find_files(given: Sequence[str]) -> list[Path]:
    """
    The files that names, folders (their *.jpg and *.jpeg, in any case) and patterns stand for.

    Raises SpuError for a pattern or folder without one.
    """
    found: list[Path] = []
    for each in given:
        path = Path(each)
        if path.is_dir():
            some = sorted(p for p in path.iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
        elif path.exists() or not glob.has_magic(each):
            some = [path]
        else:
            some = sorted(Path(name) for name in glob.glob(each, recursive=True))
        if not some:
            raise SpuError(f"there is no picture in {each!r}", remedy="check the folder or pattern")
        found += some
    return found


def read_labels(path: Path) -> list[str]:
    """The names of classes, one a line. Raises SpuError for a file that cannot be read."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpuError(f"the labels in {str(path)!r} cannot be read: {error}") from error


def _shown(answers: Iterator[Answer], bar: _Bar | None) -> Iterator[Answer]:
    for answer in answers:
        if bar is not None:
            bar.advance(answer)
        yield answer


def _row(answer: Answer, labels: Sequence[str] | None) -> dict[str, Json]:
    if answer.error is not None:
        return {"name": answer.name, "error": answer.error}
    top = top_classes(answer, labels)
    return {"name": answer.name, "top": [*top]}


def top_classes(
    answer: Answer, labels: Sequence[str] | None, count: int = TOP
) -> list[dict[str, Json]]:
    """
    The classes with the highest scores, the first output's, best first; equal ones by number.

    Raises SpuError where it is no list of scores, or there are fewer labels than classes.
    """
    import numpy as np

    name, scores = next(iter(answer.outputs.items()))
    scores = np.asarray(scores, np.float32).squeeze()
    if scores.ndim != 1:
        raise SpuError(
            f"the output {name!r} has the shape {list(scores.shape)} for a picture, no scores",
            remedy="use spu_ir.media.pipeline from Python for models of other kinds",
        )
    if labels is not None and len(labels) < len(scores):
        raise SpuError(f"there are {len(labels)} labels for {len(scores)} classes")
    found: list[dict[str, Json]] = []
    for each in np.argsort(-scores, kind="stable")[:count]:
        index = int(each)
        label = None if labels is None else labels[index]
        found.append({"class": index, "label": label, "score": float(scores[index])})
    return found


def _report(
    options: argparse.Namespace,
    pipeline: MediaPipeline,
    rows: list[dict[str, Json]],
    seconds: float,
) -> dict[str, Json]:
    work = pipeline.work
    return {
        "model": str(options.model),
        "level": pipeline.model.level,
        "threads": pipeline.model.threads,
        "decoders": pipeline.decoders,
        "batch": pipeline.batch,
        "pictures": work.pictures,
        "bad": work.bad,
        "seconds": seconds,
        "pictures_per_s": work.pictures / seconds,
        "decode_s": work.decode_s,
        "run_s": work.run_s,
        "answers": [*rows],
    }


@contextmanager
def _progress(total: int | None, *, quiet: bool) -> Generator[_Bar | None]:
    """A bar on standard error, shown where that is a terminal; bad pictures always are."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    if quiet:
        yield None
        return
    console = Console(stderr=True, soft_wrap=True)
    columns: list[Any] = [
        TextColumn("pictures"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    ]
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        yield _Bar(progress, progress.add_task("pictures", total=total))


def _print(rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        name = str(row["name"]).encode("unicode_escape").decode()
        if "error" in row:
            sys.stdout.write(f"{name}: bad: {row['error']}\n")
            continue
        sys.stdout.write(f"{name}\n")
        for each in row["top"]:
            label = each["label"]
            text = "" if label is None else f"  {label.encode('unicode_escape').decode()}"
            sys.stdout.write(f"  {each['score']:9.4f}  {each['class']:5d}{text}\n")
