"""ONNX files to and from the `onnx` dialect."""

from .exporter import export_model, main_function
from .extents import Shapes, parse_shapes
from .importer import import_fragment, import_model

__all__ = [
    "Shapes",
    "export_model",
    "import_fragment",
    "import_model",
    "main_function",
    "parse_shapes",
]
