"""Products: MatMul, Gemm, convolutions and attention, on the SPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
from xdsl.dialects.builtin import f32, i1
from xdsl.ir import SSAValue

from spu_ir.dialects import spu, vpu
from spu_ir.dialects.onnx import OnnxOp
from spu_ir.dialects.spu import integers
from spu_ir.dialects.types import element_of, shape_of
from spu_ir.dialects.vpu import BinaryFn
from spu_ir.transforms.rewriting import constant_of

from .context import Constant, Lowering, Quantised
from .dims import Dim
from .windows import image_size, read_window, to_channels_first, to_channels_last

LowerFn = Callable[[Lowering, OnnxOp], SSAValue]

MASKED = -float("inf")
"""What a masked score gets; a row without any key is 0, as ONNX has it."""


def _weight(ctx: Lowering, constant: Constant, perm: Sequence[int]) -> SSAValue:
    """
    A constant as the weight of a product, its axes permuted so that outputs come first.

    An integer constant stays one, int8 with one scale an output under `vpu.dequantise`, where
    its zero points can be taken off within int8 and its scales do not vary along the sum.
    """
    if not isinstance(constant, Quantised):
        return ctx.constant(np.ascontiguousarray(constant.transpose(perm), np.float32))
    turned = constant.transposed(perm)
    centred = turned.centred()
    small = centred.min(initial=0) >= -128 and centred.max(initial=0) <= 127
    if not small or (turned.scale.ndim and turned.axis != 0):
        return ctx.constant(np.ascontiguousarray(turned.real()))
    scale = np.broadcast_to(turned.scale, centred.shape[:1]).astype(np.float32)
    values = ctx.constant(np.ascontiguousarray(centred.astype(np.int8)))
    return ctx.dequantise(values, ctx.constant(scale), None, 0)


def _scaled(constant: Constant, factor: float) -> Constant:
    by = np.float32(factor)
    if isinstance(constant, Quantised):
        return Quantised(constant.values, constant.scale * by, constant.zero, constant.axis)
    return constant if factor == 1.0 else constant.astype(np.float32) * by


def _require_floats(ctx: Lowering, *values: SSAValue) -> None:
    for value in values:
        if element_of(value) != f32:
            raise ctx.error(f"products of {element_of(value)} have no lowering")


def _rank(constant: Constant) -> int:
    return (constant.values if isinstance(constant, Quantised) else constant).ndim


def _matmul(ctx: Lowering, op: OnnxOp) -> SSAValue:
    a, b = op.operands
    constant = ctx.raw(b)
    if constant is not None and ctx.raw(a) is None:
        x = ctx.tensor(a)
        _require_floats(ctx, x)
        if _rank(constant) == 2:
            return ctx.matmul(x, _weight(ctx, constant, (1, 0)), None)
        if isinstance(constant, np.ndarray) and constant.ndim == 1:
            product = ctx.matmul(x, _weight(ctx, constant[None], (0, 1)), None)
            return ctx.reshape(product, ctx.dims(x)[:-1])
    return _product(ctx, ctx.tensor(a), ctx.tensor(b))


def _product(ctx: Lowering, a: SSAValue, b: SSAValue) -> SSAValue:
    """The product of two activations; those of rank 1 gain an axis which the result loses."""
    _require_floats(ctx, a, b)
    left, right = ctx.dims(a), ctx.dims(b)
    if not left or not right:
        raise ctx.error("a product needs operands of at least one axis")
    if len(left) == 1:
        a = ctx.reshape(a, (1, *left))
    if len(right) == 1:
        b = ctx.reshape(b, (*right, 1))
    source = _transposed(ctx, b)
    result = ctx.batch_matmul(a, source or b, transpose_b=source is not None)
    dims = list(ctx.dims(result))
    if len(right) == 1:
        del dims[-1]
    if len(left) == 1:
        del dims[-1 if len(right) == 1 else -2]
    return ctx.reshape(result, dims)


def _transposed(ctx: Lowering, b: SSAValue) -> SSAValue | None:
    """b with its last two axes swapped, where that spares a transpose."""
    if not isinstance(b.owner, vpu.TransposeOp):
        return None
    perm = list(integers(b.owner.perm))
    # The source's last axis is b's last but one: swapped, rows are copied whole or not at all.
    if len(perm) < 2 or perm[-2] != len(perm) - 1:
        return None
    return ctx.transpose(b.owner.x, [*perm[:-2], perm[-1], perm[-2]])


def _gemm(ctx: Lowering, op: OnnxOp) -> SSAValue:
    a, constant, c = ctx.tensor(op.input(0)), ctx.raw(op.input(1)), op.input(2)
    _require_floats(ctx, a)
    if op.int_value("transA"):
        a = ctx.transpose(a, (1, 0))
    flip = bool(op.int_value("transB"))
    alpha, beta = op.float_value("alpha"), op.float_value("beta")
    if constant is None:
        b = ctx.tensor(op.input(1))
        _require_floats(ctx, b)
        result = ctx.batch_matmul(a, b, transpose_b=flip, alpha=alpha)
        return result if c is None else _add_scaled(ctx, result, c, beta)
    weight = _weight(ctx, _scaled(constant, alpha), (0, 1) if flip else (1, 0))
    bias = _gemm_bias(ctx, c, beta, shape_of(weight)[0])
    result = ctx.matmul(a, weight, bias)
    return result if c is None or bias is not None else _add_scaled(ctx, result, c, beta)


def _gemm_bias(ctx: Lowering, c: SSAValue | None, beta: float, rows: int) -> SSAValue | None:
    """C as the bias of a product, where it is a constant vector or number."""
    array = ctx.known(c)
    if array is None or prod(array.shape[:-1]) != 1:
        return None
    vector = np.broadcast_to(array.reshape(-1), (rows,)) * np.float32(beta)
    return ctx.constant(np.ascontiguousarray(vector, np.float32))


def _add_scaled(ctx: Lowering, x: SSAValue, c: SSAValue, beta: float) -> SSAValue:
    term = ctx.tensor(c)
    if beta != 1.0:
        term = ctx.binary(BinaryFn.MUL, term, ctx.scalar(beta))
    return ctx.binary(BinaryFn.ADD, x, term)


def _constant_kernel(ctx: Lowering, op: OnnxOp) -> Constant:
    """The weight of a convolution, with two spatial axes."""
    constant = ctx.raw(op.input(1))
    if constant is None:
        raise ctx.error("a convolution's weight must be constant")
    if isinstance(constant, Quantised):
        if _rank(constant) == 3:
            values = constant.values[:, :, None]
            return Quantised(values, constant.scale, constant.zero, constant.axis)
        return constant
    return constant[:, :, None] if constant.ndim == 3 else constant


def _pointwise_line(op: OnnxOp, kernel: Constant) -> Constant | None:
    """The matrix of a kernel of one tap over a line, whose convolution is a product of rows."""
    values = kernel.values if isinstance(kernel, Quantised) else kernel
    plain = op.int_value("group") == 1 and not any(op.ints_value("pads") or ())
    one_axis = len(shape_of(op.operands[0])) == 3
    if (
        not one_axis
        or not plain
        or values.shape[2:] != (1, 1)
        or op.ints_value("strides") not in (None, (1,))
    ):
        return None
    if isinstance(kernel, Quantised):
        return Quantised(kernel.values[:, :, 0, 0], kernel.scale, kernel.zero, kernel.axis)
    return kernel[:, :, 0, 0]


def _conv_bias(ctx: Lowering, op: OnnxOp) -> SSAValue | None:
    bias = op.input(2)
    array = ctx.known(bias)
    if array is not None:
        return ctx.constant(np.ascontiguousarray(array, np.float32))
    return None if bias is None else ctx.tensor(bias)


def _conv(ctx: Lowering, op: OnnxOp) -> SSAValue:
    source, constant = ctx.tensor(op.input(0)), _constant_kernel(ctx, op)
    _require_floats(ctx, source)
    rank = len(ctx.dims(source))
    line = _pointwise_line(op, constant)
    if line is not None:
        values = ctx.transpose(source, (0, 2, 1))
        product = ctx.matmul(values, _weight(ctx, line, (0, 1)), _conv_bias(ctx, op))
        return ctx.transpose(product, (0, 2, 1))
    x = to_channels_last(ctx, source)
    weight = _weight(ctx, constant, (0, 2, 3, 1))
    shape = ctx.static_dims(weight, "the kernel")
    window = read_window(ctx, op, shape[3 - (rank - 2) : 3], image_size(ctx, x))
    product = ctx.conv(
        x,
        weight,
        _conv_bias(ctx, op),
        strides=window.strides,
        pads=window.pads,
        dilations=window.dilations,
        groups=op.int_value("group"),
    )
    return to_channels_first(ctx, product, rank)


def _conv_transpose(ctx: Lowering, op: OnnxOp) -> SSAValue:
    """As a convolution with the flipped kernel over the image spread out with zeros."""
    source = ctx.tensor(op.input(0))
    rank = len(ctx.dims(source))
    kernel = ctx.must_know(op.input(1), "a convolution's weight").astype(np.float32)
    if kernel.ndim != rank or rank not in (3, 4):
        raise ctx.error("images must have one or two spatial axes")
    if op.str_value("auto_pad") != "NOTSET" or op.ints_value("output_shape"):
        raise ctx.error("auto_pad and output_shape have no lowering", "give pads instead")
    x = to_channels_last(ctx, source)
    kernel = kernel[:, :, None] if rank == 3 else kernel
    height, width = image_size(ctx, x)
    window = read_window(ctx, op, kernel.shape[4 - (rank - 2) :], (height, width))
    extra = op.ints_value("output_padding") or (0,) * (rank - 2)
    extra = (0, *extra)[-2:]
    dims = ctx.dims(x)
    # stride - 1 zeros follow every row and column, also the last, where the pads make up for it.
    (tall, wide), strides = window.strides, window.strides
    spread = ctx.reshape(x, (dims[0], height, 1, width, 1, dims[3]))
    spread = ctx.pad(spread, (0,) * 6, (dims[0], height, tall, width, wide, dims[3]))
    spread = ctx.reshape(spread, (dims[0], height * tall, width * wide, dims[3]))
    pads = [
        *(window.reach[i] - 1 - window.pads[i] for i in (0, 1)),
        *(window.reach[i] - window.pads[2 + i] + extra[i] - strides[i] for i in (0, 1)),
    ]
    if min(pads) < 0:
        raise ctx.error("pads larger than the kernel's reach have no lowering")
    groups = op.int_value("group")
    inner, outer = kernel.shape[0] // groups, kernel.shape[1]
    split = kernel.reshape(groups, inner, outer, *kernel.shape[2:])
    flipped = split.transpose(0, 2, 3, 4, 1)[:, :, ::-1, ::-1]
    weight = flipped.reshape(groups * outer, *kernel.shape[2:], inner)
    product = ctx.conv(
        spread,
        ctx.constant(np.ascontiguousarray(weight)),
        _conv_bias(ctx, op),
        strides=(1, 1),
        pads=pads,
        dilations=window.dilations,
        groups=groups,
    )
    return to_channels_first(ctx, product, rank)


def _attention(ctx: Lowering, op: OnnxOp) -> SSAValue:
    for index, what in ((4, "past_key"), (5, "past_value"), (6, "nonpad_kv_seqlen")):
        if op.input(index) is not None:
            raise ctx.error(f"its input {what} has no lowering")
    if op.float_value("softcap"):
        raise ctx.error("softcap has no lowering")
    for name in ("left_window_size", "right_window_size"):
        if op.int_value(name) != -1:
            raise ctx.error(f"{name} has no lowering", "give the window as a mask")
    for index, what in ((1, "present_key"), (2, "present_value"), (3, "qk_matmul_output")):
        ctx.unused(op, index, what)
    q, k, v = (ctx.tensor(op.input(i)) for i in range(3))
    _require_floats(ctx, q, k, v)
    rank = len(ctx.dims(q))
    if rank == 4:
        heads, kv_heads = (_number(ctx, ctx.dims(x)[1], "heads") for x in (q, k))
        q, k, v = (_merge_heads(ctx, x) for x in (q, k, v))
    else:
        heads, kv_heads = (_head_count(ctx, op, f"{which}_num_heads") for which in ("q", "kv"))
    (batch, rows, width), (_, keys, _) = ctx.dims(q), ctx.dims(k)
    size = _number(ctx, ctx.dims(v)[2], "values") // kv_heads
    scale = op.value("scale")
    if not isinstance(scale, float):
        scale = 1.0 / (_number(ctx, width, "queries") // heads) ** 0.5
    mask = _mask(ctx, op.input(3), (batch, heads, rows, keys))
    init = ctx.empty((batch, rows, heads * size), f32)
    causal = bool(op.int_value("is_causal"))
    result = ctx.emit(
        spu.AttentionOp(
            q, k, v, mask, init, heads=heads, kv_heads=kv_heads, scale=scale, causal=causal
        )
    )
    if rank == 3:
        return result
    split = ctx.reshape(result, (batch, rows, heads, size))
    return ctx.transpose(split, (0, 2, 1, 3))


def _number(ctx: Lowering, dim: Dim, what: str) -> int:
    if not isinstance(dim, int):
        raise ctx.error(f"the number of {what} must be known at compile time")
    return dim


def _head_count(ctx: Lowering, op: OnnxOp, name: str) -> int:
    value = op.value(name)
    if not isinstance(value, int) or value < 1:
        raise ctx.error(f"{name} must be given for inputs of three axes")
    return value


def _merge_heads(ctx: Lowering, x: SSAValue) -> SSAValue:
    """[B, heads, S, D] as [B, S, heads * D]."""
    batch, heads, rows, size = ctx.dims(x)
    width = _number(ctx, heads, "heads") * _number(ctx, size, "values of a head")
    return ctx.reshape(ctx.transpose(x, (0, 2, 1, 3)), (batch, rows, width))


def _mask(ctx: Lowering, value: SSAValue | None, full: Sequence[Dim]) -> SSAValue | None:
    """
    A mask as four axes of f32 that are added to the scores, with 1 where it is the same for all.

    None where nothing is masked.
    """
    if value is None:
        return None
    grid = ctx.grid(value)
    if grid is not None and grid.uniform is True:
        return None
    mask = ctx.tensor(value)
    dims = ctx.dims(mask)
    for dim, extent in zip(dims, full[4 - len(dims) :], strict=True):
        if dim != 1:
            ctx.same(dim, extent, "the dims of the mask and the scores")
    mask = ctx.unexpanded(mask)
    array = constant_of(mask, ctx.store)
    if array is not None and array.dtype == np.float32 and not array.any():
        return None
    if element_of(mask) == i1:
        mask = ctx.select(mask, ctx.scalar(0.0), ctx.scalar(MASKED))
    dims = ctx.dims(mask)
    return ctx.reshape(mask, (*[1] * (4 - len(dims)), *dims))


LOWERINGS: dict[str, LowerFn] = {
    "Attention": _attention,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
