// RUN: spu-opt %s -p lower-onnx --split-input-file | filecheck %s

// A convolution is channels last between two transposes; an op without a name gets one.
// CHECK-LABEL: func.func @main
// CHECK-NEXT:    %0 = arith.constant 0 : index
// CHECK-NEXT:    %batch = tensor.dim %x, %0 : tensor<?x3x8x8xf32>
// CHECK-NEXT:    %1 = tensor.empty(%batch) : tensor<?x8x8x3xf32>
// CHECK-NEXT:    %2 = vpu.transpose %x into %1 {layer = "stem", perm = array<i64: 0, 2, 3, 1>} : tensor<?x3x8x8xf32>, tensor<?x8x8x3xf32> -> tensor<?x8x8x3xf32>
// CHECK-NEXT:    %3 = antoum.constant dense<1.000000e+00> : tensor<4x1x1x3xf32> : tensor<4x1x1x3xf32>
// CHECK-NEXT:    %4 = antoum.constant dense<[1.000000e+00, 2.000000e+00, 3.000000e+00, 4.000000e+00]> : tensor<4xf32> : tensor<4xf32>
// CHECK-NEXT:    %5 = tensor.empty(%batch) : tensor<?x8x8x4xf32>
// CHECK-NEXT:    %6 = spu.conv %2, %3 bias(%4 : tensor<4xf32>) into %5 {layer = "stem"} : tensor<?x8x8x3xf32>, tensor<4x1x1x3xf32>, tensor<?x8x8x4xf32> -> tensor<?x8x8x4xf32>
// CHECK-NEXT:    %7 = tensor.empty(%batch) : tensor<?x4x8x8xf32>
// CHECK-NEXT:    %y = vpu.transpose %6 into %7 {layer = "stem", perm = array<i64: 0, 3, 1, 2>} : tensor<?x8x8x4xf32>, tensor<?x4x8x8xf32> -> tensor<?x4x8x8xf32>
// CHECK-NEXT:    %8 = tensor.empty(%batch) : tensor<?x4x8x8xf32>
// CHECK-NEXT:    %z = vpu.unary relu %y into %8 {layer = "Relu_3"} : tensor<?x4x8x8xf32>, tensor<?x4x8x8xf32> -> tensor<?x4x8x8xf32>
// CHECK-NEXT:    func.return %z : tensor<?x4x8x8xf32>
func.func @main(%x : tensor<?x3x8x8xf32> {onnx.name = "x", onnx.dim_params = "0:batch"}) -> tensor<?x4x8x8xf32> attributes {spu.extents = {batch = [1, 4]}} {
  %w = "onnx.Constant"() {value = dense<1.0> : tensor<4x3x1x1xf32>} : () -> tensor<4x3x1x1xf32>
  %b = "onnx.Constant"() {value = dense<[1.0, 2.0, 3.0, 4.0]> : tensor<4xf32>} : () -> tensor<4xf32>
  %y = "onnx.Conv"(%x, %w, %b) {onnx_node_name = "stem"} : (tensor<?x3x8x8xf32>, tensor<4x3x1x1xf32>, tensor<4xf32>) -> tensor<?x4x8x8xf32>
  %z = "onnx.Relu"(%y) : (tensor<?x4x8x8xf32>) -> tensor<?x4x8x8xf32>
  func.return %z : tensor<?x4x8x8xf32>
}

// -----

// Dims with one name are one value, and computed dims are products of them.
// CHECK-LABEL: func.func @main
// CHECK-NEXT:    %0 = arith.constant 0 : index
// CHECK-NEXT:    %batch = tensor.dim %x, %0 : tensor<?x?x8xf32>
// CHECK-NEXT:    %1 = arith.constant 1 : index
// CHECK-NEXT:    %seq = tensor.dim %x, %1 : tensor<?x?x8xf32>
// CHECK-NEXT:    %2 = tensor.empty(%batch, %seq) : tensor<?x?x1xf32>
// CHECK-NEXT:    %u = vpu.reshape %m into %2 {layer = "Unsqueeze_2"} : tensor<?x?xf32>, tensor<?x?x1xf32> -> tensor<?x?x1xf32>
// CHECK-NEXT:    %3 = tensor.empty(%batch, %seq) : tensor<?x?x8xf32>
// CHECK-NEXT:    %s = vpu.binary add %x, %u into %3 {layer = "Add_3"} : tensor<?x?x8xf32>, tensor<?x?x1xf32>, tensor<?x?x8xf32> -> tensor<?x?x8xf32>
// CHECK-NEXT:    %4 = arith.muli %batch, %seq : index
// CHECK-NEXT:    %5 = tensor.empty(%4) : tensor<?x4x2xf32>
// CHECK-NEXT:    %y = vpu.reshape %s into %5 {layer = "Reshape_4"} : tensor<?x?x8xf32>, tensor<?x4x2xf32> -> tensor<?x4x2xf32>
// CHECK-NEXT:    func.return %y : tensor<?x4x2xf32>
func.func @main(%x : tensor<?x?x8xf32> {onnx.name = "x", onnx.dim_params = "0:batch,1:seq"}, %m : tensor<?x?xf32> {onnx.name = "m", onnx.dim_params = "0:batch,1:seq"}) -> tensor<?x4x2xf32> {
  %shape = "onnx.Constant"() {value = dense<[-1, 4, 2]> : tensor<3xi64>} : () -> tensor<3xi64>
  %one = "onnx.Constant"() {value = dense<[2]> : tensor<1xi64>} : () -> tensor<1xi64>
  %u = "onnx.Unsqueeze"(%m, %one) : (tensor<?x?xf32>, tensor<1xi64>) -> tensor<?x?x1xf32>
  %s = "onnx.Add"(%x, %u) : (tensor<?x?x8xf32>, tensor<?x?x1xf32>) -> tensor<?x?x8xf32>
  %y = "onnx.Reshape"(%s, %shape) : (tensor<?x?x8xf32>, tensor<3xi64>) -> tensor<?x4x2xf32>
  func.return %y : tensor<?x4x2xf32>
}

// -----

// A weight keeps its integers, relative to their zero point, its rows first.
// CHECK-LABEL: func.func @main
// CHECK-NEXT:    %0 = antoum.constant dense<5.000000e-01> : tensor<f32> : tensor<f32>
// CHECK-NEXT:    %1 = antoum.constant dense<7> : tensor<ui8> : tensor<ui8>
// CHECK-NEXT:    %2 = tensor.empty() : tensor<2x4xf32>
// CHECK-NEXT:    %d = vpu.dequantise %x scale(%0 : tensor<f32>) zero(%1 : tensor<ui8>) into %2 {layer = "DequantizeLinear_2"} : tensor<2x4xui8>, tensor<2x4xf32> -> tensor<2x4xf32>
// CHECK-NEXT:    %3 = antoum.constant dense<{{\[\[}}0, 2, -128, -126], [1, 3, -127, -125]]> : tensor<2x4xi8> : tensor<2x4xi8>
// CHECK-NEXT:    %4 = antoum.constant dense<[2.500000e-01, 5.000000e-01]> : tensor<2xf32> : tensor<2xf32>
// CHECK-NEXT:    %5 = tensor.empty() : tensor<2x4xf32>
// CHECK-NEXT:    %6 = vpu.dequantise %3 scale(%4 : tensor<2xf32>) into %5 {layer = "dense", axis = 0 : i64} : tensor<2x4xi8>, tensor<2x4xf32> -> tensor<2x4xf32>
// CHECK-NEXT:    %7 = tensor.empty() : tensor<2x2xf32>
// CHECK-NEXT:    %y = spu.matmul %d, %6 into %7 {layer = "dense"} : tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x2xf32> -> tensor<2x2xf32>
// CHECK-NEXT:    func.return %y : tensor<2x2xf32>
func.func @main(%x : tensor<2x4xui8> {onnx.name = "x"}) -> tensor<2x2xf32> {
  %s = "onnx.Constant"() {value = dense<0.5> : tensor<f32>} : () -> tensor<f32>
  %z = "onnx.Constant"() {value = dense<7> : tensor<ui8>} : () -> tensor<ui8>
  %d = "onnx.DequantizeLinear"(%x, %s, %z) : (tensor<2x4xui8>, tensor<f32>, tensor<ui8>) -> tensor<2x4xf32>
  %w = "onnx.Constant"() {value = dense<[[128, 129], [130, 131], [0, 1], [2, 3]]> : tensor<4x2xui8>} : () -> tensor<4x2xui8>
  %ws = "onnx.Constant"() {value = dense<[0.25, 0.5]> : tensor<2xf32>} : () -> tensor<2xf32>
  %wz = "onnx.Constant"() {value = dense<128> : tensor<2xui8>} : () -> tensor<2xui8>
  %dw = "onnx.DequantizeLinear"(%w, %ws, %wz) : (tensor<4x2xui8>, tensor<2xf32>, tensor<2xui8>) -> tensor<4x2xf32>
  %y = "onnx.MatMul"(%d, %dw) {onnx_node_name = "dense"} : (tensor<2x4xf32>, tensor<4x2xf32>) -> tensor<2x2xf32>
  func.return %y : tensor<2x2xf32>
}

// -----

// A bool mask is added to the scores.
// CHECK-LABEL: func.func @main
// CHECK-NEXT:    %0 = antoum.constant dense<0.000000e+00> : tensor<f32> : tensor<f32>
// CHECK-NEXT:    %1 = antoum.constant #spu.weights<"sha256:d9265d7acb11b75517ee713afcd928260e65557829bab071f03d67ee93edb8ea", tensor<f32>> : tensor<f32>
// CHECK-NEXT:    %2 = tensor.empty() : tensor<3x5xf32>
// CHECK-NEXT:    %3 = vpu.select %m, %0, %1 into %2 {layer = "att"} : tensor<3x5xi1>, tensor<f32>, tensor<f32>, tensor<3x5xf32> -> tensor<3x5xf32>
// CHECK-NEXT:    %4 = tensor.empty() : tensor<1x1x3x5xf32>
// CHECK-NEXT:    %5 = vpu.reshape %3 into %4 {layer = "att"} : tensor<3x5xf32>, tensor<1x1x3x5xf32> -> tensor<1x1x3x5xf32>
// CHECK-NEXT:    %6 = tensor.empty() : tensor<2x3x8xf32>
// CHECK-NEXT:    %y = spu.attention %q, %k, %v mask(%5 : tensor<1x1x3x5xf32>) into %6 {layer = "att", heads = 2 : i64, kv_heads = 2 : i64, scale = 5.000000e-01 : f32} : tensor<2x3x8xf32>, tensor<2x5x8xf32>, tensor<2x5x8xf32>, tensor<2x3x8xf32> -> tensor<2x3x8xf32>
// CHECK-NEXT:    func.return %y : tensor<2x3x8xf32>
func.func @main(%q : tensor<2x3x8xf32>, %k : tensor<2x5x8xf32>, %v : tensor<2x5x8xf32>, %m : tensor<3x5xi1>) -> tensor<2x3x8xf32> {
  %y = "onnx.Attention"(%q, %k, %v, %m) {q_num_heads = 2 : i64, kv_num_heads = 2 : i64, onnx_node_name = "att"} : (tensor<2x3x8xf32>, tensor<2x5x8xf32>, tensor<2x5x8xf32>, tensor<3x5xi1>) -> tensor<2x3x8xf32>
  func.return %y : tensor<2x3x8xf32>
}
