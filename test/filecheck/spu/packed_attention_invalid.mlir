// RUN: spu-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

%x, %k, %s = "test.op"() : () -> (tensor<1x65x16xf32>, tensor<1x2x1x2x64x4xui8>, tensor<1x2x1x64xf32>)
%a, %b = spu.pack_keys %x into %k, %s : tensor<1x65x16xf32>, tensor<1x2x1x2x64x4xui8>, tensor<1x2x1x64xf32> -> tensor<1x2x1x2x64x4xui8>, tensor<1x2x1x64xf32>
// CHECK: spu.pack_keys: 65 keys are 2 blocks, not 1

// -----
%x, %k, %s = "test.op"() : () -> (tensor<65x16xf32>, tensor<1x2x2x2x64x4xui8>, tensor<1x2x2x64xf32>)
%a, %b = spu.pack_keys %x into %k, %s : tensor<65x16xf32>, tensor<1x2x2x2x64x4xui8>, tensor<1x2x2x64xf32> -> tensor<1x2x2x2x64x4xui8>, tensor<1x2x2x64xf32>
// CHECK: spu.pack_keys: x must be [batch, keys, heads * head size], or [rows, heads * head size] with offsets, got [65, 16]

// -----
%x, %k, %s = "test.op"() : () -> (tensor<1x64x16xf32>, tensor<1x2x1x3x64x4xui8>, tensor<1x2x1x64xf32>)
%a, %b = spu.pack_keys %x into %k, %s : tensor<1x64x16xf32>, tensor<1x2x1x3x64x4xui8>, tensor<1x2x1x64xf32> -> tensor<1x2x1x3x64x4xui8>, tensor<1x2x1x64xf32>
// CHECK: spu.pack_keys: the init must have shape [1, 2, 1, 2, 64, 4], got [1, 2, 1, 3, 64, 4]

// -----
%x, %v, %s = "test.op"() : () -> (tensor<1x64x16xf32>, tensor<1x2x1x16x16x4xui8>, tensor<1x2x2x1x64xf32>)
%a, %b = spu.pack_values %x into %v, %s : tensor<1x64x16xf32>, tensor<1x2x1x16x16x4xui8>, tensor<1x2x2x1x64xf32> -> tensor<1x2x1x16x16x4xui8>, tensor<1x2x2x1x64xf32>
// CHECK: spu.pack_values: the init must have element type i8, got ui8

// -----
%q, %k, %ks, %v, %vs = "test.op"() : () -> (tensor<1x4x48xf32>, tensor<1x2x1x4x64x4xui8>, tensor<1x2x1x64xf32>, tensor<1x2x1x16x16x4xi8>, tensor<1x2x2x1x64xf32>)
%r = spu.packed_attention %q, %k, %ks, %v, %vs into %q {heads = 3 : i64, scale = 1.0 : f32} : tensor<1x4x48xf32>, tensor<1x2x1x4x64x4xui8>, tensor<1x2x1x64xf32>, tensor<1x2x1x16x16x4xi8>, tensor<1x2x2x1x64xf32>, tensor<1x4x48xf32> -> tensor<1x4x48xf32>
// CHECK: spu.packed_attention: heads must be a multiple of the packed 2, got 3

// -----
%q, %k, %ks, %v, %vs = "test.op"() : () -> (tensor<1x4x32xf32>, tensor<1x2x1x4x64x4xui8>, tensor<1x2x2x64xf32>, tensor<1x2x1x16x16x4xi8>, tensor<1x2x2x1x64xf32>)
%r = spu.packed_attention %q, %k, %ks, %v, %vs into %q {heads = 2 : i64, scale = 1.0 : f32} : tensor<1x4x32xf32>, tensor<1x2x1x4x64x4xui8>, tensor<1x2x2x64xf32>, tensor<1x2x1x16x16x4xi8>, tensor<1x2x2x1x64xf32>, tensor<1x4x32xf32> -> tensor<1x4x32xf32>
// CHECK: spu.packed_attention: k_scale must have shape [1, 2, 1, 64], got [1, 2, 2, 64]
