"""
Interpreter of `spu`: products and convolutions with their epilogues, attention.

A convolution is the product of its patches, `[pixels, KH * KW * C]`, with the weight's rows.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import as_strided
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls

from spu_ir.dialects.spu import (
    Activation,
    AttentionOp,
    BatchMatmulOp,
    ConvOp,
    EpilogueOp,
    MatmulOp,
    encoding_of,
    integers,
)
from spu_ir.dialects.types import Array, bfloat16, element_of, numpy_dtype

from . import numerics, numerics_attention, numerics_depthwise, numerics_spu
from .destination import deliver


def patches(x: Array, kernel: tuple[int, int], op: ConvOp) -> Array:
    """The windows of a padded `x [N, H, W, C]`: a view `[N, OH, OW, KH, KW, C]`."""
    (kh, kw), strides, dilations = kernel, integers(op.strides), integers(op.dilations)
    out = [(x.shape[1 + a] - dilations[a] * (kernel[a] - 1) - 1) // strides[a] + 1 for a in (0, 1)]
    n, h, w, c = x.strides
    return as_strided(
        x,
        (x.shape[0], *out, kh, kw, x.shape[3]),
        (n, h * strides[0], w * strides[1], h * dilations[0], w * dilations[1], c),
        writeable=False,
    )


@register_impls
class SpuFunctions(InterpreterFunctions):
    """`exact_f32` sums products of f32 in the contract's order instead of by BLAS."""

    def __init__(self, *, exact_f32: bool):
        self.exact_f32 = exact_f32

    def product(self, op: EpilogueOp, x: Array, weight: Array) -> Array:
        """The accumulators `[M, N]` of `x [M, K]` and `weight [N, K]`."""
        if x.dtype == np.uint8:
            return numerics_spu.matmul_i8(x, weight, op.x_zero.value.data)
        if x.dtype == bfloat16:
            found = encoding_of(op.weight)
            encoding = found and (found.bank.data, found.slots.data, found.share.data)
            return numerics_spu.matmul_bf16(f32_of(x), f32_of(weight), op.segments, encoding)
        if self.exact_f32:
            return numerics_spu.matmul_f32(x, weight)
        with np.errstate(all="ignore"):
            return x @ weight.T

    def finish(self, op: EpilogueOp, args: PythonValues, acc: Array) -> PythonValues:
        """The epilogue, on accumulators `[M, N]` of the init's elements."""
        given = iter(args[2:-1])
        init = args[-1]
        scale = next(given) if op.scale is not None else None
        row_scale = next(given).reshape(-1) if op.row_scale is not None else None
        bias = next(given) if op.bias is not None else None
        added = residual(op, next(given)).reshape(acc.shape) if op.residual is not None else None
        activation = op.activation.data
        v = numerics_spu.epilogue(
            acc,
            scale=scale,
            row_scale=row_scale,
            bias=bias,
            residual=added,
            activation=None if activation is Activation.NONE else activation,
        )
        dtype = numpy_dtype(element_of(op.init))
        own_steps = op.out_scale if op.prescaled is None else None
        scale = 1.0 if own_steps is None else own_steps.value.data
        zero = op.out_zero.value.data if op.out_zero is not None else 0
        result = numerics_spu.store(v, dtype.name, scale, zero)
        return deliver(op, args, result.view(dtype).reshape(init.shape))

    @impl(MatmulOp)
    def run_matmul(self, _: Interpreter, op: MatmulOp, args: PythonValues) -> PythonValues:
        x, weight = args[:2]
        return self.finish(op, args, self.product(op, x.reshape(-1, x.shape[-1]), weight))

    @impl(ConvOp)
    def run_conv(self, _: Interpreter, op: ConvOp, args: PythonValues) -> PythonValues:
        x, weight = args[:2]
        outputs, kh, kw, depth = weight.shape
        top, left, bottom, right = integers(op.pads)
        if any((top, left, bottom, right)):
            border = ((0, 0), (top, bottom), (left, right), (0, 0))
            x = np.pad(x, border, constant_values=op.x_zero.value.data)
        windows = patches(x, (kh, kw), op)
        if op.depthwise:
            taps = windows.reshape(-1, kh * kw, outputs)
            return self.finish(op, args, depthwise(op, taps, weight.reshape(outputs, kh * kw)))
        rows = weight.reshape(outputs, kh * kw * depth)
        groups = op.groups.value.data
        size = outputs // groups
        acc = [
            self.product(
                op,
                windows[..., g * depth : (g + 1) * depth].reshape(-1, kh * kw * depth),
                rows[g * size : (g + 1) * size],
            )
            for g in range(groups)
        ]
        return self.finish(op, args, np.concatenate(acc, axis=1))

    @impl(BatchMatmulOp)
    def run_batch_matmul(
        self, _: Interpreter, op: BatchMatmulOp, args: PythonValues
    ) -> PythonValues:
        a, b, _init = args
        b = np.swapaxes(b, -1, -2) if op.transposed else b
        alpha = op.alpha.value.data
        if self.exact_f32:
            return deliver(op, args, numerics_attention.batch_matmul(a, b, alpha))
        with np.errstate(all="ignore"):
            return deliver(op, args, (a @ b) * np.float32(alpha))

    @impl(AttentionOp)
    def run_attention(self, _: Interpreter, op: AttentionOp, args: PythonValues) -> PythonValues:
        q, k, v, *given, init = args
        mask = given[0] if op.mask is not None else None
        if op.offsets is None:
            return deliver(op, args, attention(op, q, k, v, mask))
        out = np.empty(init.shape, np.float32)
        offsets = [int(offset) for offset in given[-1]]
        for b, (start, end) in enumerate(pairwise(offsets)):
            rows = slice(start, end) if op.packed else b
            keys = slice(start, end) if op.packed else (b, slice(0, end - start))
            part = q[rows][None]
            own = None if mask is None else sample_of(mask, b, part.shape[1], end - start)
            out[rows] = attention(op, part, k[keys][None], v[keys][None], own)[0]
        return deliver(op, args, out)


def depthwise(op: ConvOp, x: Array, weight: Array) -> Array:
    """The accumulators `[M, C]` of a depthwise convolution: taps `[M, K, C]`, weight `[C, K]`."""
    if x.dtype == np.uint8:
        return numerics_depthwise.depthwise_i8(x, weight, op.x_zero.value.data)
    if x.dtype == bfloat16:
        return numerics_depthwise.depthwise_bf16(f32_of(x), f32_of(weight))
    return numerics_depthwise.depthwise_f32(x, weight)


def attention(op: AttentionOp, q: Array, k: Array, v: Array, mask: Array | None) -> Array:
    """`[B, S, heads * DV]` of q `[B, S, heads * D]`, k and v."""
    heads, kv_heads = op.heads.value.data, op.kv_heads.value.data
    repeat = heads // kv_heads
    out = numerics_attention.attention(
        split_heads(q, heads),
        np.repeat(split_heads(k, kv_heads), repeat, axis=1),
        np.repeat(split_heads(v, kv_heads), repeat, axis=1),
        mask,
        scale=op.scale.value.data,
        causal_first=0 if op.causal.value.data else None,
    )
    return np.swapaxes(out, 1, 2).reshape(*q.shape[:2], heads * out.shape[-1])


def sample_of(mask: Array, b: int, rows: int, keys: int) -> Array:
    """What a mask `[B or 1, heads or 1, S or 1, T or 1]` says of a sample's rows and keys."""
    b = b if mask.shape[0] > 1 else 0
    return mask[b : b + 1, :, : max(rows, 1) if mask.shape[2] > 1 else 1, :keys]


def split_heads(x: Array, heads: int) -> Array:
    """`[B, S, heads * D]` as `[B, heads, S, D]`."""
    return np.swapaxes(x.reshape(*x.shape[:2], heads, x.shape[2] // heads), 1, 2)


def f32_of(x: Array) -> Array:
    """bfloat16 values as f32; f32 as they are."""
    return numerics.from_bf16(x.view(np.uint16)) if x.dtype == bfloat16 else x


def residual(op: EpilogueOp, value: Array) -> Array:
    """What an epilogue adds, as f32."""
    if op.residual_scale is not None and op.residual_zero is not None:
        scale = np.float32(op.residual_scale.value.data)
        return numerics.dequantise(value, scale, op.residual_zero.value.data)
    return f32_of(value)
