// RUN: spu-opt %s -p sink-transposes,dce --split-input-file | filecheck %s

// Operands that are transposed alike, and a constant: the transposes cancel.
// CHECK-LABEL: func.func @cancel
// CHECK-NEXT:    %0 = tensor.empty() : tensor<2x8x8x3xf32>
// CHECK-NEXT:    %1 = vpu.binary add %x, %y into %0 : tensor<2x8x8x3xf32>, tensor<2x8x8x3xf32>, tensor<2x8x8x3xf32> -> tensor<2x8x8x3xf32>
// CHECK-NEXT:    %2 = antoum.constant dense<{{\[\[}}{{\[\[}}1.000000e+00, 2.000000e+00, 3.000000e+00]]]]> : tensor<1x1x1x3xf32> : tensor<1x1x1x3xf32>
// CHECK-NEXT:    %3 = tensor.empty() : tensor<2x8x8x3xf32>
// CHECK-NEXT:    %r = vpu.binary mul %1, %2 into %3 : tensor<2x8x8x3xf32>, tensor<1x1x1x3xf32>, tensor<2x8x8x3xf32> -> tensor<2x8x8x3xf32>
// CHECK-NEXT:    func.return %r : tensor<2x8x8x3xf32>
func.func @cancel(%x : tensor<2x8x8x3xf32>, %y : tensor<2x8x8x3xf32>) -> tensor<2x8x8x3xf32> {
  %e = tensor.empty() : tensor<2x3x8x8xf32>
  %f = tensor.empty() : tensor<2x8x8x3xf32>
  %c = antoum.constant dense<[[[1.0]], [[2.0]], [[3.0]]]> : tensor<3x1x1xf32> : tensor<3x1x1xf32>
  %xt = vpu.transpose %x into %e {perm = array<i64: 0, 3, 1, 2>} : tensor<2x8x8x3xf32>, tensor<2x3x8x8xf32> -> tensor<2x3x8x8xf32>
  %yt = vpu.transpose %y into %e {perm = array<i64: 0, 3, 1, 2>} : tensor<2x8x8x3xf32>, tensor<2x3x8x8xf32> -> tensor<2x3x8x8xf32>
  %a = vpu.binary add %xt, %yt into %e : tensor<2x3x8x8xf32>, tensor<2x3x8x8xf32>, tensor<2x3x8x8xf32> -> tensor<2x3x8x8xf32>
  %b = vpu.binary mul %a, %c into %e : tensor<2x3x8x8xf32>, tensor<3x1x1xf32>, tensor<2x3x8x8xf32> -> tensor<2x3x8x8xf32>
  %r = vpu.transpose %b into %f {perm = array<i64: 0, 2, 3, 1>} : tensor<2x3x8x8xf32>, tensor<2x8x8x3xf32> -> tensor<2x8x8x3xf32>
  func.return %r : tensor<2x8x8x3xf32>
}

// -----

// Properties that speak of axes follow.
// CHECK-LABEL: func.func @axes
// CHECK-NEXT:    %zero = arith.constant 0 : index
// CHECK-NEXT:    %n = tensor.dim %x, %zero : tensor<?x4x6x8xf32>
// CHECK-NEXT:    %0 = tensor.empty(%n) : tensor<?x4x6x10xf32>
// CHECK-NEXT:    %1 = vpu.pad %x into %0 {low = array<i64: 0, 0, 0, 1>, value = 0.000000e+00 : f32} : tensor<?x4x6x8xf32>, tensor<?x4x6x10xf32> -> tensor<?x4x6x10xf32>
// CHECK-NEXT:    %2 = tensor.empty(%n) : tensor<?x4x5x10xf32>
// CHECK-NEXT:    %3 = vpu.slice %1 into %2 {starts = array<i64: 0, 0, 1, 0>, steps = array<i64: 1, 1, 1, 1>} : tensor<?x4x6x10xf32>, tensor<?x4x5x10xf32> -> tensor<?x4x5x10xf32>
// CHECK-NEXT:    %4 = tensor.empty(%n) : tensor<?x10x4x5xf32>
// CHECK-NEXT:    %s = vpu.transpose %3 into %4 {perm = array<i64: 0, 3, 1, 2>} : tensor<?x4x5x10xf32>, tensor<?x10x4x5xf32> -> tensor<?x10x4x5xf32>
// CHECK-NEXT:    func.return %s : tensor<?x10x4x5xf32>
func.func @axes(%x : tensor<?x4x6x8xf32>) -> tensor<?x10x4x5xf32> {
  %zero = arith.constant 0 : index
  %n = tensor.dim %x, %zero : tensor<?x4x6x8xf32>
  %e = tensor.empty(%n) : tensor<?x8x4x6xf32>
  %t = vpu.transpose %x into %e {perm = array<i64: 0, 3, 1, 2>} : tensor<?x4x6x8xf32>, tensor<?x8x4x6xf32> -> tensor<?x8x4x6xf32>
  %ep = tensor.empty(%n) : tensor<?x10x4x6xf32>
  %p = vpu.pad %t into %ep {low = array<i64: 0, 1, 0, 0>, value = 0.0 : f32} : tensor<?x8x4x6xf32>, tensor<?x10x4x6xf32> -> tensor<?x10x4x6xf32>
  %es = tensor.empty(%n) : tensor<?x10x4x5xf32>
  %s = vpu.slice %p into %es {starts = array<i64: 0, 0, 0, 1>, steps = array<i64: 1, 1, 1, 1>} : tensor<?x10x4x6xf32>, tensor<?x10x4x5xf32> -> tensor<?x10x4x5xf32>
  func.return %s : tensor<?x10x4x5xf32>
}

// -----

// A reduction takes other axes; what only moves extents of 1 is a reshape, and two are one.
// CHECK-LABEL: func.func @pooled
// CHECK-NEXT:    %0 = tensor.empty() : tensor<2x1x1x3xf32>
// CHECK-NEXT:    %1 = vpu.reduce mean %x into %0 {axes = array<i64: 1, 2>} : tensor<2x8x8x3xf32>, tensor<2x1x1x3xf32> -> tensor<2x1x1x3xf32>
// CHECK-NEXT:    %2 = tensor.empty() : tensor<2x1x1x3xf32>
// CHECK-NEXT:    %3 = vpu.unary relu %1 into %2 : tensor<2x1x1x3xf32>, tensor<2x1x1x3xf32> -> tensor<2x1x1x3xf32>
// CHECK-NEXT:    %er = tensor.empty() : tensor<2x3xf32>
// CHECK-NEXT:    %r = vpu.reshape %3 into %er : tensor<2x1x1x3xf32>, tensor<2x3xf32> -> tensor<2x3xf32>
// CHECK-NEXT:    func.return %r : tensor<2x3xf32>
func.func @pooled(%x : tensor<2x8x8x3xf32>) -> tensor<2x3xf32> {
  %e = tensor.empty() : tensor<2x3x8x8xf32>
  %t = vpu.transpose %x into %e {perm = array<i64: 0, 3, 1, 2>} : tensor<2x8x8x3xf32>, tensor<2x3x8x8xf32> -> tensor<2x3x8x8xf32>
  %em = tensor.empty() : tensor<2x3x1x1xf32>
  %m = vpu.reduce mean %t into %em {axes = array<i64: 2, 3>} : tensor<2x3x8x8xf32>, tensor<2x3x1x1xf32> -> tensor<2x3x1x1xf32>
  %u = vpu.unary relu %m into %em : tensor<2x3x1x1xf32>, tensor<2x3x1x1xf32> -> tensor<2x3x1x1xf32>
  %er = tensor.empty() : tensor<2x3xf32>
  %r = vpu.reshape %u into %er : tensor<2x3x1x1xf32>, tensor<2x3xf32> -> tensor<2x3xf32>
  func.return %r : tensor<2x3xf32>
}

// -----

// Moving this transpose would only bring another.
// CHECK-LABEL: func.func @stays
// CHECK-NEXT:    %e = tensor.empty() : tensor<2x8x4xf32>
// CHECK-NEXT:    %t = vpu.transpose %x into %e {perm = array<i64: 0, 2, 1>} : tensor<2x4x8xf32>, tensor<2x8x4xf32> -> tensor<2x8x4xf32>
// CHECK-NEXT:    %a = vpu.binary add %t, %y into %e : tensor<2x8x4xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32> -> tensor<2x8x4xf32>
// CHECK-NEXT:    func.return %a : tensor<2x8x4xf32>
func.func @stays(%x : tensor<2x4x8xf32>, %y : tensor<2x8x4xf32>) -> tensor<2x8x4xf32> {
  %e = tensor.empty() : tensor<2x8x4xf32>
  %t = vpu.transpose %x into %e {perm = array<i64: 0, 2, 1>} : tensor<2x4x8xf32>, tensor<2x8x4xf32> -> tensor<2x8x4xf32>
  %a = vpu.binary add %t, %y into %e : tensor<2x8x4xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32> -> tensor<2x8x4xf32>
  func.return %a : tensor<2x8x4xf32>
}

// -----

// The axis of the scales follows.
// CHECK-LABEL: func.func @per_channel
// CHECK-NEXT:    %s = antoum.constant dense<[1.000000e+00, 2.000000e+00, 3.000000e+00]> : tensor<3xf32> : tensor<3xf32>
// CHECK-NEXT:    %0 = tensor.empty() : tensor<2x8x3xf32>
// CHECK-NEXT:    %1 = vpu.dequantise %x scale(%s : tensor<3xf32>) into %0 {axis = 2 : i64} : tensor<2x8x3xui8>, tensor<2x8x3xf32> -> tensor<2x8x3xf32>
// CHECK-NEXT:    %2 = tensor.empty() : tensor<2x3x8xf32>
// CHECK-NEXT:    %d = vpu.transpose %1 into %2 {perm = array<i64: 0, 2, 1>} : tensor<2x8x3xf32>, tensor<2x3x8xf32> -> tensor<2x3x8xf32>
// CHECK-NEXT:    func.return %d : tensor<2x3x8xf32>
func.func @per_channel(%x : tensor<2x8x3xui8>) -> tensor<2x3x8xf32> {
  %s = antoum.constant dense<[1.0, 2.0, 3.0]> : tensor<3xf32> : tensor<3xf32>
  %e = tensor.empty() : tensor<2x3x8xui8>
  %t = vpu.transpose %x into %e {perm = array<i64: 0, 2, 1>} : tensor<2x8x3xui8>, tensor<2x3x8xui8> -> tensor<2x3x8xui8>
  %f = tensor.empty() : tensor<2x3x8xf32>
  %d = vpu.dequantise %t scale(%s : tensor<3xf32>) into %f {axis = 1 : i64} : tensor<2x3x8xui8>, tensor<2x3x8xf32> -> tensor<2x3x8xf32>
  func.return %d : tensor<2x3x8xf32>
}

// -----

// Rows that are turned, multiplied and turned back: the transposes meet past the product.
// CHECK-LABEL: func.func @rows
// CHECK-NEXT:    %w = antoum.constant dense<2.000000e+00> : tensor<3x3xf32> : tensor<3x3xf32>
// CHECK-NEXT:    %g = antoum.constant dense<1.000000e+00> : tensor<3xf32> : tensor<3xf32>
// CHECK-NEXT:    %0 = tensor.empty() : tensor<2x8x3xf32>
// CHECK-NEXT:    %1 = spu.matmul %x, %w into %0 : tensor<2x8x3xf32>, tensor<3x3xf32>, tensor<2x8x3xf32> -> tensor<2x8x3xf32>
// CHECK-NEXT:    %2 = tensor.empty() : tensor<2x8x3xf32>
// CHECK-NEXT:    %y = vpu.layer_norm %1, %g into %2 {epsilon = 1.000000e+00 : f32} : tensor<2x8x3xf32>, tensor<3xf32>, tensor<2x8x3xf32> -> tensor<2x8x3xf32>
// CHECK-NEXT:    func.return %y : tensor<2x8x3xf32>
func.func @rows(%x : tensor<2x8x3xf32>) -> tensor<2x8x3xf32> {
  %w = antoum.constant dense<2.0> : tensor<3x3xf32> : tensor<3x3xf32>
  %g = antoum.constant dense<1.0> : tensor<3xf32> : tensor<3xf32>
  %e = tensor.empty() : tensor<8x2x3xf32>
  %ey = tensor.empty() : tensor<2x8x3xf32>
  %t = vpu.transpose %x into %e {perm = array<i64: 1, 0, 2>} : tensor<2x8x3xf32>, tensor<8x2x3xf32> -> tensor<8x2x3xf32>
  %m = spu.matmul %t, %w into %e : tensor<8x2x3xf32>, tensor<3x3xf32>, tensor<8x2x3xf32> -> tensor<8x2x3xf32>
  %n = vpu.layer_norm %m, %g into %e {epsilon = 1.0 : f32} : tensor<8x2x3xf32>, tensor<3xf32>, tensor<8x2x3xf32> -> tensor<8x2x3xf32>
  %y = vpu.transpose %n into %ey {perm = array<i64: 1, 0, 2>} : tensor<8x2x3xf32>, tensor<2x8x3xf32> -> tensor<2x8x3xf32>
  func.return %y : tensor<2x8x3xf32>
}

// -----

// Both operands are reshapes of one shape.
// CHECK-LABEL: func.func @two_reshapes
// CHECK-NEXT:    %0 = tensor.empty() : tensor<2x3xf32>
// CHECK-NEXT:    %1 = vpu.binary mul %x, %y into %0 : tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32> -> tensor<2x3xf32>
// CHECK-NEXT:    %2 = tensor.empty() : tensor<6xf32>
// CHECK-NEXT:    %z = vpu.reshape %1 into %2 : tensor<2x3xf32>, tensor<6xf32> -> tensor<6xf32>
// CHECK-NEXT:    func.return %z : tensor<6xf32>
func.func @two_reshapes(%x : tensor<2x3xf32>, %y : tensor<2x3xf32>) -> tensor<6xf32> {
  %e = tensor.empty() : tensor<6xf32>
  %a = vpu.reshape %x into %e : tensor<2x3xf32>, tensor<6xf32> -> tensor<6xf32>
  %b = vpu.reshape %y into %e : tensor<2x3xf32>, tensor<6xf32> -> tensor<6xf32>
  %z = vpu.binary mul %a, %b into %e : tensor<6xf32>, tensor<6xf32>, tensor<6xf32> -> tensor<6xf32>
  func.return %z : tensor<6xf32>
}

// -----

// Their product is of two axes before and one after: rows would be added to columns.
// CHECK-LABEL: func.func @reshapes_that_broadcast
// CHECK:         vpu.binary add %a, %b
func.func @reshapes_that_broadcast(%x : tensor<3x1xf32>, %y : tensor<3x1xf32>) -> tensor<3x3xf32> {
  %ea = tensor.empty() : tensor<1x3xf32>
  %eb = tensor.empty() : tensor<3x1x1xf32>
  %a = vpu.reshape %x into %ea : tensor<3x1xf32>, tensor<1x3xf32> -> tensor<1x3xf32>
  %b = vpu.reshape %y into %ea : tensor<3x1xf32>, tensor<1x3xf32> -> tensor<1x3xf32>
  %e = tensor.empty() : tensor<3x3xf32>
  %z = vpu.binary add %a, %b into %e : tensor<1x3xf32>, tensor<1x3xf32>, tensor<3x3xf32> -> tensor<3x3xf32>
  func.return %z : tensor<3x3xf32>
}
