"""The C around a program that runs its samples apart: `device/samples.h` has the loop."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from xdsl.ir import SSAValue

from spu_ir.dialects.types import element_of, numpy_dtype, shape_of

ARENA = "static int64_t arena_bytes"
RUN = "static int32_t run"
"""What the functions of all samples together begin with, in place of those of `context.h`."""


PARAMETERS = (
    "const spu_context *context, const int64_t *extents,",
    "                const void *const *inputs, void *const *outputs) {",
)
"""Two lines: what every `run` takes."""


def arena_of_samples() -> list[str]:
    """`spu_arena_bytes`, of `arena_bytes`."""
    return [
        "int64_t spu_arena_bytes(const int64_t *extents) {",
        "  const int64_t one[] = {1};",
        "  return spu_samples_arena(extents[0], arena_bytes(one), arena_bytes(extents));",
        "}",
    ]


def run_of_samples(
    check: Sequence[str], inputs: Sequence[SSAValue], outputs: Sequence[SSAValue]
) -> list[str]:
    """
    `spu_run`, of `run`; `check` are the lines that check the extents.

    A profiled program runs all samples together: that is the work that its table describes.
    """
    ins = ", ".join(_slice("const ", "inputs", i, value) for i, value in enumerate(inputs))
    outs = ", ".join(_slice("", "outputs", i, value) for i, value in enumerate(outputs))
    return [
        "",
        "#ifndef SPU_PROFILE",
        "static int32_t samples(const spu_context *context, int64_t first, int64_t count,",
        "                       const void *const *inputs, void *const *outputs) {",
        "  const int64_t extents[] = {count};",
        f"  const void *const in[] = {{{ins}}};",
        f"  void *const out[] = {{{outs}}};",
        "  return run(context, extents, in, out);",
        "}",
        "#endif",
        "",
        f"int32_t spu_run({PARAMETERS[0]}",
        PARAMETERS[1],
        *check,
        "#ifdef SPU_PROFILE",
        "  return run(context, extents, inputs, outputs);",
        "#else",
        "  const int64_t one[] = {1};",
        "  const int64_t arena = arena_bytes(one);",
        "  return spu_run_samples(context, extents[0], arena, samples, inputs, outputs);",
        "#endif",
        "}",
    ]


def _slice(const: str, array: str, number: int, value: SSAValue) -> str:
    """Where the samples of a port start from number `first` on."""
    size = prod(shape_of(value)[1:]) * numpy_dtype(element_of(value)).itemsize
    return f"({const}uint8_t *){array}[{number}] + first * {size}"
