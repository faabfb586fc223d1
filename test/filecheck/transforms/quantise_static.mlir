// RUN: spu-opt %s -p "quantise{mode=static},cse" | filecheck %s

// A convolution is quantised statically, with the ranges that calibration left: x's covers 256
// steps from -1 to 4, so the zero point is 51. The pool's input and output share one grid, and a
// residual is quantised with the tensor that it is.
// CHECK-LABEL: func.func @static
// CHECK:         [[SX:%.+]] = antoum.constant dense<0.0196078438> : tensor<f32>
// CHECK:         [[ZX:%.+]] = antoum.constant dense<51> : tensor<ui8>
// CHECK:         [[QX:%.+]] = vpu.quantise %x scale([[SX]] : tensor<f32>) zero([[ZX]] : tensor<ui8>)
// CHECK:         [[X:%.+]] = vpu.dequantise [[QX]]
// CHECK:         [[Y:%.+]] = spu.conv [[X]]
// CHECK:         [[QY:%.+]] = vpu.quantise [[Y]]
// CHECK:         [[DY:%.+]] = vpu.dequantise [[QY]]
// CHECK:         [[OUT:%.+]] = spu.conv [[DY]], {{.*}} residual([[DY]] : tensor<1x2x2x1xf32>)
// CHECK-NEXT:    func.return [[OUT]]
func.func @static(%x : tensor<1x2x2x1xf32> {range = array<f32: -1.0, 4.0>}) -> tensor<1x2x2x1xf32> {
  %w = antoum.constant dense<1.0> : tensor<1x1x1x1xf32> : tensor<1x1x1x1xf32>
  %e = tensor.empty() : tensor<1x2x2x1xf32>
  %y = spu.conv %x, %w into %e {range = array<f32: -1.0, 4.0>} : tensor<1x2x2x1xf32>, tensor<1x1x1x1xf32>, tensor<1x2x2x1xf32> -> tensor<1x2x2x1xf32>
  %z = spu.conv %y, %w residual(%y : tensor<1x2x2x1xf32>) into %e : tensor<1x2x2x1xf32>, tensor<1x1x1x1xf32>, tensor<1x2x2x1xf32> -> tensor<1x2x2x1xf32>
  func.return %z : tensor<1x2x2x1xf32>
}
