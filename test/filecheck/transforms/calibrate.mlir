// RUN: not spu-opt %s -p "calibrate{feeds=\"%t.missing.npz\"}" 2>&1 | filecheck %s
// RUN: not spu-opt %s -p "calibrate{feeds=\"%s\"}" 2>&1 | filecheck %s --check-prefix KIND

// CHECK: error: the feeds in '{{.*}}.missing.npz' cannot be read: {{.*}}; write them with numpy.savez
// KIND:  error: the feeds in '{{.*}}calibrate.mlir' cannot be read: {{.*}}; write them with numpy.savez
func.func @main(%x : tensor<1x2xf32>) -> tensor<1x2xf32> {
  func.return %x : tensor<1x2xf32>
}
