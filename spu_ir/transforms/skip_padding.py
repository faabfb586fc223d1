"""Compute the real rows of padded batches only: rows `[batch, seq]` become packed rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, func, tensor
from xdsl.dialects.builtin import (
    IndexType,
    ModuleOp,
    StringAttr,
    TensorType,
    i1,
    i64,
)
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.spu import AttentionOp
from spu_ir.dialects.types import DYNAMIC, element_of, numpy_dtype, shape_of
from spu_ir.dialects.vpu import (
    BinaryFn,
    BinaryOp,
    CastOp,
    ExpandOp,
    PackRowsOp,
    ReshapeOp,
    RowOffsetsOp,
    SelectOp,
    UnaryFn,
    UnaryFnAttr,
    UnaryOp,
    UnpackRowsOp,
)
from spu_ir.dialects.weights import WeightStore, store_of
from spu_ir.errors import SpuError
from spu_ir.interpreters import signature_of
from spu_ir.transforms.emitter import Emitter, Extent
from spu_ir.transforms.padding_demand import Demand
from spu_ir.transforms.padding_mask import PaddingMask, extents_of, find_padding_mask
from spu_ir.transforms.padding_rows import first_positions
from spu_ir.transforms.rewriting import constant_op, layer_of

BROADCASTING = (UnaryOp, BinaryOp, SelectOp, CastOp, ExpandOp)
"""Ops whose operands broadcast to their result."""

REMEDY = 'compile it with padding="compute"'


@dataclass(frozen=True)
class SkipPaddingPass(ModulePass):
    """
    Run a model with a padding mask at the cost of its real tokens.

    The input that marks padding is the one from which the masks of attention are computed, each
    key's from its own position, proved by looking at the ops between. A sample's rows end behind
    its last real position. Values of which no padded row can reach a real one are computed on
    packed rows; attention's padded keys are not read. At padded positions outputs hold 0, logits
    their type's lowest finite value. An output is logits if it has one score for each position
    (`[batch, seq]`) or "logits" in its name. A model of which no attention can be packed stays as
    it is. Raises SpuError for one without such a mask.
    """

    name = "skip-padding"
    preserves: ClassVar[str] = "lossy(0)"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in op.ops:
            if isinstance(function, func.FuncOp):
                demand = demand_of(function, ctx)
                Packer(demand, store_of(ctx)).run()

    def reference(self, ctx: Context, module: ModuleOp) -> ModuleOp:
        """`module` with all rows computed, and the padded ones overwritten where packing ends."""
        for function in module.ops:
            if isinstance(function, func.FuncOp):
                demand = demand_of(function, ctx)
                Packer(demand, store_of(ctx)).overwrite()
        return module


def demand_of(function: func.FuncOp, ctx: Context) -> Demand:
    """What a function's values need of their rows. Raises SpuError without a padding mask."""
    attentions = [op for op in function.body.block.ops if isinstance(op, AttentionOp)]
    if not attentions:
        raise SpuError(
            "padding cannot be skipped: the model has no attention whose mask would mark it",
            remedy=REMEDY,
        )
    mask, reasons = find_padding_mask(attentions, ctx)
    if mask is None:
        first = attentions[0]
        raise SpuError(
            f"padding cannot be skipped: no input marks it for attention; {reasons[first]}",
            node=layer_of(first),
            op=first.name,
            remedy=REMEDY,
        )
    for op, reason in reasons.items():
        op.attributes["padding_reason"] = StringAttr(reason)
    return Demand(function, mask)


def are_logits(value: SSAValue, name: str) -> bool:
    """Whether an output `[batch, seq, ...]` has scores, so that its padding is the lowest one."""
    return len(shape_of(value)) == 2 or "logits" in name.lower()


@dataclass
class Packer:
    """Rewrites one function; every value is packed and unpacked once."""

    demand: Demand
    store: WeightStore
    packed: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])
    """What the chosen ops compute, on packed rows."""
    entered: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])
    """Other values, packed."""
    unpacked: dict[tuple[SSAValue, bool], SSAValue] = field(
        default_factory=dict[tuple[SSAValue, bool], SSAValue]
    )

    def __post_init__(self) -> None:
        self.block = self.demand.function.body.block
        self.batch, self.seq = self.demand.extents
        self.chosen = self.demand.packed()

    @property
    def mask(self) -> PaddingMask:
        return self.demand.mask

    def run(self) -> None:
        """Compute the chosen ops on packed rows."""
        self._note_reasons()
        limited = [op for op in self.mask.attentions if self._can_limit(op)]
        needing = {*self.chosen, *limited}
        if not needing:
            return
        self._make_offsets(next(op for op in self.block.ops if op in needing))
        for op in limited:
            new = _attention(op, op.operands[:3], op.init, self.offsets)
            self.block.insert_op_before(new, op)
            self._replace(op, new)
        chosen = set(self.chosen)
        for op in list(self.block.ops):
            if op in chosen:
                self._pack_op(op)
            else:
                self._unpack_operands(op, chosen)
        for op in reversed(self.chosen):
            op.detach()
            op.erase()

    def overwrite(self) -> None:
        """Leave the chosen ops as they are, and replace the padded rows that others see."""
        if not self.chosen:
            return
        chosen = set(self.chosen)
        self._make_offsets(self.chosen[0])
        for op in list(self.block.ops):
            if op in chosen:
                for result in op.results:
                    build = Builder(InsertPoint.after(op))
                    self.packed[result] = self._inserted_pack(build, result)
            else:
                self._unpack_operands(op, chosen)

    def _can_limit(self, op: AttentionOp) -> bool:
        """
        Whether attention on all rows may leave padded keys out, to the bit.

        Where the mask is -infinity, a sample of padding only gives 0 either way.
        """
        if op in self.chosen or op.mask is None:
            return False
        source, polarity = self.mask.source, self.mask.polarity
        return source.is_at_padding(op.mask, -np.inf, polarity)

    def _replace(self, op: Operation, new: Operation) -> None:
        for old, result in zip(op.results, new.results, strict=True):
            result.name_hint = old.name_hint
            old.replace_all_uses_with(result)
        op.detach()
        op.erase()

    def _note_reasons(self) -> None:
        for op in self.mask.attentions:
            reason = self.demand.reason(op)
            if reason is not None:
                op.attributes["padding_reason"] = StringAttr(reason)

    # The rows

    def _make_offsets(self, first: Operation) -> None:
        """Offsets and number of the packed rows, before the first op that needs them."""
        build = Builder(InsertPoint.before(first))
        emit = Emitter(InsertPoint.before(first))
        real = self._real_positions(build)
        length = emit.add(self.batch, 1)
        self.offsets = build.insert(RowOffsetsOp(real, _empty(emit, i64, [length]))).results[0]
        bound = emit.multiply(self.batch, self.seq)
        last = tensor.ExtractOp(self.offsets, [emit.index(self.batch)], i64)
        emit.insert(last)
        rows = emit.value(arith.IndexCastOp(last.result, IndexType()))
        # The bound says how large a buffer of packed rows can get.
        self.rows = emit.value(arith.MinSIOp(rows, emit.index(bound)))
        self.rows.name_hint = "rows"

    def _real_positions(self, build: Builder) -> SSAValue:
        """i1 `[batch, seq]`: where the input says that a position is no padding."""
        mask, polarity = self.mask.source.argument, self.mask.polarity
        emit = Emitter(build.insertion_point)
        dtype = numpy_dtype(element_of(mask))
        (worst, *_), truth = polarity.padding, [self.batch, self.seq]

        def number(value: float) -> SSAValue:
            return build.insert(constant_op(self.store, np.array(value, dtype))).result

        if polarity.below:
            op: Operation = BinaryOp(BinaryFn.GREATER, mask, number(worst), _empty(emit, i1, truth))
            return build.insert(op).results[0]
        if worst == 0:
            if element_of(mask) == i1:
                return mask
            return build.insert(CastOp(mask, _empty(emit, i1, truth))).results[0]
        padding: SSAValue = mask
        if element_of(mask) != i1:
            op = BinaryOp(BinaryFn.EQUAL, mask, number(worst), _empty(emit, i1, truth))
            padding = build.insert(op).results[0]
        op = UnaryOp(padding, _empty(emit, i1, truth), {"fn": UnaryFnAttr(UnaryFn.NOT)})
        return build.insert(op).results[0]

    # Values in and out

    def _inserted_pack(self, build: Builder, value: SSAValue) -> SSAValue:
        """`[rows, ...]` of `[batch or 1, seq or 1, ...]`."""
        emit = Emitter(build.insertion_point)
        init = _empty(emit, element_of(value), [self.rows, *extents_of(value)[2:]])
        op = build.insert(PackRowsOp(value, self.offsets, init))
        _label(op, value)
        return op.results[0]

    def _pack(self, op: Operation, value: SSAValue, rank: int | None) -> SSAValue:
        """The packed rows of an operand, which may broadcast to `rank` axes, made before `op`."""
        if value in self.packed:
            return self.packed[value]
        if value not in self.entered:
            build = Builder(InsertPoint.before(op))
            source = value
            if rank is not None and len(shape_of(value)) < rank:
                source = self._reshaped(build, value, [1, *extents_of(value)])
            self.entered[value] = self._inserted_pack(build, source)
        return self.entered[value]

    def _kept(self, op: Operation, value: SSAValue, rank: int | None) -> SSAValue:
        """An operand that is the same for all rows: with one leading axis less, if it has both."""
        if rank is None or len(shape_of(value)) < rank:
            return value
        return self._reshaped(Builder(InsertPoint.before(op)), value, extents_of(value)[1:])

    def _reshaped(self, build: Builder, value: SSAValue, extents: list[Extent]) -> SSAValue:
        init = _empty(Emitter(build.insertion_point), element_of(value), extents)
        return build.insert(ReshapeOp(value, init)).results[0]

    def _unpack(self, op: Operation, value: SSAValue, *, lowest: bool) -> SSAValue:
        """A packed value with all its positions, made before `op`."""
        key = (value, lowest)
        if key not in self.unpacked:
            build = Builder(InsertPoint.before(op))
            init = _empty(Emitter(build.insertion_point), element_of(value), extents_of(value))
            new = build.insert(UnpackRowsOp(self.packed[value], self.offsets, init, lowest=lowest))
            _label(new, value)
            self.unpacked[key] = new.results[0]
        return self.unpacked[key]

    def _unpack_operands(self, op: Operation, chosen: set[Operation]) -> None:
        """Let an op on all positions read what packed ops computed."""
        if isinstance(op, tensor.DimOp):
            return
        logits = self._logits() if isinstance(op, func.ReturnOp) else ()
        for number, operand in enumerate(op.operands):
            owner = operand.owner
            if not isinstance(owner, Operation) or owner not in chosen:
                continue
            if first_positions(op, self.demand.is_rows):
                assert isinstance(op, DestinationOp)
                build = Builder(InsertPoint.before(op))
                new = build.insert(UnpackRowsOp(self.packed[operand], self.offsets, op.inits[0]))
                _label(new, op.results[0])
                self._replace(op, new)
                return
            op.operands[number] = self._unpack(op, operand, lowest=number in logits)

    def _logits(self) -> set[int]:
        """The numbers of the outputs that are scores."""
        returned = self.block.last_op
        assert isinstance(returned, func.ReturnOp)
        ports = signature_of(self.demand.function).outputs
        outputs = zip(returned.operands, ports, strict=True)
        return {
            number for number, (value, port) in enumerate(outputs) if are_logits(value, port.name)
        }

    # Ops on packed rows

    def _pack_op(self, op: Operation) -> None:
        assert isinstance(op, DestinationOp)
        taken = self.demand.row_operands(op)
        rank = len(shape_of(op.inits[0])) if isinstance(op, BROADCASTING) else None
        inputs = [
            self._pack(op, value, rank) if value in taken else self._kept(op, value, rank)
            for value in op.inputs
        ]
        emit = Emitter(InsertPoint.before(op))
        inits = [
            _empty(emit, element_of(init), [self.rows, *extents_of(init)[2:]]) for init in op.inits
        ]
        if isinstance(op, AttentionOp):
            new: Operation = _attention(op, inputs[:3], inits[0], self.offsets)
        else:
            new = type(op).create(
                operands=[*inputs, *inits],
                result_types=[init.type for init in inits],
                properties={**op.properties, **self.demand.rules[op].properties},
                attributes=dict(op.attributes),
            )
        self.block.insert_op_before(new, op)
        for old, result in zip(op.results, new.results, strict=True):
            result.name_hint = old.name_hint
            self.packed[old] = result


def _attention(
    op: AttentionOp, inputs: Sequence[SSAValue], init: SSAValue, offsets: SSAValue
) -> AttentionOp:
    """Attention as `op` on other q, k and v, of which a sample's first rows count."""
    q, k, v = inputs
    return AttentionOp(
        q,
        k,
        v,
        op.mask,
        init,
        heads=op.heads.value.data,
        kv_heads=op.kv_heads.value.data,
        scale=op.scale.value.data,
        causal=bool(op.causal.value.data),
        offsets=offsets,
        attributes=dict(op.attributes),
    )


def _empty(emit: Emitter, element: Attribute, extents: Sequence[Extent]) -> SSAValue:
    """A `tensor.empty`."""
    dynamic = [extent for extent in extents if isinstance(extent, SSAValue)]
    shape = [extent if isinstance(extent, int) else DYNAMIC for extent in extents]
    return emit.value(tensor.EmptyOp(dynamic, TensorType(element, shape)))


def _label(op: Operation, value: SSAValue) -> None:
    """Give an op the layer of the one that makes `value`."""
    name = layer_of(value.owner) if isinstance(value.owner, Operation) else None
    if name is not None:
        op.attributes["layer"] = StringAttr(name)
