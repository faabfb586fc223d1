// RUN: spu-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

%x, %w, %y = "test.op"() : () -> (tensor<1x8x8x4xf32>, tensor<8x3x3x4xf32>, tensor<1x6x6x8xf32>)
%r = spu.conv %x, %w into %y {strides = array<i64: 1>} : tensor<1x8x8x4xf32>, tensor<8x3x3x4xf32>, tensor<1x6x6x8xf32> -> tensor<1x6x6x8xf32>
// CHECK: spu.conv: strides must be 2 integers of at least 1, got [1]

// -----
%x, %w, %y = "test.op"() : () -> (tensor<1x8x8x4xf32>, tensor<8x3x3x4xf32>, tensor<1x6x6x8xf32>)
%r = spu.conv %x, %w into %y {dilations = array<i64: 1, 0>} : tensor<1x8x8x4xf32>, tensor<8x3x3x4xf32>, tensor<1x6x6x8xf32> -> tensor<1x6x6x8xf32>
// CHECK: spu.conv: dilations must be 2 integers of at least 1, got [1, 0]

// -----
%x, %w, %y = "test.op"() : () -> (tensor<1x8x8x4xf32>, tensor<8x3x3x4xf32>, tensor<1x6x6x8xf32>)
%r = spu.conv %x, %w into %y {pads = array<i64: 0, 0, -1, 0>} : tensor<1x8x8x4xf32>, tensor<8x3x3x4xf32>, tensor<1x6x6x8xf32> -> tensor<1x6x6x8xf32>
// CHECK: spu.conv: pads must be 4 integers of at least 0, got [0, 0, -1, 0]

// -----
%x, %w, %y = "test.op"() : () -> (tensor<8x8x4xf32>, tensor<8x3x3x4xf32>, tensor<6x6x8xf32>)
%r = spu.conv %x, %w into %y : tensor<8x8x4xf32>, tensor<8x3x3x4xf32>, tensor<6x6x8xf32> -> tensor<6x6x8xf32>
// CHECK: spu.conv: x must be [N, H, W, C], weight [O, KH, KW, C / groups], init [N, OH, OW, O]

// -----
%x, %w, %y = "test.op"() : () -> (tensor<1x8x8x?xf32>, tensor<8x3x3x4xf32>, tensor<1x6x6x8xf32>)
%r = spu.conv %x, %w into %y : tensor<1x8x8x?xf32>, tensor<8x3x3x4xf32>, tensor<1x6x6x8xf32> -> tensor<1x6x6x8xf32>
// CHECK: spu.conv: x's channels and the kernel must have static extents, got x [1, 8, 8, ?] and weight [8, 3, 3, 4]

// -----
%x, %w, %y = "test.op"() : () -> (tensor<1x8x8x4xf32>, tensor<8x3x3x4xf32>, tensor<1x6x6x8xf32>)
%r = spu.conv %x, %w into %y {groups = 2 : i64} : tensor<1x8x8x4xf32>, tensor<8x3x3x4xf32>, tensor<1x6x6x8xf32> -> tensor<1x6x6x8xf32>
// CHECK: spu.conv: weight must have C / groups = 4 / 2 channels and O divisible by groups, got [8, 3, 3, 4]

// -----
%x, %w, %y = "test.op"() : () -> (tensor<1x8x8x4xf32>, tensor<8x3x3x4xf32>, tensor<1x6x6x8xf32>)
%r = spu.conv %x, %w into %y {pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 2, 2>} : tensor<1x8x8x4xf32>, tensor<8x3x3x4xf32>, tensor<1x6x6x8xf32> -> tensor<1x6x6x8xf32>
// CHECK: spu.conv: the init must have shape [1, 4, 4, 8], got [1, 6, 6, 8]

// -----
%x, %w, %y, %s = "test.op"() : () -> (tensor<1x8x8x4xf32>, tensor<8x3x3x4xf32>, tensor<1x6x6x8xf32>, tensor<8xf32>)
%r = spu.conv %x, %w row_scale(%s : tensor<8xf32>) into %y : tensor<1x8x8x4xf32>, tensor<8x3x3x4xf32>, tensor<1x6x6x8xf32> -> tensor<1x6x6x8xf32>
// CHECK: spu.conv: row_scale must have shape [1, 6, 6], got [8]
