"""The counters that a profiled program fills; `device/counters.h` has their order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spu_ir.schedule.work import COUNTS, Work, WorkTable

OPERANDS = 16
ZEROS = len(COUNTS)
NANOSECONDS = ZEROS + 1
REAL_ROWS = NANOSECONDS + 1
BYTES = REAL_ROWS + 1
SIZE = BYTES + OPERANDS
"""Numbers of one step: `COUNTS`, zeros seen, nanoseconds, real rows, then bytes by operand."""


@dataclass(frozen=True)
class Counted:
    """What one run counted of itself."""

    values: NDArray[np.int64]
    """[steps, SIZE]"""

    @staticmethod
    def empty(table: WorkTable) -> Counted:
        """Zeros, for a run to add to."""
        return Counted(np.zeros((len(table.program), SIZE), np.int64))

    def work(self, table: WorkTable) -> list[Work]:
        """The work of every step, as it was executed."""
        return [
            table.work_of(number, row[: len(COUNTS)], row[BYTES:])
            for number, row in enumerate(self.values.tolist())
        ]

    @property
    def zeros(self) -> list[int]:
        """Of every step, how many of its `activations` were zero (INT8: the zero point)."""
        return self.values[:, ZEROS].tolist()

    @property
    def real_rows(self) -> int:
        """Rows of all masks whose padding was skipped; 0 in a program that skips none."""
        return int(self.values[:, REAL_ROWS].sum())
