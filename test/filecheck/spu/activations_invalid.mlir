// RUN: spu-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

%a, %b, %y = "test.op"() : () -> (tensor<8xf32>, tensor<8x4xf32>, tensor<4xf32>)
%r = spu.batch_matmul %a, %b into %y : tensor<8xf32>, tensor<8x4xf32>, tensor<4xf32> -> tensor<4xf32>
// CHECK: spu.batch_matmul: a and b must be matrices with optional leading axes, init as many axes as the longer

// -----
%a, %b, %y = "test.op"() : () -> (tensor<2x3x8xf32>, tensor<4x8xf32>, tensor<2x3x4xf32>)
%r = spu.batch_matmul %a, %b into %y : tensor<2x3x8xf32>, tensor<4x8xf32>, tensor<2x3x4xf32> -> tensor<2x3x4xf32>
// CHECK: spu.batch_matmul: the reduction must agree: a [2, 3, 8] has 8, b [4, 8] 4

// -----
%a, %b, %y = "test.op"() : () -> (tensor<2x3x8xf32>, tensor<8x4xf32>, tensor<2x3x5xf32>)
%r = spu.batch_matmul %a, %b into %y : tensor<2x3x8xf32>, tensor<8x4xf32>, tensor<2x3x5xf32> -> tensor<2x3x5xf32>
// CHECK: spu.batch_matmul: the last axes of the init must have shape [2, 3, 4], got [2, 3, 5]

// -----
%a, %b, %y = "test.op"() : () -> (tensor<3x8xbf16>, tensor<8x4xbf16>, tensor<3x4xf32>)
%r = spu.batch_matmul %a, %b into %y : tensor<3x8xbf16>, tensor<8x4xbf16>, tensor<3x4xf32> -> tensor<3x4xf32>
// CHECK: spu.batch_matmul: a, b and init must have element type f32, got bf16

// -----
%q, %k, %y = "test.op"() : () -> (tensor<1x4x32xf32>, tensor<1x4x24xf32>, tensor<1x4x32xf32>)
%r = spu.attention %q, %k, %k into %y {heads = 4 : i64, kv_heads = 3 : i64, scale = 1.0 : f32} : tensor<1x4x32xf32>, tensor<1x4x24xf32>, tensor<1x4x24xf32>, tensor<1x4x32xf32> -> tensor<1x4x32xf32>
// CHECK: spu.attention: heads must be a multiple of kv_heads, got 4 and 3

// -----
%q, %y = "test.op"() : () -> (tensor<4x32xf32>, tensor<4x32xf32>)
%r = spu.attention %q, %q, %q into %y {heads = 4 : i64, kv_heads = 4 : i64, scale = 1.0 : f32} : tensor<4x32xf32>, tensor<4x32xf32>, tensor<4x32xf32>, tensor<4x32xf32> -> tensor<4x32xf32>
// CHECK: spu.attention: q, k, v and init must be [batch, sequence, heads * head size]

// -----
%q, %k, %y = "test.op"() : () -> (tensor<1x4x32xf32>, tensor<1x4x64xf32>, tensor<1x4x64xf32>)
%r = spu.attention %q, %k, %k into %y {heads = 4 : i64, kv_heads = 4 : i64, scale = 1.0 : f32} : tensor<1x4x32xf32>, tensor<1x4x64xf32>, tensor<1x4x64xf32>, tensor<1x4x64xf32> -> tensor<1x4x64xf32>
// CHECK: spu.attention: q and k must have the same head size, got 32 over 4 heads and 64 over 4

// -----
%q, %y = "test.op"() : () -> (tensor<1x4x1028xf32>, tensor<1x4x1028xf32>)
%r = spu.attention %q, %q, %q into %y {heads = 4 : i64, kv_heads = 4 : i64, scale = 1.0 : f32} : tensor<1x4x1028xf32>, tensor<1x4x1028xf32>, tensor<1x4x1028xf32>, tensor<1x4x1028xf32> -> tensor<1x4x1028xf32>
// CHECK: spu.attention: head sizes must be at most 256, got 257

// -----
%q, %k, %y = "test.op"() : () -> (tensor<2x4x32xf32>, tensor<1x4x32xf32>, tensor<2x4x32xf32>)
%r = spu.attention %q, %k, %q into %y {heads = 4 : i64, kv_heads = 4 : i64, scale = 1.0 : f32} : tensor<2x4x32xf32>, tensor<1x4x32xf32>, tensor<2x4x32xf32>, tensor<2x4x32xf32> -> tensor<2x4x32xf32>
// CHECK: spu.attention: k must have shape [2, 4, 32], got [1, 4, 32]

// -----
%q, %v, %y = "test.op"() : () -> (tensor<2x4x32xf32>, tensor<2x5x32xf32>, tensor<2x4x32xf32>)
%r = spu.attention %q, %q, %v into %y {heads = 4 : i64, kv_heads = 4 : i64, scale = 1.0 : f32} : tensor<2x4x32xf32>, tensor<2x4x32xf32>, tensor<2x5x32xf32>, tensor<2x4x32xf32> -> tensor<2x4x32xf32>
// CHECK: spu.attention: v must have shape [2, 4, 32], got [2, 5, 32]

// -----
%q, %y = "test.op"() : () -> (tensor<2x4x32xf32>, tensor<2x4x16xf32>)
%r = spu.attention %q, %q, %q into %y {heads = 4 : i64, kv_heads = 4 : i64, scale = 1.0 : f32} : tensor<2x4x32xf32>, tensor<2x4x32xf32>, tensor<2x4x32xf32>, tensor<2x4x16xf32> -> tensor<2x4x16xf32>
// CHECK: spu.attention: the init must have shape [2, 4, 32], got [2, 4, 16]

// -----
%q, %y = "test.op"() : () -> (tensor<2x4x32xbf16>, tensor<2x4x32xbf16>)
%r = spu.attention %q, %q, %q into %y {heads = 4 : i64, kv_heads = 4 : i64, scale = 1.0 : f32} : tensor<2x4x32xbf16>, tensor<2x4x32xbf16>, tensor<2x4x32xbf16>, tensor<2x4x32xbf16> -> tensor<2x4x32xbf16>
// CHECK: spu.attention: every operand must have element type f32, got bf16

// -----
%q, %m, %y = "test.op"() : () -> (tensor<2x4x32xf32>, tensor<2x2x1x4xf32>, tensor<2x4x32xf32>)
%r = spu.attention %q, %q, %q mask(%m : tensor<2x2x1x4xf32>) into %y {heads = 4 : i64, kv_heads = 4 : i64, scale = 1.0 : f32} : tensor<2x4x32xf32>, tensor<2x4x32xf32>, tensor<2x4x32xf32>, tensor<2x4x32xf32> -> tensor<2x4x32xf32>
// CHECK: spu.attention: mask must broadcast to [2, 4, 4, 4], got [2, 2, 1, 4]

// -----
%q, %k, %o = "test.op"() : () -> (tensor<?x32xf32>, tensor<2x4x32xf32>, tensor<3xi64>)
%r = spu.attention %q, %k, %k offsets(%o : tensor<3xi64>) into %q {heads = 4 : i64, kv_heads = 4 : i64, scale = 1.0 : f32} : tensor<?x32xf32>, tensor<2x4x32xf32>, tensor<2x4x32xf32>, tensor<?x32xf32> -> tensor<?x32xf32>
// CHECK: spu.attention: q, k, v and init must all be packed rows [rows, heads * head size], or none

// -----
%q, %o = "test.op"() : () -> (tensor<2x4x32xf32>, tensor<2xi64>)
%r = spu.attention %q, %q, %q offsets(%o : tensor<2xi64>) into %q {heads = 4 : i64, kv_heads = 4 : i64, scale = 1.0 : f32} : tensor<2x4x32xf32>, tensor<2x4x32xf32>, tensor<2x4x32xf32>, tensor<2x4x32xf32> -> tensor<2x4x32xf32>
// CHECK: spu.attention: offsets must have shape [3], got [2]

// -----
%q, %m, %o = "test.op"() : () -> (tensor<?x32xf32>, tensor<3x1x1x4xf32>, tensor<3xi64>)
%r = spu.attention %q, %q, %q mask(%m : tensor<3x1x1x4xf32>) offsets(%o : tensor<3xi64>) into %q {heads = 4 : i64, kv_heads = 4 : i64, scale = 1.0 : f32} : tensor<?x32xf32>, tensor<?x32xf32>, tensor<?x32xf32>, tensor<?x32xf32> -> tensor<?x32xf32>
// CHECK: spu.attention: mask must broadcast to [2, 4, ?, ?], got [3, 1, 1, 4]
