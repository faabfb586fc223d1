// RUN: spu-opt %s | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | filecheck %s --check-prefix=GENERIC

// Running sums.

func.func @tensors(%x: tensor<?x8xi64>, %y: tensor<?x8xf32>) {
  %0 = vpu.cumsum %x into %x : tensor<?x8xi64>, tensor<?x8xi64> -> tensor<?x8xi64>
  %1 = vpu.cumsum %y into %y {exclusive = true, reverse = true} : tensor<?x8xf32>, tensor<?x8xf32> -> tensor<?x8xf32>
  func.return
}
// CHECK-LABEL: @tensors
// CHECK: %0 = vpu.cumsum %x into %x : tensor<?x8xi64>, tensor<?x8xi64> -> tensor<?x8xi64>
// CHECK: %1 = vpu.cumsum %y into %y {exclusive = true, reverse = true} : tensor<?x8xf32>, tensor<?x8xf32> -> tensor<?x8xf32>
// GENERIC: "vpu.cumsum"(%x, %x) <{exclusive = false, reverse = false}> : (tensor<?x8xi64>, tensor<?x8xi64>) -> tensor<?x8xi64>
// GENERIC: "vpu.cumsum"(%y, %y) <{exclusive = true, reverse = true}>

func.func @buffers(%x: memref<4x8xi32>) {
  vpu.cumsum %x into %x : memref<4x8xi32>, memref<4x8xi32>
  func.return
}
// CHECK-LABEL: @buffers
// CHECK: vpu.cumsum %x into %x : memref<4x8xi32>, memref<4x8xi32>
