"""C of the VPU's instructions: loops over 16 lanes, and calls of the window kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from xdsl.ir import Operation, SSAValue

from spu_ir.codegen.printer import C_TYPES, SHORT, Instruction, Printer
from spu_ir.codegen.scope import Expr, Scope, View, c_float
from spu_ir.dialects.antoum import DmaOp, FillOp
from spu_ir.dialects.spu import integers
from spu_ir.dialects.types import numpy_dtype
from spu_ir.dialects.vpu import (
    BinaryFn,
    BinaryOp,
    CastOp,
    DequantiseOp,
    ExpandOp,
    GatherOp,
    PoolFn,
    PoolOp,
    QuantiseOp,
    QuantiseProductOp,
    ReduceFn,
    ReduceOp,
    RowOffsetsOp,
    ScaledOp,
    SelectOp,
    TransposeOp,
    UnaryFn,
    UnaryOp,
)
from spu_ir.errors import SpuError

FLOATS = ("float32", "bfloat16")


def name_of(view: View) -> str:
    """The numpy name of a view's element type."""
    return numpy_dtype(view.element).name


def broadcast(view: View, rank: int) -> View:
    """A view with `rank` axes, as numpy broadcasts: repeated axes have stride 0."""
    missing = rank - len(view.dims)
    dims = (1,) * missing + view.dims
    strides = (0,) * missing + view.strides
    return View(
        view.pointer,
        view.element,
        dims,
        tuple(0 if d == 1 else s for d, s in zip(dims, strides, strict=True)),
    )


Cursor: TypeAlias = tuple[str, Expr]
"""A pointer to the first element of an inner run, and the stride along it."""


def nest(
    scope: Scope,
    views: Sequence[View],
    dims: Sequence[Expr],
    body: Callable[[list[Cursor], Expr], None],
) -> None:
    """Loops over all but the last of `dims`; `body` gets a cursor for each view, and the rest."""
    counters: list[tuple[int, str]] = []
    for axis, size in enumerate(dims[:-1]):
        if size == 1:
            continue
        counter = scope.counter()
        counters.append((axis, counter))
        scope.open(f"for (int64_t {counter} = 0; {counter} < {size}; {counter}++)")
    cursors: list[Cursor] = []
    for view in views:
        terms = [
            f"{counter} * {view.strides[axis]}"
            for axis, counter in counters
            if view.strides[axis] != 0
        ]
        pointer = view.pointer
        if terms:
            ctype = scope.types[pointer]
            pointer = scope.declare(ctype, " + ".join([pointer, *terms]))
        cursors.append((pointer, view.strides[-1] if view.dims else 0))
    body(cursors, dims[-1] if dims else 1)
    for _ in counters:
        scope.close()


def vectors(
    scope: Scope,
    inputs: Sequence[View],
    out: View,
    render: Callable[[list[str]], str],
    integer_loads: Sequence[int] = (),
    write: str = "vpu_write_",
) -> None:
    """
    `out = render(inputs)` 16 lanes at a time, through f32; broadcasting as numpy's.

    Inputs whose number is in `integer_loads` are loaded as i32x16 instead. `write` is what stores
    the result, but for the type.
    """
    rank = max(1, len(out.dims))
    views = [broadcast(view, rank) for view in (*inputs, out)]

    def body(cursors: list[Cursor], count: Expr) -> None:
        hoisted: dict[int, str] = {}
        for number, (pointer, stride) in enumerate(cursors[:-1]):
            if stride == 0:
                kind = "i32x16" if number in integer_loads else "f32x16"
                hoisted[number] = scope.declare(
                    f"const {kind}",
                    _load(inputs[number], number in integer_loads, pointer, "0", "16"),
                )
        j = scope.counter()
        scope.open(f"for (int64_t {j} = 0; {j} < {count}; {j} += 16)")
        left = scope.let(f"{count} - {j} < 16 ? {count} - {j} : 16")
        loads = [
            hoisted.get(number)
            or _load(
                inputs[number],
                number in integer_loads,
                f"{pointer} + {_step(j, stride)}",
                str(stride),
                left,
            )
            for number, (pointer, stride) in enumerate(cursors[:-1])
        ]
        pointer, stride = cursors[-1]
        scope.line(
            f"{write}{SHORT[name_of(out)]}({pointer} + {_step(j, stride)}, {stride}, "
            f"{render(loads)}, {left});"
        )
        scope.close()

    nest(scope, views, _dims(views[-1], out), body)


def _dims(padded: View, out: View) -> tuple[Expr, ...]:
    return out.dims if out.dims else padded.dims


def _step(counter: str, stride: Expr) -> str:
    return counter if stride == 1 else f"{counter} * {stride}"


def _load(view: View, integer: bool, pointer: str, stride: str, count: str) -> str:
    prefix = "vpu_read_int_" if integer else "vpu_read_"
    return f"{prefix}{SHORT[name_of(view)]}({pointer}, {stride}, {count})"


def scalars(
    scope: Scope, inputs: Sequence[View], out: View, render: Callable[[list[str]], str]
) -> None:
    """`out = render(inputs)` one element at a time, for integers and truth values."""
    rank = max(1, len(out.dims))
    views = [broadcast(view, rank) for view in (*inputs, out)]

    def body(cursors: list[Cursor], count: Expr) -> None:
        j = scope.counter()
        scope.open(f"for (int64_t {j} = 0; {j} < {count}; {j}++)")
        elements = [f"{pointer}[{_step(j, stride)}]" for pointer, stride in cursors]
        ctype = C_TYPES[name_of(out)]
        scope.line(f"{elements[-1]} = ({ctype})({render(elements[:-1])});")
        scope.close()

    nest(scope, views, _dims(views[-1], out), body)


def _unary(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, UnaryOp)
    x, out, fn = scope.view(op.x), scope.view(op.init), op.fn.data
    if name_of(x) == "float32":
        vectors(scope, [x], out, lambda v: f"vpu_{fn}({v[0]})")
    elif fn is UnaryFn.NOT:
        scalars(scope, [x], out, lambda v: f"!{v[0]}")
    else:
        scalars(scope, [x], out, lambda v: f"vpu_integer_{fn}({v[0]})")


def _binary(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, BinaryOp)
    a, b, out, fn = scope.view(op.a), scope.view(op.b), scope.view(op.init), op.fn.data
    if name_of(a) == "float32":
        vectors(scope, [a, b], out, lambda v: f"vpu_{fn}({v[0]}, {v[1]})")
    elif fn in (BinaryFn.AND, BinaryFn.OR):
        sign = "&&" if fn is BinaryFn.AND else "||"
        scalars(scope, [a, b], out, lambda v: f"{v[0]} {sign} {v[1]}")
    else:
        scalars(scope, [a, b], out, lambda v: f"vpu_integer_{fn}({v[0]}, {v[1]})")


def _select(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, SelectOp)
    inputs = [scope.view(value) for value in (op.condition, op.a, op.b)]
    out = scope.view(op.init)
    if name_of(out) == "float32":
        vectors(scope, inputs, out, lambda v: f"vpu_select({v[0]}, {v[1]}, {v[2]})")
    else:
        scalars(scope, inputs, out, lambda v: f"{v[0]} ? {v[1]} : {v[2]}")


def _cast(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, CastOp)
    x, out = scope.view(op.x), scope.view(op.init)
    if name_of(x) in FLOATS or name_of(out) in FLOATS:
        vectors(scope, [x], out, lambda v: v[0])
    else:
        test = " != 0" if name_of(out) == "bool" else ""
        scalars(scope, [x], out, lambda v: v[0] + test)


def _scale_view(op: ScaledOp, view: View, rank: int) -> View:
    """A scale's view with the rank of x: along an axis, along the rows, or one number."""
    axis = op.axis.value.data
    if axis >= 0:
        dims: list[Expr] = [1] * rank
        strides: list[Expr] = [0] * rank
        dims[axis], strides[axis] = view.dims[0], view.strides[0]
        return View(view.pointer, view.element, tuple(dims), tuple(strides))
    if not view.dims:
        return broadcast(view, rank)
    return View(view.pointer, view.element, (*view.dims, 1), (*view.strides, 0))


def _quantise(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, QuantiseOp)
    x, out = scope.view(op.x), scope.view(op.init)
    if quantise_runs(scope, [x, out], op.scale, op.zero):
        return
    rank = len(out.dims)
    inputs = [x, _scale_view(op, scope.view(op.scale), rank)]
    low, high = ("0.0f", "255.0f") if name_of(out) == "uint8" else ("-128.0f", "127.0f")
    if op.zero is None:
        zero = "spu_isplat(0)"
    else:
        inputs.append(_scale_view(op, scope.view(op.zero), rank))
        zero = ""
    vectors(
        scope,
        inputs,
        out,
        lambda v: f"vpu_quantise({v[0]}, {v[1]}, {zero or v[2]}, {low}, {high})",
        (2,),
        "vpu_write_low_",
    )


def _quantise_product(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, QuantiseProductOp)
    views = [scope.view(v) for v in (op.x, op.factor, op.init)]
    if not quantise_runs(scope, views, op.scale, op.zero):
        raise SpuError("a quantised product must be contiguous along its last axis", op="codegen")


def quantise_runs(
    scope: Scope, views: Sequence[View], scale: SSAValue, zero: SSAValue | None
) -> bool:
    """
    Bytes of one or two factors, the first of `views`, which are contiguous along their last axes.

    False, and nothing is printed, where they are not, or there are several scales.
    """
    if scope.view(scale).dims or any(not v.dims or v.strides[-1] != 1 for v in views):
        return False
    out = views[-1]
    bounds = "0.0f, 255.0f" if name_of(out) == "uint8" else "-128.0f, 127.0f"
    point = "0" if zero is None else f"*{scope.view(zero).pointer}"

    def body(cursors: list[Cursor], count: Expr) -> None:
        x, *factor, q = (pointer for pointer, _ in cursors)
        parts = [x, *(factor or ["NULL"]), q, count, f"*{scope.view(scale).pointer}", point, bounds]
        scope.line(f"vpu_quantise_run({', '.join(map(str, parts))});")

    merged = list(views)
    while len(merged[0].dims) >= 2 and all(v.strides[-2] == v.dims[-1] for v in merged):
        size = scope.multiply(*merged[0].dims[-2:])
        merged = [
            View(v.pointer, v.element, (*v.dims[:-2], size), (*v.strides[:-2], 1)) for v in merged
        ]
    nest(scope, merged, merged[0].dims, body)
    return True


def _dequantise(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, DequantiseOp)
    x, out = scope.view(op.x), scope.view(op.init)
    rank = len(out.dims)
    inputs = [x, _scale_view(op, scope.view(op.scale), rank)]
    zero = "spu_isplat(0)"
    if op.zero is not None:
        inputs.append(_scale_view(op, scope.view(op.zero), rank))
        zero = ""
    vectors(scope, inputs, out, lambda v: f"vpu_dequantise({v[0]}, {v[1]}, {zero or v[2]})", (0, 2))


def _copy(scope: Scope, source: View, target: View) -> None:
    """A copy of any strides and at most eight axes, repeating axes that broadcast."""
    rank = len(target.dims)
    if rank > 8:
        raise SpuError(f"data of {rank} axes can't be moved: the device copies at most 8 at once")
    x = broadcast(source, rank)

    def array(values: Sequence[Expr]) -> str:
        return "(const int64_t[]){" + ", ".join(str(v) for v in values or (1,)) + "}"

    itemsize = numpy_dtype(target.element).itemsize
    scope.line(
        f"vpu_copy_strided({x.pointer}, {target.pointer}, {rank}, {array(target.dims)}, "
        f"{array(x.strides)}, {array(target.strides)}, {itemsize});"
    )


def _expand(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, ExpandOp)
    _copy(scope, scope.view(op.x), scope.view(op.init))


def _dma(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, DmaOp)
    _copy(scope, scope.view(op.source), scope.view(op.target))


def _transpose(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, TransposeOp)
    x, perm = scope.view(op.x), integers(op.perm)
    turned = View(
        x.pointer,
        x.element,
        tuple(x.dims[axis] for axis in perm),
        tuple(x.strides[axis] for axis in perm),
    )
    _copy(scope, turned, scope.view(op.init))


def _fill(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, FillOp)
    target = scope.view(op.target)
    ctype = C_TYPES[name_of(target)]
    value: Any = op.value
    number = float(value.value.data)
    if name_of(target) == "bfloat16":
        # The device keeps bf16 as its bits.
        literal = str(int(np.array(number, numpy_dtype(target.element)).view(np.uint16)))
    else:
        literal = c_float(number) if name_of(target) == "float32" else str(int(number))
    pattern = scope.declare(f"const {ctype}", literal)
    size = numpy_dtype(target.element).itemsize

    def body(cursors: list[Cursor], count: Expr) -> None:
        pointer, stride = cursors[0]
        if stride not in (0, 1):
            raise SpuError("a filled view must be contiguous along its last axis", op="codegen")
        scope.line(f"vpu_fill({pointer}, &{pattern}, {count}, {size});")

    # The halo of an image has its width and channels in one run.
    dims, strides = list(target.dims), list(target.strides)
    while len(dims) >= 2 and strides[-1] == 1 and strides[-2] == dims[-1]:
        dims[-2:] = [scope.multiply(dims[-2], dims[-1])]
        strides[-2:] = [1]
    view = View(target.pointer, target.element, tuple(dims), tuple(strides))
    nest(scope, [view], view.dims, body)


_REDUCE = {
    ReduceFn.SUM: "SPU_SUM",
    ReduceFn.MEAN: "SPU_MEAN",
    ReduceFn.MAX: "SPU_MAX",
    ReduceFn.MIN: "SPU_MIN",
    ReduceFn.PROD: "SPU_PROD",
    ReduceFn.L2: "SPU_L2",
}


def _reduce(_: Printer, scope: Scope, op: Operation) -> None:
    """Reduced axes that are neighbours in memory: the last ones, or ones before kept ones."""
    assert isinstance(op, ReduceOp)
    x, out = scope.view(op.x), scope.view(op.init)
    axes, rank = sorted(integers(op.axes)), len(x.dims)
    first, last = axes[0], axes[-1]
    joined = all(
        x.dims[a] == 1 or _is_product(scope, x.strides[a], x.dims[a + 1], x.strides[a + 1])
        for a in range(first, last)
    )
    if axes != list(range(first, last + 1)) or not joined:
        raise SpuError("a reduction's axes must be neighbours in memory", op="codegen")
    count = scope.product([x.dims[axis] for axis in axes])
    fn = _REDUCE[op.fn.data]
    kept = [axis for axis in range(rank) if axis not in axes]
    places = kept if len(out.dims) == rank else list(range(len(kept)))
    outer = [axis for axis in kept if axis < first]
    inner = [axis for axis in kept if axis > last]
    out_of = dict(zip(kept, places, strict=True))
    views = [
        View(
            x.pointer,
            x.element,
            (*(x.dims[a] for a in outer), 1),
            (*(x.strides[a] for a in outer), 1),
        ),
        View(
            out.pointer,
            out.element,
            (*(x.dims[a] for a in outer), 1),
            (*(out.strides[out_of[a]] for a in outer), 1),
        ),
    ]

    def body(cursors: list[Cursor], _count: Expr) -> None:
        source, target = cursors[0][0], cursors[1][0]
        if inner:
            width = scope.product([x.dims[a] for a in inner])
            scope.line(
                f"vpu_reduce_strided_f32({source}, {count}, {x.strides[last]}, {target}, "
                f"{width}, {fn});"
            )
        else:
            scope.line(f"*{target} = vpu_reduce_f32({source}, {count}, {fn});")

    if inner and not all(
        _is_product(scope, x.strides[a], x.dims[a + 1], x.strides[a + 1]) for a in inner[:-1]
    ):
        raise SpuError("the axes behind a reduction must be neighbours in memory", op="codegen")
    nest(scope, views, views[0].dims, body)


def _is_product(scope: Scope, stride: Expr, dim: Expr, inner: Expr) -> bool:
    """Whether an axis continues the next one in memory; run-time strides are trusted to."""
    if isinstance(stride, int) and isinstance(dim, int) and isinstance(inner, int):
        return stride == dim * inner
    return not isinstance(stride, int) or not isinstance(dim, int)


def _pool(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, PoolOp)
    x, out = scope.view(op.x), scope.view(op.init)
    name = SHORT[name_of(x)]
    kind = "max" if op.fn.data is PoolFn.MAX else "avg"
    kernel, strides = integers(op.kernel), integers(op.strides)
    dilations, pads = integers(op.dilations), integers(op.pads)
    padded = int(op.fn.data is PoolFn.AVG_PADDED)
    fields = {
        "x_row": x.strides[1],
        "x_pixel": x.strides[2],
        "y_pixel": out.strides[2],
        "height": f"(int32_t){x.dims[1]}",
        "width": f"(int32_t){x.dims[2]}",
        "channels": f"(int32_t){x.dims[3]}",
        "kernel_h": kernel[0],
        "kernel_w": kernel[1],
        "stride_h": strides[0],
        "stride_w": strides[1],
        "dilation_h": dilations[0],
        "dilation_w": dilations[1],
        "pad_top": pads[0],
        "pad_left": pads[1],
        "count_include_pad": padded,
    }
    text = ", ".join(f".{field} = {value}" for field, value in fields.items())
    pool = scope.declare("const vpu_pool", "{" + text + "}")
    n, y = scope.counter(), scope.counter()
    scope.open(f"for (int64_t {n} = 0; {n} < {out.dims[0]}; {n}++)")
    scope.open(f"for (int64_t {y} = 0; {y} < {out.dims[1]}; {y}++)")
    scope.line(
        f"vpu_{kind}_pool_{name}(&{pool}, {x.pointer} + {n} * {x.strides[0]}, "
        f"{out.pointer} + {n} * {out.strides[0]} + {y} * {out.strides[1]}, {y}, 0, "
        f"{out.dims[2]});"
    )
    scope.close()
    scope.close()


def _gather(printer: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, GatherOp)
    x, indices, out = scope.view(op.x), scope.view(op.indices), scope.view(op.init)
    axis, taken = op.axis.value.data, len(indices.dims)
    function = "vpu_gather_rows" if name_of(indices) == "int64" else "vpu_gather_rows_i32"
    run = scope.product(x.dims[axis + 1 :])
    size = scope.multiply(run, numpy_dtype(x.element).itemsize)
    status = scope.name_of_root(printer.status)
    # Loops over the axes before the taken one and over all but the last axis of the indices.
    dims = (*out.dims[:axis], *indices.dims[:-1], 1) if taken else (*out.dims[:axis], 1)
    outer = len(dims) - 1 - axis
    x_view = View(x.pointer, x.element, dims, (*x.strides[:axis], *(0,) * outer, 1))
    i_view = View(
        indices.pointer, indices.element, dims, (*(0,) * axis, *indices.strides[:outer], 1)
    )
    o_view = View(out.pointer, out.element, dims, (*out.strides[: axis + outer], 1))
    count = indices.dims[-1] if taken else 1

    def body(cursors: list[Cursor], _count: Expr) -> None:
        (source, _), (index, _), (target, _) = cursors
        scope.open(f"if ({function}({source}, {x.dims[axis]}, {size}, {index}, {count}, {target}))")
        scope.line(f"__atomic_store_n({status}, SPU_BAD_INDEX, __ATOMIC_RELAXED);")
        scope.close()

    nest(scope, [x_view, i_view, o_view], dims, body)


def _row_offsets(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, RowOffsetsOp)
    x, out = scope.view(op.x), scope.view(op.init)
    scope.line(
        f"vpu_row_offsets({x.pointer}, {x.strides[0]}, {x.dims[0]}, {x.dims[1]}, {out.pointer});"
    )


VPU_INSTRUCTIONS: dict[type[Operation], Instruction] = {
    UnaryOp: _unary,
    BinaryOp: _binary,
    SelectOp: _select,
    CastOp: _cast,
    QuantiseOp: _quantise,
    QuantiseProductOp: _quantise_product,
    DequantiseOp: _dequantise,
    ExpandOp: _expand,
    DmaOp: _dma,
    TransposeOp: _transpose,
    FillOp: _fill,
    ReduceOp: _reduce,
    PoolOp: _pool,
    GatherOp: _gather,
    RowOffsetsOp: _row_offsets,
}
