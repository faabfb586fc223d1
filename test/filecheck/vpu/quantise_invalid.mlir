// RUN: spu-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

%x, %s, %q = "test.op"() : () -> (tensor<4x8xbf16>, tensor<f32>, tensor<4x8xui8>)
%r = vpu.quantise %x scale(%s : tensor<f32>) into %q : tensor<4x8xbf16>, tensor<4x8xui8> -> tensor<4x8xui8>
// CHECK: vpu.quantise: x must have element type f32, got bf16

// -----
%x, %s, %q = "test.op"() : () -> (tensor<4x8xf32>, tensor<f32>, tensor<4x8xi32>)
%r = vpu.quantise %x scale(%s : tensor<f32>) into %q : tensor<4x8xf32>, tensor<4x8xi32> -> tensor<4x8xi32>
// CHECK: vpu.quantise: the init must have element type ui8 or i8, got i32

// -----
%x, %s, %q = "test.op"() : () -> (tensor<4x8xf32>, tensor<f32>, tensor<8xui8>)
%r = vpu.quantise %x scale(%s : tensor<f32>) into %q : tensor<4x8xf32>, tensor<8xui8> -> tensor<8xui8>
// CHECK: vpu.quantise: the init must have shape [4, 8], got [8]

// -----
%x, %s, %q = "test.op"() : () -> (tensor<4x8xf32>, tensor<bf16>, tensor<4x8xui8>)
%r = vpu.quantise %x scale(%s : tensor<bf16>) into %q : tensor<4x8xf32>, tensor<4x8xui8> -> tensor<4x8xui8>
// CHECK: vpu.quantise: scale must have element type f32, got bf16

// -----
%x, %s, %q = "test.op"() : () -> (tensor<4x8xf32>, tensor<8xf32>, tensor<4x8xui8>)
%r = vpu.quantise %x scale(%s : tensor<8xf32>) into %q {axis = 2 : i64} : tensor<4x8xf32>, tensor<4x8xui8> -> tensor<4x8xui8>
// CHECK: vpu.quantise: axis must be -1 (none) to 1, got 2

// -----
%x, %s, %q = "test.op"() : () -> (tensor<4x8xf32>, tensor<4xf32>, tensor<4x8xui8>)
%r = vpu.quantise %x scale(%s : tensor<4xf32>) into %q {axis = 1 : i64} : tensor<4x8xf32>, tensor<4x8xui8> -> tensor<4x8xui8>
// CHECK: vpu.quantise: scale must have shape [8], got [4]

// -----
%x, %s, %q = "test.op"() : () -> (tensor<4x8xf32>, tensor<8xf32>, tensor<4x8xui8>)
%r = vpu.quantise %x scale(%s : tensor<8xf32>) into %q : tensor<4x8xf32>, tensor<4x8xui8> -> tensor<4x8xui8>
// CHECK: vpu.quantise: scale must have shape [4], got [8]

// -----
%x, %s, %z, %q = "test.op"() : () -> (tensor<4x8xf32>, tensor<f32>, tensor<i8>, tensor<4x8xui8>)
%r = vpu.quantise %x scale(%s : tensor<f32>) zero(%z : tensor<i8>) into %q : tensor<4x8xf32>, tensor<4x8xui8> -> tensor<4x8xui8>
// CHECK: vpu.quantise: zero must have element type ui8, got i8

// -----
%x, %s, %z, %q = "test.op"() : () -> (tensor<4x8xf32>, tensor<f32>, tensor<1xui8>, tensor<4x8xui8>)
%r = vpu.quantise %x scale(%s : tensor<f32>) zero(%z : tensor<1xui8>) into %q : tensor<4x8xf32>, tensor<4x8xui8> -> tensor<4x8xui8>
// CHECK: vpu.quantise: zero must have shape [], got [1]

// -----
%x, %s, %y = "test.op"() : () -> (tensor<4x8xf32>, tensor<f32>, tensor<4x8xf32>)
%r = vpu.dequantise %x scale(%s : tensor<f32>) into %y : tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
// CHECK: vpu.dequantise: x must have element type ui8 or i8 or i32, got f32

// -----
%x, %s, %y = "test.op"() : () -> (tensor<4x8xui8>, tensor<f32>, tensor<4x8xbf16>)
%r = vpu.dequantise %x scale(%s : tensor<f32>) into %y : tensor<4x8xui8>, tensor<4x8xbf16> -> tensor<4x8xbf16>
// CHECK: vpu.dequantise: the init must have element type f32, got bf16

// -----
%x, %q, %s = "test.op"() : () -> (tensor<4x8xi32>, tensor<4x8xui8>, tensor<4xf32>)
%r, %t = vpu.quantise_rows %x into %q, %s : tensor<4x8xi32>, tensor<4x8xui8>, tensor<4xf32> -> tensor<4x8xui8>, tensor<4xf32>
// CHECK: vpu.quantise_rows: x must have element type f32, got i32

// -----
%x, %q, %s = "test.op"() : () -> (tensor<4x8xf32>, tensor<4x8xi8>, tensor<4xf32>)
%r, %t = vpu.quantise_rows %x into %q, %s : tensor<4x8xf32>, tensor<4x8xi8>, tensor<4xf32> -> tensor<4x8xi8>, tensor<4xf32>
// CHECK: vpu.quantise_rows: the init must have element type ui8, got i8

// -----
%x, %q, %s = "test.op"() : () -> (tensor<4x8xf32>, tensor<4x8xui8>, tensor<4xi32>)
%r, %t = vpu.quantise_rows %x into %q, %s : tensor<4x8xf32>, tensor<4x8xui8>, tensor<4xi32> -> tensor<4x8xui8>, tensor<4xi32>
// CHECK: vpu.quantise_rows: scale_init must have element type f32, got i32

// -----
%x, %q, %s = "test.op"() : () -> (tensor<4x8xf32>, tensor<8xui8>, tensor<4xf32>)
%r, %t = vpu.quantise_rows %x into %q, %s : tensor<4x8xf32>, tensor<8xui8>, tensor<4xf32> -> tensor<8xui8>, tensor<4xf32>
// CHECK: vpu.quantise_rows: the init must have shape [4, 8], got [8]

// -----
%x, %q, %s = "test.op"() : () -> (tensor<4x8xf32>, tensor<4x8xui8>, tensor<8xf32>)
%r, %t = vpu.quantise_rows %x into %q, %s : tensor<4x8xf32>, tensor<4x8xui8>, tensor<8xf32> -> tensor<4x8xui8>, tensor<8xf32>
// CHECK: vpu.quantise_rows: scale_init must have shape [4], got [8]

// -----
%x, %q, %s = "test.op"() : () -> (tensor<4x8xf32>, tensor<4x8xui8>, tensor<4xf32>)
%r, %t = vpu.quantise_rows %x into %q, %s {zero = 200 : i32} : tensor<4x8xf32>, tensor<4x8xui8>, tensor<4xf32> -> tensor<4x8xui8>, tensor<4xf32>
// CHECK: vpu.quantise_rows: zero must be 0 to 128, got 200

// -----
%x, %t, %q = "test.op"() : () -> (tensor<4xi8>, tensor<256xui8>, tensor<4xui8>)
%r = vpu.table %x, %t into %q : tensor<4xi8>, tensor<256xui8>, tensor<4xui8> -> tensor<4xui8>
// CHECK: vpu.table: x must have element type ui8, got i8

// -----
%x, %t, %q = "test.op"() : () -> (tensor<4xui8>, tensor<256xi8>, tensor<4xui8>)
%r = vpu.table %x, %t into %q : tensor<4xui8>, tensor<256xi8>, tensor<4xui8> -> tensor<4xui8>
// CHECK: vpu.table: table must have element type ui8 or f32, got i8

// -----
%x, %t, %q = "test.op"() : () -> (tensor<4xui8>, tensor<128xui8>, tensor<4xui8>)
%r = vpu.table %x, %t into %q : tensor<4xui8>, tensor<128xui8>, tensor<4xui8> -> tensor<4xui8>
// CHECK: vpu.table: table must have shape [256], got [128]

// -----
%x, %t, %q = "test.op"() : () -> (tensor<4xui8>, tensor<256xui8>, tensor<5xui8>)
%r = vpu.table %x, %t into %q : tensor<4xui8>, tensor<256xui8>, tensor<5xui8> -> tensor<5xui8>
// CHECK: vpu.table: the init must have shape [4], got [5]

// -----
%x, %k, %q, %s = "test.op"() : () -> (tensor<4x8xf32>, tensor<8xbf16>, tensor<4x8xui8>, tensor<4xf32>)
%r, %t = vpu.quantise_rows %x columns(%k : tensor<8xbf16>) into %q, %s : tensor<4x8xf32>, tensor<4x8xui8>, tensor<4xf32> -> tensor<4x8xui8>, tensor<4xf32>
// CHECK: vpu.quantise_rows: columns must have element type f32, got bf16

// -----
%x, %k, %q, %s = "test.op"() : () -> (tensor<4x8xf32>, tensor<4xf32>, tensor<4x8xui8>, tensor<4xf32>)
%r, %t = vpu.quantise_rows %x columns(%k : tensor<4xf32>) into %q, %s : tensor<4x8xf32>, tensor<4x8xui8>, tensor<4xf32> -> tensor<4x8xui8>, tensor<4xf32>
// CHECK: vpu.quantise_rows: columns must have shape [8], got [4]

// -----
%x, %g, %q, %s = "test.op"() : () -> (tensor<4x1040xf32>, tensor<1040xf32>, tensor<4x1040xui8>, tensor<4xf32>)
%r, %t = vpu.layer_norm_rows %x, %g, %g into %q, %s {epsilon = 0.5 : f32} : tensor<4x1040xf32>, tensor<1040xf32>, tensor<1040xf32>, tensor<4x1040xui8>, tensor<4xf32> -> tensor<4x1040xui8>, tensor<4xf32>
// CHECK: vpu.layer_norm_rows: rows must have at most 1024 elements

// -----
%x, %g, %b, %q, %s = "test.op"() : () -> (tensor<4x8xf32>, tensor<8xf32>, tensor<4xf32>, tensor<4x8xui8>, tensor<4xf32>)
%r, %t = vpu.layer_norm_rows %x, %g, %b into %q, %s {epsilon = 0.5 : f32} : tensor<4x8xf32>, tensor<8xf32>, tensor<4xf32>, tensor<4x8xui8>, tensor<4xf32> -> tensor<4x8xui8>, tensor<4xf32>
// CHECK: vpu.layer_norm_rows: beta must have shape [8], got [4]

// -----
%x, %s, %z, %q = "test.op"() : () -> (tensor<4x8xf32>, tensor<f32>, tensor<ui8>, tensor<4x8xi8>)
%r = vpu.quantise_product %x, %x scale(%s : tensor<f32>) zero(%z : tensor<ui8>) into %q : tensor<4x8xf32>, tensor<4x8xf32>, tensor<4x8xi8> -> tensor<4x8xi8>
// CHECK: vpu.quantise_product: zero must have element type i8, got ui8

// -----
%x, %f, %s, %z, %q = "test.op"() : () -> (tensor<4x8xf32>, tensor<8xf32>, tensor<f32>, tensor<ui8>, tensor<4x8xui8>)
%r = vpu.quantise_product %x, %f scale(%s : tensor<f32>) zero(%z : tensor<ui8>) into %q : tensor<4x8xf32>, tensor<8xf32>, tensor<4x8xui8> -> tensor<4x8xui8>
// CHECK: vpu.quantise_product: factor must have shape [4, 8], got [8]

// -----
%x, %s, %z, %q = "test.op"() : () -> (tensor<4x8xf32>, tensor<4xf32>, tensor<ui8>, tensor<4x8xui8>)
%r = vpu.quantise_product %x, %x scale(%s : tensor<4xf32>) zero(%z : tensor<ui8>) into %q : tensor<4x8xf32>, tensor<4x8xf32>, tensor<4x8xui8> -> tensor<4x8xui8>
// CHECK: vpu.quantise_product: scale must have shape [], got [4]
