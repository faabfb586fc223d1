"""ONNX files to and from the `onnx` dialect."""

from .extents import Shapes, parse_shapes
from .importer import import_model

__all__ = ["Shapes", "import_model", "parse_shapes"]
