// RUN: spu-opt %s -p fold-batch-norm | filecheck %s

// f = 2 / sqrt(3 + 1) = 1 and 4 / sqrt(3 + 1) = 2; w' = w f, b' = (b - mean) f + bias.
// CHECK-LABEL: func.func @conv(
// CHECK-NEXT: [[W:%.*]] = "onnx.Constant"() {value = dense<{{\[\[\[\[}}1.000000e+00{{\]\]\], \[\[\[}}4.000000e+00{{\]\]\]\]}}> : tensor<2x1x1x1xf32>, onnx_node_name = "w"}
// CHECK-NEXT: [[B:%.*]] = "onnx.Constant"() {value = dense<[9.500000e+00, 3.900000e+01]> : tensor<2xf32>}
// CHECK-NEXT: %y = "onnx.Conv"(%x, [[W]], [[B]]) {kernel_shape = array<i64: 1, 1>, onnx_node_name = "c"} : (tensor<?x1x4x4xf32>, tensor<2x1x1x1xf32>, tensor<2xf32>) -> tensor<?x2x4x4xf32>
// CHECK-NEXT: func.return %y
func.func @conv(%x: tensor<?x1x4x4xf32>) -> tensor<?x2x4x4xf32> {
  %w = "onnx.Constant"() {value = dense<[[[[1.0]]], [[[2.0]]]]> : tensor<2x1x1x1xf32>, onnx_node_name = "w"} : () -> tensor<2x1x1x1xf32>
  %none = "onnx.NoValue"() : () -> none
  %scale = "onnx.Constant"() {value = dense<[2.0, 4.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %shift = "onnx.Constant"() {value = dense<[10.0, 40.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %mean = "onnx.Constant"() {value = dense<0.5> : tensor<2xf32>} : () -> tensor<2xf32>
  %var = "onnx.Constant"() {value = dense<3.0> : tensor<2xf32>} : () -> tensor<2xf32>
  %c = "onnx.Conv"(%x, %w, %none) {kernel_shape = array<i64: 1, 1>, onnx_node_name = "c"} : (tensor<?x1x4x4xf32>, tensor<2x1x1x1xf32>, none) -> tensor<?x2x4x4xf32>
  %y = "onnx.BatchNormalization"(%c, %scale, %shift, %mean, %var) {epsilon = 1.0 : f32} : (tensor<?x2x4x4xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<?x2x4x4xf32>
  func.return %y : tensor<?x2x4x4xf32>
}

// Gemm: columns are channels, and beta goes into the bias.
// CHECK-LABEL: func.func @gemm(
// CHECK-NEXT: [[W:%.*]] = "onnx.Constant"() {value = dense<{{\[\[}}1.000000e+00, 4.000000e+00]]> : tensor<1x2xf32>}
// CHECK-NEXT: [[B:%.*]] = "onnx.Constant"() {value = dense<[1.150000e+01, 4.300000e+01]> : tensor<2xf32>}
// CHECK-NEXT: %y = "onnx.Gemm"(%x, [[W]], [[B]]) {alpha = 3.000000e+00 : f32} : (tensor<?x1xf32>, tensor<1x2xf32>, tensor<2xf32>) -> tensor<?x2xf32>
func.func @gemm(%x: tensor<?x1xf32>) -> tensor<?x2xf32> {
  %w = "onnx.Constant"() {value = dense<[[1.0, 2.0]]> : tensor<1x2xf32>} : () -> tensor<1x2xf32>
  %b = "onnx.Constant"() {value = dense<1.0> : tensor<1x2xf32>} : () -> tensor<1x2xf32>
  %scale = "onnx.Constant"() {value = dense<[2.0, 4.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %shift = "onnx.Constant"() {value = dense<[10.0, 40.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %mean = "onnx.Constant"() {value = dense<0.5> : tensor<2xf32>} : () -> tensor<2xf32>
  %var = "onnx.Constant"() {value = dense<3.0> : tensor<2xf32>} : () -> tensor<2xf32>
  %c = "onnx.Gemm"(%x, %w, %b) {alpha = 3.0 : f32, beta = 2.0 : f32} : (tensor<?x1xf32>, tensor<1x2xf32>, tensor<1x2xf32>) -> tensor<?x2xf32>
  %y = "onnx.BatchNormalization"(%c, %scale, %shift, %mean, %var) {epsilon = 1.0 : f32} : (tensor<?x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<?x2xf32>
  func.return %y : tensor<?x2xf32>
}

// The product without normalisation is used too.
// CHECK-LABEL: func.func @used_product(
// CHECK: "onnx.BatchNormalization"(
func.func @used_product(%x: tensor<1x1x4x4xf32>) -> (tensor<1x1x4x4xf32>, tensor<1x1x4x4xf32>) {
  %w = "onnx.Constant"() {value = dense<1.0> : tensor<1x1x1x1xf32>} : () -> tensor<1x1x1x1xf32>
  %one = "onnx.Constant"() {value = dense<1.0> : tensor<1xf32>} : () -> tensor<1xf32>
  %c = "onnx.Conv"(%x, %w) : (tensor<1x1x4x4xf32>, tensor<1x1x1x1xf32>) -> tensor<1x1x4x4xf32>
  %y = "onnx.BatchNormalization"(%c, %one, %one, %one, %one) : (tensor<1x1x4x4xf32>, tensor<1xf32>, tensor<1xf32>, tensor<1xf32>, tensor<1xf32>) -> tensor<1x1x4x4xf32>
  func.return %y, %c : tensor<1x1x4x4xf32>, tensor<1x1x4x4xf32>
}

// The statistics are inputs.
// CHECK-LABEL: func.func @run_time_statistics(
// CHECK: "onnx.BatchNormalization"(
func.func @run_time_statistics(%x: tensor<1x1x4x4xf32>, %one: tensor<1xf32>) -> tensor<1x1x4x4xf32> {
  %w = "onnx.Constant"() {value = dense<1.0> : tensor<1x1x1x1xf32>} : () -> tensor<1x1x1x1xf32>
  %c = "onnx.Conv"(%x, %w) : (tensor<1x1x4x4xf32>, tensor<1x1x1x1xf32>) -> tensor<1x1x4x4xf32>
  %y = "onnx.BatchNormalization"(%c, %one, %one, %one, %one) : (tensor<1x1x4x4xf32>, tensor<1xf32>, tensor<1xf32>, tensor<1xf32>, tensor<1xf32>) -> tensor<1x1x4x4xf32>
  func.return %y : tensor<1x1x4x4xf32>
}
