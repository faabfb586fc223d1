"""Record the range of every activation, from running the tensor-level module on sample inputs."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from numpy.lib.npyio import NpzFile
from xdsl.context import Context
from xdsl.dialects.builtin import DenseArrayBase, ModuleOp, f32
from xdsl.ir import BlockArgument, Operation, OpResult, SSAValue
from xdsl.passes import ModulePass

from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.types import Array, element_of
from spu_ir.errors import SpuError
from spu_ir.interpreters import interpret, main_of, signature_of
from spu_ir.transforms.observers import MinMax, Observer, observer_called
from spu_ir.transforms.rewriting import argument_attr, set_argument_attr

RANGE = "range"
"""The attribute of an op, or of a function's argument: `array<f32: low, high>`."""


@dataclass
class Calibration:
    """Observers of a module's f32 activations; called after every op that is interpreted."""

    new: Callable[[], Observer] = MinMax
    observers: dict[SSAValue, Observer] = field(default_factory=dict[SSAValue, Observer])

    def see(self, value: SSAValue, array: Array) -> None:
        if element_of(value) != f32:
            return
        if value not in self.observers:
            self.observers[value] = self.new()
        self.observers[value].see(array)

    def __call__(self, op: Operation, results: Sequence[Any]) -> None:
        if isinstance(op, DestinationOp) and len(op.results) == 1:
            self.see(op.results[0], cast("Array", results[0]))

    def record(self) -> None:
        """Write the ranges into the IR."""
        for value, observer in self.observers.items():
            attr = DenseArrayBase.from_list(f32, list(observer.range()))
            if isinstance(value, BlockArgument):
                set_argument_attr(value, RANGE, attr)
            elif isinstance(value.owner, Operation):
                value.owner.attributes[RANGE] = attr


def range_of(value: SSAValue) -> tuple[float, float] | None:
    """The calibrated (lowest, highest) element of a value, which include 0; None if unknown."""
    if isinstance(value, BlockArgument):
        attr = argument_attr(value, RANGE)
    else:
        assert isinstance(value, OpResult)
        attr = value.op.attributes.get(RANGE) if len(value.op.results) == 1 else None
    if not isinstance(attr, DenseArrayBase):
        return None
    low, high = (float(bound) for bound in attr.get_values())
    return low, high


def calibrate(
    module: ModuleOp,
    ctx: Context,
    feeds: Iterable[Mapping[str, Array]],
    progress: Callable[[int], None] | None = None,
    observer: str = "minmax",
) -> None:
    """
    Run `@main` of a tensor-level module on every feed (input name -> array) and record ranges.

    Every f32 result of an op, and every f32 argument, gets `range = array<f32: low, high>`, which
    includes 0 and is what `observer` chose (see transforms/observers.py). `feeds` are run one at a
    time and may come from a generator; `progress(done)` is called after each. Raises SpuError when
    there is no such observer, no feed, or one does not fit the module's inputs.
    """
    main = main_of(module)
    names = [port.name for port in signature_of(main).inputs]
    calibration = Calibration(observer_called(observer))
    done = 0
    for feed in feeds:
        interpret(module, ctx, feed, listener=calibration)
        for name, argument in zip(names, main.body.block.args, strict=True):
            calibration.see(argument, feed[name])
        done += 1
        if progress is not None:
            progress(done)
    if not done:
        raise SpuError(
            "there is nothing to calibrate with", remedy="pass at least one feed of every input"
        )
    calibration.record()


def read_feeds(path: str) -> list[dict[str, Array]]:
    """
    The feeds in an `.npz` file: arrays called as the inputs, or `0/input`, `1/input`, ...

    Raises SpuError when the file is missing or is not such a file.
    """
    remedy = "write them with numpy.savez(path, input=array)"
    try:
        with Path(path).open("rb") as file:
            archive: object = np.load(file, allow_pickle=False)
            if not isinstance(archive, NpzFile):
                raise SpuError(f"{path!r} is one array without a name", remedy=remedy)
            arrays: dict[str, Array] = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise SpuError(f"the feeds in {path!r} cannot be read: {error}", remedy=remedy) from error
    feeds: dict[str, dict[str, Array]] = {}
    for key, array in arrays.items():
        number, slash, name = key.partition("/")
        if slash and number.isdigit():
            feeds.setdefault(number, {})[name] = array
        else:
            feeds.setdefault("", {})[key] = array
    return list(feeds.values())


@dataclass(frozen=True)
class CalibratePass(ModulePass):
    """
    Run the module on the inputs in an `.npz` file and record the range of every activation.

    The file's arrays are called as the model's inputs; for several feeds `0/input`, `1/input`.
    `observer` is `minmax`, `percentile`, `percentile:99.9`, `entropy` or `mse`.
    """

    name = "calibrate"
    preserves: ClassVar[str] = "exact"

    feeds: str
    observer: str = "minmax"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        calibrate(op, ctx, read_feeds(self.feeds), observer=self.observer)
