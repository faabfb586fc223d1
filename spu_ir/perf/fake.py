"""
ByteMLPerf's fake data, made as it makes it: the same numbers from the same seed.

Sample `i` starts numpy's legacy generator at `i` and fills the inputs in order: floats evenly
from -1 to 1, integers below 1000, integer masks and segments 0 or 1, and False for bools. Token
types are 0, as ByteMLPerf has them in fake samples of SQuAD: networks know one or two, not 1000.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .datasets import Array, Feeds
from .workloads import ModelInfo

BATCHES = 100
"""Samples of the data set, each a whole batch."""


def fake_batch(info: ModelInfo, index: int, batch: int) -> Feeds:
    """Batch `index` of `batch` samples; every input `[batch, ...]` of its type."""
    random = np.random.RandomState(index)
    return {name: _fill(info, name, batch, random) for name in info.inputs}


def _fill(info: ModelInfo, name: str, batch: int, random: np.random.RandomState) -> Array:
    shape = (batch, *info.shapes[name][1:])
    kind = np.dtype(info.elements[name])
    if kind.kind == "b":
        return np.zeros(shape, kind)
    if "token_type" in name:
        return np.zeros(shape, kind)
    if kind.kind in "iu":
        marks = "mask" in name or "segment" in name
        return random.randint(0, 2 if marks else _below(kind), shape).astype(kind)
    return (random.random_sample(shape) * 2 - 1).astype(kind)


def _below(kind: np.dtype[Any]) -> int:
    """1000, or what the type holds."""
    return min(1000, int(np.iinfo(kind.name).max) + 1)
