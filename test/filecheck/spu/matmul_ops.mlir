// RUN: spu-opt %s | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | filecheck %s --check-prefix=GENERIC

// A dense product of f32 without an epilogue.
func.func @f32(%x: tensor<?x7x64xf32>, %w: tensor<10x64xf32>, %init: tensor<?x7x10xf32>) -> tensor<?x7x10xf32> {
  %y = spu.matmul %x, %w into %init : tensor<?x7x64xf32>, tensor<10x64xf32>, tensor<?x7x10xf32> -> tensor<?x7x10xf32>
  func.return %y : tensor<?x7x10xf32>
}
// CHECK-LABEL: @f32
// CHECK: %y = spu.matmul %x, %w into %init : tensor<?x7x64xf32>, tensor<10x64xf32>, tensor<?x7x10xf32> -> tensor<?x7x10xf32>
// GENERIC-LABEL: sym_name = "f32"
// GENERIC: %y = "spu.matmul"(%x, %w, %init) <{operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 1>, x_zero = 0 : i32, activation = #spu<activation none>}> : (tensor<?x7x64xf32>, tensor<10x64xf32>, tensor<?x7x10xf32>) -> tensor<?x7x10xf32>

// Every part of the epilogue, on a banked int8 weight, quantised at the end.
func.func @int8(%x: tensor<?x128xui8>, %w: tensor<16x128xi8, #spu.banked<bank = 64, slots = 4, share = 1>>, %scale: tensor<16xf32>, %row: tensor<?xf32>, %bias: tensor<16xf32>, %residual: tensor<?x16xi8>, %init: tensor<?x16xui8>) -> tensor<?x16xui8> {
  %y = spu.matmul %x, %w scale(%scale : tensor<16xf32>) row_scale(%row : tensor<?xf32>) bias(%bias : tensor<16xf32>) residual(%residual : tensor<?x16xi8>) into %init {activation = #spu.activation gelu, x_zero = 128 : i32, residual_scale = 0.5 : f32, residual_zero = 3 : i32, out_scale = 0.25 : f32, out_zero = 7 : i32} : tensor<?x128xui8>, tensor<16x128xi8, #spu.banked<bank = 64, slots = 4, share = 1>>, tensor<?x16xui8> -> tensor<?x16xui8>
  func.return %y : tensor<?x16xui8>
}
// CHECK-LABEL: @int8
// CHECK: %y = spu.matmul %x, %w scale(%scale : tensor<16xf32>) row_scale(%row : tensor<?xf32>) bias(%bias : tensor<16xf32>) residual(%residual : tensor<?x16xi8>) into %init {
// CHECK-SAME: activation = #spu<activation gelu>
// CHECK-SAME: : tensor<?x128xui8>, tensor<16x128xi8, #spu.banked<bank = 64, slots = 4, share = 1>>, tensor<?x16xui8> -> tensor<?x16xui8>
// GENERIC-LABEL: sym_name = "int8"
// GENERIC: %y = "spu.matmul"(%x, %w, %scale, %row, %bias, %residual, %init) <{
// GENERIC-SAME: activation = #spu<activation gelu>
// GENERIC-SAME: x_zero = 128 : i32
// GENERIC-SAME: residual_scale = 5.000000e-01 : f32, residual_zero = 3 : i32, out_scale = 2.500000e-01 : f32, out_zero = 7 : i32

// A ragged bf16 weight; `layer` is the name of the node that the op comes from.
func.func @bf16(%x: tensor<4x96xbf16>, %w: tensor<5x96xbf16, #spu.banked<bank = 32, slots = 0, share = 1>>, %init: tensor<4x5xbf16>) -> tensor<4x5xbf16> {
  %y = spu.matmul %x, %w into %init {layer = "encoder/0/query"} : tensor<4x96xbf16>, tensor<5x96xbf16, #spu.banked<bank = 32, slots = 0, share = 1>>, tensor<4x5xbf16> -> tensor<4x5xbf16>
  func.return %y : tensor<4x5xbf16>
}
// CHECK-LABEL: @bf16
// CHECK: %y = spu.matmul %x, %w into %init {layer = "encoder/0/query"} : tensor<4x96xbf16>, tensor<5x96xbf16, #spu.banked<bank = 32, slots = 0, share = 1>>, tensor<4x5xbf16> -> tensor<4x5xbf16>

// On memrefs there is no result, and the encoding is the weight's layout.
func.func @buffers(%x: memref<8x128xui8>, %w: memref<16x128xi8, #spu.banked<bank = 64, slots = 8, share = 1>, #antoum.space ddr>, %scale: memref<16xf32>, %init: memref<8x16xf32, strided<[64, 1], offset: ?>>) {
  spu.matmul %x, %w scale(%scale : memref<16xf32>) into %init : memref<8x128xui8>, memref<16x128xi8, #spu.banked<bank = 64, slots = 8, share = 1>, #antoum.space ddr>, memref<8x16xf32, strided<[64, 1], offset: ?>>
  func.return
}
// CHECK-LABEL: @buffers
// CHECK: spu.matmul %x, %w scale(%scale : memref<16xf32>) into %init : memref<8x128xui8>, memref<16x128xi8, #spu.banked<bank = 64, slots = 8, share = 1>, #antoum<space ddr>>, memref<8x16xf32, strided<[64, 1], offset: ?>>
// GENERIC-LABEL: sym_name = "buffers"
// GENERIC: "spu.matmul"(%x, %w, %scale, %init) <{
