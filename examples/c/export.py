"""
Write a compiled model as C that builds and runs without Python.

    spu-compile model.onnx -o model.spu
    python examples/c/export.py model.spu model-c
    make -C model-c run
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from spu_ir.errors import SpuError
from spu_ir.runtime import load


def main() -> int:
    parser = argparse.ArgumentParser(description="Write a compiled model as C with a Makefile.")
    parser.add_argument("model", type=Path, help="the folder that spu-compile wrote")
    parser.add_argument("folder", type=Path, help="where the C goes; an older export is replaced")
    options = parser.parse_args()
    try:
        model = load(options.model)
        model.export_c(options.folder)
    except SpuError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.folder}: {', '.join(map(str, model.inputs))}")
    print(f"build and run it: make -C {options.folder} run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
