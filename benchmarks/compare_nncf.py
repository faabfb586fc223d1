"""
NNCF's INT8 of an ONNX model, run as a script with the Python of OpenVINO's environment.

    compare_nncf.py MODEL.onnx OUT.xml transformer|other FEEDS.npz...
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import numpy as np


def _module(name: str) -> Any:
    return import_module(name)


def main(source: str, target: str, kind: str, *archives: str) -> None:
    """The documented way: `model_type` for transformers, else every default."""
    openvino, nncf = _module("openvino"), _module("nncf")
    feeds: list[dict[str, Any]] = []
    for path in archives:
        with np.load(path) as archive:
            feeds.append({name: archive[name] for name in archive.files})
    model = openvino.Core().read_model(source)
    options = {"model_type": nncf.ModelType.TRANSFORMER} if kind == "transformer" else {}
    quantised = nncf.quantize(model, nncf.Dataset(feeds), subset_size=len(feeds), **options)
    openvino.save_model(quantised, target, compress_to_fp16=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
