// RUN: spu-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

%c = antoum.constant "seven" : tensor<2xf32>
// CHECK: antoum.constant: expected #spu.weights or dense, got "seven"

// -----
%c = antoum.constant dense<[1.0, 2.0]> : tensor<2xf32> : tensor<3xf32>
// CHECK: antoum.constant: the result must have the value's shape and element type, tensor<2xf32>, got tensor<3xf32>

// -----
%c = antoum.constant dense<[1.0, 2.0]> : tensor<2xf32> : memref<2xi32>
// CHECK: antoum.constant: the result must have the value's shape and element type, tensor<2xf32>, got memref<2xi32>

// -----
%n = "test.op"() : () -> (index)
%arena = antoum.arena %n : memref<?x4xi8>
// CHECK: antoum.arena: the arena must be a memref<?xi8>, got memref<?x4xi8>

// -----
%a, %b = "test.op"() : () -> (memref<4x16xf32>, memref<4x8xf32>)
antoum.dma %a into %b : memref<4x16xf32>, memref<4x8xf32>
// CHECK: antoum.dma: source and target must have one shape and element type, got [4, 16] f32 and [4, 8] f32

// -----
%a, %b = "test.op"() : () -> (memref<4x?xf32>, memref<4x8xi32>)
antoum.dma %a into %b : memref<4x?xf32>, memref<4x8xi32>
// CHECK: antoum.dma: source and target must have one shape and element type, got [4, ?] f32 and [4, 8] i32

// -----
%a = "test.op"() {space = #antoum.space flash} : () -> (memref<4xf32>)
// CHECK: Expected `ddr`, or `sram`

// -----
"test.op"() {cores = #antoum.cores<5>} : () -> ()
// CHECK: a chip has 1 to 4 cores, got 5
