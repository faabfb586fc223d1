"""The C around a program that runs its samples apart: `device/samples.h` has the loop."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue

from spu_ir.dialects.functions import SAMPLES, argument_attributes, bounds, dim_params
from spu_ir.dialects.types import element_of, numpy_dtype, shape_of

ARENA = "static int64_t arena_bytes"
RUN = "static int32_t run"
"""What the functions of all samples together begin with, in place of those of `context.h`."""


PARAMETERS = (
    "const spu_context *context, const int64_t *extents,",
    "                const void *const *inputs, void *const *outputs) {",
)
"""Two lines: what every `run` takes."""


def arena_of_samples(entry: FuncOp) -> list[str]:
    """`spu_arena_bytes`, of `arena_bytes`."""
    number = _sample(entry)[0]
    return [
        "int64_t spu_arena_bytes(const int64_t *extents) {",
        f"  const int64_t one[] = {{{_extents(entry, '1')}}};",
        f"  return spu_samples_arena(extents[{number}], arena_bytes(one), arena_bytes(extents));",
        "}",
    ]


def run_of_samples(
    entry: FuncOp,
    check: Sequence[str],
    inputs: Sequence[SSAValue],
    outputs: Sequence[SSAValue],
) -> list[str]:
    """
    `spu_run`, of `run`; `check` are the lines that check the extents.

    A profiled program runs all samples together: that is the work that its table describes.
    """
    number, least = _sample(entry)
    ins = ", ".join(_slice(entry, "const ", "inputs", i, v) for i, v in enumerate(inputs))
    outs = ", ".join(_slice(entry, "", "outputs", i, v) for i, v in enumerate(outputs))
    others = [f"extents[{i}]" for i in range(len(bounds(entry))) if i != number]
    together = ["  return run(context, extents, inputs, outputs);"]
    if others:
        condition = [f"  if ({' * '.join(others)} < {least})", f"  {together[0]}"]
    else:
        condition = []
    return [
        "",
        "#ifndef SPU_PROFILE",
        "static int32_t samples(const spu_context *context, const int64_t *extents, int64_t first,",
        "                       int64_t count, const void *const *inputs, void *const *outputs) {",
        f"  const int64_t these[] = {{{_extents(entry, 'count')}}};",
        f"  const void *const in[] = {{{ins}}};",
        f"  void *const out[] = {{{outs}}};",
        *([] if others else ["  (void)extents;"]),
        "  return run(context, these, in, out);",
        "}",
        "#endif",
        "",
        f"int32_t spu_run({PARAMETERS[0]}",
        PARAMETERS[1],
        *check,
        "#ifdef SPU_PROFILE",
        *together,
        "#else",
        *condition,
        f"  const int64_t one[] = {{{_extents(entry, '1')}}};",
        "  const int64_t arena = arena_bytes(one);",
        f"  return spu_run_samples(context, extents, extents[{number}], arena, samples, inputs,",
        "                         outputs);",
        "#endif",
        "}",
    ]


def _sample(entry: FuncOp) -> tuple[int, int]:
    """The number of the extent that counts samples; from where on they run apart."""
    marked = entry.attributes[SAMPLES]
    assert isinstance(marked, DictionaryAttr)
    ((name, least),) = marked.data.items()
    assert isinstance(least, IntegerAttr)
    return list(bounds(entry)).index(name), least.value.data


def _extents(entry: FuncOp, samples: str) -> str:
    """All extents, with another number of samples."""
    number = _sample(entry)[0]
    return ", ".join(samples if i == number else f"extents[{i}]" for i in range(len(bounds(entry))))


def _slice(entry: FuncOp, const: str, array: str, number: int, value: SSAValue) -> str:
    """Where the samples of a port start from number `first` on."""
    names = list(bounds(entry))
    index = entry.body.block.args.index(value)
    params = dim_params(argument_attributes(entry)[index])
    known = [d for axis, d in enumerate(shape_of(value)) if axis and axis not in params]
    size = prod(known) * numpy_dtype(element_of(value)).itemsize
    others = [f" * extents[{names.index(params[axis])}]" for axis in sorted(params) if axis]
    return f"({const}uint8_t *){array}[{number}] + first * {size}{''.join(others)}"
