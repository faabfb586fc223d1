"""Where an error comes from: every product's activation against FP32's at the same place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from xdsl.ir import Operation
from xdsl.parser import Parser

from spu_ir.api import Compilation
from spu_ir.dialects.spu import EpilogueOp
from spu_ir.dialects.types import element_of, f32
from spu_ir.interpreters import interpret
from spu_ir.transforms.rewriting import layer_of

from .fidelity_cases import Array, Feeds, relative
from .fidelity_ort import outputs_of, tapped

SAME = 2e-3
"""Values this near to each other are the same place of two FP32 graphs."""

DEQUANTISED = "_DequantizeLinear_Output"
"""What the QDQ quantiser adds to the name of a value that it put on a grid."""


@dataclass(frozen=True)
class LayerError:
    """One product: relative L2 errors of its output, with all that came before it in INT8."""

    layer: str
    shape: str
    ours: float
    ort: float | None
    """None where ONNX Runtime has no such value: its graph was fused otherwise."""


@dataclass
class Products:
    """Keeps the output of every product that is interpreted, as f32, by layer and occurrence."""

    values: dict[tuple[str, int], Array]

    def __call__(self, op: Operation, results: Sequence[Any]) -> None:
        name = layer_of(op)
        if not isinstance(op, EpilogueOp) or name is None:
            return
        number = sum(layer == name for layer, _ in self.values)
        array: Array = np.asarray(results[0])
        if element_of(op.init) != f32 and op.out_scale is not None:
            zero = 0 if op.out_zero is None else op.out_zero.value.data
            array = (array.astype(np.float32) - zero) * np.float32(op.out_scale.value.data)
        self.values[name, number] = array.astype(np.float32)


def products_at(job: Compilation, stage: str, feeds: Feeds) -> dict[tuple[str, int], Array]:
    """The outputs of the products of a stage on tensors, by the bit-exact interpreter."""
    module = Parser(job.ctx, job.stages[stage]).parse_module()
    seen = Products({})
    interpret(module, job.ctx, feeds, listener=seen)
    return seen.values


def layer_errors(
    job: Compilation, ready: onnx.ModelProto, theirs: onnx.ModelProto | None, feeds: Feeds
) -> list[LayerError]:
    """
    The errors of all products of a compilation to INT8, in order.

    `ready` is the FP32 model that ONNX Runtime quantised, and `theirs` the result. A value of its
    graph is the same place as ours when the FP32 numbers are the same, whatever the names.
    """
    want = products_at(job, "tensor", feeds)
    got = products_at(job, "quantised", feeds)
    ort = {} if theirs is None else ort_values(ready, theirs, want, feeds)
    rows: list[LayerError] = []
    for key, value in want.items():
        if key not in got:
            continue
        other = ort.get(key)
        rows.append(
            LayerError(
                layer=key[0] if key[1] == 0 else f"{key[0]} #{key[1] + 1}",
                shape="x".join(map(str, value.shape)),
                ours=relative(got[key], value),
                ort=None if other is None else relative(other, value),
            )
        )
    return rows


def ort_values(
    ready: onnx.ModelProto,
    theirs: onnx.ModelProto,
    want: dict[tuple[str, int], Array],
    feeds: Feeds,
) -> dict[tuple[str, int], Array]:
    """ONNX Runtime's INT8 values at the places of `want`, in our layout."""
    places = same_places(ready, want, feeds)
    produced = {name for node in theirs.graph.node for name in node.output}
    named: dict[tuple[str, int], str] = {}
    for key, (name, _) in places.items():
        for candidate in (name + DEQUANTISED, name):
            if candidate in produced:
                named[key] = candidate
                break
    found = outputs_of(tapped(theirs, list(named.values())), feeds, sorted(set(named.values())))
    return {
        key: turned(found[name]) if places[key][1] else found[name] for key, name in named.items()
    }


def same_places(
    ready: onnx.ModelProto, want: dict[tuple[str, int], Array], feeds: Feeds
) -> dict[tuple[str, int], tuple[str, bool]]:
    """
    For every product the first value of the FP32 graph that has the same numbers, and whether
    they are channels first there.
    """
    inferred = onnx.shape_inference.infer_shapes(ready)
    kinds = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    kinds |= {v.name: v.type.tensor_type.elem_type for v in inferred.graph.output}
    names = [
        name
        for node in ready.graph.node
        for name in node.output
        if kinds.get(name) == onnx.TensorProto.FLOAT
    ]
    values = outputs_of(tapped(ready, names), feeds, names)
    places: dict[tuple[str, int], tuple[str, bool]] = {}
    for key, array in want.items():
        for name in names:
            value = values[name]
            if value.size != array.size or key in places:
                continue
            # Reshapes and transposes that follow have the numbers too, but may be folded.
            if near(value, array):
                places[key] = (name, False)
            elif value.ndim == 4 and near(turned(value), array):
                places[key] = (name, True)
    return places


def near(a: Array, b: Array) -> bool:
    """Whether two arrays of one size are the same up to FP32's rounding."""
    x, y = a.reshape(-1), b.reshape(-1)
    sample = slice(None, None, max(1, x.size // 512))
    return relative(x[sample], y[sample]) < SAME and relative(x, y) < SAME


def turned(value: Array) -> Array:
    """`[n, c, h, w]` as `[n, h, w, c]`."""
    return np.ascontiguousarray(value.transpose(0, 2, 3, 1))


def summary(rows: Sequence[LayerError]) -> dict[str, Any]:
    """The first layer, the worst of ours, and the worst of ours against ONNX Runtime's."""
    compared = [row for row in rows if row.ort]
    worst = max(rows, key=lambda row: row.ours, default=None)
    against = max(compared, key=lambda row: row.ours / (row.ort or 1), default=None)
    return {
        "first": asdict(rows[0]) if rows else None,
        "worst": None if worst is None else asdict(worst),
        "worst_against_ort": None if against is None else asdict(against),
        "compared": len(compared),
        "better": sum(row.ours <= (row.ort or 0) for row in compared),
    }
