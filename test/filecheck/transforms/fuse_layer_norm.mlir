// RUN: spu-opt %s -p fuse-layer-norm | filecheck %s

// As PyTorch exports it: Pow, Sqrt, Div, then scale and bias.
// CHECK-LABEL: func.func @affine(
// CHECK-NEXT: %g = "onnx.Constant"
// CHECK-NEXT: %b = "onnx.Constant"
// CHECK-NEXT: %y = "onnx.LayerNormalization"(%x, %g, %b) {axis = -1 : i64, epsilon = 1.000000e-05 : f32, onnx_node_name = "norm"} : (tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT: func.return %y
func.func @affine(%x: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %g = "onnx.Constant"() {value = dense<[1.0, 2.0, 3.0, 4.0]> : tensor<4xf32>} : () -> tensor<4xf32>
  %b = "onnx.Constant"() {value = dense<[0.0, 2.0, 3.0, 4.0]> : tensor<4xf32>} : () -> tensor<4xf32>
  %axes = "onnx.Constant"() {value = dense<-1> : tensor<1xi64>} : () -> tensor<1xi64>
  %two = "onnx.Constant"() {value = dense<2.0> : tensor<f32>} : () -> tensor<f32>
  %eps = "onnx.Constant"() {value = dense<1.0e-5> : tensor<f32>} : () -> tensor<f32>
  %m = "onnx.ReduceMean"(%x, %axes) : (tensor<?x4xf32>, tensor<1xi64>) -> tensor<?x1xf32>
  %d = "onnx.Sub"(%x, %m) : (tensor<?x4xf32>, tensor<?x1xf32>) -> tensor<?x4xf32>
  %s = "onnx.Pow"(%d, %two) : (tensor<?x4xf32>, tensor<f32>) -> tensor<?x4xf32>
  %v = "onnx.ReduceMean"(%s, %axes) : (tensor<?x4xf32>, tensor<1xi64>) -> tensor<?x1xf32>
  %e = "onnx.Add"(%v, %eps) : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
  %r = "onnx.Sqrt"(%e) : (tensor<?x1xf32>) -> tensor<?x1xf32>
  %n = "onnx.Div"(%d, %r) : (tensor<?x4xf32>, tensor<?x1xf32>) -> tensor<?x4xf32>
  %t = "onnx.Mul"(%n, %g) : (tensor<?x4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
  %y = "onnx.Add"(%b, %t) {onnx_node_name = "norm"} : (tensor<4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  func.return %y : tensor<?x4xf32>
}

// Mul for the square, Reciprocal for the quotient, two axes, and no scale.
// CHECK-LABEL: func.func @plain(
// CHECK-NEXT: [[ONES:%.*]] = "onnx.Constant"() {value = dense<1.000000e+00> : tensor<2x4xf32>}
// CHECK-NEXT: %n = "onnx.LayerNormalization"(%x, [[ONES]]) {axis = -2 : i64, epsilon = 1.000000e-05 : f32} : (tensor<?x2x4xf32>, tensor<2x4xf32>) -> tensor<?x2x4xf32>
// CHECK-NEXT: func.return %n
func.func @plain(%x: tensor<?x2x4xf32>) -> tensor<?x2x4xf32> {
  %axes = "onnx.Constant"() {value = dense<[1, 2]> : tensor<2xi64>} : () -> tensor<2xi64>
  %eps = "onnx.Constant"() {value = dense<1.0e-5> : tensor<f32>} : () -> tensor<f32>
  %m = "onnx.ReduceMean"(%x, %axes) : (tensor<?x2x4xf32>, tensor<2xi64>) -> tensor<?x1x1xf32>
  %d = "onnx.Sub"(%x, %m) : (tensor<?x2x4xf32>, tensor<?x1x1xf32>) -> tensor<?x2x4xf32>
  %s = "onnx.Mul"(%d, %d) : (tensor<?x2x4xf32>, tensor<?x2x4xf32>) -> tensor<?x2x4xf32>
  %v = "onnx.ReduceMean"(%s, %axes) : (tensor<?x2x4xf32>, tensor<2xi64>) -> tensor<?x1x1xf32>
  %e = "onnx.Add"(%eps, %v) : (tensor<f32>, tensor<?x1x1xf32>) -> tensor<?x1x1xf32>
  %r = "onnx.Sqrt"(%e) : (tensor<?x1x1xf32>) -> tensor<?x1x1xf32>
  %i = "onnx.Reciprocal"(%r) : (tensor<?x1x1xf32>) -> tensor<?x1x1xf32>
  %n = "onnx.Mul"(%i, %d) : (tensor<?x1x1xf32>, tensor<?x2x4xf32>) -> tensor<?x2x4xf32>
  func.return %n : tensor<?x2x4xf32>
}

// The mean of an axis that is not the last.
// CHECK-LABEL: func.func @first_axis(
// CHECK-NOT: onnx.LayerNormalization
func.func @first_axis(%x: tensor<4x2xf32>) -> tensor<4x2xf32> {
  %axes = "onnx.Constant"() {value = dense<0> : tensor<1xi64>} : () -> tensor<1xi64>
  %eps = "onnx.Constant"() {value = dense<1.0e-5> : tensor<f32>} : () -> tensor<f32>
  %m = "onnx.ReduceMean"(%x, %axes) : (tensor<4x2xf32>, tensor<1xi64>) -> tensor<1x2xf32>
  %d = "onnx.Sub"(%x, %m) : (tensor<4x2xf32>, tensor<1x2xf32>) -> tensor<4x2xf32>
  %s = "onnx.Mul"(%d, %d) : (tensor<4x2xf32>, tensor<4x2xf32>) -> tensor<4x2xf32>
  %v = "onnx.ReduceMean"(%s, %axes) : (tensor<4x2xf32>, tensor<1xi64>) -> tensor<1x2xf32>
  %e = "onnx.Add"(%v, %eps) : (tensor<1x2xf32>, tensor<f32>) -> tensor<1x2xf32>
  %r = "onnx.Sqrt"(%e) : (tensor<1x2xf32>) -> tensor<1x2xf32>
  %n = "onnx.Div"(%d, %r) : (tensor<4x2xf32>, tensor<1x2xf32>) -> tensor<4x2xf32>
  func.return %n : tensor<4x2xf32>
}

// A third power, and a mean that something else uses.
// CHECK-LABEL: func.func @others(
// CHECK-NOT: onnx.LayerNormalization
func.func @others(%x: tensor<2x4xf32>) -> (tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x1xf32>) {
  %axes = "onnx.Constant"() {value = dense<-1> : tensor<1xi64>} : () -> tensor<1xi64>
  %three = "onnx.Constant"() {value = dense<3.0> : tensor<f32>} : () -> tensor<f32>
  %eps = "onnx.Constant"() {value = dense<1.0e-5> : tensor<f32>} : () -> tensor<f32>
  %m = "onnx.ReduceMean"(%x, %axes) : (tensor<2x4xf32>, tensor<1xi64>) -> tensor<2x1xf32>
  %d = "onnx.Sub"(%x, %m) : (tensor<2x4xf32>, tensor<2x1xf32>) -> tensor<2x4xf32>
  %s = "onnx.Pow"(%d, %three) : (tensor<2x4xf32>, tensor<f32>) -> tensor<2x4xf32>
  %v = "onnx.ReduceMean"(%s, %axes) : (tensor<2x4xf32>, tensor<1xi64>) -> tensor<2x1xf32>
  %e = "onnx.Add"(%v, %eps) : (tensor<2x1xf32>, tensor<f32>) -> tensor<2x1xf32>
  %r = "onnx.Sqrt"(%e) : (tensor<2x1xf32>) -> tensor<2x1xf32>
  %n = "onnx.Div"(%d, %r) : (tensor<2x4xf32>, tensor<2x1xf32>) -> tensor<2x4xf32>
  %m1 = "onnx.ReduceMean"(%x, %axes) : (tensor<2x4xf32>, tensor<1xi64>) -> tensor<2x1xf32>
  %d1 = "onnx.Sub"(%x, %m1) : (tensor<2x4xf32>, tensor<2x1xf32>) -> tensor<2x4xf32>
  %s1 = "onnx.Mul"(%d1, %d1) : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  %v1 = "onnx.ReduceMean"(%s1, %axes) : (tensor<2x4xf32>, tensor<1xi64>) -> tensor<2x1xf32>
  %e1 = "onnx.Add"(%v1, %eps) : (tensor<2x1xf32>, tensor<f32>) -> tensor<2x1xf32>
  %r1 = "onnx.Sqrt"(%e1) : (tensor<2x1xf32>) -> tensor<2x1xf32>
  %n1 = "onnx.Div"(%d1, %r1) : (tensor<2x4xf32>, tensor<2x1xf32>) -> tensor<2x4xf32>
  func.return %n, %n1, %m1 : tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x1xf32>
}
