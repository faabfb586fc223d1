"""
How near compiled models come to FP32, beside ONNX Runtime's INT8.

    python -m benchmarks.fidelity [--models resnet50,bert,...] [--ratios 1,8,16,32,95%] [--quick]
                                  [--layers] [--json] [--write docs/fidelity.md]

Every model is built with seeded weights, pruned at each ratio, and run at all precisions on the
same inputs. Errors are relative L2 against ONNX Runtime's FP32 of the same, pruned, weights.
ONNX Runtime's INT8 is the best of several settings. docs/fidelity.md explains the columns.
`--from FILE` adds the results of an earlier run with `--json` instead of measuring those again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx

import spu_ir
from spu_ir.api import lower
from spu_ir.errors import SpuError
from spu_ir.runtime.model import CompiledModel

from .fidelity_cases import NAMES, PRECISIONS, RATIOS, Array, Case, Feeds, Precision, case
from .fidelity_layers import layer_errors, summary
from .fidelity_ort import outputs_of, prepared, quantised, settings_of
from .fidelity_page import header, show, write_page
from .options import add_models, command_line
from .ratios import Ratio, order, parse_all, title

LINES: dict[str, float] = {"fp32": 1e-4, "bf16": 1e-2}
"""The largest error that a precision may have; INT8's line is ONNX Runtime's own error."""

Compile = Callable[..., CompiledModel]
Report = dict[str, Any]


def digest_of(model: CompiledModel) -> str:
    """The digest in the manifest of the model's package: the same for the same compilation."""
    with tempfile.TemporaryDirectory(prefix="spu-ir-fidelity-") as folder:
        path = Path(folder) / "model.spu"
        model.save(path, levels=[model.level])
        return str(json.loads((path / "manifest.json").read_text())["digest"])


def measure(
    case: Case,
    ratio: Ratio,
    *,
    layers: bool = False,
    compile: Compile = spu_ir.compile,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """
    One model at one ratio: errors, verdicts, digests, and with `layers` the error by layer.

    `compile` is what is measured; a test passes a broken one.
    """
    progress("build")
    model, feeds = case.build(ratio), case.feeds()
    want = outputs_of(model, feeds)
    ours: dict[str, float] = {}
    packages: dict[str, str] = {}
    for precision in PRECISIONS:
        progress(f"compile {precision}")
        compiled = compile(model, threads=1, **case.options(precision))
        ours[precision] = case.error(compiled.run(feeds), want, feeds)
        packages[precision] = digest_of(compiled)
        del compiled
    ready, theirs, best = ort_int8(case, model, feeds, want, progress)
    settings = theirs["settings"]
    report: Report = {
        "model": case.name,
        "ratio": ratio,
        "size": case.size,
        "batch": case.batch,
        "seq": case.seq if case.model.seq else None,
        "ours": ours,
        "ort_int8": settings[theirs["best"]],
        "ort_settings": settings,
        "ort_best": theirs["best"],
        "verdicts": verdicts(ours, settings[theirs["best"]]),
        "packages": packages,
    }
    if layers:
        progress("layers")
        _, job = lower(model, **case.options("int8"))
        rows = layer_errors(job, ready, best, feeds)
        report["layers"] = [asdict(row) for row in rows]
        report["layer_summary"] = summary(rows)
    return report


def ort_int8(
    case: Case,
    model: onnx.ModelProto,
    feeds: Feeds,
    want: dict[str, Array],
    progress: Callable[[str], None],
) -> tuple[onnx.ModelProto, dict[str, Any], onnx.ModelProto]:
    """What ONNX Runtime quantised, the error of every setting, and its best model."""
    ready = prepared(model, case.form)
    errors: dict[str, float] = {}
    best: onnx.ModelProto | None = None
    for setting in settings_of(case.form):
        progress(f"ONNX Runtime, {setting.name}")
        candidate = quantised(ready, case.form, setting, case.calibration())
        error = case.error(outputs_of(candidate, feeds), want, feeds)
        if best is None or error < min(errors.values()):
            best = candidate
        errors[setting.name] = error
    assert best is not None
    return ready, {"settings": errors, "best": min(errors, key=errors.__getitem__)}, best


def verdicts(ours: dict[str, float], ort: float) -> dict[str, str]:
    """`holds` or `miss` for every line; an error that is not a number is a miss."""
    limits: dict[Precision, float] = {"fp32": LINES["fp32"], "bf16": LINES["bf16"], "int8": ort}
    return {
        precision: "holds" if ours[precision] <= limit else "miss"
        for precision, limit in limits.items()
    }


def command_of(arguments: Sequence[str]) -> str:
    """The command line that measured something: what was taken from files, it did not."""
    kept: list[str] = []
    for before, word in zip(["", *arguments], arguments, strict=False):
        if "--from" not in (before, word):
            kept.append(word)
    return " ".join(["python -m benchmarks.fidelity", *kept])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = command_line("fidelity", __doc__)
    add_models(found, NAMES)
    found.add_argument("--ratios", type=parse_all, default=list(RATIOS), metavar="1,16,95%")
    found.add_argument("--layers", action="store_true", help="the error of every product too")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 after an error, 2 when a line is missed."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    results: list[Report] = []
    commands: list[str] = []
    for path in options.earlier:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        results += earlier["results"]
        commands.append(earlier["command"])
    taken = len(results)
    try:
        cases = [case(name, quick=options.quick) for name in options.models]
        done = {(row["model"], row["ratio"]) for row in results}
        for each in cases:
            for ratio in options.ratios:
                if (each.name, ratio) not in done:
                    what = f"{each.name} {title(ratio)}"
                    results.append(
                        measure(
                            each,
                            ratio,
                            layers=options.layers,
                            progress=lambda step, what=what: print(
                                f"{what}: {step}", file=sys.stderr, flush=True
                            ),
                        )
                    )
    except SpuError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    results.sort(key=lambda row: (NAMES.index(row["model"]), order(row["ratio"])))
    if len(results) > taken:
        commands.append(command_of(given))
    report: Report = {**header(commands), "lines": LINES, "results": results}
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        show(report)
    if options.write is not None:
        write_page(options.write, report)
    missed = any("miss" in row["verdicts"].values() for row in results)
    return 2 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
