// RUN: not spu-opt %s -p quantise 2>&1 | filecheck %s
// RUN: not spu-opt %s -p "quantise{mode=best}" 2>&1 | filecheck %s --check-prefix MODE

// CHECK: error: node 'stem' (spu.conv): its input has no range from calibration, which static quantisation needs; pass calibration=[feeds...]
// MODE:  error: quantise has no mode 'best'; it is one of auto, dynamic, static
func.func @uncalibrated(%x : tensor<1x2x2x1xf32>) -> tensor<1x2x2x1xf32> {
  %w = antoum.constant dense<1.0> : tensor<1x1x1x1xf32> : tensor<1x1x1x1xf32>
  %e = tensor.empty() : tensor<1x2x2x1xf32>
  %y = spu.conv %x, %w into %e {layer = "stem"} : tensor<1x2x2x1xf32>, tensor<1x1x1x1xf32>, tensor<1x2x2x1xf32> -> tensor<1x2x2x1xf32>
  func.return %y : tensor<1x2x2x1xf32>
}
