// RUN: spu-opt %s -p "fold-qdq,dce" --split-input-file | filecheck %s

// A whole layer: u8 in, u8 residual, u8 out, and an i32 bias. The scale of a channel is x's times
// its own.
// CHECK-LABEL: func.func @layer
// CHECK-DAG:     [[W:%.+]] = antoum.constant dense<{{\[\[}}1, -2], [3, 4]]> : tensor<2x2xi8>
// CHECK-DAG:     [[S:%.+]] = antoum.constant dense<[1.250000e-01, 2.500000e-01]> : tensor<2xf32>
// CHECK-DAG:     [[B:%.+]] = antoum.constant dense<[5.000000e+00, -1.000000e+01]> : tensor<2xf32>
// CHECK:         [[Y:%.+]] = spu.matmul %x, [[W]] scale([[S]] : tensor<2xf32>) bias([[B]] : tensor<2xf32>) residual(%r : tensor<4x2xui8>) into {{.*}} {x_zero = 7 : i32, residual_scale = 2.500000e-01 : f32, residual_zero = 0 : i32, out_scale = 5.000000e-01 : f32, out_zero = 3 : i32}
// CHECK-SAME:    tensor<4x2xui8>, tensor<2x2xi8>, tensor<4x2xui8> -> tensor<4x2xui8>
// CHECK-NEXT:    func.return [[Y]]
func.func @layer(%x : tensor<4x2xui8>, %r : tensor<4x2xui8>) -> tensor<4x2xui8> {
  %half = antoum.constant dense<0.5> : tensor<f32> : tensor<f32>
  %quarter = antoum.constant dense<0.25> : tensor<f32> : tensor<f32>
  %seven = antoum.constant dense<7> : tensor<ui8> : tensor<ui8>
  %three = antoum.constant dense<3> : tensor<ui8> : tensor<ui8>
  %e = tensor.empty() : tensor<4x2xf32>
  %dx = vpu.dequantise %x scale(%half : tensor<f32>) zero(%seven : tensor<ui8>) into %e : tensor<4x2xui8>, tensor<4x2xf32> -> tensor<4x2xf32>
  %dr = vpu.dequantise %r scale(%quarter : tensor<f32>) into %e : tensor<4x2xui8>, tensor<4x2xf32> -> tensor<4x2xf32>
  %w = antoum.constant dense<[[1, -2], [3, 4]]> : tensor<2x2xi8> : tensor<2x2xi8>
  %ws = antoum.constant dense<[0.25, 0.5]> : tensor<2xf32> : tensor<2xf32>
  %we = tensor.empty() : tensor<2x2xf32>
  %dw = vpu.dequantise %w scale(%ws : tensor<2xf32>) into %we {axis = 0 : i64} : tensor<2x2xi8>, tensor<2x2xf32> -> tensor<2x2xf32>
  %b = antoum.constant dense<[10, -20]> : tensor<2xi32> : tensor<2xi32>
  %be = tensor.empty() : tensor<2xf32>
  %db = vpu.dequantise %b scale(%half : tensor<f32>) into %be : tensor<2xi32>, tensor<2xf32> -> tensor<2xf32>
  %y = spu.matmul %dx, %dw bias(%db : tensor<2xf32>) residual(%dr : tensor<4x2xf32>) into %e : tensor<4x2xf32>, tensor<2x2xf32>, tensor<4x2xf32> -> tensor<4x2xf32>
  %f = tensor.empty() : tensor<4x2xui8>
  %q = vpu.quantise %y scale(%half : tensor<f32>) zero(%three : tensor<ui8>) into %f : tensor<4x2xf32>, tensor<4x2xui8> -> tensor<4x2xui8>
  func.return %q : tensor<4x2xui8>
}

// -----

// Signed activations become unsigned, with their zero point moved by 128, and unsigned weights
// signed where they fit; one scale serves every channel.
// CHECK-LABEL: func.func @signed
// CHECK:         antoum.constant dense<127> : tensor<ui8>
// CHECK:         [[Q:%.+]] = vpu.quantise %x {{.*}} -> tensor<4x2xui8>
// CHECK:         [[W:%.+]] = antoum.constant dense<{{\[\[}}-128, 127], [0, 1]]> : tensor<2x2xi8>
// CHECK:         antoum.constant dense<2.500000e-01> : tensor<2xf32>
// CHECK:         spu.matmul [[Q]], [[W]] scale({{.*}} : tensor<2xf32>) into {{.*}} {x_zero = 127 : i32}
func.func @signed(%x : tensor<4x2xf32>) -> tensor<4x2xf32> {
  %half = antoum.constant dense<0.5> : tensor<f32> : tensor<f32>
  %minus = antoum.constant dense<-1> : tensor<i8> : tensor<i8>
  %i = tensor.empty() : tensor<4x2xi8>
  %e = tensor.empty() : tensor<4x2xf32>
  %q = vpu.quantise %x scale(%half : tensor<f32>) zero(%minus : tensor<i8>) into %i : tensor<4x2xf32>, tensor<4x2xi8> -> tensor<4x2xi8>
  %dx = vpu.dequantise %q scale(%half : tensor<f32>) zero(%minus : tensor<i8>) into %e : tensor<4x2xi8>, tensor<4x2xf32> -> tensor<4x2xf32>
  %w = antoum.constant dense<[[0, 255], [128, 129]]> : tensor<2x2xui8> : tensor<2x2xui8>
  %wz = antoum.constant dense<128> : tensor<ui8> : tensor<ui8>
  %we = tensor.empty() : tensor<2x2xf32>
  %dw = vpu.dequantise %w scale(%half : tensor<f32>) zero(%wz : tensor<ui8>) into %we : tensor<2x2xui8>, tensor<2x2xf32> -> tensor<2x2xf32>
  %y = spu.matmul %dx, %dw into %e : tensor<4x2xf32>, tensor<2x2xf32>, tensor<4x2xf32> -> tensor<4x2xf32>
  func.return %y : tensor<4x2xf32>
}

// -----

// Weights that do not fit int8 leave the product in f32, with the reason.
// CHECK-LABEL: func.func @wide
// CHECK:         [[W:%.+]] = antoum.constant dense<{{\[\[}}0.000000e+00, 1.275000e+02], [1.000000e+00, 5.000000e-01]]> : tensor<2x2xf32>
// CHECK:         spu.matmul {{%.+}}, [[W]] into {{.*}} {fallback_reason = "weights minus their zero point reach 0..255, beyond int8"}
func.func @wide(%x : tensor<4x2xui8>) -> tensor<4x2xf32> {
  %half = antoum.constant dense<0.5> : tensor<f32> : tensor<f32>
  %e = tensor.empty() : tensor<4x2xf32>
  %dx = vpu.dequantise %x scale(%half : tensor<f32>) into %e : tensor<4x2xui8>, tensor<4x2xf32> -> tensor<4x2xf32>
  %w = antoum.constant dense<[[0, 255], [2, 1]]> : tensor<2x2xui8> : tensor<2x2xui8>
  %we = tensor.empty() : tensor<2x2xf32>
  %dw = vpu.dequantise %w scale(%half : tensor<f32>) into %we : tensor<2x2xui8>, tensor<2x2xf32> -> tensor<2x2xf32>
  %y = spu.matmul %dx, %dw into %e : tensor<4x2xf32>, tensor<2x2xf32>, tensor<4x2xf32> -> tensor<4x2xf32>
  func.return %y : tensor<4x2xf32>
}

// -----

// Between equal grids, max-pooling and reshaping run on bytes and nothing is quantised again.
// CHECK-LABEL: func.func @move
// CHECK:         [[P:%.+]] = vpu.pool max %x into {{.*}} tensor<1x4x4x2xui8>, tensor<1x2x2x2xui8>
// CHECK:         [[R:%.+]] = vpu.reshape [[P]] into {{.*}} tensor<1x8xui8>
// CHECK-NEXT:    func.return [[R]]
func.func @move(%x : tensor<1x4x4x2xui8>) -> tensor<1x8xui8> {
  %half = antoum.constant dense<0.5> : tensor<f32> : tensor<f32>
  %three = antoum.constant dense<3> : tensor<ui8> : tensor<ui8>
  %e = tensor.empty() : tensor<1x4x4x2xf32>
  %d = vpu.dequantise %x scale(%half : tensor<f32>) zero(%three : tensor<ui8>) into %e : tensor<1x4x4x2xui8>, tensor<1x4x4x2xf32> -> tensor<1x4x4x2xf32>
  %f = tensor.empty() : tensor<1x2x2x2xf32>
  %p = vpu.pool max %d into %f {kernel = array<i64: 2, 2>, strides = array<i64: 2, 2>, pads = array<i64: 0, 0>, dilations = array<i64: 1, 1>} : tensor<1x4x4x2xf32>, tensor<1x2x2x2xf32> -> tensor<1x2x2x2xf32>
  %g = tensor.empty() : tensor<1x8xf32>
  %r = vpu.reshape %p into %g : tensor<1x2x2x2xf32>, tensor<1x8xf32> -> tensor<1x8xf32>
  %h = tensor.empty() : tensor<1x8xui8>
  %q = vpu.quantise %r scale(%half : tensor<f32>) zero(%three : tensor<ui8>) into %h : tensor<1x8xf32>, tensor<1x8xui8> -> tensor<1x8xui8>
  func.return %q : tensor<1x8xui8>
}

// -----

// A product that something else reads as f32 stays f32, and is quantised by itself.
// CHECK-LABEL: func.func @shared
// CHECK:         [[Y:%.+]] = spu.matmul %x, {{.*}} -> tensor<4x1xf32>
// CHECK:         [[Q:%.+]] = vpu.quantise [[Y]]
// CHECK:         func.return [[Y]], [[Q]]
func.func @shared(%x : tensor<4x1xui8>) -> (tensor<4x1xf32>, tensor<4x1xui8>) {
  %half = antoum.constant dense<0.5> : tensor<f32> : tensor<f32>
  %e = tensor.empty() : tensor<4x1xf32>
  %dx = vpu.dequantise %x scale(%half : tensor<f32>) into %e : tensor<4x1xui8>, tensor<4x1xf32> -> tensor<4x1xf32>
  %w = antoum.constant dense<3> : tensor<1x1xi8> : tensor<1x1xi8>
  %we = tensor.empty() : tensor<1x1xf32>
  %dw = vpu.dequantise %w scale(%half : tensor<f32>) into %we : tensor<1x1xi8>, tensor<1x1xf32> -> tensor<1x1xf32>
  %y = spu.matmul %dx, %dw into %e : tensor<4x1xf32>, tensor<1x1xf32>, tensor<4x1xf32> -> tensor<4x1xf32>
  %f = tensor.empty() : tensor<4x1xui8>
  %q = vpu.quantise %y scale(%half : tensor<f32>) into %f : tensor<4x1xf32>, tensor<4x1xui8> -> tensor<4x1xui8>
  func.return %y, %q : tensor<4x1xf32>, tensor<4x1xui8>
}

// -----

// Numbers that are looked up for bytes and then quantised are bytes that are looked up.
// CHECK-LABEL: func.func @look_up
// CHECK:         [[T:%.+]] = antoum.constant {{.*}} : tensor<2x256xui8>
// CHECK:         [[Q:%.+]] = vpu.table %x, [[T]] into {{.*}} {layer = "p"} : tensor<4x2xui8>, tensor<2x256xui8>, tensor<4x2xui8>
// CHECK-NEXT:    func.return [[Q]]
func.func @look_up(%x : tensor<4x2xui8>) -> tensor<4x2xui8> {
  %half = antoum.constant dense<0.5> : tensor<f32> : tensor<f32>
  %three = antoum.constant dense<3> : tensor<ui8> : tensor<ui8>
  %t = antoum.constant dense<1.5> : tensor<2x256xf32> : tensor<2x256xf32>
  %e = tensor.empty() : tensor<4x2xf32>
  %y = vpu.table %x, %t into %e {layer = "p", range = array<f32: 0.0, 1.5>} : tensor<4x2xui8>, tensor<2x256xf32>, tensor<4x2xf32> -> tensor<4x2xf32>
  %f = tensor.empty() : tensor<4x2xui8>
  %q = vpu.quantise %y scale(%half : tensor<f32>) zero(%three : tensor<ui8>) into %f : tensor<4x2xf32>, tensor<4x2xui8> -> tensor<4x2xui8>
  func.return %q : tensor<4x2xui8>
}
