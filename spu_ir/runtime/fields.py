"""Checked access to a JSON table that somebody else may have written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from spu_ir.errors import SpuError
from spu_ir.runtime.program import Json


def damaged(path: Path, what: str) -> SpuError:
    """The error for a stored file that is not as it was written."""
    return SpuError(f"{str(path)!r} is damaged: {what}", remedy="save the model again")


@dataclass(frozen=True)
class Fields:
    """A table in the file `path`; every access raises SpuError unless the field is as asked."""

    path: Path
    table: dict[str, Json]

    @classmethod
    def parse(cls, path: Path, data: bytes) -> Fields:
        """The table that a file's content is."""
        try:
            parsed: object = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise damaged(path, "it is not JSON") from error
        return cls.of(path, parsed)

    @classmethod
    def of(cls, path: Path, value: object) -> Fields:
        """`value` as a table."""
        if not isinstance(value, dict):
            raise damaged(path, "a table is missing")
        return cls(path, cast(dict[str, Json], value))

    def damaged(self, what: str) -> SpuError:
        """The error for a table whose content makes no sense."""
        return damaged(self.path, what)

    def text(self, key: str) -> str:
        """The field `key`, a text."""
        value = self.table.get(key)
        if not isinstance(value, str):
            raise self.damaged(f"the field {key!r} is missing or no text")
        return value

    def number(self, key: str) -> int:
        """The field `key`, a whole number."""
        value = self.table.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.damaged(f"the field {key!r} is missing or no whole number")
        return value

    def items(self, key: str) -> list[Json]:
        """The field `key`, a list."""
        value = self.table.get(key)
        if not isinstance(value, list):
            raise self.damaged(f"the field {key!r} is missing or no list")
        return value

    def fields(self, key: str) -> Fields:
        """The field `key`, a table."""
        return Fields.of(self.path, self.table.get(key))

    def tables(self, key: str) -> list[Fields]:
        """The field `key`, a list of tables."""
        return [Fields.of(self.path, item) for item in self.items(key)]
