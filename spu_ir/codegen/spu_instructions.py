"""C of the SPU's products: tiles of products, batched products."""

from __future__ import annotations

import numpy as np
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, StringAttr
from xdsl.ir import Operation, SSAValue

from spu_ir.codegen.instructions import rows_of_weight
from spu_ir.codegen.printer import Instruction, Printer, dtype_name
from spu_ir.codegen.scope import Expr, Scope, View, c_float
from spu_ir.codegen.weights import Placed, Segments, constant_of
from spu_ir.dialects.spu import (
    GROUP_LANES,
    LANE_PAIRS,
    BatchMatmulOp,
    ConvOp,
    EpilogueOp,
    MatmulOp,
    integers,
)
from spu_ir.dialects.types import numpy_dtype, shape_of
from spu_ir.errors import SpuError
from spu_ir.packing.segments import segments_of

_TYPES = {"uint8": "SPU_I8", "bfloat16": "SPU_BF16", "float32": "SPU_F32"}
_FORMATS = {"dense": "SPU_DENSE", "banked": "SPU_BANKED", "banked2": "SPU_BANKED2"}
_SUFFIXES = {"float32": "F32", "bfloat16": "BF16", "uint8": "U8", "int8": "I8"}


def _fixed(value: Expr, what: str) -> int:
    if not isinstance(value, int):
        raise SpuError(f"{what} of a product must be known at compile time", op="codegen")
    return value


def _segments(op: EpilogueOp, x: View) -> tuple[Segments, Expr]:
    """The runs of a row's bytes that meet consecutive weights, and the stride between rows."""
    if not isinstance(op, ConvOp):
        return tuple(segments_of(op)), x.strides[0]
    size = numpy_dtype(x.element).itemsize
    line, pixel = (_fixed(stride, "a stride") for stride in x.strides[1:3])
    segments = segments_of(op, line=line * size, pixel=pixel * size)
    return tuple(segments), pixel * integers(op.strides)[1]


def _declare_weight(printer: Printer, scope: Scope, placed: Placed) -> str:
    """The variable that points to a packed weight; made once, in the program's own function."""
    root = scope.root
    value = ", ".join(
        f".{name} = (const {_FIELD_TYPES[name]} *)(weights + {offset})"
        for name, offset in placed.offsets.items()
    )
    if placed.number not in printer.weight_names:
        struct = root.declare("const spu_weight", "{" + value + "}")
        printer.weight_names[placed.number] = root.declare("const spu_weight *", f"&{struct}")
    return scope.name_of_root(printer.weight_names[placed.number])


_FIELD_TYPES = {
    "index": "uint8_t",
    "value": "uint8_t",
    "offset": "int32_t",
    "begin": "int32_t",
    "correction": "int32_t",
}


def _product(printer: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, EpilogueOp)
    constant, _ = constant_of(op.weight)
    x, out = scope.view(op.x), scope.view(op.init)
    segments, x_stride = _segments(op, x)
    layer = op.attributes.get("layer")
    total = shape_of(constant.result)[0]
    each = group_lanes(op, total)
    placed = printer.placed[op] = printer.weights.packed(
        constant,
        segments,
        op.x_zero.value.data,
        total // each,
        layer.data if isinstance(layer, StringAttr) else "",
        depthwise=isinstance(op, ConvOp) and op.depthwise,
    )
    kernel = _kernel(printer, op, placed)
    weight, group = weight_lanes(printer, scope, op)
    rows_axis = 0 if isinstance(op, MatmulOp) else 2
    fields = {
        "w": weight,
        "group": group,
        "rows": f"(int32_t){out.dims[rows_axis]}",
        "lanes": f"(int32_t){out.dims[-1]}",
        "x": x.pointer,
        "x_stride": scope.multiply(x_stride, numpy_dtype(x.element).itemsize),
        "out": out.pointer,
        "out_stride": _byte_stride(scope, out, rows_axis),
    }
    for name in ("scale", "bias", "row_scale"):
        value: SSAValue | None = getattr(op, name)
        if value is not None:
            fields[name] = scope.view(value).pointer
    if op.residual is not None:
        residual = scope.view(op.residual)
        fields["residual"] = residual.pointer
        fields["residual_stride"] = _byte_stride(scope, residual, rows_axis)
    if op.residual_scale is not None and op.residual_zero is not None:
        fields["residual_scale"] = number_of(scope, op.residual_scale)
        fields["residual_zero"] = _integer(scope, op.residual_zero)
    if op.out_scale is not None and op.out_zero is not None:
        scale = 1.0 if op.prescaled is not None else op.out_scale.value.data
        inverse = np.float32(1.0) / np.float32(scale)
        fields["out_inv_scale"] = _literal(scope, float(inverse))
        fields["out_zero"] = _integer(scope, op.out_zero)
    assignments = ", ".join(f".{name} = {value}" for name, value in fields.items())
    scope.line(f"{kernel}(&(const spu_tile){{{assignments}}});")


def _literal(scope: Scope, value: float) -> str:
    """A number as a variable of the program's own function, so that equal kernels stay equal."""
    if scope.parent is None:
        return c_float(value)
    return scope.name_of_root(scope.root.declare("const float", c_float(value)))


def number_of(scope: Scope, attr: FloatAttr) -> str:
    """A float as C: named in the program's own function, so that equal kernels stay equal."""
    return _literal(scope, float(np.float32(attr.value.data)))


def _integer(scope: Scope, attr: IntegerAttr) -> str:
    value = attr.value.data
    if scope.parent is None:
        return str(value)
    return scope.name_of_root(scope.root.declare("const int32_t", str(value)))


def _byte_stride(scope: Scope, view: View, axis: int) -> Expr:
    return scope.multiply(view.strides[axis], numpy_dtype(view.element).itemsize)


def group_lanes(op: EpilogueOp, total: int) -> int:
    """The output channels of one convolution group of the whole weight, which has `total`."""
    found = op.attributes.get(GROUP_LANES)
    return found.value.data if isinstance(found, IntegerAttr) else total


def lane_group(row: int, each: int, lane_groups: int) -> int:
    """The lane group of a row; convolution groups have `each` rows in `lane_groups`."""
    return row // each * lane_groups + row % each // 16


def weight_lanes(printer: Printer, scope: Scope, op: EpilogueOp) -> tuple[str, str]:
    """The variable of a product's packed weight, and the lane group where its lanes begin."""
    row, total = rows_of_weight(op)
    placed = printer.placed[op]
    lane_groups = placed.packed.lane_groups
    each = group_lanes(op, total)
    weight = _declare_weight(printer, scope, placed)
    if isinstance(row, int):
        return weight, str(lane_group(row, each, lane_groups))
    first = scope.index(row)
    if isinstance(first, int):
        return weight, str(lane_group(first, each, lane_groups))
    if each == total:
        return weight, f"(int32_t)({first} / 16)"
    return weight, f"(int32_t)({first} / {each} * {lane_groups} + {first} % {each} / 16)"


def _kernel(printer: Printer, op: EpilogueOp, placed: Placed) -> str:
    """The name of the specialised kernel for an op: equal ones are one function."""
    packed = placed.packed
    layout, share = _FORMATS.get(packed.format, ""), packed.share
    if LANE_PAIRS in op.attributes:
        assert packed.paired
        layout, share = "SPU_PAIRED", 2
    if packed.format == "dense" and shape_of(op.init)[-1] not in range(1, 17):
        share = 2  # a dense tile takes two lane groups at a time
    bits = [
        name
        for name, value in (
            ("SPU_SCALE", op.scale),
            ("SPU_ROW_SCALE", op.row_scale),
            ("SPU_BIAS", op.bias),
            ("SPU_OUT_SCALE", op.out_scale if op.prescaled is None else None),
            ("SPU_OUT_ZERO", op.out_zero if op.out_zero and op.out_zero.value.data else None),
        )
        if value is not None
    ]
    residual = "NONE" if op.residual is None else _SUFFIXES[dtype_name(op.residual)]
    if packed.format == "depthwise":
        call = f"spu_depthwise_run(tile, {_TYPES[dtype_name(op.x)]},"
    else:
        call = f"spu_tile_run(tile, {_TYPES[dtype_name(op.x)]}, {layout}, {share},"
    text = (
        "static __attribute__((noinline)) void @(const spu_tile *tile) {\n"
        f"  {call}\n"
        f"               {' | '.join(bits) or '0'}, SPU_RES_{residual},\n"
        f"               SPU_ACT_{op.activation.data.upper()}, "
        f"SPU_OUT_{_SUFFIXES[dtype_name(op.init)]});\n"
        "}"
    )
    return printer.kernels.name("kernel", text)


def _batch_matmul(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, BatchMatmulOp)
    a, b, out = (scope.view(value) for value in (op.a, op.b, op.init))
    rank = len(out.dims)
    counters: list[str] = []
    for axis in range(rank - 2):
        counters.append(scope.counter())
        counter = counters[-1]
        scope.open(f"for (int64_t {counter} = 0; {counter} < {out.dims[axis]}; {counter}++)")

    def at(view: View) -> str:
        text = view.pointer
        first = rank - len(view.dims)
        for axis, counter in enumerate(counters):
            if axis >= first and view.dims[axis - first] != 1:
                text += f" + {counter} * {view.strides[axis - first]}"
        return text

    rows, columns = b.strides[-2:]
    if op.transposed:
        rows, columns = columns, rows
    scope.line(
        f"spu_batch_matmul_f32({at(a)}, {a.strides[-2]}, {a.strides[-1]}, {at(b)}, {rows}, "
        f"{columns}, {at(out)}, {out.strides[-2]}, {out.dims[-2]}, {out.dims[-1]}, "
        f"{a.dims[-1]}, {number_of(scope, op.alpha)});"
    )
    for _counter in counters:
        scope.close()


SPU_INSTRUCTIONS: dict[type[Operation], Instruction] = {
    MatmulOp: _product,
    ConvOp: _product,
    BatchMatmulOp: _batch_matmul,
}
