// RUN: spu-opt %s | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | filecheck %s --check-prefix=GENERIC

func.func @tensors(%x: tensor<?x?x?x3xui8>, %g: tensor<?x2x4xi32>, %t: tensor<?x32x2xi32>, %w: tensor<?x32x9xi32>, %u: tensor<?x48x2xi32>, %v: tensor<?x48x17xi32>, %y: tensor<?x32x48x3xui8>, %n: tensor<3x256xf32>, %z: tensor<?x32x48x3xf32>) {
  %0, %1 = vpu.resize_taps bilinear %g into %t, %w {axis = 0 : i64} : tensor<?x2x4xi32>, tensor<?x32x2xi32>, tensor<?x32x9xi32> -> tensor<?x32x2xi32>, tensor<?x32x9xi32>
  %2, %3 = vpu.resize_taps bicubic %g into %u, %v {axis = 1 : i64, antialias = false} : tensor<?x2x4xi32>, tensor<?x48x2xi32>, tensor<?x48x17xi32> -> tensor<?x48x2xi32>, tensor<?x48x17xi32>
  %4 = vpu.resize %x rows(%0, %1 : tensor<?x32x2xi32>, tensor<?x32x9xi32>) columns(%2, %3 : tensor<?x48x2xi32>, tensor<?x48x17xi32>) into %y : tensor<?x?x?x3xui8>, tensor<?x32x48x3xui8> -> tensor<?x32x48x3xui8>
  %5 = vpu.table %4, %n into %z : tensor<?x32x48x3xui8>, tensor<3x256xf32>, tensor<?x32x48x3xf32> -> tensor<?x32x48x3xf32>
  func.return
}
// CHECK-LABEL: @tensors
// CHECK: %0, %1 = vpu.resize_taps bilinear %g into %t, %w {axis = 0 : i64} : tensor<?x2x4xi32>, tensor<?x32x2xi32>, tensor<?x32x9xi32> -> tensor<?x32x2xi32>, tensor<?x32x9xi32>
// CHECK: %2, %3 = vpu.resize_taps bicubic %g into %u, %v {axis = 1 : i64, antialias = false} : tensor<?x2x4xi32>, tensor<?x48x2xi32>, tensor<?x48x17xi32> -> tensor<?x48x2xi32>, tensor<?x48x17xi32>
// CHECK: %4 = vpu.resize %x rows(%0, %1 : tensor<?x32x2xi32>, tensor<?x32x9xi32>) columns(%2, %3 : tensor<?x48x2xi32>, tensor<?x48x17xi32>) into %y : tensor<?x?x?x3xui8>, tensor<?x32x48x3xui8> -> tensor<?x32x48x3xui8>
// CHECK: %5 = vpu.table %4, %n into %z : tensor<?x32x48x3xui8>, tensor<3x256xf32>, tensor<?x32x48x3xf32> -> tensor<?x32x48x3xf32>
// GENERIC: "vpu.resize_taps"(%g, %t, %w) <{filter = #vpu<filter bilinear>, axis = 0 : i64, antialias = true}> : (tensor<?x2x4xi32>, tensor<?x32x2xi32>, tensor<?x32x9xi32>) -> (tensor<?x32x2xi32>, tensor<?x32x9xi32>)
// GENERIC: "vpu.resize"(%x, %0, %1, %2, %3, %y) : (tensor<?x?x?x3xui8>, tensor<?x32x2xi32>, tensor<?x32x9xi32>, tensor<?x48x2xi32>, tensor<?x48x17xi32>, tensor<?x32x48x3xui8>) -> tensor<?x32x48x3xui8>

func.func @buffers(%x: memref<1x?x?x1xui8>, %g: memref<1x2x4xi32>, %t: memref<1x8x2xi32>, %w: memref<1x8x9xi32>, %y: memref<1x8x8x1xui8>) {
  vpu.resize_taps bilinear %g into %t, %w {axis = 0 : i64} : memref<1x2x4xi32>, memref<1x8x2xi32>, memref<1x8x9xi32>
  vpu.resize %x rows(%t, %w : memref<1x8x2xi32>, memref<1x8x9xi32>) columns(%t, %w : memref<1x8x2xi32>, memref<1x8x9xi32>) into %y : memref<1x?x?x1xui8>, memref<1x8x8x1xui8>
  func.return
}
// CHECK-LABEL: @buffers
// CHECK: vpu.resize_taps bilinear %g into %t, %w {axis = 0 : i64} : memref<1x2x4xi32>, memref<1x8x2xi32>, memref<1x8x9xi32>
// CHECK: vpu.resize %x rows(%t, %w : memref<1x8x2xi32>, memref<1x8x9xi32>) columns(%t, %w : memref<1x8x2xi32>, memref<1x8x9xi32>) into %y : memref<1x?x?x1xui8>, memref<1x8x8x1xui8>
