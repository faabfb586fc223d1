// RUN: spu-opt %s -p unflatten-products | filecheck %s

// The weight is turned; heads and depth are joined.
// CHECK-LABEL: func.func @gemm(
// CHECK: [[R:%.*]] = "onnx.Reshape"(%x, {{%.*}}) {onnx_node_name = "f", onnx.dim_params = ["1:batch"]} : (tensor<4x?x1x2xf32>, tensor<3xi64>) -> tensor<4x?x2xf32>
// CHECK-NEXT: [[W:%.*]] = "onnx.Constant"() {value = dense<{{\[\[}}1.000000e+00], [2.000000e+00]]> : tensor<2x1xf32>, onnx_node_name = "w"}
// CHECK-NEXT: [[M:%.*]] = "onnx.MatMul"([[R]], [[W]]) {onnx_node_name = "g", onnx.dim_params = ["1:batch"]} : (tensor<4x?x2xf32>, tensor<2x1xf32>) -> tensor<4x?x1xf32>
// CHECK-NEXT: [[Y:%.*]] = "onnx.Add"([[M]], {{%.*}}) {onnx_node_name = "g", onnx.dim_params = ["1:batch"]}
// CHECK-NEXT: func.return [[Y]]
func.func @gemm(%x: tensor<4x?x1x2xf32> {onnx.dim_params = "1:batch"}) -> tensor<4x?x1xf32> {
  %flat = "onnx.Constant"() {value = dense<[-1, 2]> : tensor<2xi64>} : () -> tensor<2xi64>
  %back = "onnx.Constant"() {value = dense<[4, -1, 1]> : tensor<3xi64>} : () -> tensor<3xi64>
  %w = "onnx.Constant"() {value = dense<[[1.0, 2.0]]> : tensor<1x2xf32>, onnx_node_name = "w"} : () -> tensor<1x2xf32>
  %b = "onnx.Constant"() {value = dense<[3.0]> : tensor<1xf32>} : () -> tensor<1xf32>
  %f = "onnx.Reshape"(%x, %flat) {onnx_node_name = "f"} : (tensor<4x?x1x2xf32>, tensor<2xi64>) -> tensor<?x2xf32>
  %g = "onnx.Gemm"(%f, %w, %b) {transB = 1 : i64, onnx_node_name = "g"} : (tensor<?x2xf32>, tensor<1x2xf32>, tensor<1xf32>) -> tensor<?x1xf32>
  %y = "onnx.Reshape"(%g, %back) : (tensor<?x1xf32>, tensor<3xi64>) -> tensor<4x?x1xf32>
  func.return %y : tensor<4x?x1xf32>
}

// alpha is no part of a MatMul.
// CHECK-LABEL: func.func @scaled(
// CHECK: "onnx.Gemm"
func.func @scaled(%x: tensor<4x3x2xf32>) -> tensor<4x3x1xf32> {
  %flat = "onnx.Constant"() {value = dense<[-1, 2]> : tensor<2xi64>} : () -> tensor<2xi64>
  %back = "onnx.Constant"() {value = dense<[4, -1, 1]> : tensor<3xi64>} : () -> tensor<3xi64>
  %w = "onnx.Constant"() {value = dense<[[1.0, 2.0]]> : tensor<1x2xf32>} : () -> tensor<1x2xf32>
  %none = "onnx.NoValue"() : () -> none
  %f = "onnx.Reshape"(%x, %flat) : (tensor<4x3x2xf32>, tensor<2xi64>) -> tensor<12x2xf32>
  %g = "onnx.Gemm"(%f, %w, %none) {transB = 1 : i64, alpha = 0.5 : f32} : (tensor<12x2xf32>, tensor<1x2xf32>, none) -> tensor<12x1xf32>
  %y = "onnx.Reshape"(%g, %back) : (tensor<12x1xf32>, tensor<3xi64>) -> tensor<4x3x1xf32>
  func.return %y : tensor<4x3x1xf32>
}
