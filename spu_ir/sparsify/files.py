"""ONNX models read from files, and written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, cast

import onnx
from google.protobuf.message import DecodeError
from onnx.checker import ValidationError

from spu_ir.errors import SpuError

Model: TypeAlias = onnx.ModelProto | str | PathLike[str]
"""A model, or the path of its file."""


def read_model(model: Model) -> onnx.ModelProto:
    """
    A copy of a model, or a file's with its weights.

    Raises SpuError for a file that cannot be read.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model if isinstance(model, onnx.ModelProto) else _load(Path(model)))
    return copy


def _load(path: Path) -> onnx.ModelProto:
    try:
        return cast("Any", onnx).load(str(path))
    except OSError as error:
        cause = error.strerror or str(error)
        raise SpuError(
            f"cannot read the model {str(path)!r}: {cause}",
            remedy="give the path of an .onnx file that can be read",
        ) from None
    except (DecodeError, ValidationError, ValueError) as error:
        raise SpuError(
            f"{str(path)!r} is no ONNX model that can be read: {error}",
            remedy="download or export it again",
        ) from None


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """
    Write a model, beside its place first, with its weights in a file of their own above 1 GiB.

    Raises SpuError when that fails; what was at `path` is then still there.
    """
    from spu_ir.zoo import save

    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            save(model, Path(folder) / path.name)
            # The weights go first: the model refers to them.
            for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name):
                os.replace(file, path.parent / file.name)
    except OSError as error:
        raise SpuError(f"cannot write {str(path)!r}: {error.strerror}") from None
