// RUN: spu-opt %s -p "group-inputs{width=64},dce" --verify-passes | filecheck %s
// RUN: spu-opt %s -p "group-inputs{width=64},quantise{mode=dynamic},dce" | filecheck %s --check-prefix ROWS
// RUN: spu-opt %s -p "group-inputs{width=192},dce" | filecheck %s --check-prefix SAME
// RUN: not spu-opt %s -p "group-inputs{width=48}" 2>&1 | filecheck %s --check-prefix BANK

// Two products read the same two groups, cut once. The bias and the residual belong to the first
// product of a chain, the activation to the last; rows of a group are quantised with its factors.
// CHECK-LABEL: func.func @main
// CHECK:         [[B:%.+]] = vpu.slice %g into {{.*}} {starts = array<i64: 0, 64>, steps = array<i64: 1, 1>} : tensor<?x96xf32>, tensor<?x32xf32>
// CHECK:         [[BC:%.+]] = vpu.binary mul [[B]], {{.*}} {row_zero = 20 : i32
// CHECK:         [[A:%.+]] = vpu.slice %g into {{.*}} {starts = array<i64: 0, 0>, steps = array<i64: 1, 1>} : tensor<?x96xf32>, tensor<?x64xf32>
// CHECK:         [[AC:%.+]] = vpu.binary mul [[A]], {{.*}} {row_zero = 20 : i32
// CHECK:         [[P:%.+]] = spu.matmul [[AC]], {{%.+}} bias(%b : tensor<8xf32>) residual(%r : tensor<?x8xf32>) into {{%[0-9]+}} :
// CHECK:         spu.matmul [[BC]], {{%.+}} residual([[P]] : tensor<?x8xf32>) into %f {activation = #spu<activation relu>}
// CHECK-NOT:     vpu.slice
// CHECK:         [[Q:%.+]] = spu.matmul [[AC]], {{%.+}} into {{%[0-9]+}} :
// CHECK:         spu.matmul [[BC]], {{%.+}} residual([[Q]] : tensor<?x8xf32>) into %f :

// ROWS:          vpu.quantise_rows {{%.+}} columns({{%.+}} : tensor<32xf32>) into {{.*}}zero = 20 : i32
// ROWS:          vpu.quantise_rows {{%.+}} columns({{%.+}} : tensor<64xf32>) into {{.*}}zero = 20 : i32
// ROWS-NOT:      vpu.quantise_rows

// SAME-NOT:      vpu.slice
// BANK: groups of 48 inputs
func.func @main(%x : tensor<?x96xf32> {onnx.name = "x", onnx.dim_params = "0:n"}, %r : tensor<?x8xf32> {onnx.name = "r", onnx.dim_params = "0:n"}) -> (tensor<?x8xf32>, tensor<?x8xf32>) {
  %i = arith.constant 0 : index
  %d = tensor.dim %x, %i : tensor<?x96xf32>
  %w = antoum.constant dense<0.5> : tensor<8x96xf32> : tensor<8x96xf32>
  %v = antoum.constant dense<0.25> : tensor<8x96xf32> : tensor<8x96xf32>
  %c = antoum.constant dense<2.0> : tensor<96xf32> : tensor<96xf32>
  %b = antoum.constant dense<1.0> : tensor<8xf32> : tensor<8xf32>
  %e = tensor.empty(%d) : tensor<?x96xf32>
  %f = tensor.empty(%d) : tensor<?x8xf32>
  %g = vpu.unary gelu %x into %e : tensor<?x96xf32>, tensor<?x96xf32> -> tensor<?x96xf32>
  %s = vpu.binary mul %g, %c into %e {row_zero = 20 : i32} : tensor<?x96xf32>, tensor<96xf32>, tensor<?x96xf32> -> tensor<?x96xf32>
  %y = spu.matmul %s, %w bias(%b : tensor<8xf32>) residual(%r : tensor<?x8xf32>) into %f {activation = #spu<activation relu>} : tensor<?x96xf32>, tensor<8x96xf32>, tensor<?x8xf32> -> tensor<?x8xf32>
  %z = spu.matmul %s, %v into %f : tensor<?x96xf32>, tensor<8x96xf32>, tensor<?x8xf32> -> tensor<?x8xf32>
  func.return %y, %z : tensor<?x8xf32>, tensor<?x8xf32>
}
