// RUN: python -c "import numpy; numpy.savez('%t.npz', x=numpy.float32([[1, 0.3], [-0.2, 2]]))"
// RUN: spu-opt %s -p "choose-precision{feeds=\"%t.npz\" budget=0.4}" | filecheck %s
// RUN: spu-opt %s -p "choose-precision{feeds=\"%t.npz\" budget=0.4},quantise,convert-bf16{marked=true},dce" | filecheck %s --check-prefix AFTER
// RUN: not spu-opt %s -p "choose-precision{feeds=\"%t.npz\" budget=2.0}" 2>&1 | filecheck %s --check-prefix BUDGET
// RUN: not spu-opt %s -p "choose-precision{feeds=\"%t.npz\" tolerance=-1.0}" 2>&1 | filecheck %s --check-prefix TOLERANCE

// The weight of the second product is on INT8's grid, that of the first is not: it gains more.
// CHECK-LABEL: func.func @main
// CHECK:         spu.matmul %x, {{.*}} {layer = "first", precision = "bf16", precision_reason = "INT8 here would cost {{.*}} at the outputs, for 33.33% of the multiply-accumulates"}
// CHECK:         spu.matmul {{.*}} {layer = "second"}

// `quantise` leaves the first, and `convert-bf16` takes it.
// AFTER:         spu.matmul {{.*}}layer = "first"{{.*}} : tensor<?x2xbf16>, tensor<2x2xbf16>, tensor<?x2xf32>
// AFTER:         vpu.quantise_rows
// AFTER:         spu.matmul {{.*}}layer = "second"

// BUDGET:    error: a budget of 2 is not a share of the multiply-accumulates; use a number from 0 to 1
// TOLERANCE: error: a tolerance of -1 is not an error; use a relative error of the outputs
func.func @main(%x : tensor<?x2xf32> {onnx.name = "x", onnx.dim_params = "0:n"}) -> (tensor<?x4xf32>) {
  %i = arith.constant 0 : index
  %d = tensor.dim %x, %i : tensor<?x2xf32>
  %w = antoum.constant dense<[[2.0, -1.01], [0.33, 0.2]]> : tensor<2x2xf32> : tensor<2x2xf32>
  %v = antoum.constant dense<[[127.0, -1.0], [1.0, 127.0], [127.0, 3.0], [127.0, 5.0]]> : tensor<4x2xf32> : tensor<4x2xf32>
  %e = tensor.empty(%d) : tensor<?x2xf32>
  %f = tensor.empty(%d) : tensor<?x4xf32>
  %y = spu.matmul %x, %w into %e {layer = "first"} : tensor<?x2xf32>, tensor<2x2xf32>, tensor<?x2xf32> -> tensor<?x2xf32>
  %z = spu.matmul %y, %v into %f {layer = "second"} : tensor<?x2xf32>, tensor<4x2xf32>, tensor<?x4xf32> -> tensor<?x4xf32>
  func.return %z : tensor<?x4xf32>
}
