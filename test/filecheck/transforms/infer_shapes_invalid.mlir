// RUN: not spu-opt %s -p infer-shapes 2>&1 | filecheck %s

// CHECK: error: shape inference failed: {{.*}}(op_type:Add, node name: sum): {{.*}}Incompatible dimensions
func.func @main(%x: tensor<4x8xf32>, %y: tensor<4x3xf32>) -> tensor<*xf32> {
  %0 = "onnx.Add"(%x, %y) {onnx_node_name = "sum"} : (tensor<4x8xf32>, tensor<4x3xf32>) -> tensor<*xf32>
  func.return %0 : tensor<*xf32>
}
