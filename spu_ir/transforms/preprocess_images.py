"""Take images as they are decoded: resizing, cropping and normalising become part of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from xdsl.context import Context
from xdsl.dialects import func, tensor
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    FunctionType,
    ModuleOp,
    StringAttr,
    TensorType,
    f32,
    i32,
)
from xdsl.ir import Attribute, BlockArgument, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.functions import argument_attributes, bounds, dim_params, set_bounds
from spu_ir.dialects.types import DYNAMIC, element_of, shape_of, show_shape, ui8
from spu_ir.dialects.vpu import (
    ResizeFilter,
    ResizeOp,
    ResizeTapsOp,
    SliceOp,
    TableOp,
    TransposeOp,
    array_attr,
)
from spu_ir.dialects.vpu_image import GEOMETRY, MAX_ROW
from spu_ir.dialects.weights import WeightStore, store_of
from spu_ir.errors import SpuError
from spu_ir.interpreters.numerics_image import FILTERS
from spu_ir.transforms.emitter import Emitter
from spu_ir.transforms.rewriting import constant_op

LAYER = "preprocess"
"""The layer's name of what this pass adds."""


@dataclass(frozen=True)
class PreprocessImagesPass(ModulePass):
    """
    Replace an image input, f32 `[N, C, height, width]` or `[N, height, width, C]`, by pixels.

    The model then takes `input`, ui8 `[N, H, W, C]`, images stored one beside the other from the
    top left corner of a canvas of run-time extents up to `canvas`, and `<input>.geometry`, i32
    `[N, 2, 4]`, that of `vpu.resize_taps` for rows and columns. It resizes (`vpu.resize`), turns
    the channels around for `colour` bgr, and normalises, `(pixel / divide - mean) / std`, with a
    table of 256 numbers for each channel. `input` "" is the only input of that shape, `layout`
    auto what its shape says. Raises SpuError where there is no such input.
    """

    name = "preprocess-images"
    preserves: ClassVar[str] = "interface"

    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    divide: float = 255.0
    input: str = ""
    layout: str = "auto"
    colour: str = "rgb"
    interpolation: str = "bilinear"
    antialias: bool = True
    canvas: int = 2048

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.width * self.channels > MAX_ROW:
            raise SpuError(
                f"images of {self.width} columns cannot be made",
                remedy=f"at most {MAX_ROW // self.channels} can",
            )
        for function in op.ops:
            if isinstance(function, func.FuncOp) and function.sym_name.data == "main":
                argument, name, channels_last = self._find(function)
                _Rewriter(self, function, store_of(ctx)).run(argument, name, channels_last)
                return
        raise SpuError("the module has no function @main to give images to")

    @property
    def channels(self) -> int:
        """Channels of a pixel."""
        return len(self.mean)

    @property
    def most_taps(self) -> tuple[int, int]:
        """The most pixels that a row, and a column, of the result can be made of."""
        reach = FILTERS[ResizeFilter(self.interpolation)][0]
        rows, columns = (
            2 * ceil(reach * (max(self.canvas / size, 1.0) if self.antialias else 1.0)) + 1
            for size in (self.height, self.width)
        )
        return rows, columns

    def table(self) -> NDArray[np.float32]:
        """The normalised value of every byte, f32 `[C, 256]`, computed as torchvision does."""
        values = np.arange(256, dtype=np.float32) / np.float32(self.divide)
        mean, std = (np.array(each, np.float32)[:, None] for each in (self.mean, self.std))
        return (values - mean) / std

    def _find(self, function: func.FuncOp) -> tuple[BlockArgument, str, bool]:
        """The input to replace, its name, and whether its channels are last."""
        found: list[tuple[BlockArgument, str, bool]] = []
        inputs: list[str] = []
        for value, attributes in zip(
            function.body.block.args, argument_attributes(function), strict=True
        ):
            name = _name(value, attributes)
            inputs.append(f"{name} {show_shape(shape_of(value))}")
            if self.input in ("", name) and element_of(value) == f32:
                layout = self._layout(shape_of(value))
                if layout is not None:
                    found.append((value, name, layout == "NHWC"))
        if len(found) == 1:
            return found[0]
        c, h, w = self.channels, self.height, self.width
        shapes = {"NCHW": f"[N, {c}, {h}, {w}]", "NHWC": f"[N, {h}, {w}, {c}]"}
        wanted = " or ".join(s for key, s in shapes.items() if self.layout in ("auto", key))
        what = f"input {self.input!r}" if self.input else "one input"
        raise SpuError(
            f"images need {what} of f32 {wanted}; the inputs are {', '.join(inputs)}",
            remedy="give the model's own size and layout, and the name where there are several",
        )

    def _layout(self, shape: Sequence[int]) -> str | None:
        """Which of the layouts that are asked for an input of `shape` has; None if none."""
        size = (self.height, self.width)
        for layout, spatial, channels in (("NCHW", shape[2:], 1), ("NHWC", shape[1:3], 3)):
            fits = len(shape) == 4 and spatial == size and shape[channels] == self.channels
            if fits and self.layout in ("auto", layout):
                return layout
        return None


def _name(value: BlockArgument, attributes: Mapping[str, Attribute]) -> str:
    found = attributes.get("onnx.name")
    return found.data if isinstance(found, StringAttr) else f"argument{value.index}"


@dataclass
class _Rewriter:
    options: PreprocessImagesPass
    function: func.FuncOp
    store: WeightStore

    def run(self, old: BlockArgument, name: str, channels_last: bool) -> None:
        block, options = self.function.body.block, self.options
        at, batch = old.index, shape_of(old)[0]
        canvas = block.insert_arg(
            TensorType(ui8, [batch, DYNAMIC, DYNAMIC, options.channels]), at + 1
        )
        geometry = block.insert_arg(TensorType(i32, [batch, 2, GEOMETRY]), at + 2)
        canvas.name_hint, geometry.name_hint = "canvas", "geometry"
        self._describe(at, name, [f"{extent}_of_image" for extent in ("height", "width")])
        for use in list(old.uses):
            if isinstance(use.operation, tensor.DimOp):
                use.operation.operands[0] = canvas
        self.emit = Emitter(InsertPoint.at_start(block))
        self.dims: list[SSAValue] = []
        if batch == DYNAMIC:
            self.dims = [self.emit.value(tensor.DimOp(canvas, self.emit.index(0)))]
        self.batch = batch
        value = self._resized(canvas, geometry)
        if options.colour == "bgr":
            starts, steps = [0, 0, 0, options.channels - 1], [1, 1, 1, -1]
            properties = {"starts": array_attr(starts), "steps": array_attr(steps)}
            value = self._insert(SliceOp(value, self._empty_like(value), properties))
        table = self.emit.value(constant_op(self.store, options.table()))
        value = self._insert(TableOp(value, table, self._empty(f32, shape_of(value)[1:])))
        if not channels_last:
            height, width, channels = shape_of(value)[1:]
            init = self._empty(f32, (channels, height, width))
            perm = {"perm": array_attr([0, 3, 1, 2])}
            value = self._insert(TransposeOp(value, init, perm))
        old.replace_all_uses_with(value)
        block.erase_arg(old)
        outputs = list(self.function.function_type.outputs)
        self.function.function_type = FunctionType.from_lists(list(block.arg_types), outputs)

    def _resized(self, canvas: SSAValue, geometry: SSAValue) -> SSAValue:
        options = self.options
        size = (options.height, options.width)
        taps: list[tuple[SSAValue, SSAValue]] = []
        for axis, (count, most) in enumerate(zip(size, options.most_taps, strict=True)):
            op = ResizeTapsOp(
                ResizeFilter(options.interpolation),
                geometry,
                self._empty(i32, (count, 2)),
                self._empty(i32, (count, most)),
                axis=axis,
                antialias=options.antialias,
            )
            op.attributes["layer"] = StringAttr(LAYER)
            self.emit.insert(op)
            taps.append((op.results[0], op.results[1]))
        init = self._empty(ui8, (*size, options.channels))
        return self._insert(ResizeOp(canvas, taps[0], taps[1], init))

    def _insert(self, op: DestinationOp) -> SSAValue:
        op.attributes["layer"] = StringAttr(LAYER)
        return self.emit.value(op)

    def _empty(self, element: Attribute, shape: Sequence[int]) -> SSAValue:
        kind = TensorType(element, [self.batch, *shape])
        return self.emit.value(tensor.EmptyOp(self.dims, kind))

    def _empty_like(self, value: SSAValue) -> SSAValue:
        return self._empty(element_of(value), shape_of(value)[1:])

    def _describe(self, at: int, name: str, extents: list[str]) -> None:
        """Names, and run-time extents, of the two arguments that follow argument `at`'s."""
        function = self.function
        known = [dict(attributes) for attributes in argument_attributes(function)]
        known = known[: len(function.body.block.args) - 2]
        batch = dim_params(known[at]).get(0)
        limits = bounds(function)
        for index in range(len(extents)):
            while extents[index] in limits:
                extents[index] += "_"
            limits[extents[index]] = (1, self.options.canvas)
        own = [f"0:{batch}"] if batch is not None else []
        canvas = [*own, *(f"{axis}:{extent}" for axis, extent in enumerate(extents, 1))]
        new: list[dict[str, Attribute]] = [
            {"onnx.name": StringAttr(name), "onnx.dim_params": StringAttr(",".join(canvas))},
            {"onnx.name": StringAttr(f"{name}.geometry")},
        ]
        if own:
            new[1]["onnx.dim_params"] = StringAttr(own[0])
        known[at : at + 1] = new
        function.arg_attrs = ArrayAttr([DictionaryAttr(attributes) for attributes in known])
        set_bounds(function, limits)
