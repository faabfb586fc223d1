// RUN: spu-opt %s -p fuse-epilogue --split-input-file | filecheck %s

// Scale, bias (a scalar, of more axes), residual and activation; the product moves to its last user.
// CHECK-LABEL: func.func @whole
// CHECK-DAG:     [[B:%.+]] = antoum.constant dense<5.000000e-01> : tensor<4xf32> : tensor<4xf32>
// CHECK-DAG:     [[C:%.+]] = antoum.constant dense<[1.000000e+00, 2.000000e+00, 3.000000e+00, 4.000000e+00]> : tensor<4xf32> : tensor<4xf32>
// CHECK:         [[R:%.+]] = vpu.unary abs
// CHECK-NEXT:    [[Y:%.+]] = spu.matmul %x, %w scale([[C]] : tensor<4xf32>) bias([[B]] : tensor<4xf32>) residual([[R]] : tensor<8x4xf32>) into %e {layer = "dense", activation = #spu<activation gelu>}
// CHECK-NEXT:    func.return [[Y]]
func.func @whole(%x : tensor<8x2xf32>, %r : tensor<8x4xf32>) -> tensor<8x4xf32> {
  %w = antoum.constant dense<2.0> : tensor<4x2xf32> : tensor<4x2xf32>
  %c = antoum.constant dense<[1.0, 2.0, 3.0, 4.0]> : tensor<4xf32> : tensor<4xf32>
  %b = antoum.constant dense<0.5> : tensor<1x1xf32> : tensor<1x1xf32>
  %e = tensor.empty() : tensor<8x4xf32>
  %y = spu.matmul %x, %w into %e {layer = "dense"} : tensor<8x2xf32>, tensor<4x2xf32>, tensor<8x4xf32> -> tensor<8x4xf32>
  %s = vpu.binary mul %y, %c into %e : tensor<8x4xf32>, tensor<4xf32>, tensor<8x4xf32> -> tensor<8x4xf32>
  %z = vpu.binary add %b, %s into %e : tensor<1x1xf32>, tensor<8x4xf32>, tensor<8x4xf32> -> tensor<8x4xf32>
  %a = vpu.unary abs %r into %e : tensor<8x4xf32>, tensor<8x4xf32> -> tensor<8x4xf32>
  %t = vpu.binary add %z, %a into %e : tensor<8x4xf32>, tensor<8x4xf32>, tensor<8x4xf32> -> tensor<8x4xf32>
  %u = vpu.unary gelu %t into %e : tensor<8x4xf32>, tensor<8x4xf32> -> tensor<8x4xf32>
  func.return %u : tensor<8x4xf32>
}

// -----

// Of two products the later one takes the earlier one as its residual.
// CHECK-LABEL: func.func @two
// CHECK:         [[A:%.+]] = spu.matmul %x, %w into %e {layer = "first"}
// CHECK-NEXT:    [[B:%.+]] = spu.matmul %x, %w residual([[A]] : tensor<8x4xf32>) into %e {layer = "second"}
// CHECK-NEXT:    func.return [[B]]
func.func @two(%x : tensor<8x2xf32>) -> tensor<8x4xf32> {
  %w = antoum.constant dense<2.0> : tensor<4x2xf32> : tensor<4x2xf32>
  %e = tensor.empty() : tensor<8x4xf32>
  %a = spu.matmul %x, %w into %e {layer = "first"} : tensor<8x2xf32>, tensor<4x2xf32>, tensor<8x4xf32> -> tensor<8x4xf32>
  %b = spu.matmul %x, %w into %e {layer = "second"} : tensor<8x2xf32>, tensor<4x2xf32>, tensor<8x4xf32> -> tensor<8x4xf32>
  %s = vpu.binary add %b, %a into %e : tensor<8x4xf32>, tensor<8x4xf32>, tensor<8x4xf32> -> tensor<8x4xf32>
  func.return %s : tensor<8x4xf32>
}

// -----

// x * sigmoid(x) is SiLU.
// CHECK-LABEL: func.func @silu
// CHECK:         [[Y:%.+]] = spu.matmul %x, %w into %e {activation = #spu<activation silu>}
// CHECK-NEXT:    func.return [[Y]]
func.func @silu(%x : tensor<8x2xf32>) -> tensor<8x4xf32> {
  %w = antoum.constant dense<2.0> : tensor<4x2xf32> : tensor<4x2xf32>
  %e = tensor.empty() : tensor<8x4xf32>
  %a = spu.matmul %x, %w into %e : tensor<8x2xf32>, tensor<4x2xf32>, tensor<8x4xf32> -> tensor<8x4xf32>
  %s = vpu.unary sigmoid %a into %e : tensor<8x4xf32>, tensor<8x4xf32> -> tensor<8x4xf32>
  %m = vpu.binary mul %a, %s into %e : tensor<8x4xf32>, tensor<8x4xf32>, tensor<8x4xf32> -> tensor<8x4xf32>
  func.return %m : tensor<8x4xf32>
}

// -----

// Nothing is fused into a product that is used elsewhere, that is its own residual, or that would
// have to add a bias after its activation; nor a vector along another axis than the channels.
// CHECK-LABEL: func.func @not
// CHECK:         spu.matmul %x, %w into %e : tensor
// CHECK:         vpu.binary add %a, %a
// CHECK:         [[R:%.+]] = spu.matmul %x, %w into %e {activation = #spu<activation relu>}
// CHECK:         vpu.binary add [[R]], %c
// CHECK:         spu.matmul %x, %w into %e : tensor
// CHECK:         vpu.binary add %g, %rows
func.func @not(%x : tensor<4x2xf32>) -> (tensor<4x4xf32>, tensor<4x4xf32>, tensor<4x4xf32>) {
  %w = antoum.constant dense<2.0> : tensor<4x2xf32> : tensor<4x2xf32>
  %c = antoum.constant dense<[1.0, 2.0, 3.0, 4.0]> : tensor<4xf32> : tensor<4xf32>
  %rows = antoum.constant dense<[[1.0], [2.0], [3.0], [4.0]]> : tensor<4x1xf32> : tensor<4x1xf32>
  %e = tensor.empty() : tensor<4x4xf32>
  %a = spu.matmul %x, %w into %e : tensor<4x2xf32>, tensor<4x2xf32>, tensor<4x4xf32> -> tensor<4x4xf32>
  %b = vpu.binary add %a, %a into %e : tensor<4x4xf32>, tensor<4x4xf32>, tensor<4x4xf32> -> tensor<4x4xf32>
  %d = spu.matmul %x, %w into %e : tensor<4x2xf32>, tensor<4x2xf32>, tensor<4x4xf32> -> tensor<4x4xf32>
  %r = vpu.unary relu %d into %e : tensor<4x4xf32>, tensor<4x4xf32> -> tensor<4x4xf32>
  %f = vpu.binary add %r, %c into %e : tensor<4x4xf32>, tensor<4xf32>, tensor<4x4xf32> -> tensor<4x4xf32>
  %g = spu.matmul %x, %w into %e : tensor<4x2xf32>, tensor<4x2xf32>, tensor<4x4xf32> -> tensor<4x4xf32>
  %h = vpu.binary add %g, %rows into %e : tensor<4x4xf32>, tensor<4x1xf32>, tensor<4x4xf32> -> tensor<4x4xf32>
  func.return %b, %f, %h : tensor<4x4xf32>, tensor<4x4xf32>, tensor<4x4xf32>
}

// -----

// A power of two comes after the bias without rounding anything; a third does not.
// CHECK-LABEL: func.func @half
// CHECK:         [[S:%.+]] = antoum.constant dense<5.000000e-01> : tensor<2xf32>
// CHECK-NEXT:    [[B:%.+]] = antoum.constant dense<[1.500000e+00, 2.500000e+00]> : tensor<2xf32>
// CHECK-NEXT:    [[H:%.+]] = spu.matmul %x, %w scale([[S]] : tensor<2xf32>) bias([[B]] : tensor<2xf32>) residual(%x : tensor<4x2xf32>)
// CHECK:         [[T:%.+]] = spu.matmul %x, %w bias(%b : tensor<2xf32>) into %e
// CHECK-NEXT:    vpu.binary mul [[T]], %third
func.func @half(%x : tensor<4x2xf32>) -> (tensor<4x2xf32>, tensor<4x2xf32>) {
  %w = antoum.constant dense<2.0> : tensor<2x2xf32> : tensor<2x2xf32>
  %b = antoum.constant dense<[3.0, 5.0]> : tensor<2xf32> : tensor<2xf32>
  %half = antoum.constant dense<0.5> : tensor<f32> : tensor<f32>
  %third = antoum.constant dense<0.3> : tensor<f32> : tensor<f32>
  %e = tensor.empty() : tensor<4x2xf32>
  %m = spu.matmul %x, %w bias(%b : tensor<2xf32>) into %e : tensor<4x2xf32>, tensor<2x2xf32>, tensor<4x2xf32> -> tensor<4x2xf32>
  %h = vpu.binary mul %m, %half into %e : tensor<4x2xf32>, tensor<f32>, tensor<4x2xf32> -> tensor<4x2xf32>
  %r = vpu.binary add %x, %h into %e : tensor<4x2xf32>, tensor<4x2xf32>, tensor<4x2xf32> -> tensor<4x2xf32>
  %n = spu.matmul %x, %w bias(%b : tensor<2xf32>) into %e : tensor<4x2xf32>, tensor<2x2xf32>, tensor<4x2xf32> -> tensor<4x2xf32>
  %t = vpu.binary mul %n, %third into %e : tensor<4x2xf32>, tensor<f32>, tensor<4x2xf32> -> tensor<4x2xf32>
  func.return %r, %t : tensor<4x2xf32>, tensor<4x2xf32>
}
