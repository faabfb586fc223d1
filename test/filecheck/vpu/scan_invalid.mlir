// RUN: spu-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

%x = "test.op"() : () -> (tensor<4x8xi8>)
%r = vpu.cumsum %x into %x : tensor<4x8xi8>, tensor<4x8xi8> -> tensor<4x8xi8>
// CHECK: vpu.cumsum: x must have element type f32 or i32 or i64, got i8

// -----
%x, %y = "test.op"() : () -> (tensor<4x8xi64>, tensor<4x8xi32>)
%r = vpu.cumsum %x into %y : tensor<4x8xi64>, tensor<4x8xi32> -> tensor<4x8xi32>
// CHECK: vpu.cumsum: the init must have element type i64, got i32

// -----
%x, %y = "test.op"() : () -> (tensor<4x8xi64>, tensor<4x7xi64>)
%r = vpu.cumsum %x into %y : tensor<4x8xi64>, tensor<4x7xi64> -> tensor<4x7xi64>
// CHECK: vpu.cumsum: the init must have shape [4, 8], got [4, 7]

// -----
%x = "test.op"() : () -> (tensor<i64>)
%r = vpu.cumsum %x into %x : tensor<i64>, tensor<i64> -> tensor<i64>
// CHECK: vpu.cumsum: x must have at least one axis
