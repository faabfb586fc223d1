"""How much a network's outputs change with errors of activations and of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType, f32
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Operation, SSAValue

from spu_ir.dialects.antoum import ConstantOp
from spu_ir.dialects.spu import MatmulOp
from spu_ir.dialects.types import Array, element_of
from spu_ir.dialects.weights import store_of
from spu_ir.interpreters import bind, machine_for, main_of, signature_of
from spu_ir.interpreters.machine import Machine, Step, steps_of
from spu_ir.transforms.column_balance import Gains
from spu_ir.transforms.derivatives import NoDerivativeError, into_product, passed_on

Doubles = NDArray[np.float64]

DRAWS = 2
"""Directions of the outputs, for each feed, whose gradients are looked at."""


@dataclass
class ErrorGains:
    """
    Mean squares of what errors of size 1 do to the outputs of a feed, over the outputs' norms.

    Errors of an activation's elements are independent of each other. That of an element of a
    weight is the same for all rows, so that rows add up before the square.
    """

    columns: dict[SSAValue, Doubles] = field(default_factory=dict[SSAValue, Doubles])
    """Of errors in a column of an activation, f64 [K], rows summed."""
    weights: dict[MatmulOp, Doubles] = field(default_factory=dict[MatmulOp, Doubles])
    """Of errors in each element of a product's weight, f64 [N, K]."""

    def of(
        self,
        values: Sequence[SSAValue],
        weights: Sequence[Sequence[MatmulOp]],
        rows: Array,
    ) -> Gains | None:
        """
        Those of some activations together, with `rows [R, 1]` as heard of them, and of weights,
        each of which some products use. None where nothing is felt of an activation.
        """
        mean = float(rows.mean()) if rows.size else 0.0
        if not all(value in self.columns for value in values) or not 0 < mean < np.inf:
            return None
        columns = np.sum([self.columns[value] for value in values], axis=0)
        each = [np.sum([self.weights[op] for op in products], axis=0) for products in weights]
        return Gains(columns, rows[:, 0].astype(np.float64) / mean, each)


def gains_of(
    module: ModuleOp,
    ctx: Context,
    feeds: Iterable[Mapping[str, Array]],
    products: Sequence[MatmulOp],
    listener: Callable[[Operation, Sequence[Any]], None],
    rows: Callable[[Operation, Sequence[Any]], None],
    progress: Callable[[], None],
) -> ErrorGains | None:
    """
    The gains of `products` and of what they read, in a module on tensors, in f32; None where an
    op in between has no derivative here.

    All feeds are run either way, and `listener` hears of each op. `rows` hears of the ops that
    yield what products read, with the gain of each row `[..., 1]`. Outputs, each over its norm,
    are asked for random combinations (a seeded normal distribution), whose mean squared gradient
    is the squared norm of the Jacobian.
    """
    job = Backwards(module, ctx, products, listener, rows)
    for feed in feeds:
        job.run(feed)
        progress()
    return None if job.unknown else job.gains


class Backwards:
    """Runs a network forwards, then gradients backwards."""

    def __init__(
        self,
        module: ModuleOp,
        ctx: Context,
        products: Sequence[MatmulOp],
        listener: Callable[[Operation, Sequence[Any]], None],
        rows: Callable[[Operation, Sequence[Any]], None],
    ):
        main = main_of(module)
        self.block = main.body.block
        self.ports = signature_of(main).inputs
        self.machine: Machine = machine_for(module, store_of(ctx), exact_f32=False, listener=None)
        self.steps: list[Step] = steps_of(self.block)
        self.constants: dict[SSAValue, Any] = {}
        for op, _, results, _ in self.steps:
            if isinstance(op, ConstantOp):
                self.constants[results[0]] = self.machine.run_op(op, ())[0]
        self.listener, self.rows = listener, rows
        self.products = frozenset(products)
        self.reads = frozenset(op.x for op in products)
        self.wanted = self.downstream()
        self.random = np.random.default_rng(0)
        self.gains = ErrorGains()
        self.unknown = False

    def downstream(self) -> set[SSAValue]:
        """The f32 values through which errors of what products read reach the outputs."""
        found: set[SSAValue] = set(self.reads)
        for _op, operands, results, _dying in self.steps:
            if not found.isdisjoint(operands):
                found.update(
                    r for r in results if isinstance(r.type, TensorType) and element_of(r) == f32
                )
        return found

    def run(self, feed: Mapping[str, Array]) -> None:
        """Add one feed to the gains."""
        values: dict[SSAValue, Any] = dict(self.constants)
        values.update(zip(self.block.args, bind(self.ports, feed)[0], strict=True))
        for op, operands, results, dying in self.steps:
            if isinstance(op, ConstantOp | ReturnOp):
                continue
            given = self.machine.run_op(op, tuple([values[v] for v in operands]))
            values.update(zip(results, given, strict=True))
            self.listener(op, given)
            if self.unknown:
                for value in dying:
                    values.pop(value, None)
        if self.unknown:
            return
        outputs = [v for v in self.steps[-1].operands if v in self.wanted]
        columns: dict[SSAValue, Doubles] = {}
        heard: dict[SSAValue, Array] = {}
        try:
            for _ in range(DRAWS):
                self.backwards(values, outputs, columns, heard)
        except NoDerivativeError:
            self.unknown = True
            return
        for value, some in columns.items():
            self.gains.columns[value] = self.gains.columns.get(value, 0) + some / DRAWS
        for value, some in heard.items():
            if isinstance(value.owner, Operation):
                self.rows(value.owner, [some])

    def backwards(
        self,
        values: dict[SSAValue, Any],
        outputs: Sequence[SSAValue],
        columns: dict[SSAValue, Doubles],
        heard: dict[SSAValue, Array],
    ) -> None:
        """The squares of one gradient: by columns, by rows, and of products' weights."""
        left: dict[SSAValue, Array] = {}
        for value in outputs:
            y: Array = values[value]
            size = max(float(np.linalg.norm(y)), 1e-30)
            drawn = np.asarray(self.random.standard_normal(y.shape) / size, np.float32)
            left[value] = left.get(value, np.float32(0)) + drawn
        for op, operands, results, _ in reversed(self.steps):
            gradient = left.pop(results[0], None) if results else None
            if gradient is None:
                continue
            if results[0] in self.reads:
                squares = np.square(gradient.reshape(-1, gradient.shape[-1]), dtype=np.float64)
                columns[results[0]] = columns.get(results[0], 0) + squares.sum(axis=0)
                rows = squares.sum(axis=1).reshape(*gradient.shape[:-1], 1)
                heard[results[0]] = heard.get(results[0], 0) + rows
            given = [values[v] for v in operands]
            if isinstance(op, MatmulOp) and op in self.products:
                inner = into_product(op, given, gradient)
                x = given[0].reshape(-1, given[0].shape[-1])
                found = np.square(inner.reshape(len(x), -1).T @ x, dtype=np.float64) / DRAWS
                self.gains.weights[op] = self.gains.weights.get(op, 0) + found
            for number, some in passed_on(op, given, values[results[0]], gradient).items():
                value = operands[number]
                if value in self.wanted:
                    left[value] = left[value] + some if value in left else some
