// RUN: spu-opt %s | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | filecheck %s --check-prefix=GENERIC

// Packed rows: vpu.row_offsets, vpu.pack_rows and vpu.unpack_rows.

func.func @tensors(%real: tensor<?x?xi1>, %ends: tensor<?xi64>, %x: tensor<?x?x64xf32>, %table: tensor<1x?x64xf32>, %rows: tensor<?x64xf32>, %ids: tensor<?x?xi64>, %row_ids: tensor<?xi64>, %first: tensor<?x1x64xf32>) {
  %offsets = vpu.row_offsets %real into %ends : tensor<?x?xi1>, tensor<?xi64> -> tensor<?xi64>
  %0 = vpu.pack_rows %x, %offsets into %rows : tensor<?x?x64xf32>, tensor<?xi64>, tensor<?x64xf32> -> tensor<?x64xf32>
  %1 = vpu.pack_rows %table, %offsets into %rows : tensor<1x?x64xf32>, tensor<?xi64>, tensor<?x64xf32> -> tensor<?x64xf32>
  %2 = vpu.pack_rows %ids, %offsets into %row_ids : tensor<?x?xi64>, tensor<?xi64>, tensor<?xi64> -> tensor<?xi64>
  %3 = vpu.unpack_rows %0, %offsets into %x : tensor<?x64xf32>, tensor<?xi64>, tensor<?x?x64xf32> -> tensor<?x?x64xf32>
  %4 = vpu.unpack_rows %0, %offsets into %x {lowest} : tensor<?x64xf32>, tensor<?xi64>, tensor<?x?x64xf32> -> tensor<?x?x64xf32>
  %5 = vpu.unpack_rows %1, %offsets into %first : tensor<?x64xf32>, tensor<?xi64>, tensor<?x1x64xf32> -> tensor<?x1x64xf32>
  func.return
}
// CHECK-LABEL: @tensors
// CHECK: %offsets = vpu.row_offsets %real into %ends : tensor<?x?xi1>, tensor<?xi64> -> tensor<?xi64>
// CHECK: %0 = vpu.pack_rows %x, %offsets into %rows : tensor<?x?x64xf32>, tensor<?xi64>, tensor<?x64xf32> -> tensor<?x64xf32>
// CHECK: %1 = vpu.pack_rows %table, %offsets into %rows : tensor<1x?x64xf32>, tensor<?xi64>, tensor<?x64xf32> -> tensor<?x64xf32>
// CHECK: %2 = vpu.pack_rows %ids, %offsets into %row_ids : tensor<?x?xi64>, tensor<?xi64>, tensor<?xi64> -> tensor<?xi64>
// CHECK: %3 = vpu.unpack_rows %0, %offsets into %x : tensor<?x64xf32>, tensor<?xi64>, tensor<?x?x64xf32> -> tensor<?x?x64xf32>
// CHECK: %4 = vpu.unpack_rows %0, %offsets into %x {lowest} : tensor<?x64xf32>, tensor<?xi64>, tensor<?x?x64xf32> -> tensor<?x?x64xf32>
// CHECK: %5 = vpu.unpack_rows %1, %offsets into %first : tensor<?x64xf32>, tensor<?xi64>, tensor<?x1x64xf32> -> tensor<?x1x64xf32>
// GENERIC: "vpu.row_offsets"(%real, %ends) : (tensor<?x?xi1>, tensor<?xi64>) -> tensor<?xi64>
// GENERIC: "vpu.unpack_rows"(%0, %offsets, %x) <{lowest}> : (tensor<?x64xf32>, tensor<?xi64>, tensor<?x?x64xf32>) -> tensor<?x?x64xf32>

func.func @buffers(%real: memref<2x5xi1>, %offsets: memref<3xi64>, %x: memref<2x5x8xui8>, %rows: memref<?x8xui8>) {
  vpu.row_offsets %real into %offsets : memref<2x5xi1>, memref<3xi64>
  vpu.pack_rows %x, %offsets into %rows : memref<2x5x8xui8>, memref<3xi64>, memref<?x8xui8>
  vpu.unpack_rows %rows, %offsets into %x : memref<?x8xui8>, memref<3xi64>, memref<2x5x8xui8>
  func.return
}
// CHECK-LABEL: @buffers
// CHECK: vpu.row_offsets %real into %offsets : memref<2x5xi1>, memref<3xi64>
// CHECK: vpu.pack_rows %x, %offsets into %rows : memref<2x5x8xui8>, memref<3xi64>, memref<?x8xui8>
// CHECK: vpu.unpack_rows %rows, %offsets into %x : memref<?x8xui8>, memref<3xi64>, memref<2x5x8xui8>
