// RUN: spu-opt %s -p plan-memory,canonicalize,cse | filecheck %s
// RUN: spu-opt %s -p 'plan-memory{sram=100}' | filecheck %s --check-prefix=SMALL

// %a is dead when %c is made: they share a slot, which is as large as the larger at run time.
// CHECK-LABEL: func.func @main
// CHECK:         [[A:%.+]] = antoum.arena %{{.*}} : memref<?xi8, #antoum<space sram>>
// CHECK:         [[VA:%.+]] = memref.view [[A]]{{.}}[[ZERO:%[a-z0-9]+]]{{.}}[%{{.*}}] : memref<?xi8, #antoum<space sram>> to memref<?x64xf32, #antoum<space sram>>
// CHECK-NEXT:    vpu.unary exp %x into [[VA]]
// CHECK:         [[VB:%.+]] = memref.view [[A]]
// CHECK-NEXT:    vpu.unary tanh [[VA]] into [[VB]]
// CHECK-NEXT:    vpu.unary relu [[VB]] into [[VA]]

// What does not fit in 100 bytes lies in ddr.
// SMALL-LABEL: func.func @main
// SMALL-NOT:     sram
// SMALL:         antoum.arena %{{.*}} : memref<?xi8, #antoum<space ddr>>
func.func @main(%x: memref<?x64xf32> {onnx.name = "x", onnx.dim_params = "0:batch"}, %y: memref<?x64xf32> {onnx.name = "y", onnx.dim_params = "0:batch", spu.output}) attributes {spu.extents = {batch = [1, 8]}} {
  %c0 = arith.constant 0 : index
  %n = memref.dim %x, %c0 : memref<?x64xf32>
  %a = memref.alloc(%n) : memref<?x64xf32>
  vpu.unary exp %x into %a : memref<?x64xf32>, memref<?x64xf32>
  %b = memref.alloc(%n) : memref<?x64xf32>
  vpu.unary tanh %a into %b : memref<?x64xf32>, memref<?x64xf32>
  %c = memref.alloc(%n) : memref<?x64xf32>
  vpu.unary relu %b into %c : memref<?x64xf32>, memref<?x64xf32>
  vpu.unary neg %c into %y : memref<?x64xf32>, memref<?x64xf32>
  func.return
}
