// RUN: spu-opt %s -p tile,canonicalize,cse --split-input-file | filecheck %s

// Blocks of 14 rows, one instruction, and 384 lanes over the cores.
// CHECK-LABEL: func.func @matmul
// CHECK:         "scf.parallel"
// CHECK:             [[X:%.+]] = memref.subview %x[{{.*}}, 0] [%{{.*}}, 768] [1, 1]
// CHECK:             [[W:%.+]] = memref.subview %w[{{.*}}, 0] [384, 768] [1, 1] : memref<768x768xi8, #spu.banked<bank = 64, slots = 4, share = 1>> to memref<384x768xi8, #spu.banked<bank = 64, slots = 4, share = 1>>
// CHECK:             spu.matmul [[X]], [[W]]
// CHECK:         }) {cores = #antoum.cores<4>}
func.func @matmul(%x: memref<64x768xui8>, %w: memref<768x768xi8, #spu.banked<bank = 64, slots = 4, share = 1>>, %s: memref<768xf32>, %y: memref<64x768xf32>) {
  spu.matmul %x, %w scale(%s : memref<768xf32>) into %y {x_zero = 128 : i32} : memref<64x768xui8>, memref<768x768xi8, #spu.banked<bank = 64, slots = 4, share = 1>>, memref<64x768xf32>
  func.return
}

// -----

// A tile of a convolution reads the window under its pixels; 28 columns are three tiles of up to 12, dense.
// CHECK-LABEL: func.func @conv
// CHECK:         "scf.parallel"
// CHECK:             memref.subview %x[{{.*}}] [1, 3, %{{.*}}, 64] [1, 1, 1, 1]
// CHECK:             spu.conv {{.*}} : memref<1x3x?x64xui8, {{.*}}>, memref<64x3x3x64xi8, {{.*}}>, memref<1x1x?x64xf32
func.func @conv(%x: memref<1x30x30x64xui8>, %w: memref<64x3x3x64xi8>, %s: memref<64xf32>, %y: memref<1x28x28x64xf32>) {
  spu.conv %x, %w scale(%s : memref<64xf32>) into %y : memref<1x30x30x64xui8>, memref<64x3x3x64xi8>, memref<1x28x28x64xf32>
  func.return
}

// -----

// Rows of 3072 bytes leave no room in L1 for 14: lane groups go in pairs past 12, or past the 8 that
// L1 holds with 4 slots a bank, or past 8 whose places in L1 are the same. Lists of any length, and what the special functions' unit does, do not.
// CHECK-LABEL: func.func @pairs
// CHECK:         spu.matmul {{.*}} {lane_pairs, x_zero = 128 : i32} : memref<8x3072xui8
// CHECK:         arith.constant 12 : index
// CHECK:         spu.matmul {{.*}} {lane_pairs, x_zero = 128 : i32} : memref<?x3072xui8
// CHECK:         spu.matmul {{.*}} {lane_pairs, x_zero = 128 : i32} : memref<8x4096xui8
// CHECK:         spu.matmul {{.*}} {x_zero = 128 : i32}
// CHECK:         spu.matmul {{.*}} {x_zero = 128 : i32, activation = #spu<activation sfu_gelu>}
func.func @pairs(%x: memref<64x3072xui8>, %w: memref<768x3072xi8, #spu.banked<bank = 64, slots = 4, share = 1>>, %u: memref<768x3072xi8, #spu.banked<bank = 64, slots = 8, share = 1>>, %long: memref<64x4096xui8>, %v: memref<64x4096xi8, #spu.banked<bank = 64, slots = 8, share = 1>>, %lists: memref<64x4096xi8, #spu.banked<bank = 64, slots = 0, share = 1>>, %s: memref<768xf32>, %t: memref<64xf32>, %y: memref<64x768xf32>, %z: memref<64x64xf32>) {
  spu.matmul %x, %w scale(%s : memref<768xf32>) into %y {x_zero = 128 : i32} : memref<64x3072xui8>, memref<768x3072xi8, #spu.banked<bank = 64, slots = 4, share = 1>>, memref<64x768xf32>
  spu.matmul %x, %u scale(%s : memref<768xf32>) into %y {x_zero = 128 : i32} : memref<64x3072xui8>, memref<768x3072xi8, #spu.banked<bank = 64, slots = 8, share = 1>>, memref<64x768xf32>
  spu.matmul %long, %v scale(%t : memref<64xf32>) into %z {x_zero = 128 : i32} : memref<64x4096xui8>, memref<64x4096xi8, #spu.banked<bank = 64, slots = 8, share = 1>>, memref<64x64xf32>
  spu.matmul %long, %lists scale(%t : memref<64xf32>) into %z {x_zero = 128 : i32} : memref<64x4096xui8>, memref<64x4096xi8, #spu.banked<bank = 64, slots = 0, share = 1>>, memref<64x64xf32>
  spu.matmul %x, %w scale(%s : memref<768xf32>) into %y {x_zero = 128 : i32, activation = #spu.activation sfu_gelu} : memref<64x3072xui8>, memref<768x3072xi8, #spu.banked<bank = 64, slots = 4, share = 1>>, memref<64x768xf32>
  func.return
}

// -----

// Seven columns do too.
// CHECK-LABEL: func.func @narrow
// CHECK:         spu.conv {{.*}} {lane_pairs, x_zero = 1 : i32} : memref<1x1x7x64xui8
func.func @narrow(%x: memref<1x7x7x64xui8>, %w: memref<64x1x1x64xi8, #spu.banked<bank = 64, slots = 8, share = 1>>, %t: memref<64xf32>, %y: memref<1x7x7x64xf32>) {
  spu.conv %x, %w scale(%t : memref<64xf32>) into %y {x_zero = 1 : i32} : memref<1x7x7x64xui8>, memref<64x1x1x64xi8, #spu.banked<bank = 64, slots = 8, share = 1>>, memref<1x7x7x64xf32>
  func.return
}

// -----

// A head and a block of rows is a tile of attention.
// CHECK-LABEL: func.func @attention
// CHECK:         "scf.parallel"
// CHECK:           memref.subview %q[{{.*}}] [1, 64, 16] [1, 1, 1]
// CHECK:           memref.subview %k[{{.*}}, 0, {{.*}}] [1, 64, 16] [1, 1, 1]
// CHECK:           spu.attention {{.*}}heads = 1 : i64, kv_heads = 1 : i64
func.func @attention(%q: memref<2x64x48xf32>, %k: memref<2x64x48xf32>, %v: memref<2x64x48xf32>, %y: memref<2x64x48xf32>) {
  spu.attention %q, %k, %v into %y {heads = 3 : i64, kv_heads = 3 : i64, scale = 0.25 : f32} : memref<2x64x48xf32>, memref<2x64x48xf32>, memref<2x64x48xf32>, memref<2x64x48xf32>
  func.return
}

// -----

// Movement is DMA on views; an operand that broadcasts is whole in every tile.
// CHECK-LABEL: func.func @movement
// CHECK:         [[A:%.+]] = memref.subview %y[0, 0] [4, 64] [1, 1]
// CHECK:         antoum.dma %{{.*}} into
// CHECK:         memref.subview %y[4, 0] [4, 64] [1, 1]
// CHECK:         vpu.binary add %{{.*}}, %g into
func.func @movement(%x: memref<4x64xf32>, %g: memref<64xf32>, %y: memref<8x64xf32>, %z: memref<4x64xf32>) {
  vpu.concat %x, %x into %y {axis = 0 : i64} : memref<4x64xf32>, memref<4x64xf32> into memref<8x64xf32>
  vpu.binary add %x, %g into %z : memref<4x64xf32>, memref<64xf32>, memref<4x64xf32>
  func.return
}

// -----

// Packed rows: a tile belongs to a sample, whose rows are read from the offsets; it has as many
// of them as are left, and those positions that have none are filled.
// CHECK-LABEL: func.func @packed
// CHECK:         "scf.parallel"
// CHECK:           [[FIRST:%.+]] = memref.load %offsets
// CHECK:           [[SOURCE:%.+]] = memref.subview %x[%{{.*}}, 0, 0] [1, %{{.*}}, 8] [1, 1, 1]
// CHECK:           antoum.dma [[SOURCE]] into
// CHECK:         "scf.parallel"
// CHECK:           memref.load %offsets
// CHECK:           spu.attention {{.*}} : memref<1x?x4xf32, {{.*}}>, memref<1x?x4xf32, {{.*}}>, memref<1x?x4xf32, {{.*}}>, memref<1x?x4xf32
// CHECK:         "scf.parallel"
// CHECK:           antoum.dma
// CHECK:           antoum.fill -3.40282347e+38 : f32 into
func.func @packed(%x: memref<2x5x8xf32>, %offsets: memref<3xi64>, %rows: memref<?x8xf32>, %y: memref<?x8xf32>) {
  vpu.pack_rows %x, %offsets into %rows : memref<2x5x8xf32>, memref<3xi64>, memref<?x8xf32>
  spu.attention %rows, %rows, %rows offsets(%offsets : memref<3xi64>) into %y {heads = 2 : i64, kv_heads = 2 : i64, scale = 0.5 : f32} : memref<?x8xf32>, memref<?x8xf32>, memref<?x8xf32>, memref<?x8xf32>
  vpu.unpack_rows %y, %offsets into %x {lowest} : memref<?x8xf32>, memref<3xi64>, memref<2x5x8xf32>
  func.return
}
