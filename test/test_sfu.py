"""The special function unit's tables: fresh, as close as they say, and the same bits in C."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.vpu_library import DEVICE, LEVELS, assert_same_bits, device

from spu_ir.interpreters.sfu import TABLES, header

Array = NDArray[Any]

ERRORS = {
    "sfu_gelu": (7e-5, 4e-4),
    "sfu_gelu_tanh": (7e-5, 3e-4),
    "sfu_silu": (2e-4, 5e-3),
    "sfu_sigmoid": (1e-4, 6e-4),
}
"""Largest absolute errors on [-3, 3], and anywhere."""


def test_the_header_is_fresh() -> None:
    assert (DEVICE / "sfu_tables.h").read_text() == header(), (
        "run python -m spu_ir.interpreters.sfu > spu_ir/runtime/device/sfu_tables.h"
    )


@pytest.mark.parametrize("name", TABLES)
def test_errors(name: str) -> None:
    x = np.linspace(-20, 20, 40001, dtype=np.float32)
    exact = np.array([TABLES[name].function(float(each)) for each in x])
    error = np.abs(TABLES[name](x) - exact)
    near, anywhere = ERRORS[name]
    assert error[np.abs(x) <= 3].max() < near
    assert error.max() < anywhere


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", TABLES)
def test_c_has_the_same_bits(name: str, level: str) -> None:
    patterns = np.arange(0, 2**32, 40009, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([np.linspace(-20, 20, 4001, dtype=np.float32), patterns])
    x = x[np.isfinite(x)]
    y = np.empty_like(x)
    device(level).call(f"unary_{name}", x, y, len(x))
    assert_same_bits(y, TABLES[name](x))
