"""f32 attention: the C at every level has the golden model's bits, and is close to float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.vpu_library import LEVELS, Device, assert_same_bits, device, floats

from spu_ir.interpreters import numerics_attention as attention

Array = NDArray[Any]

seeds = st.integers(0, 2**31)


@pytest.fixture(params=LEVELS, scope="module")
def c(request: pytest.FixtureRequest) -> Device:
    """The library of each level that this host runs."""
    return device(request.param)


def attend(
    c: Device, q: Array, k: Array, v: Array, mask: Array | None, scale: float, first: int
) -> Array:
    """One call of the C attention; rows of q, k, v and out have a gap behind them."""
    gap = [np.pad(x, ((0, 0), (0, 3))) for x in (q, k, v)]
    out = np.zeros((len(q), v.shape[1] + 3), np.float32)
    mask_strides = [s // 4 for s in mask.strides] if mask is not None else [0, 0]
    rows = [x for g in gap for x in (g, g.shape[1])]
    counts = [np.int32(len(q)), len(k), np.int32(q.shape[1]), np.int32(v.shape[1])]
    rest = [mask, *mask_strides, out, out.shape[1], *counts, scale, first]
    c.call("test_spu_attention_f32", *rows, *rest)
    assert not out[:, v.shape[1] :].any()
    return np.ascontiguousarray(out[:, : v.shape[1]])


@given(
    rows=st.integers(1, 9),
    keys=st.sampled_from([0, 1, 17, 63, 64, 65, 150]),
    d=st.sampled_from([1, 3, 32, 64]),
    dv=st.sampled_from([1, 5, 16, 33, 64]),
    masking=st.sampled_from(["none", "row", "full", "turned"]),
    causal=st.booleans(),
    special=st.booleans(),
    seed=seeds,
)
def test_attention(
    c: Device,
    rows: int,
    keys: int,
    d: int,
    dv: int,
    masking: str,
    causal: bool,
    special: bool,
    seed: int,
) -> None:
    q, k, v = (
        floats(seed + i, n, width, special=special, scale=1.0)
        for i, (n, width) in enumerate([(rows, d), (keys, d), (keys, dv)])
    )
    mask = None
    if masking != "none":
        rng = np.random.default_rng(seed)
        hidden = np.where(rng.random((rows, keys)) < 0.3, np.float32(-np.inf), np.float32(0.5))
        mask = np.broadcast_to(hidden[:1], hidden.shape) if masking == "row" else hidden
        mask = np.asfortranarray(hidden) if masking == "turned" else mask
    scale = float(np.float32(d**-0.5))
    first = max(0, keys - rows) if causal else -1
    got = attend(c, q, k, v, mask, scale, first)
    want = attention.attention(q, k, v, mask, scale=scale, causal_first=first if causal else None)
    assert_same_bits(got, want)
    # However the rows are cut into calls, the bits are the same.
    if rows > 1:
        half = rows // 2
        low, high = (None, None) if mask is None else (mask[:half], mask[half:])
        parts = [
            attend(c, q[:half], k, v, low, scale, first),
            attend(c, q[half:], k, v, high, scale, first + half if causal else -1),
        ]
        assert_same_bits(np.concatenate(parts), want)


@pytest.mark.parametrize("sink", [False, True])
def test_attention_is_close_to_float64(c: Device, sink: bool) -> None:
    q, k, v = (floats(i, n, 64, special=False, scale=1.0) for i, n in enumerate([64, 2048, 2048]))
    if sink:
        k[0] *= 12
    scale = 0.125
    score = q.astype(np.float64) @ k.T.astype(np.float64) * scale
    e = np.exp(score - score.max(axis=1, keepdims=True))
    want = (e / e.sum(axis=1, keepdims=True)) @ v
    np.testing.assert_allclose(attend(c, q, k, v, None, scale, -1), want, rtol=1e-4, atol=3e-6)
