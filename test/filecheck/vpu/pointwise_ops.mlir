// RUN: spu-opt %s | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | filecheck %s --check-prefix=GENERIC

func.func @tensors(%x: tensor<?x8xf32>, %b: tensor<8xf32>, %one: tensor<f32>, %c: tensor<?x1xi1>, %y: tensor<?x8xf32>, %m: tensor<?x8xi1>, %i: tensor<?x8xi64>) {
  %0 = vpu.unary gelu %x into %y : tensor<?x8xf32>, tensor<?x8xf32> -> tensor<?x8xf32>
  %1 = vpu.unary neg %i into %i : tensor<?x8xi64>, tensor<?x8xi64> -> tensor<?x8xi64>
  %2 = vpu.unary not %m into %m : tensor<?x8xi1>, tensor<?x8xi1> -> tensor<?x8xi1>
  %3 = vpu.binary add %x, %b into %y : tensor<?x8xf32>, tensor<8xf32>, tensor<?x8xf32> -> tensor<?x8xf32>
  %4 = vpu.binary less_or_equal %one, %x into %m : tensor<f32>, tensor<?x8xf32>, tensor<?x8xi1> -> tensor<?x8xi1>
  %5 = vpu.select %c, %x, %one into %y : tensor<?x1xi1>, tensor<?x8xf32>, tensor<f32>, tensor<?x8xf32> -> tensor<?x8xf32>
  %6 = vpu.cast %x into %i : tensor<?x8xf32>, tensor<?x8xi64> -> tensor<?x8xi64>
  func.return
}
// CHECK-LABEL: @tensors
// CHECK: %0 = vpu.unary gelu %x into %y : tensor<?x8xf32>, tensor<?x8xf32> -> tensor<?x8xf32>
// CHECK: %1 = vpu.unary neg %i into %i : tensor<?x8xi64>, tensor<?x8xi64> -> tensor<?x8xi64>
// CHECK: %2 = vpu.unary not %m into %m : tensor<?x8xi1>, tensor<?x8xi1> -> tensor<?x8xi1>
// CHECK: %3 = vpu.binary add %x, %b into %y : tensor<?x8xf32>, tensor<8xf32>, tensor<?x8xf32> -> tensor<?x8xf32>
// CHECK: %4 = vpu.binary less_or_equal %one, %x into %m : tensor<f32>, tensor<?x8xf32>, tensor<?x8xi1> -> tensor<?x8xi1>
// CHECK: %5 = vpu.select %c, %x, %one into %y : tensor<?x1xi1>, tensor<?x8xf32>, tensor<f32>, tensor<?x8xf32> -> tensor<?x8xf32>
// CHECK: %6 = vpu.cast %x into %i : tensor<?x8xf32>, tensor<?x8xi64> -> tensor<?x8xi64>
// GENERIC: "vpu.unary"(%x, %y) <{fn = #vpu<unary_fn gelu>}> : (tensor<?x8xf32>, tensor<?x8xf32>) -> tensor<?x8xf32>
// GENERIC: "vpu.binary"(%x, %b, %y) <{fn = #vpu<binary_fn add>}> : (tensor<?x8xf32>, tensor<8xf32>, tensor<?x8xf32>) -> tensor<?x8xf32>
// GENERIC: "vpu.select"(%c, %x, %one, %y) : (tensor<?x1xi1>, tensor<?x8xf32>, tensor<f32>, tensor<?x8xf32>) -> tensor<?x8xf32>
// GENERIC: "vpu.cast"(%x, %i) : (tensor<?x8xf32>, tensor<?x8xi64>) -> tensor<?x8xi64>

// In place on buffers: the init may be an operand.
func.func @buffers(%x: memref<?x8xf32>, %b: memref<8xf32>, %m: memref<?x8xi1>) {
  vpu.unary relu %x into %x : memref<?x8xf32>, memref<?x8xf32>
  vpu.binary mul %x, %b into %x {layer = "scale"} : memref<?x8xf32>, memref<8xf32>, memref<?x8xf32>
  vpu.select %m, %x, %b into %x : memref<?x8xi1>, memref<?x8xf32>, memref<8xf32>, memref<?x8xf32>
  vpu.cast %x into %m : memref<?x8xf32>, memref<?x8xi1>
  func.return
}
// CHECK-LABEL: @buffers
// CHECK: vpu.unary relu %x into %x : memref<?x8xf32>, memref<?x8xf32>
// CHECK: vpu.binary mul %x, %b into %x {layer = "scale"} : memref<?x8xf32>, memref<8xf32>, memref<?x8xf32>
// CHECK: vpu.select %m, %x, %b into %x : memref<?x8xi1>, memref<?x8xf32>, memref<8xf32>, memref<?x8xf32>
// CHECK: vpu.cast %x into %m : memref<?x8xf32>, memref<?x8xi1>
