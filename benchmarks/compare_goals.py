"""The goals that the comparison is held to, and what measurements say of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from .ratios import Ratio, title

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """spu-ir takes at most 1 / `factor` of the time of an engine's INT8, at a ratio."""

    engine: str
    ratio: Ratio
    factor: float
    conformer: float | None = None
    """The factor for the Conformers, where it is another one."""

    def of(self, model: str) -> float:
        """The factor for a model."""
        if self.conformer is not None and model.startswith("conformer"):
            return self.conformer
        return self.factor

    @property
    def title(self) -> str:
        return f"{title(self.ratio)}, {self.engine}"


GOALS = (
    Goal("openvino", 16, 4.0, conformer=3.0),
    Goal("onnxruntime", 16, 5.0),
    Goal("deepsparse", 16, 2.5),
    Goal("openvino", 1, 0.9),
    Goal("openvino", "95%", 2.0),
)


@dataclass(frozen=True)
class Verdict:
    """One goal for one model, and how many times faster spu-ir was found to be."""

    goal: Goal
    model: str
    threads: int
    batch: int
    found: float | None
    """None where the engine, or spu-ir, could not be measured or gave wrong answers."""

    @property
    def holds(self) -> bool | None:
        return None if self.found is None else self.found >= self.goal.of(self.model)


PLACE = ("model", "ratio", "threads", "batch")


def best(rows: Sequence[Row], engine: str, **at: Any) -> Row | None:
    """An engine's fastest INT8 row with right answers at a model, ratio, batch and threads."""
    found = [
        row
        for row in rows
        if row["engine"] == engine
        and row["format"] == "int8"
        and "seconds" in row
        and not row["wrong"]
        and all(row[key] == value for key, value in at.items())
    ]
    return min(found, key=lambda row: row["seconds"], default=None)


def faster(rows: Sequence[Row], engine: str, **at: Any) -> float | None:
    """How many times faster spu-ir is than an engine."""
    ours, theirs = best(rows, "spu", **at), best(rows, engine, **at)
    return theirs["seconds"] / ours["seconds"] if ours and theirs else None


def places(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """(threads, batch) of all rows, in order."""
    return sorted({(row["threads"], row["batch"]) for row in rows})


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Every goal whose ratio was measured, for every model, number of threads and batch."""
    found: list[Verdict] = []
    for goal in GOALS:
        for model in dict.fromkeys(row["model"] for row in rows):
            for threads, batch in places(rows):
                at = {"model": model, "ratio": goal.ratio, "threads": threads, "batch": batch}
                if any(all(row[key] == value for key, value in at.items()) for row in rows):
                    measured = faster(rows, goal.engine, **at)
                    found.append(Verdict(goal, model, threads, batch, measured))
    return found


@dataclass(frozen=True)
class Limit:
    """What spu-ir may take at most, and the most that it was found to take."""

    what: str
    most: float
    found: float | None
    where: str

    @property
    def holds(self) -> bool | None:
        return None if self.found is None else self.found <= self.most


def limits(rows: Sequence[Row]) -> list[Limit]:
    """Seconds of compiling and of loading any model, and BERT's memory beside OpenVINO's."""
    ours = [row for row in rows if row["engine"] == "spu" and "seconds" in row]
    found: list[Limit] = []
    for what, key, most in (
        ("compile, s", "compile_seconds", 30.0),
        ("load a package, s", "load_seconds", 0.1),
    ):
        row = max((row for row in ours if key in row), key=lambda row: row[key], default=None)
        where = "" if row is None else f"{row['model']} {title(row['ratio'])}"
        found.append(Limit(what, most, None if row is None else row[key], where))
    shares = [
        row["peak_bytes"] / theirs["peak_bytes"]
        for row in ours
        if (row["model"], row["ratio"]) == ("bert", 16)
        and (theirs := best(rows, "openvino", **{key: row[key] for key in PLACE})) is not None
    ]
    what = "peak memory, of OpenVINO's"
    return [*found, Limit(what, 0.5, max(shares, default=None), "bert 16x" if shares else "")]
