"""
`spu-opt --verify-passes`: execute the module around every pass and hold the pass to its promise.

A pass says in its class attribute `preserves` what it leaves of the outputs:

- `exact`: every bit. xDSL's own passes (canonicalize, cse, dce, ...) are held to this.
- `tolerance(t)`: the relative L2 error, and the largest error over the largest element, are at
  most t.
- `lossy` or `lossy(t)`: the pass changes the network on purpose, and says how in
  `reference(ctx, module) -> ModuleOp`: from a copy of the module before the pass it makes a
  module, with arithmetic of its own (masked or rounded f32), whose outputs the module after the
  pass must have, within t (1e-5 when left out).
- `interface`: the pass changes the inputs, so that it begins anew with other ones.

Whatever a pass yields is the baseline of the next one. Inputs are drawn from a seeded generator:
run-time extents small and within their bounds, floats normal, indices of a gather within its
table, other integers 0 or 1 as in masks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass, PassPipelineCallbackType

from spu_ir.dialects.functions import bounds
from spu_ir.dialects.types import DYNAMIC, Array, element_of, numpy_dtype, shape_of
from spu_ir.dialects.vpu import ResizeTapsOp
from spu_ir.errors import SpuError
from spu_ir.interpreters import interpret, main_of, signature_of

LARGEST_EXTENT = 6
"""A run-time extent is drawn up to this, if its bounds allow."""

LOSSY_TOLERANCE = 1e-5
"""How close a lossy pass comes to its reference when it does not say."""

_PROMISE = re.compile(
    r"(exact|interface|tolerance(?=\()|lossy)(?:(?<!exact)(?<!interface)\(([0-9.eE+-]+)\))?"
)
_GATHER = re.compile(r"(onnx\.Gather(Elements)?(V\d+)?|vpu\.gather)")
_PASSES_INDICES_ON = re.compile(
    r"onnx\.(Cast|Reshape|Squeeze|Unsqueeze|Identity|Expand|Flatten|Slice)(V\d+)?"
    r"|vpu\.(cast|reshape|expand|slice|transpose)"
)


@runtime_checkable
class LossyPass(Protocol):
    """A pass that says what its loss is."""

    def reference(self, ctx: Context, module: ModuleOp) -> ModuleOp:
        """The module that the pass means, made from `module`, which it may change."""
        ...


class Promise(NamedTuple):
    """What a pass preserves; `tolerance` is 0 for `exact`."""

    kind: str
    tolerance: float

    def __str__(self) -> str:
        return (
            self.kind if self.kind in ("exact", "interface") else f"{self.kind}({self.tolerance:g})"
        )


def promise_of(done: ModulePass) -> Promise:
    """The promise of a pass. Raises SpuError when there is none, or one that says nothing."""
    text = getattr(done, "preserves", None)
    if text is None and type(done).__module__.startswith("xdsl."):
        return Promise("exact", 0.0)
    match = _PROMISE.fullmatch(str(text))
    if match is None:
        raise SpuError(
            f"pass {done.name!r} declares preserves = {text!r}",
            remedy='it is "exact", "tolerance(t)", "lossy(t)" or "interface"',
        )
    if match[1] == "lossy" and not isinstance(done, LossyPass):
        raise SpuError(f"pass {done.name!r} is lossy", remedy="give it a method `reference`")
    if match[2] is not None:
        return Promise(match[1], float(match[2]))
    return Promise(match[1], LOSSY_TOLERANCE if match[1] == "lossy" else 0.0)


# ---- inputs


def table_rows(value: SSAValue) -> int | None:
    """The fewest rows of the tables that `value` indexes; None when it indexes none."""
    found: list[int] = []
    waiting, seen = [value], {value}
    while waiting:
        for use in waiting.pop().uses:
            op = use.operation
            if _GATHER.fullmatch(op.name) and use.index == 1:
                axis = op.get_attr_or_prop("axis")
                table = shape_of(op.operands[0])
                rows = table[axis.value.data if isinstance(axis, IntegerAttr) else 0]
                found.append(1 if rows == DYNAMIC else rows)
            elif _PASSES_INDICES_ON.fullmatch(op.name) and use.index == 0:
                waiting += [result for result in op.results if result not in seen]
                seen.update(op.results)
    return min(found, default=None)


def generate(module: ModuleOp, seed: int) -> dict[str, Array]:
    """An array for every input of `@main`, the same for the same seed."""
    function = main_of(module)
    limits = bounds(function)
    random = np.random.default_rng(seed)
    extents: dict[str, int] = {}
    feeds: dict[str, Array] = {}
    for port, value in zip(signature_of(function).inputs, function.body.block.args, strict=False):
        shape = list(shape_of(port.type))
        for axis, size in enumerate(shape):
            if size == DYNAMIC:
                name = port.dims.get(axis, f"{port.name}.{axis}")
                if name not in extents:
                    low, high = limits.get(name, (1, LARGEST_EXTENT))
                    extents[name] = int(
                        random.integers(low, min(high, max(low, LARGEST_EXTENT)) + 1)
                    )
                shape[axis] = extents[name]
        dtype = numpy_dtype(element_of(port.type))
        axes = geometry_of(value)
        if axes is None:
            feeds[port.name] = draw(random, shape, dtype, table_rows(value))
        else:
            feeds[port.name] = np.broadcast_to(axes, shape).astype(dtype)
    return feeds


def geometry_of(value: SSAValue) -> Array | None:
    """
    For the geometry of images, `[2, 4]`: one pixel, the first, enlarged to what is asked for.

    It suits every canvas; None for any other value.
    """
    axes = np.zeros((2, 4), np.int32)
    for use in value.uses:
        op = use.operation
        if not isinstance(op, ResizeTapsOp) or use.index != 0:
            return None
        axes[op.axis.value.data] = (1, 0, shape_of(op.init)[1], 0)
    return axes if axes.any() else None


def draw(
    random: np.random.Generator, shape: list[int], dtype: np.dtype[Any], rows: int | None
) -> Array:
    """Random elements that are plausible for an input of `dtype`."""
    if rows is not None:
        return random.integers(0, rows, shape).astype(dtype)
    if dtype.kind == "b" or (dtype.kind in "iu" and dtype.itemsize > 1):
        return random.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return random.integers(info.min, info.max + 1, shape).astype(dtype)
    return random.standard_normal(shape).astype(dtype)


# ---- comparison


class Difference(NamedTuple):
    """Where an output breaks a promise."""

    at: tuple[int, ...]
    expected: object
    got: object
    note: str


def difference(expected: Array, got: Array, tolerance: float) -> Difference | None:
    """The place that shows that `got` is not `expected` within `tolerance`; 0 is every bit."""
    if (expected.dtype, expected.shape) != (got.dtype, got.shape):
        return Difference(
            (),
            f"{expected.dtype}{list(expected.shape)}",
            f"{got.dtype}{list(got.shape)}",
            "another type",
        )
    if not expected.size:
        return None
    floating = expected.dtype.kind not in "iub"
    a, b = expected.astype(np.float64), got.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if tolerance == 0:
        # Zeros of two signs are equal numbers; integers of 64 bits may not fit a double.
        zeros = same & (np.signbit(a) != np.signbit(b)) & ~np.isnan(a)
        wrong = ~same | zeros if floating else expected != got
        if not wrong.any():
            return None
        index = tuple(map(int, np.argwhere(wrong)[0]))
        return Difference(index, expected[index], got[index], f"{wrong.sum()} of {a.size} differ")
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(a - b))
    error[~np.isfinite(error)] = np.inf
    finite = np.where(np.isfinite(a), a, 0.0)
    norm, peak = float(np.linalg.norm(finite)), float(np.abs(finite).max())
    relative = float(np.linalg.norm(error)) / (norm or 1.0)
    largest = float(error.max()) / (peak or 1.0)
    if relative <= tolerance and largest <= tolerance:
        return None
    index = tuple(map(int, np.unravel_index(int(error.argmax()), error.shape)))
    note = f"relative L2 error {relative:.3g}, largest error {largest:.3g} of the largest element"
    return Difference(index, expected[index], got[index], note)


@dataclass
class PassVerifier:
    """
    A pipeline callback that executes the module before and after every pass.

    `then` is called first: it verifies the module. Raises SpuError naming the first pass that
    breaks its promise, with the output, the index, and what was expected and found there.
    """

    ctx: Context
    then: PassPipelineCallbackType | None = None
    seed: int = 0
    feeds: dict[str, Array] = field(default_factory=dict[str, Array], init=False)
    expected: dict[str, Array] = field(default_factory=dict[str, Array], init=False)

    def __call__(
        self, previous: ModulePass | None, module: ModuleOp, following: ModulePass | None
    ) -> None:
        if self.then is not None:
            self.then(previous, module, following)
        if previous is None and following is None:
            return
        if previous is None:
            self.feeds = generate(module, self.seed)
            now = self.run(module, "the module as it was given")
        elif promise_of(previous).kind == "interface":
            self.feeds = generate(module, self.seed)
            now = self.run(module, f"the module after pass {previous.name!r}")
        else:
            now = self.run(module, f"the module after pass {previous.name!r}")
            self.compare(previous, now)
        self.expected = now
        if following is not None and promise_of(following).kind == "lossy":
            assert isinstance(following, LossyPass)
            reference = following.reference(self.ctx, module.clone())
            self.expected = self.run(reference, f"the reference of pass {following.name!r}")

    def run(self, module: ModuleOp, what: str) -> dict[str, Array]:
        """The outputs of `module`; an SpuError that begins with `what` when it cannot run."""
        try:
            return interpret(module, self.ctx, self.feeds, exact_f32=True)
        except Exception as error:
            raise SpuError(f"{what} cannot be executed: {error}") from error

    def compare(self, done: ModulePass, got: Mapping[str, Array]) -> None:
        """Hold the pass `done` to its promise."""
        promise = promise_of(done)
        against = " its reference's" if promise.kind == "lossy" else ""
        if got.keys() != self.expected.keys():
            raise SpuError(
                f"pass {done.name!r} changes the outputs {list(self.expected)} to {list(got)}"
            )
        for name, expected in self.expected.items():
            found = difference(expected, got[name], promise.tolerance)
            if found is not None:
                raise SpuError(
                    f"pass {done.name!r} promises {promise}, but output {name!r} is not"
                    f"{against or ' the same'}: at {list(found.at)} expected "
                    f"{found.expected}, got {found.got} ({found.note})"
                )
