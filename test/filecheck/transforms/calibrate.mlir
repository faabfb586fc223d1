// RUN: not spu-opt %s -p "calibrate{feeds=\"%t.missing.npz\"}" 2>&1 | filecheck %s
// RUN: not spu-opt %s -p "calibrate{feeds=\"%s\"}" 2>&1 | filecheck %s --check-prefix KIND

// RUN: python -c "import numpy; numpy.savez('%t.npz', x=numpy.float32([[-1] + [2] * 98 + [64]]))"
// RUN: not spu-opt %s -p "calibrate{feeds=\"%t.npz\" observer=\"best\"}" 2>&1 | filecheck %s --check-prefix BEST
// RUN: spu-opt %s -p "calibrate{feeds=\"%t.npz\"}" | filecheck %s --check-prefix ALL
// RUN: spu-opt %s -p "calibrate{feeds=\"%t.npz\" observer=\"percentile:98\"}" | filecheck %s --check-prefix MOST

// Ranges hold all that was seen; those of 98 % leave out one number at each end, and end at the
// edge of a bin, 1/32 wide here.
// ALL:  func.func @main(%x: tensor<1x?xf32> {onnx.name = "x", onnx.dim_params = "1:n", range = array<f32: -1.000000e+00, 6.400000e+01>})
// MOST: func.func @main(%x: tensor<1x?xf32> {onnx.name = "x", onnx.dim_params = "1:n", range = array<f32: 0.000000e+00, 2.031250e+00>})
// BEST: error: there is no observer 'best'; it is one of minmax, percentile, entropy, mse

// CHECK: error: the feeds in '{{.*}}.missing.npz' cannot be read: {{.*}}; write them with numpy.savez
// KIND:  error: the feeds in '{{.*}}calibrate.mlir' cannot be read: {{.*}}; write them with numpy.savez
func.func @main(%x : tensor<1x?xf32> {onnx.name = "x", onnx.dim_params = "1:n"}) -> (tensor<1x?xf32>) {
  func.return %x : tensor<1x?xf32>
}
