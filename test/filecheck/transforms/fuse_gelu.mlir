// RUN: spu-opt %s -p fuse-gelu | filecheck %s

// CHECK-LABEL: func.func @erf(
// CHECK-NEXT: %y = "onnx.Gelu"(%x) {approximate = "none", onnx_node_name = "gelu"} : (tensor<?x4xf32>) -> tensor<?x4xf32>
// CHECK-NEXT: func.return %y
func.func @erf(%x: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %root = "onnx.Constant"() {value = dense<1.41421354> : tensor<f32>} : () -> tensor<f32>
  %one = "onnx.Constant"() {value = dense<1.0> : tensor<f32>} : () -> tensor<f32>
  %half = "onnx.Constant"() {value = dense<0.5> : tensor<f32>} : () -> tensor<f32>
  %d = "onnx.Div"(%x, %root) : (tensor<?x4xf32>, tensor<f32>) -> tensor<?x4xf32>
  %e = "onnx.Erf"(%d) : (tensor<?x4xf32>) -> tensor<?x4xf32>
  %a = "onnx.Add"(%e, %one) : (tensor<?x4xf32>, tensor<f32>) -> tensor<?x4xf32>
  %m = "onnx.Mul"(%x, %a) : (tensor<?x4xf32>, tensor<?x4xf32>) -> tensor<?x4xf32>
  %y = "onnx.Mul"(%m, %half) {onnx_node_name = "gelu"} : (tensor<?x4xf32>, tensor<f32>) -> tensor<?x4xf32>
  func.return %y : tensor<?x4xf32>
}

// The half goes to x first, and x is a sum itself.
// CHECK-LABEL: func.func @erf_of_sum(
// CHECK-NEXT: %x = "onnx.Add"(%p, %p)
// CHECK-NEXT: %y = "onnx.Gelu"(%x) {approximate = "none"}
// CHECK-NEXT: func.return %y
func.func @erf_of_sum(%p: tensor<4xf32>) -> tensor<4xf32> {
  %root = "onnx.Constant"() {value = dense<0.707106769> : tensor<1xf32>} : () -> tensor<1xf32>
  %one = "onnx.Constant"() {value = dense<1.0> : tensor<1xf32>} : () -> tensor<1xf32>
  %half = "onnx.Constant"() {value = dense<0.5> : tensor<1xf32>} : () -> tensor<1xf32>
  %x = "onnx.Add"(%p, %p) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %d = "onnx.Mul"(%root, %x) : (tensor<1xf32>, tensor<4xf32>) -> tensor<4xf32>
  %e = "onnx.Erf"(%d) : (tensor<4xf32>) -> tensor<4xf32>
  %a = "onnx.Add"(%one, %e) : (tensor<1xf32>, tensor<4xf32>) -> tensor<4xf32>
  %h = "onnx.Mul"(%half, %x) : (tensor<1xf32>, tensor<4xf32>) -> tensor<4xf32>
  %y = "onnx.Mul"(%h, %a) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  func.return %y : tensor<4xf32>
}

// 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))
// CHECK-LABEL: func.func @tanh(
// CHECK-NEXT: %y = "onnx.Gelu"(%x) {approximate = "tanh"}
// CHECK-NEXT: func.return %y
func.func @tanh(%x: tensor<4xf32>) -> tensor<4xf32> {
  %three = "onnx.Constant"() {value = dense<3.0> : tensor<f32>} : () -> tensor<f32>
  %c = "onnx.Constant"() {value = dense<0.044715> : tensor<f32>} : () -> tensor<f32>
  %root = "onnx.Constant"() {value = dense<0.797884583> : tensor<f32>} : () -> tensor<f32>
  %one = "onnx.Constant"() {value = dense<1.0> : tensor<f32>} : () -> tensor<f32>
  %half = "onnx.Constant"() {value = dense<0.5> : tensor<f32>} : () -> tensor<f32>
  %p = "onnx.Pow"(%x, %three) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
  %q = "onnx.Mul"(%p, %c) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
  %s = "onnx.Add"(%x, %q) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %u = "onnx.Mul"(%s, %root) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
  %t = "onnx.Tanh"(%u) : (tensor<4xf32>) -> tensor<4xf32>
  %a = "onnx.Add"(%t, %one) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
  %h = "onnx.Mul"(%a, %half) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
  %y = "onnx.Mul"(%x, %h) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  func.return %y : tensor<4xf32>
}

// x * sqrt(2 / pi) * (1 + 0.044715 * x * x), with products in place of the power.
// CHECK-LABEL: func.func @tanh_of_products(
// CHECK-NEXT: %y = "onnx.Gelu"(%x) {approximate = "tanh"}
func.func @tanh_of_products(%x: tensor<4xf32>) -> tensor<4xf32> {
  %c = "onnx.Constant"() {value = dense<0.044715> : tensor<f32>} : () -> tensor<f32>
  %root = "onnx.Constant"() {value = dense<0.7978845608> : tensor<f32>} : () -> tensor<f32>
  %one = "onnx.Constant"() {value = dense<1.0> : tensor<f32>} : () -> tensor<f32>
  %half = "onnx.Constant"() {value = dense<0.5> : tensor<f32>} : () -> tensor<f32>
  %xr = "onnx.Mul"(%x, %root) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
  %xc = "onnx.Mul"(%x, %c) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
  %xx = "onnx.Mul"(%xc, %x) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %s = "onnx.Add"(%xx, %one) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
  %u = "onnx.Mul"(%xr, %s) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %t = "onnx.Tanh"(%u) : (tensor<4xf32>) -> tensor<4xf32>
  %a = "onnx.Add"(%t, %one) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
  %h = "onnx.Mul"(%x, %half) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
  %y = "onnx.Mul"(%h, %a) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  func.return %y : tensor<4xf32>
}

// Another divisor than the root of two, and an erf that something else uses.
// CHECK-LABEL: func.func @others(
// CHECK-NOT: onnx.Gelu
func.func @others(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) {
  %wrong = "onnx.Constant"() {value = dense<1.5> : tensor<f32>} : () -> tensor<f32>
  %root = "onnx.Constant"() {value = dense<1.41421354> : tensor<f32>} : () -> tensor<f32>
  %one = "onnx.Constant"() {value = dense<1.0> : tensor<f32>} : () -> tensor<f32>
  %half = "onnx.Constant"() {value = dense<0.5> : tensor<f32>} : () -> tensor<f32>
  %h = "onnx.Mul"(%x, %half) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
  %d0 = "onnx.Div"(%x, %wrong) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
  %e0 = "onnx.Erf"(%d0) : (tensor<4xf32>) -> tensor<4xf32>
  %a0 = "onnx.Add"(%e0, %one) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
  %y0 = "onnx.Mul"(%h, %a0) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %d1 = "onnx.Div"(%x, %root) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
  %e1 = "onnx.Erf"(%d1) : (tensor<4xf32>) -> tensor<4xf32>
  %a1 = "onnx.Add"(%e1, %one) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
  %h1 = "onnx.Mul"(%x, %half) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
  %y1 = "onnx.Mul"(%h1, %a1) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  func.return %y0, %y1, %e1 : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>
}
