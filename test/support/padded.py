"""A small encoder with a padding mask of any kind, and the inputs that pad it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from support.models import Graph

Array = NDArray[Any]
WIDTH, HEADS = 64, 4

MASKS = ("int64", "int32", "bool", "hidden", "float", "added", "square")
"""
How the mask input marks padding: 0 in int64 and int32 (-3.4e38 and -10000 are added), False, True
(`hidden`), 0.0, or a number that is added to the scores as it is; `square` is 0 in int64, spread
to `[batch, 1, seq, seq]` through truth values as PyTorch exports it.
"""

KINDS = {"int32": "int32", "bool": "bool", "hidden": "bool", "float": "float32", "added": "float32"}


class Encoder(Graph):
    """Builds `layers` layers of attention and feed-forward on `x [batch, seq, 64]`."""

    def __init__(self, mask: str, seed: int = 5):
        super().__init__(seed)
        self.kind = mask
        self.x = self.input("x", ["batch", "seq", WIDTH])
        self.mask = self.input("mask", ["batch", "seq"], KINDS.get(mask, "int64"))

    def number(self, value: float) -> str:
        return self.weight(np.array(value, np.float32))

    def axes(self, *axes: int) -> str:
        return self.weight(np.array(axes, np.int64))

    def added(self) -> str:
        """What attention adds to its scores."""
        wide = self.op("Unsqueeze", self.mask, self.axes(1, 2))
        none, all_of_it = self.number(0.0), self.number(-np.inf)
        if self.kind == "added":
            return wide
        if self.kind == "bool":
            return self.op("Where", wide, none, all_of_it)
        if self.kind == "hidden":
            return self.op("Where", wide, all_of_it, none)
        if self.kind == "square":
            real = self.op("Cast", wide, to=TensorProto.BOOL)
            shape = self.op("Shape", self.mask, start=1, end=2)
            one = self.weight(np.array([1], np.int64))
            square = self.op("Concat", one, one, shape, shape, axis=0)
            everywhere = self.op("Expand", self.weight(np.array(True)), square)
            lowest = self.number(float(np.finfo(np.float32).min))
            return self.op("Where", self.op("And", everywhere, real), none, lowest)
        real = wide if self.kind == "float" else self.op("Cast", wide, to=TensorProto.FLOAT)
        low = -10000.0 if self.kind == "int32" else float(np.finfo(np.float32).min)
        return self.op("Mul", self.op("Sub", self.number(1.0), real), self.number(low))

    def dense(self, value: str, rows: int, columns: int) -> str:
        return self.op(
            "Add", self.op("MatMul", value, self.weight((rows, columns))), self.weight((columns,))
        )

    def norm(self, value: str) -> str:
        gain = self.weight(self.rng.normal(1, 0.1, WIDTH).astype(np.float32))
        return self.op(
            "LayerNormalization", value, gain, self.weight(np.zeros(WIDTH, np.float32)), axis=-1
        )

    def heads(self, value: str, perm: Sequence[int]) -> str:
        split = self.op("Reshape", value, self.axes(0, 0, HEADS, WIDTH // HEADS))
        return self.op("Transpose", split, perm=perm)

    def attention(self, value: str, added: str) -> str:
        q, k, v = (self.dense(value, WIDTH, WIDTH) for _ in range(3))
        scores = self.op("MatMul", self.heads(q, [0, 2, 1, 3]), self.heads(k, [0, 2, 3, 1]))
        scaled = self.op("Add", self.op("Div", scores, self.number(4.0)), added)
        mixed = self.op("MatMul", self.op("Softmax", scaled, axis=-1), self.heads(v, [0, 2, 1, 3]))
        joined = self.op("Transpose", mixed, perm=[0, 2, 1, 3])
        return self.dense(self.op("Reshape", joined, self.axes(0, 0, WIDTH)), WIDTH, WIDTH)

    def layer(self, value: str, added: str) -> str:
        first = self.norm(self.op("Add", self.attention(value, added), value))
        inner = self.op("Gelu", self.dense(first, WIDTH, 96))
        return self.norm(self.op("Add", self.dense(inner, 96, WIDTH), first))

    def positions(self) -> str:
        """`[seq, 64]` of a table of 160 positions."""
        seq = self.op("Shape", self.mask, start=1, end=2)
        table = self.weight((160, WIDTH))
        return self.op("Slice", table, self.axes(0), seq, self.axes(0))

    def pooled(self, value: str) -> str:
        """Mean over the mask, which must be 1 and 0."""
        real = self.op("Cast", self.mask, to=TensorProto.FLOAT)
        kept = self.op("Mul", value, self.op("Unsqueeze", real, self.axes(-1)))
        total = self.op("ReduceSum", kept, self.axes(1), keepdims=0)
        count = self.op("ReduceSum", real, self.axes(1), keepdims=1)
        return self.op("Div", total, self.op("Max", count, self.number(1e-9)))


def encoder(mask: str = "int64", *, layers: int = 2) -> ModelProto:
    """
    A model of `layers` layers.

    Outputs: `hidden [batch, seq, 64]`, `first [batch, 64]` (tanh of the first token), `start` and
    `end [batch, seq]`, `tag_logits [batch, seq, 5]`; where the mask is 1 and 0 also `mean
    [batch, 64]`.
    """
    g = Encoder(mask)
    value = g.norm(g.op("Add", g.x, g.positions()))
    added = g.added()
    for _ in range(layers):
        value = g.layer(value, added)
    first = g.op("Gather", value, g.weight(np.array(0)), axis=1)
    scores = g.dense(value, WIDTH, 2)
    halves = [f"half{i}" for i in (0, 1)]
    g.nodes.append(helper.make_node("Split", [scores], halves, axis=-1, num_outputs=2))
    start, end = (g.op("Squeeze", half, g.axes(-1)) for half in halves)
    outputs: dict[str, tuple[str, Sequence[int | str]]] = {
        "hidden": (value, ["batch", "seq", WIDTH]),
        "first": (g.op("Tanh", g.dense(first, WIDTH, WIDTH)), ["batch", WIDTH]),
        "start": (start, ["batch", "seq"]),
        "end": (end, ["batch", "seq"]),
        "tag_logits": (g.dense(value, WIDTH, 5), ["batch", "seq", 5]),
    }
    if mask in ("int64", "int32", "bool", "float", "square"):
        outputs["mean"] = (g.pooled(value), ["batch", WIDTH])
    return g.model(**outputs)


SHAPES = {"batch": (1, 5), "seq": (1, 150)}


def real_positions(lengths: Sequence[int], seq: int, holes: Sequence[int] = ()) -> Array:
    """bool `[batch, seq]`: the first `lengths` positions but `holes`."""
    real = np.arange(seq) < np.array(lengths)[:, None]
    real[:, list(holes)] = False
    return real


def padded_feeds(mask: str, real: Array, seed: int = 0) -> dict[str, Array]:
    """Inputs whose mask marks `real [batch, seq]`."""
    x = np.random.default_rng(seed).normal(size=(*real.shape, WIDTH)).astype(np.float32)
    marks: Array = real
    if mask == "hidden":
        marks = ~real
    elif mask == "added":
        odd = [place % 2 == 1 for place in range(real.shape[1])]
        marks = np.where(real, 0.0, np.where(odd, -np.inf, -1e5))
    return {"x": x, "mask": marks.astype(KINDS.get(mask, "int64"))}
