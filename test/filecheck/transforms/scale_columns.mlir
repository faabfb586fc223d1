// RUN: python -c "import numpy as n; n.savez('%t.npz', x=n.random.default_rng(0).standard_normal((512, 4)).astype('f4') * n.float32([30, 1, 1, 1]))"
// RUN: python -c "import numpy as n; n.savez('%t.few.npz', x=n.random.default_rng(0).standard_normal((64, 4)).astype('f4') * n.float32([30, 1, 1, 1]))"
// RUN: spu-opt %s -p "scale-columns{feeds=\"%t.npz\"},dce" | filecheck %s
// RUN: spu-opt %s -p "scale-columns{feeds=\"%t.npz\"},quantise{mode=dynamic},dce" | filecheck %s --check-prefix ROWS
// RUN: spu-opt %s -p "scale-columns{feeds=\"%t.few.npz\"},dce" | filecheck %s --check-prefix SAME
// RUN: spu-opt %s -p "scale-columns{feeds=\"%t.npz\" mode=static},dce" | filecheck %s --check-prefix SAME

// The first column of the GELU is thirty times the others, and decides the steps of its rows. It
// becomes smaller and its weights larger; what else reads the GELU reads what it read.
// CHECK-LABEL: func.func @main
// CHECK:         [[G:%.+]] = vpu.unary gelu %x
// CHECK:         [[C:%.+]] = antoum.constant dense<[0.{{[0-9.e-]+, [1-9][0-9.e+]+}}, {{.*}}]> : tensor<4xf32>
// CHECK:         [[M:%.+]] = vpu.binary mul [[G]], [[C]] into {{.*}} {row_zero = {{[0-9]+}} : i32, layer = "gelu"}
// CHECK:         spu.matmul [[M]], {{%.+}} residual([[G]] : tensor<?x4xf32>)

// ROWS:         [[G:%.+]] = vpu.unary gelu %x
// ROWS:         vpu.quantise_rows [[G]] columns({{%.+}} : tensor<4xf32>) into {{.*}} {{{.*}}zero = {{[0-9]+}} : i32{{.*}}} : tensor<?x4xf32>, tensor<?x4xui8>, tensor<?xf32>
// ROWS-NOT:     vpu.binary

// SAME:         [[G:%.+]] = vpu.unary gelu %x
// SAME-NOT:     vpu.binary
// SAME:         spu.matmul [[G]], {{%.+}} residual([[G]] : tensor<?x4xf32>)
func.func @main(%x : tensor<?x4xf32> {onnx.name = "x", onnx.dim_params = "0:n"}) -> (tensor<?x4xf32>) {
  %i = arith.constant 0 : index
  %d = tensor.dim %x, %i : tensor<?x4xf32>
  %w = antoum.constant dense<[[0.1, 1.0, 1.0, 1.0], [0.0, 1.0, -1.0, 1.0], [0.1, -1.0, 1.0, 1.0], [0.05, 1.0, 1.0, -1.0]]> : tensor<4x4xf32> : tensor<4x4xf32>
  %e = tensor.empty(%d) : tensor<?x4xf32>
  %n = vpu.unary gelu %x into %e {layer = "gelu"} : tensor<?x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  %y = spu.matmul %n, %w residual(%n : tensor<?x4xf32>) into %e : tensor<?x4xf32>, tensor<4x4xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  func.return %y : tensor<?x4xf32>
}
