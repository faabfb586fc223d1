"""Small tensor-level modules of spu and vpu ops, built op by op, to run passes on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, func, tensor
from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    DictionaryAttr,
    FunctionType,
    IndexType,
    IntegerAttr,
    ModuleOp,
    StringAttr,
    TensorType,
    f32,
    i64,
)
from xdsl.ir import Attribute, Block, Region, SSAValue
from xdsl.rewriter import InsertPoint

from spu_ir.dialects.antoum import ConstantOp
from spu_ir.dialects.spu import ConvOp, EpilogueOp, MatmulOp
from spu_ir.dialects.types import DYNAMIC, Array, element_of, shape_of
from spu_ir.dialects.vpu import (
    BinaryFn,
    BinaryOp,
    DequantiseOp,
    PoolFn,
    PoolFnAttr,
    PoolOp,
    QuantiseOp,
    ReduceFn,
    ReduceFnAttr,
    ReduceOp,
    ReshapeOp,
    UnaryFn,
    UnaryFnAttr,
    UnaryOp,
    array_attr,
)
from spu_ir.dialects.weights import constant_attr, store_of

BATCH = "batch"


class Net:
    """
    A function `@main` under construction; an extent of DYNAMIC is the run-time batch.

    `net.finish(result)` gives the module; inputs are called x0, x1, ..., the outputs y0, y1, ...
    """

    def __init__(self, *inputs: Sequence[int], elements: Sequence[Attribute] | None = None):
        self.ctx = Context()
        kinds = elements or [f32] * len(inputs)
        self.block = Block(
            arg_types=[TensorType(kind, shape) for kind, shape in zip(kinds, inputs, strict=True)]
        )
        self.builder = Builder(InsertPoint.at_end(self.block))
        self.inputs = list(self.block.args)
        self.batch: SSAValue | None = None
        self.module = ModuleOp([])
        for value in self.inputs:
            if self.batch is None and DYNAMIC in shape_of(value):
                axis = shape_of(value).index(DYNAMIC)
                index = self.builder.insert(arith.ConstantOp(IntegerAttr(axis, IndexType())))
                self.batch = self.builder.insert(tensor.DimOp(value, index)).result

    def constant(self, array: Array) -> SSAValue:
        return self.builder.insert(ConstantOp(constant_attr(store_of(self.ctx), array))).result

    def empty(self, shape: Sequence[int], element: Attribute = f32) -> SSAValue:
        dims = [self.batch for extent in shape if extent == DYNAMIC]
        return self.builder.insert(tensor.EmptyOp(dims, TensorType(element, shape))).tensor

    def _product(self, op: EpilogueOp, layer: str) -> SSAValue:
        op.attributes["layer"] = StringAttr(layer)
        return self.builder.insert(op).results[0]

    def matmul(self, x: SSAValue, weight: Array | SSAValue, layer: str = "dense") -> SSAValue:
        weight = weight if isinstance(weight, SSAValue) else self.constant(weight)
        init = self.empty([*shape_of(x)[:-1], shape_of(weight)[0]])
        return self._product(MatmulOp(x, weight, init), layer)

    def conv(
        self,
        x: SSAValue,
        weight: Array | SSAValue,
        layer: str = "conv",
        *,
        stride: int = 1,
        pad: int = 0,
        groups: int = 1,
        dilation: int = 1,
    ) -> SSAValue:
        weight = weight if isinstance(weight, SSAValue) else self.constant(weight)
        out, height, width, _ = shape_of(weight)
        batch, *image, _ = shape_of(x)
        size = [
            (extent + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for extent, kernel in zip(image, (height, width), strict=True)
        ]
        properties: dict[str, Attribute] = {
            "strides": DenseArrayBase.from_list(i64, [stride] * 2),
            "pads": DenseArrayBase.from_list(i64, [pad] * 4),
            "dilations": DenseArrayBase.from_list(i64, [dilation] * 2),
            "groups": IntegerAttr(groups, i64),
        }
        init = self.empty([batch, *size, out])
        return self._product(ConvOp(x, weight, init, properties=properties), layer)

    def binary(self, fn: BinaryFn, a: SSAValue, b: SSAValue | Array) -> SSAValue:
        b = b if isinstance(b, SSAValue) else self.constant(b)
        return self.builder.insert(BinaryOp(fn, a, b, self.empty(shape_of(a)))).results[0]

    def unary(self, fn: UnaryFn, x: SSAValue) -> SSAValue:
        init = self.empty(shape_of(x))
        return self.builder.insert(UnaryOp(x, init, {"fn": UnaryFnAttr(fn)})).results[0]

    def max_pool(self, x: SSAValue, kernel: int, stride: int, pad: int = 0) -> SSAValue:
        batch, *image, channels = shape_of(x)
        size = [(extent + 2 * pad - kernel) // stride + 1 for extent in image]
        properties: dict[str, Attribute] = {
            "fn": PoolFnAttr(PoolFn.MAX),
            "kernel": array_attr([kernel] * 2),
            "strides": array_attr([stride] * 2),
            "pads": array_attr([pad] * 2),
            "dilations": array_attr([1, 1]),
        }
        init = self.empty([batch, *size, channels], element_of(x))
        return self.builder.insert(PoolOp(x, init, properties)).results[0]

    def mean(self, x: SSAValue, axes: Sequence[int]) -> SSAValue:
        shape = [extent for axis, extent in enumerate(shape_of(x)) if axis not in axes]
        properties: dict[str, Attribute] = {
            "fn": ReduceFnAttr(ReduceFn.MEAN),
            "axes": array_attr(axes),
        }
        return self.builder.insert(ReduceOp(x, self.empty(shape), properties)).results[0]

    def reshape(self, x: SSAValue, shape: Sequence[int]) -> SSAValue:
        return self.builder.insert(ReshapeOp(x, self.empty(shape, element_of(x)))).results[0]

    def dequantise(self, x: SSAValue, scale: float, zero: int) -> SSAValue:
        """u8 bytes as f32."""
        parameters = np.array(scale, np.float32), np.array(zero, np.uint8)
        op = DequantiseOp(x, *map(self.constant, parameters), self.empty(shape_of(x)))
        return self.builder.insert(op).results[0]

    def quantise(self, x: SSAValue, scale: float, zero: int, dtype: str = "uint8") -> SSAValue:
        """x as integers of `dtype`, and back: a QDQ pair."""
        scale_value = self.constant(np.array(scale, np.float32))
        zero_value = self.constant(np.array(zero, dtype))
        init = self.empty(shape_of(x), element_of(zero_value))
        q = self.builder.insert(QuantiseOp(x, scale_value, zero_value, init)).results[0]
        back = DequantiseOp(q, scale_value, zero_value, self.empty(shape_of(x)))
        return self.builder.insert(back).results[0]

    def dequantised(
        self, values: Array, scale: Array, zero: Array | None = None, axis: int = -1
    ) -> SSAValue:
        """A constant of integers, dequantised."""
        op = DequantiseOp(
            self.constant(values),
            self.constant(scale),
            None if zero is None else self.constant(zero),
            self.empty(values.shape),
            axis=axis,
        )
        return self.builder.insert(op).results[0]

    def finish(self, *results: SSAValue) -> ModuleOp:
        """The verified module, which is also `self.module` from now on."""
        self.builder.insert(func.ReturnOp(*results))
        kind = FunctionType.from_lists(
            [value.type for value in self.inputs], [value.type for value in results]
        )
        main = func.FuncOp("main", kind, Region(self.block))
        main.properties["arg_attrs"] = ArrayAttr(
            [_names(f"x{i}", value) for i, value in enumerate(self.inputs)]
        )
        main.properties["res_attrs"] = ArrayAttr(
            [_names(f"y{i}", value) for i, value in enumerate(results)]
        )
        self.module = ModuleOp([main])
        self.module.verify()
        return self.module


def _names(name: str, value: SSAValue) -> DictionaryAttr:
    found: dict[str, Attribute] = {"onnx.name": StringAttr(name)}
    if DYNAMIC in shape_of(value):
        axis = shape_of(value).index(DYNAMIC)
        found["onnx.dim_params"] = StringAttr(f"{axis}:{BATCH}")
    return DictionaryAttr(found)
