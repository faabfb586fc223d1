// RUN: spu-opt %s -p fold-constants | filecheck %s
// RUN: spu-opt %s -p 'fold-constants{limit=8}' | filecheck %s --check-prefix=SMALL

// CHECK: func.func @main(
// CHECK-NEXT: %b = "onnx.Constant"() {value = dense<5.000000e+00> : tensor<f32>}
// CHECK-NEXT: %neg = "onnx.Constant"() {value = dense<[0.000000e+00, 5.000000e+00, 1.000000e+01, 1.500000e+01]> : tensor<4xf32>, onnx_node_name = "bias"}
// CHECK-NEXT: %w = "onnx.Constant"() {value = dense<3> : tensor<2x4xi8>}
// CHECK-NEXT: %wf = "onnx.DequantizeLinear"(%w, %b)
// CHECK-NEXT: %batch = "onnx.Shape"(%x) {start = 0 : i64, end = 1 : i64} : (tensor<?x8xf32>) -> tensor<1xi64>
// CHECK-NEXT: %two = "onnx.Constant"() {value = dense<2> : tensor<1xi64>}
// CHECK-NEXT: %half = "onnx.Constant"() {value = dense<4> : tensor<1xi64>}
// CHECK-NEXT: %cut = "onnx.Concat"(%batch, %two, %half)
// CHECK-NEXT: %r = "onnx.Reshape"(%x, %cut) {onnx.dim_params = ["0:batch"]} : (tensor<?x8xf32>, tensor<3xi64>) -> tensor<?x2x4xf32>
// CHECK-NEXT: %random = "onnx.RandomNormal"()
// CHECK-NEXT: %zeros = "onnx.Constant"() {value = #spu.weights<"sha256:{{[0-9a-f]*}}", tensor<8x4xf32>>}
// CHECK-NEXT: %dz = "onnx.Add"(%q, %zeros)
// CHECK-NEXT: %xm = "onnx.MatMul"(%x, %dz)
// CHECK-NEXT: %y = "onnx.Add"(%xm, %neg)
// CHECK-NEXT: %z = "onnx.Mul"(%r, %wf) {onnx.dim_params = ["0:batch"]} : (tensor<?x2x4xf32>, tensor<2x4xf32>) -> tensor<?x2x4xf32>
// CHECK-NEXT: func.return
// SMALL: %zeros = "onnx.ConstantOfShape"(%shape)
func.func @main(%x: tensor<?x8xf32> {onnx.dim_params = "0:batch"}, %q: tensor<8x4xf32>) -> (tensor<?x4xf32>, tensor<*xf32>, tensor<8x4xf32>, tensor<4x8xf32>) attributes {spu.extents = {batch = [1, 64]}} {
  // Two ops on constants become one constant; the folded weight keeps the name of its node.
  %a = "onnx.Constant"() {value = dense<[1.0, 2.0, 3.0, 4.0]> : tensor<4xf32>} : () -> tensor<4xf32>
  %b = "onnx.Constant"() {value = dense<5.0> : tensor<f32>} : () -> tensor<f32>
  %ab = "onnx.Mul"(%a, %b) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
  %bias = "onnx.Identity"(%ab) : (tensor<4xf32>) -> tensor<4xf32>
  %sum = "onnx.Add"(%bias, %a) {onnx_node_name = "unused"} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %neg = "onnx.Sub"(%ab, %b) {onnx_node_name = "bias"} : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>

  // A quantised weight stays quantised.
  %w = "onnx.Constant"() {value = dense<3> : tensor<2x4xi8>} : () -> tensor<2x4xi8>
  %wf = "onnx.DequantizeLinear"(%w, %b) : (tensor<2x4xi8>, tensor<f32>) -> tensor<2x4xf32>

  // A static dim is a constant although the batch is not, and an extent stays one.
  %dims = "onnx.Shape"(%x) : (tensor<?x8xf32>) -> tensor<2xi64>
  %batch = "onnx.Shape"(%x) {start = 0 : i64, end = 1 : i64} : (tensor<?x8xf32>) -> tensor<1xi64>
  %one = "onnx.Constant"() {value = dense<1> : tensor<1xi64>} : () -> tensor<1xi64>
  %two = "onnx.Constant"() {value = dense<2> : tensor<1xi64>} : () -> tensor<1xi64>
  %width = "onnx.Gather"(%dims, %one) : (tensor<2xi64>, tensor<1xi64>) -> tensor<1xi64>
  %half = "onnx.Div"(%width, %two) : (tensor<1xi64>, tensor<1xi64>) -> tensor<1xi64>
  %cut = "onnx.Concat"(%batch, %two, %half) {axis = 0 : i64} : (tensor<1xi64>, tensor<1xi64>, tensor<1xi64>) -> tensor<3xi64>
  %r = "onnx.Reshape"(%x, %cut) : (tensor<?x8xf32>, tensor<3xi64>) -> tensor<?x?x?xf32>

  // Nothing random is folded, and dropout in inference does nothing.
  %random = "onnx.RandomNormal"() {shape = array<i64: 4, 8>} : () -> tensor<4x8xf32>
  %d, %mask = "onnx.Dropout"(%q) : (tensor<8x4xf32>) -> (tensor<8x4xf32>, tensor<8x4xi1>)

  // A result larger than the limit is left; more than its operands it would add.
  %shape = "onnx.Constant"() {value = dense<[8, 4]> : tensor<2xi64>} : () -> tensor<2xi64>
  %zeros = "onnx.ConstantOfShape"(%shape) {value = dense<0.0> : tensor<1xf32>} : (tensor<2xi64>) -> tensor<8x4xf32>
  %dz = "onnx.Add"(%d, %zeros) : (tensor<8x4xf32>, tensor<8x4xf32>) -> tensor<8x4xf32>

  %xm = "onnx.MatMul"(%x, %dz) : (tensor<?x8xf32>, tensor<8x4xf32>) -> tensor<?x4xf32>
  %y = "onnx.Add"(%xm, %neg) : (tensor<?x4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
  %z = "onnx.Mul"(%r, %wf) : (tensor<?x?x?xf32>, tensor<2x4xf32>) -> tensor<*xf32>
  func.return %y, %z, %dz, %random : tensor<?x4xf32>, tensor<*xf32>, tensor<8x4xf32>, tensor<4x8xf32>
}
