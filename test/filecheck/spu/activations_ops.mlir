// RUN: spu-opt %s | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | filecheck %s --check-prefix=GENERIC

// Products of two activations: spu.batch_matmul and spu.attention.

func.func @batch_matmul(%a: tensor<?x12x?x32xf32>, %b: tensor<?x12x32x?xf32>, %init: tensor<?x12x?x?xf32>) -> tensor<?x12x?x?xf32> {
  %y = spu.batch_matmul %a, %b into %init : tensor<?x12x?x32xf32>, tensor<?x12x32x?xf32>, tensor<?x12x?x?xf32> -> tensor<?x12x?x?xf32>
  func.return %y : tensor<?x12x?x?xf32>
}
// CHECK-LABEL: @batch_matmul
// CHECK: %y = spu.batch_matmul %a, %b into %init : tensor<?x12x?x32xf32>, tensor<?x12x32x?xf32>, tensor<?x12x?x?xf32> -> tensor<?x12x?x?xf32>
// GENERIC-LABEL: sym_name = "batch_matmul"
// GENERIC: %y = "spu.batch_matmul"(%a, %b, %init) <{alpha = 1.000000e+00 : f32, transpose_b = false}> : (tensor<?x12x?x32xf32>, tensor<?x12x32x?xf32>, tensor<?x12x?x?xf32>) -> tensor<?x12x?x?xf32>

func.func @transposed(%a: memref<2x5x32xf32>, %b: memref<7x32xf32>, %init: memref<2x5x7xf32>) {
  spu.batch_matmul %a, %b into %init {alpha = 0.125 : f32, transpose_b = true} : memref<2x5x32xf32>, memref<7x32xf32>, memref<2x5x7xf32>
  func.return
}
// CHECK-LABEL: @transposed
// CHECK: spu.batch_matmul %a, %b into %init {alpha = 1.250000e-01 : f32, transpose_b = true} : memref<2x5x32xf32>, memref<7x32xf32>, memref<2x5x7xf32>

func.func @attention(%q: tensor<?x?x384xf32>, %k: tensor<?x?x384xf32>, %v: tensor<?x?x384xf32>, %mask: tensor<?x1x1x?xf32>, %init: tensor<?x?x384xf32>) -> tensor<?x?x384xf32> {
  %y = spu.attention %q, %k, %v mask(%mask : tensor<?x1x1x?xf32>) into %init {heads = 12 : i64, kv_heads = 12 : i64, scale = 0.125 : f32} : tensor<?x?x384xf32>, tensor<?x?x384xf32>, tensor<?x?x384xf32>, tensor<?x?x384xf32> -> tensor<?x?x384xf32>
  func.return %y : tensor<?x?x384xf32>
}
// CHECK-LABEL: @attention
// CHECK: %y = spu.attention %q, %k, %v mask(%mask : tensor<?x1x1x?xf32>) into %init {heads = 12 : i64, kv_heads = 12 : i64, scale = 1.250000e-01 : f32} : tensor<?x?x384xf32>, tensor<?x?x384xf32>, tensor<?x?x384xf32>, tensor<?x?x384xf32> -> tensor<?x?x384xf32>
// GENERIC-LABEL: sym_name = "attention"
// GENERIC: "spu.attention"(%q, %k, %v, %mask, %init) <{
// GENERIC-SAME: operandSegmentSizes = array<i32: 1, 1, 1, 1, 0, 1>

// Grouped queries, causal, another size of the values, no mask, on buffers.
func.func @causal(%q: memref<1x9x64xf32>, %k: memref<1x9x16xf32>, %v: memref<1x9x8xf32>, %init: memref<1x9x32xf32>) {
  spu.attention %q, %k, %v into %init {heads = 8 : i64, kv_heads = 2 : i64, scale = 0.5 : f32, causal = true} : memref<1x9x64xf32>, memref<1x9x16xf32>, memref<1x9x8xf32>, memref<1x9x32xf32>
  func.return
}
// CHECK-LABEL: @causal
// CHECK: spu.attention %q, %k, %v into %init {
// CHECK-SAME: causal = true
// CHECK-SAME: : memref<1x9x64xf32>, memref<1x9x16xf32>, memref<1x9x8xf32>, memref<1x9x32xf32>

// Packed rows of samples that end at offsets; or whole samples of which only so many keys count.
func.func @offsets(%x: tensor<?x384xf32>, %y: tensor<?x?x384xf32>, %mask: tensor<?x1x1x?xf32>, %offsets: tensor<?xi64>) {
  %0 = spu.attention %x, %x, %x mask(%mask : tensor<?x1x1x?xf32>) offsets(%offsets : tensor<?xi64>) into %x {heads = 12 : i64, kv_heads = 12 : i64, scale = 0.125 : f32} : tensor<?x384xf32>, tensor<?x384xf32>, tensor<?x384xf32>, tensor<?x384xf32> -> tensor<?x384xf32>
  %1 = spu.attention %y, %y, %y offsets(%offsets : tensor<?xi64>) into %y {heads = 12 : i64, kv_heads = 12 : i64, scale = 0.125 : f32} : tensor<?x?x384xf32>, tensor<?x?x384xf32>, tensor<?x?x384xf32>, tensor<?x?x384xf32> -> tensor<?x?x384xf32>
  func.return
}
// CHECK-LABEL: @offsets
// CHECK: %0 = spu.attention %x, %x, %x mask(%mask : tensor<?x1x1x?xf32>) offsets(%offsets : tensor<?xi64>) into %x {
// CHECK: %1 = spu.attention %y, %y, %y offsets(%offsets : tensor<?xi64>) into %y {
// GENERIC-LABEL: sym_name = "offsets"
// GENERIC: "spu.attention"(%x, %x, %x, %mask, %offsets, %x) <{
// GENERIC: "spu.attention"(%y, %y, %y, %offsets, %y) <{
