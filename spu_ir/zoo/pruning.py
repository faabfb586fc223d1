"""Magnitude pruning of an ONNX model in the banks of the sparse format, still FP32."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import onnx
from onnx import helper, numpy_helper

from spu_ir.errors import SpuError
from spu_ir.packing.prune import prune_banked

from .common import Array

RATIOS = (1, 2, 4, 8, 16, 32)
MIN_DEPTH = 64
"""A reduction shorter than one bank is left dense."""

MIN_CHANNELS = 16
"""A convolution with fewer input channels is a first layer: small, and the most sensitive."""

MAX_BYTES = 1 << 30
"""A weight made by a node of a few bytes is not allowed to be larger."""

_LINEAR = ("MatMul", "Gemm")


def prune(model: onnx.ModelProto, ratio: int, bank: int = 64) -> onnx.ModelProto:
    """
    A copy of `model` in which each row of each weight keeps `bank / ratio` numbers a bank.

    Weights are the constant right operands of MatMul and Gemm and the filters of Conv. A row is
    one output channel; its reduction is ordered as the compiler orders it (for Conv: kernel row,
    kernel column, channel) and cut in banks inside each contiguous run. The largest magnitudes
    stay, the first of equals. Layers shorter than a bank and first convolutions stay dense.

    The result is the FP32 reference of a compilation at that ratio: both have the same weights.
    Raises SpuError for a ratio that the format does not have.
    """
    if ratio not in RATIOS:
        raise SpuError(
            f"ratio {ratio} is not one of the sparse format's",
            remedy=f"use one of {', '.join(map(str, RATIOS))}",
        )
    pruned = onnx.ModelProto()
    pruned.CopyFrom(model)
    if ratio == 1:
        return pruned
    # From this version on a constant need not be listed as an input too.
    pruned.ir_version = max(pruned.ir_version, 4)
    constants = _Constants(pruned.graph)
    done: dict[tuple[str, str], str] = {}
    for node in pruned.graph.node:
        if node.op_type not in (*_LINEAR, "Conv"):
            continue
        rows = _Rows(node)
        key = (node.input[1], rows.layout)
        if key not in done:
            weight = constants.get(node.input[1])
            if weight is None or not rows.prunable(weight):
                continue
            done[key] = f"{node.input[1]}/pruned{len(done)}"
            kept = rows.prune(weight, bank // ratio, bank)
            pruned.graph.initializer.append(numpy_helper.from_array(kept, done[key]))
        node.input[1] = done[key]
    _drop_unused(pruned.graph)
    return pruned


class _Constants:
    """The values of a graph that are known without running it."""

    def __init__(self, graph: onnx.GraphProto):
        self.initialisers = {tensor.name: tensor for tensor in graph.initializer}
        self.nodes = {
            node.output[0]: node
            for node in graph.node
            if node.op_type in ("Constant", "ConstantOfShape")
        }

    def get(self, name: str) -> Array | None:
        """The value of a constant, or None for anything else."""
        if name in self.initialisers:
            return numpy_helper.to_array(self.initialisers[name])
        node = self.nodes.get(name)
        if node is None:
            return None
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        filler = None if value is None else numpy_helper.to_array(value)
        if node.op_type == "Constant":
            return filler
        shape = self.get(node.input[0])
        if shape is None or prod(map(int, shape)) * 4 > MAX_BYTES:
            return None
        return np.full(shape, 0.0 if filler is None else filler.reshape(()), np.float32)


class _Rows:
    """How one node reads its weight as rows of the reduction, cut in contiguous runs."""

    def __init__(self, node: onnx.NodeProto):
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self.group = int(attributes.get("group", 1))
        if node.op_type == "Conv":
            dilations = list(attributes.get("dilations", ()))
            together = self.group == 1 and (not dilations or dilations[-1] == 1)
            self.layout = "conv rows" if together else "conv taps"
        else:
            self.layout = "linear, [n, k]" if attributes.get("transB", 0) else "linear, [k, n]"

    def prunable(self, weight: Array) -> bool:
        if weight.dtype != np.float32:
            return False
        if self.layout.startswith("conv"):
            return _prunable_filters(weight, self.group)
        depth_axis = 1 if self.layout == "linear, [n, k]" else 0
        return weight.ndim == 2 and weight.shape[depth_axis] >= MIN_DEPTH

    def prune(self, weight: Array, slots: int, bank: int) -> Array:
        """The weight with all but `slots` numbers of every bank of every row set to zero."""
        if self.layout == "linear, [n, k]":
            return _prune_runs(weight, weight.shape[1], slots, bank)
        if self.layout == "linear, [k, n]":
            return np.ascontiguousarray(_prune_runs(weight.T, len(weight), slots, bank).T)
        return _prune_filters(weight, slots, bank, whole_rows=self.layout == "conv rows")


def prune_conv(weight: Array, ratio: int, bank: int = 64) -> Array:
    """The filters f32 `[out, channels, kh, kw]` of an ungrouped convolution, pruned as `prune`."""
    if ratio == 1 or not _prunable_filters(weight, 1):
        return weight
    return _prune_filters(weight, bank // ratio, bank, whole_rows=True)


def _prunable_filters(weight: Array, group: int) -> bool:
    channels = weight.shape[1] * group
    return weight.ndim == 4 and channels >= MIN_CHANNELS and prod(weight.shape[1:]) >= MIN_DEPTH


def _prune_filters(weight: Array, slots: int, bank: int, *, whole_rows: bool) -> Array:
    last = weight.transpose(0, 2, 3, 1)  # [out, kh, kw, channels]
    run = last.shape[3] * (last.shape[2] if whole_rows else 1)
    kept = _prune_runs(last.reshape(len(last), -1), run, slots, bank).reshape(last.shape)
    return np.ascontiguousarray(kept.transpose(0, 3, 1, 2))


def _prune_runs(rows: Array, run: int, slots: int, bank: int) -> Array:
    """Prune f32 `[n, k]` in banks that are cut inside contiguous runs of `run` numbers."""
    return prune_banked(rows, [(0, run)] * (rows.shape[1] // run), bank, slots)


def _uses(graph: onnx.GraphProto) -> Iterator[str]:
    """Every value that a graph reads, in its own nodes and in the graphs inside them."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _uses(inner)
    for value in graph.output:
        yield value.name


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove constants that nothing reads any more, with the inputs of old files that list them."""
    used = set(_uses(graph))
    for node in [n for n in graph.node if n.op_type in ("Constant", "ConstantOfShape")]:
        if not used.intersection(node.output):
            graph.node.remove(node)
    used = set(_uses(graph))
    dropped = {tensor.name for tensor in graph.initializer} - used
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    inputs = [value for value in graph.input if value.name not in dropped]
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend(constants)
    graph.input.extend(inputs)
