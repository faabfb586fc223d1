"""How interpreters of ops in destination-passing style hand their results over."""

from __future__ import annotations

import numpy as np
from xdsl.interpreter import PythonValues
from xdsl.utils.exceptions import InterpretationError

from spu_ir.dialects.destination import DestinationOp
from spu_ir.dialects.types import Array, element_of, numpy_dtype


def deliver(op: DestinationOp, args: PythonValues, *results: Array) -> PythonValues:
    """
    `results`, one for each init, as values of the op: on memrefs they are written to the inits.

    A result must have its init's element type, and broadcast to its shape.
    """
    inits = args[len(args) - len(results) :]
    for value, init, result in zip(op.inits, inits, results, strict=True):
        if result.dtype != numpy_dtype(element_of(value)):
            raise InterpretationError(f"{op.name}: {result.dtype} for a {element_of(value)} init")
        if not op.on_tensors:
            np.copyto(init, result)
    if not op.on_tensors:
        return ()
    return tuple(
        [
            result if result.shape == init.shape else np.broadcast_to(result, init.shape)
            for init, result in zip(inits, results, strict=True)
        ]
    )
