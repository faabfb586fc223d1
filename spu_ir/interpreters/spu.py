"""
Interpreter of `spu`: products and convolutions with their epilogues, attention.

A convolution is the product of its patches, `[pixels, KH * KW * C]`, with the weight's rows. An
int8 product is exact in float arithmetic as long as every partial sum is a whole number that the
format holds, whatever the order, so BLAS computes it.
"""

from __future__ import annotations

from typing import Any

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

from . import numerics, numerics_attention
from .destination import deliver


def patches(x: Array, kernel: tuple[int, int], op: ConvOp) -> Array:
    """The windows of a padded `x [N, H, W, C]`: a view `[N, OH, OW, KH, KW, C]`."""
    (kh, kw), strides, dilations = kernel, integers(op.strides), integers(op.dilations)
    out = [
        (x.shape[1 + a] - dilations[a] * (kernel[a] - 1) - 1) // strides[a] + 1 for a in (0, 1)
    ]
    n, h, w, c = x.strides
    return as_strided(
        x,
        (x.shape[0], *out, kh, kw, x.shape[3]),
        (n, h * strides[0], w * strides[1], h * dilations[0], w * dilations[1], c),
        writeable=False,
    )


def int8_product(x: Array, weight: Array, zero: int) -> Array:
    """Exact sums over k of `(x[m, k] - zero) * weight[n, k]`, as f32 or f64 whole numbers."""
    most = 255 * np.abs(weight.astype(np.int32)).sum(axis=1).max(initial=0)
    dtype = np.float32 if most < 2**24 else np.float64
    return (x.astype(dtype) - dtype(zero)) @ weight.astype(dtype).T


def f32_product(x: Array, weight: Array) -> Array:
    """Sums over k in order of `x[m, k] * weight[n, k]`, multiplied and then added."""
    acc = np.zeros((x.shape[0], weight.shape[0]), np.float32)
    with np.errstate(all="ignore"):
        for k in range(x.shape[1]):
            acc += x[:, k, None] * weight[None, :, k]
    return acc


@register_impls
class SpuFunctions(InterpreterFunctions):
    """`exact_f32` sums products of f32 in the contract's order instead of by BLAS."""

    def __init__(self, *, exact_f32: bool):
        self.exact_f32 = exact_f32

    def product(self, op: EpilogueOp, x: Array, weight: Array) -> Array:
        """The accumulators `[M, N]` of `x [M, K]` and `weight [N, K]`."""
        if x.dtype == np.uint8:
            return int8_product(x, weight, op.x_zero.value.data)
        if self.exact_f32:
            return f32_product(x, weight)
        return x @ weight.T

    def finish(self, op: EpilogueOp, args: PythonValues, acc: Array) -> PythonValues:
        """The epilogue, on accumulators of the init's shape."""
        given = iter(args[2:-1])
        with np.errstate(all="ignore"):
            v = acc.astype(np.float32)
            if op.scale is not None:
                v = v * next(given)
            if op.row_scale is not None:
                v = v * next(given)[..., None]
            if op.bias is not None:
                v = v + next(given)
            if op.residual is not None:
                v = v + residual(op, next(given))
            if op.activation.data is not Activation.NONE:
                v = numerics.ACTIVATIONS[op.activation.data](v)
        return deliver(op, args, stored(op, v))

    @impl(MatmulOp)
    def run_matmul(self, _: Interpreter, op: MatmulOp, args: PythonValues) -> PythonValues:
        x, weight = args[:2]
        acc = self.product(op, x.reshape(-1, x.shape[-1]), weight)
        return self.finish(op, args, acc.reshape(*x.shape[:-1], weight.shape[0]))

    @impl(ConvOp)
    def run_conv(self, _: Interpreter, op: ConvOp, args: PythonValues) -> PythonValues:
        x, weight = args[:2]
        outputs, kh, kw, depth = weight.shape
        top, left, bottom, right = integers(op.pads)
        if any((top, left, bottom, right)):
            border = ((0, 0), (top, bottom), (left, right), (0, 0))
            x = np.pad(x, border, constant_values=op.x_zero.value.data)
        windows = patches(x, (kh, kw), op)
        rows = weight.reshape(outputs, kh * kw * depth)
        groups = op.groups.value.data
        size = outputs // groups
        shape = windows.shape[:3]
        acc = [
            self.product(
                op,
                windows[..., g * depth : (g + 1) * depth].reshape(-1, kh * kw * depth),
                rows[g * size : (g + 1) * size],
            )
            for g in range(groups)
        ]
        return self.finish(op, args, np.concatenate(acc, axis=1).reshape(*shape, outputs))

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
        q, k, v = args[:3]
        mask = args[3] if op.mask is not None else None
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
        return deliver(op, args, np.swapaxes(out, 1, 2).reshape(*q.shape[:2], -1))


def split_heads(x: Array, heads: int) -> Array:
    """`[B, S, heads * D]` as `[B, heads, S, D]`."""
    return np.swapaxes(x.reshape(*x.shape[:2], heads, -1), 1, 2)


def residual(op: EpilogueOp, value: Array) -> Array:
    """What an epilogue adds, as f32."""
    if op.residual_scale is not None and op.residual_zero is not None:
        scale = np.float32(op.residual_scale.value.data)
        return numerics.dequantise(value, scale, op.residual_zero.value.data)
    return numerics.from_bf16(value.view(np.uint16)) if value.dtype == bfloat16 else value


def stored(op: EpilogueOp, v: Array) -> Array:
    """`v` in the element type of the init."""
    if op.out_scale is not None and op.out_zero is not None:
        inverse = np.float32(1.0) / np.float32(op.out_scale.value.data)
        dtype = numpy_dtype(element_of(op.init)).name
        return numerics.quantise(v, inverse, op.out_zero.value.data, dtype)
    if numpy_dtype(element_of(op.init)) == bfloat16:
        return numerics.to_bf16(v).view(bfloat16)
    return v
