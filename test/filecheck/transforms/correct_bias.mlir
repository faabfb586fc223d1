// RUN: python -c "import numpy; numpy.savez('%t.npz', x=numpy.float32([[127, 127], [127, -127]]))"
// RUN: spu-opt %s -p "correct-bias{feeds=\"%t.npz\"},dce" | filecheck %s

// Both feeds are on the grid of rows, so the weight's rounding is the only error: 0.25 becomes 0,
// 0.75 becomes 1. The mean x is (127, 0): the first channel loses 0.25 * 127 = 31.75, which its
// new bias gives back; the second gains as much, which is taken off the bias that it had.
// CHECK-LABEL: func.func @main
// CHECK:         [[B:%.+]] = antoum.constant dense<[3.175000e+01, -3.075000e+01]> : tensor<2xf32>
// CHECK:         spu.matmul %x, {{.*}} bias([[B]] : tensor<2xf32>)
func.func @main(%x : tensor<?x2xf32> {onnx.name = "x", onnx.dim_params = "0:n"}) -> (tensor<?x2xf32>) {
  %i = arith.constant 0 : index
  %d = tensor.dim %x, %i : tensor<?x2xf32>
  %w = antoum.constant dense<[[0.25, 127.0], [0.75, 127.0]]> : tensor<2x2xf32> : tensor<2x2xf32>
  %b = antoum.constant dense<[0.0, 1.0]> : tensor<2xf32> : tensor<2xf32>
  %e = tensor.empty(%d) : tensor<?x2xf32>
  %y = spu.matmul %x, %w bias(%b : tensor<2xf32>) into %e : tensor<?x2xf32>, tensor<2x2xf32>, tensor<?x2xf32> -> tensor<?x2xf32>
  func.return %y : tensor<?x2xf32>
}
