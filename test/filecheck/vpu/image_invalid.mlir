// RUN: spu-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

func.func @axis(%g: memref<1x2x4xi32>, %t: memref<1x8x2xi32>, %w: memref<1x8x9xi32>) {
  // CHECK: vpu.resize_taps: axis must be 0 (rows) or 1 (columns), got 2
  vpu.resize_taps bilinear %g into %t, %w {axis = 2 : i64} : memref<1x2x4xi32>, memref<1x8x2xi32>, memref<1x8x9xi32>
  func.return
}

// -----

func.func @geometry(%g: memref<1x2x3xi32>, %t: memref<1x8x2xi32>, %w: memref<1x8x9xi32>) {
  // CHECK: vpu.resize_taps: geometry must have shape [1, 2, 4], got [1, 2, 3]
  vpu.resize_taps bilinear %g into %t, %w {axis = 0 : i64} : memref<1x2x3xi32>, memref<1x8x2xi32>, memref<1x8x9xi32>
  func.return
}

// -----

func.func @taps(%g: memref<1x2x4xi32>, %t: memref<1x7x2xi32>, %w: memref<1x8x9xi32>) {
  // CHECK: vpu.resize_taps: the init must have shape [1, 8, 2], got [1, 7, 2]
  vpu.resize_taps bilinear %g into %t, %w {axis = 0 : i64} : memref<1x2x4xi32>, memref<1x7x2xi32>, memref<1x8x9xi32>
  func.return
}

// -----

func.func @weights(%g: memref<1x2x4xi32>, %t: memref<1x8x2xi32>, %w: memref<1x8x?xi32>) {
  // CHECK: vpu.resize_taps: weight_init must have three axes, the last two known
  vpu.resize_taps bilinear %g into %t, %w {axis = 0 : i64} : memref<1x2x4xi32>, memref<1x8x2xi32>, memref<1x8x?xi32>
  func.return
}

// -----

func.func @channels(%x: memref<1x9x9x5xui8>, %t: memref<1x8x2xi32>, %w: memref<1x8x9xi32>, %y: memref<1x8x8x5xui8>) {
  // CHECK: vpu.resize: there must be 1 to 4 channels, got 5
  vpu.resize %x rows(%t, %w : memref<1x8x2xi32>, memref<1x8x9xi32>) columns(%t, %w : memref<1x8x2xi32>, memref<1x8x9xi32>) into %y : memref<1x9x9x5xui8>, memref<1x8x8x5xui8>
  func.return
}

// -----

func.func @wide(%x: memref<1x9x9x3xui8>, %t: memref<1x8x2xi32>, %w: memref<1x8x9xi32>, %u: memref<1x5000x2xi32>, %v: memref<1x5000x9xi32>, %y: memref<1x8x5000x3xui8>) {
  // CHECK: vpu.resize: a row of the init must be known and at most 12288 bytes
  vpu.resize %x rows(%t, %w : memref<1x8x2xi32>, memref<1x8x9xi32>) columns(%u, %v : memref<1x5000x2xi32>, memref<1x5000x9xi32>) into %y : memref<1x9x9x3xui8>, memref<1x8x5000x3xui8>
  func.return
}

// -----

func.func @rows(%x: memref<1x9x9x3xui8>, %t: memref<1x8x2xi32>, %w: memref<1x8x9xi32>, %y: memref<1x7x8x3xui8>) {
  // CHECK: vpu.resize: rows must have shape [1, 7, 2], got [1, 8, 2]
  vpu.resize %x rows(%t, %w : memref<1x8x2xi32>, memref<1x8x9xi32>) columns(%t, %w : memref<1x8x2xi32>, memref<1x8x9xi32>) into %y : memref<1x9x9x3xui8>, memref<1x7x8x3xui8>
  func.return
}

// -----

func.func @floats(%x: memref<1x9x9x3xf32>, %t: memref<1x8x2xi32>, %w: memref<1x8x9xi32>, %y: memref<1x8x8x3xui8>) {
  // CHECK: vpu.resize: x must have element type ui8, got f32
  vpu.resize %x rows(%t, %w : memref<1x8x2xi32>, memref<1x8x9xi32>) columns(%t, %w : memref<1x8x2xi32>, memref<1x8x9xi32>) into %y : memref<1x9x9x3xf32>, memref<1x8x8x3xui8>
  func.return
}

// -----

func.func @table(%x: memref<4x3xui8>, %n: memref<4x256xf32>, %y: memref<4x3xf32>) {
  // CHECK: vpu.table: table must have shape [3, 256], got [4, 256]
  vpu.table %x, %n into %y : memref<4x3xui8>, memref<4x256xf32>, memref<4x3xf32>
  func.return
}

// -----

func.func @bytes(%x: memref<4x3xui8>, %n: memref<3x256xf32>, %y: memref<4x3xui8>) {
  // CHECK: vpu.table: the init must have element type f32, got ui8
  vpu.table %x, %n into %y : memref<4x3xui8>, memref<3x256xf32>, memref<4x3xui8>
  func.return
}
