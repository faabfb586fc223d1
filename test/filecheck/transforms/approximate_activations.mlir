// RUN: spu-opt %s -p approximate-activations | filecheck %s

// What is quantised by row, or stored as bytes, may come from a table.
// CHECK-LABEL: @rows
// CHECK: spu.matmul %x, %w into %init {activation = #spu<activation sfu_gelu>}
func.func @rows(%x: tensor<4x64xf32>, %w: tensor<32x64xf32>, %init: tensor<4x32xf32>, %bytes: tensor<4x32xui8>, %scales: tensor<4xf32>) -> (tensor<4x32xui8>, tensor<4xf32>) {
  %y = spu.matmul %x, %w into %init {activation = #spu.activation gelu} : tensor<4x64xf32>, tensor<32x64xf32>, tensor<4x32xf32> -> tensor<4x32xf32>
  %q, %s = vpu.quantise_rows %y into %bytes, %scales : tensor<4x32xf32>, tensor<4x32xui8>, tensor<4xf32> -> tensor<4x32xui8>, tensor<4xf32>
  func.return %q, %s : tensor<4x32xui8>, tensor<4xf32>
}

// In whatever shape that is done.
// CHECK-LABEL: @reshaped
// CHECK: spu.matmul %x, %w into %init {activation = #spu<activation sfu_gelu>}
func.func @reshaped(%x: tensor<4x64xf32>, %w: tensor<32x64xf32>, %init: tensor<4x32xf32>, %flat: tensor<128xf32>, %bytes: tensor<128xui8>, %scales: tensor<f32>) -> (tensor<128xui8>, tensor<f32>) {
  %y = spu.matmul %x, %w into %init {activation = #spu.activation gelu} : tensor<4x64xf32>, tensor<32x64xf32>, tensor<4x32xf32> -> tensor<4x32xf32>
  %z = vpu.reshape %y into %flat : tensor<4x32xf32>, tensor<128xf32> -> tensor<128xf32>
  %q, %s = vpu.quantise_rows %z into %bytes, %scales : tensor<128xf32>, tensor<128xui8>, tensor<f32> -> tensor<128xui8>, tensor<f32>
  func.return %q, %s : tensor<128xui8>, tensor<f32>
}

// CHECK-LABEL: @bytes
// CHECK: activation = #spu<activation sfu_silu>
func.func @bytes(%x: tensor<4x64xui8>, %w: tensor<32x64xi8>, %s: tensor<32xf32>, %init: tensor<4x32xui8>) -> tensor<4x32xui8> {
  %y = spu.matmul %x, %w scale(%s : tensor<32xf32>) into %init {activation = #spu.activation silu, out_scale = 0.5 : f32, out_zero = 3 : i32} : tensor<4x64xui8>, tensor<32x64xi8>, tensor<4x32xui8> -> tensor<4x32xui8>
  func.return %y : tensor<4x32xui8>
}

// What is read in f32 is not, nor is what is cheap or has no table.
// CHECK-LABEL: @floats
// CHECK: activation = #spu<activation gelu>}
// CHECK: activation = #spu<activation relu>}
func.func @floats(%x: tensor<4x64xf32>, %w: tensor<32x64xf32>, %init: tensor<4x32xf32>, %bytes: tensor<4x32xui8>, %scales: tensor<4xf32>) -> (tensor<4x32xf32>, tensor<4x32xui8>, tensor<4xf32>, tensor<4x32xui8>, tensor<4xf32>) {
  %y = spu.matmul %x, %w into %init {activation = #spu.activation gelu} : tensor<4x64xf32>, tensor<32x64xf32>, tensor<4x32xf32> -> tensor<4x32xf32>
  %q, %s = vpu.quantise_rows %y into %bytes, %scales : tensor<4x32xf32>, tensor<4x32xui8>, tensor<4xf32> -> tensor<4x32xui8>, tensor<4xf32>
  %z = spu.matmul %x, %w into %init {activation = #spu.activation relu} : tensor<4x64xf32>, tensor<32x64xf32>, tensor<4x32xf32> -> tensor<4x32xf32>
  %r, %t = vpu.quantise_rows %z into %bytes, %scales : tensor<4x32xf32>, tensor<4x32xui8>, tensor<4xf32> -> tensor<4x32xui8>, tensor<4xf32>
  func.return %y, %q, %s, %r, %t : tensor<4x32xf32>, tensor<4x32xui8>, tensor<4xf32>, tensor<4x32xui8>, tensor<4xf32>
}

// A gate is multiplied first; but not one that is always small, or of which nothing is known.
// CHECK-LABEL: @gates
// CHECK: range = array<f32: 0.000000e+00, 9.000000e-01>, activation = #spu<activation sfu_sigmoid>
// CHECK: range = array<f32: 0.000000e+00, 1.000000e-01>, activation = #spu<activation sigmoid>
// CHECK: spu.matmul %x, %w into %init {activation = #spu<activation sigmoid>
func.func @gates(%x: tensor<4x64xf32>, %w: tensor<32x64xf32>, %v: tensor<4x32xf32>, %init: tensor<4x32xf32>, %bytes: tensor<4x32xui8>, %scales: tensor<4xf32>) -> (tensor<4x32xui8>, tensor<4xf32>, tensor<4x32xui8>, tensor<4xf32>, tensor<4x32xui8>, tensor<4xf32>) {
  %a = spu.matmul %x, %w into %init {range = array<f32: 0.0, 0.9>, activation = #spu.activation sigmoid} : tensor<4x64xf32>, tensor<32x64xf32>, tensor<4x32xf32> -> tensor<4x32xf32>
  %av = vpu.binary mul %v, %a into %init : tensor<4x32xf32>, tensor<4x32xf32>, tensor<4x32xf32> -> tensor<4x32xf32>
  %aq, %as = vpu.quantise_rows %av into %bytes, %scales : tensor<4x32xf32>, tensor<4x32xui8>, tensor<4xf32> -> tensor<4x32xui8>, tensor<4xf32>
  %b = spu.matmul %x, %w into %init {range = array<f32: 0.0, 0.1>, activation = #spu.activation sigmoid} : tensor<4x64xf32>, tensor<32x64xf32>, tensor<4x32xf32> -> tensor<4x32xf32>
  %bv = vpu.binary mul %v, %b into %init : tensor<4x32xf32>, tensor<4x32xf32>, tensor<4x32xf32> -> tensor<4x32xf32>
  %bq, %bs = vpu.quantise_rows %bv into %bytes, %scales : tensor<4x32xf32>, tensor<4x32xui8>, tensor<4xf32> -> tensor<4x32xui8>, tensor<4xf32>
  %c = spu.matmul %x, %w into %init {activation = #spu.activation sigmoid} : tensor<4x64xf32>, tensor<32x64xf32>, tensor<4x32xf32> -> tensor<4x32xf32>
  %cv = vpu.binary mul %v, %c into %init : tensor<4x32xf32>, tensor<4x32xf32>, tensor<4x32xf32> -> tensor<4x32xf32>
  %cq, %cs = vpu.quantise_rows %cv into %bytes, %scales : tensor<4x32xf32>, tensor<4x32xui8>, tensor<4xf32> -> tensor<4x32xui8>, tensor<4xf32>
  func.return %aq, %as, %bq, %bs, %cq, %cs : tensor<4x32xui8>, tensor<4xf32>, tensor<4x32xui8>, tensor<4xf32>, tensor<4x32xui8>, tensor<4xf32>
}
