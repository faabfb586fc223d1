// RUN: spu-opt %s -p upgrade-opset | filecheck %s

// CHECK: builtin.module attributes {onnx.opset = {{[0-9]+}} : i64}

// Only the accepted types of these have changed.
// CHECK-LABEL: func.func @renamed(
// CHECK-NEXT: "onnx.Add"(%x, %x) {onnx_node_name = "sum"} : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
// CHECK-NEXT: "onnx.Relu"(
// CHECK-NEXT: func.return
func.func @renamed(%x: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %0 = "onnx.AddV7"(%x, %x) {onnx_node_name = "sum"} : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  %1 = "onnx.ReluV6"(%0) : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return %1 : tensor<2x3xf32>
}

// Attributes that became operands.
// CHECK-LABEL: func.func @operands(
// CHECK-NEXT: [[AXES:%.*]] = "onnx.Constant"() {value = dense<1> : tensor<1xi64>
// CHECK-NEXT: "onnx.ReduceMean"(%x, [[AXES]]) {keepdims = 1 : i64, onnx_node_name = "mean"} : (tensor<2x3xf32>, tensor<1xi64>) -> tensor<2x1xf32>
// CHECK: "onnx.Clip"(%{{.*}}, %{{.*}}, %{{.*}}) : (tensor<2x1xf32>, tensor<f32>, tensor<f32>) -> tensor<2x1xf32>
func.func @operands(%x: tensor<2x3xf32>) -> tensor<2x1xf32> {
  %0 = "onnx.ReduceMeanV11"(%x) {axes = array<i64: 1>, keepdims = 1 : i64, onnx_node_name = "mean"} : (tensor<2x3xf32>) -> tensor<2x1xf32>
  %1 = "onnx.ClipV6"(%0) {min = 0.0 : f32, max = 6.0 : f32} : (tensor<2x1xf32>) -> tensor<2x1xf32>
  func.return %1 : tensor<2x1xf32>
}

// Softmax over all axes from 1 on: one of them is wider than 1, so it is the axis.
// CHECK-LABEL: func.func @softmax_of_one_axis(
// CHECK-NEXT: "onnx.Softmax"(%x) {axis = 1 : i64, onnx_node_name = "s"} : (tensor<2x10x1x1xf32>) -> tensor<2x10x1x1xf32>
func.func @softmax_of_one_axis(%x: tensor<2x10x1x1xf32>) -> tensor<2x10x1x1xf32> {
  %0 = "onnx.SoftmaxV1"(%x) {onnx_node_name = "s"} : (tensor<2x10x1x1xf32>) -> tensor<2x10x1x1xf32>
  func.return %0 : tensor<2x10x1x1xf32>
}

// CHECK-LABEL: func.func @softmax_of_two_axes(
// CHECK-NEXT: [[DIMS:%.*]] = "onnx.Shape"(%x) : (tensor<?x3x4xf32>) -> tensor<3xi64>
// CHECK-NEXT: [[FLAT:%.*]] = "onnx.Flatten"(%x) {axis = 1 : i64} : (tensor<?x3x4xf32>) -> tensor<?x12xf32>
// CHECK-NEXT: [[ROWS:%.*]] = "onnx.Hardmax"([[FLAT]]) {axis = 1 : i64} : (tensor<?x12xf32>) -> tensor<?x12xf32>
// CHECK-NEXT: "onnx.Reshape"([[ROWS]], [[DIMS]]) : (tensor<?x12xf32>, tensor<3xi64>) -> tensor<?x3x4xf32>
func.func @softmax_of_two_axes(%x: tensor<?x3x4xf32>) -> tensor<?x3x4xf32> {
  %0 = "onnx.HardmaxV11"(%x) {axis = 1 : i64} : (tensor<?x3x4xf32>) -> tensor<?x3x4xf32>
  func.return %0 : tensor<?x3x4xf32>
}

// CHECK-LABEL: func.func @upsample(
// CHECK-NEXT: [[SCALES:%.*]] = "onnx.Constant"
// CHECK-NEXT: [[NONE:%.*]] = "onnx.NoValue"
// CHECK-NEXT: "onnx.Resize"(%x, [[NONE]], [[SCALES]]) {mode = "linear", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"}
func.func @upsample(%x: tensor<1x1x2x2xf32>) -> tensor<1x1x4x4xf32> {
  %scales = "onnx.Constant"() {value = dense<[1.0, 1.0, 2.0, 2.0]> : tensor<4xf32>} : () -> tensor<4xf32>
  %0 = "onnx.UpsampleV9"(%x, %scales) {mode = "linear"} : (tensor<1x1x2x2xf32>, tensor<4xf32>) -> tensor<1x1x4x4xf32>
  func.return %0 : tensor<1x1x4x4xf32>
}

// Subgraphs are raised too.
// CHECK-LABEL: func.func @branches(
// CHECK-NEXT: "onnx.If"(%c) ({
// CHECK-NEXT:   "onnx.Sigmoid"(%x)
// CHECK-NEXT:   "onnx.Yield"
// CHECK-NEXT: }, {
// CHECK-NEXT:   "onnx.Relu"(%x)
func.func @branches(%c: tensor<i1>, %x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = "onnx.IfV11"(%c) ({
    %1 = "onnx.SigmoidV6"(%x) : (tensor<4xf32>) -> tensor<4xf32>
    "onnx.Yield"(%1) : (tensor<4xf32>) -> ()
  }, {
    %1 = "onnx.ReluV6"(%x) : (tensor<4xf32>) -> tensor<4xf32>
    "onnx.Yield"(%1) : (tensor<4xf32>) -> ()
  }) : (tensor<i1>) -> tensor<4xf32>
  func.return %0 : tensor<4xf32>
}
