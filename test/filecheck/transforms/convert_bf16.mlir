// RUN: spu-opt %s -p "convert-bf16,dce" | filecheck %s
// RUN: spu-opt %s -p "convert-bf16{chain=false},dce" | filecheck %s --check-prefix APART

// x is cast once for both products; the first one's result, which only a product reads, is
// stored as bf16.
// CHECK-LABEL: func.func @chain
// CHECK:         [[X:%.+]] = vpu.cast %x into {{.*}} : tensor<?x2xf32>, tensor<?x2xbf16>
// CHECK-NOT:     vpu.cast
// CHECK:         [[Y:%.+]] = spu.matmul [[X]], {{.*}} {activation = #spu<activation relu>} : tensor<?x2xbf16>, tensor<2x2xbf16>, tensor<?x2xbf16>
// CHECK:         [[Z:%.+]] = spu.matmul [[Y]], {{.*}} residual(%x : tensor<?x2xf32>) {{.*}} tensor<?x2xf32>
// CHECK:         [[U:%.+]] = spu.matmul [[X]], {{.*}} tensor<?x2xf32>
// APART-LABEL: func.func @chain
// APART:         spu.matmul
// APART:         vpu.cast
// APART:         spu.matmul
func.func @chain(%x : tensor<?x2xf32>) -> (tensor<?x2xf32>, tensor<?x2xf32>) {
  %i = arith.constant 0 : index
  %d = tensor.dim %x, %i : tensor<?x2xf32>
  %w = antoum.constant dense<[[2.0, -1.0], [0.0, 0.0]]> : tensor<2x2xf32> : tensor<2x2xf32>
  %e = tensor.empty(%d) : tensor<?x2xf32>
  %y = spu.matmul %x, %w into %e {activation = #spu<activation relu>} : tensor<?x2xf32>, tensor<2x2xf32>, tensor<?x2xf32> -> tensor<?x2xf32>
  %z = spu.matmul %y, %w residual(%x : tensor<?x2xf32>) into %e : tensor<?x2xf32>, tensor<2x2xf32>, tensor<?x2xf32> -> tensor<?x2xf32>
  %u = spu.matmul %x, %w into %e : tensor<?x2xf32>, tensor<2x2xf32>, tensor<?x2xf32> -> tensor<?x2xf32>
  func.return %z, %u : tensor<?x2xf32>, tensor<?x2xf32>
}
