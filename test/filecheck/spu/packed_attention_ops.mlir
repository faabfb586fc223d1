// RUN: spu-opt %s | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | filecheck %s --check-prefix GENERIC

func.func @tensors(%x: tensor<?x?x384xf32>, %mask: tensor<?x1x1x?xf32>, %k: tensor<?x12x?x8x64x4xui8>, %ks: tensor<?x12x?x64xf32>, %v: tensor<?x12x?x16x32x4xi8>, %vs: tensor<?x12x2x?x64xf32>, %init: tensor<?x?x384xf32>) -> tensor<?x?x384xf32> {
  %pk, %pks = spu.pack_keys %x into %k, %ks : tensor<?x?x384xf32>, tensor<?x12x?x8x64x4xui8>, tensor<?x12x?x64xf32> -> tensor<?x12x?x8x64x4xui8>, tensor<?x12x?x64xf32>
  %pv, %pvs = spu.pack_values %x into %v, %vs : tensor<?x?x384xf32>, tensor<?x12x?x16x32x4xi8>, tensor<?x12x2x?x64xf32> -> tensor<?x12x?x16x32x4xi8>, tensor<?x12x2x?x64xf32>
  %y = spu.packed_attention %x, %pk, %pks, %pv, %pvs mask(%mask : tensor<?x1x1x?xf32>) into %init {heads = 12 : i64, scale = 0.125 : f32} : tensor<?x?x384xf32>, tensor<?x12x?x8x64x4xui8>, tensor<?x12x?x64xf32>, tensor<?x12x?x16x32x4xi8>, tensor<?x12x2x?x64xf32>, tensor<?x?x384xf32> -> tensor<?x?x384xf32>
  func.return %y : tensor<?x?x384xf32>
}
// CHECK-LABEL: @tensors
// CHECK: %pk, %pks = spu.pack_keys %x into %k, %ks : tensor<?x?x384xf32>, tensor<?x12x?x8x64x4xui8>, tensor<?x12x?x64xf32> -> tensor<?x12x?x8x64x4xui8>, tensor<?x12x?x64xf32>
// CHECK: %pv, %pvs = spu.pack_values %x into %v, %vs : tensor<?x?x384xf32>, tensor<?x12x?x16x32x4xi8>, tensor<?x12x2x?x64xf32> -> tensor<?x12x?x16x32x4xi8>, tensor<?x12x2x?x64xf32>
// CHECK: %y = spu.packed_attention %x, %pk, %pks, %pv, %pvs mask(%mask : tensor<?x1x1x?xf32>) into %init {heads = 12 : i64, scale = 1.250000e-01 : f32} : tensor<?x?x384xf32>, tensor<?x12x?x8x64x4xui8>, tensor<?x12x?x64xf32>, tensor<?x12x?x16x32x4xi8>, tensor<?x12x2x?x64xf32>, tensor<?x?x384xf32> -> tensor<?x?x384xf32>
// GENERIC-LABEL: sym_name = "tensors"
// GENERIC: "spu.pack_keys"(%x, %k, %ks)
// GENERIC: "spu.pack_values"(%x, %v, %vs)
// GENERIC: "spu.packed_attention"(%x, %pk, %pks, %pv, %pvs, %mask, %init) <{
// GENERIC-SAME: operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 1>

// Packed rows, two heads of keys for four of queries, a causal mask, on buffers.
func.func @rows(%q: memref<?x32xf32>, %x: memref<?x16xf32>, %offsets: memref<3xi64>, %k: memref<2x2x1x2x64x4xui8>, %ks: memref<2x2x1x64xf32>, %v: memref<2x2x1x16x16x4xi8>, %vs: memref<2x2x2x1x64xf32>, %init: memref<?x32xf32>) {
  spu.pack_keys %x offsets(%offsets : memref<3xi64>) into %k, %ks : memref<?x16xf32>, memref<2x2x1x2x64x4xui8>, memref<2x2x1x64xf32>
  spu.pack_values %x offsets(%offsets : memref<3xi64>) into %v, %vs : memref<?x16xf32>, memref<2x2x1x16x16x4xi8>, memref<2x2x2x1x64xf32>
  spu.packed_attention %q, %k, %ks, %v, %vs offsets(%offsets : memref<3xi64>) into %init {heads = 4 : i64, scale = 0.5 : f32, causal = true} : memref<?x32xf32>, memref<2x2x1x2x64x4xui8>, memref<2x2x1x64xf32>, memref<2x2x1x16x16x4xi8>, memref<2x2x2x1x64xf32>, memref<?x32xf32>
  func.return
}
// CHECK-LABEL: @rows
// CHECK: spu.pack_keys %x offsets(%offsets : memref<3xi64>) into %k, %ks : memref<?x16xf32>
// CHECK: spu.pack_values %x offsets(%offsets : memref<3xi64>) into %v, %vs : memref<?x16xf32>
// CHECK: spu.packed_attention %q, %k, %ks, %v, %vs offsets(%offsets : memref<3xi64>) into %init {
// CHECK-SAME: causal = true
