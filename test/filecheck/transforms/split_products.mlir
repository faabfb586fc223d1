// RUN: spu-opt %s -p split-products | filecheck %s

// A gated linear unit over the channels of a convolution.
// CHECK-LABEL: func.func @gate(
// CHECK-NEXT: [[W0:%.*]] = "onnx.Constant"() {value = dense<1.000000e+00> : tensor<1x1x1xf32>, onnx_node_name = "w[0:1]"}
// CHECK-NEXT: [[B0:%.*]] = "onnx.Constant"() {value = dense<3.000000e+00> : tensor<1xf32>}
// CHECK-NEXT: [[A:%.*]] = "onnx.Conv"(%x, [[W0]], [[B0]]) {onnx_node_name = "c[0:1]"} : (tensor<?x1x4xf32>, tensor<1x1x1xf32>, tensor<1xf32>) -> tensor<?x1x4xf32>
// CHECK-NEXT: [[W1:%.*]] = "onnx.Constant"() {value = dense<2.000000e+00> : tensor<1x1x1xf32>, onnx_node_name = "w[1:2]"}
// CHECK-NEXT: [[B1:%.*]] = "onnx.Constant"() {value = dense<4.000000e+00> : tensor<1xf32>}
// CHECK-NEXT: [[G:%.*]] = "onnx.Conv"(%x, [[W1]], [[B1]]) {onnx_node_name = "c[1:2]"}
// CHECK-NEXT: [[S:%.*]] = "onnx.Sigmoid"([[G]])
// CHECK-NEXT: %y = "onnx.Mul"([[A]], [[S]])
// CHECK-NEXT: func.return %y
func.func @gate(%x: tensor<?x1x4xf32>) -> tensor<?x1x4xf32> {
  %w = "onnx.Constant"() {value = dense<[[[1.0]], [[2.0]]]> : tensor<2x1x1xf32>, onnx_node_name = "w"} : () -> tensor<2x1x1xf32>
  %b = "onnx.Constant"() {value = dense<[3.0, 4.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %none = "onnx.NoValue"() : () -> none
  %c = "onnx.Conv"(%x, %w, %b) {onnx_node_name = "c"} : (tensor<?x1x4xf32>, tensor<2x1x1xf32>, tensor<2xf32>) -> tensor<?x2x4xf32>
  %a, %g = "onnx.Split"(%c, %none) {axis = 1 : i64, num_outputs = 2 : i64} : (tensor<?x2x4xf32>, none) -> (tensor<?x1x4xf32>, tensor<?x1x4xf32>)
  %s = "onnx.Sigmoid"(%g) : (tensor<?x1x4xf32>) -> tensor<?x1x4xf32>
  %y = "onnx.Mul"(%a, %s) : (tensor<?x1x4xf32>, tensor<?x1x4xf32>) -> tensor<?x1x4xf32>
  func.return %y : tensor<?x1x4xf32>
}

// Two projections in one product, taken by their index.
// CHECK-LABEL: func.func @packed(
// CHECK: [[Q:%.*]] = "onnx.MatMul"(%x, {{%.*}}) {onnx_node_name = "m[0:2]"} : (tensor<3x1xf32>, tensor<1x2xf32>) -> tensor<3x2xf32>
// CHECK: [[K:%.*]] = "onnx.MatMul"(%x, {{%.*}}) {onnx_node_name = "m[2:4]"} : (tensor<3x1xf32>, tensor<1x2xf32>) -> tensor<3x2xf32>
// CHECK-NEXT: func.return [[Q]], [[K]]
func.func @packed(%x: tensor<3x1xf32>) -> (tensor<3x2xf32>, tensor<3x2xf32>) {
  %w = "onnx.Constant"() {value = dense<[[1.0, 2.0, 3.0, 4.0]]> : tensor<1x4xf32>} : () -> tensor<1x4xf32>
  %cut = "onnx.Constant"() {value = dense<[3, 2, 2]> : tensor<3xi64>} : () -> tensor<3xi64>
  %zero = "onnx.Constant"() {value = dense<0> : tensor<i64>} : () -> tensor<i64>
  %one = "onnx.Constant"() {value = dense<1> : tensor<i64>} : () -> tensor<i64>
  %m = "onnx.MatMul"(%x, %w) {onnx_node_name = "m"} : (tensor<3x1xf32>, tensor<1x4xf32>) -> tensor<3x4xf32>
  %c = "onnx.Reshape"(%m, %cut) : (tensor<3x4xf32>, tensor<3xi64>) -> tensor<3x2x2xf32>
  %t = "onnx.Transpose"(%c) {perm = array<i64: 1, 0, 2>} : (tensor<3x2x2xf32>) -> tensor<2x3x2xf32>
  %q = "onnx.Gather"(%t, %zero) {axis = 0 : i64} : (tensor<2x3x2xf32>, tensor<i64>) -> tensor<3x2xf32>
  %k = "onnx.Gather"(%t, %one) {axis = 0 : i64} : (tensor<2x3x2xf32>, tensor<i64>) -> tensor<3x2xf32>
  func.return %q, %k : tensor<3x2xf32>, tensor<3x2xf32>
}
