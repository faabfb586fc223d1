// RUN: not spu-opt %s -p skip-padding 2>&1 | filecheck %s

// CHECK: padding cannot be skipped: no input marks it for attention; it has no mask
// CHECK-SAME: compile it with padding="compute"
func.func @unmasked(%x: tensor<2x4x8xf32>) -> tensor<2x4x8xf32> {
  %e = tensor.empty() : tensor<2x4x8xf32>
  %z = spu.attention %x, %x, %x into %e {layer = "att", heads = 2 : i64, kv_heads = 2 : i64, scale = 0.5 : f32} : tensor<2x4x8xf32>, tensor<2x4x8xf32>, tensor<2x4x8xf32>, tensor<2x4x8xf32> -> tensor<2x4x8xf32>
  func.return %z : tensor<2x4x8xf32>
}
