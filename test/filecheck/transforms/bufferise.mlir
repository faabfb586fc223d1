// RUN: spu-opt %s -p bufferise --split-input-file | filecheck %s

// The output is an argument; its extents are stated by the view that is written.
// CHECK-LABEL: func.func @main(%x: memref<?x96xf32, #antoum<space ddr>> {onnx.name = "x", onnx.dim_params = "0:batch"}, %{{.*}}: memref<?x96xf32, #antoum<space ddr>> {onnx.name = "y", spu.output})
// CHECK:         [[B:%.+]] = memref.dim %x
// CHECK:         [[G:%.+]] = antoum.constant {{.*}} : memref<96xf32, #antoum<space ddr>>
// CHECK:         [[A:%.+]] = memref.alloc([[B]]) : memref<?x96xf32>
// CHECK-NEXT:    vpu.binary add %x, [[G]] into [[A]]
// CHECK:         [[Y:%.+]] = memref.reinterpret_cast %{{.*}} to offset: [0], sizes: {{.}}[[B]], 96], strides: [96, 1]
// CHECK-NEXT:    vpu.unary relu [[A]] into [[Y]]
// CHECK-NEXT:    func.return
// CHECK:       func.func @main_output_shapes(%{{.*}}: memref<?x96xf32, #antoum<space ddr>>) -> index
func.func @main(%x: tensor<?x96xf32> {onnx.name = "x", onnx.dim_params = "0:batch"}) -> (tensor<?x96xf32> {onnx.name = "y"}) attributes {spu.extents = {batch = [1, 8]}} {
  %c0 = arith.constant 0 : index
  %b = tensor.dim %x, %c0 : tensor<?x96xf32>
  %g = antoum.constant dense<1.0> : tensor<96xf32> : tensor<96xf32>
  %e = tensor.empty(%b) : tensor<?x96xf32>
  %z = vpu.binary add %x, %g into %e : tensor<?x96xf32>, tensor<96xf32>, tensor<?x96xf32> -> tensor<?x96xf32>
  %y = vpu.unary relu %z into %e : tensor<?x96xf32>, tensor<?x96xf32> -> tensor<?x96xf32>
  func.return %y : tensor<?x96xf32>
}

// -----

// A padded convolution reads the buffer with its halo, which is filled with the zero point.
// CHECK-LABEL: func.func @halo
// CHECK:         [[A:%.+]] = memref.alloc() : memref<1x10x10x32xui8>
// CHECK:         antoum.fill 3 : ui8 into %{{.*}} : memref<1x1x10x32xui8
// CHECK:         antoum.fill 3 : ui8 into %{{.*}} : memref<1x1x10x32xui8
// CHECK:         antoum.fill 3 : ui8 into %{{.*}} : memref<1x8x1x32xui8
// CHECK:         antoum.fill 3 : ui8 into %{{.*}} : memref<1x8x1x32xui8
// CHECK:         [[I:%.+]] = memref.subview [[A]][0, 1, 1, 0] [1, 8, 8, 32]
// CHECK-NEXT:    vpu.quantise %x {{.*}} into [[I]]
// CHECK:         [[X:%.+]] = memref.subview [[A]][0, 0, 0, 0] [1, 10, 10, 32]
// CHECK:         spu.conv [[X]], {{.*}}x_zero = 3 : i32} : memref<1x10x10x32xui8
func.func @halo(%x: tensor<1x8x8x32xf32>) -> tensor<1x8x8x16xf32> {
  %w = antoum.constant dense<1> : tensor<16x3x3x32xi8> : tensor<16x3x3x32xi8>
  %s = antoum.constant dense<0.5> : tensor<16xf32> : tensor<16xf32>
  %one = antoum.constant dense<0.5> : tensor<f32> : tensor<f32>
  %three = antoum.constant dense<3> : tensor<ui8> : tensor<ui8>
  %e = tensor.empty() : tensor<1x8x8x32xui8>
  %q = vpu.quantise %x scale(%one : tensor<f32>) zero(%three : tensor<ui8>) into %e : tensor<1x8x8x32xf32>, tensor<1x8x8x32xui8> -> tensor<1x8x8x32xui8>
  %i = tensor.empty() : tensor<1x8x8x16xf32>
  %y = spu.conv %q, %w scale(%s : tensor<16xf32>) into %i {x_zero = 3 : i32, pads = array<i64: 1,1,1,1>} : tensor<1x8x8x32xui8>, tensor<16x3x3x32xi8>, tensor<1x8x8x16xf32> -> tensor<1x8x8x16xf32>
  func.return %y : tensor<1x8x8x16xf32>
}

// -----

// A reshape is a view. A caller's own bytes are copied first: a bank may reach past their end.
// CHECK-LABEL: func.func @views(%x: memref<2x3x64xui8, #antoum<space ddr>>
// CHECK:         [[V:%.+]] = memref.reinterpret_cast %x to offset: [0], sizes: [6, 64], strides: [64, 1]
// CHECK:         [[C:%.+]] = memref.alloc() : memref<6x64xui8>
// CHECK-NEXT:    antoum.dma [[V]] into [[C]]
// CHECK:         spu.matmul [[C]]
func.func @views(%x: tensor<2x3x64xui8>) -> tensor<6x16xf32> {
  %w = antoum.constant dense<1> : tensor<16x64xi8> : tensor<16x64xi8>
  %s = antoum.constant dense<0.5> : tensor<16xf32> : tensor<16xf32>
  %f = tensor.empty() : tensor<6x64xui8>
  %r = vpu.reshape %x into %f : tensor<2x3x64xui8>, tensor<6x64xui8> -> tensor<6x64xui8>
  %i = tensor.empty() : tensor<6x16xf32>
  %y = spu.matmul %r, %w scale(%s : tensor<16xf32>) into %i : tensor<6x64xui8>, tensor<16x64xi8>, tensor<6x16xf32> -> tensor<6x16xf32>
  func.return %y : tensor<6x16xf32>
}

// -----

// A number of rows that is read from a tensor is loaded from its buffer; what has so many rows is
// the first part of a buffer as large as the bound.
// CHECK-LABEL: func.func @packed
// CHECK:         [[END:%.+]] = memref.load {{.*}} : memref<3xi64>
// CHECK:         [[COUNT:%.+]] = arith.index_cast [[END]] : i64 to index
// CHECK:         %rows = arith.minsi [[COUNT]], %most : index
// CHECK:         [[WHOLE:%.+]] = memref.alloc(%most) : memref<?x8xf32>
// CHECK:         [[PACKED:%.+]] = memref.reinterpret_cast [[WHOLE]] to offset: [0], sizes: [%rows, 8], strides: [8, 1]
// CHECK:         vpu.pack_rows %{{.*}}, %{{.*}} into [[PACKED]] : memref<2x5x8xf32, {{.*}}>, memref<3xi64>, memref<?x8xf32>
func.func @packed(%real: tensor<2x5xi1>, %x: tensor<2x5x8xf32>) -> tensor<2x5x8xf32> {
  %e = tensor.empty() : tensor<3xi64>
  %y = tensor.empty() : tensor<2x5x8xf32>
  %most = arith.constant 10 : index
  %two = arith.constant 2 : index
  %offsets = vpu.row_offsets %real into %e : tensor<2x5xi1>, tensor<3xi64> -> tensor<3xi64>
  %end = tensor.extract %offsets[%two] : tensor<3xi64>
  %count = arith.index_cast %end : i64 to index
  %rows = arith.minsi %count, %most : index
  %r = tensor.empty(%rows) : tensor<?x8xf32>
  %p = vpu.pack_rows %x, %offsets into %r : tensor<2x5x8xf32>, tensor<3xi64>, tensor<?x8xf32> -> tensor<?x8xf32>
  %u = vpu.unpack_rows %p, %offsets into %y : tensor<?x8xf32>, tensor<3xi64>, tensor<2x5x8xf32> -> tensor<2x5x8xf32>
  func.return %u : tensor<2x5x8xf32>
}

// -----

// Rows that would all start in one set of a cache get a line between them, but not those of
// another length, or that are read by anything else.
// CHECK-LABEL: func.func @gap
// CHECK:         [[A:%.+]] = memref.alloc() : memref<2x3x1040xf32>
// CHECK:         [[V:%.+]] = memref.subview [[A]][0, 0, 0] [2, 3, 1024]
// CHECK-NEXT:    spu.matmul {{.*}} into [[V]] : {{.*}}, memref<2x3x1024xf32, strided<[3120, 1040, 1]>>
// CHECK:         vpu.quantise_rows [[V]] into
// CHECK:         [[B:%.+]] = memref.alloc() : memref<2x3x1008xf32>
// CHECK:         spu.matmul {{.*}} into [[B]] :
// CHECK:         [[C:%.+]] = memref.alloc() : memref<2x3x1024xf32>
// CHECK:         spu.matmul {{.*}} into [[C]] :
func.func @gap(%x: tensor<2x3x64xf32>, %w: tensor<1024x64xf32>, %v: tensor<1008x64xf32>) -> tensor<2x3x1024xf32> {
  %e = tensor.empty() : tensor<2x3x1024xf32>
  %q = tensor.empty() : tensor<2x3x1024xui8>
  %s = tensor.empty() : tensor<2x3xf32>
  %a = spu.matmul %x, %w into %e : tensor<2x3x64xf32>, tensor<1024x64xf32>, tensor<2x3x1024xf32> -> tensor<2x3x1024xf32>
  %aq, %as = vpu.quantise_rows %a into %q, %s : tensor<2x3x1024xf32>, tensor<2x3x1024xui8>, tensor<2x3xf32> -> tensor<2x3x1024xui8>, tensor<2x3xf32>
  %f = tensor.empty() : tensor<2x3x1008xf32>
  %r = tensor.empty() : tensor<2x3x1008xui8>
  %b = spu.matmul %x, %v into %f : tensor<2x3x64xf32>, tensor<1008x64xf32>, tensor<2x3x1008xf32> -> tensor<2x3x1008xf32>
  %bq, %bs = vpu.quantise_rows %b into %r, %s : tensor<2x3x1008xf32>, tensor<2x3x1008xui8>, tensor<2x3xf32> -> tensor<2x3x1008xui8>, tensor<2x3xf32>
  %c = spu.matmul %x, %w into %e : tensor<2x3x64xf32>, tensor<1024x64xf32>, tensor<2x3x1024xf32> -> tensor<2x3x1024xf32>
  %cq, %cs = vpu.quantise_rows %c into %q, %s : tensor<2x3x1024xf32>, tensor<2x3x1024xui8>, tensor<2x3xf32> -> tensor<2x3x1024xui8>, tensor<2x3xf32>
  %d = vpu.unary relu %c into %e : tensor<2x3x1024xf32>, tensor<2x3x1024xf32> -> tensor<2x3x1024xf32>
  func.return %d : tensor<2x3x1024xf32>
}
