// RUN: spu-opt %s | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | filecheck %s --check-prefix=GENERIC

func.func @tensors(%x: tensor<?x8xf32>, %q: tensor<?x8xui8>, %s: tensor<f32>, %z: tensor<ui8>, %w: tensor<4x8xi8>, %per: tensor<4xf32>, %zero: tensor<4xi8>, %real: tensor<4x8xf32>, %rows: tensor<?xf32>, %table: tensor<256xui8>, %k: tensor<8xf32>) {
  %0 = vpu.quantise %x scale(%s : tensor<f32>) zero(%z : tensor<ui8>) into %q : tensor<?x8xf32>, tensor<?x8xui8> -> tensor<?x8xui8>
  %1 = vpu.dequantise %q scale(%s : tensor<f32>) into %x : tensor<?x8xui8>, tensor<?x8xf32> -> tensor<?x8xf32>
  %2 = vpu.dequantise %w scale(%per : tensor<4xf32>) zero(%zero : tensor<4xi8>) into %real {axis = 0 : i64} : tensor<4x8xi8>, tensor<4x8xf32> -> tensor<4x8xf32>
  %3, %4 = vpu.quantise_rows %x into %q, %rows : tensor<?x8xf32>, tensor<?x8xui8>, tensor<?xf32> -> tensor<?x8xui8>, tensor<?xf32>
  %5 = vpu.dequantise %q scale(%rows : tensor<?xf32>) into %x : tensor<?x8xui8>, tensor<?x8xf32> -> tensor<?x8xf32>
  %6 = vpu.table %q, %table into %q : tensor<?x8xui8>, tensor<256xui8>, tensor<?x8xui8> -> tensor<?x8xui8>
  %7, %8 = vpu.quantise_rows %x columns(%k : tensor<8xf32>) into %q, %rows : tensor<?x8xf32>, tensor<?x8xui8>, tensor<?xf32> -> tensor<?x8xui8>, tensor<?xf32>
  %11 = vpu.quantise_product %x, %x scale(%s : tensor<f32>) zero(%z : tensor<ui8>) into %q : tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xui8> -> tensor<?x8xui8>
  %9, %10 = vpu.layer_norm_rows %x, %k, %k into %q, %rows {epsilon = 0.5 : f32} : tensor<?x8xf32>, tensor<8xf32>, tensor<8xf32>, tensor<?x8xui8>, tensor<?xf32> -> tensor<?x8xui8>, tensor<?xf32>
  func.return
}
// CHECK-LABEL: @tensors
// CHECK: %0 = vpu.quantise %x scale(%s : tensor<f32>) zero(%z : tensor<ui8>) into %q : tensor<?x8xf32>, tensor<?x8xui8> -> tensor<?x8xui8>
// CHECK: %1 = vpu.dequantise %q scale(%s : tensor<f32>) into %x : tensor<?x8xui8>, tensor<?x8xf32> -> tensor<?x8xf32>
// CHECK: %2 = vpu.dequantise %w scale(%per : tensor<4xf32>) zero(%zero : tensor<4xi8>) into %real {axis = 0 : i64} : tensor<4x8xi8>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: %3, %4 = vpu.quantise_rows %x into %q, %rows : tensor<?x8xf32>, tensor<?x8xui8>, tensor<?xf32> -> tensor<?x8xui8>, tensor<?xf32>
// CHECK: %5 = vpu.dequantise %q scale(%rows : tensor<?xf32>) into %x : tensor<?x8xui8>, tensor<?x8xf32> -> tensor<?x8xf32>
// CHECK: %6 = vpu.table %q, %table into %q : tensor<?x8xui8>, tensor<256xui8>, tensor<?x8xui8> -> tensor<?x8xui8>
// CHECK: %7, %8 = vpu.quantise_rows %x columns(%k : tensor<8xf32>) into %q, %rows : tensor<?x8xf32>, tensor<?x8xui8>, tensor<?xf32> -> tensor<?x8xui8>, tensor<?xf32>
// CHECK: %9 = vpu.quantise_product %x, %x scale(%s : tensor<f32>) zero(%z : tensor<ui8>) into %q : tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xui8> -> tensor<?x8xui8>
// CHECK: %10, %11 = vpu.layer_norm_rows %x, %k, %k into %q, %rows {epsilon = 5.000000e-01 : f32} : tensor<?x8xf32>, tensor<8xf32>, tensor<8xf32>, tensor<?x8xui8>, tensor<?xf32> -> tensor<?x8xui8>, tensor<?xf32>
// GENERIC: "vpu.quantise"(%x, %s, %z, %q) <{axis = -1 : i64}> : (tensor<?x8xf32>, tensor<f32>, tensor<ui8>, tensor<?x8xui8>) -> tensor<?x8xui8>
// GENERIC: "vpu.quantise_rows"(%x, %q, %rows) <{zero = 128 : i32}> : (tensor<?x8xf32>, tensor<?x8xui8>, tensor<?xf32>) -> (tensor<?x8xui8>, tensor<?xf32>)

func.func @buffers(%x: memref<4x8xf32>, %q: memref<4x8xui8>, %s: memref<f32>, %rows: memref<4xf32>, %table: memref<256xui8>, %k: memref<8xf32>) {
  vpu.quantise %x scale(%s : memref<f32>) into %q : memref<4x8xf32>, memref<4x8xui8>
  vpu.dequantise %q scale(%s : memref<f32>) into %x : memref<4x8xui8>, memref<4x8xf32>
  vpu.quantise_rows %x into %q, %rows : memref<4x8xf32>, memref<4x8xui8>, memref<4xf32>
  vpu.quantise_rows %x into %q, %rows {zero = 40 : i32} : memref<4x8xf32>, memref<4x8xui8>, memref<4xf32>
  vpu.quantise_rows %x columns(%k : memref<8xf32>) into %q, %rows {zero = 40 : i32} : memref<4x8xf32>, memref<4x8xui8>, memref<4xf32>
  vpu.table %q, %table into %q : memref<4x8xui8>, memref<256xui8>, memref<4x8xui8>
  vpu.layer_norm_rows %x, %k, %k into %q, %rows {epsilon = 1.0 : f32} : memref<4x8xf32>, memref<8xf32>, memref<8xf32>, memref<4x8xui8>, memref<4xf32>
  func.return
}
// CHECK-LABEL: @buffers
// CHECK: vpu.quantise %x scale(%s : memref<f32>) into %q : memref<4x8xf32>, memref<4x8xui8>
// CHECK: vpu.dequantise %q scale(%s : memref<f32>) into %x : memref<4x8xui8>, memref<4x8xf32>
// CHECK: vpu.quantise_rows %x into %q, %rows : memref<4x8xf32>, memref<4x8xui8>, memref<4xf32>
// CHECK: vpu.quantise_rows %x into %q, %rows {zero = 40 : i32} : memref<4x8xf32>, memref<4x8xui8>, memref<4xf32>
// CHECK: vpu.quantise_rows %x columns(%k : memref<8xf32>) into %q, %rows {zero = 40 : i32} : memref<4x8xf32>, memref<4x8xui8>, memref<4xf32>
// CHECK: vpu.table %q, %table into %q : memref<4x8xui8>, memref<256xui8>, memref<4x8xui8>
// CHECK: vpu.layer_norm_rows %x, %k, %k into %q, %rows {epsilon = 1.000000e+00 : f32} : memref<4x8xf32>, memref<8xf32>, memref<8xf32>, memref<4x8xui8>, memref<4xf32>
