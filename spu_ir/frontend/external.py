"""
Tensors as arrays, from the model file itself or from external data beside it.

External data (https://onnx.ai/onnx/repo-docs/ExternalData.html) names a file; it is read only
when that file lies in the model's folder and no part of its path is a link.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import cast

import numpy as np
from onnx import TensorProto, numpy_helper

from spu_ir.dialects.types import Array, ElementType, numpy_dtype
from spu_ir.errors import SpuError

from .limits import element_of_data_type, tensor_bytes

_FIELDS: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
}
"""Field that holds the values where it is not `raw_data`; `int32_data` for every other type."""


def tensor_array(tensor: TensorProto, what: str, folder: Path | None) -> Array:
    """
    The values of a tensor, as an array of its shape.

    `what` names the tensor in errors; `folder` is the model's folder, None for a model that did
    not come from a file. Raises SpuError when the declared size is not that of the data.
    """
    element = element_of_data_type(tensor.data_type, what)
    size = tensor_bytes(tensor.dims, element, what)
    if tensor.data_location == TensorProto.EXTERNAL:
        return _external(tensor, element, size, what, folder)
    dtype = numpy_dtype(element)
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != size:
            raise _wrong_size(tensor, size, f"{len(tensor.raw_data)} bytes", what)
        # ONNX stores raw data in little-endian order.
        stored = np.frombuffer(tensor.raw_data, dtype=dtype.newbyteorder("<"))
        return stored.astype(dtype, copy=False).reshape(tuple(tensor.dims))
    values = getattr(tensor, _FIELDS.get(tensor.data_type, "int32_data"))
    if len(values) != size // dtype.itemsize:
        raise _wrong_size(tensor, size, f"{len(values)} values", what)
    return cast("Array", numpy_helper.to_array(tensor))


def _wrong_size(tensor: TensorProto, size: int, got: str, what: str) -> SpuError:
    return SpuError(
        f"{what} of shape {list(tensor.dims)} needs {size} bytes, the file has {got}",
        remedy="the file is truncated or damaged, export it again",
    )


def _external(
    tensor: TensorProto, element: ElementType, size: int, what: str, folder: Path | None
) -> Array:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = external_path(entries.get("location", ""), what, folder)
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(size)))
    except ValueError:
        raise SpuError(f"{what}: offset or length of its external data is no number") from None
    if length != size:
        raise _wrong_size(tensor, size, f"an external length of {length} bytes", what)
    available = path.stat().st_size
    if offset < 0 or offset + size > available:
        raise SpuError(
            f"{what} needs bytes {offset} to {offset + size} of {path.name!r}, "
            f"which has {available}",
            remedy="the file is truncated or belongs to another model",
        )
    dtype = numpy_dtype(element)
    stored = np.fromfile(path, dtype=np.uint8, count=size, offset=offset)
    return stored.view(dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(tensor.dims)


def external_path(location: str, what: str, folder: Path | None) -> Path:
    """
    The file of external data at `location`, relative to the model's `folder`.

    Raises SpuError when it leaves the folder (absolute, `..`, a link) or is no regular file.
    """
    if folder is None:
        raise SpuError(
            f"{what} lies in external data, but the model was not read from a file",
            remedy="pass the model's path, or load its external data first",
        )
    parts = PurePosixPath(location).parts
    # A backslash or a colon is a separator on other systems; no exporter writes them.
    odd = any(mark in location for mark in ("\0", "\\", ":"))
    if not parts or odd or location.startswith("/") or ".." in parts:
        raise SpuError(
            f"{what}: external data {location!r} is outside the model's folder",
            remedy="external data must be a relative path below the model's folder",
        )
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise SpuError(
                f"{what}: external data {location!r} goes through a link",
                remedy="copy the file into the model's folder",
            )
    if not path.is_file():
        raise SpuError(
            f"{what}: external data {location!r} is not in the model's folder",
            remedy="put the file beside the model",
        )
    return path
