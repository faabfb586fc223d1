"""
The device model beside what the vendor's cards were published to do.

    python -m benchmarks.published [--stored] [--fit] [--json] [--write docs/device-model.md]

Compiles the published models at their published precision and sparsity (down to the C text, so no
C compiler is needed), and estimates their throughput on S4, S10 and S30. `--stored` takes the
tables of work that the last `--write` kept beside this file instead, which takes a second.
`--fit` finds the values of the two fitted figures anew; they are kept in spu_ir/targets/s4.toml.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spu_ir.schedule.estimate import Estimate
from spu_ir.schedule.of_model import estimate_model
from spu_ir.schedule.work import WorkTable
from spu_ir.targets import Target

from .published_cases import CASES, ROWS, Row
from .published_page import show, write_page

STORED = Path(__file__).with_name("published_work.json.gz")
"""The tables of work of all cases, as they were when the page was last written."""

FITTED = {"spu.epilogue": ROWS[0], "sfu.lanes": ROWS[3]}
"""The two fitted figures, and the one published throughput that each is fitted to, in order."""

Tables = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Port:
    """An input of a stored table."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Result:
    """A row with its estimate."""

    row: Row
    estimate: Estimate

    @property
    def error(self) -> float | None:
        """(estimate - published) / published."""
        published = self.row.published
        return None if published is None else self.estimate.throughput / published - 1

    @property
    def verdict(self) -> str:
        """`fitted`, `holds` or `misses` where there is a limit, else empty."""
        if self.row.role == "fitted":
            return "fitted"
        if self.row.limit is None or self.error is None:
            return ""
        return "holds" if abs(self.error) <= self.row.limit else "misses"

    def to_json(self) -> dict[str, Any]:
        """The row, and the estimate without its layers."""
        found = self.estimate.to_json()
        del found["layers"]
        row = {**asdict(self.row), "batch": self.row.batch}
        return {**row, "error": self.error, "verdict": self.verdict, "estimate": found}


def compiled(progress: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """The tables of all cases, compiled now: minutes."""
    tables: dict[str, Any] = {}
    for name, case in CASES.items():
        progress(f"compile {name}")
        tables[name] = case.table()
    return tables


def stored() -> dict[str, Any]:
    """The tables of all cases as they were kept."""
    return json.loads(gzip.decompress(STORED.read_bytes()))


def store(tables: Tables) -> None:
    """Keep the tables: the same bytes for the same tables."""
    data = json.dumps(tables, separators=(",", ":")).encode()
    STORED.write_bytes(gzip.compress(data, 9, mtime=0))


class Estimator:
    """Estimates of rows from tables; each table is read once."""

    def __init__(self, tables: Tables):
        self._tables = tables
        self._read: dict[str, WorkTable] = {}

    def __call__(self, row: Row, target: Target | None = None) -> Estimate:
        """The estimate that stands beside a row, on its card or on `target`."""
        table = self._tables[row.case]
        if row.case not in self._read:
            self._read[row.case] = WorkTable.from_json(table["work"])
        inputs = [Port(name, dtype, tuple(shape)) for name, dtype, shape in table["inputs"]]
        bounds = {name: (low, high) for name, (low, high) in table["bounds"].items()}
        return estimate_model(
            self._read[row.case],
            target or row.card,
            row.batch,
            None,
            bounds=bounds,
            inputs=inputs,
            **row.options,
        )


def results(tables: Tables) -> list[Result]:
    """All rows with their estimates."""
    estimator = Estimator(tables)
    return [Result(row, estimator(row)) for row in ROWS]


def fit(tables: Tables) -> dict[str, float]:
    """
    The values of the fitted figures with which their rows come out as published.

    One after the other, each by bisection on its own row: throughput grows with either figure.
    Rounded to three digits, as they are kept.
    """
    estimator = Estimator(tables)
    target = Target.load("s30")
    found: dict[str, float] = {}
    for name, row in FITTED.items():
        assert row.published is not None
        low, high = 1.0, 1e5
        while high / low > 1 + 1e-6:
            middle = (low * high) ** 0.5
            rate = estimator(row, target.replace({name: middle})).throughput
            low, high = (middle, high) if rate < row.published else (low, middle)
        found[name] = float(f"{high:.3g}")
        target = target.replace({name: found[name]})
    return found


def what_if(tables: Tables) -> dict[str, str]:
    """What the page says of other chips than the S30's, by the name of its mark there."""
    estimator = Estimator(tables)
    target = Target.load("s30")
    slow = target.replace({"control.launch": 8e-6})
    rows = {row.case: row for row in reversed(ROWS)}  # The first row of every case.

    def change(case: str, megabytes: float) -> str:
        """By how much the estimate changes with so much L2 a core."""
        row = rows[case]
        other = target.replace({"l2.size": megabytes * 1e6 * target.chip.cores.value})
        ratio = estimator(row, other).throughput / estimator(row, target).throughput
        return f"{ratio - 1:+.1%}"

    return {
        "half resnet50": change("resnet50", 10),
        "half bert": change("bert", 10),
        "little resnet50": change("resnet50", 2),
        "little bert": change("bert", 2),
        "slow resnet50": f"{estimator(rows['resnet50'], slow).throughput:,.0f}",
        "slow conformer": f"{estimator(rows['conformer'], slow).throughput:,.0f}",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit code is 1 if a held-out figure is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.published",
        description="The device model beside the vendor's published throughput.",
    )
    parser.add_argument("--stored", action="store_true", help="take the stored tables of work")
    parser.add_argument("--fit", action="store_true", help="print the fitted figures, found anew")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the page and the tables")
    options = parser.parse_args(arguments)
    tables = stored() if options.stored else compiled(lambda what: print(what, file=sys.stderr))
    if options.fit:
        for name, value in fit(tables).items():
            print(f"{name} = {value:g}")
        return 0
    found = results(tables)
    if options.write is not None:
        write_page(options.write, found, what_if(tables))
        store(tables)
    if options.json:
        print(json.dumps([result.to_json() for result in found], indent=2))
    else:
        show(found)
    return int(any(result.verdict == "misses" for result in found))


if __name__ == "__main__":
    sys.exit(main())
