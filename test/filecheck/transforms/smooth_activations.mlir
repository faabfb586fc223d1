// RUN: python -c "import numpy; numpy.savez('%t.npz', x=numpy.float32([[1, -1], [-1, 1]]))"
// RUN: spu-opt %s -p "smooth-activations{feeds=\"%t.npz\"},cse,dce" | filecheck %s
// RUN: not spu-opt %s -p "smooth-activations{feeds=\"%t.npz\" strength=2.0}" 2>&1 | filecheck %s --check-prefix STRENGTH

// The columns of what is normalised reach 16 and 1, those of the weight 1: half of the difference,
// factors of 2 and 1/2 around their mean, goes into the weight. The residual reads what it read.
// CHECK-LABEL: func.func @main
// CHECK:         [[W:%.+]] = antoum.constant dense<{{\[\[}}2.000000e+00, 5.000000e-01], [0.000000e+00, 5.000000e-01]]> : tensor<2x2xf32>
// CHECK:         [[OLD:%.+]] = vpu.layer_norm %x, %g
// CHECK:         [[G:%.+]] = antoum.constant dense<[8.000000e+00, 2.000000e+00]> : tensor<2xf32>
// CHECK:         [[NEW:%.+]] = vpu.layer_norm %x, [[G]]
// CHECK:         spu.matmul [[NEW]], [[W]] residual([[OLD]] : tensor<?x2xf32>)

// STRENGTH: error: a smoothing strength of 2 is not from 0 to 1
func.func @main(%x : tensor<?x2xf32> {onnx.name = "x", onnx.dim_params = "0:n"}) -> (tensor<?x2xf32>) {
  %i = arith.constant 0 : index
  %d = tensor.dim %x, %i : tensor<?x2xf32>
  %g = antoum.constant dense<[16.0, 1.0]> : tensor<2xf32> : tensor<2xf32>
  %w = antoum.constant dense<[[1.0, 1.0], [0.0, 1.0]]> : tensor<2x2xf32> : tensor<2x2xf32>
  %e = tensor.empty(%d) : tensor<?x2xf32>
  %n = vpu.layer_norm %x, %g into %e {epsilon = 0.0 : f32} : tensor<?x2xf32>, tensor<2xf32>, tensor<?x2xf32> -> tensor<?x2xf32>
  %y = spu.matmul %n, %w residual(%n : tensor<?x2xf32>) into %e : tensor<?x2xf32>, tensor<2x2xf32>, tensor<?x2xf32> -> tensor<?x2xf32>
  func.return %y : tensor<?x2xf32>
}
