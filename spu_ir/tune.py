"""
Tile sizes by measuring: programs of other sizes, run in turns with the best so far.

The search goes through the sizes one after the other and is over after at most 11 programs. What
it chose is kept in the cache folder, for the same program on the same processor.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, cast

from spu_ir.errors import SpuError
from spu_ir.runtime.cache import cached
from spu_ir.runtime.program import Json
from spu_ir.transforms.tile_sizes import Tiling

Run: TypeAlias = Callable[[], float]
"""Runs a program once and says how many seconds that took."""

Report: TypeAlias = Callable[[int, int], None]
"""Is told how many programs were looked at, and of how many."""

GRID: tuple[tuple[str, tuple[float, ...]], ...] = (
    ("rows_a_block", (2, 4)),
    ("lanes_a_block", (0.5, 2)),
    ("channels_a_block", (0.5, 2)),
    ("elements", (0.5, 2)),
    ("tile_bytes", (0.5, 4 / 3)),
)
"""By what each size is multiplied, in the order that they are tried in."""

STEP = 0.01
"""So much less time, in the median and in the least, makes a candidate the best so far."""

GAIN = 0.02
"""So much less time than the start's the best must take, measured again, to be chosen."""

HOPELESS = 0.1
"""A candidate whose best so far takes this much less time is measured in LEAST rounds only."""

LEAST, MOST = 5, 200
"""Rounds of a comparison; between them as many as fill SECONDS of one program's time."""

SECONDS = 1.0

FORMAT = "spu-ir tuning 1"


@dataclass(frozen=True)
class Emitted:
    """A program of a tiling: its text, by which equal ones are known, and how to start it."""

    text: str
    start: Callable[[], Run]
    """Builds and loads it, and gives what runs it."""


@dataclass(frozen=True)
class Choice:
    """What a search chose, and what it measured, as `CompiledModel.options["tuning"]` has it."""

    tiling: Tiling
    measured: dict[str, Json]


def search(start: Tiling, emit: Callable[[Tiling], Emitted], report: Report) -> Choice:
    """
    The fastest tiling near `start`, which stays unless another is at least 2 % faster.

    One size after the other is changed by the factors of GRID, from the best so far. Tilings
    that give a program which was there before are not run.
    """
    first = emit(start)
    total = 1 + sum(len(factors) for _, factors in GRID)
    seen = {first.text}
    best, best_run = start, first.start()
    first_run = best_run
    candidates: list[Json] = []
    done = 1
    for name, factors in GRID:
        size = getattr(best, name)
        for factor in factors:
            report(done, total)
            done += 1
            tiling = replace(best, **{name: max(1, round(size * factor))})
            emitted = emit(tiling)
            if emitted.text in seen:
                continue
            seen.add(emitted.text)
            run = emitted.start()
            theirs, ours = in_turns(run, best_run)
            better = faster(theirs, ours, STEP)
            candidates.append(
                {
                    "tiling": dict(asdict(tiling)),
                    "ms": summary(theirs),
                    "best_ms": summary(ours),
                    "better": better,
                }
            )
            if better:
                best, best_run = tiling, run
    report(total, total)
    measured: dict[str, Json] = {"candidates": candidates}
    chosen = start
    if best != start:
        theirs, ours = in_turns(best_run, first_run, hopeless=1.0)
        if faster(theirs, ours, GAIN):
            chosen = best
        measured["final"] = {
            "tiling": dict(asdict(best)),
            "ms": summary(theirs),
            "start_ms": summary(ours),
        }
    return Choice(chosen, {"start": dict(asdict(start)), **measured})


def in_turns(
    candidate: Run, best: Run, *, hopeless: float = HOPELESS
) -> tuple[list[float], list[float]]:
    """Seconds of the runs of two programs, which take turns at going first."""
    # Pages, caches and branches are new to a program that has not run yet.
    candidate()
    best()
    theirs: list[float] = []
    ours: list[float] = []
    while len(theirs) < MOST:
        if len(theirs) % 2:
            ours.append(best())
            theirs.append(candidate())
        else:
            theirs.append(candidate())
            ours.append(best())
        if len(theirs) >= LEAST and (sum(ours) >= SECONDS or faster(ours, theirs, hopeless)):
            break
    return theirs, ours


def faster(candidate: list[float], best: list[float], share: float) -> bool:
    """Whether times are less by `share` in the median, which noise moves, and in the least."""
    pairs = (
        (statistics.median(candidate), statistics.median(best)),
        (min(candidate), min(best)),
    )
    return all(ours <= (1 - share) * theirs for ours, theirs in pairs)


def summary(seconds: list[float]) -> dict[str, Json]:
    """Milliseconds of some runs."""
    return {
        "median": round(statistics.median(seconds) * 1e3, 4),
        "least": round(min(seconds) * 1e3, 4),
        "rounds": len(seconds),
    }


def remembered(key: str, choose: Callable[[], Choice]) -> Choice:
    """
    What the cache folder has for a `key` (hexadecimal), or what `choose` finds, which is kept.

    A file that is damaged, or is not one of these, is replaced.
    """
    fresh: list[Choice] = []

    def make(path: Path) -> None:
        choice = choose()
        fresh.append(choice)
        kept = {
            "format": FORMAT,
            "key": key,
            "tiling": asdict(choice.tiling),
            "measured": choice.measured,
        }
        path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")

    path = cached("tuning", key, ".json", make)
    if not fresh and (found := _read(path, key)) is not None:
        return found
    if not fresh:
        path.unlink(missing_ok=True)
        cached("tuning", key, ".json", make)
    return fresh[0]


def _read(path: Path, key: str) -> Choice | None:
    """The choice in a file; None for anything else than what `remembered` wrote for `key`."""
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            return None
        table = cast(dict[str, Any], value)
        tiling, measured = table["tiling"], table["measured"]
        if (table["format"], table["key"]) != (FORMAT, key):
            return None
        if not isinstance(tiling, dict) or not isinstance(measured, dict):
            return None
        return Choice(
            Tiling.from_json(cast(dict[str, Any], tiling)), cast(dict[str, Json], measured)
        )
    except (OSError, ValueError, RecursionError, KeyError, SpuError):
        return None
