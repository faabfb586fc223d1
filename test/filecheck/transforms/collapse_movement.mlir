// RUN: spu-opt %s -p collapse-movement | filecheck %s

// Batch and heads are merged for a product and taken apart again.
// CHECK-LABEL: func.func @heads(
// CHECK-NEXT: [[S:%.*]] = "onnx.Constant"() {value = dense<[4, 0, 3, 2]> : tensor<4xi64>}
// CHECK-NEXT: [[R:%.*]] = "onnx.Reshape"(%x, [[S]]) {onnx_node_name = "r", onnx.dim_params = ["1:batch"]} : (tensor<4x?x6xf32>, tensor<4xi64>) -> tensor<4x?x3x2xf32>
// CHECK-NEXT: [[Y:%.*]] = "onnx.Transpose"([[R]]) {perm = array<i64: 1, 2, 0, 3>, onnx_node_name = "r", onnx.dim_params = ["0:batch"]} : (tensor<4x?x3x2xf32>) -> tensor<?x3x4x2xf32>
// CHECK-NEXT: func.return [[Y]]
func.func @heads(%x: tensor<4x?x6xf32> {onnx.dim_params = "1:batch"}) -> tensor<?x3x4x2xf32> {
  %cut = "onnx.Constant"() {value = dense<[4, -1, 2]> : tensor<3xi64>} : () -> tensor<3xi64>
  %apart = "onnx.Constant"() {value = dense<[-1, 3, 4, 2]> : tensor<4xi64>} : () -> tensor<4xi64>
  %a = "onnx.Reshape"(%x, %cut) : (tensor<4x?x6xf32>, tensor<3xi64>) -> tensor<4x?x2xf32>
  %b = "onnx.Transpose"(%a) {perm = array<i64: 1, 0, 2>} : (tensor<4x?x2xf32>) -> tensor<?x4x2xf32>
  %y = "onnx.Reshape"(%b, %apart) {onnx_node_name = "r", onnx.dim_params = ["0:batch"]} : (tensor<?x4x2xf32>, tensor<4xi64>) -> tensor<?x3x4x2xf32>
  func.return %y : tensor<?x3x4x2xf32>
}

// There and back again.
// CHECK-LABEL: func.func @nothing(
// CHECK-NEXT: func.return %x
func.func @nothing(%x: tensor<2x8xf32>) -> tensor<2x8xf32> {
  %a = "onnx.Transpose"(%x) {perm = array<i64: 1, 0>} : (tensor<2x8xf32>) -> tensor<8x2xf32>
  %y = "onnx.Transpose"(%a) {perm = array<i64: 1, 0>} : (tensor<8x2xf32>) -> tensor<2x8xf32>
  func.return %y : tensor<2x8xf32>
}

// What has no elements stays: a Reshape takes 0 for an axis that it keeps.
// CHECK-LABEL: func.func @empty(
// CHECK: [[A:%.*]] = "onnx.Transpose"(%x)
// CHECK: [[Y:%.*]] = "onnx.Reshape"([[A]]
// CHECK-NEXT: func.return [[Y]]
func.func @empty(%x: tensor<5x0xf32>) -> tensor<5x0xf32> {
  %shape = "onnx.Constant"() {value = dense<[5, 0]> : tensor<2xi64>} : () -> tensor<2xi64>
  %a = "onnx.Transpose"(%x) {perm = array<i64: 1, 0>} : (tensor<5x0xf32>) -> tensor<0x5xf32>
  %y = "onnx.Reshape"(%a, %shape) {allowzero = 1 : i64} : (tensor<0x5xf32>, tensor<2xi64>) -> tensor<5x0xf32>
  func.return %y : tensor<5x0xf32>
}
