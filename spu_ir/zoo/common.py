"""A small builder of ONNX graphs, and what every model of the zoo needs around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.external_data_helper import (
    convert_model_to_external_data,
    write_external_data_tensors,
)

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Extents: TypeAlias = Sequence[int | str]
"""A shape: numbers, and names of run-time extents."""

OPSET = 20
IR_VERSION = 9
"""The file format that came with opset 20, so that no reader is asked for a newer one."""

EXTERNAL_BYTES = 1 << 30
"""Above this `save` writes the weights beside the model: protobuf ends at 2 GiB."""


class GraphBuilder:
    """
    Collects the nodes and constants of one graph, in order.

    Values are named as they are handled: by the strings that ONNX uses. `add` names a node's
    output after the node, so a graph made by one sequence of calls is always the same bytes.
    """

    def __init__(self, name: str):
        self.name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, element: int, shape: Extents) -> str:
        """Declare an input of `onnx.TensorProto` type `element`."""
        self._inputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    def output(self, name: str, element: int, shape: Extents) -> Self:
        """Declare that the value `name` is an output."""
        self._outputs.append(helper.make_tensor_value_info(name, element, shape))
        return self

    def constant(self, name: str, value: Array) -> str:
        """An initialiser; the same name twice is the same constant."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def integers(self, *values: int) -> str:
        """A constant of int64 `[len(values)]`: axes, shapes, bounds."""
        name = "/axes/" + "_".join(str(v) for v in values)
        return self.constant(name, np.array(values, np.int64))

    def number(self, value: float) -> str:
        """A scalar f32 constant."""
        return self.constant(f"/number/{value!r}", np.array(value, np.float32))

    def add(
        self, op: str, *inputs: str, name: str, output: str | None = None, **attributes: Any
    ) -> str:
        """A node with one output, which is called `output`, or else after the node."""
        result = f"{name}_output" if output is None else output
        self._nodes.append(helper.make_node(op, list(inputs), [result], name, **attributes))
        return result

    def split(self, value: str, sizes: Sequence[int], *, name: str, axis: int) -> list[str]:
        """A `Split` of `value` along `axis` in parts of `sizes`; returns their names."""
        results = [f"{name}_output_{index}" for index in range(len(sizes))]
        inputs = [value, self.integers(*sizes)]
        self._nodes.append(helper.make_node("Split", inputs, results, name, axis=axis))
        return results

    def model(self) -> onnx.ModelProto:
        """The finished model, at `OPSET`."""
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs, self._outputs, list(self._constants.values())
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="spu_ir.zoo",
        )


def element_bytes(model: onnx.ModelProto) -> int:
    """Bytes of all initialisers of a model."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def save(model: onnx.ModelProto, path: str | Path) -> Path:
    """
    Write a model to `path`; above 1 GiB its weights go to `<name>.data` in the same folder.

    The model itself is left as it was. Returns the path.
    """
    path = Path(path)
    if element_bytes(model) > EXTERNAL_BYTES:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        convert_model_to_external_data(copy, location=path.name + ".data")
        model = write_external_data_tensors(copy, str(path.parent))
    path.write_bytes(model.SerializeToString())
    return path
