// RUN: spu-opt %s | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | spu-opt | filecheck %s

// CHECK-LABEL: func.func @convolution(
// CHECK-NEXT: %none = "onnx.NoValue"() : () -> none
// CHECK-NEXT: %y = "onnx.Conv"(%x, %w, %none) {kernel_shape = array<i64: 3, 3>, onnx_node_name = "c"} : (tensor<?x3x8x8xf32>, tensor<4x3x3x3xf32>, none) -> tensor<?x4x6x6xf32>
func.func @convolution(%x: tensor<?x3x8x8xf32>, %w: tensor<4x3x3x3xf32>) -> tensor<?x4x6x6xf32> {
  %none = "onnx.NoValue"() : () -> none
  %y = "onnx.Conv"(%x, %w, %none) {kernel_shape = array<i64: 3, 3>, onnx_node_name = "c"} : (tensor<?x3x8x8xf32>, tensor<4x3x3x3xf32>, none) -> tensor<?x4x6x6xf32>
  func.return %y : tensor<?x4x6x6xf32>
}

// An older version keeps its number, and onnx-mlir's spelling of lists is accepted.
// CHECK-LABEL: func.func @versions(
// CHECK-NEXT: "onnx.SoftmaxV11"(%x) {axis = 1 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>
// CHECK-NEXT: "onnx.Softmax"(%{{.*}}) {axis = -1 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>
// CHECK-NEXT: "onnx.SqueezeV11"(%{{.*}}) {axes = [0 : i64]} : (tensor<2x3xf32>) -> tensor<*xf32>
func.func @versions(%x: tensor<2x3xf32>) {
  %0 = "onnx.SoftmaxV11"(%x) {axis = 1 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %1 = "onnx.Softmax"(%0) {axis = -1 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %2 = "onnx.SqueezeV11"(%1) {axes = [0]} : (tensor<2x3xf32>) -> tensor<*xf32>
  func.return
}

// CHECK-LABEL: func.func @constants(
// CHECK-NEXT: "onnx.Constant"() {value = dense<[1, 2]> : tensor<2xi64>} : () -> tensor<2xi64>
// CHECK-NEXT: "onnx.Constant"() {value = #spu.weights<"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", tensor<64x64xf32>>} : () -> tensor<64x64xf32>
// CHECK-NEXT: "onnx.LeakyRelu"(%{{.*}}) {alpha = 2.000000e-01 : f32} : (tensor<64x64xf32>) -> tensor<64x64xf32>
func.func @constants() {
  %0 = "onnx.Constant"() {value = dense<[1, 2]> : tensor<2xi64>} : () -> tensor<2xi64>
  %1 = "onnx.Constant"() {value = #spu.weights<"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", tensor<64x64xf32>>} : () -> tensor<64x64xf32>
  %2 = "onnx.LeakyRelu"(%1) {alpha = 0.2 : f32} : (tensor<64x64xf32>) -> tensor<64x64xf32>
  func.return
}

// A branch may use values of the graph around it.
// CHECK-LABEL: func.func @subgraphs(
// CHECK-NEXT: %{{.*}} = "onnx.If"(%c) ({
// CHECK-NEXT:   "onnx.Relu"(%x)
// CHECK-NEXT:   "onnx.Yield"(%{{.*}}) : (tensor<4xf32>) -> ()
// CHECK-NEXT: }, {
// CHECK-NEXT:   "onnx.Yield"(%x) : (tensor<4xf32>) -> ()
// CHECK-NEXT: }) : (tensor<i1>) -> tensor<4xf32>
func.func @subgraphs(%c: tensor<i1>, %x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = "onnx.If"(%c) ({
    %1 = "onnx.Relu"(%x) : (tensor<4xf32>) -> tensor<4xf32>
    "onnx.Yield"(%1) : (tensor<4xf32>) -> ()
  }, {
    "onnx.Yield"(%x) : (tensor<4xf32>) -> ()
  }) : (tensor<i1>) -> tensor<4xf32>
  func.return %0 : tensor<4xf32>
}

// CHECK-LABEL: func.func @sequences(
// CHECK-NEXT: "onnx.SequenceConstruct"(%x, %x) : (tensor<4xf32>, tensor<4xf32>) -> !onnx.Seq<tensor<4xf32>>
// CHECK-NEXT: "onnx.Optional"(%x) : (tensor<4xf32>) -> !onnx.Opt<tensor<4xf32>>
func.func @sequences(%x: tensor<4xf32>) {
  %0 = "onnx.SequenceConstruct"(%x, %x) : (tensor<4xf32>, tensor<4xf32>) -> !onnx.Seq<tensor<4xf32>>
  %1 = "onnx.Optional"(%x) : (tensor<4xf32>) -> !onnx.Opt<tensor<4xf32>>
  func.return
}
