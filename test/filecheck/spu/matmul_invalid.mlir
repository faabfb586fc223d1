// RUN: spu-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

%x, %w, %y = "test.op"() : () -> (tensor<4x64xf32>, memref<8x64xf32>, tensor<4x8xf32>)
%r = spu.matmul %x, %w into %y : tensor<4x64xf32>, memref<8x64xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: spu.matmul: every operand must be a tensor as the init is, got memref<8x64xf32>

// -----
%x, %w, %y = "test.op"() : () -> (memref<4x64xf32>, memref<8x64xf32>, memref<4x8xf32>)
%r = spu.matmul %x, %w into %y : memref<4x64xf32>, memref<8x64xf32>, memref<4x8xf32> -> tensor<4x8xf32>
// CHECK: spu.matmul: on tensors the results have the types of the inits, on memrefs there are none; expected (), got (tensor<4x8xf32>)

// -----
%x, %w, %y = "test.op"() : () -> (tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32>)
spu.matmul %x, %w into %y : tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32>
// CHECK: expected (tensor<4x8xf32>), got ()

// -----
%x, %w, %y = "test.op"() : () -> (tensor<f32>, tensor<8x64xf32>, tensor<8xf32>)
%r = spu.matmul %x, %w into %y : tensor<f32>, tensor<8x64xf32>, tensor<8xf32> -> tensor<8xf32>
// CHECK: spu.matmul: x must have at least one axis

// -----
%x, %w, %y = "test.op"() : () -> (tensor<4x64xf32>, tensor<8x32xf32>, tensor<4x8xf32>)
%r = spu.matmul %x, %w into %y : tensor<4x64xf32>, tensor<8x32xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: spu.matmul: weight must have shape [N, 64] to match x [4, 64], got [8, 32]

// -----
%x, %w, %y = "test.op"() : () -> (tensor<?x64xf32>, tensor<8x64xf32>, tensor<?x9xf32>)
%r = spu.matmul %x, %w into %y : tensor<?x64xf32>, tensor<8x64xf32>, tensor<?x9xf32> -> tensor<?x9xf32>
// CHECK: spu.matmul: the init must have shape [?, 8], got [?, 9]

// -----
%x, %w, %y = "test.op"() : () -> (tensor<4x64xi8>, tensor<8x64xi8>, tensor<4x8xf32>)
%r = spu.matmul %x, %w into %y : tensor<4x64xi8>, tensor<8x64xi8>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: spu.matmul: x must have element type ui8 or bf16 or f32, got i8

// -----
%x, %w, %y = "test.op"() : () -> (tensor<4x64xui8>, tensor<8x64xui8>, tensor<4x8xf32>)
%r = spu.matmul %x, %w into %y : tensor<4x64xui8>, tensor<8x64xui8>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: spu.matmul: the weight of a ui8 x must have element type i8, got ui8

// -----
%x, %w, %y = "test.op"() : () -> (tensor<4x64xf32>, tensor<8x64xf32, #spu.banked<bank = 64, slots = 4, share = 1>>, tensor<4x8xf32>)
%r = spu.matmul %x, %w into %y : tensor<4x64xf32>, tensor<8x64xf32, #spu.banked<bank = 64, slots = 4, share = 1>>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: spu.matmul: an f32 weight is always dense: remove its #spu.banked encoding

// -----
%x, %w, %y = "test.op"() : () -> (tensor<4x64xbf16>, tensor<8x64xbf16, #spu.banked<bank = 64, slots = 4, share = 1>>, tensor<4x8xf32>)
%r = spu.matmul %x, %w into %y : tensor<4x64xbf16>, tensor<8x64xbf16, #spu.banked<bank = 64, slots = 4, share = 1>>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: spu.matmul: a bank is 64 bytes: bank must be 32 for bf16 weights, got 64

// -----
%x, %w, %y = "test.op"() : () -> (tensor<4x64xui8>, tensor<8x64xi8>, tensor<4x8xf32>)
%r = spu.matmul %x, %w into %y : tensor<4x64xui8>, tensor<8x64xi8>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: spu.matmul: an int8 product needs scale (f32 [N])

// -----
%x, %w, %y, %s = "test.op"() : () -> (tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32>, tensor<8xbf16>)
%r = spu.matmul %x, %w scale(%s : tensor<8xbf16>) into %y : tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: spu.matmul: scale must have element type f32, got bf16

// -----
%x, %w, %y, %b = "test.op"() : () -> (tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32>, tensor<4xf32>)
%r = spu.matmul %x, %w bias(%b : tensor<4xf32>) into %y : tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: spu.matmul: bias must have shape [8], got [4]

// -----
%x, %w, %y, %s = "test.op"() : () -> (tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32>, tensor<4x1xf32>)
%r = spu.matmul %x, %w row_scale(%s : tensor<4x1xf32>) into %y : tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: spu.matmul: row_scale must have shape [4], got [4, 1]

// -----
%x, %w, %y, %s = "test.op"() : () -> (tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32>, tensor<4xi32>)
%r = spu.matmul %x, %w row_scale(%s : tensor<4xi32>) into %y : tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: spu.matmul: row_scale must have element type f32, got i32

// -----
%x, %w, %y, %a = "test.op"() : () -> (tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32>, tensor<4x8xi32>)
%r = spu.matmul %x, %w residual(%a : tensor<4x8xi32>) into %y : tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: spu.matmul: residual must have element type f32 or bf16 or ui8 or i8, got i32

// -----
%x, %w, %y, %a = "test.op"() : () -> (tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32>, tensor<8xf32>)
%r = spu.matmul %x, %w residual(%a : tensor<8xf32>) into %y : tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: spu.matmul: residual must have shape [4, 8], got [8]

// -----
%x, %w, %y, %a = "test.op"() : () -> (tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32>, tensor<4x8xui8>)
%r = spu.matmul %x, %w residual(%a : tensor<4x8xui8>) into %y {residual_scale = 0.5 : f32} : tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: spu.matmul: residual_scale and residual_zero belong to a ui8 or i8 residual, and only to it

// -----
%x, %w, %y = "test.op"() : () -> (tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xi32>)
%r = spu.matmul %x, %w into %y : tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xi32> -> tensor<4x8xi32>
// CHECK: spu.matmul: the init must have element type f32 or bf16 or ui8 or i8, got i32

// -----
%x, %w, %y = "test.op"() : () -> (tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32>)
%r = spu.matmul %x, %w into %y {out_scale = 0.5 : f32, out_zero = 0 : i32} : tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: spu.matmul: out_scale and out_zero belong to a ui8 or i8 init, and only to it

// -----
%x, %w, %y = "test.op"() : () -> (tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32>)
%r = spu.matmul %x, %w into %y {prescaled} : tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: spu.matmul: prescaled belongs to a ui8 or i8 init, after no activation or relu

// -----
%x, %w, %y = "test.op"() : () -> (tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xui8>)
%r = spu.matmul %x, %w into %y {activation = #spu.activation gelu, out_scale = 0.5 : f32, out_zero = 0 : i32, prescaled} : tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xui8> -> tensor<4x8xui8>
// CHECK: spu.matmul: prescaled belongs to a ui8 or i8 init, after no activation or relu

// -----
%x, %w, %y, %s = "test.op"() : () -> (tensor<4x64xui8>, tensor<8x64xi8>, tensor<4x8xf32>, tensor<8xf32>)
%r = spu.matmul %x, %w scale(%s : tensor<8xf32>) into %y {x_zero = 256 : i32} : tensor<4x64xui8>, tensor<8x64xi8>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: spu.matmul: x_zero must lie in 0..255 here, got 256

// -----
%x, %w, %y = "test.op"() : () -> (tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32>)
%r = spu.matmul %x, %w into %y {x_zero = 1 : i32} : tensor<4x64xf32>, tensor<8x64xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: spu.matmul: x_zero must lie in 0..0 here, got 1

// -----
%x, %w, %y = "test.op"() : () -> (tensor<4x0xf32>, tensor<8x0xf32>, tensor<4x8xf32>)
%r = spu.matmul %x, %w into %y : tensor<4x0xf32>, tensor<8x0xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: spu.matmul: the reduction must not be empty

// -----
%x, %w, %y = "test.op"() : () -> (tensor<4x8xf32>, tensor<0x8xf32>, tensor<4x0xf32>)
%r = spu.matmul %x, %w into %y : tensor<4x8xf32>, tensor<0x8xf32>, tensor<4x0xf32> -> tensor<4x0xf32>
// CHECK: spu.matmul: there must be at least one output channel
