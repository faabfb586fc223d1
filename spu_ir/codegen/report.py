"""What became of every layer: the rows of `CompiledModel.report`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xdsl.dialects.builtin import FloatAttr, ModuleOp, StringAttr
from xdsl.ir import Attribute, Operation

from spu_ir.dialects.antoum import ConstantOp
from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.spu import EpilogueOp, PackedAttentionOp, PackKeysOp, PackValuesOp
from spu_ir.dialects.types import element_of, shape_of, show_shape, ui8
from spu_ir.dialects.vpu_packed import is_packed
from spu_ir.runtime.program import Json

_PRECISIONS = {"ui8": "int8", "i8": "int8", "bf16": "bf16", "f32": "fp32"}

REASONS = ("fallback_reason", "precision_reason", "dense_reason", "padding_reason")
"""Attributes that say why an op is not as was asked for."""


@dataclass(frozen=True)
class LayerRow:
    """One op that has a layer's name, on tensors, with what the passes recorded of it."""

    layer: str
    op: str
    shape: str
    precision: str
    density: float | None
    format: str
    padding: str
    """`skip` if only the real rows are computed, `keys` if attention reads only these."""
    reason: str
    weight: Attribute | None
    """The value of its constant weight, by which the packed bytes are found."""

    def json(self, bytes_of: Mapping[Attribute, int]) -> dict[str, Json]:
        """The row with the packed weight's bytes (0 for an op without one)."""
        return {
            "layer": self.layer,
            "op": self.op,
            "shape": self.shape,
            "precision": self.precision,
            "density": self.density,
            "format": self.format,
            "bytes": bytes_of.get(self.weight, 0) if self.weight is not None else 0,
            "padding": self.padding,
            "reason": self.reason,
        }


def layer_report(module: ModuleOp) -> list[LayerRow]:
    """A row for every spu and vpu op of a module on tensors that carries a layer's name."""
    rows: list[LayerRow] = []
    for op in module.walk():
        layer = _text(op, "layer")
        if isinstance(op, DestinationOp) and layer:
            rows.append(_row(op, layer))
    return rows


def _row(op: DestinationOp, layer: str) -> LayerRow:
    weight, shape, density = None, show_shape(shape_of(op.inits[0])), None
    if isinstance(op, EpilogueOp):
        owner = op.weight.owner
        weight = owner.value if isinstance(owner, ConstantOp) else None
        shape = f"{show_shape(shape_of(op.weight))} -> {shape}"
        found = op.attributes.get("density")
        density = round(found.value.data, 6) if isinstance(found, FloatAttr) else None
    return LayerRow(
        layer=layer,
        op=op.name,
        shape=shape,
        precision=_precision(op),
        density=density,
        format=_text(op, "format"),
        padding=_padding(op),
        reason="; ".join(filter(None, (_text(op, name) for name in REASONS))),
        weight=weight,
    )


def _precision(op: DestinationOp) -> str:
    """The arithmetic of an op: that of its first operand, or INT8 of attention's packed heads."""
    packed = isinstance(op, PackKeysOp | PackValuesOp | PackedAttentionOp)
    element = element_of(op.operands[0])
    return "int8" if packed or element == ui8 else _PRECISIONS.get(str(element), str(element))


def _padding(op: DestinationOp) -> str:
    if any(is_packed(value) for value in op.operands):
        return "skip"
    return "keys" if getattr(op, "offsets", None) is not None else "compute"


def _text(op: Operation, name: str) -> str:
    found = op.attributes.get(name)
    return found.data if isinstance(found, StringAttr) else ""
