// RUN: spu-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

%x, %y = "test.op"() : () -> (tensor<4xf32>, tensor<6xf32>)
%r = vpu.expand %x into %y : tensor<4xf32>, tensor<6xf32> -> tensor<6xf32>
// CHECK: vpu.expand: x [4] must broadcast to [6]

// -----
%x, %y = "test.op"() : () -> (tensor<4xf32>, tensor<2x2xi32>)
%r = vpu.reshape %x into %y : tensor<4xf32>, tensor<2x2xi32> -> tensor<2x2xi32>
// CHECK: vpu.reshape: the init must have element type f32, got i32

// -----
%x, %y = "test.op"() : () -> (tensor<4x6xf32>, tensor<6x4xf32>)
%r = vpu.transpose %x into %y {perm = array<i64: 1, 1>} : tensor<4x6xf32>, tensor<6x4xf32> -> tensor<6x4xf32>
// CHECK: vpu.transpose: perm must be a permutation of 0..1, got [1, 1]

// -----
%x, %y = "test.op"() : () -> (tensor<4x6xf32>, tensor<4x6xf32>)
%r = vpu.transpose %x into %y {perm = array<i64: 1, 0>} : tensor<4x6xf32>, tensor<4x6xf32> -> tensor<4x6xf32>
// CHECK: vpu.transpose: the init must have shape [6, 4], got [4, 6]

// -----
%x, %y = "test.op"() : () -> (tensor<4x6xf32>, tensor<4x2xf32>)
%r = vpu.slice %x into %y {starts = array<i64: 0>, steps = array<i64: 1>} : tensor<4x6xf32>, tensor<4x2xf32> -> tensor<4x2xf32>
// CHECK: vpu.slice: starts, steps, x and the init must have as many axes each

// -----
%x, %y = "test.op"() : () -> (tensor<4x6xf32>, tensor<4x2xf32>)
%r = vpu.slice %x into %y {starts = array<i64: 0, 0>, steps = array<i64: 1, 0>} : tensor<4x6xf32>, tensor<4x2xf32> -> tensor<4x2xf32>
// CHECK: vpu.slice: axis 1: a start must be at least 0 and a step not 0

// -----
%x, %y = "test.op"() : () -> (tensor<4x6xf32>, tensor<4x2xf32>)
%r = vpu.slice %x into %y {starts = array<i64: 0, 3>, steps = array<i64: 1, 3>} : tensor<4x6xf32>, tensor<4x2xf32> -> tensor<4x2xf32>
// CHECK: vpu.slice: axis 1: positions 3 to 6 must lie in x's extent 6

// -----
%x, %y = "test.op"() : () -> (tensor<4x6xf32>, tensor<4x7xf32>)
%r = vpu.pad %x into %y {low = array<i64: 0, 2>, value = 0.0 : f32} : tensor<4x6xf32>, tensor<4x7xf32> -> tensor<4x7xf32>
// CHECK: vpu.pad: low [0, 2] and x [4, 6] must fit in the init [4, 7]

// -----
%y = "test.op"() : () -> (tensor<4xf32>)
%r = "vpu.concat"(%y) <{axis = 0 : i64}> : (tensor<4xf32>) -> tensor<4xf32>
// CHECK: vpu.concat: at least one operand is needed

// -----
%x, %y = "test.op"() : () -> (tensor<4xf32>, tensor<8xf32>)
%r = vpu.concat %x, %x into %y {axis = 1 : i64} : tensor<4xf32>, tensor<4xf32> into tensor<8xf32> -> tensor<8xf32>
// CHECK: vpu.concat: axis must be 0 to 0, got 1

// -----
%x, %z, %y = "test.op"() : () -> (tensor<4xf32>, tensor<4xi32>, tensor<8xf32>)
%r = vpu.concat %x, %z into %y {axis = 0 : i64} : tensor<4xf32>, tensor<4xi32> into tensor<8xf32> -> tensor<8xf32>
// CHECK: vpu.concat: every operand must have element type f32, got i32

// -----
%x, %z, %y = "test.op"() : () -> (tensor<4xf32>, tensor<1x4xf32>, tensor<8xf32>)
%r = vpu.concat %x, %z into %y {axis = 0 : i64} : tensor<4xf32>, tensor<1x4xf32> into tensor<8xf32> -> tensor<8xf32>
// CHECK: vpu.concat: every operand must have 1 axes

// -----
%x, %z, %y = "test.op"() : () -> (tensor<2x4xf32>, tensor<2x5xf32>, tensor<4x4xf32>)
%r = vpu.concat %x, %z into %y {axis = 0 : i64} : tensor<2x4xf32>, tensor<2x5xf32> into tensor<4x4xf32> -> tensor<4x4xf32>
// CHECK: vpu.concat: an operand must have shape [2, 4], got [2, 5]

// -----
%x, %y = "test.op"() : () -> (tensor<2x4xf32>, tensor<5x4xf32>)
%r = vpu.concat %x, %x into %y {axis = 0 : i64} : tensor<2x4xf32>, tensor<2x4xf32> into tensor<5x4xf32> -> tensor<5x4xf32>
// CHECK: vpu.concat: the extents along axis 0 must add up to 5, got [2, 2]

// -----
%t, %i, %y = "test.op"() : () -> (tensor<9x4xf32>, tensor<3xf32>, tensor<3x4xf32>)
%r = vpu.gather %t, %i into %y {axis = 0 : i64} : tensor<9x4xf32>, tensor<3xf32>, tensor<3x4xf32> -> tensor<3x4xf32>
// CHECK: vpu.gather: indices must have element type i32 or i64, got f32

// -----
%t, %i, %y = "test.op"() : () -> (tensor<9x4xf32>, tensor<3xi64>, tensor<3x4xi32>)
%r = vpu.gather %t, %i into %y {axis = 0 : i64} : tensor<9x4xf32>, tensor<3xi64>, tensor<3x4xi32> -> tensor<3x4xi32>
// CHECK: vpu.gather: the init must have element type f32, got i32

// -----
%t, %i, %y = "test.op"() : () -> (tensor<9x4xf32>, tensor<3xi64>, tensor<3x4xf32>)
%r = vpu.gather %t, %i into %y {axis = 2 : i64} : tensor<9x4xf32>, tensor<3xi64>, tensor<3x4xf32> -> tensor<3x4xf32>
// CHECK: vpu.gather: axis must be 0 to 1, got 2

// -----
%t, %i, %y = "test.op"() : () -> (tensor<9x4xf32>, tensor<3xi64>, tensor<3x4xf32>)
%r = vpu.gather %t, %i into %y {axis = 1 : i64} : tensor<9x4xf32>, tensor<3xi64>, tensor<3x4xf32> -> tensor<3x4xf32>
// CHECK: vpu.gather: the init must have shape [9, 3], got [3, 4]
