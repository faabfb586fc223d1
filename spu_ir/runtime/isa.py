"""The ISA levels that a program is compiled for, each a superset of the one before."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_AVX512VNNI = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni")


@dataclass(frozen=True)
class Isa:
    """
    One level: its number in `spu_cpu_supports`, the compiler's flags for it, and the names
    by which Linux lists what it needs in `/proc/cpuinfo`.
    """

    number: int
    name: str
    flags: tuple[str, ...]
    cpuinfo: frozenset[str]


LEVELS: Mapping[str, Isa] = MappingProxyType(
    {
        isa.name: isa
        for isa in (
            Isa(0, "c", (), frozenset()),
            Isa(1, "avx2", ("-mavx2",), frozenset({"avx2"})),
            Isa(
                2,
                "avx512vnni",
                tuple(f"-m{name}" for name in _AVX512VNNI),
                frozenset({"avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}),
            ),
            Isa(
                3,
                "avx512vbmi",
                tuple(f"-m{name}" for name in (*_AVX512VNNI, "avx512vbmi", "avx512bf16")),
                frozenset(
                    {"avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}
                    | {"avx512vbmi", "avx512_bf16"}
                ),
            ),
        )
    }
)
"""All levels by name, the most general first."""


def architecture_levels() -> tuple[str, ...]:
    """The levels that this architecture's compilers can build, the most general first."""
    return tuple(LEVELS) if platform.machine() in ("x86_64", "amd64") else ("c",)
