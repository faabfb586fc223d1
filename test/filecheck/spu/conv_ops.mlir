// RUN: spu-opt %s | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | filecheck %s --check-prefix=GENERIC

func.func @plain(%x: tensor<?x8x8x64xf32>, %w: tensor<32x1x1x64xf32>, %init: tensor<?x8x8x32xf32>) -> tensor<?x8x8x32xf32> {
  %y = spu.conv %x, %w into %init : tensor<?x8x8x64xf32>, tensor<32x1x1x64xf32>, tensor<?x8x8x32xf32> -> tensor<?x8x8x32xf32>
  func.return %y : tensor<?x8x8x32xf32>
}
// CHECK-LABEL: @plain
// CHECK: %y = spu.conv %x, %w into %init : tensor<?x8x8x64xf32>, tensor<32x1x1x64xf32>, tensor<?x8x8x32xf32> -> tensor<?x8x8x32xf32>
// GENERIC-LABEL: sym_name = "plain"
// GENERIC: %y = "spu.conv"(%x, %w, %init) <{
// GENERIC-SAME: operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 1>
// GENERIC-SAME: strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, groups = 1 : i64

// Uneven strides, pads and dilations, two groups, a residual and an activation.
func.func @uneven(%x: tensor<?x9x11x8xui8>, %w: tensor<6x3x2x4xi8>, %scale: tensor<6xf32>, %bias: tensor<6xf32>, %residual: tensor<?x4x12x6xf32>, %init: tensor<?x4x12x6xui8>) -> tensor<?x4x12x6xui8> {
  %y = spu.conv %x, %w scale(%scale : tensor<6xf32>) bias(%bias : tensor<6xf32>) residual(%residual : tensor<?x4x12x6xf32>) into %init {strides = array<i64: 2, 1>, pads = array<i64: 1, 2, 1, 2>, dilations = array<i64: 2, 3>, groups = 2 : i64, x_zero = 7 : i32, activation = #spu.activation relu, out_scale = 0.25 : f32, out_zero = 0 : i32, prescaled} : tensor<?x9x11x8xui8>, tensor<6x3x2x4xi8>, tensor<?x4x12x6xui8> -> tensor<?x4x12x6xui8>
  func.return %y : tensor<?x4x12x6xui8>
}
// CHECK-LABEL: @uneven
// CHECK: %y = spu.conv %x, %w scale(%scale : tensor<6xf32>) bias(%bias : tensor<6xf32>) residual(%residual : tensor<?x4x12x6xf32>) into %init {
// CHECK-SAME: strides = array<i64: 2, 1>, pads = array<i64: 1, 2, 1, 2>, dilations = array<i64: 2, 3>, groups = 2 : i64
// CHECK-SAME: : tensor<?x9x11x8xui8>, tensor<6x3x2x4xi8>, tensor<?x4x12x6xui8> -> tensor<?x4x12x6xui8>

func.func @buffers(%x: memref<1x10x10x64xbf16>, %w: memref<32x3x3x64xbf16, #spu.banked<bank = 32, slots = 2, share = 1>>, %init: memref<1x8x8x32xbf16>) {
  spu.conv %x, %w into %init : memref<1x10x10x64xbf16>, memref<32x3x3x64xbf16, #spu.banked<bank = 32, slots = 2, share = 1>>, memref<1x8x8x32xbf16>
  func.return
}
// CHECK-LABEL: @buffers
// CHECK: spu.conv %x, %w into %init : memref<1x10x10x64xbf16>, memref<32x3x3x64xbf16, #spu.banked<bank = 32, slots = 2, share = 1>>, memref<1x8x8x32xbf16>
