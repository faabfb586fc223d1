"""`spu-opt -t c`: the C of a tiled module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.target import Target

from spu_ir.codegen.program import emit_program


@dataclass(frozen=True)
class CTarget(Target):
    """Print a module at stage 4 as one C program, which includes the device headers."""

    name = "c"

    def emit(self, ctx: Context, module: ModuleOp, output: IO[str]) -> None:
        output.write(emit_program(module, ctx, work=False).source)
