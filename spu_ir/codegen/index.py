"""C of index arithmetic."""

from __future__ import annotations

from xdsl.dialects import arith, memref
from xdsl.ir import Operation, SSAValue

from spu_ir.codegen.scope import Expr, Scope

_INFIX: dict[type[Operation], str] = {
    arith.AddiOp: "+",
    arith.SubiOp: "-",
    arith.MuliOp: "*",
    arith.DivUIOp: "/",
    arith.DivSIOp: "/",
    arith.FloorDivSIOp: "/",
    arith.RemUIOp: "%",
}
_SELECT: dict[type[Operation], str] = {
    arith.MinSIOp: "<",
    arith.MinUIOp: "<",
    arith.MaxSIOp: ">",
    arith.MaxUIOp: ">",
}


def print_index(scope: Scope, op: Operation) -> bool:
    """Print an op of index arithmetic; False for any other op."""
    if isinstance(op, arith.ConstantOp):
        return True
    if type(op) in _INFIX:
        a, b = (scope.index(operand) for operand in op.operands)
        if isinstance(op, arith.AddiOp):
            scope.values[op.results[0]] = scope.add(a, b)
        elif isinstance(op, arith.MuliOp):
            scope.values[op.results[0]] = scope.multiply(a, b)
        else:
            scope.values[op.results[0]] = scope.let(f"{a} {_INFIX[type(op)]} {b}")
        return True
    if type(op) in _SELECT:
        a, b = (scope.index(operand) for operand in op.operands)
        scope.values[op.results[0]] = scope.let(f"{a} {_SELECT[type(op)]} {b} ? {a} : {b}")
        return True
    if isinstance(op, arith.CeilDivUIOp | arith.CeilDivSIOp):
        a, b = (scope.index(operand) for operand in op.operands)
        scope.values[op.results[0]] = scope.let(f"({a} + {b} - 1) / {b}")
        return True
    if isinstance(op, arith.IndexCastOp):
        scope.values[op.result] = scope.index(op.input)
        return True
    if isinstance(op, memref.LoadOp):
        scope.values[op.res] = _element(scope, op)
        return True
    if isinstance(op, memref.DimOp):
        axis = scope.index(op.index)
        assert isinstance(axis, int)
        scope.values[op.results[0]] = scope.view(op.source).dims[axis]
        return True
    return False


def _element(scope: Scope, op: memref.LoadOp) -> str:
    """An integer element of a memref, read where the op is."""
    view = scope.view(op.memref)
    place: Expr = 0
    for index, stride in zip(op.indices, view.strides, strict=True):
        place = scope.add(place, scope.multiply(scope.index(index), stride))
    return scope.let(f"{view.pointer}[{place}]")


def print_slice(scope: Scope, value: SSAValue) -> Expr:
    """Print the arithmetic that an index value needs, and return the value's expression."""
    # Offsets in the arena build on one another: recursion would overflow in deep models.
    waiting = [value]
    entered: set[SSAValue] = set()
    while waiting:
        current = waiting.pop()
        owner = current.owner
        if current in scope.values or not isinstance(owner, Operation):
            continue
        if current in entered:
            print_index(scope, owner)
            continue
        entered.add(current)
        waiting += (current, *reversed(owner.operands))
    return scope.index(value)
