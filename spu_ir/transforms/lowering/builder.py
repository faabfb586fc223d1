"""Makes `spu` and `vpu` ops on tensors: each with its `tensor.empty`, dims and `layer` name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from xdsl.builder import Builder
from xdsl.dialects import tensor
from xdsl.dialects.builtin import (
    FloatAttr,
    IntegerAttr,
    StringAttr,
    TensorType,
    f32,
    i1,
    i64,
)
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.rewriter import InsertPoint
from xdsl.utils.exceptions import VerifyException

from spu_ir.dialects import spu, vpu
from spu_ir.dialects.antoum import ConstantOp
from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.types import DYNAMIC, Array, element_of, shape_of
from spu_ir.dialects.vpu import BinaryFn, PoolFn, ReduceFn, UnaryFn, array_attr
from spu_ir.dialects.weights import WeightStore, constant_attr
from spu_ir.errors import SpuError

from .dims import Dim, Extents

Dims = tuple[Dim, ...]


def _meaning(op: vpu.VpuOp) -> object:
    """What two ops have in common that compute the same; equal dims are the same SSA values."""
    owner = op.init.owner
    assert isinstance(owner, tensor.EmptyOp), "every init here is made by `empty`"
    sizes = tuple(owner.dynamic_sizes)
    return type(op), tuple(op.inputs), frozenset(op.properties.items()), op.init.type, sizes


class TensorBuilder:
    """Inserts ops at one point that moves on; every method returns the new tensor."""

    def __init__(self, store: WeightStore, point: InsertPoint):
        self.store = store
        self.builder = Builder(point)
        self.extents = Extents(self.builder.insert)
        self.layer = ""
        """Name of the ONNX node that is being lowered: the `layer` of every op that is made."""
        self.operator = ""
        """Its operator, for messages."""
        self._dims: dict[SSAValue, Dims] = {}
        self._constants: dict[Attribute, SSAValue] = {}
        self._made: dict[object, SSAValue] = {}

    def error(self, cause: str, remedy: str | None = None) -> SpuError:
        """An error that names the node which is being lowered."""
        return SpuError(cause, node=self.layer, op=self.operator, remedy=remedy)

    # Values

    def dims(self, value: SSAValue) -> Dims:
        """The dims of a lowered tensor."""
        return self._dims[value] if value in self._dims else shape_of(value)

    def set_dims(self, value: SSAValue, dims: Sequence[Dim]) -> None:
        """Record the dims of a tensor that was not made here."""
        self._dims[value] = tuple(dims)

    def static_dims(self, value: SSAValue, what: str) -> tuple[int, ...]:
        """The dims of a tensor that must be known at compile time."""
        dims = self.dims(value)
        if not all(isinstance(d, int) for d in dims):
            raise self.error(
                f"{what} must be known at compile time",
                "fix the extents of the model's inputs with shapes={'name': number}",
            )
        return cast("tuple[int, ...]", dims)

    def constant(self, array: Array) -> SSAValue:
        """`antoum.constant` of an array; equal constants are one value."""
        attribute = constant_attr(self.store, array)
        if attribute not in self._constants:
            self._constants[attribute] = self.builder.insert(ConstantOp(attribute)).result
        return self._constants[attribute]

    def scalar(self, value: float) -> SSAValue:
        """A constant f32 tensor of rank 0."""
        return self.constant(np.array(value, np.float32))

    def empty(self, dims: Sequence[Dim], element: Attribute) -> SSAValue:
        """`tensor.empty` of `dims`."""
        shape = [d if isinstance(d, int) else DYNAMIC for d in dims]
        sizes = [self.extents.value(d) for d in dims if not isinstance(d, int)]
        value = self.builder.insert(tensor.EmptyOp(sizes, TensorType(element, shape))).tensor
        self._dims[value] = tuple(dims)
        return value

    def emit(self, op: DestinationOp) -> SSAValue:
        """
        Insert an op, verify it and return its first result.

        One of the VPU that an earlier op equals is that one, whichever node it came from.
        """
        key = _meaning(op) if isinstance(op, vpu.VpuOp) else None
        if key is not None and key in self._made:
            op.erase()
            return self._made[key]
        op.attributes["layer"] = StringAttr(self.layer)
        try:
            op.verify()
        except VerifyException as error:
            raise self.error(f"cannot be lowered: {error}") from error
        self.builder.insert(cast("Operation", op))
        for init, result in zip(op.inits, op.results, strict=True):
            self._dims[result] = self._dims[init]
        if key is not None:
            self._made[key] = op.results[0]
        return op.results[0]

    # Dims

    def same(self, a: Dim, b: Dim, what: str) -> None:
        """Raise unless a == b is certain."""
        if a != b:
            raise self.error(
                f"{what} must be equal, {self.show(a)} and {self.show(b)} are not known to be",
                "give both extents one name in the model, or one number each in shapes",
            )

    def show(self, dim: Dim) -> str:
        """A dim as messages print it: a number, or the names of its atoms."""
        if isinstance(dim, int):
            return str(dim)
        value = self.extents.value(dim)
        return value.name_hint or "a run-time extent"

    def broadcast(self, *dims: Dims) -> Dims:
        """The common dims of operands, by numpy's rules."""
        rank = max(len(d) for d in dims)
        result: list[Dim] = []
        for axis in range(-rank, 0):
            column: list[Dim] = [d[axis] for d in dims if len(d) >= -axis and d[axis] != 1]
            for dim in column[1:]:
                self.same(column[0], dim, f"the operands' dims at axis {axis}")
            result.append(column[0] if column else 1)
        return tuple(result)

    # vpu

    def unexpanded(self, x: SSAValue) -> SSAValue:
        """What an expanded tensor was before: an op that broadcasts takes that as well."""
        return x.owner.x if isinstance(x.owner, vpu.ExpandOp) else x

    def unary(self, fn: UnaryFn, x: SSAValue) -> SSAValue:
        """`vpu.unary fn`; what is expanded is so after it."""
        dims, x = self.dims(x), self.unexpanded(x)
        init = self.empty(self.dims(x), element_of(x))
        return self.expand(self.emit(vpu.UnaryOp(x, init, {"fn": vpu.UnaryFnAttr(fn)})), dims)

    def binary(self, fn: BinaryFn, a: SSAValue, b: SSAValue) -> SSAValue:
        """`vpu.binary fn`, broadcast; what is expanded is so after it."""
        dims = self.broadcast(self.dims(a), self.dims(b))
        a, b = self.unexpanded(a), self.unexpanded(b)
        element = i1 if fn.compares else element_of(a)
        init = self.empty(self.broadcast(self.dims(a), self.dims(b)), element)
        return self.expand(self.emit(vpu.BinaryOp(fn, a, b, init)), dims)

    def select(self, condition: SSAValue, a: SSAValue, b: SSAValue) -> SSAValue:
        """`vpu.select`, broadcast; what is expanded is so after it."""
        dims = self.broadcast(self.dims(condition), self.dims(a), self.dims(b))
        condition, a, b = map(self.unexpanded, (condition, a, b))
        init = self.empty(
            self.broadcast(self.dims(condition), self.dims(a), self.dims(b)), element_of(a)
        )
        return self.expand(self.emit(vpu.SelectOp(condition, a, b, init)), dims)

    def cast(self, x: SSAValue, element: Attribute) -> SSAValue:
        """`vpu.cast`; x itself when it has that element type."""
        if element_of(x) == element:
            return x
        dims, x = self.dims(x), self.unexpanded(x)
        return self.expand(self.emit(vpu.CastOp(x, self.empty(self.dims(x), element))), dims)

    def expand(self, x: SSAValue, dims: Sequence[Dim]) -> SSAValue:
        """`vpu.expand` to `dims`; x itself when it has them."""
        if self.dims(x) == tuple(dims):
            return x
        x = self.unexpanded(x)
        self.same_all(self.broadcast(self.dims(x), tuple(dims)), dims, "the expanded dims")
        return self.emit(vpu.ExpandOp(x, self.empty(dims, element_of(x))))

    def same_all(self, a: Sequence[Dim], b: Sequence[Dim], what: str) -> None:
        """Raise unless two lists of dims are certainly equal."""
        if len(a) != len(b):
            raise self.error(f"{what}: {len(a)} axes where there should be {len(b)}")
        for x, y in zip(a, b, strict=True):
            self.same(x, y, what)

    def reshape(self, x: SSAValue, dims: Sequence[Dim]) -> SSAValue:
        """`vpu.reshape` to `dims`; x itself when it has them."""
        if self.dims(x) == tuple(dims):
            return x
        return self.emit(vpu.ReshapeOp(x, self.empty(dims, element_of(x))))

    def transpose(self, x: SSAValue, perm: Sequence[int]) -> SSAValue:
        """`vpu.transpose`; x itself when perm moves nothing."""
        if list(perm) == list(range(len(perm))):
            return x
        dims = self.dims(x)
        init = self.empty([dims[axis] for axis in perm], element_of(x))
        return self.emit(vpu.TransposeOp(x, init, {"perm": array_attr(perm)}))

    def slice(
        self, x: SSAValue, starts: Sequence[int], steps: Sequence[int], dims: Sequence[Dim]
    ) -> SSAValue:
        """`vpu.slice`; x itself when all of it is taken."""
        if not any(starts) and set(steps) <= {1} and self.dims(x) == tuple(dims):
            return x
        properties: dict[str, Attribute] = {
            "starts": array_attr(starts),
            "steps": array_attr(steps),
        }
        return self.emit(vpu.SliceOp(x, self.empty(dims, element_of(x)), properties))

    def pad(
        self, x: SSAValue, low: Sequence[int], dims: Sequence[Dim], value: float = 0.0
    ) -> SSAValue:
        """`vpu.pad`; x itself when nothing is added."""
        if self.dims(x) == tuple(dims):
            return x
        properties: dict[str, Attribute] = {
            "low": array_attr(low),
            "value": FloatAttr(value, f32),
        }
        return self.emit(vpu.PadOp(x, self.empty(dims, element_of(x)), properties))

    def gather(self, x: SSAValue, indices: SSAValue, axis: int) -> SSAValue:
        """`vpu.gather`."""
        dims = self.dims(x)
        init = self.empty([*dims[:axis], *self.dims(indices), *dims[axis + 1 :]], element_of(x))
        return self.emit(vpu.GatherOp(x, indices, init, axis=axis))

    def reduce(self, fn: ReduceFn, x: SSAValue, axes: Sequence[int], keep: bool = True) -> SSAValue:
        """`vpu.reduce fn` over `axes` (not negative)."""
        dims = self.dims(x)
        if not axes:
            return x
        if keep:
            out = [1 if axis in axes else dim for axis, dim in enumerate(dims)]
        else:
            out = [dim for axis, dim in enumerate(dims) if axis not in axes]
        properties: dict[str, Attribute] = {
            "fn": vpu.ReduceFnAttr(fn),
            "axes": array_attr(axes),
        }
        return self.emit(vpu.ReduceOp(x, self.empty(out, element_of(x)), properties))

    def softmax(self, x: SSAValue, log: bool = False) -> SSAValue:
        """`vpu.softmax` over the last axis."""
        init = self.empty(self.dims(x), element_of(x))
        return self.emit(vpu.SoftmaxOp(x, init, {"log": IntegerAttr.from_bool(log)}))

    def cumsum(self, x: SSAValue, exclusive: bool = False, reverse: bool = False) -> SSAValue:
        """`vpu.cumsum` along the last axis."""
        init = self.empty(self.dims(x), element_of(x))
        return self.emit(vpu.CumsumOp(x, init, exclusive=exclusive, reverse=reverse))

    def layer_norm(
        self,
        x: SSAValue,
        gamma: SSAValue,
        beta: SSAValue | None,
        epsilon: float,
        centre: bool = True,
    ) -> SSAValue:
        """`vpu.layer_norm` over the last axis."""
        init = self.empty(self.dims(x), element_of(x))
        return self.emit(vpu.LayerNormOp(x, gamma, beta, init, epsilon=epsilon, centre=centre))

    def pool(
        self,
        fn: PoolFn,
        x: SSAValue,
        out: Sequence[int],
        kernel: Sequence[int],
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
    ) -> SSAValue:
        """`vpu.pool fn` of x [N, H, W, C]; `out` is (OH, OW), `pads` (top, left)."""
        dims = self.dims(x)
        init = self.empty([dims[0], *out, dims[3]], element_of(x))
        properties: dict[str, Attribute] = {
            "fn": vpu.PoolFnAttr(fn),
            "kernel": array_attr(kernel),
            "strides": array_attr(strides),
            "pads": array_attr(pads),
            "dilations": array_attr(dilations),
        }
        return self.emit(vpu.PoolOp(x, init, properties))

    def concat(self, xs: Sequence[SSAValue], dims: Sequence[Dim], axis: int) -> SSAValue:
        """`vpu.concat` into `dims`."""
        if len(xs) == 1:
            return xs[0]
        return self.emit(vpu.ConcatOp(xs, self.empty(dims, element_of(xs[0])), axis=axis))

    def quantise(
        self, x: SSAValue, scale: SSAValue, zero: SSAValue | None, axis: int, element: Attribute
    ) -> SSAValue:
        """`vpu.quantise` to `element`, ui8 or i8."""
        init = self.empty(self.dims(x), element)
        return self.emit(vpu.QuantiseOp(x, scale, zero, init, axis=axis))

    def dequantise(
        self, x: SSAValue, scale: SSAValue, zero: SSAValue | None, axis: int
    ) -> SSAValue:
        """`vpu.dequantise`."""
        init = self.empty(self.dims(x), f32)
        return self.emit(vpu.DequantiseOp(x, scale, zero, init, axis=axis))

    # spu

    def matmul(self, x: SSAValue, weight: SSAValue, bias: SSAValue | None) -> SSAValue:
        """`spu.matmul` of x [..., K] and weight [N, K]."""
        dims, rows = self.dims(x), shape_of(weight)[0]
        self.same(dims[-1], shape_of(weight)[1], "the extents that a product sums over")
        init = self.empty([*dims[:-1], rows], f32)
        return self.emit(spu.MatmulOp(x, weight, init, bias=bias))

    def conv(
        self,
        x: SSAValue,
        weight: SSAValue,
        bias: SSAValue | None,
        *,
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
        groups: int,
    ) -> SSAValue:
        """`spu.conv` of x [N, H, W, C] and weight [O, KH, KW, C / groups]."""
        batch, *size, _ = self.dims(x)
        rows, *kernel, _ = shape_of(weight)
        out: list[int] = []
        for axis in (0, 1):
            extent = size[axis]
            if not isinstance(extent, int):
                raise self.error(
                    "the height and width of an image must be known at compile time",
                    "fix them with shapes={'name': number}; only the batch may vary",
                )
            reach = dilations[axis] * (kernel[axis] - 1) + 1
            out.append((extent + pads[axis] + pads[axis + 2] - reach) // strides[axis] + 1)
        if min(out) < 1:
            raise self.error("the kernel is larger than the padded image")
        properties: dict[str, Attribute] = {
            "strides": array_attr(strides),
            "pads": array_attr(pads),
            "dilations": array_attr(dilations),
            "groups": IntegerAttr(groups, i64),
        }
        init = self.empty([batch, *out, rows], f32)
        return self.emit(spu.ConvOp(x, weight, init, bias=bias, properties=properties))

    def batch_matmul(
        self, a: SSAValue, b: SSAValue, *, transpose_b: bool = False, alpha: float = 1.0
    ) -> SSAValue:
        """`spu.batch_matmul` of a [..., M, K] and b [..., K, N]."""
        left, right = self.dims(a), self.dims(b)
        depth, columns = (right[-1], right[-2]) if transpose_b else (right[-2], right[-1])
        self.same(left[-1], depth, "the extents that a product sums over")
        dims = [*self.broadcast(left[:-2], right[:-2]), left[-2], columns]
        init = self.empty(dims, f32)
        op = spu.BatchMatmulOp(a, b, init, alpha=alpha, transpose_b=transpose_b)
        return self.emit(op)
