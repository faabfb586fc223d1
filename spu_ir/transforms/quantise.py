"""Give f32 products of constant weights their QDQ form, which `fold-qdq` turns into integers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import func, tensor
from xdsl.dialects.builtin import ModuleOp, StringAttr, TensorType, f32
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from spu_ir.dialects.spu import ConvOp, EpilogueOp
from spu_ir.dialects.types import Array, element_of, shape_of, ui8
from spu_ir.dialects.vpu import (
    ConcatOp,
    DequantiseOp,
    ExpandOp,
    PoolFn,
    PoolOp,
    QuantiseOp,
    QuantiseRowsOp,
    ReshapeOp,
    TransposeOp,
)
from spu_ir.dialects.weights import WeightStore, store_of
from spu_ir.errors import SpuError
from spu_ir.transforms.calibrate import range_of
from spu_ir.transforms.rewriting import (
    after,
    array_of,
    constant_op,
    dims_of,
    empty_of,
    is_constant,
    is_kept_bf16,
    layer_of,
)
from spu_ir.transforms.row_zeros import row_zero, scaled_columns
from spu_ir.transforms.weight_scales import row_scales

MODES = ("auto", "dynamic", "static")
CALIBRATE = "pass calibration=[feeds...], or run calibrate{feeds=...} before quantise"


def quantised_weight(weight: Array) -> tuple[Array, Array]:
    """
    i8 values and f32 scales [N] of an f32 weight of N rows: symmetric, the scales `row_scales`.

    A row of zeros has scale 1. Zeros stay zeros.
    """
    rows = weight.reshape(len(weight), -1)
    scale = row_scales(rows)
    values = np.clip(np.rint(rows / scale[:, None]), -127, 127).astype(np.int8)
    return values.reshape(weight.shape), scale


def affine(low: float, high: float) -> tuple[Array, Array]:
    """f32 scale and u8 zero point (no axes) of the 256 values that cover [low, high] and 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / 255)
    if not scale > 0:
        return np.array(1, np.float32), np.array(0, np.uint8)
    zero = np.clip(np.rint(-low / float(scale)), 0, 255)
    return np.array(scale, np.float32), np.array(zero, np.uint8)


def shared_grids(values: Iterable[SSAValue]) -> dict[SSAValue, tuple[float, float]]:
    """
    The range of every value of which one is known; values that only moved share theirs.

    Max-pooling, reshaping, transposing and concatenating then run on bytes.
    """
    ranges = {value: found for value in values if (found := range_of(value)) is not None}
    leader = {value: value for value in ranges}

    def find(value: SSAValue) -> SSAValue:
        while leader[value] is not value:
            value = leader[value]
        return value

    for value in ranges:
        op = value.owner
        moved = isinstance(op, ReshapeOp | TransposeOp | ConcatOp)
        if moved or (isinstance(op, PoolOp) and op.fn.data is PoolFn.MAX):
            for source in op.inputs:
                if source in leader:
                    leader[find(source)] = find(value)
    lows: dict[SSAValue, float] = {}
    highs: dict[SSAValue, float] = {}
    for value, (low, high) in ranges.items():
        root = find(value)
        lows[root] = min(low, lows.get(root, low))
        highs[root] = max(high, highs.get(root, high))
    return {value: (lows[find(value)], highs[find(value)]) for value in ranges}


@dataclass
class Quantiser:
    """Inserts quantise and dequantise ops; what several products use is quantised once."""

    store: WeightStore
    rows: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])
    weights: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])

    def quantise_weight(self, op: EpilogueOp) -> None:
        """The weight of `op` as i8 with a scale for each row."""
        source = op.weight
        if source not in self.weights:
            array = array_of(source, self.store)
            if not np.isfinite(array).all():
                raise SpuError(
                    "a weight is not finite",
                    node=layer_of(op),
                    op=op.name,
                    remedy="check the model",
                )
            values, scale = quantised_weight(array)
            builder = Builder(after([source]))
            self.weights[source] = builder.insert(
                DequantiseOp(
                    builder.insert(constant_op(self.store, values)).result,
                    builder.insert(constant_op(self.store, scale)).result,
                    None,
                    builder.insert(tensor.EmptyOp((), source.type)).tensor,
                    axis=0,
                )
            ).results[0]
        op.operands[1] = self.weights[source]

    def quantise_rows(self, op: EpilogueOp) -> None:
        """x of `op`, times its columns' factors, quantised at run time: a scale for each row."""
        x = op.x
        if x not in self.rows:
            dims = dims_of(x)
            source, columns = scaled_columns(x) or (x, None)
            given = [x, *dims] if columns is None else [x, columns, *dims]
            builder = Builder(after(given))
            shape = shape_of(x)[:-1]
            scales = TensorType(f32, shape)
            # The last axis is a weight's K and so never a run-time extent.
            quantised = builder.insert(
                QuantiseRowsOp(
                    source,
                    builder.insert(empty_of(x, ui8, dims)).tensor,
                    builder.insert(tensor.EmptyOp(dims, scales)).tensor,
                    row_zero(x),
                    columns,
                )
            )
            if columns is not None:
                quantised.attributes["format"] = StringAttr("scaled columns")
            zero = builder.insert(constant_op(self.store, np.array(row_zero(x), np.uint8))).result
            zeros = builder.insert(
                ExpandOp(zero, builder.insert(tensor.EmptyOp(dims, TensorType(ui8, shape))).tensor)
            )
            dequantised = builder.insert(
                DequantiseOp(
                    quantised.results[0],
                    quantised.results[1],
                    zeros.results[0],
                    builder.insert(empty_of(x, f32, dims)).tensor,
                )
            )
            label(op, quantised, zeros, dequantised)
            self.rows[x] = dequantised.results[0]
        op.operands[0] = self.rows[x]

    def quantise_value(self, value: SSAValue, bounds: tuple[float, float]) -> None:
        """All users of `value` but the function's return see it quantised to u8."""
        dims = dims_of(value)
        builder = Builder(after([value, *dims]))
        scale, zero = (
            builder.insert(constant_op(self.store, array)).result for array in affine(*bounds)
        )
        quantised = builder.insert(
            QuantiseOp(value, scale, zero, builder.insert(empty_of(value, ui8, dims)).tensor)
        )
        dequantised = builder.insert(
            DequantiseOp(
                quantised.results[0],
                scale,
                zero,
                builder.insert(empty_of(value, f32, dims)).tensor,
            )
        )
        if isinstance(value.owner, Operation):
            label(value.owner, quantised, dequantised)
        value.replace_uses_with_if(
            dequantised.results[0],
            lambda use: (
                not isinstance(use.operation, tensor.DimOp | func.ReturnOp)
                and use.operation is not quantised
                and not is_kept_bf16(use.operation)
                and quantised.is_before_in_block(use.operation)
            ),
        )


def label(source: Operation, *ops: Operation) -> None:
    """Give `ops` the layer name of `source`."""
    name = layer_of(source)
    if name is not None:
        for op in ops:
            op.attributes["layer"] = StringAttr(name)


def is_quantisable(op: Operation) -> bool:
    """Whether `op` is an f32 product of a constant weight that is not to be one of bf16."""
    return isinstance(op, EpilogueOp) and is_candidate(op) and not is_kept_bf16(op)


def is_candidate(op: EpilogueOp) -> bool:
    """Whether `op` is an f32 product of a constant weight."""
    return element_of(op.x) == f32 and is_constant(op.weight)


def is_static_network(products: Sequence[EpilogueOp], mode: str, *, calibrated: bool) -> bool:
    """Whether all candidates have static activations, not just the convolutions among them."""
    convolutions = sum(isinstance(op, ConvOp) for op in products)
    mostly = 2 * convolutions > len(products)
    return mode == "static" or (mode == "auto" and mostly and calibrated)


def choose_static(products: Sequence[EpilogueOp], mode: str) -> list[EpilogueOp]:
    """
    Of all candidates, those whose activations are quantised with ranges known from calibration.

    Those kept in bf16 are never among them, but count as what the network is like: in `auto`
    static are the convolutions and, in a calibrated network of mostly convolutions, the matrix
    products too: in any other, rows with scales of their own are nearer to f32. Raises SpuError
    for one without a range.
    """
    if mode == "dynamic":
        return []
    calibrated = all(range_of(op.x) is not None for op in products)
    everything = is_static_network(products, mode, calibrated=calibrated)
    static = [
        op for op in products if (everything or isinstance(op, ConvOp)) and not is_kept_bf16(op)
    ]
    for op in static:
        if range_of(op.x) is None:
            raise SpuError(
                "its input has no range from calibration, which static quantisation needs",
                node=layer_of(op),
                op=op.name,
                remedy=CALIBRATE,
            )
    return static


@dataclass(frozen=True)
class QuantisePass(ModulePass):
    """
    Quantise f32 products of constant weights to int8, as quantise and dequantise ops around them.

    Weights become i8, symmetric, with a scale for each output channel: the one with the least
    squared error where a row has few non-zeros. Activations become u8: in
    `static` mode with a scale and zero point from their calibrated range, and once for all of
    their users; in `dynamic` mode each row at run time, which a convolution has no way to do: it
    stays f32. `auto` is static for convolutions, dynamic for matrix products, and static for both
    in a calibrated network of mostly convolutions. Products that `choose-precision` marked are
    left, and see values as they were.
    """

    name = "quantise"
    preserves: ClassVar[str] = "lossy"

    mode: str = "auto"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.mode not in MODES:
            raise SpuError(
                f"quantise has no mode {self.mode!r}", remedy=f"it is one of {', '.join(MODES)}"
            )
        quantiser = Quantiser(store_of(ctx))
        products = [each for each in op.walk() if isinstance(each, EpilogueOp)]
        products = [each for each in products if is_candidate(each)]
        static = choose_static(products, self.mode)
        read = [value for each in static for value in (each.x, each.residual) if value is not None]
        wanted = [value for value in dict.fromkeys(read) if needs_grid(value)]
        for value, bounds in shared_grids(wanted).items():
            quantiser.quantise_value(value, bounds)
        chosen = set(static)
        for product in products:
            if is_kept_bf16(product):
                continue
            if product in chosen:
                quantiser.quantise_weight(product)
            elif isinstance(product, ConvOp):
                product.attributes["fallback_reason"] = StringAttr(
                    "a convolution has no scale for each row: it needs calibration"
                )
            else:
                quantiser.quantise_rows(product)
                quantiser.quantise_weight(product)

    def reference(self, ctx: Context, module: ModuleOp) -> ModuleOp:
        """`module` with weights and activations rounded to their grids, all arithmetic in f32."""
        from spu_ir.transforms import references

        store = store_of(ctx)
        kept = {op: tuple(op.operands) for op in module.walk() if is_kept_bf16(op)}
        products = references.f32_products(module)
        static = choose_static(products, self.mode)
        read = [value for each in static for value in (each.x, each.residual) if value is not None]
        grids = shared_grids([value for value in dict.fromkeys(read) if needs_grid(value)])
        for product in products:
            if product in kept or (product not in static and isinstance(product, ConvOp)):
                continue
            references.round_rows_of_weight(product, store)
            if product not in static:
                product.operands[0] = references.rounded_rows(product.x, row_zero(product.x), store)
        for value, (low, high) in grids.items():
            scale, zero = affine(low, high)
            references.round_value(value, float(scale), int(zero), store)
        for op, operands in kept.items():
            op.operands = operands
        return module


def needs_grid(value: SSAValue) -> bool:
    """Whether `value` is an f32 activation that is not quantised already."""
    return element_of(value) == f32 and not (
        is_constant(value) or isinstance(value.owner, DequantiseOp)
    )
