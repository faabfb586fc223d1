// RUN: spu-opt %s -p skip-padding,canonicalize,cse --split-input-file | filecheck %s

// The mask is 0 where there is padding. Rows are packed on the way in: what is computed from them
// is [rows, ...], whose number is read from the offsets and bounded by batch * seq. Attention adds
// the mask as before. On the way out, hidden states are unpacked with 0 and scores with the lowest.
// CHECK-LABEL: func.func @encoder
// CHECK:         [[REAL:%.+]] = vpu.cast %mask into {{.*}} : tensor<?x?xi64>, tensor<?x?xi1> -> tensor<?x?xi1>
// CHECK:         [[OFFSETS:%.+]] = vpu.row_offsets [[REAL]] into
// CHECK:         [[MOST:%.+]] = arith.muli %batch, %seq : index
// CHECK:         [[END:%.+]] = tensor.extract [[OFFSETS]][%batch] : tensor<?xi64>
// CHECK:         [[COUNT:%.+]] = arith.index_cast [[END]] : i64 to index
// CHECK:         %rows = arith.minsi [[COUNT]], [[MOST]] : index
// CHECK:         [[IDS:%.+]] = vpu.pack_rows %ids, [[OFFSETS]] into
// CHECK:         %words = vpu.gather %table, [[IDS]] into {{.*}} -> tensor<?x8xf32>
// CHECK:         [[PLACES:%.+]] = vpu.pack_rows %{{.*}}, [[OFFSETS]] into {{.*}} : tensor<1x?x8xf32>
// CHECK:         %x = vpu.binary add %words, [[PLACES]] into {{.*}} -> tensor<?x8xf32>
// CHECK:         %y = spu.attention %x, %x, %x mask(%added : tensor<?x1x1x?xf32>) offsets([[OFFSETS]] : tensor<?xi64>) into {{.*}} -> tensor<?x8xf32>
// CHECK:         %z = spu.matmul %y, %w residual(%x : tensor<?x8xf32>) into {{.*}} -> tensor<?x8xf32>
// CHECK:         [[SCORES:%.+]] = vpu.reduce sum %z into {{.*}}axes = array<i64: 1>{{.*}} : tensor<?x8xf32>, tensor<?xf32>
// CHECK:         [[FIRST:%.+]] = vpu.unpack_rows %z, [[OFFSETS]] into {{.*}} -> tensor<?x1x8xf32>
// CHECK:         [[Z:%.+]] = vpu.unpack_rows %z, [[OFFSETS]] into {{.*}} -> tensor<?x?x8xf32>
// CHECK:         [[S:%.+]] = vpu.unpack_rows [[SCORES]], [[OFFSETS]] into {{.*}}lowest{{.*}} : tensor<?xf32>, tensor<?xi64>, tensor<?x?xf32> -> tensor<?x?xf32>
// CHECK:         func.return [[Z]], [[S]], [[FIRST]]
func.func @encoder(%ids: tensor<?x?xi64> {onnx.dim_params = "0:batch,1:seq"}, %mask: tensor<?x?xi64> {onnx.dim_params = "0:batch,1:seq"}, %places: tensor<16x8xf32>, %table: tensor<9x8xf32>) -> (tensor<?x?x8xf32>, tensor<?x?xf32>, tensor<?x1x8xf32>) attributes {spu.extents = {batch = [1, 4], seq = [1, 16]}} {
  %0 = arith.constant 0 : index
  %1 = arith.constant 1 : index
  %batch = tensor.dim %ids, %0 : tensor<?x?xi64>
  %seq = tensor.dim %ids, %1 : tensor<?x?xi64>
  %e2 = tensor.empty(%batch, %seq) : tensor<?x?xf32>
  %e3 = tensor.empty(%batch, %seq) : tensor<?x?x8xf32>
  %e4 = tensor.empty(%batch, %seq) : tensor<?x1x1x?xf32>
  %es = tensor.empty(%seq) : tensor<?x8xf32>
  %e1 = tensor.empty(%batch) : tensor<?x1x8xf32>
  %one = antoum.constant dense<1.0> : tensor<f32> : tensor<f32>
  %low = antoum.constant dense<-10000.0> : tensor<f32> : tensor<f32>
  %w = antoum.constant dense<0.5> : tensor<8x8xf32> : tensor<8x8xf32>
  %m = vpu.cast %mask into %e2 : tensor<?x?xi64>, tensor<?x?xf32> -> tensor<?x?xf32>
  %n = vpu.binary sub %one, %m into %e2 : tensor<f32>, tensor<?x?xf32>, tensor<?x?xf32> -> tensor<?x?xf32>
  %o = vpu.binary mul %n, %low into %e2 : tensor<?x?xf32>, tensor<f32>, tensor<?x?xf32> -> tensor<?x?xf32>
  %added = vpu.reshape %o into %e4 : tensor<?x?xf32>, tensor<?x1x1x?xf32> -> tensor<?x1x1x?xf32>
  %words = vpu.gather %table, %ids into %e3 {axis = 0 : i64} : tensor<9x8xf32>, tensor<?x?xi64>, tensor<?x?x8xf32> -> tensor<?x?x8xf32>
  %p = vpu.slice %places into %es {starts = array<i64: 0, 0>, steps = array<i64: 1, 1>} : tensor<16x8xf32>, tensor<?x8xf32> -> tensor<?x8xf32>
  %x = vpu.binary add %words, %p into %e3 : tensor<?x?x8xf32>, tensor<?x8xf32>, tensor<?x?x8xf32> -> tensor<?x?x8xf32>
  %y = spu.attention %x, %x, %x mask(%added : tensor<?x1x1x?xf32>) into %e3 {heads = 2 : i64, kv_heads = 2 : i64, scale = 0.5 : f32} : tensor<?x?x8xf32>, tensor<?x?x8xf32>, tensor<?x?x8xf32>, tensor<?x?x8xf32> -> tensor<?x?x8xf32>
  %z = spu.matmul %y, %w residual(%x : tensor<?x?x8xf32>) into %e3 : tensor<?x?x8xf32>, tensor<8x8xf32>, tensor<?x?x8xf32> -> tensor<?x?x8xf32>
  %s = vpu.reduce sum %z into %e2 {axes = array<i64: 2>} : tensor<?x?x8xf32>, tensor<?x?xf32> -> tensor<?x?xf32>
  %first = vpu.slice %z into %e1 {starts = array<i64: 0, 0, 0>, steps = array<i64: 1, 1, 1>} : tensor<?x?x8xf32>, tensor<?x1x8xf32> -> tensor<?x1x8xf32>
  func.return %z, %s, %first : tensor<?x?x8xf32>, tensor<?x?xf32>, tensor<?x1x8xf32>
}

// -----

// A sum over all positions needs all rows, and so do the ops before it; a mask of -infinity still
// lets attention leave the padded keys out. Truth values mark padding here.
// CHECK-LABEL: func.func @unmasked_sum
// CHECK:         [[REAL:%.+]] = vpu.unary not %hidden into
// CHECK:         [[OFFSETS:%.+]] = vpu.row_offsets [[REAL]] into {{.*}} : tensor<2x4xi1>, tensor<3xi64> -> tensor<3xi64>
// CHECK-NOT:     vpu.pack_rows
// CHECK:         spu.attention %y, %y, %y mask({{.*}}) offsets([[OFFSETS]] : tensor<3xi64>) into {{.*}} {padding_reason = "all rows of its result are needed by vpu.reduce of total", {{.*}} -> tensor<2x4x8xf32>
func.func @unmasked_sum(%x: tensor<2x4x8xf32>, %hidden: tensor<2x4xi1>) -> tensor<2x8xf32> {
  %e3 = tensor.empty() : tensor<2x4x8xf32>
  %e4 = tensor.empty() : tensor<2x1x1x4xf32>
  %eb = tensor.empty() : tensor<2x1x1x4xi1>
  %e2 = tensor.empty() : tensor<2x8xf32>
  %es = tensor.empty() : tensor<f32>
  %zero = antoum.constant dense<0.0> : tensor<f32> : tensor<f32>
  %minus = antoum.constant dense<-1.0> : tensor<f32> : tensor<f32>
  %lowest = vpu.binary div %minus, %zero into %es : tensor<f32>, tensor<f32>, tensor<f32> -> tensor<f32>
  %wide = vpu.reshape %hidden into %eb : tensor<2x4xi1>, tensor<2x1x1x4xi1> -> tensor<2x1x1x4xi1>
  %m = vpu.select %wide, %lowest, %zero into %e4 : tensor<2x1x1x4xi1>, tensor<f32>, tensor<f32>, tensor<2x1x1x4xf32> -> tensor<2x1x1x4xf32>
  %y = vpu.unary tanh %x into %e3 : tensor<2x4x8xf32>, tensor<2x4x8xf32> -> tensor<2x4x8xf32>
  %z = spu.attention %y, %y, %y mask(%m : tensor<2x1x1x4xf32>) into %e3 {heads = 2 : i64, kv_heads = 2 : i64, scale = 0.5 : f32} : tensor<2x4x8xf32>, tensor<2x4x8xf32>, tensor<2x4x8xf32>, tensor<2x4x8xf32> -> tensor<2x4x8xf32>
  %t = vpu.reduce sum %z into %e2 {layer = "total", axes = array<i64: 1>} : tensor<2x4x8xf32>, tensor<2x8xf32> -> tensor<2x8xf32>
  func.return %t : tensor<2x8xf32>
}

// -----

// A product with what is 0 at padding hides the rows there: they are unpacked as 0 for it.
// CHECK-LABEL: func.func @masked_sum
// CHECK:         [[Z:%.+]] = spu.attention {{.*}} offsets({{.*}}) into {{.*}} -> tensor<?x8xf32>
// CHECK:         [[ALL:%.+]] = vpu.unpack_rows [[Z]], {{.*}} -> tensor<2x4x8xf32>
// CHECK:         [[KEPT:%.+]] = vpu.binary mul [[ALL]], {{.*}} -> tensor<2x4x8xf32>
// CHECK:         vpu.reduce sum [[KEPT]] into
func.func @masked_sum(%x: tensor<2x4x8xf32>, %mask: tensor<2x4xf32>) -> tensor<2x8xf32> {
  %e3 = tensor.empty() : tensor<2x4x8xf32>
  %e4 = tensor.empty() : tensor<2x1x1x4xf32>
  %ec = tensor.empty() : tensor<2x4x1xf32>
  %em = tensor.empty() : tensor<2x4xf32>
  %e2 = tensor.empty() : tensor<2x8xf32>
  %one = antoum.constant dense<1.0> : tensor<f32> : tensor<f32>
  %low = antoum.constant dense<-10000.0> : tensor<f32> : tensor<f32>
  %n = vpu.binary sub %one, %mask into %em : tensor<f32>, tensor<2x4xf32>, tensor<2x4xf32> -> tensor<2x4xf32>
  %o = vpu.binary mul %n, %low into %em : tensor<2x4xf32>, tensor<f32>, tensor<2x4xf32> -> tensor<2x4xf32>
  %m = vpu.reshape %o into %e4 : tensor<2x4xf32>, tensor<2x1x1x4xf32> -> tensor<2x1x1x4xf32>
  %y = vpu.unary tanh %x into %e3 : tensor<2x4x8xf32>, tensor<2x4x8xf32> -> tensor<2x4x8xf32>
  %z = spu.attention %y, %y, %y mask(%m : tensor<2x1x1x4xf32>) into %e3 {heads = 2 : i64, kv_heads = 2 : i64, scale = 0.5 : f32} : tensor<2x4x8xf32>, tensor<2x4x8xf32>, tensor<2x4x8xf32>, tensor<2x4x8xf32> -> tensor<2x4x8xf32>
  %column = vpu.reshape %mask into %ec : tensor<2x4xf32>, tensor<2x4x1xf32> -> tensor<2x4x1xf32>
  %kept = vpu.binary mul %z, %column into %e3 : tensor<2x4x8xf32>, tensor<2x4x1xf32>, tensor<2x4x8xf32> -> tensor<2x4x8xf32>
  %t = vpu.reduce sum %kept into %e2 {axes = array<i64: 1>} : tensor<2x4x8xf32>, tensor<2x8xf32> -> tensor<2x8xf32>
  func.return %t : tensor<2x8xf32>
}
