"""The layers of an ONNX graph whose weights are known, and how to give them other weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import Any, TypeAlias, cast

import numpy as np
import onnx
from onnx import helper, numpy_helper

from spu_ir.errors import SpuError
from spu_ir.packing.prune import RATIOS

from .banks import Array, BankedRows, conv_rows, linear_rows

MAX_BYTES = 1 << 30
"""A weight made by a node of a few bytes is not allowed to be larger."""

KNOWN = ("Constant", "ConstantOfShape", "Identity", "Transpose")
"""Nodes whose result is known when their inputs are."""


@dataclass(frozen=True)
class Layer:
    """One node with a constant weight, as the compiler reads it."""

    node: onnx.NodeProto
    name: str
    """The node's name, or that of its output when it has none."""
    weight_name: str
    weight: Array
    """Of any float type, in ONNX's layout."""
    rows: BankedRows

    @property
    def op(self) -> str:
        """The ONNX operator."""
        return self.node.op_type

    @property
    def key(self) -> tuple[str, BankedRows]:
        """Equal for layers that read one weight alike, which stays one weight."""
        return self.weight_name, self.rows


Ratio: TypeAlias = float | Mapping[str, float] | Callable[[Layer], float]
"""One for all layers, or by glob of layer or weight names (others stay dense), or by function."""


def layers_of(graph: onnx.GraphProto) -> list[Layer]:
    """
    The MatMul, Gemm, Conv and ConvTranspose nodes of a graph whose weight is a constant.

    Their order is that of the nodes. Weights that the compiler reads as no bank at all (integers,
    products of more than two axes) are left out.
    """
    constants = _Constants(graph)
    found: list[Layer] = []
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm", "Conv", "ConvTranspose"):
            continue
        weight = constants.get(node.input[1])
        if weight is None or weight.dtype.kind != "f" or constants.known(node.input[0]):
            continue
        rows = _rows_of(node, weight.shape)
        if rows is not None:
            name = node.name or node.output[0]
            found.append(Layer(node, name, node.input[1], weight, rows))
    return found


def _rows_of(node: onnx.NodeProto, shape: tuple[int, ...]) -> BankedRows | None:
    attributes: dict[str, Any] = {
        a.name: cast("Any", helper).get_attribute_value(a) for a in node.attribute
    }
    if node.op_type in ("Conv", "ConvTranspose"):
        if len(shape) not in (3, 4):
            return None
        dilations = list(attributes.get("dilations", ()))
        return conv_rows(
            shape,
            groups=int(attributes.get("group", 1)),
            dilation=int(dilations[-1]) if dilations else 1,
            transpose=node.op_type == "ConvTranspose",
        )
    if len(shape) != 2:
        return None
    return linear_rows(shape, outputs_last=not attributes.get("transB", 0))


def ratios_of(
    layers: Sequence[Layer], ratio: Ratio, keep: Sequence[str] = (), *, any_ratio: bool = False
) -> list[float]:
    """
    The ratio of every layer: 1 for those that match a glob of `keep`.

    Raises SpuError for a ratio that the format does not have (with `any_ratio`: one below 1), and
    for a pattern that matches no layer.
    """
    by_name = _by_name(ratio)
    for pattern in (*keep, *by_name):
        if not any(_matches(layer, pattern) for layer in layers):
            some = ", ".join(repr(layer.name) for layer in layers[:4])
            raise SpuError(
                f"{pattern!r} is the name of no layer",
                remedy=f"patterns match the names of nodes or of their weights: {some}, ...",
            )
    given = [*by_name.values(), *([ratio] if isinstance(ratio, int | float) else [])]
    chosen = [
        1 if any(_matches(layer, pattern) for pattern in keep) else _ratio_of(layer, ratio)
        for layer in layers
    ]
    for one in (*given, *chosen):
        if any_ratio and not one >= 1:
            raise SpuError(f"ratio {one} is below 1", remedy="10 keeps one weight in ten")
        if not any_ratio and one not in RATIOS:
            raise SpuError(
                f"ratio {one} is not one of the sparse format's",
                remedy=f"use one of {', '.join(map(str, RATIOS))}",
            )
    return chosen


def _by_name(ratio: Ratio) -> Mapping[str, float]:
    return cast("Mapping[str, float]", ratio) if isinstance(ratio, Mapping) else {}


def _ratio_of(layer: Layer, ratio: Ratio) -> float:
    by_name = _by_name(ratio)
    if isinstance(ratio, int | float):
        return ratio
    if callable(ratio):
        return ratio(layer)
    return next((one for pattern, one in by_name.items() if _matches(layer, pattern)), 1)


def _matches(layer: Layer, pattern: str) -> bool:
    return fnmatchcase(layer.name, pattern) or fnmatchcase(layer.weight_name, pattern)


@dataclass
class Replacer:
    """Gives the layers of a model other weights; layers with one weight keep sharing it."""

    model: onnx.ModelProto

    def __post_init__(self) -> None:
        self.done: dict[tuple[object, ...], str] = {}

    def replace(self, layer: Layer, weight: Array, ratio: float) -> None:
        """
        Let a layer use `weight` of its shape and type.

        Layers of equal `key` and `ratio` share the weight that came first.
        """
        key = (*layer.key, ratio)
        if key not in self.done:
            name = f"{layer.weight_name}/pruned{len(self.done)}"
            array = np.ascontiguousarray(weight, layer.weight.dtype)
            self.model.graph.initializer.append(numpy_helper.from_array(array, name))
            self.done[key] = name
        layer.node.input[1] = self.done[key]

    def finish(self) -> None:
        """Remove constants that nothing reads any more, if any weight was replaced."""
        if self.done:
            # Before this version every constant had to be listed as an input too.
            self.model.ir_version = max(self.model.ir_version, 4)
            _drop_unused(self.model.graph)


class _Constants:
    """The values of a graph that are known without running it."""

    def __init__(self, graph: onnx.GraphProto):
        self.initialisers = {tensor.name: tensor for tensor in graph.initializer}
        self.nodes = {node.output[0]: node for node in graph.node if node.op_type in KNOWN}

    def known(self, name: str) -> bool:
        """Whether a value is a constant."""
        if name in self.initialisers:
            return True
        node = self.nodes.get(name)
        return node is not None and all(self.known(one) for one in node.input)

    def get(self, name: str) -> Array | None:
        """The value of a constant, or None for anything else."""
        if name in self.initialisers:
            return numpy_helper.to_array(self.initialisers[name])
        node = self.nodes.get(name)
        if node is None:
            return None
        if node.op_type in ("Identity", "Transpose"):
            source = self.get(node.input[0])
            if source is None or node.op_type == "Identity":
                return source
            perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
            return np.ascontiguousarray(source.transpose(perm))
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        filler = None if value is None else numpy_helper.to_array(value)
        if node.op_type == "Constant":
            return filler
        shape = self.get(node.input[0])
        if shape is None or prod(map(int, shape)) * 4 > MAX_BYTES:
            return None
        return np.full(shape, 0.0 if filler is None else filler.reshape(()), np.float32)


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
    for node in reversed([n for n in graph.node if n.op_type in KNOWN]):
        if not set(_uses(graph)).intersection(node.output):
            graph.node.remove(node)
    used = set(_uses(graph))
    dropped = {tensor.name for tensor in graph.initializer} - used
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    inputs = [value for value in graph.input if value.name not in dropped]
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend(constants)
    graph.input.extend(inputs)


def why_not(layer: Layer, ratio: float) -> str | None:
    """Why a layer stays dense at this ratio, or None."""
    return "it was asked to stay dense" if ratio == 1 else layer.rows.why_dense
