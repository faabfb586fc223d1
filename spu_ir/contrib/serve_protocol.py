"""
The Open Inference Protocol, version 2: requests to arrays, and arrays to responses.

https://github.com/kserve/open-inference-protocol (specification/protocol/inference_rest.md), with
the extension "binary_tensor_data" (Triton's extension_binary_data.md): behind the JSON, whose
length is then in a header, follow the bytes of tensors, little endian and row-major.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from spu_ir.errors import SpuError

if TYPE_CHECKING:
    from spu_ir.runtime.program import Json, Port

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

VERSION = "1"
"""The version that every model has: a package has one."""
EXTENSIONS = ("binary_tensor_data",)
JSON_LENGTH = "Inference-Header-Content-Length"
"""The header with the length of the JSON, in bytes, where bytes of tensors follow it."""

DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
}
"""The protocol's names of element types. It has BYTES too, which no model takes."""


@dataclass(frozen=True)
class Wanted:
    """One output that a request asks for, and how."""

    name: str
    binary: bool


@dataclass(frozen=True)
class Request:
    """An inference request: arrays by input name, and the outputs that it wants."""

    feeds: dict[str, Array]
    outputs: tuple[Wanted, ...]
    id: str | None


def tensor_metadata(port: Port) -> dict[str, Json]:
    """What model metadata says of an input or output; extents of run time are -1."""
    return {
        "name": port.name,
        "datatype": DATATYPES[port.dtype],
        "shape": [d if isinstance(d, int) else -1 for d in port.shape],
    }


def parse_request(
    body: bytes, json_length: str | None, inputs: Sequence[Port], outputs: Sequence[Port]
) -> Request:
    """
    Read an inference request for a model with these ports.

    `json_length` is the header `JSON_LENGTH`. Arrays have their port's dtype; their shapes are
    those that the request says, and not yet compared with the model's. Raises SpuError for
    anything that is not as the protocol has it.
    """
    size = len(body) if json_length is None else _length(json_length, len(body))
    try:
        head: object = json.loads(body[:size], parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise SpuError(f"the request is not JSON: {error}") from error
    table = _table(head, "the request")
    ports = {port.name: port for port in inputs}
    rest = memoryview(body)[size:]
    feeds: dict[str, Array] = {}
    for entry in _list(table.get("inputs"), "inputs"):
        tensor = _table(entry, "an entry of 'inputs'")
        name = _text(tensor, "name", "an input")
        if name not in ports:
            raise SpuError(
                f"there is no input {name!r}",
                remedy="the inputs are " + "; ".join(map(str, inputs)),
            )
        if name in feeds:
            raise SpuError(f"the input {name!r} is there twice")
        feeds[name], taken = _tensor(tensor, ports[name], rest)
        rest = rest[taken:]
    if len(rest):
        raise SpuError(f"{len(rest)} bytes follow the last input's")
    identity = table.get("id")
    if identity is not None and not isinstance(identity, str):
        raise SpuError("the field 'id' is no text")
    return Request(feeds, _wanted(table, outputs), identity)


def _length(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise SpuError(f"{JSON_LENGTH} {text!r} is not the length of a part of the request")
    return int(text)


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no number in JSON")


def _wanted(table: dict[str, object], outputs: Sequence[Port]) -> tuple[Wanted, ...]:
    """The outputs that are asked for; all, where none are named."""
    parameters = _table(table.get("parameters", {}), "the field 'parameters'")
    binary = _flag(parameters, "binary_data_output", False)
    asked = table.get("outputs")
    if asked is None or asked == []:
        return tuple(Wanted(port.name, binary) for port in outputs)
    known = {port.name for port in outputs}
    wanted: dict[str, Wanted] = {}
    for entry in _list(asked, "outputs"):
        output = _table(entry, "an entry of 'outputs'")
        name = _text(output, "name", "an output")
        if name not in known:
            raise SpuError(
                f"there is no output {name!r}", remedy=f"the outputs are {', '.join(known)}"
            )
        if name in wanted:
            raise SpuError(f"the output {name!r} is asked for twice")
        own = _table(output.get("parameters", {}), "the parameters of an output")
        if "classification" in own or "shared_memory_region" in own:
            raise SpuError("the extensions classification and shared memory are not spoken here")
        wanted[name] = Wanted(name, _flag(own, "binary_data", binary))
    return tuple(wanted.values())


def _tensor(tensor: dict[str, object], port: Port, rest: memoryview) -> tuple[Array, int]:
    """An input's array, and how many bytes of `rest` are its."""
    what = f"the input {port.name!r}"
    datatype = _text(tensor, "datatype", what)
    if datatype != DATATYPES[port.dtype]:
        raise SpuError(
            f"{what} has the datatype {datatype!r}", remedy=f"expected {DATATYPES[port.dtype]}"
        )
    shape: list[int] = []
    for d in _list(tensor.get("shape"), f"shape of {what}"):
        if not isinstance(d, int) or isinstance(d, bool) or not 0 <= d < 2**31:
            raise SpuError(f"{what} has the extent {d!r}")
        shape.append(d)
    if len(shape) != len(port.shape):
        raise SpuError(f"{what} has {len(shape)} axes", remedy=f"expected {port}")
    # Also without elements, as in [0, 2147483647, ...], numpy has no arrays beyond this.
    if math.prod(max(d, 1) for d in shape) * port.numpy_dtype.itemsize >= 2**63:
        raise SpuError(f"{what} has the impossible shape {shape}", remedy=f"expected {port}")
    elements = math.prod(shape)
    parameters = _table(tensor.get("parameters", {}), f"the parameters of {what}")
    size = parameters.get("binary_data_size")
    if size is None:
        return _from_json(tensor.get("data"), shape, elements, port, what), 0
    if "data" in tensor:
        raise SpuError(f"{what} has both data and binary_data_size")
    expected = elements * port.numpy_dtype.itemsize
    if not isinstance(size, int) or isinstance(size, bool) or size != expected:
        raise SpuError(f"{what} has a binary_data_size of {size!r}; its shape takes {expected}")
    if size > len(rest):
        raise SpuError(f"{what} has {size} bytes, and {len(rest)} are left in the request")
    array = np.frombuffer(rest[:size], port.numpy_dtype).reshape(shape)
    if port.dtype == "bool" and array.view(np.uint8).max(initial=0) > 1:
        raise SpuError(f"{what} has bytes other than 0 and 1")
    return array, size


def _from_json(data: object, shape: list[int], elements: int, port: Port, what: str) -> Array:
    """Numbers in nested lists of the tensor's shape, or in one flat list, row-major."""
    items = _list(data, f"data of {what}")
    try:
        loose: Array = np.array(items)
    except ValueError as error:
        raise SpuError(f"{what} has lists that are no tensor") from error
    if loose.shape not in ((elements,), tuple(shape)):
        raise SpuError(
            f"{what} has data of the shape {list(loose.shape)}, and says that it is {shape}"
        )
    dtype = port.numpy_dtype
    if elements == 0:
        return np.empty(shape, dtype)
    real = port.dtype in ("float16", "bfloat16", "float32", "float64")
    kinds = "b" if port.dtype == "bool" else "iuf" if real else "iu"
    if loose.dtype.kind not in kinds:
        raise SpuError(f"{what} has values that are no {DATATYPES[port.dtype]}")
    if not real and port.dtype != "bool":
        limits = np.iinfo(dtype)
        if int(loose.min()) < limits.min or int(loose.max()) > limits.max:
            raise SpuError(f"{what} has values outside {limits.min} to {limits.max}")
    with np.errstate(over="ignore"):  # As everywhere, what is too large is infinite.
        return loose.astype(dtype).reshape(shape)


def response(
    model: str, request: Request, outputs: dict[str, Array], parameters: dict[str, Json]
) -> tuple[bytes, int | None]:
    """
    The body of an inference response, and the length of its JSON if bytes of tensors follow.

    Raises SpuError where an output that is wanted as JSON is not finite.
    """
    entries: list[Json] = []
    blobs: list[bytes] = []
    for wanted in request.outputs:
        array = outputs[wanted.name]
        entry: dict[str, Json] = {
            "name": wanted.name,
            "datatype": DATATYPES[array.dtype.name],
            "shape": [int(d) for d in array.shape],
        }
        if wanted.binary:
            blobs.append(array.tobytes())
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            if array.dtype.name == "bfloat16":
                array = array.astype(np.float32)
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise SpuError(
                    f"the output {wanted.name!r} has values that JSON does not have: not finite",
                    remedy="ask for binary_data",
                )
            entry["data"] = cast("list[Json]", array.reshape(-1).tolist())
        entries.append(entry)
    table: dict[str, Json] = {"model_name": model, "model_version": VERSION}
    if request.id is not None:
        table["id"] = request.id
    table |= {"parameters": parameters, "outputs": entries}
    text = json.dumps(table, separators=(",", ":"), allow_nan=False).encode()
    return (b"".join((text, *blobs)), len(text)) if blobs else (text, None)


def _table(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise SpuError(f"{what} is no JSON object")
    return cast(dict[str, object], value)


def _list(value: object, what: str) -> list[object]:
    if not isinstance(value, list):
        raise SpuError(f"{what!r} is missing or no list")
    return cast(list[object], value)


def _text(table: dict[str, object], key: str, what: str) -> str:
    value = table.get(key)
    if not isinstance(value, str):
        raise SpuError(f"{what} has no text {key!r}")
    return value


def _flag(table: dict[str, object], key: str, default: bool) -> bool:
    value = table.get(key, default)
    if not isinstance(value, bool):
        raise SpuError(f"the parameter {key!r} is neither true nor false")
    return value
