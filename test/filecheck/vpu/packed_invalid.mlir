// RUN: spu-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

%x, %y = "test.op"() : () -> (tensor<2x5xf32>, tensor<3xi64>)
%r = vpu.row_offsets %x into %y : tensor<2x5xf32>, tensor<3xi64> -> tensor<3xi64>
// CHECK: vpu.row_offsets: x must have element type i1, got f32

// -----
%x, %y = "test.op"() : () -> (tensor<2x5x1xi1>, tensor<3xi64>)
%r = vpu.row_offsets %x into %y : tensor<2x5x1xi1>, tensor<3xi64> -> tensor<3xi64>
// CHECK: vpu.row_offsets: x must be [batch, seq], got [2, 5, 1]

// -----
%x, %y = "test.op"() : () -> (tensor<2x5xi1>, tensor<2xi64>)
%r = vpu.row_offsets %x into %y : tensor<2x5xi1>, tensor<2xi64> -> tensor<2xi64>
// CHECK: vpu.row_offsets: the init must have shape [3], got [2]

// -----
%x, %o, %y = "test.op"() : () -> (tensor<2x5x8xf32>, tensor<3xi64>, tensor<?x8xi8>)
%r = vpu.pack_rows %x, %o into %y : tensor<2x5x8xf32>, tensor<3xi64>, tensor<?x8xi8> -> tensor<?x8xi8>
// CHECK: vpu.pack_rows: the init must have element type f32, got i8

// -----
%x, %o, %y = "test.op"() : () -> (tensor<2x5x8xf32>, tensor<3xi32>, tensor<?x8xf32>)
%r = vpu.pack_rows %x, %o into %y : tensor<2x5x8xf32>, tensor<3xi32>, tensor<?x8xf32> -> tensor<?x8xf32>
// CHECK: vpu.pack_rows: offsets must have element type i64, got i32

// -----
%x, %o, %y = "test.op"() : () -> (tensor<2x5x8xf32>, tensor<3xi64>, tensor<?x5x8xf32>)
%r = vpu.pack_rows %x, %o into %y : tensor<2x5x8xf32>, tensor<3xi64>, tensor<?x5x8xf32> -> tensor<?x5x8xf32>
// CHECK: vpu.pack_rows: [batch, seq, ...] and [rows, ...] must agree behind their first axes, got [2, 5, 8] and [?, 5, 8]

// -----
%x, %o, %y = "test.op"() : () -> (tensor<?x8xf32>, tensor<2xi64>, tensor<2x5x8xf32>)
%r = vpu.unpack_rows %x, %o into %y : tensor<?x8xf32>, tensor<2xi64>, tensor<2x5x8xf32> -> tensor<2x5x8xf32>
// CHECK: vpu.unpack_rows: offsets must have shape [3], got [2]
