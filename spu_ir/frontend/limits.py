"""
What a model file may ask for: versions, types and sizes, checked before anything is allocated.

A model file is untrusted: a few bytes of it can declare a tensor of terabytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import onnx
from onnx import ModelProto, TensorProto
from onnx.defs import onnx_opset_version

from spu_ir.dialects.onnx_schema import ELEMENTS
from spu_ir.dialects.types import ElementType, numpy_dtype
from spu_ir.errors import SpuError

MAX_RANK = 16
"""Axes of a tensor; more than any operator that is compiled."""

MAX_TENSOR_BYTES = 1 << 40
"""Bytes of one tensor; a larger size in a file is a mistake or an attack."""

MAX_DEPTH = 32
"""Subgraphs within subgraphs."""

DEFAULT_DOMAINS = ("", "ai.onnx")


def check_versions(model: ModelProto) -> int:
    """
    Check the versions that a model declares and return its opset of the default domain.

    Raises SpuError when they are missing or newer than the installed `onnx` package knows.
    """
    if model.ir_version > onnx.IR_VERSION:
        raise SpuError(
            f"the model has IR version {model.ir_version}, the newest known is {onnx.IR_VERSION}",
            remedy="export it with an older ONNX or update the onnx package",
        )
    opsets = [i.version for i in model.opset_import if i.domain in DEFAULT_DOMAINS]
    if not opsets:
        raise SpuError(
            "the model declares no opset of ONNX's default domain",
            remedy='add opset_import {domain: "", version: ...}',
        )
    if len(set(opsets)) > 1:
        raise SpuError(f"the model declares several opsets of one domain: {sorted(set(opsets))}")
    known = onnx_opset_version()
    if not 1 <= opsets[0] <= known:
        raise SpuError(
            f"the model has opset {opsets[0]}, known are 1 to {known}",
            remedy="export it with an older opset or update the onnx package",
        )
    return opsets[0]


def data_type_name(data_type: int) -> str:
    """ONNX's name of an element type, in lower case: `float8e4m3fn`."""
    try:
        return TensorProto.DataType.Name(data_type).lower()
    except ValueError:
        return f"number {data_type}"


def element_of_data_type(data_type: int, what: str, **place: str | None) -> ElementType:
    """The element type of an ONNX data type; SpuError at `place` naming `what` for others."""
    name = data_type_name(data_type)
    element = ELEMENTS.get(name)
    if element is None:
        raise SpuError(
            f"{what} has the element type {name}, which is not supported",
            remedy=f"use one of {', '.join(ELEMENTS)}",
            **place,
        )
    return element


def tensor_bytes(dims: Sequence[int], element: ElementType, what: str, **place: str | None) -> int:
    """The bytes of a tensor of these dims. Raises SpuError at `place` when they are absurd."""
    if len(dims) > MAX_RANK:
        raise SpuError(f"{what} has {len(dims)} axes, at most {MAX_RANK} are supported", **place)
    if any(dim < 0 for dim in dims):
        raise SpuError(f"{what} has a negative size: {list(dims)}", **place)
    size = prod(dims) * numpy_dtype(element).itemsize
    if size > MAX_TENSOR_BYTES:
        raise SpuError(
            f"{what} of shape {list(dims)} declares {size} bytes, which is absurd", **place
        )
    return size
