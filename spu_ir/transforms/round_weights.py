"""Round the weights of INT8 products so that their outputs, not the weights, change least."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias, cast

import numpy as np
from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import ReturnOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from spu_ir.dialects.antoum import ConstantOp
from spu_ir.dialects.spu import EpilogueOp, MatmulOp
from spu_ir.dialects.types import Array
from spu_ir.dialects.weights import WeightStore, store_of
from spu_ir.errors import SpuError
from spu_ir.interpreters import bind, machine_for, main_of, signature_of
from spu_ir.interpreters.machine import Machine, steps_of
from spu_ir.interpreters.numerics import quantise_rows
from spu_ir.transforms.calibrate import read_feeds
from spu_ir.transforms.quantise import choose_static, is_candidate, is_quantisable, quantised_weight
from spu_ir.transforms.rewriting import array_of, constant_op, is_constant, layer_of, rebuilt
from spu_ir.transforms.row_zeros import choose_row_zero, row_zero
from spu_ir.transforms.second_order_rounding import Doubles, rounded

State: TypeAlias = dict[SSAValue, Any]
"""The values of one feed."""

MEMORY = 8 << 30
"""Bytes that the activations of all feeds may take at one time."""

ENOUGH = 2
"""Rows for each input of a product; with fewer a weight would be fitted to just these rows."""


@dataclass
class Inputs:
    """What a product meets: rows x `[K]` in the INT8 network, d in the f32 network; sums, f64."""

    depth: int
    count: int = 0

    def __post_init__(self) -> None:
        self.xx: Doubles = np.zeros((self.depth, self.depth))
        self.x: Doubles = np.zeros(self.depth)
        self.d: Doubles = np.zeros(self.depth)

    def add(self, x: Array, d: Array) -> None:
        """Count rows of both networks `[..., K]`."""
        rows = x.reshape(-1, self.depth)
        self.count += len(rows)
        with np.errstate(invalid="ignore", over="ignore"):
            self.xx += rows.T @ rows
        self.x += rows.sum(axis=0, dtype=np.float64)
        self.d += d.reshape(-1, self.depth).sum(axis=0, dtype=np.float64)

    def centred(self) -> Doubles:
        """The sum of products of what is left of x without its mean, `[K, K]`."""
        return self.xx - np.outer(self.x, self.x) / max(self.count, 1)


@dataclass
class Rounding:
    """Runs the f32 network and the INT8 one side by side, op by op, all feeds at each op."""

    module: ModuleOp
    store: WeightStore
    products: frozenset[MatmulOp]
    progress: Callable[[int], None]
    done: int = 0
    chosen: dict[MatmulOp, tuple[Array, Array | None]] = field(
        default_factory=dict[MatmulOp, "tuple[Array, Array | None]"]
    )
    """The new weight of a product, and its new bias where that is a constant."""

    def run(self, feeds: Iterable[Mapping[str, Array]]) -> None:
        """Fill `chosen`. Raises SpuError without a feed, or when they are too many."""
        main = main_of(self.module)
        block = main.body.block
        ports = signature_of(main).inputs
        exact: list[State] = [
            dict(zip(block.args, bind(ports, feed)[0], strict=True)) for feed in feeds
        ]
        if not exact:
            raise SpuError(
                "there is nothing to round weights with",
                remedy="pass at least one feed of every input",
            )
        near = [dict(state) for state in exact]
        constants: State = {}
        machine = machine_for(self.module, self.store, exact_f32=False, listener=None)
        for op, operands, results, dying in steps_of(block):
            if isinstance(op, ReturnOp):
                return
            if isinstance(op, ConstantOp):
                constants[results[0]] = machine.run_op(op, ())[0]
                continue
            if isinstance(op, MatmulOp) and op in self.products:
                self.product(op, machine, constants, exact, near)
            else:
                for state in (*exact, *near):
                    values = tuple(constants[v] if v in constants else state[v] for v in operands)
                    state.update(zip(results, machine.run_op(op, values), strict=True))
            for value in dying:
                constants.pop(value, None)
                for state in (*exact, *near):
                    state.pop(value, None)
            check_held((*exact, *near))

    def product(
        self,
        op: MatmulOp,
        machine: Machine,
        constants: State,
        exact: Sequence[State],
        near: Sequence[State],
    ) -> None:
        """Compute a product in both networks, with the weight that it will have in INT8."""
        weight = constants[op.weight]
        seen = Inputs(weight.shape[-1])
        inputs: list[Array] = []
        choose_row_zero(op.x, [state[op.x] for state in near])
        for state, other in zip(near, exact, strict=True):
            inputs.append(as_int8(state[op.x], row_zero(op.x)))
            seen.add(inputs[-1], other[op.x])
        bias = None if op.bias is None else constants.get(op.bias)
        if owns_its_weight(op):
            weight, bias = self.round(op, weight, bias, seen)
        else:
            weight, _ = on_grid(weight)
        for state, x in zip(near, inputs, strict=True):
            replaced = {op.x: x, op.weight: weight}
            if bias is not None and op.bias is not None:
                replaced[op.bias] = bias
            run(op, machine, constants | replaced, state, replaced)
        for state in exact:
            run(op, machine, constants, state, {})
        self.done += 1
        self.progress(self.done)

    def round(
        self, op: MatmulOp, weight: Array, bias: Array | None, seen: Inputs
    ) -> tuple[Array, Array | None]:
        """Choose the weight of a product, and the bias that gives its outputs the f32 mean."""
        if not np.isfinite(seen.xx).all():
            raise SpuError(
                "an activation is not finite",
                node=layer_of(op),
                op=op.name,
                remedy="check the calibration feeds",
            )
        new = weight
        if seen.count >= ENOUGH * seen.depth:
            new = rounded(weight, seen.xx if bias is None else seen.centred())
        kept, scale = on_grid(new)
        # `quantise` has to find the grid again; where it does not, it rounds the row itself.
        lost = np.abs(kept - new).max(axis=1) > 1e-3 * scale
        new = np.where(lost[:, None], weight, new)
        kept, _ = on_grid(new)
        if bias is not None:
            means = weight.astype(np.float64) @ seen.d - kept.astype(np.float64) @ seen.x
            bias = (bias + means / max(seen.count, 1)).astype(np.float32)
        self.chosen[op] = new, bias
        return kept, bias


def run(op: MatmulOp, machine: Machine, constants: State, state: State, replaced: State) -> None:
    """Compute one op of one network; of its operands `replaced` come first."""
    values = tuple(
        replaced[v] if v in replaced else constants[v] if v in constants else state[v]
        for v in op.operands
    )
    state.update(zip(op.results, machine.run_op(op, values), strict=True))


def as_int8(x: Array, zero: int) -> Array:
    """Rows of f32 `[..., K]` as INT8 products see them, in f32."""
    values, scale = quantise_rows(x, zero)
    with np.errstate(invalid="ignore"):
        return (values.astype(np.float32) - np.float32(zero)) * scale[..., None]


def on_grid(weight: Array) -> tuple[Array, Array]:
    """An f32 weight as `quantise` leaves it, in f32, and the scales of its rows."""
    values, scale = quantised_weight(weight)
    return values * scale[:, None], scale


def owns_its_weight(op: MatmulOp) -> bool:
    """Whether nothing else uses the weight of `op`."""
    return op.weight.get_user_of_unique_use() is op


def check_held(states: Sequence[State]) -> None:
    """Raise SpuError when the values of all feeds take more than MEMORY."""
    held: dict[int, int] = {}
    for state in states:
        for value in state.values():
            if isinstance(value, np.ndarray):
                array = cast("Array", value)
                held[id(array)] = array.nbytes
    if sum(held.values()) > MEMORY:
        raise SpuError(
            f"the activations of all feeds take more than {MEMORY >> 20} MiB",
            remedy="calibrate with fewer or smaller feeds",
        )


def round_weights(
    module: ModuleOp,
    ctx: Context,
    feeds: Iterable[Mapping[str, Array]],
    mode: str = "auto",
    progress: Callable[[int], None] | None = None,
) -> None:
    """
    Put weights of a module on tensors, in f32, on the grids that `quantise` in `mode` gives them.

    Products are taken in order, on the inputs that they have in the INT8 network so far: weights
    are `rounded` for these, or to the nearest where there are fewer than ENOUGH rows for each
    input, and a constant bias is moved by what the mean of each output channel differs from the
    f32 network's. Only matrix products whose rows are quantised at run time and whose weight
    nothing else uses; `quantise` rounds all others. Attention counts as f32. All
    feeds are held at a time. Raises SpuError when there is no feed, or they take too much memory.
    """
    store = store_of(ctx)
    products = [op for op in module.walk() if isinstance(op, EpilogueOp) and is_candidate(op)]
    static = set(choose_static(products, mode))
    chosen: list[MatmulOp] = []
    for op in products:
        if not isinstance(op, MatmulOp) or op in static or not is_quantisable(op):
            continue
        if op.bias is None:
            array = array_of(op.weight, store)
            zeros = constant_op(store, np.zeros(len(array), np.float32))
            new = rebuilt(op, bias=Builder(InsertPoint.before(op)).insert(zeros).result)
            assert isinstance(new, MatmulOp)
            Rewriter.replace_op(op, new)
            op = new
        chosen.append(op)
    job = Rounding(module, store, frozenset(chosen), progress or (lambda _done: None))
    job.run(feeds)
    for op, (weight, bias) in job.chosen.items():
        builder = Builder(InsertPoint.before(op))
        constant = builder.insert(constant_op(store, weight)).result
        new_bias = op.bias
        if bias is not None and is_constant(op.bias):
            new_bias = builder.insert(constant_op(store, bias)).result
        Rewriter.replace_op(op, rebuilt(op, weight=constant, bias=new_bias))


@dataclass(frozen=True)
class RoundWeightsPass(ModulePass):
    """
    Round weights one after the other, each making up for what those before it miss.

    What they make up for is measured on the inputs in an `.npz` file, as for `calibrate`;
    `quantise` in the same `mode` comes after and finds the weights on its grids. Constant biases
    take the mean error, and rows that a GELU or SiLU yields their best zero point. Weights that
    several products use, those of convolutions and of statically quantised inputs, and those of
    more than half as many inputs as there are rows to measure with, are left to `quantise`.
    """

    name = "round-weights"
    preserves: ClassVar[str] = "tolerance(0.05)"

    feeds: str
    mode: str = "auto"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        round_weights(op, ctx, read_feeds(self.feeds), self.mode)
