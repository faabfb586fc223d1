// RUN: spu-opt %s | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | spu-opt | filecheck %s
// RUN: spu-opt %s --print-op-generic | filecheck %s --check-prefix=GENERIC

// A small constant is written out, a large one is a handle into the store.
func.func @constants() {
  %bias = antoum.constant dense<[1.0, -2.0]> : tensor<2xf32> : tensor<2xf32>
  %weight = antoum.constant #spu.weights<"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", tensor<16x128xi8>> : tensor<16x128xi8, #spu.banked<bank = 64, slots = 4, share = 1>>
  %buffer = antoum.constant #spu.weights<"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", tensor<16x128xi8>> : memref<16x128xi8, #spu.banked<bank = 64, slots = 4, share = 1>, #antoum.space ddr>
  func.return
}
// CHECK-LABEL: @constants
// CHECK: %bias = antoum.constant dense<[1.000000e+00, -2.000000e+00]> : tensor<2xf32> : tensor<2xf32>
// CHECK: %weight = antoum.constant #spu.weights<"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", tensor<16x128xi8>> : tensor<16x128xi8, #spu.banked<bank = 64, slots = 4, share = 1>>
// CHECK: %buffer = antoum.constant #spu.weights<{{.*}}> : memref<16x128xi8, #spu.banked<bank = 64, slots = 4, share = 1>, #antoum<space ddr>>
// GENERIC: %bias = "antoum.constant"() <{value = dense<[1.000000e+00, -2.000000e+00]> : tensor<2xf32>}> : () -> tensor<2xf32>

// A buffer at byte 256 of the arena, its input fetched from DDR, its halo filled.
func.func @memory(%bytes: index, %rows: index, %x: memref<?x16xui8, #antoum.space ddr>, %halo: memref<1x16xui8, #antoum.space sram>) {
  %arena = antoum.arena %bytes : memref<?xi8, #antoum.space sram>
  %at = arith.constant 256 : index
  %tile = memref.view %arena[%at][%rows] : memref<?xi8, #antoum.space sram> to memref<?x16xui8, #antoum.space sram>
  antoum.dma %x into %tile : memref<?x16xui8, #antoum.space ddr>, memref<?x16xui8, #antoum.space sram>
  antoum.fill 128 : i32 into %halo : memref<1x16xui8, #antoum.space sram>
  func.return
}
// CHECK-LABEL: @memory
// CHECK: %arena = antoum.arena %bytes : memref<?xi8, #antoum<space sram>>
// CHECK: antoum.dma %x into %tile : memref<?x16xui8, #antoum<space ddr>>, memref<?x16xui8, #antoum<space sram>>
// CHECK: antoum.fill 128 : i32 into %halo : memref<1x16xui8, #antoum<space sram>>
// GENERIC: %arena = "antoum.arena"(%bytes) : (index) -> memref<?xi8, #antoum<space sram>>
// GENERIC: "antoum.dma"(%x, %tile) : (memref<?x16xui8, #antoum<space ddr>>, memref<?x16xui8, #antoum<space sram>>) -> ()
// GENERIC: "antoum.fill"(%halo) <{value = 128 : i32}> : (memref<1x16xui8, #antoum<space sram>>) -> ()

// The steps of a parallel loop are spread over cores.
func.func @cores() {
  "test.op"() {cores = #antoum.cores<4>} : () -> ()
  func.return
}
// CHECK-LABEL: @cores
// CHECK: "test.op"() {cores = #antoum.cores<4>} : () -> ()
