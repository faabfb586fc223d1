"""
The report of a task: ByteMLPerf's JSON, and what it has no keys for under one more, `Details`.

Every key but `Details` is ByteMLPerf's, with its type and unit: latencies are milliseconds, `QPS`
is samples a second. `Details` has the raw timings that these are made of.
"""

from __future__ import annotations

import json
import os
import tempfile
from datetime import datetime
from pathlib import Path

from spu_ir._version import __version__
from spu_ir.errors import SpuError
from spu_ir.runtime.cpu import processor_name
from spu_ir.runtime.program import Json

from .benchmark import Result
from .figures import Modelled
from .measure import Timing
from .network import REPORTED
from .plot import difference_plot
from .published import CARD, PEAK_WATTS, RESULTS, SOURCE

BACKEND = "SPU"

REFERENCE = "spu_ir's FP32 program of the same weights"


def build_report(
    result: Result, picture: str | None = None, now: datetime | None = None
) -> dict[str, Json]:
    """
    The report of a result.

    `picture` is the name of the file with the plot of differences, `now` when it was measured
    (default: now).
    """
    precision = REPORTED[result.settings.precision]
    report: dict[str, Json] = {
        "Model": result.workload.model.upper(),
        "Backend": BACKEND,
        "Host Info": processor_name(),
        "Dataset": result.dataset.name,
        "Instance Count": 1,
        "Device Count": 1,
        "Graph Compile": {
            "Compile Duration": round(result.compile_seconds, 5),
            "Compile Precision": precision,
            "Subgraph Coverage": 100,
            "Sparsity Ratio": f"{result.network.weight_sparsity:.4f}",
        },
        "Version": __version__,
        "Execution Date": (now or datetime.now()).strftime("%Y-%m-%d %H:%M:%S"),
    }
    accuracy = _accuracy(result)
    if picture is not None:
        accuracy["Diff Dist"] = picture
    if accuracy:
        report["Accuracy"] = accuracy
    if result.timings:
        report["Performance"] = [performance(timing) for timing in result.timings]
    report["Details"] = _details(result)
    return report


def performance(timing: Timing) -> dict[str, Json]:
    """A batch size's row, from the raw timings."""
    return {
        "BS": timing.batch,
        "QPS": round(timing.qps, 2),
        "AVG Latency": round(1e3 * timing.average, 2),
        "P99 Latency": round(1e3 * timing.p99, 2),
    }


def save_report(folder: Path, result: Result) -> tuple[dict[str, Json], Path | None]:
    """
    Write the report of a result, and the plot of differences, where ByteMLPerf has them.

    Returns the report, and its path: `folder/SPU/<model>/result-<precision>.json`; None where
    nothing was measured, for which ByteMLPerf writes none. Raises SpuError for a file that cannot
    be written.
    """
    if result.compile_only:
        return build_report(result), None
    precision = REPORTED[result.settings.precision].lower()
    place = folder / BACKEND / result.workload.model
    numeric, picture = result.numeric, None
    plot = difference_plot(*numeric.arrays()) if numeric and numeric.want else None
    if plot is not None:
        picture = f"{result.workload.model}-to-{precision}.png"
        write(place / picture, plot)
    report = build_report(result, picture)
    path = place / f"result-{precision}.json"
    write(path, (json.dumps(report, indent=4) + "\n").encode())
    return report, path


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises SpuError where that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".report.", dir=path.parent) as scratch:
            draft = Path(scratch) / path.name
            draft.write_bytes(content)
            os.replace(draft, path)
    except OSError as error:
        raise SpuError(
            f"cannot write {str(path)!r}: {error.strerror}", remedy="choose another --reports DIR"
        ) from None


def _accuracy(result: Result) -> dict[str, Json]:
    figures: dict[str, Json] = {}
    if result.workload.test_accuracy and not result.compile_only:
        whole = result.data_percent == int(result.data_percent)
        percent = int(result.data_percent) if whole else round(result.data_percent, 3)
        figures |= {"Data Percent": percent, **result.accuracy}
    if result.numeric is not None:
        figures |= result.numeric.figures()
    return figures


def _details(result: Result) -> dict[str, Json]:
    details: dict[str, Json] = {
        "Weights": result.network.about,
        "Data": result.dataset.about,
        "Host": {
            "ISA Level": result.model.level,
            "Threads": result.model.threads,
            "Timings": [_raw(timing) for timing in result.timings],
        },
        "Sparsity": {
            "Weight Sparsity": round(result.network.weight_sparsity, 6),
            "Effective MAC Ratio": round(result.mac_ratio, 4),
            "Matmul Time Share (card, modelled)": round(result.card_share, 4),
            "Matmul Time Share (this machine)": _rounded(result.host_share),
        },
        "Modelled": _modelled(result.modelled),
        "Published": _published(result),
        "Unreadable": list[Json](result.dataset.unreadable),
    }
    if result.numeric is not None and result.numeric.samples:
        details["Numeric"] = {
            "Reference": REFERENCE,
            "Samples": result.numeric.samples,
            "Relative L2 Error": result.numeric.error(),
        }
    return details


def _raw(timing: Timing) -> dict[str, Json]:
    return {
        "BS": timing.batch,
        "Iterations": len(timing.latencies),
        "Iterations Asked": timing.asked,
        "Warm-up": timing.warm_up,
        "Wall Seconds": timing.wall,
        "Latencies": list[Json](timing.latencies),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _modelled(found: Modelled) -> Json:
    return {
        "Card": found.card,
        "QPS": round(found.qps, 2),
        "BS": found.batch,
        "Peak Power": round(found.peak_power, 2),
        "Average Power": round(found.power, 2),
        "TDP": found.tdp,
        "QPS/W": round(found.qps_per_watt, 2),
        "QPS/W at TDP": round(found.qps / found.tdp, 2),
        "Latency": round(1e3 * found.latency, 3),
        "Bottleneck": found.bottleneck,
    }


def _published(result: Result) -> Json:
    found = RESULTS.get(result.workload.model)
    if found is None:
        return None
    return {
        "Card": CARD,
        "QPS": found.qps,
        "BS": found.batch,
        "Peak Power": PEAK_WATTS,
        "QPS/W at TDP": round(found.qps / PEAK_WATTS, 2),
        "Precision": found.precision,
        "Sparsity": f"{found.sparsity}x",
        "Sparsity Ratio": found.zeros,
        found.metric: found.value,
        "Source": SOURCE,
    }
