// RUN: spu-opt %s -p normalise-rows,dce | filecheck %s

// Of a normalisation whose rows alone are read, there is nothing between.
// CHECK-LABEL: @rows
// CHECK: %n = tensor.dim %x, %i : tensor<?x8xf32>
// CHECK: %q, %s = vpu.layer_norm_rows %x, %g, %b into %bytes, %scales {layer = "net/product", epsilon = 5.000000e-01 : f32} : tensor<?x8xf32>, tensor<8xf32>, tensor<8xf32>, tensor<?x8xui8>, tensor<?xf32> -> tensor<?x8xui8>, tensor<?xf32>
// CHECK-NEXT: func.return %q, %s, %n
func.func @rows(%x: tensor<?x8xf32>, %g: tensor<8xf32>, %b: tensor<8xf32>, %init: tensor<?x8xf32>, %bytes: tensor<?x8xui8>, %scales: tensor<?xf32>, %i: index) -> (tensor<?x8xui8>, tensor<?xf32>, index) {
  %y = vpu.layer_norm %x, %g beta(%b : tensor<8xf32>) into %init {layer = "net/norm", epsilon = 0.5 : f32} : tensor<?x8xf32>, tensor<8xf32>, tensor<?x8xf32> -> tensor<?x8xf32>
  %n = tensor.dim %y, %i : tensor<?x8xf32>
  %q, %s = vpu.quantise_rows %y into %bytes, %scales {layer = "net/product"} : tensor<?x8xf32>, tensor<?x8xui8>, tensor<?xf32> -> tensor<?x8xui8>, tensor<?xf32>
  func.return %q, %s, %n : tensor<?x8xui8>, tensor<?xf32>, index
}

// CHECK-LABEL: @read_by_a_sum_too
// CHECK: vpu.layer_norm %x
// CHECK: vpu.quantise_rows
func.func @read_by_a_sum_too(%x: tensor<4x8xf32>, %g: tensor<8xf32>, %init: tensor<4x8xf32>, %bytes: tensor<4x8xui8>, %scales: tensor<4xf32>) -> (tensor<4x8xui8>, tensor<4xf32>, tensor<4x8xf32>) {
  %y = vpu.layer_norm %x, %g beta(%g : tensor<8xf32>) into %init {epsilon = 0.5 : f32} : tensor<4x8xf32>, tensor<8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %q, %s = vpu.quantise_rows %y into %bytes, %scales : tensor<4x8xf32>, tensor<4x8xui8>, tensor<4xf32> -> tensor<4x8xui8>, tensor<4xf32>
  func.return %q, %s, %y : tensor<4x8xui8>, tensor<4xf32>, tensor<4x8xf32>
}

// CHECK-LABEL: @another_kind
// CHECK: vpu.layer_norm %x, %g into
// CHECK: vpu.quantise_rows
// CHECK: vpu.layer_norm %x, %g beta(%g
// CHECK: vpu.quantise_rows {{.*}} {zero = 40 : i32}
// CHECK: vpu.layer_norm %x, %g beta(%g
// CHECK: vpu.quantise_rows {{.*}} columns(%g
func.func @another_kind(%x: tensor<4x8xf32>, %g: tensor<8xf32>, %init: tensor<4x8xf32>, %bytes: tensor<4x8xui8>, %scales: tensor<4xf32>) -> (tensor<4x8xui8>, tensor<4x8xui8>, tensor<4x8xui8>) {
  %a = vpu.layer_norm %x, %g into %init {epsilon = 0.5 : f32, centre = false} : tensor<4x8xf32>, tensor<8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %aq, %as = vpu.quantise_rows %a into %bytes, %scales : tensor<4x8xf32>, tensor<4x8xui8>, tensor<4xf32> -> tensor<4x8xui8>, tensor<4xf32>
  %b = vpu.layer_norm %x, %g beta(%g : tensor<8xf32>) into %init {epsilon = 0.5 : f32} : tensor<4x8xf32>, tensor<8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %bq, %bs = vpu.quantise_rows %b into %bytes, %scales {zero = 40 : i32} : tensor<4x8xf32>, tensor<4x8xui8>, tensor<4xf32> -> tensor<4x8xui8>, tensor<4xf32>
  %c = vpu.layer_norm %x, %g beta(%g : tensor<8xf32>) into %init {epsilon = 0.5 : f32} : tensor<4x8xf32>, tensor<8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %cq, %cs = vpu.quantise_rows %c columns(%g : tensor<8xf32>) into %bytes, %scales : tensor<4x8xf32>, tensor<4x8xui8>, tensor<4xf32> -> tensor<4x8xui8>, tensor<4xf32>
  func.return %aq, %bq, %cq : tensor<4x8xui8>, tensor<4x8xui8>, tensor<4x8xui8>
}

// CHECK-LABEL: @longer
// CHECK: vpu.layer_norm %x
func.func @longer(%x: tensor<2x1040xf32>, %g: tensor<1040xf32>, %init: tensor<2x1040xf32>, %bytes: tensor<2x1040xui8>, %scales: tensor<2xf32>) -> (tensor<2x1040xui8>, tensor<2xf32>) {
  %y = vpu.layer_norm %x, %g beta(%g : tensor<1040xf32>) into %init {epsilon = 0.5 : f32} : tensor<2x1040xf32>, tensor<1040xf32>, tensor<2x1040xf32> -> tensor<2x1040xf32>
  %q, %s = vpu.quantise_rows %y into %bytes, %scales : tensor<2x1040xf32>, tensor<2x1040xui8>, tensor<2xf32> -> tensor<2x1040xui8>, tensor<2xf32>
  func.return %q, %s : tensor<2x1040xui8>, tensor<2xf32>
}
