// RUN: spu-opt %s -p fuse-attention | filecheck %s

// Heads by zeros in the shapes, K transposed at once, a quotient, and a mask.
// CHECK-LABEL: func.func @masked(
// CHECK-NEXT: %y = "onnx.Attention"(%q, %k, %v, %mask) {q_num_heads = 2 : i64, kv_num_heads = 2 : i64, onnx_node_name = "scores"} : (tensor<?x?x8xf32>, tensor<?x?x8xf32>, tensor<?x?x8xf32>, tensor<?x1x1x?xf32>) -> tensor<?x?x8xf32>
// CHECK-NEXT: func.return %y
func.func @masked(%q: tensor<?x?x8xf32>, %k: tensor<?x?x8xf32>, %v: tensor<?x?x8xf32>, %mask: tensor<?x1x1x?xf32>) -> tensor<?x?x8xf32> {
  %cut = "onnx.Constant"() {value = dense<[0, 0, 2, 4]> : tensor<4xi64>} : () -> tensor<4xi64>
  %join = "onnx.Constant"() {value = dense<[0, 0, 8]> : tensor<3xi64>} : () -> tensor<3xi64>
  %two = "onnx.Constant"() {value = dense<2.0> : tensor<f32>} : () -> tensor<f32>
  %q0 = "onnx.Reshape"(%q, %cut) : (tensor<?x?x8xf32>, tensor<4xi64>) -> tensor<?x?x2x4xf32>
  %q1 = "onnx.Transpose"(%q0) {perm = array<i64: 0, 2, 1, 3>} : (tensor<?x?x2x4xf32>) -> tensor<?x2x?x4xf32>
  %k0 = "onnx.Reshape"(%k, %cut) : (tensor<?x?x8xf32>, tensor<4xi64>) -> tensor<?x?x2x4xf32>
  %k1 = "onnx.Transpose"(%k0) {perm = array<i64: 0, 2, 3, 1>} : (tensor<?x?x2x4xf32>) -> tensor<?x2x4x?xf32>
  %v0 = "onnx.Reshape"(%v, %cut) : (tensor<?x?x8xf32>, tensor<4xi64>) -> tensor<?x?x2x4xf32>
  %v1 = "onnx.Transpose"(%v0) {perm = array<i64: 0, 2, 1, 3>} : (tensor<?x?x2x4xf32>) -> tensor<?x2x?x4xf32>
  %s0 = "onnx.MatMul"(%q1, %k1) {onnx_node_name = "scores"} : (tensor<?x2x?x4xf32>, tensor<?x2x4x?xf32>) -> tensor<?x2x?x?xf32>
  %s1 = "onnx.Div"(%s0, %two) : (tensor<?x2x?x?xf32>, tensor<f32>) -> tensor<?x2x?x?xf32>
  %s2 = "onnx.Add"(%s1, %mask) : (tensor<?x2x?x?xf32>, tensor<?x1x1x?xf32>) -> tensor<?x2x?x?xf32>
  %p = "onnx.Softmax"(%s2) {axis = -1 : i64} : (tensor<?x2x?x?xf32>) -> tensor<?x2x?x?xf32>
  %m = "onnx.MatMul"(%p, %v1) : (tensor<?x2x?x?xf32>, tensor<?x2x?x4xf32>) -> tensor<?x2x?x4xf32>
  %t = "onnx.Transpose"(%m) {perm = array<i64: 0, 2, 1, 3>} : (tensor<?x2x?x4xf32>) -> tensor<?x?x2x4xf32>
  %y = "onnx.Reshape"(%t, %join) : (tensor<?x?x2x4xf32>, tensor<3xi64>) -> tensor<?x?x8xf32>
  func.return %y : tensor<?x?x8xf32>
}

// Static sizes, the scale on Q and K, K transposed twice, PyTorch's guard, no mask.
// CHECK-LABEL: func.func @scaled_operands(
// CHECK-NEXT: %y = "onnx.Attention"(%x, %x, %x) {q_num_heads = 2 : i64, kv_num_heads = 2 : i64, scale = 2.500000e-01 : f32} : (tensor<1x3x8xf32>, tensor<1x3x8xf32>, tensor<1x3x8xf32>) -> tensor<1x3x8xf32>
// CHECK-NEXT: func.return %y
func.func @scaled_operands(%x: tensor<1x3x8xf32>) -> tensor<1x3x8xf32> {
  %cut = "onnx.Constant"() {value = dense<[1, 3, 2, 4]> : tensor<4xi64>} : () -> tensor<4xi64>
  %join = "onnx.Constant"() {value = dense<[1, 3, 8]> : tensor<3xi64>} : () -> tensor<3xi64>
  %half = "onnx.Constant"() {value = dense<0.5> : tensor<f32>} : () -> tensor<f32>
  %zero = "onnx.Constant"() {value = dense<0.0> : tensor<f32>} : () -> tensor<f32>
  %q0 = "onnx.Reshape"(%x, %cut) : (tensor<1x3x8xf32>, tensor<4xi64>) -> tensor<1x3x2x4xf32>
  %q1 = "onnx.Transpose"(%q0) {perm = array<i64: 0, 2, 1, 3>} : (tensor<1x3x2x4xf32>) -> tensor<1x2x3x4xf32>
  %q2 = "onnx.Mul"(%q1, %half) : (tensor<1x2x3x4xf32>, tensor<f32>) -> tensor<1x2x3x4xf32>
  %k0 = "onnx.Reshape"(%x, %cut) : (tensor<1x3x8xf32>, tensor<4xi64>) -> tensor<1x3x2x4xf32>
  %k1 = "onnx.Transpose"(%k0) {perm = array<i64: 0, 2, 1, 3>} : (tensor<1x3x2x4xf32>) -> tensor<1x2x3x4xf32>
  %k2 = "onnx.Transpose"(%k1) {perm = array<i64: 0, 1, 3, 2>} : (tensor<1x2x3x4xf32>) -> tensor<1x2x4x3xf32>
  %k3 = "onnx.Mul"(%k2, %half) : (tensor<1x2x4x3xf32>, tensor<f32>) -> tensor<1x2x4x3xf32>
  %v0 = "onnx.Reshape"(%x, %cut) : (tensor<1x3x8xf32>, tensor<4xi64>) -> tensor<1x3x2x4xf32>
  %v1 = "onnx.Transpose"(%v0) {perm = array<i64: 0, 2, 1, 3>} : (tensor<1x3x2x4xf32>) -> tensor<1x2x3x4xf32>
  %s = "onnx.MatMul"(%q2, %k3) : (tensor<1x2x3x4xf32>, tensor<1x2x4x3xf32>) -> tensor<1x2x3x3xf32>
  %p = "onnx.Softmax"(%s) {axis = 3 : i64} : (tensor<1x2x3x3xf32>) -> tensor<1x2x3x3xf32>
  %nan = "onnx.IsNaN"(%p) : (tensor<1x2x3x3xf32>) -> tensor<1x2x3x3xi1>
  %g = "onnx.Where"(%nan, %zero, %p) : (tensor<1x2x3x3xi1>, tensor<f32>, tensor<1x2x3x3xf32>) -> tensor<1x2x3x3xf32>
  %m = "onnx.MatMul"(%g, %v1) : (tensor<1x2x3x3xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
  %t = "onnx.Transpose"(%m) {perm = array<i64: 0, 2, 1, 3>} : (tensor<1x2x3x4xf32>) -> tensor<1x3x2x4xf32>
  %y = "onnx.Reshape"(%t, %join) : (tensor<1x3x2x4xf32>, tensor<3xi64>) -> tensor<1x3x8xf32>
  func.return %y : tensor<1x3x8xf32>
}

// The softmax is over the queries.
// CHECK-LABEL: func.func @wrong_axis(
// CHECK-NOT: onnx.Attention
func.func @wrong_axis(%x: tensor<1x3x8xf32>) -> tensor<1x3x8xf32> {
  %cut = "onnx.Constant"() {value = dense<[1, 3, 2, 4]> : tensor<4xi64>} : () -> tensor<4xi64>
  %join = "onnx.Constant"() {value = dense<[1, 3, 8]> : tensor<3xi64>} : () -> tensor<3xi64>
  %q0 = "onnx.Reshape"(%x, %cut) : (tensor<1x3x8xf32>, tensor<4xi64>) -> tensor<1x3x2x4xf32>
  %q1 = "onnx.Transpose"(%q0) {perm = array<i64: 0, 2, 1, 3>} : (tensor<1x3x2x4xf32>) -> tensor<1x2x3x4xf32>
  %k1 = "onnx.Transpose"(%q0) {perm = array<i64: 0, 2, 3, 1>} : (tensor<1x3x2x4xf32>) -> tensor<1x2x4x3xf32>
  %s = "onnx.MatMul"(%q1, %k1) : (tensor<1x2x3x4xf32>, tensor<1x2x4x3xf32>) -> tensor<1x2x3x3xf32>
  %p = "onnx.Softmax"(%s) {axis = 2 : i64} : (tensor<1x2x3x3xf32>) -> tensor<1x2x3x3xf32>
  %m = "onnx.MatMul"(%p, %q1) : (tensor<1x2x3x3xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
  %t = "onnx.Transpose"(%m) {perm = array<i64: 0, 2, 1, 3>} : (tensor<1x2x3x4xf32>) -> tensor<1x3x2x4xf32>
  %y = "onnx.Reshape"(%t, %join) : (tensor<1x3x2x4xf32>, tensor<3xi64>) -> tensor<1x3x8xf32>
  func.return %y : tensor<1x3x8xf32>
}

// Something else uses the weights of the softmax.
// CHECK-LABEL: func.func @used_weights(
// CHECK-NOT: onnx.Attention
func.func @used_weights(%x: tensor<1x3x8xf32>) -> (tensor<1x3x8xf32>, tensor<1x2x3x3xf32>) {
  %cut = "onnx.Constant"() {value = dense<[1, 3, 2, 4]> : tensor<4xi64>} : () -> tensor<4xi64>
  %join = "onnx.Constant"() {value = dense<[1, 3, 8]> : tensor<3xi64>} : () -> tensor<3xi64>
  %q0 = "onnx.Reshape"(%x, %cut) : (tensor<1x3x8xf32>, tensor<4xi64>) -> tensor<1x3x2x4xf32>
  %q1 = "onnx.Transpose"(%q0) {perm = array<i64: 0, 2, 1, 3>} : (tensor<1x3x2x4xf32>) -> tensor<1x2x3x4xf32>
  %k1 = "onnx.Transpose"(%q0) {perm = array<i64: 0, 2, 3, 1>} : (tensor<1x3x2x4xf32>) -> tensor<1x2x4x3xf32>
  %s = "onnx.MatMul"(%q1, %k1) : (tensor<1x2x3x4xf32>, tensor<1x2x4x3xf32>) -> tensor<1x2x3x3xf32>
  %p = "onnx.Softmax"(%s) {axis = 3 : i64} : (tensor<1x2x3x3xf32>) -> tensor<1x2x3x3xf32>
  %m = "onnx.MatMul"(%p, %q1) : (tensor<1x2x3x3xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
  %t = "onnx.Transpose"(%m) {perm = array<i64: 0, 2, 1, 3>} : (tensor<1x2x3x4xf32>) -> tensor<1x3x2x4xf32>
  %y = "onnx.Reshape"(%t, %join) : (tensor<1x3x2x4xf32>, tensor<3xi64>) -> tensor<1x3x8xf32>
  func.return %y, %p : tensor<1x3x8xf32>, tensor<1x2x3x3xf32>
}
