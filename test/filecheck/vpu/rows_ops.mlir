// RUN: spu-opt %s | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | filecheck %s --check-prefix=GENERIC

// Reductions, softmax, normalisation and pooling.

func.func @tensors(%x: tensor<?x6x8xf32>, %y: tensor<?x6x8xf32>, %kept: tensor<?x1x8xf32>, %dropped: tensor<?x8xf32>, %g: tensor<8xf32>, %b: tensor<8xf32>, %image: tensor<?x7x7x16xui8>, %pooled: tensor<?x4x4x16xui8>, %real: tensor<?x7x7x16xf32>, %mean: tensor<?x1x1x16xf32>) {
  %0 = vpu.reduce mean %x into %kept {axes = array<i64: 1>} : tensor<?x6x8xf32>, tensor<?x1x8xf32> -> tensor<?x1x8xf32>
  %1 = vpu.reduce l2 %x into %dropped {axes = array<i64: 1>} : tensor<?x6x8xf32>, tensor<?x8xf32> -> tensor<?x8xf32>
  %2 = vpu.softmax %x into %y : tensor<?x6x8xf32>, tensor<?x6x8xf32> -> tensor<?x6x8xf32>
  %3 = vpu.softmax %x into %y {log = true} : tensor<?x6x8xf32>, tensor<?x6x8xf32> -> tensor<?x6x8xf32>
  %4 = vpu.layer_norm %x, %g beta(%b : tensor<8xf32>) into %y {epsilon = 0.5 : f32} : tensor<?x6x8xf32>, tensor<8xf32>, tensor<?x6x8xf32> -> tensor<?x6x8xf32>
  %5 = vpu.layer_norm %x, %g into %y {epsilon = 0.5 : f32, centre = false} : tensor<?x6x8xf32>, tensor<8xf32>, tensor<?x6x8xf32> -> tensor<?x6x8xf32>
  %6 = vpu.pool max %image into %pooled {kernel = array<i64: 3, 3>, strides = array<i64: 2, 2>, pads = array<i64: 1, 1>, dilations = array<i64: 1, 1>} : tensor<?x7x7x16xui8>, tensor<?x4x4x16xui8> -> tensor<?x4x4x16xui8>
  %7 = vpu.pool avg_padded %real into %mean {kernel = array<i64: 7, 7>, strides = array<i64: 1, 1>, pads = array<i64: 0, 0>, dilations = array<i64: 1, 1>} : tensor<?x7x7x16xf32>, tensor<?x1x1x16xf32> -> tensor<?x1x1x16xf32>
  func.return
}
// CHECK-LABEL: @tensors
// CHECK: %0 = vpu.reduce mean %x into %kept {axes = array<i64: 1>} : tensor<?x6x8xf32>, tensor<?x1x8xf32> -> tensor<?x1x8xf32>
// CHECK: %1 = vpu.reduce l2 %x into %dropped {axes = array<i64: 1>} : tensor<?x6x8xf32>, tensor<?x8xf32> -> tensor<?x8xf32>
// CHECK: %2 = vpu.softmax %x into %y : tensor<?x6x8xf32>, tensor<?x6x8xf32> -> tensor<?x6x8xf32>
// CHECK: %3 = vpu.softmax %x into %y {log = true} : tensor<?x6x8xf32>, tensor<?x6x8xf32> -> tensor<?x6x8xf32>
// CHECK: %4 = vpu.layer_norm %x, %g beta(%b : tensor<8xf32>) into %y {epsilon = 5.000000e-01 : f32} : tensor<?x6x8xf32>, tensor<8xf32>, tensor<?x6x8xf32> -> tensor<?x6x8xf32>
// CHECK: %5 = vpu.layer_norm %x, %g into %y {epsilon = 5.000000e-01 : f32, centre = false} : tensor<?x6x8xf32>, tensor<8xf32>, tensor<?x6x8xf32> -> tensor<?x6x8xf32>
// CHECK: %6 = vpu.pool max %image into %pooled {kernel = array<i64: 3, 3>, strides = array<i64: 2, 2>, pads = array<i64: 1, 1>, dilations = array<i64: 1, 1>} : tensor<?x7x7x16xui8>, tensor<?x4x4x16xui8> -> tensor<?x4x4x16xui8>
// CHECK: %7 = vpu.pool avg_padded %real into %mean
// GENERIC: "vpu.reduce"(%x, %kept) <{fn = #vpu<reduce_fn mean>, axes = array<i64: 1>}> : (tensor<?x6x8xf32>, tensor<?x1x8xf32>) -> tensor<?x1x8xf32>
// GENERIC: "vpu.softmax"(%x, %y) <{log = false}> : (tensor<?x6x8xf32>, tensor<?x6x8xf32>) -> tensor<?x6x8xf32>
// GENERIC: "vpu.layer_norm"(%x, %g, %b, %y) <{epsilon = 5.000000e-01 : f32, centre = true}>
// GENERIC: "vpu.pool"(%image, %pooled) <{fn = #vpu<pool_fn max>, kernel = array<i64: 3, 3>

func.func @buffers(%x: memref<4x8xf32>, %y: memref<4xf32>, %g: memref<8xf32>, %image: memref<1x8x8x4xf32>, %pooled: memref<1x4x4x4xf32>) {
  vpu.reduce max %x into %y {axes = array<i64: 1>} : memref<4x8xf32>, memref<4xf32>
  vpu.softmax %x into %x : memref<4x8xf32>, memref<4x8xf32>
  vpu.layer_norm %x, %g into %x {epsilon = 1.0 : f32} : memref<4x8xf32>, memref<8xf32>, memref<4x8xf32>
  vpu.pool avg %image into %pooled {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, pads = array<i64: 0, 0>, dilations = array<i64: 1, 1>} : memref<1x8x8x4xf32>, memref<1x4x4x4xf32>
  func.return
}
// CHECK-LABEL: @buffers
// CHECK: vpu.reduce max %x into %y {axes = array<i64: 1>} : memref<4x8xf32>, memref<4xf32>
// CHECK: vpu.softmax %x into %x : memref<4x8xf32>, memref<4x8xf32>
// CHECK: vpu.layer_norm %x, %g into %x {epsilon = 1.000000e+00 : f32} : memref<4x8xf32>, memref<8xf32>, memref<4x8xf32>
// CHECK: vpu.pool avg %image into %pooled {
