// RUN: spu-opt %s -p "prescale-outputs,dce" --split-input-file | filecheck %s

// Scale, bias and residual are counted in steps of the output, which keeps its scale.
// CHECK-LABEL: func.func @layer
// CHECK-DAG:     [[S:%.+]] = antoum.constant dense<[5.000000e-01, 1.000000e+00]> : tensor<2xf32>
// CHECK-DAG:     [[B:%.+]] = antoum.constant dense<[4.000000e+00, -8.000000e+00]> : tensor<2xf32>
// CHECK:         spu.matmul %x, {{%.+}} scale([[S]] : tensor<2xf32>) bias([[B]] : tensor<2xf32>) residual(%r : tensor<4x2xui8>) into %e {activation = #spu<activation relu>, residual_scale = 2.000000e+00 : f32, residual_zero = 1 : i32, out_scale = 2.500000e-01 : f32, out_zero = 3 : i32, prescaled}
func.func @layer(%x : tensor<4x2xui8>, %r : tensor<4x2xui8>, %e : tensor<4x2xui8>) -> tensor<4x2xui8> {
  %w = antoum.constant dense<[[1, -2], [3, 4]]> : tensor<2x2xi8> : tensor<2x2xi8>
  %s = antoum.constant dense<[0.125, 0.25]> : tensor<2xf32> : tensor<2xf32>
  %b = antoum.constant dense<[1.0, -2.0]> : tensor<2xf32> : tensor<2xf32>
  %y = spu.matmul %x, %w scale(%s : tensor<2xf32>) bias(%b : tensor<2xf32>) residual(%r : tensor<4x2xui8>) into %e {activation = #spu.activation relu, residual_scale = 0.5 : f32, residual_zero = 1 : i32, out_scale = 0.25 : f32, out_zero = 3 : i32} : tensor<4x2xui8>, tensor<2x2xi8>, tensor<4x2xui8> -> tensor<4x2xui8>
  func.return %y : tensor<4x2xui8>
}

// -----

// What the factor does not pass through stays as it is: an activation, a residual of numbers, a
// scale that is computed at run time, and one that would lose digits.
// CHECK-LABEL: func.func @kept
// CHECK-NOT:     prescaled
func.func @kept(%x : tensor<4x2xui8>, %r : tensor<4x2xf32>, %given : tensor<2xf32>, %e : tensor<4x2xui8>) -> (tensor<4x2xui8>, tensor<4x2xui8>, tensor<4x2xui8>, tensor<4x2xui8>) {
  %w = antoum.constant dense<[[1, -2], [3, 4]]> : tensor<2x2xi8> : tensor<2x2xi8>
  %s = antoum.constant dense<[0.125, 0.25]> : tensor<2xf32> : tensor<2xf32>
  %tiny = antoum.constant dense<[1.0e-36, 0.25]> : tensor<2xf32> : tensor<2xf32>
  %a = spu.matmul %x, %w scale(%s : tensor<2xf32>) into %e {activation = #spu.activation gelu, out_scale = 0.25 : f32, out_zero = 3 : i32} : tensor<4x2xui8>, tensor<2x2xi8>, tensor<4x2xui8> -> tensor<4x2xui8>
  %b = spu.matmul %x, %w scale(%s : tensor<2xf32>) residual(%r : tensor<4x2xf32>) into %e {out_scale = 0.25 : f32, out_zero = 3 : i32} : tensor<4x2xui8>, tensor<2x2xi8>, tensor<4x2xui8> -> tensor<4x2xui8>
  %c = spu.matmul %x, %w scale(%given : tensor<2xf32>) into %e {out_scale = 0.25 : f32, out_zero = 3 : i32} : tensor<4x2xui8>, tensor<2x2xi8>, tensor<4x2xui8> -> tensor<4x2xui8>
  %d = spu.matmul %x, %w scale(%tiny : tensor<2xf32>) into %e {out_scale = 1000.0 : f32, out_zero = 3 : i32} : tensor<4x2xui8>, tensor<2x2xi8>, tensor<4x2xui8> -> tensor<4x2xui8>
  func.return %a, %b, %c, %d : tensor<4x2xui8>, tensor<4x2xui8>, tensor<4x2xui8>, tensor<4x2xui8>
}

// -----

// A product of bytes that stores numbers has no steps.
// CHECK-LABEL: func.func @numbers
// CHECK-NOT:     prescaled
func.func @numbers(%x : tensor<4x2xui8>, %e : tensor<4x2xf32>) -> tensor<4x2xf32> {
  %w = antoum.constant dense<[[1, -2], [3, 4]]> : tensor<2x2xi8> : tensor<2x2xi8>
  %s = antoum.constant dense<[0.125, 0.25]> : tensor<2xf32> : tensor<2xf32>
  %y = spu.matmul %x, %w scale(%s : tensor<2xf32>) into %e : tensor<4x2xui8>, tensor<2x2xi8>, tensor<4x2xf32> -> tensor<4x2xf32>
  func.return %y : tensor<4x2xf32>
}
