"""Writing the IR after every pass, for whoever wants to see what each one did."""

from __future__ import annotations

from pathlib import Path

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass, PassPipelineCallbackType

from spu_ir.errors import SpuError

DUMP_VARIABLE = "SPU_IR_DUMP"
"""Environment variable that names the folder to write to."""


def dump_callback(
    folder: Path, then: PassPipelineCallbackType | None = None
) -> PassPipelineCallbackType:
    """
    A pipeline callback that writes `folder/NN-<pass>.mlir` after every pass and then calls `then`.

    `00-input.mlir` is the module as it was before the first pass. The file is written before
    `then` runs, so that a module which does not verify can be looked at. The callback raises
    SpuError when it cannot write.
    """
    count = 0

    def callback(
        previous: ModulePass | None, module: ModuleOp, following: ModulePass | None
    ) -> None:
        nonlocal count
        name = previous.name if previous is not None else "input"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{count:02}-{name}.mlir").write_text(str(module) + "\n", encoding="utf-8")
        except OSError as error:
            raise SpuError(
                f"cannot write the IR to {str(folder)!r}: {error}",
                remedy=f"set {DUMP_VARIABLE} to a folder that can be written and has space",
            ) from error
        count += 1
        if then is not None:
            then(previous, module, following)

    return callback
