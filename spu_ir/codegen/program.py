"""A tiled module to one C program, its packed weights, and what the runtime must know of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Attribute, BlockArgument, Operation, SSAValue

from spu_ir._version import __version__
from spu_ir.codegen.attention_instructions import ATTENTION_INSTRUCTIONS
from spu_ir.codegen.counters import count
from spu_ir.codegen.image_instructions import IMAGE_INSTRUCTIONS
from spu_ir.codegen.index import print_slice
from spu_ir.codegen.instructions import instructions_of, steps_of
from spu_ir.codegen.printer import Printer, argument_view, c_type
from spu_ir.codegen.report import LayerRow
from spu_ir.codegen.row_instructions import ROW_INSTRUCTIONS
from spu_ir.codegen.samples import ARENA, PARAMETERS, RUN, arena_of_samples, run_of_samples
from spu_ir.codegen.scope import Expr, Scope
from spu_ir.codegen.spu_instructions import SPU_INSTRUCTIONS
from spu_ir.codegen.vpu_instructions import VPU_INSTRUCTIONS
from spu_ir.codegen.weights import WeightFile
from spu_ir.codegen.work import work_table
from spu_ir.dialects.antoum import ArenaOp
from spu_ir.dialects.functions import (
    OUTPUT,
    SAMPLES,
    argument_attributes,
    bounds,
    dim_params,
)
from spu_ir.dialects.types import DYNAMIC, element_of, numpy_dtype, shape_of
from spu_ir.dialects.weights import store_of
from spu_ir.errors import SpuError
from spu_ir.runtime.program import Extent, Port, Program

ENTRY = "main"


def emit_program(
    module: ModuleOp,
    ctx: Context,
    layers: Sequence[LayerRow] = (),
    settings: str = "-",
    *,
    work: bool = True,
) -> Program:
    """
    Print a module at stage 4 (tiled, on memrefs) as C.

    `layers` are what `layer_report` found before bufferisation. `settings` goes into the head of
    the text, which depends on nothing but the module, them and this package's version. Without
    `work` the program has no table of its work, which needs loops as tiling makes them. Raises
    SpuError where an op has no C.
    """
    entry = _function(module, ENTRY)
    attributes = argument_attributes(entry)
    arguments = list(zip(entry.body.block.args, attributes, strict=True))
    inputs = [(value, attrs) for value, attrs in arguments if OUTPUT not in attrs]
    outputs = [(value, attrs) for value, attrs in arguments if OUTPUT in attrs]
    names = list(bounds(entry))

    printer = Printer(
        WeightFile(store_of(ctx)),
        {
            **SPU_INSTRUCTIONS,
            **ATTENTION_INSTRUCTIONS,
            **VPU_INSTRUCTIONS,
            **ROW_INSTRUCTIONS,
            **IMAGE_INSTRUCTIONS,
        },
        steps={op: number for number, op in enumerate(steps_of(entry.body.block))},
        counted=_counted(entry),
        count=count,
    )
    scope = Scope()
    extents = [scope.let(f"extents[{i}]") for i in range(len(names))]
    printer.status = scope.declare("int32_t *", "&status")
    for array, const, ports in (("inputs", "const ", inputs), ("outputs", "", outputs)):
        for number, (value, attrs) in enumerate(ports):
            ctype = f"{const}{c_type(value)} *"
            pointer = scope.declare(ctype, f"({ctype}){array}[{number}]")
            dims = _dims(value, dim_params(attrs), names, extents)
            scope.values[value] = argument_view(scope, value, pointer, dims)
    printer.block(scope, entry.body.block)

    ir = str(module) + "\n"
    apart = SAMPLES in entry.attributes
    ports = [[value for value, _ in side] for side in (inputs, outputs)]
    shapes = _function(module, f"{ENTRY}_output_shapes")
    lines = [
        f"/* spu-ir {__version__}: generated, do not edit.",
        f" * settings: {settings}",
        f" * module: sha256:{hashlib.sha256(ir.encode()).hexdigest()} */",
        '#include "spu_device.h"',
        "",
        *_arena_bytes(entry, names, ARENA if apart else "int64_t spu_arena_bytes"),
        "",
        *([*arena_of_samples(entry), ""] if apart else []),
        *_output_shapes(shapes, entry, [value for value, _ in outputs], names),
        "",
        *[text + "\n" for text in printer.kernels.definitions()],
        *[text + "\n" for text in printer.functions.definitions()],
        f"{RUN if apart else 'int32_t spu_run'}({PARAMETERS[0]}",
        PARAMETERS[1],
        "  int32_t status = SPU_OK;",
        "  const uint8_t *weights = context->weights;",
        "  (void)weights, (void)extents, (void)inputs, (void)outputs;",
        "  SPU_PROFILE_BEGIN(context->counters);",
        *_check_extents(entry),
        *scope.text().lines,
        "  return status;",
        "}",
        *(run_of_samples(entry, _check_extents(entry), *ports) if apart else []),
    ]
    return Program(
        source="\n".join(lines) + "\n",
        weights=printer.weights.arrays,
        inputs=tuple(_port(*port) for port in inputs),
        outputs=tuple(_port(*port) for port in outputs),
        extents=tuple(Extent(name, *pair) for name, pair in bounds(entry).items()),
        ir=ir,
        report=[row.json(printer.weights.bytes_of()) for row in layers],
        work=work_table(entry, printer.placed).to_json() if work else None,
    )


def _counted(entry: func.FuncOp) -> dict[Operation, int]:
    """Every instruction, and the number of its first operand among those of its step."""
    counted: dict[Operation, int] = {}
    for step in steps_of(entry.body.block):
        first = 0
        for op in instructions_of(step):
            counted[op] = first
            first += len(op.operands)
    return counted


def _function(module: ModuleOp, name: str) -> func.FuncOp:
    for op in module.ops:
        if isinstance(op, func.FuncOp) and op.sym_name.data == name:
            return op
    raise SpuError(f"the module has no function @{name}", remedy="run bufferise first")


def _port(value: SSAValue, attributes: Mapping[str, Attribute]) -> Port:
    name = attributes.get("onnx.name")
    params = dim_params(attributes)
    shape = tuple(
        params.get(axis, "?") if d == DYNAMIC else d for axis, d in enumerate(shape_of(value))
    )
    assert isinstance(value, BlockArgument)
    label = name.data if isinstance(name, StringAttr) else f"argument{value.index}"
    return Port(label, numpy_dtype(element_of(value)).name, shape)


def _dims(
    value: SSAValue, params: dict[int, str], names: Sequence[str], extents: Sequence[str]
) -> list[Expr]:
    """An argument's shape; an output's run-time extents are stated by the view that is written."""
    dims: list[Expr] = []
    for axis, d in enumerate(shape_of(value)):
        name = params.get(axis, "")
        known = extents[names.index(name)] if name in names else 0
        dims.append(known if d == DYNAMIC else d)
    return dims


def _arena_bytes(entry: func.FuncOp, names: Sequence[str], start: str) -> list[str]:
    scope = _index_scope(entry, names)
    total: Expr = 0
    for op in entry.body.block.ops:
        if isinstance(op, ArenaOp):
            total = scope.add(total, print_slice(scope, op.bytes))
    scope.line(f"return {total};")
    return [
        f"{start}(const int64_t *extents) {{",
        "  (void)extents;",
        *scope.text().lines,
        "}",
    ]


def _output_shapes(
    shapes: func.FuncOp, entry: func.FuncOp, outputs: Sequence[SSAValue], names: Sequence[str]
) -> list[str]:
    """The function of the outputs' shapes: run-time extents as `shapes` returns them."""
    scope = _index_scope(entry, names)
    scope.values.update(
        (inner, scope.values[outer])
        for inner, outer in zip(shapes.body.block.args, entry.body.block.args, strict=False)
    )
    returned = shapes.body.block.last_op
    assert isinstance(returned, func.ReturnOp)
    dynamic = iter(returned.operands)
    scope.open("switch (output)")
    for number, value in enumerate(outputs):
        scope.open(f"case {number}:")
        for axis, d in enumerate(shape_of(value)):
            extent = print_slice(scope, next(dynamic)) if d == DYNAMIC else d
            scope.line(f"shape[{axis}] = {extent};")
        scope.line("break;")
        scope.close()
    scope.line("default: break;")
    scope.close()
    return [
        "void spu_output_shape(int32_t output, const int64_t *extents, int64_t *shape) {",
        "  (void)extents, (void)shape;",
        *scope.text().lines,
        "}",
    ]


def _index_scope(entry: func.FuncOp, names: Sequence[str]) -> Scope:
    """A scope in which the run-time extents of a function's arguments are known."""
    scope = Scope()
    extents = [scope.let(f"extents[{i}]") for i in range(len(names))]
    attributes = argument_attributes(entry)
    for value, attrs in zip(entry.body.block.args, attributes, strict=True):
        dims = _dims(value, dim_params(attrs), names, extents)
        scope.values[value] = argument_view(scope, value, "unused", dims)
    return scope


def _check_extents(entry: func.FuncOp) -> list[str]:
    return [
        f"  if (extents[{i}] < {low} || extents[{i}] > {high}) return SPU_BAD_EXTENT;"
        for i, (low, high) in enumerate(bounds(entry).values())
    ]
