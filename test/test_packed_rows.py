"""Ops on packed rows in the interpreter: on tensors, on memrefs, and when tiled."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.interpreting import both, context, f32, integers, parse
from xdsl.dialects import arith
from xdsl.dialects.builtin import IndexType

from spu_ir.interpreters import interpret
from spu_ir.interpreters.numerics_rows import lowest, pack_rows, row_offsets, unpack_rows
from spu_ir.transforms.extents import bound_of, depends_on_data
from spu_ir.transforms.pipelines import MEMORY

REAL = np.array([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0]], np.bool_)
OFFSETS = np.array([0, 4, 4, 9, 10])


def expected_pack(x: np.ndarray, offsets: Sequence[int]) -> np.ndarray:
    """Row by row, as the op's docstring says it."""
    batch = len(offsets) - 1
    x = np.broadcast_to(x, (batch, 5, *x.shape[2:]))
    return np.array([x[b, s] for b in range(batch) for s in range(offsets[b + 1] - offsets[b])])


def test_row_offsets() -> None:
    (offsets,) = both("vpu.row_offsets %x into %0 : $x, $0", {"x": REAL}, ((5,), np.int64))
    assert offsets.tolist() == OFFSETS.tolist()


@pytest.mark.parametrize(
    "x",
    [
        f32(4, 5, 7),
        f32(1, 5, 7),
        f32(4, 1, 7),
        integers(0, 99, 4, 5),
        integers(0, 2, 4, 5, 2, dtype=np.bool_),
        f32(4, 5, 3).astype(ml_dtypes.bfloat16),
        integers(0, 256, 4, 5, 9, dtype=np.uint8),
    ],
    ids=lambda x: f"{x.dtype}{list(x.shape)}",
)
def test_pack_and_unpack(x: np.ndarray) -> None:
    (rows,) = both(
        "vpu.pack_rows %x, %o into %0 : $x, $o, $0",
        {"x": x, "o": OFFSETS},
        ((10, *x.shape[2:]), x.dtype),
    )
    assert np.array_equal(rows, expected_pack(x, OFFSETS.tolist()))
    full = np.broadcast_to(x, (4, 5, *x.shape[2:]))
    kept = np.arange(5) < np.diff(OFFSETS)[:, None]
    for option, fill in (("", np.zeros((), x.dtype)[()]), (" {lowest}", lowest(x.dtype))):
        for count in (5, 1):
            (back,) = both(
                f"vpu.unpack_rows %x, %o into %0{option} : $x, $o, $0",
                {"x": rows, "o": OFFSETS},
                ((4, count, *x.shape[2:]), x.dtype),
            )
            assert np.array_equal(back[kept[:, :count]], full[:, :count][kept[:, :count]])
            assert (back[~kept[:, :count]] == fill).all()


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (np.float32, -3.4028234663852886e38),
        (ml_dtypes.bfloat16, -3.3895313892515355e38),
        (np.int64, -(2**63)),
        (np.uint8, 0),
        (np.bool_, False),
    ],
)
def test_lowest(dtype: Any, value: float) -> None:
    assert float(lowest(np.dtype(dtype))) == value


@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_unpacking_is_the_inverse(batch: int, seq: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    real = random.random((batch, seq)) < random.random((batch, 1))
    offsets = row_offsets(real)
    x = random.standard_normal((batch, seq, 3)).astype(np.float32)
    rows = pack_rows(x, offsets, int(offsets[-1]))
    back = unpack_rows(rows, offsets, seq, 0)
    assert np.array_equal(back[real], x[real])
    # Nothing behind a sample's last real position is kept, and everything before it is.
    last = np.where(real.any(axis=1), seq - np.argmax(real[:, ::-1], axis=1), 0)
    kept = np.arange(seq) < last[:, None]
    assert np.array_equal(back, np.where(kept[..., None], x, 0))


@pytest.mark.parametrize("causal", ["false", "true"])
@pytest.mark.parametrize("mask_shape", [(4, 1, 1, 70), (1, 4, 70, 70), (4, 1, 70, 1)])
def test_attention_of_packed_rows_is_that_of_each_sample(
    mask_shape: tuple[int, ...], causal: str
) -> None:
    lengths = [70, 0, 3, 65]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    q, k, v = f32(138, 16, seed=1), f32(138, 8, seed=2), f32(138, 8, seed=3)
    mask = np.where(f32(*mask_shape, seed=4) > 1, -np.inf, f32(*mask_shape)).astype(np.float32)
    head = f"{{heads = 4 : i64, kv_heads = 2 : i64, scale = 0.5 : f32, causal = {causal}}}"
    types = "$q, $k, $v, $0"
    (got,) = both(
        f"spu.attention %q, %k, %v mask(%m : $m) offsets(%o : $o) into %0 {head} : {types}",
        {"q": q, "k": k, "v": v, "m": mask, "o": offsets},
        ((138, 16), np.float32),
    )
    for b, (start, end) in enumerate(pairwise(offsets)):
        count = int(end - start)
        if not count:
            continue
        own = np.broadcast_to(mask, (4, 4, 70, 70))[b : b + 1, :, :count, :count].copy()
        part = {"q": q[None, start:end], "k": k[None, start:end], "v": v[None, start:end]}
        (want,) = both(
            f"spu.attention %q, %k, %v mask(%m : $m) into %0 {head} : {types}",
            {**part, "m": own},
            ((1, count, 16), np.float32),
        )
        assert np.array_equal(got[start:end], want[0])


def test_attention_may_read_the_first_keys_only() -> None:
    """Rank 3: all queries, and so many keys of each sample; the others may be anything."""
    offsets = np.array([0, 3, 3, 9])
    q, k, v = f32(3, 9, 8, seed=1), f32(3, 9, 8, seed=2), f32(3, 9, 8, seed=3)
    head = "{heads = 2 : i64, kv_heads = 2 : i64, scale = 0.5 : f32}"
    text = f"spu.attention %q, %k, %v offsets(%o : $o) into %0 {head} : $q, $k, $v, $0"
    feeds = {"q": q, "k": k, "v": v, "o": offsets}
    (got,) = both(text, feeds, ((3, 9, 8), np.float32))
    for value in (k, v):
        value[0, 3:] = value[1] = np.nan
    (other,) = both(text, feeds, ((3, 9, 8), np.float32))
    assert np.array_equal(got, other)
    assert not got[1].any()


def test_an_extent_from_data_needs_a_bound() -> None:
    module = parse(
        """
        func.func @main(%o: tensor<3xi64>) -> tensor<?xf32> {
          %two = arith.constant 2 : index
          %most = arith.constant 10 : index
          %end = tensor.extract %o[%two] : tensor<3xi64>
          %count = arith.index_cast %end : i64 to index
          %rows = arith.minsi %count, %most : index
          %e = tensor.empty(%rows) : tensor<?xf32>
          func.return %e : tensor<?xf32>
        }"""
    )
    (count,) = [op.result for op in module.walk() if isinstance(op, arith.IndexCastOp)]
    (rows,) = [op.result for op in module.walk() if isinstance(op, arith.MinSIOp)]
    assert depends_on_data(rows)
    bound = bound_of(rows)
    assert not depends_on_data(bound)
    assert not isinstance(bound, int)
    assert isinstance(bound.type, IndexType)
    with pytest.raises(ValueError, match="no bound"):
        bound_of(count)


def test_tiles_of_packed_rows_give_the_same() -> None:
    text = """
    func.func @main(
        %x: tensor<4x5x7xf32> {onnx.name = "x"}, %real: tensor<4x5xi1> {onnx.name = "real"}
    ) -> (tensor<4x5x7xf32>, tensor<4x1x7xf32>) {
      %four = arith.constant 4 : index
      %most = arith.constant 20 : index
      %eo = tensor.empty() : tensor<5xi64>
      %o = vpu.row_offsets %real into %eo : tensor<4x5xi1>, tensor<5xi64> -> tensor<5xi64>
      %end = tensor.extract %o[%four] : tensor<5xi64>
      %count = arith.index_cast %end : i64 to index
      %rows = arith.minsi %count, %most : index
      %er = tensor.empty(%rows) : tensor<?x7xf32>
      %p = vpu.pack_rows %x, %o into %er
          : tensor<4x5x7xf32>, tensor<5xi64>, tensor<?x7xf32> -> tensor<?x7xf32>
      %t = vpu.unary tanh %p into %er : tensor<?x7xf32>, tensor<?x7xf32> -> tensor<?x7xf32>
      %ey = tensor.empty() : tensor<4x5x7xf32>
      %y = vpu.unpack_rows %t, %o into %ey {lowest}
          : tensor<?x7xf32>, tensor<5xi64>, tensor<4x5x7xf32> -> tensor<4x5x7xf32>
      %ef = tensor.empty() : tensor<4x1x7xf32>
      %f = vpu.unpack_rows %t, %o into %ef
          : tensor<?x7xf32>, tensor<5xi64>, tensor<4x1x7xf32> -> tensor<4x1x7xf32>
      func.return %y, %f : tensor<4x5x7xf32>, tensor<4x1x7xf32>
    }"""
    ctx = context()
    module = parse(text, ctx)
    for real in (REAL, np.zeros_like(REAL), np.ones_like(REAL)):
        feeds = {"x": f32(4, 5, 7), "real": real}
        expected = list(interpret(module, ctx, feeds).values())
        tiled = module.clone()
        for each in MEMORY:
            each.apply(ctx, tiled)
        for a, b in zip(expected, interpret(tiled, ctx, feeds).values(), strict=True):
            assert np.array_equal(a, b)
