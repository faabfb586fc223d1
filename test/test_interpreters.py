"""Memory, control and whole functions in the golden model."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from support.interpreting import Arrays, context, f32, integers, parse, run
from xdsl.utils.exceptions import InterpretationError

from spu_ir.dialects.weights import store_of
from spu_ir.errors import SpuError
from spu_ir.interpreters import interpret


def test_tiles_of_an_arena_are_written_through_views() -> None:
    text = """
    func.func @main(%x: memref<?x8xf32> {onnx.name = "x", onnx.dim_params = "0:batch"},
        %out: memref<?x8xf32> {onnx.name = "y", spu.output, onnx.dim_params = "0:batch"}) {
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %c2 = arith.constant 2 : index
      %c32 = arith.constant 32 : index
      %c64 = arith.constant 64 : index
      %rows = memref.dim %x, %c0 : memref<?x8xf32>
      %bytes = arith.muli %rows, %c32 : index
      %all = arith.addi %bytes, %c64 : index
      %arena = antoum.arena %all : memref<?xi8, #antoum.space sram>
      %buffer = memref.view %arena[%c64][%rows]
          : memref<?xi8, #antoum.space sram> to memref<?x8xf32, #antoum.space sram>
      antoum.dma %x into %buffer : memref<?x8xf32>, memref<?x8xf32, #antoum.space sram>
      %tiles = arith.ceildivui %rows, %c2 : index
      "scf.parallel"(%c0, %tiles, %c1) <{operandSegmentSizes = array<i32: 1, 1, 1, 0>}> ({
      ^bb0(%t: index):
        %start = arith.muli %t, %c2 : index
        %left = arith.subi %rows, %start : index
        %count = arith.minsi %left, %c2 : index
        %in = memref.subview %buffer[%start, 0] [%count, 8] [1, 1]
            : memref<?x8xf32, #antoum.space sram>
            to memref<?x8xf32, strided<[8, 1], offset: ?>, #antoum.space sram>
        %to = memref.subview %out[%start, 0] [%count, 8] [1, 1]
            : memref<?x8xf32> to memref<?x8xf32, strided<[8, 1], offset: ?>>
        vpu.unary relu %in into %to : memref<?x8xf32, strided<[8, 1], offset: ?>,
            #antoum.space sram>, memref<?x8xf32, strided<[8, 1], offset: ?>>
        scf.reduce
      }) : (index, index, index) -> ()
      func.return
    }"""
    x = f32(5, 8)
    np.testing.assert_array_equal(run(text, x=x)["y"], np.maximum(x, 0))


def test_memory_is_poisoned_until_it_is_written() -> None:
    text = """
    func.func @main(%out: memref<4xi32> {onnx.name = "y", spu.output},
                    %other: memref<3xf32> {onnx.name = "z", spu.output}) {
      %new = memref.alloc() : memref<4xi32>
      %part = memref.subview %new[1] [2] [1]
          : memref<4xi32> to memref<2xi32, strided<[1], offset: 1>>
      antoum.fill 7 : i32 into %part : memref<2xi32, strided<[1], offset: 1>>
      "memref.copy"(%new, %out) : (memref<4xi32>, memref<4xi32>) -> ()
      func.return
    }"""
    result = run(text)
    poison = np.array([0xCDCDCDCD], np.uint32).view(np.int32)[0]
    assert result["y"].tolist() == [poison, 7, 7, poison]
    assert (result["z"].view(np.uint32) == 0xCDCDCDCD).all()


def test_views_of_views() -> None:
    text = """
    func.func @main(%x: memref<2x3x4xf32> {onnx.name = "x"},
        %a: memref<6x2xf32> {onnx.name = "a", spu.output},
        %b: memref<4xf32> {onnx.name = "b", spu.output},
        %c: memref<2x2xf32> {onnx.name = "c", spu.output}) {
      %rows = memref.collapse_shape %x [[0, 1], [2]] : memref<2x3x4xf32> into memref<6x4xf32>
      %odd = memref.subview %rows[0, 1] [6, 2] [1, 2]
          : memref<6x4xf32> to memref<6x2xf32, strided<[4, 2], offset: 1>>
      antoum.dma %odd into %a : memref<6x2xf32, strided<[4, 2], offset: 1>>, memref<6x2xf32>
      %row = memref.subview %x[1, 2, 0] [1, 1, 4] [1, 1, 1]
          : memref<2x3x4xf32> to memref<4xf32, strided<[1], offset: 20>>
      antoum.dma %row into %b : memref<4xf32, strided<[1], offset: 20>>, memref<4xf32>
      %corner = memref.reinterpret_cast %x to offset: [2], sizes: [2, 2], strides: [12, 1]
          : memref<2x3x4xf32> to memref<2x2xf32, strided<[12, 1], offset: 2>>
      antoum.dma %corner into %c : memref<2x2xf32, strided<[12, 1], offset: 2>>, memref<2x2xf32>
      func.return
    }"""
    x = f32(2, 3, 4)
    result = run(text, x=x)
    np.testing.assert_array_equal(result["a"], x.reshape(6, 4)[:, 1::2])
    np.testing.assert_array_equal(result["b"], x[1, 2])
    np.testing.assert_array_equal(result["c"], x[:, 0, 2:4])


def test_loops_carry_and_conditions_choose() -> None:
    text = """
    func.func @main(%x: memref<?xi64> {onnx.name = "x"},
        %out: memref<1xi64> {onnx.name = "y", spu.output}) {
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %zero = arith.constant 0 : i64
      %n = memref.dim %x, %c0 : memref<?xi64>
      %sum = scf.for %i = %c0 to %n step %c1 iter_args(%acc = %zero) -> (i64) {
        %v = memref.load %x[%i] : memref<?xi64>
        %positive = arith.cmpi sgt, %v, %zero : i64
        %add = scf.if %positive -> (i64) {
          scf.yield %v : i64
        } else {
          scf.yield %zero : i64
        }
        %next = arith.addi %acc, %add : i64
        scf.yield %next : i64
      }
      memref.store %sum, %out[%c0] : memref<1xi64>
      func.return
    }"""
    x = integers(-50, 50, 13)
    assert run(text, x=x)["y"].tolist() == [int(x[x > 0].sum())]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "%v = memref.load %x[%c9] : memref<2x3xf32>",
            r"element \[9, 0\] is not within shape \[2, 3\]",
        ),
        (
            "%v = memref.subview %x[1, 0] [%c9, 3] [1, 1] : memref<2x3xf32> to "
            "memref<?x3xf32, strided<[3, 1], offset: 3>>",
            "axis 0: positions 1 to 9 are not within 2",
        ),
        (
            "%a = antoum.arena %c9 : memref<?xi8>\n"
            "%v = memref.view %a[%c1][] : memref<?xi8> to memref<4xf32>",
            "bytes 1 to 17 are not within 9",
        ),
        (
            "%v = memref.reinterpret_cast %x to offset: [3], sizes: [4], strides: [1] "
            ": memref<2x3xf32> to memref<4xf32, strided<[1], offset: 3>>",
            "elements 3 to 6 are not within 6",
        ),
        (
            "%s = memref.subview %x[0, 0] [2, 2] [1, 1] : memref<2x3xf32> to "
            "memref<2x2xf32, strided<[3, 1]>>\n"
            "%v = memref.collapse_shape %s [[0, 1]] : memref<2x2xf32, strided<[3, 1]>> into "
            "memref<4xf32>",
            r"shape \[4\] is not a view of shape \[2, 2\]",
        ),
    ],
)
def test_nothing_outside_a_buffer_is_touched(body: str, message: str) -> None:
    text = f"""
    func.func @main(%x: memref<2x3xf32> {{onnx.name = "x"}}) {{
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %c9 = arith.constant 9 : index
      {body}
      func.return
    }}""".replace("[%c9] :", "[%c9, %c0] :")
    with pytest.raises(InterpretationError, match=message):
        run(text, x=f32(2, 3))


# ---- whole functions

SCALE = """
func.func @main(%x: tensor<?x4xf32> {onnx.name = "x", onnx.dim_params = "0:batch"},
                %y: tensor<?x4xf32> {onnx.name = "y", onnx.dim_params = "0:batch"})
    -> (tensor<?x4xf32> {onnx.name = "sum"}) {
  %c0 = arith.constant 0 : index
  %batch = tensor.dim %x, %c0 : tensor<?x4xf32>
  %init = tensor.empty(%batch) : tensor<?x4xf32>
  %twice = vpu.binary add %x, %x into %init
      : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  %sum = vpu.binary add %twice, %y into %init
      : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  func.return %sum : tensor<?x4xf32>
}
"""


def test_outputs_have_their_names_and_are_the_callers_own() -> None:
    x, y = f32(3, 4), f32(3, 4, seed=1)
    result = run(SCALE, x=x, y=y)
    assert list(result) == ["sum"]
    np.testing.assert_array_equal(result["sum"], x + x + y)
    text = """
    func.func @main(%x: tensor<4xf32>) -> (tensor<2x2xf32>) {
      %init = tensor.empty() : tensor<2x2xf32>
      %y = vpu.reshape %x into %init : tensor<4xf32>, tensor<2x2xf32> -> tensor<2x2xf32>
      func.return %y : tensor<2x2xf32>
    }"""
    x = f32(4)
    (view,) = run(text, arg0=x).values()
    assert not np.may_share_memory(view, x)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"x": f32(2, 4)}, "input 'y' is missing"),
        (
            {"x": f32(2, 4), "y": f32(2, 4), "z": f32(1)},
            r"'z' is not an input; the inputs are \['x', 'y'\]",
        ),
        (
            {"x": f32(2, 4).astype(np.float64), "y": f32(2, 4)},
            "input 'x' must have dtype float32, got float64",
        ),
        ({"x": f32(2, 5), "y": f32(2, 4)}, r"input 'x' must have shape \[\?, 4\], got \[2, 5\]"),
        (
            {"x": f32(2, 4), "y": f32(3, 4)},
            "input 'y' has extent 'batch' = 3, another has 2",
        ),
    ],
)
def test_feeds_that_do_not_fit(feeds: Arrays, message: str) -> None:
    with pytest.raises(SpuError, match=message):
        run(SCALE, **feeds)


def test_a_listener_sees_every_value() -> None:
    ctx, seen = context(), dict[str, np.ndarray]()

    def listener(op: Any, results: Sequence[Any]) -> None:
        for result, value in zip(op.results, results, strict=True):
            seen[str(result.name_hint)] = value

    x = f32(3, 4)
    interpret(parse(SCALE, ctx), ctx, {"x": x, "y": x}, listener=listener)
    assert seen["batch"] == 3
    np.testing.assert_array_equal(seen["twice"], x + x)


def test_values_are_forgotten_after_their_last_use() -> None:
    ctx = context()
    alive: list[weakref.ref[np.ndarray]] = []
    counts: list[int] = []

    def listener(op: Any, results: Sequence[Any]) -> None:
        if op.name == "vpu.unary":
            alive.append(weakref.ref(results[0]))
            gc.collect()
            counts.append(sum(one() is not None for one in alive))

    chain = "\n".join(
        f"%{i + 1} = vpu.unary exp %{i} into %init : tensor<4xf32>, tensor<4xf32> -> tensor<4xf32>"
        for i in range(1, 9)
    )
    text = f"""
    func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32>) {{
      %init = tensor.empty() : tensor<4xf32>
      %1 = vpu.unary neg %x into %init : tensor<4xf32>, tensor<4xf32> -> tensor<4xf32>
      {chain}
      func.return %9 : tensor<4xf32>
    }}"""
    interpret(parse(text, ctx), ctx, {"arg0": -np.abs(f32(4))}, listener=listener)
    assert len(counts) == 9
    assert max(counts) <= 2


def test_constants_come_from_the_store() -> None:
    ctx = context()
    array = f32(5, 7)
    handle = store_of(ctx).put(array)
    text = f"""
    func.func @main() -> (tensor<5x7xf32>) {{
      %w = antoum.constant {handle} : tensor<5x7xf32>
      func.return %w : tensor<5x7xf32>
    }}"""
    (result,) = interpret(parse(text, ctx), ctx, {}).values()
    np.testing.assert_array_equal(result, array)
