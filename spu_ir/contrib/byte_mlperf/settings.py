"""How a task is compiled: as published, or as `spu_ir.json` in the backend's folder says."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

from spu_ir.errors import SpuError
from spu_ir.packing.prune import RATIOS
from spu_ir.quantisation import PRECISIONS, Precision

FILE = "spu_ir.json"
"""In the backend's folder: settings by task, `"*"` for all."""


@dataclass(frozen=True)
class Settings:
    """What a task is compiled and measured with."""

    precision: Precision = "int8"
    sparsity: int = 1
    """The ratio that the weights of a dense model are pruned to, by magnitude; 1 for none."""
    samples: int | None = None
    """Samples of the data set that calibrate INT8; None for 8, or 1 where precision is "mixed"."""
    budget: float | None = None
    """Of "mixed": the largest share of the products that is computed in BF16; None for 0.1."""
    padding: str = "compute"
    """ "skip" leaves out the padded tokens of a batch."""
    warm_up: int = 5
    """Runs before those that are timed."""
    threads: int | None = None
    """Most threads of one run; None for the processors of the process."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise _wrong("precision", self.precision, f"one of {', '.join(PRECISIONS)}")
        if self.sparsity not in RATIOS:
            raise _wrong("sparsity", self.sparsity, f"one of {', '.join(map(str, RATIOS))}")
        if self.padding not in ("compute", "skip"):
            raise _wrong("padding", self.padding, "compute or skip")
        budget = cast("object", self.budget)
        if budget is not None and not (isinstance(budget, int | float) and 0 <= budget <= 1):
            raise _wrong("budget", budget, "a share from 0 to 1")
        _check_count("warm_up", self.warm_up, 0)
        for name in ("samples", "threads"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name), 1)

    @property
    def calibration(self) -> int:
        """How many samples calibrate."""
        # Which products "mixed" keeps out of INT8 is measured in numpy: minutes for a sample.
        return self.samples or (1 if self.precision == "mixed" else 8)


def settings_of(task: str, folder: Path) -> Settings:
    """
    What `folder`'s `spu_ir.json` says of a task, over `published_settings`.

    A task that is not published is compiled to INT8 with its weights as they are. Raises SpuError
    for a file that is no such JSON, and for a setting that is not known or out of range.
    """
    settings = published_settings(task)
    path = folder / FILE
    if not path.exists():
        return settings
    given = _read(path)
    known = [field.name for field in fields(Settings)]
    for name in ("*", task):
        changes = given.get(name, {})
        if not isinstance(changes, dict):
            raise SpuError(f"{path}: {name!r} is not an object", remedy=_form())
        changes = cast("dict[str, Any]", changes)
        for key in changes:
            if key not in known:
                raise SpuError(
                    f"{path}: there is no setting {key!r}", remedy=f"use {', '.join(known)}"
                )
        settings = replace(settings, **changes)
    return settings


def published_settings(task: str) -> Settings:
    """
    INT8, at the ratio that a task's published figures are for.

    Those of transformers are for "INT8/BF16", products in INT8 and all else in BF16: in "int8" all
    else is FP32 here. "mixed" is something else, some products in BF16.
    """
    from spu_ir.zoo import MODELS

    for model in MODELS.values():
        if model.task == task:
            return Settings(sparsity=model.sparsity)
    return Settings()


def _read(path: Path) -> dict[str, Any]:
    try:
        given: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpuError(f"{path} cannot be read: {error}", remedy=_form()) from error
    if not isinstance(given, dict):
        raise SpuError(f"{path} is not an object", remedy=_form())
    return cast("dict[str, Any]", given)


def _form() -> str:
    return 'write {"TASK": {"sparsity": 8}}, or "*" for every task'


def _check_count(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise _wrong(name, value, f"a whole number from {least}")


def _wrong(name: str, value: object, remedy: str) -> SpuError:
    return SpuError(f"the setting {name} is {value!r}", remedy=f"use {remedy}")
