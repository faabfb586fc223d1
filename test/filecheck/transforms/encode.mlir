// RUN: spu-opt %s -p encode --split-input-file | filecheck %s

// All ones need every slot; f32 has no slots at all. (Sparse weights: test_sparsify.py.)
// CHECK-LABEL: func.func @dense
// CHECK:         spu.matmul {{.*}}density = 1.000000e+00 : f32, format = "dense", dense_reason = "it would run 64.0 of 64 slots a bank"{{.*}} tensor<16x64xi8>
// CHECK:         spu.matmul {{.*}}format = "dense", dense_reason = "f32 weights are always dense"
func.func @dense(%x : tensor<4x64xui8>, %z : tensor<4x64xf32>) -> (tensor<4x16xf32>, tensor<4x16xf32>) {
  %w = antoum.constant dense<1> : tensor<16x64xi8> : tensor<16x64xi8>
  %s = antoum.constant dense<1.0> : tensor<16xf32> : tensor<16xf32>
  %v = antoum.constant dense<1.0> : tensor<16x64xf32> : tensor<16x64xf32>
  %e = tensor.empty() : tensor<4x16xf32>
  %y = spu.matmul %x, %w scale(%s : tensor<16xf32>) into %e : tensor<4x64xui8>, tensor<16x64xi8>, tensor<4x16xf32> -> tensor<4x16xf32>
  %u = spu.matmul %z, %v into %e : tensor<4x64xf32>, tensor<16x64xf32>, tensor<4x16xf32> -> tensor<4x16xf32>
  func.return %y, %u : tensor<4x16xf32>, tensor<4x16xf32>
}

// -----

// A weight of zeros runs no slots: it is ragged.
// CHECK-LABEL: func.func @nothing
// CHECK:         [[W:%.+]] = antoum.constant dense<0> : tensor<16x64xi8> : tensor<16x64xi8, #spu.banked<bank = 64, slots = 0, share = 1>>
// CHECK:         spu.matmul %x, [[W]] {{.*}}density = 0.000000e+00 : f32, format = "ragged 0.0/64"
func.func @nothing(%x : tensor<4x64xui8>) -> tensor<4x16xf32> {
  %w = antoum.constant dense<0> : tensor<16x64xi8> : tensor<16x64xi8>
  %s = antoum.constant dense<1.0> : tensor<16xf32> : tensor<16xf32>
  %e = tensor.empty() : tensor<4x16xf32>
  %y = spu.matmul %x, %w scale(%s : tensor<16xf32>) into %e : tensor<4x64xui8>, tensor<16x64xi8>, tensor<4x16xf32> -> tensor<4x16xf32>
  func.return %y : tensor<4x16xf32>
}

// RUN: spu-opt %s -p 'encode{format="dense"}' --split-input-file | filecheck %s --check-prefix DENSE
// DENSE-LABEL: func.func @nothing
// DENSE:         format = "dense", dense_reason = "dense was asked for"
