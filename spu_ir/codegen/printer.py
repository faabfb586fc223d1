"""Walks a tiled function and prints its C: memory, index arithmetic and loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from xdsl.dialects import func, memref, scf
from xdsl.dialects.builtin import DenseArrayBase, MemRefType, NoneAttr
from xdsl.ir import Block, Operation, SSAValue

from spu_ir.codegen.index import print_index
from spu_ir.codegen.scope import Expr, Functions, Scope, View
from spu_ir.codegen.weights import Placed, WeightFile
from spu_ir.dialects.antoum import ArenaOp, ConstantOp
from spu_ir.dialects.spu import EpilogueOp, encoding_of, integers
from spu_ir.dialects.types import DYNAMIC, element_of, numpy_dtype, shape_of, shaped
from spu_ir.errors import SpuError

C_TYPES = {
    "float32": "float",
    "bfloat16": "uint16_t",
    "bool": "uint8_t",
    "uint8": "uint8_t",
    "int8": "int8_t",
    "int32": "int32_t",
    "int64": "int64_t",
}
"""numpy dtype name -> the C type of an element in memory."""

SHORT = {
    "float32": "f32",
    "bfloat16": "bf16",
    "bool": "i1",
    "uint8": "u8",
    "int8": "i8",
    "int32": "i32",
    "int64": "i64",
}
"""numpy dtype name -> its name in the device headers' functions."""


def c_type(value: SSAValue) -> str:
    """The C type of a memref's elements. Raises SpuError for one that the device lacks."""
    return C_TYPES[dtype_name(value)]


def dtype_name(value: SSAValue) -> str:
    """The numpy name of a memref's element type. Raises SpuError unless the device has it."""
    name = numpy_dtype(element_of(value)).name
    if name not in C_TYPES:
        raise SpuError(f"the device has no element type {element_of(value)}", op="codegen")
    return name


Instruction: TypeAlias = "Callable[[Printer, Scope, Operation], None]"
"""Prints the C of one op."""


@dataclass
class Printer:
    """The state of one program's printing."""

    weights: WeightFile
    instructions: Mapping[type[Operation], Instruction]
    functions: Functions = field(default_factory=Functions)
    kernels: Functions = field(default_factory=Functions)
    arena_end: Expr = 0
    """Bytes of the context's arena that the arenas of memory spaces have taken so far."""
    weight_names: dict[int, str] = field(default_factory=dict[int, str])
    """Number of a packed weight -> the variable that points to it."""
    status: str = ""
    """The variable that points to the run's status."""
    steps: Mapping[Operation, int] = field(default_factory=dict[Operation, int])
    """The number of every step: what is timed and counted in a profiled program."""
    counted: Mapping[Operation, int] = field(default_factory=dict[Operation, int])
    """Instruction -> the number of its first operand among those of its step."""
    count: Callable[[Printer, Scope, Operation, int], None] | None = None
    """Prints the counting of an instruction."""
    placed: dict[Operation, Placed] = field(default_factory=dict[Operation, Placed])
    """The packed weight of every product printed so far."""

    def block(self, scope: Scope, block: Block) -> None:
        """Print every op of a block."""
        for op in block.ops:
            self.op(scope, op)

    def op(self, scope: Scope, op: Operation) -> None:
        """Print one op."""
        if print_index(scope, op):
            return
        printer = self.instructions.get(type(op)) or _MEMORY.get(type(op))
        if printer is None:
            raise SpuError(f"{op.name} has no C; run bufferise, plan-memory and tile first")
        step = self.steps.get(op)
        if step is not None:
            scope.profiled(f"SPU_BEGIN({step});")
        printer(self, scope, op)
        if self.count is not None and op in self.counted:
            self.count(self, scope, op, self.counted[op])
        if step is not None:
            scope.profiled("SPU_END();")


def _constant(printer: Printer, scope: Scope, op: Operation) -> None:
    """A constant that an instruction reads as an array; products' weights are packed at use."""
    assert isinstance(op, ConstantOp)
    if is_weight(op.result):
        return
    offset = printer.weights.plain(op.value)
    ctype = c_type(op.result)
    pointer = scope.declare(f"const {ctype} *", f"(const {ctype} *)(weights + {offset})")
    shape = shape_of(op.result)
    scope.values[op.result] = View(pointer, element_of(op.result), shape, contiguous(scope, shape))


def is_weight(value: SSAValue) -> bool:
    """Whether only products use a value, as their weight: it is packed where they do."""
    if encoding_of(value) is not None:
        return True
    return all(
        is_weight(use.operation.result)
        if isinstance(use.operation, memref.SubviewOp)
        else isinstance(use.operation, EpilogueOp) and use.operation.weight is value
        for use in value.uses
    )


def contiguous(scope: Scope, dims: Sequence[Expr]) -> tuple[Expr, ...]:
    """Row-major strides of a shape."""
    strides: list[Expr] = [1] * len(dims)
    for axis in reversed(range(len(dims) - 1)):
        strides[axis] = scope.multiply(strides[axis + 1], dims[axis + 1])
    return tuple(strides)


def _arena(printer: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, ArenaOp)
    size = scope.index(op.bytes)
    pointer = scope.declare("uint8_t *", f"context->arena + {printer.arena_end}")
    printer.arena_end = scope.add(printer.arena_end, size)
    scope.values[op.result] = View(pointer, element_of(op.result), (size,), (1,))


def _sizes(scope: Scope, kind: MemRefType, dynamic: Sequence[SSAValue]) -> tuple[Expr, ...]:
    rest = iter(dynamic)
    return tuple(scope.index(next(rest)) if d == DYNAMIC else d for d in kind.get_shape())


def _view(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, memref.ViewOp)
    source, shift = scope.view(op.source), scope.index(op.byte_shift)
    ctype = c_type(op.result)
    pointer = scope.declare(f"{ctype} *", f"({ctype} *)({source.pointer} + {shift})")
    dims = _sizes(scope, op.result.type, op.sizes)
    scope.values[op.result] = View(pointer, element_of(op.result), dims, contiguous(scope, dims))


def _mixed(scope: Scope, static: DenseArrayBase, dynamic: Sequence[SSAValue]) -> tuple[Expr, ...]:
    rest = iter(dynamic)
    return tuple(scope.index(next(rest)) if v == DYNAMIC else v for v in integers(static))


def _subview(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, memref.SubviewOp)
    if is_weight(op.result):
        return  # a lane group of a packed weight: the instruction that uses it finds it
    source = scope.view(op.source)
    offsets = _mixed(scope, op.static_offsets, op.offsets)
    steps = _mixed(scope, op.static_strides, op.strides)
    place: Expr = 0
    for offset, stride in zip(offsets, source.strides, strict=True):
        place = scope.add(place, scope.multiply(offset, stride))
    pointer = source.pointer
    if place != 0:
        ctype = scope.types[pointer]
        pointer = scope.declare(ctype, f"{source.pointer} + {place}")
    scope.values[op.result] = View(
        pointer,
        source.element,
        _mixed(scope, op.static_sizes, op.sizes),
        tuple(scope.multiply(s, t) for s, t in zip(source.strides, steps, strict=True)),
    )


def _reinterpret(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, memref.ReinterpretCastOp)
    source = scope.view(op.source)
    scope.values[op.result] = View(
        source.pointer,
        source.element,
        _mixed(scope, op.static_sizes, op.sizes),
        _mixed(scope, op.static_strides, op.strides),
    )


def _for(printer: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, scf.ForOp)
    low, high, step = (scope.index(v) for v in (op.lb, op.ub, op.step))
    counter = scope.counter()
    scope.values[op.body.block.args[0]] = counter
    scope.open(f"for (int64_t {counter} = {low}; {counter} < {high}; {counter} += {step})")
    printer.block(scope, op.body.block)
    scope.close()


def _parallel(printer: Printer, scope: Scope, op: Operation) -> None:
    """A region of the pool: its body is a function of a frame and a step's number."""
    assert isinstance(op, scf.ParallelOp)
    inner = Scope(scope)
    uppers = [scope.index(v) for v in op.upperBound]
    steps = [scope.index(v) for v in op.step]
    counts: list[Expr] = []
    for upper, step in zip(uppers, steps, strict=True):
        if isinstance(upper, int) and isinstance(step, int):
            counts.append(-(-upper // step))
        else:
            counts.append(upper if step == 1 else scope.let(f"({upper} + {step} - 1) / {step}"))
    rest = "index"
    for number in reversed(range(len(counts))):
        count, step = inner.import_expr(counts[number]), steps[number]
        place = rest if number == 0 else inner.let(f"{rest} % {count}")
        if number:
            rest = inner.let(f"{rest} / {count}")
        value = inner.let(f"{place} * {inner.import_expr(step)}") if step != 1 else place
        if value == "index":
            value = inner.let("index")
        inner.values[op.body.block.args[number]] = value
    printer.block(inner, op.body.block)
    text = inner.text()
    members = [(_member(scope.types[name], f"c{i}"), f"c{i}") for i, name in enumerate(text.outer)]
    extra = [(_member(scope.types[name], f"p{i}"), f"p{i}") for i, name in enumerate(text.profiled)]
    body = [
        "struct @_frame {",
        *([f"  {member};" for member, _ in members] or ["  char unused;"]),
        "  SPU_PROFILED(int64_t *counters;)",
        *(f"  SPU_PROFILED({member};)" for member, _ in extra),
        "};",
        "static void @(void *frame_, int64_t index) {",
        "  const struct @_frame *frame = frame_;",
        *(f"  {member} = frame->{name};" for member, name in members),
        "  SPU_REGION_BEGIN(frame->counters);",
        *(f"  SPU_PROFILED({member} = frame->{name};)" for member, name in extra),
        *([] if members else ["  (void)frame;"]),
        *([] if any("index" in line for line in text.lines) else ["  (void)index;"]),
        *text.lines,
        "  SPU_REGION_END();",
        "}",
    ]
    name = printer.functions.name("region", "\n".join(body))
    total = scope.product(counts)
    scope.open("")
    values = ", ".join(text.outer) or "0"
    scope.line(f"struct {name}_frame frame = {{{values}")
    scope.profiled(f"  SPU_PROFILED({', '.join(['', 'counters', *text.profiled])})")
    scope.line("};")
    scope.line(f"context->parallel(context->pool, {name}, &frame, {total});")
    scope.close()


def _member(ctype: str, name: str) -> str:
    return f"{ctype}{name}" if ctype.endswith(("*", " ")) else f"{ctype} {name}"


def _nothing(_: Printer, __: Scope, ___: Operation) -> None:
    """A terminator: the C block ends by itself."""


_MEMORY: dict[type[Operation], Instruction] = {
    ConstantOp: _constant,
    ArenaOp: _arena,
    memref.ViewOp: _view,
    memref.SubviewOp: _subview,
    memref.ReinterpretCastOp: _reinterpret,
    scf.ForOp: _for,
    scf.ParallelOp: _parallel,
    scf.YieldOp: _nothing,
    scf.ReduceOp: _nothing,
    func.ReturnOp: _nothing,
}


def argument_view(scope: Scope, value: SSAValue, pointer: str, dims: Sequence[Expr]) -> View:
    """The view of a function's argument, a contiguous array at `pointer`."""
    kind = shaped(value)
    assert isinstance(kind, MemRefType) and isinstance(kind.layout, NoneAttr)
    return View(pointer, kind.element_type, tuple(dims), contiguous(scope, dims))
