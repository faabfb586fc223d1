"""C of the VPU's instructions that take whole rows: calls of the kernels in vpu_rows.h."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xdsl.ir import Operation

from spu_ir.codegen.printer import Instruction, Printer
from spu_ir.codegen.scope import Expr, Scope, View, c_float
from spu_ir.codegen.vpu_instructions import Cursor, name_of, nest
from spu_ir.dialects.vpu import (
    CumsumOp,
    LayerNormOp,
    LayerNormRowsOp,
    QuantiseRowsOp,
    SoftmaxOp,
)
from spu_ir.errors import SpuError


def _rows(
    scope: Scope, views: Sequence[View], body: Callable[[list[str], Expr], None], what: str
) -> None:
    """Loops over rows whose last axis is contiguous; `body` gets pointers and the row's length."""
    if any(view.dims and view.strides[-1] != 1 for view in views):
        raise SpuError(f"{what} needs rows that are contiguous in memory", op="codegen")

    def inner(cursors: list[Cursor], count: Expr) -> None:
        body([pointer for pointer, _ in cursors], count)

    nest(scope, views, views[0].dims, inner)


def _softmax(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, SoftmaxOp)
    function = "vpu_log_softmax_f32" if op.log.value.data else "vpu_softmax_f32"
    _rows(
        scope,
        [scope.view(op.x), scope.view(op.init)],
        lambda p, n: scope.line(f"{function}({p[0]}, {p[1]}, {n});"),
        "softmax",
    )


def _cumsum(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, CumsumOp)
    x, out = scope.view(op.x), scope.view(op.init)
    element = {"float32": "f32", "int32": "i32", "int64": "i64"}[name_of(x)]
    flags = f"{op.exclusive.value.data & 1}, {op.reverse.value.data & 1}"
    _rows(
        scope,
        [x, out],
        lambda p, n: scope.line(f"vpu_cumsum_{element}({p[0]}, {p[1]}, {n}, 1, {flags});"),
        "cumsum",
    )


def _layer_norm(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, LayerNormOp)
    gamma = scope.view(op.gamma).pointer
    beta = scope.view(op.beta).pointer if op.beta is not None else "NULL"
    epsilon = c_float(op.epsilon.value.data)

    x, out = scope.view(op.x), scope.view(op.init)
    if not op.centre.value.data:
        _rows(
            scope,
            [x, out],
            lambda p, n: scope.line(f"vpu_rms_norm_f32({p[0]}, {gamma}, {p[1]}, {n}, {epsilon});"),
            "normalisation",
        )
        return
    # All the rows of the last axis but one are one call.
    (x_stride, each), (out_stride, to) = _without_rows(x), _without_rows(out)
    rows = x.dims[-2] if len(x.dims) > 1 else 1
    _rows(
        scope,
        [each, to],
        lambda p, n: scope.line(
            f"vpu_layer_norm_f32({p[0]}, {x_stride}, {gamma}, {beta}, {p[1]}, {out_stride}, "
            f"{rows}, {n}, {epsilon});"
        ),
        "normalisation",
    )


def _without_rows(view: View) -> tuple[Expr, View]:
    """The stride of the last axis but one, and the view without it."""
    if len(view.dims) < 2:
        return 0, view
    dims, strides = ((*every[:-2], every[-1]) for every in (view.dims, view.strides))
    return view.strides[-2], View(view.pointer, view.element, dims, strides)


def _layer_norm_rows(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, LayerNormRowsOp)
    gamma, beta = scope.view(op.gamma).pointer, scope.view(op.beta).pointer
    epsilon = c_float(op.epsilon.value.data)
    _scaled_rows(scope, op, "vpu_layer_norm_rows_f32", f", {gamma}, {beta}", f", {epsilon}")


def _quantise_rows(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, QuantiseRowsOp)
    point = op.zero.value.data
    kind, zero = ("f32", "") if point == 128 else ("from_f32", f", {point}")
    if op.columns is None:
        _scaled_rows(scope, op, f"vpu_quantise_rows_{kind}", "", zero)
        return
    x, out, scale = (scope.view(v) for v in (op.x, op.init, op.scale_init))
    scales = View(scale.pointer, scale.element, (*scale.dims, 1), (*scale.strides, 1))
    call, columns = f"vpu_quantise_columns_{kind}", scope.view(op.columns).pointer
    _rows(
        scope,
        [x, out, scales],
        lambda p, n: scope.line(f"{call}({p[0]}, {columns}, {p[1]}, {p[2]}, {n}{zero});"),
        "quantisation of rows",
    )


def _scaled_rows(
    scope: Scope, op: LayerNormRowsOp | QuantiseRowsOp, call: str, parameters: str, last: str
) -> None:
    """All the rows of the last axis but one of x, in one call, each with a scale."""
    x, out, scale = (scope.view(v) for v in (op.x, op.init, op.scale_init))
    if scale.strides and scale.strides[-1] != 1:
        raise SpuError("scales of rows must be contiguous in memory", op="codegen")
    scales = View(scale.pointer, scale.element, (*scale.dims[:-1], 1), (*scale.strides[:-1], 1))
    (x_stride, each), (out_stride, to) = _without_rows(x), _without_rows(out)
    rows = x.dims[-2] if len(x.dims) > 1 else 1
    _rows(
        scope,
        [each, to, scales],
        lambda p, n: scope.line(
            f"{call}({p[0]}, {x_stride}{parameters}, {p[1]}, {out_stride}, {p[2]}, {rows}, "
            f"{n}{last});"
        ),
        "quantisation of rows",
    )


ROW_INSTRUCTIONS: dict[type[Operation], Instruction] = {
    SoftmaxOp: _softmax,
    CumsumOp: _cumsum,
    LayerNormOp: _layer_norm,
    LayerNormRowsOp: _layer_norm_rows,
    QuantiseRowsOp: _quantise_rows,
}
