// RUN: spu-opt %s -p run-samples-apart | filecheck %s

// An image is 10 x 10 x 4 and needs no other; it has more bytes than the weights.
// CHECK-LABEL: func.func @images(
// CHECK-SAME: attributes {spu.extents = {batch = [1 : i64, 8 : i64]}, spu.samples = {batch = 1 : i64}}
func.func @images(%x: tensor<?x10x10x4xui8> {onnx.name = "x", onnx.dim_params = "0:batch"}) -> tensor<?x16xf32> attributes {spu.extents = {batch = [1, 8]}} {
  %c0 = arith.constant 0 : index
  %b = tensor.dim %x, %c0 : tensor<?x10x10x4xui8>
  %w = antoum.constant dense<1> : tensor<16x3x3x4xi8> : tensor<16x3x3x4xi8>
  %s = antoum.constant dense<1.0> : tensor<16xf32> : tensor<16xf32>
  %a = tensor.empty(%b) : tensor<?x8x8x16xf32>
  %y = spu.conv %x, %w scale(%s : tensor<16xf32>) into %a : tensor<?x10x10x4xui8>, tensor<16x3x3x4xi8>, tensor<?x8x8x16xf32> -> tensor<?x8x8x16xf32>
  %c = tensor.empty(%b) : tensor<?x1x1x16xf32>
  %z = vpu.reduce mean %y into %c {axes = array<i64: 1, 2>} : tensor<?x8x8x16xf32>, tensor<?x1x1x16xf32> -> tensor<?x1x1x16xf32>
  %d = tensor.empty(%b) : tensor<?x16xf32>
  %r = vpu.reshape %z into %d : tensor<?x1x1x16xf32>, tensor<?x16xf32> -> tensor<?x16xf32>
  func.return %r : tensor<?x16xf32>
}

// Weights would be fetched for every row.
// CHECK-LABEL: func.func @weights(
// CHECK-NOT: spu.samples
// CHECK: %x, %c0
func.func @weights(%x: tensor<?x64xui8> {onnx.name = "x", onnx.dim_params = "0:batch"}) -> tensor<?x16xf32> attributes {spu.extents = {batch = [1, 8]}} {
  %c0 = arith.constant 0 : index
  %b = tensor.dim %x, %c0 : tensor<?x64xui8>
  %w = antoum.constant dense<1> : tensor<16x64xi8> : tensor<16x64xi8>
  %s = antoum.constant dense<1.0> : tensor<16xf32> : tensor<16xf32>
  %a = tensor.empty(%b) : tensor<?x16xf32>
  %y = spu.matmul %x, %w scale(%s : tensor<16xf32>) into %a : tensor<?x64xui8>, tensor<16x64xi8>, tensor<?x16xf32> -> tensor<?x16xf32>
  func.return %y : tensor<?x16xf32>
}

// The mean over all images, of which every image needs all.
// CHECK-LABEL: func.func @mixed(
// CHECK-NOT: spu.samples
// CHECK: %x, %c0
func.func @mixed(%x: tensor<?x4x4x4xf32> {onnx.name = "x", onnx.dim_params = "0:batch"}) -> tensor<?x4x4x4xf32> attributes {spu.extents = {batch = [1, 8]}} {
  %c0 = arith.constant 0 : index
  %b = tensor.dim %x, %c0 : tensor<?x4x4x4xf32>
  %a = tensor.empty() : tensor<1x4x4x4xf32>
  %m = vpu.reduce mean %x into %a {axes = array<i64: 0>} : tensor<?x4x4x4xf32>, tensor<1x4x4x4xf32> -> tensor<1x4x4x4xf32>
  %d = tensor.empty(%b) : tensor<?x4x4x4xf32>
  %y = vpu.binary sub %x, %m into %d : tensor<?x4x4x4xf32>, tensor<1x4x4x4xf32>, tensor<?x4x4x4xf32> -> tensor<?x4x4x4xf32>
  func.return %y : tensor<?x4x4x4xf32>
}

// Samples along another axis than 0.
// CHECK-LABEL: func.func @elsewhere(
// CHECK-NOT: spu.samples
// CHECK: func.return
func.func @elsewhere(%x: tensor<4x?xf32> {onnx.name = "x", onnx.dim_params = "1:batch"}) -> tensor<4x?xf32> attributes {spu.extents = {batch = [1, 8]}} {
  func.return %x : tensor<4x?xf32>
}

// One sample is not within the bounds.
// CHECK-LABEL: func.func @many(
// CHECK-NOT: spu.samples
// CHECK: func.return
func.func @many(%x: tensor<?x4xf32> {onnx.name = "x", onnx.dim_params = "0:batch"}) -> tensor<?x4xf32> attributes {spu.extents = {batch = [2, 8]}} {
  %c0 = arith.constant 0 : index
  %b = tensor.dim %x, %c0 : tensor<?x4xf32>
  %a = tensor.empty(%b) : tensor<?x4xf32>
  %y = vpu.unary relu %x into %a : tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  func.return %y : tensor<?x4xf32>
}

// With another extent it depends on that: 384 bytes of activations a position, 1024 of weights.
// CHECK-LABEL: func.func @positions(
// CHECK-SAME: spu.samples = {batch = 22 : i64}}
func.func @positions(%x: tensor<?x?x64xui8> {onnx.name = "x", onnx.dim_params = "0:batch,1:seq"}) -> tensor<?x?x16xf32> attributes {spu.extents = {batch = [1, 8], seq = [1, 100]}} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %b = tensor.dim %x, %c0 : tensor<?x?x64xui8>
  %s = tensor.dim %x, %c1 : tensor<?x?x64xui8>
  %w = antoum.constant dense<1> : tensor<16x64xi8> : tensor<16x64xi8>
  %scale = antoum.constant dense<1.0> : tensor<16xf32> : tensor<16xf32>
  %a = tensor.empty(%b, %s) : tensor<?x?x16xf32>
  %y = spu.matmul %x, %w scale(%scale : tensor<16xf32>) into %a : tensor<?x?x64xui8>, tensor<16x64xi8>, tensor<?x?x16xf32> -> tensor<?x?x16xf32>
  %z = vpu.unary relu %y into %a : tensor<?x?x16xf32>, tensor<?x?x16xf32> -> tensor<?x?x16xf32>
  %r = vpu.unary neg %z into %a : tensor<?x?x16xf32>, tensor<?x?x16xf32> -> tensor<?x?x16xf32>
  func.return %r : tensor<?x?x16xf32>
}

// A number that is computed from that of the samples may be of all of them.
// CHECK-LABEL: func.func @counted(
// CHECK-NOT: spu.samples
// CHECK: func.return
func.func @counted(%x: tensor<?x?x64xf32> {onnx.name = "x", onnx.dim_params = "0:batch,1:seq"}) -> tensor<?x?x64xf32> attributes {spu.extents = {batch = [1, 8], seq = [1, 100]}} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %b = tensor.dim %x, %c0 : tensor<?x?x64xf32>
  %s = tensor.dim %x, %c1 : tensor<?x?x64xf32>
  %n = arith.muli %b, %s : index
  %flat = tensor.empty(%n) : tensor<?x64xf32>
  %f = vpu.reshape %x into %flat : tensor<?x?x64xf32>, tensor<?x64xf32> -> tensor<?x64xf32>
  %a = tensor.empty(%b, %s) : tensor<?x?x64xf32>
  %y = vpu.reshape %f into %a : tensor<?x64xf32>, tensor<?x?x64xf32> -> tensor<?x?x64xf32>
  func.return %y : tensor<?x?x64xf32>
}
