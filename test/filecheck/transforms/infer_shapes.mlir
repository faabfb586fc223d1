// RUN: spu-opt %s -p infer-shapes | filecheck %s

// CHECK: func.func @main(
// CHECK-SAME: -> (tensor<?x?x32xf32> {onnx.name = "y", onnx.dim_params = "0:batch,1:seq"})
func.func @main(%ids: tensor<?x?xi64> {onnx.name = "ids", onnx.dim_params = "0:batch,1:seq"}) -> (tensor<*xf32> {onnx.name = "y"}) attributes {spu.extents = {batch = [1, 64], seq = [1, 512]}} {
  %words = "onnx.Constant"() {value = #spu.weights<"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", tensor<100x32xf32>>} : () -> tensor<100x32xf32>
  %places = "onnx.Constant"() {value = #spu.weights<"sha256:1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", tensor<1x2048xi64>>} : () -> tensor<1x2048xi64>
  %zero = "onnx.Constant"() {value = dense<0> : tensor<1xi64>} : () -> tensor<1xi64>
  %one = "onnx.Constant"() {value = dense<1> : tensor<1xi64>} : () -> tensor<1xi64>

  // ONNX follows an extent through a gather.
  // CHECK: [[WORDS:%.*]] = "onnx.Gather"({{.*}}) {onnx.dim_params = ["0:batch,1:seq"]} : (tensor<100x32xf32>, tensor<?x?xi64>) -> tensor<?x?x32xf32>
  %w = "onnx.Gather"(%words, %ids) : (tensor<100x32xf32>, tensor<?x?xi64>) -> tensor<*xf32>

  // The rules of our own follow it through a slice up to a length, and on into a sum.
  // CHECK: "onnx.Slice"({{.*}}) {onnx.dim_params = ["1:seq"]} : {{.*}} -> tensor<1x?xi64>
  %dims = "onnx.Shape"(%ids) : (tensor<?x?xi64>) -> tensor<*xi64>
  %seq = "onnx.Gather"(%dims, %one) : (tensor<*xi64>, tensor<1xi64>) -> tensor<*xi64>
  %p = "onnx.Slice"(%places, %zero, %seq, %one, %one) : (tensor<1x2048xi64>, tensor<1xi64>, tensor<*xi64>, tensor<1xi64>, tensor<1xi64>) -> tensor<*xi64>
  %q = "onnx.Gather"(%words, %p) : (tensor<100x32xf32>, tensor<*xi64>) -> tensor<*xf32>
  // CHECK: "onnx.Add"({{.*}}) {onnx.dim_params = ["0:batch,1:seq"]} : (tensor<?x?x32xf32>, tensor<1x?x32xf32>) -> tensor<?x?x32xf32>
  %sum = "onnx.Add"(%w, %q) : (tensor<*xf32>, tensor<*xf32>) -> tensor<*xf32>

  // And through a reshape into heads and back.
  // CHECK: "onnx.Reshape"({{.*}}) {onnx.dim_params = ["0:batch,1:seq"]} : (tensor<?x?x32xf32>, tensor<4xi64>) -> tensor<?x?x4x8xf32>
  %heads = "onnx.Constant"() {value = dense<[-1, 8]> : tensor<2xi64>} : () -> tensor<2xi64>
  %cut = "onnx.Concat"(%dims, %heads) {axis = 0 : i64} : (tensor<*xi64>, tensor<2xi64>) -> tensor<*xi64>
  %r = "onnx.Reshape"(%sum, %cut) : (tensor<*xf32>, tensor<*xi64>) -> tensor<*xf32>
  %rest = "onnx.Constant"() {value = dense<-1> : tensor<1xi64>} : () -> tensor<1xi64>
  %join = "onnx.Concat"(%dims, %rest) {axis = 0 : i64} : (tensor<*xi64>, tensor<1xi64>) -> tensor<*xi64>
  // CHECK: "onnx.Reshape"({{.*}}) {onnx.dim_params = ["0:batch,1:seq"]} : (tensor<?x?x4x8xf32>, tensor<3xi64>) -> tensor<?x?x32xf32>
  %y = "onnx.Reshape"(%r, %join) : (tensor<*xf32>, tensor<*xi64>) -> tensor<*xf32>
  func.return %y : tensor<*xf32>
}
