"""Inputs from a seed, for scales where nobody gave any: times depend on shapes, not on scales."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spu_ir.quantisation import Feeds

SEED = 0


def random_feed(model: Path, shapes: Mapping[str, Any], *, static: bool) -> Feeds | None:
    """
    One feed of an ONNX file, with every run-time extent at its least; None where none is needed.

    One is needed if `static` says so, or for convolutions, which INT8 has static scales for.
    Floats are of unit variance, masks are 1, other integers 0. Raises SpuError for anything wrong
    with the file or with `shapes`.
    """
    import numpy as np

    from spu_ir.api import new_context
    from spu_ir.dialects.functions import bounds
    from spu_ir.dialects.types import element_of, numpy_dtype
    from spu_ir.frontend import import_model
    from spu_ir.interpreters import main_of, signature_of

    module = import_model(model, new_context(), shapes=shapes)
    if not static and not any("Conv" in op.name for op in module.walk()):
        return None
    main = main_of(module)
    least = {name: low for name, (low, _) in bounds(main).items()}
    random = np.random.default_rng(SEED)
    feed: dict[str, Any] = {}
    for port in signature_of(main).inputs:
        kind = numpy_dtype(element_of(port.type))
        shape = port.shape(least)
        if kind.kind in "iub":
            feed[port.name] = np.full(shape, "mask" in port.name.lower(), kind)
        else:
            feed[port.name] = random.standard_normal(shape).astype(kind)
    return feed
