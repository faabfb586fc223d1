// RUN: not spu-opt %s -p lower-onnx 2>&1 | filecheck %s

// CHECK: error: node 'minor' (Det): no lowering; docs/onnx-support.md lists the operators that have one
func.func @main(%x : tensor<2x2xf32>) -> tensor<f32> {
  %y = "onnx.Det"(%x) {onnx_node_name = "minor"} : (tensor<2x2xf32>) -> tensor<f32>
  func.return %y : tensor<f32>
}
