"""Which values need their real rows only, and which of these are worth packing."""

from __future__ import annotations

from dataclasses import dataclass, field

from xdsl.dialects import func, tensor
from xdsl.ir import Operation, OpResult, SSAValue

from spu_ir.dialects.spu import AttentionOp
from spu_ir.dialects.types import shape_of
from spu_ir.dialects.vpu import BinaryFn, BinaryOp, SelectOp
from spu_ir.transforms.padding_mask import PaddingMask, Unproven, extents_of
from spu_ir.transforms.padding_rows import RowRule, first_positions, row_rule
from spu_ir.transforms.rewriting import layer_of


@dataclass
class Demand:
    """
    What the users of every `[batch, seq, ...]` value of a function need of it.

    A value needs its real rows only, unless an op that looks across rows reads it, or one that
    passes rows on to such an op. Attention never reads padded keys; a product with 0, or the other
    side of a select, hides what padding holds.
    """

    function: func.FuncOp
    mask: PaddingMask
    rules: dict[Operation, RowRule] = field(default_factory=dict[Operation, RowRule])
    all_rows: dict[SSAValue, Operation] = field(default_factory=dict[SSAValue, Operation])
    """Values of which all rows are needed, with the op that looks across them."""

    within: set[AttentionOp] = field(default_factory=set[AttentionOp])
    """The masked attentions whose queries are rows of the same sequence as their keys."""

    def __post_init__(self) -> None:
        self.extents = self.mask.extents
        for op in self.function.body.block.ops:
            rule = row_rule(op, self.is_rows)
            if rule is not None:
                self.rules[op] = rule
        self.within = {op for op in self.mask.attentions if self._is_within(op)}
        for op in reversed(list(self.function.body.block.ops)):
            self._see(op)

    def _is_within(self, op: AttentionOp) -> bool:
        """
        Whether q, k and v are computed row by row from some value that they share.

        Otherwise the queries may be another sequence, which happens to be as long.
        """
        if not all(map(self.is_rows, (*op.results, op.q, op.k, op.v))):
            return False
        return bool(self._sources(op.q) & self._sources(op.k) & self._sources(op.v))

    def _sources(self, value: SSAValue) -> set[SSAValue]:
        """A value, and those that it is computed from row by row."""
        found = {value}
        waiting = [value]
        while waiting:
            owner = waiting.pop().owner
            operands: list[SSAValue] = []
            if isinstance(owner, AttentionOp):
                operands = [owner.q]
            elif isinstance(owner, Operation) and owner in self.rules:
                operands = list(self.rules[owner].rows)
            fresh = [
                operand
                for operand in operands
                if operand not in found and self.is_rows(operand) and not self.of_mask(operand)
            ]
            found.update(fresh)
            waiting += fresh
        return found

    def is_rows(self, value: SSAValue) -> bool:
        """Whether a value is `[batch, seq, ...]`."""
        return len(shape_of(value)) >= 2 and extents_of(value)[:2] == self.extents

    def of_mask(self, value: SSAValue) -> bool:
        """Whether a value follows from the mask alone."""
        try:
            return self.mask.source.columns_of(value) is not None
        except Unproven:
            return False

    def _see(self, op: Operation) -> None:
        if isinstance(op, func.ReturnOp | tensor.DimOp | tensor.EmptyOp):
            return
        if first_positions(op, self.is_rows):
            return
        blame = next((self.all_rows[r] for r in op.results if r in self.all_rows), None)
        if isinstance(op, AttentionOp) and op in self.mask.attentions:
            if blame is not None or op not in self.within:
                self.all_rows.setdefault(op.q, blame or op)
            return
        rule = self.rules.get(op)
        hidden = self._hidden(op)
        for operand in op.operands:
            if rule is None:
                self.all_rows.setdefault(operand, op)
            elif blame is not None and operand not in hidden:
                self.all_rows.setdefault(operand, blame)

    def _hidden(self, op: Operation) -> list[SSAValue]:
        """The operands whose padded rows an element-wise op does not let through."""
        polarity = self.mask.polarity
        if isinstance(op, BinaryOp) and op.fn.data is BinaryFn.MUL:
            return [
                value
                for value, other in ((op.a, op.b), (op.b, op.a))
                if self._aligned(op, other) and self.mask.source.is_at_padding(other, 0, polarity)
            ]
        if isinstance(op, SelectOp) and self._aligned(op, op.condition):
            return [
                value
                for value, chosen in ((op.a, 0), (op.b, 1))
                if self.mask.source.is_at_padding(op.condition, chosen, polarity)
            ]
        return []

    def _aligned(self, op: BinaryOp | SelectOp, value: SSAValue) -> bool:
        """Whether a value of the mask's samples and positions meets the same ones of the result."""
        if not self.is_rows(op.init):
            return False
        try:
            columns = self.mask.source.columns_of(value)
        except Unproven:
            return False
        if columns is None:
            return False
        first = len(shape_of(op.init)) - len(shape_of(value))
        batch = columns.batch is None or columns.batch + first == 0
        return batch and columns.position + first == 1

    def packed(self) -> list[Operation]:
        """
        The ops to run on packed rows, in order.

        They need real rows only and are connected with an attention that does, since packing
        pays where products and attention are.
        """
        chosen = [op for op in self.function.body.block.ops if self._can_pack(op)]
        kept = set(chosen)
        group = {op: op for op in chosen}

        def find(op: Operation) -> Operation:
            while group[op] is not op:
                op = group[op]
            return op

        for op in chosen:
            for operand in self.row_operands(op):
                owner = operand.owner
                if isinstance(owner, Operation) and owner in kept:
                    group[find(owner)] = find(op)
        anchors = {find(op) for op in chosen if isinstance(op, AttentionOp)}
        return [op for op in chosen if find(op) in anchors]

    def row_operands(self, op: Operation) -> list[SSAValue]:
        """The operands of an op on packed rows that are packed."""
        if isinstance(op, AttentionOp):
            return [op.q, op.k, op.v]
        return list(self.rules[op].rows)

    def _can_pack(self, op: Operation) -> bool:
        if op not in self.rules and not (isinstance(op, AttentionOp) and op in self.within):
            return False
        results: list[OpResult] = list(op.results)
        return not any(result in self.all_rows or self.of_mask(result) for result in results)

    def reason(self, op: AttentionOp) -> str | None:
        """Why an attention's rows are all computed; None where they are not."""
        if op not in self.within:
            return "its queries are not known to be rows of the sequence that is masked"
        blame = self.all_rows.get(op.results[0])
        if blame is None:
            return None
        name = layer_of(blame)
        where = f"{blame.name} of {name}" if name else blame.name
        return f"all rows of its result are needed by {where}"
