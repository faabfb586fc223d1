// RUN: spu-opt %s | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | filecheck %s --check-prefix=GENERIC

func.func @tensors(%x: tensor<?x6x8xf32>, %cut1: tensor<?x3x8xf32>, %row: tensor<8xf32>, %like: tensor<?x6x8xf32>, %flat: tensor<?x48xf32>, %turned: tensor<8x?x6xf32>, %cut: tensor<?x2x3xf32>, %wide: tensor<?x9x8xf32>, %table: tensor<100x8xf32>, %ids: tensor<?x6xi64>) {
  %0 = vpu.expand %row into %like : tensor<8xf32>, tensor<?x6x8xf32> -> tensor<?x6x8xf32>
  %1 = vpu.reshape %x into %flat : tensor<?x6x8xf32>, tensor<?x48xf32> -> tensor<?x48xf32>
  %2 = vpu.transpose %x into %turned {perm = array<i64: 2, 0, 1>} : tensor<?x6x8xf32>, tensor<8x?x6xf32> -> tensor<8x?x6xf32>
  %3 = vpu.slice %x into %cut {starts = array<i64: 0, 1, 7>, steps = array<i64: 1, 3, -2>} : tensor<?x6x8xf32>, tensor<?x2x3xf32> -> tensor<?x2x3xf32>
  %4 = vpu.pad %x into %wide {low = array<i64: 0, 1, 0>, value = 0.5 : f32} : tensor<?x6x8xf32>, tensor<?x9x8xf32> -> tensor<?x9x8xf32>
  %5 = vpu.concat %x, %cut1 into %wide {axis = 1 : i64} : tensor<?x6x8xf32>, tensor<?x3x8xf32> into tensor<?x9x8xf32> -> tensor<?x9x8xf32>
  %6 = vpu.gather %table, %ids into %like {axis = 0 : i64} : tensor<100x8xf32>, tensor<?x6xi64>, tensor<?x6x8xf32> -> tensor<?x6x8xf32>
  func.return
}
// CHECK-LABEL: @tensors
// CHECK: %0 = vpu.expand %row into %like : tensor<8xf32>, tensor<?x6x8xf32> -> tensor<?x6x8xf32>
// CHECK: %1 = vpu.reshape %x into %flat : tensor<?x6x8xf32>, tensor<?x48xf32> -> tensor<?x48xf32>
// CHECK: %2 = vpu.transpose %x into %turned {perm = array<i64: 2, 0, 1>} : tensor<?x6x8xf32>, tensor<8x?x6xf32> -> tensor<8x?x6xf32>
// CHECK: %3 = vpu.slice %x into %cut {starts = array<i64: 0, 1, 7>, steps = array<i64: 1, 3, -2>} : tensor<?x6x8xf32>, tensor<?x2x3xf32> -> tensor<?x2x3xf32>
// CHECK: %4 = vpu.pad %x into %wide {low = array<i64: 0, 1, 0>, value = 5.000000e-01 : f32} : tensor<?x6x8xf32>, tensor<?x9x8xf32> -> tensor<?x9x8xf32>
// CHECK: %5 = vpu.concat %x, %cut1 into %wide {axis = 1 : i64} : tensor<?x6x8xf32>, tensor<?x3x8xf32> into tensor<?x9x8xf32> -> tensor<?x9x8xf32>
// CHECK: %6 = vpu.gather %table, %ids into %like {axis = 0 : i64} : tensor<100x8xf32>, tensor<?x6xi64>, tensor<?x6x8xf32> -> tensor<?x6x8xf32>
// GENERIC: "vpu.transpose"(%x, %turned) <{perm = array<i64: 2, 0, 1>}> : (tensor<?x6x8xf32>, tensor<8x?x6xf32>) -> tensor<8x?x6xf32>
// GENERIC: "vpu.concat"(%x, %cut1, %wide) <{axis = 1 : i64}> : (tensor<?x6x8xf32>, tensor<?x3x8xf32>, tensor<?x9x8xf32>) -> tensor<?x9x8xf32>

func.func @buffers(%x: memref<4x6xui8>, %y: memref<6x4xui8>, %z: memref<24xui8>, %t: memref<9x6xui8>, %i: memref<4xi32>) {
  vpu.expand %x into %x : memref<4x6xui8>, memref<4x6xui8>
  vpu.reshape %x into %z : memref<4x6xui8>, memref<24xui8>
  vpu.transpose %x into %y {perm = array<i64: 1, 0>} : memref<4x6xui8>, memref<6x4xui8>
  vpu.gather %t, %i into %x {axis = 0 : i64} : memref<9x6xui8>, memref<4xi32>, memref<4x6xui8>
  vpu.concat %x into %x {axis = 0 : i64} : memref<4x6xui8> into memref<4x6xui8>
  func.return
}
// CHECK-LABEL: @buffers
// CHECK: vpu.expand %x into %x : memref<4x6xui8>, memref<4x6xui8>
// CHECK: vpu.reshape %x into %z : memref<4x6xui8>, memref<24xui8>
// CHECK: vpu.transpose %x into %y {perm = array<i64: 1, 0>} : memref<4x6xui8>, memref<6x4xui8>
// CHECK: vpu.gather %t, %i into %x {axis = 0 : i64} : memref<9x6xui8>, memref<4xi32>, memref<4x6xui8>
// CHECK: vpu.concat %x into %x {axis = 0 : i64} : memref<4x6xui8> into memref<4x6xui8>
