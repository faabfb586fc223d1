"""Run small programs of the dialects in the interpreter, on tensors and on memrefs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser
from xdsl.universe import Universe

from spu_ir.dialects.types import element_type
from spu_ir.interpreters import interpret
from spu_ir.universe import SPU_UNIVERSE

BF16 = ml_dtypes.bfloat16
Arrays = dict[str, np.ndarray]


def context() -> Context:
    ctx = Context()
    for name, load in (Universe.get_multiverse().all_dialects | SPU_UNIVERSE.all_dialects).items():
        ctx.register_dialect(name, load)
    return ctx


def parse(text: str, ctx: Context | None = None) -> ModuleOp:
    module = Parser(ctx or context(), text).parse_module()
    module.verify()
    return module


def run(text: str, *, exact_f32: bool = True, **feeds: np.ndarray) -> Arrays:
    return interpret(parse(text), context(), feeds, exact_f32=exact_f32)


def kind(array: np.ndarray, encoding: str = "") -> str:
    shape = "".join(f"{extent}x" for extent in array.shape)
    return f"T<{shape}{element_type(array.dtype)}{encoding}>"


def both(
    op: str,
    feeds: Arrays,
    *outs: tuple[Sequence[int], Any],
    exact_f32: bool = True,
    **encoding: str,
) -> list[np.ndarray]:
    """
    The results of one op on tensors, which must be those on memrefs.

    In `op`, $name is the type of an input, $0 that of the first init `%0`; an op's own results
    are left out. Memrefs get inits with strides, so that what is written goes through a view.
    """
    kinds = {name: kind(array, encoding.get(name, "")) for name, array in feeds.items()}
    inits = [kind(np.empty(shape, dtype)) for shape, dtype in outs]
    kinds |= {str(i): one for i, one in enumerate(inits)}
    for name in sorted(kinds, key=len, reverse=True):
        op = op.replace(f"${name}", kinds[name])
    arguments = [f'%{name}: {kinds[name]} {{onnx.name = "{name}"}}' for name in feeds]
    names = ", ".join(f"%r{i}" for i in range(len(outs)))
    empties = [f"%{i} = tensor.empty() : {one}" for i, one in enumerate(inits)]
    body = "\n".join(empties)
    tensors = f"""
    func.func @main({", ".join(arguments)}) -> ({", ".join(inits)}) {{
      {body}
      {names} = {op} -> {", ".join(inits)}
      func.return {names} : {", ".join(inits)}
    }}"""
    arguments += [
        f'%{i}: {one} {{onnx.name = "out{i}", spu.output}}' for i, one in enumerate(inits)
    ]
    memrefs = f"func.func @main({', '.join(arguments)}) {{\n {op}\n func.return\n }}"
    on_tensors = run(tensors.replace("T<", "tensor<"), exact_f32=exact_f32, **feeds)
    on_memrefs = run(memrefs.replace("T<", "memref<"), exact_f32=exact_f32, **feeds)
    for a, b in zip(on_tensors.values(), on_memrefs.values(), strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()
    return list(on_tensors.values())


def f32(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def integers(low: int, high: int, *shape: int, dtype: Any = np.int64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)
