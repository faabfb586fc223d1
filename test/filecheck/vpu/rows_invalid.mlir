// RUN: spu-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

%x, %y = "test.op"() : () -> (tensor<4x8xi32>, tensor<4xi32>)
%r = vpu.reduce sum %x into %y {axes = array<i64: 1>} : tensor<4x8xi32>, tensor<4xi32> -> tensor<4xi32>
// CHECK: vpu.reduce: x must have element type f32, got i32

// -----
%x, %y = "test.op"() : () -> (tensor<4x8xf32>, tensor<4xf32>)
%r = vpu.reduce sum %x into %y {axes = array<i64: 2>} : tensor<4x8xf32>, tensor<4xf32> -> tensor<4xf32>
// CHECK: vpu.reduce: axes must be different axes of x, 0 to 1, got [2]

// -----
%x, %y = "test.op"() : () -> (tensor<4x8xf32>, tensor<4xf32>)
%r = vpu.reduce sum %x into %y {axes = array<i64: 0>} : tensor<4x8xf32>, tensor<4xf32> -> tensor<4xf32>
// CHECK: vpu.reduce: the init must have shape [8], got [4]

// -----
%x, %y = "test.op"() : () -> (tensor<4x8xf32>, tensor<4x8xf32>)
%r = vpu.reduce sum %x into %y {axes = array<i64: 0>} : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: vpu.reduce: the init must have shape [1, 8], got [4, 8]

// -----
%x, %y = "test.op"() : () -> (tensor<4x8xf32>, tensor<4x7xf32>)
%r = vpu.softmax %x into %y : tensor<4x8xf32>, tensor<4x7xf32> -> tensor<4x7xf32>
// CHECK: vpu.softmax: the init must have shape [4, 8], got [4, 7]

// -----
%x = "test.op"() : () -> (tensor<4x8xbf16>)
%r = vpu.softmax %x into %x : tensor<4x8xbf16>, tensor<4x8xbf16> -> tensor<4x8xbf16>
// CHECK: vpu.softmax: x must have element type f32, got bf16

// -----
%x, %g = "test.op"() : () -> (tensor<4x8xf32>, tensor<4xf32>)
%r = vpu.layer_norm %x, %g into %x {epsilon = 1.0 : f32} : tensor<4x8xf32>, tensor<4xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: vpu.layer_norm: gamma must have shape [8], got [4]

// -----
%x, %g = "test.op"() : () -> (tensor<4x8xf32>, tensor<8xf32>)
%r = vpu.layer_norm %x, %g beta(%x : tensor<4x8xf32>) into %x {epsilon = 1.0 : f32} : tensor<4x8xf32>, tensor<8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: vpu.layer_norm: beta must have shape [8], got [4, 8]

// -----
%x, %g = "test.op"() : () -> (tensor<4x8xf32>, tensor<8xf32>)
%r = vpu.layer_norm %x, %g beta(%g : tensor<8xf32>) into %x {epsilon = 1.0 : f32, centre = false} : tensor<4x8xf32>, tensor<8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: vpu.layer_norm: RMS normalisation has no beta

// -----
%x, %g = "test.op"() : () -> (tensor<4x8xf32>, tensor<8xbf16>)
%r = vpu.layer_norm %x, %g into %x {epsilon = 1.0 : f32} : tensor<4x8xf32>, tensor<8xbf16>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: vpu.layer_norm: every operand must have element type f32, got bf16

// -----
%x, %g, %y = "test.op"() : () -> (tensor<4x8xf32>, tensor<8xf32>, tensor<8xf32>)
%r = vpu.layer_norm %x, %g into %y {epsilon = 1.0 : f32} : tensor<4x8xf32>, tensor<8xf32>, tensor<8xf32> -> tensor<8xf32>
// CHECK: vpu.layer_norm: the init must have shape [4, 8], got [8]

// -----
%x, %y = "test.op"() : () -> (tensor<1x8x8x4xi8>, tensor<1x4x4x4xi8>)
%r = vpu.pool max %x into %y {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, pads = array<i64: 0, 0>, dilations = array<i64: 1, 1>} : tensor<1x8x8x4xi8>, tensor<1x4x4x4xi8> -> tensor<1x4x4x4xi8>
// CHECK: vpu.pool: x must have element type f32 or ui8, got i8

// -----
%x, %y = "test.op"() : () -> (tensor<1x8x8x4xui8>, tensor<1x4x4x4xui8>)
%r = vpu.pool avg %x into %y {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, pads = array<i64: 0, 0>, dilations = array<i64: 1, 1>} : tensor<1x8x8x4xui8>, tensor<1x4x4x4xui8> -> tensor<1x4x4x4xui8>
// CHECK: vpu.pool: x must have element type f32, got ui8

// -----
%x, %y = "test.op"() : () -> (tensor<8x8x4xf32>, tensor<4x4x4xf32>)
%r = vpu.pool max %x into %y {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, pads = array<i64: 0, 0>, dilations = array<i64: 1, 1>} : tensor<8x8x4xf32>, tensor<4x4x4xf32> -> tensor<4x4x4xf32>
// CHECK: vpu.pool: x and the init must be [N, H, W, C]

// -----
%x, %y = "test.op"() : () -> (tensor<1x8x8x4xf32>, tensor<1x4x4x8xf32>)
%r = vpu.pool max %x into %y {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, pads = array<i64: 0, 0>, dilations = array<i64: 1, 1>} : tensor<1x8x8x4xf32>, tensor<1x4x4x8xf32> -> tensor<1x4x4x8xf32>
// CHECK: vpu.pool: the init must have shape [1, 4, 4, 4], got [1, 4, 4, 8]

// -----
%x, %y = "test.op"() : () -> (tensor<1x8x8x4xf32>, tensor<1x4x4x4xf32>)
%r = vpu.pool max %x into %y {kernel = array<i64: 2, 2>, strides = array<i64: 2, 0>, pads = array<i64: 0, 0>, dilations = array<i64: 1, 1>} : tensor<1x8x8x4xf32>, tensor<1x4x4x4xf32> -> tensor<1x4x4x4xf32>
// CHECK: vpu.pool: strides must be two integers of at least 1, got [2, 0]

// -----
%x, %y = "test.op"() : () -> (tensor<1x8x8x4xf32>, tensor<1x4x4x4xf32>)
%r = vpu.pool max %x into %y {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>} : tensor<1x8x8x4xf32>, tensor<1x4x4x4xf32> -> tensor<1x4x4x4xf32>
// CHECK: vpu.pool: pads must be two integers of at least 0, got [0, 0, 0, 0]
