// RUN: spu-opt %s -p 'preprocess-images{height=2 width=3 mean=0.5,0.0,1.0 std=0.5,1.0,2.0 divide=1.0},canonicalize,cse,dce' --split-input-file | filecheck %s
// RUN: spu-opt %s -p 'preprocess-images{height=2 width=3 mean=0.5,0.0,1.0 std=0.5,1.0,2.0 divide=1.0 colour=bgr interpolation=bicubic antialias=false input=x},sink-transposes,canonicalize,cse,dce' --split-input-file | filecheck %s --check-prefix=BGR

// The input becomes a canvas of bytes and the geometry of what is on it. A row has up to
// 2 * ceil(2048 / 2) + 1 taps. The table has a number for each byte and channel.
// CHECK-LABEL: func.func @main
// CHECK-SAME:    (%canvas: tensor<?x?x?x3xui8> {onnx.name = "x", onnx.dim_params = "0:batch,1:height_of_image,2:width_of_image"}, %geometry: tensor<?x2x4xi32> {onnx.name = "x.geometry", onnx.dim_params = "0:batch"}) -> (tensor<?x2x3x3xf32> {onnx.name = "y"})
// CHECK-SAME:    spu.extents = {batch = [1 : i64, 8 : i64], height_of_image = [1 : i64, 2048 : i64], width_of_image = [1 : i64, 2048 : i64]}
// CHECK:         %batch = tensor.dim %canvas
// CHECK:         [[ROWS:%.+]], [[ROW_WEIGHTS:%.+]] = vpu.resize_taps bilinear %geometry into {{.*}}axis = 0 : i64{{.*}} -> tensor<?x2x2xi32>, tensor<?x2x2049xi32>
// CHECK:         [[COLUMNS:%.+]], [[COLUMN_WEIGHTS:%.+]] = vpu.resize_taps bilinear %geometry into {{.*}}axis = 1 : i64{{.*}} -> tensor<?x3x2xi32>, tensor<?x3x1367xi32>
// CHECK:         [[SMALL:%.+]] = vpu.resize %canvas rows([[ROWS]], [[ROW_WEIGHTS]] : {{.*}}) columns([[COLUMNS]], [[COLUMN_WEIGHTS]] : {{.*}}) into {{.*}} -> tensor<?x2x3x3xui8>
// CHECK:         [[NUMBERS:%.+]] = vpu.table [[SMALL]], {{.*}} : tensor<?x2x3x3xui8>, tensor<3x256xf32>, tensor<?x2x3x3xf32> -> tensor<?x2x3x3xf32>
// CHECK:         vpu.transpose [[NUMBERS]] into {{.*}} {layer = "preprocess", perm = array<i64: 0, 3, 1, 2>}

// The two transposes cancel; channels are turned around as bytes.
// BGR-LABEL:   func.func @main
// BGR:         vpu.resize_taps bicubic %geometry into {{.*}}antialias = false{{.*}} -> tensor<?x2x2xi32>, tensor<?x2x5xi32>
// BGR:         [[SMALL:%.+]] = vpu.resize %canvas
// BGR:         [[TURNED:%.+]] = vpu.slice [[SMALL]] into {{.*}}starts = array<i64: 0, 0, 0, 2>, steps = array<i64: 1, 1, 1, -1>
// BGR:         [[NUMBERS:%.+]] = vpu.table [[TURNED]],
// BGR-NOT:     vpu.transpose
// BGR:         func.return [[NUMBERS]]
func.func @main(%x: tensor<?x3x2x3xf32> {onnx.name = "x", onnx.dim_params = "0:batch"}) -> (tensor<?x2x3x3xf32> {onnx.name = "y"}) attributes {spu.extents = {batch = [1 : i64, 8 : i64]}} {
  %zero = arith.constant 0 : index
  %batch = tensor.dim %x, %zero : tensor<?x3x2x3xf32>
  %init = tensor.empty(%batch) : tensor<?x2x3x3xf32>
  %y = vpu.transpose %x into %init {perm = array<i64: 0, 2, 3, 1>} : tensor<?x3x2x3xf32>, tensor<?x2x3x3xf32> -> tensor<?x2x3x3xf32>
  func.return %y : tensor<?x2x3x3xf32>
}

// -----

// A fixed batch, channels last already, and another input that is no image.
// CHECK-LABEL: func.func @main
// CHECK-SAME:    (%w: tensor<3xf32>, %canvas: tensor<2x?x?x3xui8> {onnx.name = "x", onnx.dim_params = "1:height_of_image,2:width_of_image"}, %geometry: tensor<2x2x4xi32> {onnx.name = "x.geometry"})
// CHECK:         [[NUMBERS:%.+]] = vpu.table
// CHECK:         vpu.binary mul [[NUMBERS]], %w
func.func @main(%w: tensor<3xf32>, %x: tensor<2x2x3x3xf32> {onnx.name = "x"}) -> tensor<2x2x3x3xf32> {
  %init = tensor.empty() : tensor<2x2x3x3xf32>
  %y = vpu.binary mul %x, %w into %init : tensor<2x2x3x3xf32>, tensor<3xf32>, tensor<2x2x3x3xf32> -> tensor<2x2x3x3xf32>
  func.return %y : tensor<2x2x3x3xf32>
}
