"""Interpreter of `vpu`: data movement is numpy's, arithmetic that of the numerics contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from xdsl.dialects.builtin import StringAttr
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls
from xdsl.utils.exceptions import InterpretationError

from spu_ir.dialects.spu import integers
from spu_ir.dialects.types import Array, bfloat16, element_of, numpy_dtype
from spu_ir.dialects.vpu import (
    BinaryFn,
    BinaryOp,
    CastOp,
    ConcatOp,
    CumsumOp,
    DequantiseOp,
    ExpandOp,
    GatherOp,
    LayerNormOp,
    LayerNormRowsOp,
    PackRowsOp,
    PadOp,
    PoolFn,
    PoolOp,
    QuantiseOp,
    QuantiseProductOp,
    QuantiseRowsOp,
    ReduceOp,
    ReshapeOp,
    ResizeOp,
    ResizeTapsOp,
    RowOffsetsOp,
    ScaledOp,
    SelectOp,
    SliceOp,
    SoftmaxOp,
    TableOp,
    TransposeOp,
    UnaryOp,
    UnpackRowsOp,
)
from spu_ir.errors import SpuError

from . import numerics, numerics_image, numerics_pool, numerics_rows
from . import numerics_vpu as vpu
from .destination import deliver


def cast(x: Array, dtype: np.dtype[Any]) -> Array:
    """
    `x` in another element type: float to integer truncates and saturates, to bf16 rounds to
    nearest even, integer to integer wraps, to bool is `x != 0`.
    """
    if x.dtype == dtype:
        return x
    if x.dtype == bfloat16:
        x = numerics.from_bf16(x.view(np.uint16))
    if dtype == np.bool_:
        return x != 0
    if dtype == bfloat16:
        return numerics.to_bf16(x.astype(np.float32)).view(bfloat16)
    if x.dtype == np.float32 and dtype != np.float32:
        return vpu.truncate(x, dtype)
    return x.astype(dtype)


def scale_and_zero(op: ScaledOp, args: PythonValues) -> tuple[Array, Array]:
    """The scale and zero point of an op, in shapes that broadcast to x."""
    x: Array = args[0]
    scale: Array = args[1]
    zero: Array = args[2] if op.zero is not None else np.zeros(scale.shape, np.int32)
    axis = op.axis.value.data
    if axis >= 0:
        shape = [1] * x.ndim
        shape[axis] = -1
        return scale.reshape(shape), zero.reshape(shape)
    return (scale, zero) if scale.ndim == 0 else (scale[..., None], zero[..., None])


def sliced(x: Array, counts: Sequence[int], starts: Sequence[int], steps: Sequence[int]) -> Array:
    """`counts` elements of every axis from `starts` in `steps`. Raises InterpretationError."""
    parts: list[slice] = []
    for extent, count, start, step in zip(x.shape, counts, starts, steps, strict=True):
        stop = start + count * step
        last = stop - step
        if count and not (0 <= start < extent and 0 <= last < extent):
            raise InterpretationError(f"positions {start} to {last} are not within {extent}")
        parts.append(slice(start, stop if stop >= 0 else None, step) if count else slice(0))
    return x[tuple(parts)]


@register_impls
class VpuFunctions(InterpreterFunctions):
    """Both forms of every op: on tensors and on memrefs."""

    @impl(UnaryOp)
    def run_unary(self, _: Interpreter, op: UnaryOp, args: PythonValues) -> PythonValues:
        x, fn = args[0], op.fn.data
        if x.dtype == np.bool_:
            return deliver(op, args, np.logical_not(x))
        if x.dtype == np.float32:
            return deliver(op, args, vpu.UNARY[fn](x))
        wide: Array = vpu.INTEGER_UNARY[fn](x.astype(np.int64))
        return deliver(op, args, wide.astype(x.dtype))

    @impl(BinaryOp)
    def run_binary(self, _: Interpreter, op: BinaryOp, args: PythonValues) -> PythonValues:
        a, b, _init = args
        fn = op.fn.data
        if fn.compares:
            return deliver(op, args, vpu.COMPARE[fn](a, b))
        if a.dtype == np.float32:
            return deliver(op, args, vpu.BINARY[fn](a, b))
        wide: Array = vpu.INTEGER_BINARY[fn](a.astype(np.int64), b.astype(np.int64))
        return deliver(op, args, wide.astype(a.dtype))

    @impl(SelectOp)
    def run_select(self, _: Interpreter, op: SelectOp, args: PythonValues) -> PythonValues:
        condition: Array = args[0]
        a: Array = args[1]
        b: Array = args[2]
        return deliver(op, args, np.where(condition, a, b))

    @impl(CastOp)
    def run_cast(self, _: Interpreter, op: CastOp, args: PythonValues) -> PythonValues:
        return deliver(op, args, cast(args[0], numpy_dtype(element_of(op.init))))

    @impl(ExpandOp)
    def run_expand(self, _: Interpreter, op: ExpandOp, args: PythonValues) -> PythonValues:
        return deliver(op, args, args[0])

    @impl(ReshapeOp)
    def run_reshape(self, _: Interpreter, op: ReshapeOp, args: PythonValues) -> PythonValues:
        return deliver(op, args, args[0].reshape(args[1].shape))

    @impl(TransposeOp)
    def run_transpose(self, _: Interpreter, op: TransposeOp, args: PythonValues) -> PythonValues:
        return deliver(op, args, args[0].transpose(integers(op.perm)))

    @impl(SliceOp)
    def run_slice(self, _: Interpreter, op: SliceOp, args: PythonValues) -> PythonValues:
        x, init = args
        part = sliced(x, init.shape, integers(op.starts), integers(op.steps))
        return deliver(op, args, part)

    @impl(PadOp)
    def run_pad(self, _: Interpreter, op: PadOp, args: PythonValues) -> PythonValues:
        x, init = args
        result = np.full(init.shape, op.value.value.data, x.dtype)
        low = integers(op.low)
        result[tuple([slice(p, p + n) for p, n in zip(low, x.shape, strict=True)])] = x
        return deliver(op, args, result)

    @impl(ConcatOp)
    def run_concat(self, _: Interpreter, op: ConcatOp, args: PythonValues) -> PythonValues:
        return deliver(op, args, np.concatenate(args[:-1], op.axis.value.data))

    @impl(GatherOp)
    def run_gather(self, _: Interpreter, op: GatherOp, args: PythonValues) -> PythonValues:
        x, indices, _init = args
        axis = op.axis.value.data
        extent = x.shape[axis]
        outside = (indices < -extent) | (indices >= extent)
        if outside.any():
            layer = op.attributes.get("layer")
            raise SpuError(
                f"index {int(indices[outside][0])} is outside the extent {extent} of axis {axis}",
                node=layer.data if isinstance(layer, StringAttr) else None,
                op=op.name,
            )
        return deliver(op, args, np.take(x, indices, axis))

    @impl(RowOffsetsOp)
    def run_row_offsets(self, _: Interpreter, op: RowOffsetsOp, args: PythonValues) -> PythonValues:
        return deliver(op, args, numerics_rows.row_offsets(args[0]))

    @impl(PackRowsOp)
    def run_pack_rows(self, _: Interpreter, op: PackRowsOp, args: PythonValues) -> PythonValues:
        x, offsets, init = args
        return deliver(op, args, numerics_rows.pack_rows(x, offsets, len(init)))

    @impl(UnpackRowsOp)
    def run_unpack_rows(self, _: Interpreter, op: UnpackRowsOp, args: PythonValues) -> PythonValues:
        x, offsets, init = args
        fill = numerics_rows.lowest(x.dtype) if op.lowest is not None else 0
        return deliver(op, args, numerics_rows.unpack_rows(x, offsets, init.shape[1], fill))

    @impl(ReduceOp)
    def run_reduce(self, _: Interpreter, op: ReduceOp, args: PythonValues) -> PythonValues:
        x, init = args
        result = vpu.reduce(x, op.fn.data, integers(op.axes))
        return deliver(op, args, result.reshape(init.shape))

    @impl(SoftmaxOp)
    def run_softmax(self, _: Interpreter, op: SoftmaxOp, args: PythonValues) -> PythonValues:
        fn = vpu.log_softmax if op.log.value.data else vpu.softmax
        return deliver(op, args, fn(args[0]))

    @impl(CumsumOp)
    def run_cumsum(self, _: Interpreter, op: CumsumOp, args: PythonValues) -> PythonValues:
        exclusive, reverse = bool(op.exclusive.value.data), bool(op.reverse.value.data)
        return deliver(op, args, vpu.cumsum(args[0], exclusive=exclusive, reverse=reverse))

    @impl(LayerNormOp)
    def run_layer_norm(self, _: Interpreter, op: LayerNormOp, args: PythonValues) -> PythonValues:
        x, gamma = args[:2]
        epsilon = op.epsilon.value.data
        if not op.centre.value.data:
            return deliver(op, args, vpu.rms_norm(x, gamma, epsilon))
        beta = args[2] if op.beta is not None else None
        return deliver(op, args, vpu.layer_norm(x, gamma, beta, epsilon))

    @impl(LayerNormRowsOp)
    def run_layer_norm_rows(
        self, _: Interpreter, op: LayerNormRowsOp, args: PythonValues
    ) -> PythonValues:
        x, gamma, beta = args[:3]
        rows = vpu.layer_norm(x, gamma, beta, op.epsilon.value.data)
        return deliver(op, args, *vpu.quantise_rows(rows))

    @impl(PoolOp)
    def run_pool(self, _: Interpreter, op: PoolOp, args: PythonValues) -> PythonValues:
        x, init = args
        fn, out = op.fn.data, init.shape[1:3]
        kernel, strides = integers(op.kernel), integers(op.strides)
        pads, dilations = integers(op.pads), integers(op.dilations)
        if fn is PoolFn.MAX:
            result = numerics_pool.max_pool(x, out, kernel, strides, pads, dilations)
        else:
            padded = fn is PoolFn.AVG_PADDED
            result = numerics_pool.average_pool(
                x, out, kernel, strides, pads, dilations, include_pad=padded
            )
        return deliver(op, args, result)

    @impl(QuantiseOp)
    def run_quantise(self, _: Interpreter, op: QuantiseOp, args: PythonValues) -> PythonValues:
        scale, zero = scale_and_zero(op, args)
        dtype = numpy_dtype(element_of(op.init)).name
        return deliver(op, args, vpu.quantise_by(args[0], scale, zero, dtype))

    @impl(QuantiseProductOp)
    def run_quantise_product(
        self, _: Interpreter, op: QuantiseProductOp, args: PythonValues
    ) -> PythonValues:
        x, factor, scale, zero = args[:4]
        dtype = numpy_dtype(element_of(op.init)).name
        product = vpu.BINARY[BinaryFn.MUL](x, factor)
        return deliver(op, args, vpu.quantise_by(product, scale, zero, dtype))

    @impl(DequantiseOp)
    def run_dequantise(self, _: Interpreter, op: DequantiseOp, args: PythonValues) -> PythonValues:
        scale, zero = scale_and_zero(op, args)
        return deliver(op, args, vpu.dequantise_by(args[0], scale, zero))

    @impl(QuantiseRowsOp)
    def run_quantise_rows(
        self, _: Interpreter, op: QuantiseRowsOp, args: PythonValues
    ) -> PythonValues:
        columns = None if op.columns is None else args[1]
        return deliver(op, args, *vpu.quantise_rows(args[0], op.zero.value.data, columns))

    @impl(TableOp)
    def run_table(self, _: Interpreter, op: TableOp, args: PythonValues) -> PythonValues:
        x, entries, _init = args
        return deliver(op, args, vpu.table(entries, x))

    @impl(ResizeTapsOp)
    def run_resize_taps(self, _: Interpreter, op: ResizeTapsOp, args: PythonValues) -> PythonValues:
        geometry, _taps, init = args
        _, count, most = init.shape
        taps, weights = numerics_image.resize_taps(
            geometry[:, op.axis.value.data],
            count,
            most,
            op.filter.data,
            antialias=bool(op.antialias.value.data),
        )
        return deliver(op, args, taps, weights)

    @impl(ResizeOp)
    def run_resize(self, _: Interpreter, op: ResizeOp, args: PythonValues) -> PythonValues:
        x, rows, row_weights, columns, column_weights, _init = args
        result = numerics_image.resize(x, (rows, row_weights), (columns, column_weights))
        return deliver(op, args, result)
