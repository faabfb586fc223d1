"""What code generation hands to the runtime: one C program, its weights and its ports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

from spu_ir.errors import SpuError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

WEIGHT_ALIGNMENT = 64
"""Every weight starts at a multiple of this many bytes from the first weight."""

DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "bool": np.dtype(np.bool_),
        "uint8": np.dtype(np.uint8),
        "int8": np.dtype(np.int8),
        "uint16": np.dtype(np.uint16),
        "int16": np.dtype(np.int16),
        "float16": np.dtype(np.float16),
        "bfloat16": np.dtype(ml_dtypes.bfloat16),
        "uint32": np.dtype(np.uint32),
        "int32": np.dtype(np.int32),
        "float32": np.dtype(np.float32),
        "uint64": np.dtype(np.uint64),
        "int64": np.dtype(np.int64),
        "float64": np.dtype(np.float64),
    }
)
"""The element types of ports and weights by name; all little endian, bool is one byte."""


@dataclass(frozen=True)
class Port:
    """
    One input or output of a program: a contiguous array in row-major order.

    `dtype` is a key of `DTYPES`. An entry of `shape` is a fixed extent, the name of a
    run-time extent, or, in outputs only, `"?"`: an extent that the program computes
    (`spu_output_shape`) from the run-time extents.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The numpy dtype of the port's elements."""
        return DTYPES[self.dtype]

    def __str__(self) -> str:
        # repr() escapes control characters: names come from a model that nobody vouches for.
        extents = ", ".join(
            d if isinstance(d, str) and (d == "?" or d.isidentifier()) else repr(d)
            for d in self.shape
        )
        return f"{self.name!r} {self.dtype} [{extents}]"


@dataclass(frozen=True)
class Extent:
    """A run-time extent, such as batch or sequence: its name and inclusive bounds."""

    name: str
    minimum: int
    maximum: int


@dataclass(frozen=True)
class Program:
    """
    One compiled program, as code generation leaves it.

    `source` is C11 that includes `spu_device.h` and defines the functions of `context.h`.
    `weights` are in file order; the C addresses each by its `weight_offsets`. `ir` is the
    text of the last stage that `source` was printed from; `report` has one row a layer. `work`
    is the JSON of a `spu_ir.schedule.work.WorkTable`, None where it is not known.
    """

    source: str
    weights: Mapping[str, Array]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    extents: tuple[Extent, ...]
    ir: str
    report: list[dict[str, Json]]
    work: Json = None


def weight_offsets(weights: Mapping[str, Array]) -> dict[str, int]:
    """The byte offset of every weight from the start of the weights, in the mapping's order."""
    offsets: dict[str, int] = {}
    end = 0
    for name, array in weights.items():
        end += -end % WEIGHT_ALIGNMENT
        offsets[name] = end
        end += array.nbytes
    return offsets


def check_ports(
    inputs: tuple[Port, ...], outputs: tuple[Port, ...], extents: tuple[Extent, ...]
) -> None:
    """
    Hold a program's interface to its rules.

    Raises SpuError where names repeat, a dtype is unknown, a dimension is negative or names
    no extent, an extent's bounds are no range, or no input tells an extent's value.
    """
    known = {extent.name for extent in extents}
    told = {d for port in inputs for d in port.shape if isinstance(d, str)}
    for kind, names in (
        ("input", [port.name for port in inputs]),
        ("output", [port.name for port in outputs]),
        ("extent", [extent.name for extent in extents]),
    ):
        for name in names:
            if names.count(name) > 1:
                raise SpuError(f"there are two {kind}s with the name {name!r}")
    for extent in extents:
        if not 0 <= extent.minimum <= extent.maximum < 2**31:
            raise SpuError(
                f"the bounds {extent.minimum}..{extent.maximum} of extent {extent.name!r} "
                "are no range of 31-bit numbers"
            )
        if extent.name not in told:
            raise SpuError(f"no input has an axis of extent {extent.name!r}")
    for port in (*inputs, *outputs):
        if port.dtype not in DTYPES:
            raise SpuError(f"port {port.name!r} has the unknown dtype {port.dtype!r}")
        for d in port.shape:
            if isinstance(d, int):
                if not 0 <= d < 2**47:
                    raise SpuError(f"port {port} has the impossible extent {d}")
            elif d not in known and not (d == "?" and port in outputs):
                raise SpuError(f"port {port} has an axis of the unknown extent {d!r}")
