// RUN: spu-opt %s -p expand-quantised --split-input-file | filecheck %s

// CHECK-LABEL: func.func @matmul_integer
// CHECK:         [[A:%.+]] = "onnx.DequantizeLinear"(%a, {{%.+}}, %z) {onnx_node_name = "m"} : (tensor<?x8xui8>, tensor<f32>, tensor<ui8>) -> tensor<?x8xf32>
// CHECK:         [[B:%.+]] = "onnx.DequantizeLinear"(%b, {{%.+}}) {onnx_node_name = "m"} : (tensor<8x4xi8>, tensor<f32>) -> tensor<8x4xf32>
// CHECK:         [[M:%.+]] = "onnx.MatMul"([[A]], [[B]]) {onnx_node_name = "m"}
// CHECK:         [[Y:%.+]] = "onnx.Cast"([[M]]) {to = 6 : i64, onnx_node_name = "m"} : (tensor<?x4xf32>) -> tensor<?x4xi32>
// CHECK:         func.return [[Y]]
func.func @matmul_integer(%a : tensor<?x8xui8>, %b : tensor<8x4xi8>, %z : tensor<ui8>) -> tensor<?x4xi32> {
  %y = "onnx.MatMulInteger"(%a, %b, %z) {onnx_node_name = "m"} : (tensor<?x8xui8>, tensor<8x4xi8>, tensor<ui8>) -> tensor<?x4xi32>
  func.return %y : tensor<?x4xi32>
}

// -----

// The weight's channels are its first axis, and the bias has the scale of the sum.
// CHECK-LABEL: func.func @qlinear_conv
// CHECK:         [[X:%.+]] = "onnx.DequantizeLinear"(%x, %s, %z)
// CHECK:         [[W:%.+]] = "onnx.DequantizeLinear"(%w, %ws, %wz) {axis = 0 : i64}
// CHECK:         [[S:%.+]] = "onnx.Mul"(%s, %ws)
// CHECK:         [[B:%.+]] = "onnx.DequantizeLinear"(%b, [[S]]) {axis = 0 : i64}
// CHECK:         [[Y:%.+]] = "onnx.Conv"([[X]], [[W]], [[B]]) {pads = array<i64: 1, 1, 1, 1>}
// CHECK:         "onnx.QuantizeLinear"([[Y]], %s, %z) {{.*}} -> tensor<1x5x6x6xui8>
func.func @qlinear_conv(%x : tensor<1x4x6x6xui8>, %s : tensor<f32>, %z : tensor<ui8>, %w : tensor<5x4x3x3xi8>, %ws : tensor<5xf32>, %wz : tensor<5xi8>, %b : tensor<5xi32>) -> tensor<1x5x6x6xui8> {
  %y = "onnx.QLinearConv"(%x, %s, %z, %w, %ws, %wz, %s, %z, %b) {pads = array<i64: 1, 1, 1, 1>} : (tensor<1x4x6x6xui8>, tensor<f32>, tensor<ui8>, tensor<5x4x3x3xi8>, tensor<5xf32>, tensor<5xi8>, tensor<f32>, tensor<ui8>, tensor<5xi32>) -> tensor<1x5x6x6xui8>
  func.return %y : tensor<1x5x6x6xui8>
}
