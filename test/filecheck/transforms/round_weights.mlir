// RUN: python -c "import numpy; numpy.savez('%t.npz', x=numpy.float32([[1, 1, 1, 1, 0], [2, 2, 2, 2, 0], [-3, -3, -3, -3, 0]] * 4))"
// RUN: python -c "import numpy; numpy.savez('%t.few.npz', x=numpy.float32([[1, 1, 1, 1, 0], [2, 2, 2, 2, 0], [-3, -3, -3, -3, 0]] * 3))"
// RUN: spu-opt %s -p "round-weights{feeds=\"%t.npz\"},cse,dce" | filecheck %s
// RUN: spu-opt %s -p "round-weights{feeds=\"%t.few.npz\"},cse,dce" | filecheck %s --check-prefix FEW

// The first four inputs are always equal. In steps of 1 / 127 their weights are 45.0, 49.8, 60.8
// and 22.7; to the nearest, 45, 50, 61 and 23, they would add up to 0.7 too much, so that the last
// becomes 22. The largest and zeros stay. The product gets a bias, which takes the mean error: none.
// CHECK-LABEL: func.func @main
// CHECK:         [[W:%.+]] = antoum.constant dense<{{\[\[}}0.354330{{[0-9]*}}, 0.393700{{[0-9]*}}, 0.480314{{[0-9]*}}, 0.173228{{[0-9]*}}, 1.000000e+00], [0.000000e+00, 1.000000e+00, 0.000000e+00, 0.000000e+00, 0.000000e+00]]> : tensor<2x5xf32>
// CHECK:         [[B:%.+]] = antoum.constant dense<0.000000e+00> : tensor<2xf32>
// CHECK:         spu.matmul %x, [[W]] bias([[B]] : tensor<2xf32>) into

// Nine rows are fewer than two for each of five inputs: weights stay for `quantise` to round.
// FEW:           antoum.constant dense<{{\[\[}}3.540000e-01, 3.920000e-01, 4.790000e-01, 1.790000e-01, 1.000000e+00]
func.func @main(%x : tensor<?x5xf32> {onnx.name = "x", onnx.dim_params = "0:n"}) -> (tensor<?x2xf32>) {
  %i = arith.constant 0 : index
  %d = tensor.dim %x, %i : tensor<?x5xf32>
  %w = antoum.constant dense<[[0.354, 0.392, 0.479, 0.179, 1.0], [0.0, 1.0, 0.0, 0.0, 0.0]]> : tensor<2x5xf32> : tensor<2x5xf32>
  %e = tensor.empty(%d) : tensor<?x2xf32>
  %y = spu.matmul %x, %w into %e : tensor<?x5xf32>, tensor<2x5xf32>, tensor<?x2xf32> -> tensor<?x2xf32>
  func.return %y : tensor<?x2xf32>
}
