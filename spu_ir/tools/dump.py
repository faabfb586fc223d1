"""Writing the IR after every pass, for whoever wants to see what each one did."""

from __future__ import annotations

from pathlib import Path

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass, PassPipelineCallbackType

DUMP_VARIABLE = "SPU_IR_DUMP"
"""Environment variable that names the folder to write to."""


def dump_callback(
    folder: Path, then: PassPipelineCallbackType | None = None
) -> PassPipelineCallbackType:
    """
    A pipeline callback that writes `folder/NN-<pass>.mlir` after every pass and then calls `then`.

    `00-input.mlir` is the module as it was before the first pass. The file is written before
    `then` runs, so that a module which does not verify can be looked at.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = 0

    def callback(
        previous: ModulePass | None, module: ModuleOp, following: ModulePass | None
    ) -> None:
        nonlocal count
        name = previous.name if previous is not None else "input"
        (folder / f"{count:02}-{name}.mlir").write_text(str(module) + "\n", encoding="utf-8")
        count += 1
        if then is not None:
            then(previous, module, following)

    return callback
