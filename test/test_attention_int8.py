"""INT8 attention: the C at every level has the golden model's bits, and is close to float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.vpu_library import LEVELS, Device, assert_same_bits, device

from spu_ir.interpreters import numerics_attention_int8 as golden

Array = NDArray[Any]

seeds = st.integers(0, 2**31)


@pytest.fixture(params=LEVELS, scope="module")
def c(request: pytest.FixtureRequest) -> Device:
    """The library of each level that this host runs."""
    return device(request.param)


def floats(seed: int, *shape: int, scale: float = 1.0) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def packed(c: Device, k: Array, v: Array) -> tuple[Array, Array, Array, Array]:
    """Keys and values as the device packs them; their rows have a gap behind them."""
    keys, d, dv = len(k), k.shape[1], v.shape[1]
    blocks = golden.blocks_of(keys)
    k, v = (np.pad(x, ((0, 0), (0, 3))) for x in (k, v))
    # The padding of a key's block is of no account: the golden model has 128 there.
    packed_k = np.full((blocks, -(-d // 4), 64, 4), 128, np.uint8)
    packed_v = np.empty((blocks, 16, -(-dv // 16) * 16, 4), np.int8)
    k_scale, v_scales = np.empty(blocks * 64, np.float32), np.empty((2, blocks * 64), np.float32)
    c.call("test_spu_pack_keys", k, d + 3, keys, np.int32(d), packed_k, k_scale)
    rest = [packed_v, v_scales[0], v_scales[1]]
    c.call("test_spu_pack_values", v, dv + 3, keys, np.int32(dv), *rest)
    return packed_k, k_scale, packed_v, v_scales


def attend(
    c: Device,
    q: Array,
    heads: tuple[Array, Array, Array, Array],
    mask: Array | None,
    keys: int,
    dv: int,
    first: int = -1,
) -> Array:
    """One call of the C attention; rows of q and out have a gap behind them."""
    rows, d = q.shape
    q = np.pad(q, ((0, 0), (0, 3)))
    out = np.zeros((rows, dv + 3), np.float32)
    strides = [s // 4 for s in mask.strides] if mask is not None else [0, 0]
    k, k_scale, v, v_scales = heads
    operands = [q, d + 3, k, k_scale, v, v_scales[0], v_scales[1], mask, *strides, out, dv + 3]
    counts = [np.int32(rows), keys, np.int32(d), np.int32(dv), float(d**-0.5), first]
    c.call("test_spu_attention_int8", *operands, *counts)
    assert not out[:, dv:].any()
    return np.ascontiguousarray(out[:, :dv])


@given(
    keys=st.sampled_from([0, 1, 3, 63, 64, 65, 130]),
    d=st.sampled_from([1, 3, 16, 33, 64, 256]),
    seed=seeds,
)
def test_packing(c: Device, keys: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.where(rng.random((keys, d)) < 0.1, np.float32(0), floats(seed, keys, d, scale=5))
    if keys > 2:
        x[1], x[2, 0] = 0, np.nan
    k, k_scale, v, v_scales = packed(c, x, x)
    want_k, want_k_scale = golden.pack_keys(x)
    want_v, want_v_scales = golden.pack_values(x)
    np.testing.assert_array_equal(k, want_k)
    np.testing.assert_array_equal(v, want_v)
    assert_same_bits(k_scale, want_k_scale)
    assert_same_bits(v_scales, want_v_scales)


@given(
    rows=st.integers(1, 15),
    keys=st.sampled_from([0, 1, 17, 63, 64, 65, 511, 512, 513, 600]),
    d=st.sampled_from([1, 3, 32, 64]),
    dv=st.sampled_from([1, 5, 16, 33, 64, 80]),
    masking=st.sampled_from(["none", "row", "full", "turned", "lowest"]),
    causal=st.booleans(),
    seed=seeds,
)
def test_attention(
    c: Device, rows: int, keys: int, d: int, dv: int, masking: str, causal: bool, seed: int
) -> None:
    q, k, v = floats(seed, rows, d), floats(seed + 1, keys, d), floats(seed + 2, keys, dv)
    mask = None
    if masking != "none":
        rng = np.random.default_rng(seed)
        away = np.finfo(np.float32).min if masking == "lowest" else np.float32(-np.inf)
        hidden = np.where(rng.random((rows, keys)) < 0.3, away, np.float32(0.5))
        hidden[:, keys // 2 :] = away if seed % 3 == 0 else hidden[:, keys // 2 :]
        mask = np.broadcast_to(hidden[:1], hidden.shape) if masking == "row" else hidden
        mask = np.asfortranarray(hidden) if masking == "turned" else mask
    heads = packed(c, k, v)
    first = max(0, keys - rows) if causal else None
    start = -1 if first is None else first
    got = attend(c, q, heads, mask, keys, dv, start)
    options: dict[str, Any] = {"keys": keys, "depth": dv, "scale": float(d**-0.5)}
    want = golden.attention_int8(q, *heads, mask, **options, causal_first=first)
    assert_same_bits(got, want)
    # However the rows are cut into calls, the bits are the same.
    half = rows // 2
    if half:
        low, high = (None, None) if mask is None else (mask[:half], mask[half:])
        parts = [
            attend(c, q[:half], heads, low, keys, dv, start),
            attend(c, q[half:], heads, high, keys, dv, start + half if causal else -1),
        ]
        assert_same_bits(np.concatenate(parts), want)


def test_a_query_that_is_no_number_is_0(c: Device) -> None:
    q, k, v = floats(1, 7, 32), floats(2, 70, 32), floats(3, 70, 32)
    q[2, 5] = np.nan
    heads = packed(c, k, v)
    want = golden.attention_int8(q, *heads, keys=70, depth=32, scale=float(32**-0.5))
    assert_same_bits(attend(c, q, heads, None, 70, 32), want)


@pytest.mark.parametrize("away", [-np.inf, np.finfo(np.float32).min, -10000.0])
@pytest.mark.parametrize("real", [1, 40, 64, 100, 530])
def test_masked_keys_behind_the_last_are_as_none(c: Device, real: int, away: float) -> None:
    """A padded suffix changes no bit, so that it need not be there."""
    q, k, v = floats(1, 9, 32), floats(2, 600, 32), floats(3, 600, 32)
    mask = np.zeros(600, np.float32)
    mask[real:] = away
    whole = attend(c, q, packed(c, k, v), np.broadcast_to(mask, (9, 600)), 600, 32)
    short = attend(c, q, packed(c, k[:real], v[:real]), None, real, 32)
    assert_same_bits(whole, short)


def exact(q: Array, k: Array, v: Array) -> Array:
    score = q.astype(np.float64) @ k.T.astype(np.float64) / np.sqrt(q.shape[1])
    e = np.exp(score - score.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)) @ v


def relative(got: Array, want: Array) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.mark.parametrize(("sink", "bound"), [(False, 0.025), (True, 0.05)])
@pytest.mark.parametrize("keys", [128, 2048])
def test_attention_is_close_to_float64(c: Device, sink: bool, bound: float, keys: int) -> None:
    """
    Also with a key that takes nearly all of the weight and has a small value, as sinks do: the
    sum is then small, and one large channel coarsens the queries' grid.
    """
    q, k, v = floats(1, 64, 64, scale=1.5), floats(2, keys, 64, scale=1.5), floats(3, keys, 64)
    if sink:
        q[:, 0], k[:, 0], k[0, 0] = 8, 0, 12
        v[0] *= 0.02
    got = attend(c, q, packed(c, k, v), None, keys, 64)
    assert relative(got, exact(q, k, v)) < bound
