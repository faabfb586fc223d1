"""
What a program counts of itself when it is compiled with SPU_PROFILE; nothing otherwise.

After an instruction stands `SPU_COUNT`, with the formulas of `spu_ir.schedule.instructions` in the
tile's own variables, and after a product `SPU_ZEROS`. Both are lines that the program does not
need: see `Scope.profiled`.
"""

from __future__ import annotations

from xdsl.ir import Operation, SSAValue

from spu_ir.codegen.instructions import ACTIVATION, instruction_of, operands_of, packed_of
from spu_ir.codegen.printer import Printer
from spu_ir.codegen.scope import Scope
from spu_ir.codegen.spu_instructions import weight_lanes
from spu_ir.dialects.spu import EpilogueOp
from spu_ir.dialects.types import element_of, numpy_dtype
from spu_ir.dialects.vpu import RowOffsetsOp
from spu_ir.schedule.expressions import Expr, Node, add, multiply
from spu_ir.schedule.instructions import Packed, cost_of
from spu_ir.schedule.work import COUNTS

_KINDS = {1: "SPU_I8", 2: "SPU_BF16", 4: "SPU_F32"}
_TEXT = {
    "add": "({} + {})",
    "sub": "({} - {})",
    "mul": "({} * {})",
    "floordiv": "({} / {})",
    "ceildiv": "spu_ceil_div({}, {})",
    "min": "spu_least({}, {})",
    "max": "spu_most({}, {})",
}


def to_c(expr: Expr) -> str:
    """An expression of variables as C of int64_t; no operand of a division is negative."""
    if isinstance(expr, Node):
        return _TEXT[expr.op].format(*map(to_c, expr.args))
    return f"INT64_C({expr})" if isinstance(expr, int) else expr


def count(printer: Printer, scope: Scope, op: Operation, first: int) -> None:
    """Count an instruction whose operands are the step's from number `first` on."""

    def shape(value: SSAValue) -> tuple[Expr, ...]:
        return scope.view(value).dims

    instruction = instruction_of(op, shape, _packed(printer, scope, op))
    cost = cost_of(instruction)
    numbers = [getattr(cost, name) for name in COUNTS[1:]]
    numbers += [cost.bytes_of(instruction, name) for name in operands_of(op)]
    scope.profiled(f"SPU_COUNT({', '.join([str(first), *map(to_c, numbers)])});")
    if isinstance(op, RowOffsetsOp):
        offsets = scope.view(op.init)
        last = to_c(multiply(add(offsets.dims[0], -1), offsets.strides[0]))
        scope.profiled(f"SPU_ROWS({offsets.pointer}[{last}]);")
    name = ACTIVATION.get(op.name)
    if name is None:
        return
    x = operands_of(op)[name]
    view = scope.view(x)
    zero = "0"
    if isinstance(op, EpilogueOp) and op.x_zero.value.data:
        # By a variable, so that equal regions of the program stay equal.
        root = scope.root
        zero = scope.name_of_root(root.declare("const int32_t", str(op.x_zero.value.data)))
    axes = [f"{to_c(d)}, {to_c(s)}" for d, s in zip(view.dims, view.strides, strict=True)]
    kind = _KINDS[numpy_dtype(element_of(x)).itemsize]
    scope.profiled(
        f"SPU_ZEROS({kind}, {view.pointer}, {zero}, {len(view.dims)}, {', '.join(axes)});"
    )


def _packed(printer: Printer, scope: Scope, op: Operation) -> Packed | None:
    """The lists of a product's lane groups, as long as the packed weight in memory says."""
    if not isinstance(op, EpilogueOp):
        return None
    placed = printer.placed[op]
    weight, group = weight_lanes(printer, scope, op)
    lanes = scope.view(op.init).dims[-1]
    if placed.packed.format == "depthwise":
        quads = f"spu_taps({weight}, {lanes})"
    else:
        quads = f"spu_quads({weight}, {group}, {lanes}, {placed.packed.share})"
    return packed_of(placed, quads)
