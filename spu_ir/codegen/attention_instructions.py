"""C of the SPU's attention, of f32 and packed, and of packing keys and values."""

from __future__ import annotations

from xdsl.ir import Operation

from spu_ir.codegen.printer import Instruction, Printer
from spu_ir.codegen.scope import Expr, Scope, View
from spu_ir.codegen.spu_instructions import number_of
from spu_ir.dialects.spu import AttentionOp, PackedAttentionOp, PackKeysOp, PackValuesOp
from spu_ir.dialects.spu_attention import KEY_BLOCK
from spu_ir.dialects.types import shape_of
from spu_ir.errors import SpuError


def _at(view: View, batch: str, row: str | None = None) -> str:
    """Where a sample of a view begins, or one of its rows."""
    place = f"{view.pointer} + {batch} * {view.strides[0]}"
    return place if row is None else f"{place} + {row} * {view.strides[1]}"


def _mask(mask: View | None, batch: str, row: str) -> str:
    """The mask's arguments: pointer to a row, stride of rows, stride of keys."""
    if mask is None:
        return "NULL, 0, 0"
    parts = [mask.pointer]
    if mask.dims[0] != 1:
        parts.append(f"{batch} * {mask.strides[0]}")
    row_stride = mask.strides[2] if mask.dims[2] != 1 else 0
    if row_stride != 0:
        parts.append(f"{row} * {row_stride}")
    column = mask.strides[3] if mask.dims[3] != 1 else 0
    return f"{' + '.join(parts)}, {row_stride}, {column}"


def _open_tiles(scope: Scope, out: View) -> tuple[str, str, str]:
    """Loops over samples and blocks of query rows: the sample, the first row, the row count."""
    batch, step = scope.counter(), scope.counter()
    scope.open(f"for (int64_t {batch} = 0; {batch} < {out.dims[0]}; {batch}++)")
    rows = out.dims[1]
    scope.open(f"for (int64_t {step} = 0; {step} < {rows}; {step} += SPU_ATTENTION_ROWS)")
    left = scope.let(f"{rows} - {step}")
    return batch, step, scope.let(f"{left} < SPU_ATTENTION_ROWS ? {left} : SPU_ATTENTION_ROWS")


def _attention(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, AttentionOp)
    if op.heads.value.data != 1:
        raise SpuError("attention must be tiled to one head before code generation")
    q, k, v, out = (scope.view(value) for value in (op.q, op.k, op.v, op.init))
    mask = scope.view(op.mask) if op.mask is not None else None
    batch, step, count = _open_tiles(scope, out)
    causal = step if op.causal.value.data else "-1"
    scope.line(
        f"spu_attention_f32({_at(q, batch, step)}, {q.strides[1]}, {_at(k, batch)}, "
        f"{k.strides[1]}, {_at(v, batch)}, {v.strides[1]}, {_mask(mask, batch, step)}, "
        f"{_at(out, batch, step)}, {out.strides[1]}, (int32_t){count}, {k.dims[1]}, {q.dims[2]}, "
        f"{v.dims[2]}, {number_of(scope, op.scale)}, {causal});"
    )
    scope.close()
    scope.close()


def _packed_attention(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, PackedAttentionOp)
    if op.heads.value.data != 1 or op.offsets is not None:
        raise SpuError("attention must be tiled to one head before code generation")
    operands = (op.q, op.k, op.k_scale, op.v, op.v_scales, op.init)
    q, k, k_scale, v, v_scales, out = (scope.view(value) for value in operands)
    mask = scope.view(op.mask) if op.mask is not None else None
    batch, step, count = _open_tiles(scope, out)
    keys: Expr = scope.multiply(k.dims[2], KEY_BLOCK)
    if mask is not None and mask.dims[3] != 1:
        keys = mask.dims[3]
    causal = step if op.causal.value.data else "-1"
    levels = f"{_at(v_scales, batch)} + {v_scales.strides[2]}"
    scope.line(
        f"spu_attention_int8({_at(q, batch, step)}, {q.strides[1]}, {_at(k, batch)}, "
        f"{_at(k_scale, batch)}, {_at(v, batch)}, {_at(v_scales, batch)}, {levels}, "
        f"{_mask(mask, batch, step)}, {_at(out, batch, step)}, {out.strides[1]}, "
        f"(int32_t){count}, {keys}, {q.dims[2]}, {out.dims[2]}, {number_of(scope, op.scale)}, "
        f"{causal});"
    )
    scope.close()
    scope.close()


def _pack_heads(_: Printer, scope: Scope, op: Operation) -> None:
    assert isinstance(op, PackKeysOp | PackValuesOp)
    if shape_of(op.init)[1] != 1 or op.offsets is not None:
        raise SpuError("heads must be tiled to one before code generation")
    x, out, scale = (scope.view(value) for value in (op.x, op.init, op.scale_init))
    batch = scope.counter()
    scope.open(f"for (int64_t {batch} = 0; {batch} < {out.dims[0]}; {batch}++)")
    scales = _at(scale, batch)
    if isinstance(op, PackValuesOp):
        scales = f"{scales}, {scales} + {scale.strides[2]}"
    name = "spu_pack_keys" if isinstance(op, PackKeysOp) else "spu_pack_values"
    scope.line(
        f"{name}({_at(x, batch)}, {x.strides[1]}, {x.dims[1]}, {x.dims[2]}, {_at(out, batch)}, "
        f"{scales});"
    )
    scope.close()


ATTENTION_INSTRUCTIONS: dict[type[Operation], Instruction] = {
    AttentionOp: _attention,
    PackedAttentionOp: _packed_attention,
    PackKeysOp: _pack_heads,
    PackValuesOp: _pack_heads,
}
