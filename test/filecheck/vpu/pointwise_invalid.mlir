// RUN: spu-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

%x, %y = "test.op"() : () -> (tensor<4x8xf32>, tensor<8xf32>)
%r = vpu.unary exp %x into %y : tensor<4x8xf32>, tensor<8xf32> -> tensor<8xf32>
// CHECK: vpu.unary: the init must have shape [4, 8], got [8]

// -----
%x, %y = "test.op"() : () -> (tensor<4xf32>, tensor<4xbf16>)
%r = vpu.unary exp %x into %y : tensor<4xf32>, tensor<4xbf16> -> tensor<4xbf16>
// CHECK: vpu.unary: the init must have element type f32, got bf16

// -----
%x = "test.op"() : () -> (tensor<4xi32>)
%r = vpu.unary exp %x into %x : tensor<4xi32>, tensor<4xi32> -> tensor<4xi32>
// CHECK: vpu.unary: x of exp must have element type f32, got i32

// -----
%x = "test.op"() : () -> (tensor<4xbf16>)
%r = vpu.unary abs %x into %x : tensor<4xbf16>, tensor<4xbf16> -> tensor<4xbf16>
// CHECK: vpu.unary: x of abs must have element type f32 or i32 or i64 or i8, got bf16

// -----
%x = "test.op"() : () -> (tensor<4xf32>)
%r = vpu.unary not %x into %x : tensor<4xf32>, tensor<4xf32> -> tensor<4xf32>
// CHECK: vpu.unary: x of not must have element type i1, got f32

// -----
%x = "test.op"() : () -> (tensor<4xf32>)
%r = vpu.unary cosh %x into %x : tensor<4xf32>, tensor<4xf32> -> tensor<4xf32>
// CHECK: Expected `abs`, `neg`, `exp`

// -----
%x, %y = "test.op"() : () -> (tensor<4xf32>, memref<4xf32>)
vpu.unary exp %x into %y : tensor<4xf32>, memref<4xf32>
// CHECK: vpu.unary: every operand must be a memref as the init is, got tensor<4xf32>

// -----
%a, %b, %y = "test.op"() : () -> (tensor<3xf32>, tensor<8xf32>, tensor<4x8xf32>)
%r = vpu.binary add %a, %b into %y : tensor<3xf32>, tensor<8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: vpu.binary: a [3] must broadcast to [4, 8]

// -----
%a, %b, %y = "test.op"() : () -> (tensor<8xf32>, tensor<2x4x8xf32>, tensor<4x8xf32>)
%r = vpu.binary add %a, %b into %y : tensor<8xf32>, tensor<2x4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: vpu.binary: b [2, 4, 8] must broadcast to [4, 8]

// -----
%a, %b = "test.op"() : () -> (tensor<4xf32>, tensor<4xi32>)
%r = vpu.binary add %a, %b into %a : tensor<4xf32>, tensor<4xi32>, tensor<4xf32> -> tensor<4xf32>
// CHECK: vpu.binary: b must have element type f32, got i32

// -----
%a = "test.op"() : () -> (tensor<4xf32>)
%r = vpu.binary less %a, %a into %a : tensor<4xf32>, tensor<4xf32>, tensor<4xf32> -> tensor<4xf32>
// CHECK: vpu.binary: the init must have element type i1, got f32

// -----
%a, %y = "test.op"() : () -> (tensor<4xf32>, tensor<4xi1>)
%r = vpu.binary and %a, %a into %y : tensor<4xf32>, tensor<4xf32>, tensor<4xi1> -> tensor<4xi1>
// CHECK: vpu.binary: a of and must have element type i1, got f32

// -----
%a = "test.op"() : () -> (tensor<4xi32>)
%r = vpu.binary pow %a, %a into %a : tensor<4xi32>, tensor<4xi32>, tensor<4xi32> -> tensor<4xi32>
// CHECK: vpu.binary: a of pow must have element type f32, got i32

// -----
%a = "test.op"() : () -> (tensor<4xi1>)
%r = vpu.binary add %a, %a into %a : tensor<4xi1>, tensor<4xi1>, tensor<4xi1> -> tensor<4xi1>
// CHECK: vpu.binary: a of add must have element type f32 or i32 or i64, got i1

// -----
%c, %a = "test.op"() : () -> (tensor<4xf32>, tensor<4xf32>)
%r = vpu.select %c, %a, %a into %a : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32> -> tensor<4xf32>
// CHECK: vpu.select: condition must have element type i1, got f32

// -----
%c, %a = "test.op"() : () -> (tensor<3xi1>, tensor<4xf32>)
%r = vpu.select %c, %a, %a into %a : tensor<3xi1>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32> -> tensor<4xf32>
// CHECK: vpu.select: condition [3] must broadcast to [4]

// -----
%c, %a, %b = "test.op"() : () -> (tensor<4xi1>, tensor<4xf32>, tensor<4xi64>)
%r = vpu.select %c, %a, %b into %a : tensor<4xi1>, tensor<4xf32>, tensor<4xi64>, tensor<4xf32> -> tensor<4xf32>
// CHECK: vpu.select: b must have element type f32, got i64

// -----
%a, %b = "test.op"() : () -> (tensor<4xf32>, tensor<5xi64>)
%r = vpu.cast %a into %b : tensor<4xf32>, tensor<5xi64> -> tensor<5xi64>
// CHECK: vpu.cast: the init must have shape [4], got [5]

// -----
%a, %b = "test.op"() : () -> (tensor<4xf32>, tensor<4xf64>)
%r = vpu.cast %a into %b : tensor<4xf32>, tensor<4xf64> -> tensor<4xf64>
// CHECK: vpu.cast: x and the init must have element type f32 or bf16 or i1 or i8 or ui8 or i32 or i64, got f64
