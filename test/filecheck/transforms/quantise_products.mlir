// RUN: spu-opt %s -p quantise-products,dce | filecheck %s

// A gate and what it gates become bytes at once.
// CHECK-LABEL: @gated
// CHECK: %n = tensor.dim %x, %i : tensor<?x8xf32>
// CHECK: %q = vpu.quantise_product %x, %gate scale(%s : tensor<f32>) zero(%z : tensor<ui8>) into %bytes {layer = "net/mul"} : tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xui8> -> tensor<?x8xui8>
// CHECK-NEXT: func.return %q, %n
func.func @gated(%x: tensor<?x8xf32>, %gate: tensor<?x8xf32>, %init: tensor<?x8xf32>, %s: tensor<f32>, %z: tensor<ui8>, %bytes: tensor<?x8xui8>, %i: index) -> (tensor<?x8xui8>, index) {
  %y = vpu.binary mul %x, %gate into %init {layer = "net/mul"} : tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32> -> tensor<?x8xf32>
  %n = tensor.dim %y, %i : tensor<?x8xf32>
  %q = vpu.quantise %y scale(%s : tensor<f32>) zero(%z : tensor<ui8>) into %bytes : tensor<?x8xf32>, tensor<?x8xui8> -> tensor<?x8xui8>
  func.return %q, %n : tensor<?x8xui8>, index
}

// CHECK-LABEL: @read_twice
// CHECK: vpu.binary mul
// CHECK: vpu.quantise %
func.func @read_twice(%x: tensor<4x8xf32>, %init: tensor<4x8xf32>, %s: tensor<f32>, %z: tensor<ui8>, %bytes: tensor<4x8xui8>) -> (tensor<4x8xui8>, tensor<4x8xf32>) {
  %y = vpu.binary mul %x, %x into %init : tensor<4x8xf32>, tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %q = vpu.quantise %y scale(%s : tensor<f32>) zero(%z : tensor<ui8>) into %bytes : tensor<4x8xf32>, tensor<4x8xui8> -> tensor<4x8xui8>
  func.return %q, %y : tensor<4x8xui8>, tensor<4x8xf32>
}

// A sum, a factor for each column, a scale for each column, and no zero point.
// CHECK-LABEL: @another_kind
// CHECK-NOT: vpu.quantise_product
// CHECK: func.return
func.func @another_kind(%x: tensor<4x8xf32>, %k: tensor<8xf32>, %init: tensor<4x8xf32>, %s: tensor<f32>, %t: tensor<8xf32>, %z: tensor<ui8>, %zs: tensor<8xui8>, %bytes: tensor<4x8xui8>) -> (tensor<4x8xui8>, tensor<4x8xui8>, tensor<4x8xui8>, tensor<4x8xui8>) {
  %a = vpu.binary add %x, %x into %init : tensor<4x8xf32>, tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %aq = vpu.quantise %a scale(%s : tensor<f32>) zero(%z : tensor<ui8>) into %bytes : tensor<4x8xf32>, tensor<4x8xui8> -> tensor<4x8xui8>
  %b = vpu.binary mul %x, %k into %init : tensor<4x8xf32>, tensor<8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %bq = vpu.quantise %b scale(%s : tensor<f32>) zero(%z : tensor<ui8>) into %bytes : tensor<4x8xf32>, tensor<4x8xui8> -> tensor<4x8xui8>
  %c = vpu.binary mul %x, %x into %init : tensor<4x8xf32>, tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %cq = vpu.quantise %c scale(%t : tensor<8xf32>) zero(%zs : tensor<8xui8>) into %bytes {axis = 1 : i64} : tensor<4x8xf32>, tensor<4x8xui8> -> tensor<4x8xui8>
  %d = vpu.binary mul %x, %x into %init : tensor<4x8xf32>, tensor<4x8xf32>, tensor<4x8xf32> -> tensor<4x8xf32>
  %dq = vpu.quantise %d scale(%s : tensor<f32>) into %bytes : tensor<4x8xf32>, tensor<4x8xui8> -> tensor<4x8xui8>
  func.return %aq, %bq, %cq, %dq : tensor<4x8xui8>, tensor<4x8xui8>, tensor<4x8xui8>, tensor<4x8xui8>
}
