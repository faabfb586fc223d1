"""One figure of a target: a value, its unit, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from spu_ir.errors import SpuError

Status = Literal["published", "inferred", "fitted", "given"]
STATUSES: tuple[Status, ...] = ("published", "inferred", "fitted", "given")
"""
Of a figure: read in a public source; inferred from such figures or assumed; fitted to published
throughput (docs/device-model.md says how); or given by the user.
"""

_KEYS = {"value", "unit", "source", "status"}


@dataclass(frozen=True)
class Figure:
    """A number that describes a target, in `unit`, which its place in `Target` fixes."""

    value: float
    unit: str
    source: str
    status: Status

    def __str__(self) -> str:
        return f"{self.value:g} {self.unit} ({self.status}: {self.source})"

    def with_value(self, value: float, source: str = "replaced") -> Figure:
        """The same figure with another value, given by the user."""
        return Figure(value, self.unit, source, "given")

    def to_json(self) -> dict[str, float | str]:
        """The table that `read_figure` reads."""
        return {
            "value": self.value,
            "unit": self.unit,
            "source": self.source,
            "status": self.status,
        }


@dataclass(frozen=True)
class Field:
    """What is wanted of one figure: its dotted name, its unit, and the least that it can be."""

    name: str
    unit: str
    minimum: float
    """Inclusive for counts (`whole`), exclusive for all else but where it is 0 and `zero`."""
    maximum: float
    whole: bool
    zero: bool

    def check(self, value: object, where: str) -> float:
        """`value` as this field's number. Raises SpuError if it cannot be."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(f"{value!r} is not a number", where)
        if self.whole and value != int(value):
            raise self._wrong(f"{value!r} is not a whole number", where)
        low = value < self.minimum if self.whole or self.zero else value <= self.minimum
        # A comparison with NaN is false, so `not <=` refuses it with what is too large.
        if low or not value <= self.maximum:
            least = "at least" if self.whole or self.zero else "more than"
            raise self._wrong(
                f"{value!r} is out of range: {least} {self.minimum:g}, at most {self.maximum:g}",
                where,
            )
        return int(value) if self.whole else float(value)

    def _wrong(self, what: str, where: str) -> SpuError:
        return SpuError(f"{where}: {self.name} = {what}", remedy=f"give it in {self.unit}")


def read_figure(field: Field, value: object, where: str) -> Figure:
    """
    The figure of a TOML value: a table of value, unit, source and status, or a bare number.

    A bare number is in the field's unit and given by the user. Raises SpuError, naming `where`
    and the field, for anything that is missing, unknown or of the wrong kind.
    """
    if not isinstance(value, Mapping):
        return Figure(field.check(value, where), field.unit, where, "given")
    table = cast(Mapping[str, Any], value)
    for key in sorted(table.keys() - _KEYS):
        raise SpuError(
            f"{where}: {field.name} has no entry {key!r}",
            remedy=f"use {', '.join(sorted(_KEYS))}",
        )
    for key in sorted(_KEYS - table.keys()):
        raise SpuError(f"{where}: {field.name} lacks its {key}", remedy=f"add {key} = ...")
    if table["unit"] != field.unit:
        raise SpuError(
            f"{where}: {field.name} is in {table['unit']!r}", remedy=f"give it in {field.unit!r}"
        )
    status, source = table["status"], table["source"]
    if status not in STATUSES:
        raise SpuError(
            f"{where}: {field.name} has the status {status!r}",
            remedy=f"use one of {', '.join(STATUSES)}",
        )
    if not isinstance(source, str) or not source:
        raise SpuError(f"{where}: {field.name} has no source", remedy="say where it is from")
    return Figure(field.check(table["value"], where), field.unit, source, status)
