// RUN: spu-opt %s -p 'lower-onnx,dce' | filecheck %s

// Places that follow from the extents are no data: the mask at [i, j] of all samples i and keys j
// is a reshape, `j >= 0` is nothing, and what is expanded for every query is selected before.
// CHECK-LABEL: func.func @main
// CHECK-NOT:     vpu.gather
// CHECK:         vpu.reshape %x into {{.*}} : tensor<?x?xi1>, tensor<?x1x1x?xi1> -> tensor<?x1x1x?xi1>
// CHECK-NOT:     vpu.binary
// CHECK:         vpu.select {{.*}} -> tensor<?x1x1x?xf32>
// CHECK-NEXT:    tensor.empty
// CHECK-NEXT:    vpu.expand {{.*}} -> tensor<?x1x?x?xf32>
// CHECK-NEXT:    func.return
func.func @main(%x : tensor<?x?xi1> {onnx.name = "x", onnx.dim_params = "0:batch,1:seq"}) -> tensor<?x1x?x?xf32> attributes {spu.extents = {batch = [1, 4], seq = [1, 16]}} {
  %zero = "onnx.Constant"() {value = dense<0> : tensor<i64>} : () -> tensor<i64>
  %one = "onnx.Constant"() {value = dense<1> : tensor<i64>} : () -> tensor<i64>
  %ones = "onnx.Constant"() {value = dense<1> : tensor<1xi64>} : () -> tensor<1xi64>
  %axes = "onnx.Constant"() {value = dense<[1, 2, 3]> : tensor<3xi64>} : () -> tensor<3xi64>
  %keep = "onnx.Constant"() {value = dense<0.0> : tensor<f32>} : () -> tensor<f32>
  %drop = "onnx.Constant"() {value = dense<-1.0> : tensor<f32>} : () -> tensor<f32>
  %b = "onnx.Shape"(%x) {start = 0 : i64, end = 1 : i64} : (tensor<?x?xi1>) -> tensor<1xi64>
  %s = "onnx.Shape"(%x) {start = 1 : i64, end = 2 : i64} : (tensor<?x?xi1>) -> tensor<1xi64>
  %bs = "onnx.Squeeze"(%b) : (tensor<1xi64>) -> tensor<i64>
  %ss = "onnx.Squeeze"(%s) : (tensor<1xi64>) -> tensor<i64>
  %rows = "onnx.Range"(%zero, %bs, %one) : (tensor<i64>, tensor<i64>, tensor<i64>) -> tensor<?xi64>
  %j = "onnx.Range"(%zero, %ss, %one) : (tensor<i64>, tensor<i64>, tensor<i64>) -> tensor<?xi64>
  %i = "onnx.Unsqueeze"(%rows, %axes) : (tensor<?xi64>, tensor<3xi64>) -> tensor<?x1x1x1xi64>
  %grid = "onnx.Concat"(%b, %ones, %ones, %s) {axis = 0 : i64} : (tensor<1xi64>, tensor<1xi64>, tensor<1xi64>, tensor<1xi64>) -> tensor<4xi64>
  %ie = "onnx.Expand"(%i, %grid) : (tensor<?x1x1x1xi64>, tensor<4xi64>) -> tensor<?x1x1x?xi64>
  %je = "onnx.Expand"(%j, %grid) : (tensor<?xi64>, tensor<4xi64>) -> tensor<?x1x1x?xi64>
  %last = "onnx.Constant"() {value = dense<-1> : tensor<1xi64>} : () -> tensor<1xi64>
  %iu = "onnx.Unsqueeze"(%ie, %last) : (tensor<?x1x1x?xi64>, tensor<1xi64>) -> tensor<?x1x1x?x1xi64>
  %ju = "onnx.Unsqueeze"(%je, %last) : (tensor<?x1x1x?xi64>, tensor<1xi64>) -> tensor<?x1x1x?x1xi64>
  %at = "onnx.Concat"(%iu, %ju) {axis = -1 : i64} : (tensor<?x1x1x?x1xi64>, tensor<?x1x1x?x1xi64>) -> tensor<?x1x1x?x2xi64>
  %m = "onnx.GatherND"(%x, %at) : (tensor<?x?xi1>, tensor<?x1x1x?x2xi64>) -> tensor<?x1x1x?xi1>
  %real = "onnx.GreaterOrEqual"(%j, %zero) : (tensor<?xi64>, tensor<i64>) -> tensor<?xi1>
  %both = "onnx.And"(%real, %m) : (tensor<?xi1>, tensor<?x1x1x?xi1>) -> tensor<?x1x1x?xi1>
  %full = "onnx.Concat"(%b, %ones, %s, %s) {axis = 0 : i64} : (tensor<1xi64>, tensor<1xi64>, tensor<1xi64>, tensor<1xi64>) -> tensor<4xi64>
  %wide = "onnx.Expand"(%both, %full) : (tensor<?x1x1x?xi1>, tensor<4xi64>) -> tensor<?x1x?x?xi1>
  %y = "onnx.Where"(%wide, %keep, %drop) : (tensor<?x1x?x?xi1>, tensor<f32>, tensor<f32>) -> tensor<?x1x?x?xf32>
  func.return %y : tensor<?x1x?x?xf32>
}
