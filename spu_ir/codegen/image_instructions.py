"""C of the VPU's instructions on images, and of look-ups in tables."""

from __future__ import annotations

from dataclasses import replace

from xdsl.ir import Operation, SSAValue

from spu_ir.codegen.printer import SHORT, Instruction, Printer
from spu_ir.codegen.scope import Expr, Scope, View
from spu_ir.codegen.vpu_instructions import Cursor, name_of, nest
from spu_ir.dialects.types import shape_of
from spu_ir.dialects.vpu import ResizeFilter, ResizeOp, ResizeTapsOp, TableOp
from spu_ir.errors import SpuError

_FILTERS = {ResizeFilter.BILINEAR: "VPU_BILINEAR", ResizeFilter.BICUBIC: "VPU_BICUBIC"}


def _of_images(scope: Scope, value: SSAValue) -> View:
    """A view of whole images or taps: what belongs to one is contiguous behind its last axis."""
    view = scope.view(value)
    if view.strides[-1] != 1:
        raise SpuError("images and their taps must be contiguous in memory", op="codegen")
    return view


def _fails(scope: Scope, printer: Printer, call: str) -> None:
    status = scope.name_of_root(printer.status)
    scope.open(f"if ({call})")
    scope.line(f"__atomic_store_n({status}, SPU_BAD_IMAGE, __ATOMIC_RELAXED);")
    scope.close()


def _each_image(view: View, axes: int) -> View:
    """A view of the images of `view`, without the `axes` last axes that lie inside one."""
    return replace(view, dims=(*view.dims[:-axes], 1), strides=(*view.strides[:-axes], 1))


def _resize_taps(printer: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, ResizeTapsOp)
    geometry, taps, weights = (
        _of_images(scope, value) for value in (op.geometry, op.init, op.weight_init)
    )
    _, count, most = weights.dims
    options = f"{_FILTERS[op.filter.data]}, {op.antialias.value.data & 1}"
    place = scope.multiply(op.axis.value.data, geometry.strides[1])

    def body(cursors: list[Cursor], _count: Expr) -> None:
        source, target, numbers = (pointer for pointer, _ in cursors)
        start = f"{source} + {place}" if place != 0 else source
        _fails(
            scope,
            printer,
            f"vpu_resize_taps({start}, {count}, {most}, {target}, {numbers}, {options})",
        )

    views = [_each_image(view, 2) for view in (geometry, taps, weights)]
    nest(scope, views, views[0].dims, body)


def _resize(printer: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, ResizeOp)
    views = [_of_images(scope, value) for value in op.operands]
    x, rows, row_weights, columns, column_weights, out = views
    _, height, stored, channels = x.dims
    _, count, width, _ = out.dims

    def body(cursors: list[Cursor], _count: Expr) -> None:
        source, r, rw, c, cw, target = (pointer for pointer, _ in cursors)
        _fails(
            scope,
            printer,
            f"vpu_resize_u8({source}, {height}, {stored}, {x.strides[1]}, {r}, {rw}, "
            f"{row_weights.dims[2]}, {c}, {cw}, {column_weights.dims[2]}, {target}, "
            f"{out.strides[1]}, {count}, {width}, {channels})",
        )

    each = [
        _each_image(x, 3),
        *(_each_image(view, 2) for view in (rows, row_weights, columns, column_weights)),
        _each_image(out, 3),
    ]
    nest(scope, each, each[0].dims, body)


def _joined(scope: Scope, views: list[View]) -> list[View]:
    """Views of one shape with the last axes made one where all of them lie in one run."""
    while len(views[0].dims) >= 2 and all(
        view.strides[-1] == 1 and view.strides[-2] == view.dims[-1] for view in views
    ):
        views = [
            replace(
                view,
                dims=(*view.dims[:-2], scope.multiply(view.dims[-2], view.dims[-1])),
                strides=(*view.strides[:-2], 1),
            )
            for view in views
        ]
    return views


def _table(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, TableOp)
    table = scope.view(op.table)
    views = [_of_images(scope, value) for value in (op.x, op.init)]
    element = SHORT[name_of(table)]
    by_channel = len(shape_of(op.table)) == 2
    channels = shape_of(op.x)[-1]
    views = _joined(scope, views)

    def body(cursors: list[Cursor], count: Expr) -> None:
        (source, _), (target, _) = cursors
        if by_channel:
            pixels = count // channels if isinstance(count, int) else f"{count} / {channels}"
            call = f"vpu_table_channels_{element}"
            scope.line(f"{call}({table.pointer}, {source}, {target}, {pixels}, {channels});")
        else:
            scope.line(f"vpu_table_{element}({table.pointer}, {source}, {target}, {count});")

    nest(scope, views, views[0].dims, body)


IMAGE_INSTRUCTIONS: dict[type[Operation], Instruction] = {
    ResizeTapsOp: _resize_taps,
    ResizeOp: _resize,
    TableOp: _table,
}
