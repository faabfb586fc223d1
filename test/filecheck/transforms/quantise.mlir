// RUN: spu-opt %s -p quantise | filecheck %s

// A matrix product is quantised row by row; both products share one quantised x. The step of the
// weight is the one that suits its row best.
// CHECK-LABEL: func.func @rows
// CHECK:         [[Q:%.+]], [[S:%.+]] = vpu.quantise_rows %x into {{.*}} : tensor<?x2xf32>, tensor<?x2xui8>, tensor<?xf32>
// CHECK:         [[Z:%.+]] = vpu.expand {{.*}} : tensor<ui8>, tensor<?xui8>
// CHECK:         [[X:%.+]] = vpu.dequantise [[Q]] scale([[S]] : tensor<?xf32>) zero([[Z]] : tensor<?xui8>)
// CHECK:         antoum.constant dense<{{\[\[}}{{[0-9]+}}, -{{[0-9]+}}], [0, 0]]> : tensor<2x2xi8>
// CHECK-NEXT:    antoum.constant dense<[0.01{{.*}}, 1.000000e+00]> : tensor<2xf32>
// CHECK:         [[W:%.+]] = vpu.dequantise {{.*}} {axis = 0 : i64}
// CHECK:         spu.matmul [[X]], [[W]]
// CHECK:         spu.matmul [[X]], [[W]]
func.func @rows(%x : tensor<?x2xf32>) -> (tensor<?x2xf32>, tensor<?x2xf32>) {
  %i = arith.constant 0 : index
  %d = tensor.dim %x, %i : tensor<?x2xf32>
  %w = antoum.constant dense<[[2.0, -1.0], [0.0, 0.0]]> : tensor<2x2xf32> : tensor<2x2xf32>
  %e = tensor.empty(%d) : tensor<?x2xf32>
  %y = spu.matmul %x, %w into %e : tensor<?x2xf32>, tensor<2x2xf32>, tensor<?x2xf32> -> tensor<?x2xf32>
  %z = spu.matmul %x, %w into %e : tensor<?x2xf32>, tensor<2x2xf32>, tensor<?x2xf32> -> tensor<?x2xf32>
  func.return %y, %z : tensor<?x2xf32>, tensor<?x2xf32>
}
