"""From tensors to memrefs: every value gets a buffer, a convolution's input gets its halo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects import func, memref, tensor
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    FloatAttr,
    FunctionType,
    IndexType,
    IntegerAttr,
    MemRefType,
    ModuleOp,
    UnitAttr,
    f32,
)
from xdsl.ir import Attribute, Block, BlockArgument, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from spu_ir.dialects.antoum import ConstantOp, DmaOp, FillOp, Space, SpaceAttr
from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.functions import OUTPUT
from spu_ir.dialects.spu import ConvOp, MatmulOp, integers
from spu_ir.dialects.types import DYNAMIC, element_of, numpy_dtype, shape_of, ui8
from spu_ir.dialects.vpu import QuantiseRowsOp, ReshapeOp, array_attr
from spu_ir.errors import SpuError
from spu_ir.transforms.emitter import Emitter, Extent, is_contiguous, memref_of
from spu_ir.transforms.extents import bound_of, depends_on_data

DDR = SpaceAttr(Space.DDR)

ROW_ALIAS = 1024
"""Rows of a multiple of so many float32 start in the same set of a first cache of 64 sets."""

ROW_GAP = 16
"""The float32 that are left free behind such a row, see `is_apart`: one cache line."""


@dataclass(frozen=True)
class BufferisePass(ModulePass):
    """
    Give every tensor a buffer.

    Inputs and constants lie in `ddr`. The outputs become arguments behind the inputs, marked
    `spu.output`; a second function, `@<name>_output_shapes`, yields their run-time extents. A
    reshape is a view. A buffer of which the extent depends on data (packed rows) is as large as the
    extent's bound. The input of a padded convolution lies inside a larger buffer whose halo,
    the union of its consumers' pads, is filled with the zero point on every run.
    """

    name = "bufferise"
    preserves: ClassVar[str] = "exact"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in [o for o in op.ops if isinstance(o, func.FuncOp)]:
            shapes = _Bufferiser(function).run()
            op.body.block.insert_op_after(shapes, function)


@dataclass(frozen=True)
class _Halo:
    pads: tuple[int, int, int, int]  # top, left, bottom, right
    zero: int


@dataclass
class _Bufferiser:
    function: func.FuncOp
    buffers: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])
    halos: dict[SSAValue, _Halo] = field(default_factory=dict[SSAValue, _Halo])
    outputs: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])

    def run(self) -> func.FuncOp:
        """Convert the body; return the function of the outputs' extents."""
        block = self.function.body.block
        returned = block.last_op
        assert isinstance(returned, func.ReturnOp)
        inputs = list(block.args)
        tensor_ops = [op for op in block.ops if op is returned or _is_on_tensors(op)]
        self._retype_inputs(block, inputs)
        self._add_outputs(block, returned)
        shapes = output_shapes(self.function, len(inputs), returned.operands)
        self._find_halos(block)
        for op in tensor_ops:
            self._convert(op)
        emit = Emitter(InsertPoint.before(returned))
        outputs = block.args[2 * len(inputs) :]
        for value, output in zip(returned.operands, outputs, strict=True):
            source = self.buffers[value]
            if self.outputs.get(value) is not output:
                emit.insert(DmaOp(source, emit.reshaped(output, emit.extents(source))))
        emit.insert(func.ReturnOp())
        for op in reversed(tensor_ops):
            op.detach()
            op.erase()
        for argument in inputs:
            block.erase_arg(argument)
        self._retype_function(block)
        return shapes

    def _retype_function(self, block: Block) -> None:
        function = self.function
        marks = [dict(attrs.data) for attrs in function.res_attrs or ()]
        count = len(function.function_type.outputs)
        outputs = [{**mark, OUTPUT: UnitAttr()} for mark in marks or [{}] * count]
        inputs = function.arg_attrs or [DictionaryAttr({})] * (len(block.args) - count)
        function.arg_attrs = ArrayAttr([*inputs, *(DictionaryAttr(mark) for mark in outputs)])
        function.res_attrs = None
        function.function_type = FunctionType.from_lists([a.type for a in block.args], [])

    def _retype_inputs(self, block: Block, inputs: Sequence[BlockArgument]) -> None:
        for old in inputs:
            new = block.insert_arg(memref_of(old.type, DDR), len(block.args))
            new.name_hint = old.name_hint
            for use in list(old.uses):
                if isinstance(use.operation, tensor.DimOp):
                    dim = memref.DimOp(new, use.operation.index)
                    block.insert_op_before(dim, use.operation)
                    use.operation.result.replace_all_uses_with(dim.result)
                    use.operation.detach()
                    use.operation.erase()
            self.buffers[old] = new

    def _add_outputs(self, block: Block, returned: func.ReturnOp) -> None:
        for value in returned.operands:
            output = block.insert_arg(memref_of(value.type, DDR), len(block.args))
            owner = value.owner
            if isinstance(owner, DestinationOp) and not isinstance(owner, ReshapeOp):
                self.outputs.setdefault(value, output)

    def _find_halos(self, block: Block) -> None:
        for op in block.ops:
            if not isinstance(op, ConvOp) or not any(integers(op.pads)):
                continue
            owner = op.x.owner
            if not isinstance(owner, DestinationOp) or isinstance(owner, ReshapeOp):
                continue
            if op.x in self.outputs:
                continue
            top, left, bottom, right = integers(op.pads)
            zero = op.x_zero.value.data
            old = self.halos.get(op.x, _Halo((0, 0, 0, 0), zero))
            if old.zero == zero:
                above, before, below, after = old.pads
                self.halos[op.x] = _Halo(
                    (max(above, top), max(before, left), max(below, bottom), max(after, right)),
                    zero,
                )

    def _convert(self, op: Operation) -> None:
        emit = Emitter(InsertPoint.before(op))
        if isinstance(op, ConstantOp):
            kind = memref_of(op.result.type, DDR)
            self.buffers[op.result] = emit.value(ConstantOp(op.value, kind))
        elif isinstance(op, ReshapeOp):
            source = self._contiguous(emit, self.buffers[op.x])
            self.buffers[op.results[0]] = emit.reshaped(source, _sizes(op.init))
        elif isinstance(op, tensor.ExtractOp):
            element = emit.value(memref.LoadOp.get(self.buffers[op.tensor], op.indices))
            op.result.replace_all_uses_with(element)
        elif isinstance(op, DestinationOp):
            self._convert_destination(emit, op)

    def _convert_destination(self, emit: Emitter, op: DestinationOp) -> None:
        # By position: one value may be both what a product reads through a view and its residual.
        inputs = [self.buffers[value] for value in op.inputs]
        attributes = dict(op.properties)
        if isinstance(op, ConvOp):
            inputs[0] = self._conv_input(emit, op, inputs[0])
            attributes["pads"] = array_attr([0, 0, 0, 0])
        elif isinstance(op, MatmulOp) and len(shape_of(op.x)) != 2:
            inputs[0] = self._contiguous(emit, inputs[0])
        if isinstance(op, ConvOp | MatmulOp) and element_of(op.x) == ui8:
            inputs[0] = self._with_slack(emit, inputs[0])
        inits = [
            self._buffer(emit, value, result)
            for value, result in zip(op.inits, op.results, strict=True)
        ]
        emit.insert(
            type(op).create(
                operands=[*inputs, *inits],
                properties=attributes,
                attributes=dict(op.attributes),
            )
        )
        self.buffers.update(zip(op.results, inits, strict=True))

    def _buffer(self, emit: Emitter, init: SSAValue, result: SSAValue) -> SSAValue:
        """The buffer for a result: the output it is, or a new one, inside its halo."""
        sizes = _sizes(init)
        if result in self.outputs:
            # The view says the extents in terms of the inputs, where the argument does not.
            return emit.reshaped(self.outputs[result], sizes)
        halo = self.halos.get(result)
        if halo is None and is_apart(result):
            *outer, size = sizes
            whole = _allocate(emit, [*outer, emit.add(size, ROW_GAP)], element_of(result))
            return emit.subview(whole, [0] * len(sizes), sizes)
        if halo is None:
            return _allocate(emit, sizes, element_of(result))
        return _allocate_padded(emit, sizes, element_of(result), halo)

    def _conv_input(self, emit: Emitter, op: ConvOp, source: SSAValue) -> SSAValue:
        """The view that a convolution reads: its input with just its own pads around it."""
        top, left, bottom, right = integers(op.pads)
        halo = self.halos.get(op.x)
        zero = op.x_zero.value.data
        if halo is None or halo.zero != zero:
            if not (top or left or bottom or right):
                return source
            halo = _Halo((top, left, bottom, right), zero)
            copy = _allocate_padded(emit, emit.extents(source), element_of(source), halo)
            emit.insert(DmaOp(source, copy))
            source = copy
        assert isinstance(source.owner, memref.SubviewOp)
        batch, height, width, channels = emit.extents(source)
        offsets: list[Extent] = [0, halo.pads[0] - top, halo.pads[1] - left, 0]
        sizes = [
            batch,
            emit.add(height, top + bottom),
            emit.add(width, left + right),
            channels,
        ]
        return emit.subview(source.owner.source, offsets, sizes)

    def _contiguous(self, emit: Emitter, source: SSAValue) -> SSAValue:
        return source if is_contiguous(source) else _copied(emit, source)

    def _with_slack(self, emit: Emitter, source: SSAValue) -> SSAValue:
        """A bank's window may reach past a row's end: never past a caller's own array."""
        root = source
        while isinstance(root.owner, memref.ReinterpretCastOp | memref.SubviewOp):
            root = root.owner.source
        return _copied(emit, source) if isinstance(root, BlockArgument) else source


def is_apart(result: SSAValue) -> bool:
    """
    Whether rows of a buffer lie a cache line further apart than they are long.

    So it is of float32 products that only `vpu.quantise_rows` reads, whose rows of a multiple of
    4096 bytes would otherwise start in one set of the first cache: a product writes 14 of them at a
    time, and took 8 to 15 % longer.
    """
    op, shape = result.owner, shape_of(result)
    if not isinstance(op, MatmulOp) or element_of(result) != f32 or len(shape) < 2:
        return False
    readers = [use.operation for use in result.uses]
    return (
        shape[-1] > 0
        and shape[-1] % ROW_ALIAS == 0
        and not any(depends_on_data(size) for size in _sizes(op.init))
        and all(isinstance(reader, QuantiseRowsOp | tensor.DimOp) for reader in readers)
    )


def _is_on_tensors(op: Operation) -> bool:
    if isinstance(op, DestinationOp):
        return op.on_tensors
    return isinstance(op, tensor.EmptyOp | tensor.ExtractOp | ConstantOp)


def _sizes(init: SSAValue) -> list[Extent]:
    """The shape of a `tensor.empty`."""
    empty = init.owner
    if not isinstance(empty, tensor.EmptyOp):
        raise SpuError("an init must be a tensor.empty before bufferisation", op="bufferise")
    dynamic = iter(empty.dynamic_sizes)
    return [next(dynamic) if d == DYNAMIC else d for d in shape_of(init)]


def _allocate(emit: Emitter, sizes: Sequence[Extent], element: Attribute) -> SSAValue:
    """A new buffer; where its size depends on data, the first part of one as large as it gets."""
    if any(depends_on_data(size) for size in sizes):
        whole = _allocate(emit, [bound_of(size) for size in sizes], element)
        return emit.reshaped(whole, sizes)
    shape = [size if isinstance(size, int) else DYNAMIC for size in sizes]
    kind = MemRefType(element, shape)
    dynamic = [size for size in sizes if isinstance(size, SSAValue)]
    return emit.value(memref.AllocOp(dynamic, (), kind))


def _allocate_padded(
    emit: Emitter, sizes: Sequence[Extent], element: Attribute, halo: _Halo
) -> SSAValue:
    """The inner part of a new buffer with a halo, whose four borders are filled."""
    top, left, bottom, right = halo.pads
    batch, height, width, channels = sizes
    full_height, full_width = emit.add(height, top + bottom), emit.add(width, left + right)
    whole = _allocate(emit, [batch, full_height, full_width, channels], element)
    if numpy_dtype(element).kind == "u":
        value: Attribute = IntegerAttr(halo.zero, ui8)
    else:
        value = FloatAttr(0.0, f32)
    borders = (
        (0, 0, top, full_width),
        (emit.add(top, height), 0, bottom, full_width),
        (top, 0, height, left),
        (top, emit.add(left, width), height, right),
    )
    for y, x, rows, columns in borders:
        if rows != 0 and columns != 0:
            border = emit.subview(whole, [0, y, x, 0], [batch, rows, columns, channels])
            emit.insert(FillOp(value, border))
    return emit.subview(whole, [0, top, left, 0], [batch, height, width, channels])


def _copied(emit: Emitter, source: SSAValue) -> SSAValue:
    copy = _allocate(emit, emit.extents(source), element_of(source))
    emit.insert(DmaOp(source, copy))
    return copy


def output_shapes(function: func.FuncOp, inputs: int, outputs: Sequence[SSAValue]) -> func.FuncOp:
    """A function of the bufferised inputs that yields the outputs' run-time extents, in order."""
    wanted: list[SSAValue] = []
    for value in outputs:
        init = _init_of(value)
        if init is not None:
            wanted.extend(size for size in _sizes(init) if isinstance(size, SSAValue))
    retyped = function.body.block.args[inputs : 2 * inputs]
    arguments = [argument.type for argument in retyped]
    body = Block(arg_types=arguments)
    cloned: dict[SSAValue, SSAValue] = dict(zip(retyped, body.args, strict=True))

    def clone(value: SSAValue) -> SSAValue:
        if value not in cloned:
            owner = value.owner
            assert isinstance(owner, Operation)
            for operand in owner.operands:
                clone(operand)
            copy = owner.clone(cloned)
            body.add_op(copy)
        return cloned[value]

    results = [clone(value) for value in wanted]
    body.add_op(func.ReturnOp(*results))
    kind = FunctionType.from_lists(arguments, [IndexType()] * len(results))
    name = f"{function.sym_name.data}_output_shapes"
    return func.FuncOp(name, kind, Region(body))


def _init_of(value: SSAValue) -> SSAValue | None:
    owner = value.owner
    if isinstance(owner, DestinationOp):
        return next(i for i, r in zip(owner.inits, owner.results, strict=True) if r is value)
    return None
