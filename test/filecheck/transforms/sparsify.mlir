// RUN: spu-opt %s -p "sparsify{ratio=16},encode" --split-input-file | filecheck %s
// RUN: spu-opt %s -p "sparsify{ratio=1}" --split-input-file | filecheck %s --check-prefix KEEP

// Of equal weights the first four of each bank of 64 stay.
// CHECK-LABEL: func.func @pruned
// CHECK:         spu.matmul {{.*}} {density = 6.250000e-02 : f32
// KEEP-LABEL:  func.func @pruned
// KEEP:          [[W:%.+]] = antoum.constant dense<1.000000e+00> : tensor<16x128xf32>
// KEEP:          spu.matmul %x, [[W]] into %e :
func.func @pruned(%x : tensor<8x128xf32>) -> tensor<8x16xf32> {
  %w = antoum.constant dense<1.0> : tensor<16x128xf32> : tensor<16x128xf32>
  %e = tensor.empty() : tensor<8x16xf32>
  %y = spu.matmul %x, %w into %e : tensor<8x128xf32>, tensor<16x128xf32>, tensor<8x16xf32> -> tensor<8x16xf32>
  func.return %y : tensor<8x16xf32>
}

// -----

// What is too small stays dense and says why.
// CHECK-LABEL: func.func @small
// CHECK:         spu.matmul {{.*}}dense_reason = "a reduction of 32, less than a bank of 64, is not pruned"
// CHECK:         spu.conv {{.*}}dense_reason = "a convolution of 3 input channels is not pruned"
// CHECK:         spu.conv {{.*}}dense_reason = "a depthwise convolution is not pruned"
func.func @small(%x : tensor<8x32xf32>, %i : tensor<1x7x7x3xf32>) -> (tensor<8x16xf32>, tensor<1x1x1x3xf32>) {
  %w = antoum.constant dense<1.0> : tensor<16x32xf32> : tensor<16x32xf32>
  %e = tensor.empty() : tensor<8x16xf32>
  %y = spu.matmul %x, %w into %e : tensor<8x32xf32>, tensor<16x32xf32>, tensor<8x16xf32> -> tensor<8x16xf32>
  %v = antoum.constant dense<1.0> : tensor<3x5x5x3xf32> : tensor<3x5x5x3xf32>
  %f = tensor.empty() : tensor<1x3x3x3xf32>
  %j = spu.conv %i, %v into %f : tensor<1x7x7x3xf32>, tensor<3x5x5x3xf32>, tensor<1x3x3x3xf32> -> tensor<1x3x3x3xf32>
  %u = antoum.constant dense<1.0> : tensor<3x3x3x1xf32> : tensor<3x3x3x1xf32>
  %g = tensor.empty() : tensor<1x1x1x3xf32>
  %k = spu.conv %j, %u into %g {groups = 3 : i64} : tensor<1x3x3x3xf32>, tensor<3x3x3x1xf32>, tensor<1x1x1x3xf32> -> tensor<1x1x1x3xf32>
  func.return %y, %k : tensor<8x16xf32>, tensor<1x1x1x3xf32>
}
