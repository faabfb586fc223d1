"""How INT8 is made of a network in f32: the options, and the steps before `quantise`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from spu_ir.errors import SpuError

Precision = Literal["fp32", "bf16", "int8", "mixed"]
Activations = Literal["auto", "dynamic", "static"]
Attention = Literal["auto", "int8", "fp32"]
Rounding = Literal["nearest", "second-order"]
Feeds: TypeAlias = Mapping[str, np.ndarray[Any, np.dtype[Any]]]
Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8", "mixed")
ACTIVATIONS: tuple[Activations, ...] = ("auto", "dynamic", "static")
ATTENTIONS: tuple[Attention, ...] = ("auto", "int8", "fp32")
ROUNDINGS: tuple[Rounding, ...] = ("nearest", "second-order")

WEIGHT_SHARE: dict[Rounding, float] = {"nearest": 1.0, "second-order": 0.5}
"""How much smoothing minds what rounding weights adds to the square, which second order halves."""

WITHOUT_FEEDS = "pass calibration=[feeds...], some inputs of the model (--calibration feeds.npz)"


@dataclass(frozen=True)
class Quantisation:
    """What `spu_ir.compile` can be told of INT8; docs/quantisation.md explains each."""

    precision: Precision = "int8"
    activations: Activations = "auto"
    observer: str = "minmax"
    bias_correction: bool = False
    smoothing: bool = False
    rounding: Rounding = "nearest"
    budget: float | None = None
    tolerance: float | None = None
    attention: Attention = "auto"
    group_size: int | None = None

    def check(self, *, calibrated: bool) -> None:
        """Raises SpuError for options that are unknown or need what is not there."""
        from spu_ir.transforms.choose_precision import check_limits
        from spu_ir.transforms.observers import observer_called

        check("precision", self.precision, PRECISIONS)
        check("activations", self.activations, ACTIVATIONS)
        check("attention", self.attention, ATTENTIONS)
        check("rounding", self.rounding, ROUNDINGS)
        observer_called(self.observer)
        check_limits(self.share, self.tolerance or 0.0)
        for what, given in (("budget", self.budget), ("tolerance", self.tolerance)):
            if given is not None and self.precision != "mixed":
                raise SpuError(
                    f"{what} is for precision 'mixed', and precision is {self.precision!r}",
                    remedy="use precision='mixed', or leave it out",
                )
        for what, wanted in (
            ("bias correction", self.bias_correction),
            ("smoothing", self.smoothing),
            ("second-order rounding", self.second_order),
            ("a group size", self.group_size is not None),
        ):
            if wanted and not self.quantises:
                raise SpuError(
                    f"{what} is for INT8, and precision is {self.precision!r}",
                    remedy="use precision='int8' or 'mixed', or leave it out",
                )
        if self.second_order and self.bias_correction:
            raise SpuError(
                "second-order rounding corrects biases itself",
                remedy="leave bias correction out",
            )
        for what, needed in (
            ("precision 'mixed'", self.precision == "mixed"),
            ("bias correction", self.bias_correction),
            ("smoothing", self.smoothing),
            ("second-order rounding", self.second_order),
            ("activations 'static'", self.quantises and self.activations == "static"),
        ):
            if needed and not calibrated:
                raise SpuError(f"{what} needs calibration data", remedy=WITHOUT_FEEDS)

    @property
    def share(self) -> float:
        """The budget: the one given, or else BUDGET."""
        from spu_ir.transforms.choose_precision import BUDGET

        return BUDGET if self.budget is None else self.budget

    @property
    def quantises(self) -> bool:
        """Whether there will be INT8 products."""
        return self.precision in ("int8", "mixed")

    @property
    def second_order(self) -> bool:
        """Whether weights are rounded for what products answer."""
        return self.rounding == "second-order"

    def prepare(
        self, module: ModuleOp, ctx: Context, feeds: Iterable[Feeds] | None, progress: Progress
    ) -> float | None:
        """
        Smooth, group and calibrate a module on tensors, in f32, choose what stays bf16, round.

        The feeds are run one at a time; they are kept when there is more than one thing to do.
        The result is the estimate of `choose_precision`, None for other precisions than mixed.
        """
        from spu_ir.dialects.spu import MatmulOp
        from spu_ir.transforms.calibrate import calibrate
        from spu_ir.transforms.choose_precision import choose_precision
        from spu_ir.transforms.correct_bias import correct_bias
        from spu_ir.transforms.group_inputs import group_inputs
        from spu_ir.transforms.round_weights import round_weights
        from spu_ir.transforms.scale_columns import scale_columns
        from spu_ir.transforms.smooth_activations import smooth_activations

        if feeds is None or not self.quantises:
            if self.group_size is not None:
                group_inputs(module, ctx, self.group_size)
            return None
        estimate: float | None = None
        again = (
            self.precision == "mixed" or self.bias_correction or self.smoothing or self.second_order
        )
        feeds = list(feeds) if again else feeds
        total = len(feeds) if isinstance(feeds, Sized) else 0
        if self.smoothing:
            smooth_activations(
                module,
                ctx,
                feeds,
                progress=lambda done: progress("smooth", done, total),
                share=WEIGHT_SHARE[self.rounding],
            )
            scale_columns(
                module,
                ctx,
                feeds,
                self.activations,
                lambda done: progress("scale columns", done, total),
                WEIGHT_SHARE[self.rounding],
            )
        if self.group_size is not None:
            group_inputs(module, ctx, self.group_size)
        calibrate(
            module, ctx, feeds, lambda done: progress("calibrate", done, total), self.observer
        )
        if self.precision == "mixed":
            estimate = choose_precision(
                module,
                ctx,
                list(feeds),
                budget=self.share,
                tolerance=self.tolerance or 0.0,
                mode=self.activations,
                progress=lambda done, of: progress("sensitivity", done, of),
            )
        if self.second_order:
            products = sum(isinstance(op, MatmulOp) for op in module.walk())
            round_weights(
                module,
                ctx,
                feeds,
                self.activations,
                lambda done: progress("round weights", done, products),
            )
        if self.bias_correction:
            correct_bias(
                module,
                ctx,
                feeds,
                self.activations,
                lambda done: progress("correct biases", done, total),
            )
        return estimate


def check(what: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raises SpuError when `value` is none of those allowed."""
    if value not in allowed:
        raise SpuError(
            f"{what} {value!r} is not known", remedy=f"use {', '.join(map(str, allowed))}"
        )
