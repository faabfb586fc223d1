"""
A model run op by op, every op on all feeds before the next one.

So the inputs of a layer can be looked at, its weight changed, and everything after it computed
with the new one, in one run. The ops are the compiler's, in FP32 before any precision is chosen;
numpy executes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from xdsl.dialects.func import ReturnOp
from xdsl.ir import SSAValue

from spu_ir.dialects.antoum import ConstantOp
from spu_ir.dialects.spu import ConvOp, EpilogueOp, integers
from spu_ir.dialects.types import shape_of
from spu_ir.dialects.weights import store_of
from spu_ir.errors import SpuError
from spu_ir.frontend.extents import clean_name
from spu_ir.interpreters import bind, machine_for, main_of, signature_of
from spu_ir.interpreters.machine import steps_of
from spu_ir.interpreters.spu import patches

from .banks import Array

Feeds: TypeAlias = Mapping[str, Array]
F32: TypeAlias = NDArray[np.float32]

CHUNK_BYTES = 64 << 20
"""Patches of a convolution are copied so many bytes at a time."""

NODE = "node"
"""Before i, what node i is called for the compiler: its own name may occur twice."""


@dataclass(eq=False)
class Product:
    """A product or convolution that the compiler made of a node with a constant weight."""

    op: EpilogueOp
    node: int
    """The node's place in the ONNX graph."""
    weight: F32
    """`[N, K]`, in the order of the compiler."""
    pruned: F32 | None = None
    """What the pruned model has instead."""

    @property
    def grouped(self) -> bool:
        """Whether outputs see different channels, so that they have no input in common."""
        return isinstance(self.op, ConvOp) and self.op.groups.value.data > 1

    def inputs(self, x: Array) -> Iterator[F32]:
        """The rows that the weight meets, f32 `[M, K]` a chunk, of x as the op has it."""
        if not isinstance(self.op, ConvOp):
            yield x.reshape(-1, x.shape[-1])
            return
        _, kh, kw, _ = shape_of(self.op.weight)
        top, left, bottom, right = integers(self.op.pads)
        for image in x:
            padded = np.pad(image, ((top, bottom), (left, right), (0, 0)))
            windows = patches(padded[None], (kh, kw), self.op)[0]
            depth = self.weight.shape[1]
            lines = max(1, CHUNK_BYTES // (windows.shape[1] * depth * 4))
            for line in range(0, len(windows), lines):
                yield windows[line : line + lines].reshape(-1, depth)


Visit: TypeAlias = Callable[[Product, "list[Array]", "list[Array]"], bool]
"""
Called with a product before it is computed, and what it reads on every feed: in the pruned model,
and in the dense one (the same arrays where nothing was pruned yet). False ends the run.
"""

_State: TypeAlias = dict[SSAValue, Any]
"""The values of one feed."""

Inputs = Literal["pruned", "dense"]
"""Whether layers see what they read in the pruned model, or in the dense one."""


class Network:
    """A model at the level of `spu` and `vpu` on tensors, and the feeds to run it on."""

    def __init__(self, model: onnx.ModelProto, feeds: Sequence[Feeds]):
        """
        Raises SpuError for a model that cannot be compiled, and feeds that do not fit it.
        """
        from spu_ir.api import new_context
        from spu_ir.frontend import import_model
        from spu_ir.transforms.pipelines import GRAPH, LOWER

        if not feeds:
            raise SpuError(
                "there is nothing to calibrate with", remedy="pass at least one feed of every input"
            )
        named = onnx.ModelProto()
        named.CopyFrom(model)
        for number, node in enumerate(named.graph.node):
            node.name = f"{NODE}{number}"
        ctx = new_context()
        self.module = import_model(named, ctx, shapes=_shapes(named.graph, feeds))
        for each in (*GRAPH, *LOWER):
            each.apply(ctx, self.module)
        self.store = store_of(ctx)
        main = main_of(self.module)
        self.block = main.body.block
        ports = signature_of(main).inputs
        self.arrays = [bind(ports, feed)[0] for feed in feeds]
        self.products = {p.op: p for p in self._products()}

    def _products(self) -> Iterator[Product]:
        from spu_ir.transforms.rewriting import constant_of, layer_of

        for op in self.block.ops:
            if not isinstance(op, EpilogueOp):
                continue
            weight, name = constant_of(op.weight, self.store), layer_of(op)
            number = (name or "").removeprefix(NODE)
            if weight is not None and weight.dtype == np.float32 and number.isdecimal():
                rows = np.array(weight, np.float32).reshape(len(weight), -1)
                yield Product(op, int(number), rows)

    def run(self, visit: Visit, *, inputs: Inputs, limit: int) -> None:
        """
        Compute every op on every feed, in the pruned model and in the dense one.

        What is pruned of a product by the time that it is computed counts. With `inputs="dense"`
        only the dense model is computed. Raises SpuError when the values that are needed at one
        time take more than `limit` bytes.
        """
        machine = machine_for(self.module, self.store, exact_f32=False, listener=None)
        states: list[_State] = [
            dict[SSAValue, Any](zip(self.block.args, arrays, strict=True)) for arrays in self.arrays
        ]
        dense = states
        constants: dict[SSAValue, Any] = {}
        for op, operands, results, dying in steps_of(self.block):
            if isinstance(op, ReturnOp):
                return
            if isinstance(op, ConstantOp):
                constants[results[0]] = machine.run_op(op, ())[0]
                continue
            pruned: F32 | None = None
            if isinstance(op, EpilogueOp) and op in self.products:
                product = self.products[op]
                x, d = ([state[operands[0]] for state in each] for each in (states, dense))
                if not visit(product, x, d):
                    return
                pruned = product.pruned if inputs == "pruned" else None
                if pruned is not None and dense is states:
                    dense = [dict(state) for state in states]
            for stream in (states,) if dense is states else (states, dense):
                for state in stream:
                    values = [constants[v] if v in constants else state[v] for v in operands]
                    if pruned is not None and stream is states:
                        values[1] = pruned.reshape(values[1].shape)
                    state.update(zip(results, machine.run_op(op, tuple(values)), strict=True))
                    for value in dying:
                        state.pop(value, None)
            for value in dying:
                constants.pop(value, None)
            _check_held([*states, *dense], limit)


def _check_held(states: Sequence[_State], limit: int) -> None:
    # Several values may be views of one array, and the two models share what is equal.
    held: dict[int, int] = {}
    for state in states:
        for value in state.values():
            if isinstance(value, np.ndarray):
                array = cast("Array", value)
                while isinstance(array.base, np.ndarray):
                    array = cast("Array", array.base)
                held[id(array)] = array.nbytes
    if sum(held.values()) > limit:
        raise SpuError(
            f"the activations of all feeds take more than {limit >> 20} MiB",
            remedy="calibrate with fewer or smaller feeds, or allow more memory",
        )


def _shapes(graph: onnx.GraphProto, feeds: Sequence[Feeds]) -> dict[str, Any]:
    """The run-time extents of the inputs, as `spu_ir.compile` takes them: those of the feeds."""
    sizes: dict[str, set[int]] = {}
    shapes: dict[str, Any] = {}
    initialisers = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name in initialisers:
            continue
        if any(value.name not in feed for feed in feeds):
            raise SpuError(f"input {value.name!r} is missing in a calibration feed")
        given = [np.shape(feed[value.name]) for feed in feeds]
        kind = value.type.tensor_type
        if not kind.HasField("shape"):
            kind_sizes = list(zip(*given, strict=False))
            shapes[value.name] = [_extent(set(each)) for each in kind_sizes]
            continue
        for axis, dim in enumerate(kind.shape.dim):
            if dim.HasField("dim_value"):
                continue
            name = dim.dim_param or f"{clean_name(value.name)}_dim{axis}"
            sizes.setdefault(name, set()).update(s[axis] for s in given if axis < len(s))
    return shapes | {name: _extent(found) for name, found in sizes.items() if found}


def _extent(sizes: set[int]) -> int | tuple[int, int]:
    low, high = min(sizes), max(sizes)
    return low if low == high else (low, high)
