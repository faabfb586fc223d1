"""Configuration of lit, which runs the RUN lines of every .mlir file beside and below this one."""

import os
import sys
from pathlib import Path
from typing import Any

import lit.formats

TOOLS = ("spu-opt", "spu-compile", "spu-run")

config: Any = globals()["config"]  # lit executes this file with it defined
config.name = "spu-ir"
config.test_format = lit.formats.ShTest()
config.suffixes = [".mlir"]
config.excludes = ["Inputs"]
config.test_source_root = str(Path(__file__).parent)
config.test_exec_root = str(Path(__file__).parents[2] / "build" / "lit")

# The tools of the same Python that runs lit, wherever it stands in PATH; filecheck is beside it.
scripts = Path(sys.executable).parent
config.environment["PATH"] = f"{scripts}{os.pathsep}{os.environ['PATH']}"
for tool in TOOLS:
    module = f"spu_ir.tools.{tool.replace('-', '_')}"
    word = rf"(?<![\w./-]){tool}(?![\w./-])"
    config.substitutions.append((word, f"{sys.executable} -m {module}"))
